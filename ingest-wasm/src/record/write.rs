//! Writes a record's line: by splicing where the record can stay as it is, anew where it cannot.

use model::json;
use model::usual::UsualRecord;

use super::UNKNOWN_SERVICE;
use super::check::{Checked, Timestamp};
use super::labels::{Label, LabelValue};
use super::scan::Scanned;

/// What every record of a request gets, rendered once.
#[derive(Clone, Debug)]
pub struct Enrichment {
    /// The time of receipt, Unix milliseconds, in digits.
    received_at: Vec<u8>,
    /// From the comma before the first of the three fields to the newline.
    tail: Vec<u8>,
}

/// Bytes that a line may have beyond the record's own text and the enrichment, if the record is spliced: a timestamp
/// and a service.
const SPLICED_BYTES_MAX: usize = 64;

impl Enrichment {
    /// The enrichment of one request; `node_id_json` with its quotes, `client_ip` of characters that need no escape.
    pub fn new(received_at_ms: u64, node_id_json: &[u8], client_ip: &str) -> Self {
        let received_at = received_at_ms.to_string().into_bytes();
        let mut tail = Vec::with_capacity(128);
        tail.extend_from_slice(b",\"received_at\":");
        tail.extend_from_slice(&received_at);
        tail.extend_from_slice(b",\"ingested_node_id\":");
        tail.extend_from_slice(node_id_json);
        tail.extend_from_slice(b",\"client_ip\":");
        json::append_string(&mut tail, client_ip);
        tail.extend_from_slice(b"}\n");
        Self { received_at, tail }
    }

    /// The most bytes by which a spliced record's line is longer than its text.
    pub fn bytes_max(&self) -> usize {
        self.tail.len() + SPLICED_BYTES_MAX
    }
}

/// Appends the record's line, newline included, to `out`.
#[inline]
pub fn write_line(out: &mut Vec<u8>, record: &Scanned<'_>, checked: &Checked<'_>, enrichment: &Enrichment) {
    match &checked.rewritten {
        None => splice(out, record, enrichment),
        Some(labels) => rewrite(out, checked, labels, enrichment),
    }
    out.extend_from_slice(&enrichment.tail);
}

/// Appends the line, newline included, of a record that can stay as it is.
#[inline]
pub fn write_usual_line(out: &mut Vec<u8>, record: &UsualRecord<'_>, enrichment: &Enrichment) {
    // Its last byte is the closing brace.
    let text = record.text.strip_suffix('}').unwrap_or_default();
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&enrichment.tail);
}

impl Checked<'_> {
    /// Whether the line is the record's own text with fields spliced in: then it is longer by
    /// [`Enrichment::bytes_max`] at most.
    pub fn is_spliced(&self) -> bool {
        self.rewritten.is_none()
    }
}

#[inline]
fn splice(out: &mut Vec<u8>, record: &Scanned<'_>, enrichment: &Enrichment) {
    // The record was scanned: its last byte is the closing brace.
    let text = record.text.strip_suffix('}').unwrap_or_default();
    if record.is_compact {
        out.extend_from_slice(text.as_bytes());
    } else {
        json::append_compact(out, text);
    }
    if record.timestamp.is_none() {
        out.extend_from_slice(b",\"timestamp\":");
        out.extend_from_slice(&enrichment.received_at);
    }
    if record.service.is_none() {
        write_member(out, b",\"service\":", UNKNOWN_SERVICE);
    }
}

fn rewrite(out: &mut Vec<u8>, checked: &Checked<'_>, labels: &[Label<'_>], enrichment: &Enrichment) {
    out.extend_from_slice(b"{\"timestamp\":");
    match checked.timestamp {
        Timestamp::Digits(digits) => out.extend_from_slice(digits.as_bytes()),
        Timestamp::Milliseconds(ms) => out.extend_from_slice(ms.to_string().as_bytes()),
        Timestamp::Absent => out.extend_from_slice(&enrichment.received_at),
    }
    write_member(out, b",\"service\":", checked.service.raw());
    if let Some(level) = checked.level {
        write_member(out, b",\"level\":", level);
    }
    write_member(out, b",\"message\":", checked.message);
    if labels.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"labels\":{");
    for (place, label) in labels.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_quoted(out, &label.name);
        out.push(b':');
        match label.value {
            LabelValue::Quoted(text) => write_quoted(out, text),
            LabelValue::Json(text) => write_json_as_text(out, text),
        }
    }
    out.push(b'}');
}

/// Writes a member whose value is a string; `raw` is its text between the quotes.
fn write_member(out: &mut Vec<u8>, name: &[u8], raw: &str) {
    out.extend_from_slice(name);
    write_quoted(out, raw);
}

fn write_quoted(out: &mut Vec<u8>, raw: &str) {
    out.push(b'"');
    out.extend_from_slice(raw.as_bytes());
    out.push(b'"');
}

/// Writes a JSON text as a string: compact, and escaped once more.
fn write_json_as_text(out: &mut Vec<u8>, json: &str) {
    let mut compact = Vec::with_capacity(json.len());
    json::append_compact(&mut compact, json);
    // Leaving out white space cannot break UTF-8.
    json::append_string(out, std::str::from_utf8(&compact).unwrap_or_default());
}
