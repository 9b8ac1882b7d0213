//! One stored line: an enriched record's JSON text, checked, as slices of the line.
//!
//! Invariant: a value of [`EnrichedLine`] came from a line that holds one whole enriched record. The fields that
//! edgelog does not know are allowed and kept, so that a newer writer's lines can be read.

use crate::json::{JsonError, JsonStr, Scanner, Value};
use crate::limits;

/// An enriched record, as slices of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrichedLine<'a> {
    /// When it happened, Unix milliseconds.
    pub timestamp: u64,
    /// When the ingest took it, Unix milliseconds.
    pub received_at: u64,
    /// What logged it.
    pub service: JsonStr<'a>,
    /// Its severity.
    pub level: Option<JsonStr<'a>>,
    /// The text.
    pub message: JsonStr<'a>,
    /// The text of its labels, an object of strings.
    pub labels: Option<&'a str>,
}

/// Why a line is not an enriched record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line is not JSON, or is no object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The line is not UTF-8.
    #[error("the text is not UTF-8 at byte {0}")]
    Utf8(usize),
    /// A field is missing or of the wrong kind.
    #[error("{field}: {reason}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl LineError {
    /// The field at fault, or an empty text when it is the line as a whole.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Field { field, .. } => field,
            Self::Json(_) | Self::Utf8(_) => "",
        }
    }
}

impl<'a> EnrichedLine<'a> {
    /// Checks a line (without its newline) and finds its fields.
    pub fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let text = std::str::from_utf8(line).map_err(|error| LineError::Utf8(error.valid_up_to()))?;
        Self::parse_str(text)
    }

    /// As [`Self::parse`], for text that is known to be UTF-8.
    pub fn parse_str(line: &'a str) -> Result<Self, LineError> {
        let mut scanner = Scanner::new(line);
        let record = Self::scan(&mut scanner)?;
        scanner.end()?;
        Ok(record)
    }

    /// Scans an enriched record from the next token on.
    pub(crate) fn scan(scanner: &mut Scanner<'a>) -> Result<Self, LineError> {
        let mut fields = Fields::default();
        scanner.object_members(|scanner, name| fields.scan_member(scanner, name))?;
        fields.finish()
    }
}

/// The fields seen so far.
#[derive(Default)]
struct Fields<'a> {
    timestamp: Option<u64>,
    received_at: Option<u64>,
    service: Option<JsonStr<'a>>,
    level: Option<Option<JsonStr<'a>>>,
    message: Option<JsonStr<'a>>,
    labels: Option<Option<&'a str>>,
    ingested_node_id: Option<JsonStr<'a>>,
    client_ip: Option<JsonStr<'a>>,
}

impl<'a> Fields<'a> {
    #[inline]
    fn scan_member(&mut self, scanner: &mut Scanner<'a>, name: JsonStr<'a>) -> Result<(), LineError> {
        match name.raw() {
            "timestamp" => once(&mut self.timestamp, "timestamp", milliseconds(scanner, "timestamp")?),
            "service" => once(&mut self.service, "service", string(scanner, "service")?),
            "level" => once(&mut self.level, "level", string_or_null(scanner, "level")?),
            "message" => once(&mut self.message, "message", string(scanner, "message")?),
            "labels" => once(&mut self.labels, "labels", labels(scanner)?),
            "received_at" => {
                once(&mut self.received_at, "received_at", milliseconds(scanner, "received_at")?)
            }
            "ingested_node_id" => {
                once(&mut self.ingested_node_id, "ingested_node_id", string(scanner, "ingested_node_id")?)
            }
            "client_ip" => once(&mut self.client_ip, "client_ip", string(scanner, "client_ip")?),
            _ => Ok(scanner.value().map(drop)?),
        }
    }

    fn finish(self) -> Result<EnrichedLine<'a>, LineError> {
        needed(self.ingested_node_id, "ingested_node_id")?;
        needed(self.client_ip, "client_ip")?;
        Ok(EnrichedLine {
            timestamp: needed(self.timestamp, "timestamp")?,
            received_at: needed(self.received_at, "received_at")?,
            service: needed(self.service, "service")?,
            level: self.level.flatten(),
            message: needed(self.message, "message")?,
            labels: self.labels.flatten(),
        })
    }
}

fn once<T>(slot: &mut Option<T>, field: &'static str, value: T) -> Result<(), LineError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(LineError::Field { field, reason: "appears twice" }),
    }
}

fn needed<T>(slot: Option<T>, field: &'static str) -> Result<T, LineError> {
    slot.ok_or(LineError::Field { field, reason: "is missing" })
}

