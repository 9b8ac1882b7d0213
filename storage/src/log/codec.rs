//! Writing and reading the fields of one fixed-size entry, little-endian, behind its checksum.
//!
//! Invariant: the first four bytes are the CRC-32 of all others. Knows nothing of what the fields mean.

use super::format::{ENTRY_BYTES, Undecodable};

const CRC_BYTES: usize = 4;

/// Appends one entry's fields, leaves room for the checksum and fills the rest with zeros.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn start(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.resize(start + CRC_BYTES, 0);
        Self { out, start }
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn finish(self) {
        self.out.resize(self.start + ENTRY_BYTES, 0);
        if let Some((crc, covered)) =
            self.out.get_mut(self.start..).and_then(|entry| entry.split_first_chunk_mut::<CRC_BYTES>())
        {
            *crc = crc32fast::hash(covered).to_le_bytes();
        }
    }
}

/// Takes one entry's fields in order. Its length was checked, so that a missing field cannot happen and reads as zero.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn checked(bytes: &'a [u8]) -> Result<Self, Undecodable> {
        let entry = bytes.get(..ENTRY_BYTES).ok_or(Undecodable::Absent)?;
        let (crc, covered) = entry.split_first_chunk::<CRC_BYTES>().ok_or(Undecodable::Absent)?;
        if u32::from_le_bytes(*crc) == crc32fast::hash(covered) {
            Ok(Self { rest: covered })
        } else if entry.iter().all(|byte| *byte == 0) {
            Err(Undecodable::Absent)
        } else {
            Err(Undecodable::Checksum)
        }
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.rest.split_first_chunk::<N>() else { return [0; N] };
        self.rest = rest;
        *field
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}
