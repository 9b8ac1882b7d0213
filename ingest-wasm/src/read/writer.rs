//! Records as an answer's body, each byte for byte as stored.

use model::wire;

/// How records are written into a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON array.
    JsonArray,
    /// One record a line.
    Ndjson,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::JsonArray => wire::JSON,
            Self::Ndjson => wire::NDJSON,
        }
    }

    /// The most bytes that records of `line_bytes` in all, newlines included, take.
    pub(super) fn bytes_max(line_bytes: usize) -> usize {
        // A comma takes the place of each newline; there are two brackets.
        line_bytes + 2
    }

    /// Appends records (without their newlines) to `out`, all that there are.
    pub(super) fn write<'a>(self, out: &mut Vec<u8>, lines: impl IntoIterator<Item = &'a [u8]>) {
        let is_array = self == Self::JsonArray;
        if is_array {
            out.push(b'[');
        }
        for (place, line) in lines.into_iter().enumerate() {
            if is_array && place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(line);
            if !is_array {
                out.push(b'\n');
            }
        }
        if is_array {
            out.push(b']');
        }
    }
}

/// The lines of newline-delimited records, without their newlines and without empty ones.
pub(super) fn lines(bytes: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}
