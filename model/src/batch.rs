//! A batch of enriched records as storage keeps it: newline-delimited JSON, checked once.
//!
//! Invariant: a [`ValidBatch`] has as many lines as records, every line is an enriched record, and the last ends with
//! a newline. Whoever holds one need not look again.

use ::bytes::{BufMut, Bytes, BytesMut};

use crate::json::{self, JsonError, Scanner};
use crate::limits;
use crate::line::{EnrichedLine, LineError};
use crate::problem::Problem;
use crate::usual::{Tail, UsualLine, usual_line};

/// A batch that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidBatch {
    bytes: Bytes,
    record_count: u32,
    timestamp_min_ms: u64,
    timestamp_max_ms: u64,
}

/// Why a batch was not taken. Nothing of it is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There are no records.
    #[error("the batch is empty")]
    Empty,
    /// There are more records than a batch's header can count.
    #[error("the batch has more than {} records", u32::MAX)]
    TooMany,
    /// The batch as a whole is not a JSON array.
    #[error("the body is not a JSON array: {0}")]
    Syntax(JsonError),
    /// The text is not UTF-8.
    #[error("the body is not UTF-8 at byte {0}")]
    Utf8(usize),
    /// A line does not begin with `{` and end with `}`.
    #[error("record {index}: a line has to be one JSON object without white space around it")]
    Line {
        /// The line's place in the batch, from zero.
        index: usize,
    },
    /// A record is longer than [`limits::RECORD_BYTES_MAX`].
    #[error("record {index} has more than {} bytes", limits::RECORD_BYTES_MAX)]
    TooLong {
        /// The record's place in the batch, from zero.
        index: usize,
    },
    /// A line is not an enriched record.
    #[error("record {index}: {error}")]
    Record {
        /// The record's place in the batch, from zero.
        index: usize,
        /// What is wrong with it.
        error: LineError,
    },
}

impl BatchError {
    /// The error as an answer: 400, naming the record and the field.
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(400, self.to_string());
        match self {
            Self::Line { index } | Self::TooLong { index } => problem.at_record(*index),
            Self::Record { index, error } if error.field().is_empty() => problem.at_record(*index),
            Self::Record { index, error } => problem.at_record(*index).in_field(error.field()),
            Self::Empty | Self::TooMany | Self::Syntax(_) | Self::Utf8(_) => problem,
        }
    }
}

impl ValidBatch {
    /// Checks newline-delimited records. The bytes are kept as they are; a missing last newline is added.
    pub fn from_ndjson(bytes: Bytes) -> Result<Self, BatchError> {
        let text = utf8(&bytes)?;
        let mut summary = Summary::default();
        let mut rest = text;
        let mut tail = Tail::default();
        while !rest.is_empty() {
            if let Some(UsualLine { timestamp, length }) = usual_line(rest, &mut tail) {
                summary.note(timestamp);
                rest = rest.get(length + 1..).unwrap_or_default();
                continue;
            }
            let end = memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
            let line = rest.get(..end).unwrap_or_default();
            summary.add_line(line)?;
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        let terminated = bytes.last() == Some(&b'\n');
        summary.finish(if terminated { bytes } else { with_newline(bytes) })
    }

    /// Checks a JSON array of records and writes each as one line, without white space between its tokens.
    pub fn from_json_array(body: &[u8]) -> Result<Self, BatchError> {
        let text = utf8(body)?;
        let mut scanner = Scanner::new(text);
        let mut lines = Vec::with_capacity(body.len() + 1);
        let mut summary = Summary::default();
        scanner.skip_white_space();
        scanner.array_items(|scanner| {
            let start = scanner.position();
            scanner.value().map_err(BatchError::Syntax)?;
            let line_start = lines.len();
            json::append_compact(&mut lines, scanner.text_since(start));
            let line = lines.get(line_start..).unwrap_or_default();
            // Leaving out white space cannot break UTF-8.
            summary.add_line(utf8(line)?)?;
            lines.push(b'\n');
            Ok::<(), BatchError>(())
        })?;
        scanner.end()?;
        summary.finish(lines.into())
    }

    /// A batch that another replica has checked and stored, and whose checksum was compared since. Its lines are counted
    /// and no more; `None` when they are not as many as it says.
    pub fn from_replica(
        bytes: Bytes,
        record_count: u32,
        timestamp_min_ms: u64,
        timestamp_max_ms: u64,
    ) -> Option<Self> {
        let lines = memchr::memchr_iter(b'\n', &bytes).count();
        let is_whole = bytes.last() == Some(&b'\n') && lines as u64 == u64::from(record_count);
        is_whole.then_some(Self { bytes, record_count, timestamp_min_ms, timestamp_max_ms })
    }

    /// The lines, each with its newline.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many records, at least one.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// The earliest record's timestamp, Unix milliseconds.
    pub fn timestamp_min_ms(&self) -> u64 {
        self.timestamp_min_ms
    }

    /// The latest record's timestamp, Unix milliseconds.
    pub fn timestamp_max_ms(&self) -> u64 {
        self.timestamp_max_ms
    }
}

impl From<JsonError> for BatchError {
    fn from(error: JsonError) -> Self {
        Self::Syntax(error)
    }
}

/// What was seen of a batch so far.
struct Summary {
    count: usize,
    timestamp_min_ms: u64,
    timestamp_max_ms: u64,
}

impl Default for Summary {
    fn default() -> Self {
        Self { count: 0, timestamp_min_ms: u64::MAX, timestamp_max_ms: 0 }
    }
}

impl Summary {
    fn add_line(&mut self, line: &str) -> Result<(), BatchError> {
        let index = self.count;
        if line.len() > limits::RECORD_BYTES_MAX {
            return Err(BatchError::TooLong { index });
        }
        if !(line.starts_with('{') && line.ends_with('}')) {
            return Err(BatchError::Line { index });
        }
        let record = EnrichedLine::parse_str(line).map_err(|error| BatchError::Record { index, error })?;
        self.note(record.timestamp);
        Ok(())
    }

