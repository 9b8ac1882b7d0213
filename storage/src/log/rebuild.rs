//! A batch index made from the lines alone: for files of another program, and for indexes that were lost.
//!
//! Such batches have no id: what was lost with the index is the memory of which batches were stored. Lines that are no
//! records get batches of their own, marked unreadable, so that they are neither served nor lost; so do lines beyond
//! those that there is room for before the next segment's offsets: those batches count no records.

use bytes::BytesMut;
use model::{EnrichedLine, Offset, Partition};

use super::format::{BatchHeader, BatchKind, IndexFileHeader};
use super::limits;
use super::segment::Summary;
use super::segment_data::{DataError, FrameCache, SegmentData};

/// An index that was made from lines.
#[derive(Debug)]
pub(super) struct Rebuilt {
    /// The index file's bytes.
    pub(super) index: Vec<u8>,
    /// What the segment holds.
    pub(super) summary: Summary,
}

/// Makes the index of a segment of `data_bytes` bytes, whose offsets end at `next_base` if another segment follows. A
/// last line without newline is left out if `may_be_torn`: it was being written. Otherwise it counts as a line that is no
/// record.
pub(super) fn rebuild(
    partition: Partition,
    base_offset: Offset,
    data: &SegmentData,
    data_bytes: u64,
    (may_be_torn, next_base): (bool, Option<Offset>),
) -> Result<Rebuilt, DataError> {
    let mut builder = Builder::new(partition, base_offset, next_base);
    let mut cache = FrameCache::default();
    let mut pending = BytesMut::new();
    let mut position = 0;
    while position < data_bytes {
        let length = (data_bytes - position).min(limits::SCAN_BUFFER_BYTES as u64);
        pending.extend_from_slice(&data.read(position, length as usize, &mut cache)?);
        position += length;
        if let Some(end) = memchr::memrchr(b'\n', &pending) {
            builder.add_lines(&pending.split_to(end + 1));
        }
    }
    if !pending.is_empty() && !may_be_torn {
        builder.add_line(&pending);
    }
    builder.finish_batch();
    Ok(Rebuilt { index: builder.index, summary: builder.summary })
}

struct Builder {
    index: Vec<u8>,
    summary: Summary,
    /// Where the next segment's offsets begin.
    next_base: Option<Offset>,
    /// The batch that is being gathered; without bytes there is none.
    batch: BatchHeader,
    crc: crc32fast::Hasher,
}

impl Builder {
    fn new(partition: Partition, base_offset: Offset, next_base: Option<Offset>) -> Self {
        let summary = Summary::empty(base_offset);
        Self {
            index: IndexFileHeader { partition, base_offset }.encode(),
            batch: empty_batch(&summary),
            summary,
            next_base,
            crc: crc32fast::Hasher::new(),
        }
    }

    fn add_lines(&mut self, mut lines: &[u8]) {
        while let Some(newline) = memchr::memchr(b'\n', lines)
            && let Some((line, rest)) = lines.split_at_checked(newline + 1)
        {
            self.add_line(line);
            lines = rest;
        }
    }

    /// Adds a line with its newline.
    fn add_line(&mut self, line: &[u8]) {
        let has_offset = self.next_base.is_none_or(|next| self.batch.end_offset() < next);
        let parsed =
            line.strip_suffix(b"\n").filter(|_| has_offset).and_then(|text| EnrichedLine::parse(text).ok());
        let is_full = self.batch.record_count >= limits::REBUILT_BATCH_RECORDS_MAX
            || self.batch.length as usize + line.len() > limits::REBUILT_BATCH_BYTES_MAX
            || (self.batch.record_count > 0 && !has_offset);
        if self.batch.length > 0 && (is_full || self.batch.unreadable != parsed.is_none()) {
            self.finish_batch();
        }
        self.batch.record_count += u32::from(has_offset);
        self.batch.length = self.batch.length.saturating_add(line.len() as u32);
        self.crc.update(line);
        match parsed {
            Some(record) => {
                self.batch.timestamp_min_ms = self.batch.timestamp_min_ms.min(record.timestamp);
                self.batch.timestamp_max_ms = self.batch.timestamp_max_ms.max(record.timestamp);
                self.batch.appended_at_ms = self.batch.appended_at_ms.max(record.received_at);
            }
            None => {
                self.batch.unreadable = true;
                // When it happened is not known: a search by time must not pass the damage over.
                self.batch.timestamp_min_ms = 0;
                self.batch.timestamp_max_ms = u64::MAX;
            }
        }
    }

    fn finish_batch(&mut self) {
        if self.batch.length == 0 {
            return;
        }
        self.batch.crc = std::mem::take(&mut self.crc).finalize();
        self.batch.encode(&mut self.index);
        self.summary.add(&self.batch);
        self.batch = empty_batch(&self.summary);
    }
}

fn empty_batch(before: &Summary) -> BatchHeader {
    BatchHeader {
        timestamp_min_ms: u64::MAX,
        // All of it was found, so all of it was written before.
        flushed_batches: before.batch_count,
        ..before.next_header(BatchKind::Records)
    }
}
