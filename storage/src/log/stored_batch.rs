//! A batch as it was read from a segment.

use bytes::Bytes;
use model::Offset;

use super::format::BatchHeader;

/// A batch whose bytes matched their checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// The base offset, and so the name, of its segment.
    pub segment: Offset,
    /// Where its bytes begin in the segment, before compression.
    pub position: u64,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Its records.
    pub record_count: u32,
    /// The earliest record's timestamp, Unix milliseconds.
    pub timestamp_min_ms: u64,
    /// The latest record's timestamp, Unix milliseconds.
    pub timestamp_max_ms: u64,
    /// When it was appended, Unix milliseconds.
    pub appended_at_ms: u64,
    /// The records, one a line.
    pub bytes: Bytes,
}

/// A batch's lines without their newlines, each with its offset, from either end.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
    front: Offset,
    back: Offset,
}

impl StoredBatch {
    pub(super) fn new(segment: Offset, header: &BatchHeader, bytes: Bytes) -> Self {
        Self {
            segment,
            position: header.position,
            base_offset: header.base_offset,
            record_count: header.record_count,
            timestamp_min_ms: header.timestamp_min_ms,
            timestamp_max_ms: header.timestamp_max_ms,
            appended_at_ms: header.appended_at_ms,
            bytes,
        }
    }

    /// The offset after its last record.
    pub fn end_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.record_count))
    }

    /// The records' lines, without their newlines.
    pub fn lines(&self) -> Lines<'_> {
        Lines { rest: &self.bytes, front: self.base_offset, back: self.end_offset() }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (Offset, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let newline = memchr::memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at_checked(newline)?;
        self.rest = rest.get(1..).unwrap_or_default();
        let offset = self.front;
        self.front = offset.plus(1);
        Some((offset, line))
    }
}

impl DoubleEndedIterator for Lines<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let rest = self.rest.strip_suffix(b"\n")?;
        let start = memchr::memrchr(b'\n', rest).map_or(0, |newline| newline + 1);
        let (before, line) = rest.split_at_checked(start)?;
        self.rest = before;
        self.back = self.back.minus(1);
        Some((self.back, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_from_either_end_each_once() {
        let batch = StoredBatch {
            segment: Offset::ZERO,
            position: 0,
            base_offset: Offset::new(5),
            record_count: 3,
            timestamp_min_ms: 0,
            timestamp_max_ms: 0,
            appended_at_ms: 0,
            bytes: Bytes::from_static(b"a\nb\nc\n"),
        };
        let mut lines = batch.lines();
        assert_eq!(lines.next(), Some((Offset::new(5), &b"a"[..])));
        assert_eq!(lines.next_back(), Some((Offset::new(7), &b"c"[..])));
        assert_eq!(lines.next_back(), Some((Offset::new(6), &b"b"[..])));
        assert_eq!((lines.next(), lines.next_back()), (None, None));
        assert_eq!(batch.lines().rev().count(), 3);
    }
}