    /// Counts a record that was checked.
    fn note(&mut self, timestamp_ms: u64) {
        self.timestamp_min_ms = self.timestamp_min_ms.min(timestamp_ms);
        self.timestamp_max_ms = self.timestamp_max_ms.max(timestamp_ms);
        self.count += 1;
    }

    fn finish(self, bytes: Bytes) -> Result<ValidBatch, BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        let record_count = u32::try_from(self.count).map_err(|_| BatchError::TooMany)?;
        let Self { timestamp_min_ms, timestamp_max_ms, .. } = self;
        Ok(ValidBatch { bytes, record_count, timestamp_min_ms, timestamp_max_ms })
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, BatchError> {
    simdutf8::compat::from_utf8(bytes).map_err(|error| BatchError::Utf8(error.valid_up_to()))
}

fn with_newline(bytes: Bytes) -> Bytes {
    let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    bytes.put_u8(b'\n');
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(timestamp: u64, message: &str) -> String {
        format!(
            r#"{{"timestamp":{timestamp},"service":"s","message":{message},"received_at":2,"ingested_node_id":"n","client_ip":"i"}}"#
        )
    }

    #[test]
    fn ndjson_is_kept_byte_for_byte_and_counted() {
        let text = format!("{}\n{}\n", line(5, "\"a\""), line(3, "\"\\u0000\""));
        let batch = ValidBatch::from_ndjson(text.clone().into()).unwrap();
        assert_eq!(batch.bytes(), text.as_bytes());
        assert_eq!(batch.record_count(), 2);
        assert_eq!((batch.timestamp_min_ms(), batch.timestamp_max_ms()), (3, 5));
    }

    #[test]
    fn a_missing_last_newline_is_added() {
        let text = line(5, "\"a\"");
        let batch = ValidBatch::from_ndjson(text.clone().into()).unwrap();
        assert_eq!(batch.bytes(), format!("{text}\n").as_bytes());
    }

    #[test]
    fn an_array_becomes_lines_whatever_white_space_it_has() {
        let array =
            format!(" [ {} ,\n {} ] ", line(1, "\"a b\"").replace(",\"", " ,\r\n\t\""), line(2, "\"c\""));
        let batch = ValidBatch::from_json_array(array.as_bytes()).unwrap();
        assert_eq!(batch.bytes(), format!("{}\n{}\n", line(1, "\"a b\""), line(2, "\"c\"")).as_bytes());
        assert_eq!(batch.record_count(), 2);
    }

    #[test]
    fn one_bad_record_refuses_the_batch_and_is_named() {
        let text = format!("{}\n{}\n", line(1, "\"a\""), line(2, "7"));
        let problem = ValidBatch::from_ndjson(text.into()).unwrap_err().problem();
        assert_eq!(
            (problem.status, problem.index, problem.field.as_deref()),
            (400, Some(1), Some("message"))
        );
    }

    #[test]
    fn lines_that_are_not_exactly_one_object_are_refused() {
        let good = line(1, "\"a\"");
        for bad in
            [format!("{good}\n\n{good}\n"), format!(" {good}\n"), format!("{good}\r\n"), "\n".to_owned()]
        {
            let error = ValidBatch::from_ndjson(bad.clone().into()).unwrap_err();
            assert!(matches!(error, BatchError::Line { .. }), "{bad:?}: {error}");
        }
        let two = format!("{good}{good}\n");
        assert!(ValidBatch::from_ndjson(two.into()).is_err());
    }

    #[test]
    fn empty_batches_and_broken_arrays_are_refused() {
        assert_eq!(ValidBatch::from_ndjson(Bytes::new()), Err(BatchError::Empty));
        assert_eq!(ValidBatch::from_json_array(b"[]"), Err(BatchError::Empty));
        assert!(matches!(ValidBatch::from_json_array(b"[{]"), Err(BatchError::Syntax(_))));
        assert!(matches!(ValidBatch::from_json_array(b"{}"), Err(BatchError::Syntax(_))));
        assert_eq!(ValidBatch::from_ndjson(Bytes::from_static(b"\xff")), Err(BatchError::Utf8(0)));
    }
}