fn string<'a>(scanner: &mut Scanner<'a>, field: &'static str) -> Result<JsonStr<'a>, LineError> {
    if scanner.peek() == Some(b'"') {
        return Ok(scanner.string()?);
    }
    scanner.value()?;
    Err(LineError::Field { field, reason: "has to be a string" })
}

fn string_or_null<'a>(
    scanner: &mut Scanner<'a>,
    field: &'static str,
) -> Result<Option<JsonStr<'a>>, LineError> {
    if scanner.take_literal("null") { Ok(None) } else { string(scanner, field).map(Some) }
}

fn milliseconds(scanner: &mut Scanner<'_>, field: &'static str) -> Result<u64, LineError> {
    if let Value::Number(text) = scanner.value()?
        && let Some(number) = whole_number(text)
        && number <= limits::TIMESTAMP_MS_MAX
    {
        return Ok(number);
    }
    Err(LineError::Field { field, reason: "has to be whole Unix milliseconds, not beyond the year 9999" })
}

/// The number of an unsigned integer's digits; `None` for other numbers and for more than 19 digits.
pub fn whole_number(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.bytes()
        .try_fold(0u64, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

fn labels<'a>(scanner: &mut Scanner<'a>) -> Result<Option<&'a str>, LineError> {
    match scanner.value()? {
        Value::Null => Ok(None),
        Value::Object(object) if object.all_strings => Ok(Some(object.raw)),
        _ => Err(LineError::Field { field: "labels", reason: "has to be an object of strings" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EnrichedRecord;

    const WHOLE: &str = r#"{"timestamp":1,"service":"a","level":"INFO","message":"m\n","labels":{"k":"v"},"received_at":2,"ingested_node_id":"n","client_ip":"::1"}"#;

    #[test]
    fn a_whole_record_gives_its_fields() {
        let line = EnrichedLine::parse_str(WHOLE).unwrap();
        assert_eq!((line.timestamp, line.received_at), (1, 2));
        assert_eq!(line.service.decode(), "a");
        assert_eq!(line.level.unwrap().decode(), "INFO");
        assert_eq!(line.message.decode(), "m\n");
        assert_eq!(line.labels, Some(r#"{"k":"v"}"#));
        let same: EnrichedRecord = serde_json::from_str(WHOLE).unwrap();
        assert_eq!(same.message, "m\n");
    }

    #[test]
    fn level_and_labels_may_be_absent_or_null_and_other_fields_are_kept() {
        let text = r#"{"timestamp":1,"service":"a","level":null,"message":"m","labels":null,"received_at":2,"ingested_node_id":"n","client_ip":"i","new":[1]}"#;
        let line = EnrichedLine::parse_str(text).unwrap();
        assert_eq!((line.level, line.labels), (None, None));
    }

    #[test]
    fn every_needed_field_is_named_when_it_is_missing_doubled_or_of_the_wrong_kind() {
        for field in ["timestamp", "service", "message", "received_at", "ingested_node_id", "client_ip"] {
            let renamed = WHOLE.replace(&format!("\"{field}\":"), "\"other\":");
            assert_eq!(
                EnrichedLine::parse_str(&renamed).unwrap_err().to_string(),
                format!("{field}: is missing")
            );
            let doubled = WHOLE.replace("\"level\":\"INFO\"", &format!("\"{field}\":\"INFO\""));
            assert_eq!(EnrichedLine::parse_str(&doubled).unwrap_err().field(), field);
            let wrong = WHOLE.replace(&format!("\"{field}\":"), &format!("\"{field}\":[],\"other\":"));
            assert_eq!(EnrichedLine::parse_str(&wrong).unwrap_err().field(), field);
        }
    }

    #[test]
    fn timestamps_are_whole_and_bounded() {
        for bad in ["-1", "1.0", "1e3", "253402300800000", "99999999999999999999"] {
            let text = WHOLE.replace("\"timestamp\":1", &format!("\"timestamp\":{bad}"));
            assert_eq!(EnrichedLine::parse_str(&text).unwrap_err().field(), "timestamp", "{bad}");
        }
        let last = WHOLE.replace("\"timestamp\":1", "\"timestamp\":253402300799999");
        assert_eq!(EnrichedLine::parse_str(&last).unwrap().timestamp, limits::TIMESTAMP_MS_MAX);
    }

    #[test]
    fn a_line_that_is_not_one_object_is_refused() {
        for bad in ["", "1", "[]", "{}x", "{\"a\":1", "\u{feff}{}"] {
            assert!(EnrichedLine::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(EnrichedLine::parse(b"{\"\xff\":1}"), Err(LineError::Utf8(2)));
    }
}
