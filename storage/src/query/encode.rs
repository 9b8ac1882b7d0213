//! Stored lines as a response's body: a JSON array or newline-delimited JSON, each record byte for byte as stored.

use model::{Offset, Partition, wire};

/// How records are written into a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON array.
    JsonArray,
    /// One record a line.
    Ndjson,
}

impl Format {
    /// The body's media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::JsonArray => wire::JSON,
            Self::Ndjson => wire::NDJSON,
        }
    }
}

/// Writes records one after another; the body is whole after [`RecordWriter::end`].
#[derive(Clone, Copy, Debug)]
pub struct RecordWriter {
    format: Format,
    begun: bool,
}

impl RecordWriter {
    /// A writer of this format, before its first record.
    pub fn new(format: Format) -> Self {
        Self { format, begun: false }
    }

    /// Writes one record; `line` is without its newline.
    pub fn record(&mut self, out: &mut Vec<u8>, line: &[u8]) {
        match (self.format, self.begun) {
            (Format::JsonArray, false) => out.push(b'['),
            (Format::JsonArray, true) => out.push(b','),
            (Format::Ndjson, _) => {}
        }
        self.begun = true;
        out.extend_from_slice(line);
        if self.format == Format::Ndjson {
            out.push(b'\n');
        }
    }

    /// Writes one record with its place.
    pub fn record_at(&mut self, out: &mut Vec<u8>, partition: Partition, offset: Offset, line: &[u8]) {
        let mut wrapped = Vec::with_capacity(line.len() + 64);
        wrapped.extend_from_slice(
            format!("{{\"partition\":{partition},\"offset\":{offset},\"record\":").as_bytes(),
        );
        wrapped.extend_from_slice(line);
        wrapped.push(b'}');
        self.record(out, &wrapped);
    }

    /// Writes what follows the last record.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.format == Format::JsonArray {
            out.extend_from_slice(if self.begun { b"]" } else { b"[]" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, lines: &[&str]) -> String {
        let mut out = Vec::new();
        let mut writer = RecordWriter::new(format);
        for line in lines {
            writer.record(&mut out, line.as_bytes());
        }
        writer.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_told_with_its_place() {
        let mut out = Vec::new();
        RecordWriter::new(Format::Ndjson).record_at(&mut out, Partition::new(3), Offset::new(7), b"{}");
        assert_eq!(out, b"{\"partition\":3,\"offset\":7,\"record\":{}}\n");
    }

    #[test]
    fn records_are_written_as_stored_in_both_formats() {
        assert_eq!(written(Format::JsonArray, &[]), "[]");
        assert_eq!(written(Format::JsonArray, &["{\"a\":1}", "{}"]), "[{\"a\":1},{}]");
        assert_eq!(written(Format::Ndjson, &[]), "");
        assert_eq!(written(Format::Ndjson, &["{\"a\":1}", "{}"]), "{\"a\":1}\n{}\n");
    }
}
