//! Compressed segments: independent zstd frames and the table that finds them.
//!
//! The table is a skippable frame in zstd's seekable format, so that `zstdcat` prints the records and nothing else.
//! Invariant: the frames one after another are the segment's bytes. Does not know batches.

use std::io;

use bytes::Bytes;

use super::disk::{self, DiskFile};
use super::segment_data::DataError;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
const SKIPPABLE_HEADER_BYTES: u64 = 8;
const FOOTER_BYTES: u64 = 9;
const ENTRY_BYTES: usize = 8;

/// Where each frame begins, before and after compression. 16 bytes for each MiB of records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FrameTable {
    /// Each frame's begin; and the end of the last.
    bounds: Vec<Bound>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bound {
    position: u64,
    compressed_position: u64,
}

impl FrameTable {
    /// A table of no frames.
    pub(super) fn new() -> Self {
        Self { bounds: vec![Bound::default()] }
    }

    /// Adds the next frame.
    pub(super) fn push(&mut self, compressed_bytes: u32, bytes: u32) {
        let last = self.last();
        self.bounds.push(Bound {
            position: last.position + u64::from(bytes),
            compressed_position: last.compressed_position + u64::from(compressed_bytes),
        });
    }

    /// The segment's bytes before compression.
    pub(super) fn data_bytes(&self) -> u64 {
        self.last().position
    }

    /// The frames' bytes, without the table.
    pub(super) fn compressed_bytes(&self) -> u64 {
        self.last().compressed_position
    }

    /// The frame that holds the byte at `position`, and where that frame begins.
    pub(super) fn frame_at(&self, position: u64) -> Option<(usize, u64)> {
        let number = self.bounds.partition_point(|bound| bound.position <= position).checked_sub(1)?;
        // The last bound is an end, and no frame.
        self.bounds.get(number + 1)?;
        Some((number, self.bounds.get(number)?.position))
    }

    /// The skippable frame that ends the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let frames = self.bounds.len().saturating_sub(1);
        let content_bytes = frames * ENTRY_BYTES + FOOTER_BYTES as usize;
        let mut out = Vec::with_capacity(content_bytes + SKIPPABLE_HEADER_BYTES as usize);
        out.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        out.extend_from_slice(&(content_bytes as u32).to_le_bytes());
        for (from, to) in self.bounds.iter().zip(self.bounds.iter().skip(1)) {
            // Both fit: they were pushed as such.
            out.extend_from_slice(
                &((to.compressed_position - from.compressed_position) as u32).to_le_bytes(),
            );
            out.extend_from_slice(&((to.position - from.position) as u32).to_le_bytes());
        }
        out.extend_from_slice(&(frames as u32).to_le_bytes());
        // The descriptor: no checksums here, the frames carry their own.
        out.push(0);
        out.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
        out
    }

    /// Reads the table at the end of a compressed segment. `None` when there is none that fits the file.
    pub(super) fn read(file: &dyn DiskFile) -> io::Result<Option<Self>> {
        let length = file.length()?;
        let Some(footer_position) = length.checked_sub(FOOTER_BYTES) else { return Ok(None) };
        let mut footer = [0; FOOTER_BYTES as usize];
        disk::read_full(file, &mut footer, footer_position)?;
        let [f0, f1, f2, f3, descriptor, magic @ ..] = footer;
        let frames = u64::from(u32::from_le_bytes([f0, f1, f2, f3]));
        let table_bytes = frames * ENTRY_BYTES as u64 + FOOTER_BYTES;
        let Some(table_position) = length.checked_sub(table_bytes + SKIPPABLE_HEADER_BYTES) else {
            return Ok(None);
        };
        if u32::from_le_bytes(magic) != SEEKABLE_MAGIC || descriptor != 0 {
            return Ok(None);
        }
        let mut entries = vec![0; frames as usize * ENTRY_BYTES];
        disk::read_full(file, &mut entries, table_position + SKIPPABLE_HEADER_BYTES)?;
        let mut table = Self::new();
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let &[c0, c1, c2, c3, d0, d1, d2, d3] = entry else { return Ok(None) };
            table.push(u32::from_le_bytes([c0, c1, c2, c3]), u32::from_le_bytes([d0, d1, d2, d3]));
        }
        Ok((table.compressed_bytes() == table_position).then_some(table))
    }

    /// Reads and decompresses one frame.
    pub(super) fn read_frame(&self, file: &dyn DiskFile, number: usize) -> Result<Bytes, DataError> {
        let (Some(from), Some(to)) = (self.bounds.get(number), self.bounds.get(number + 1)) else {
            return Err(DataError::Missing);
        };
        let mut compressed = vec![0; (to.compressed_position - from.compressed_position) as usize];
        if disk::read_full(file, &mut compressed, from.compressed_position)? < compressed.len() {
            return Err(DataError::Missing);
        }
        let length = (to.position - from.position) as usize;
        match zstd::bulk::decompress(&compressed, length) {
            Ok(bytes) if bytes.len() == length => Ok(bytes.into()),
            _ => Err(DataError::Corrupt),
        }
    }

    fn last(&self) -> Bound {
        self.bounds.last().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_finds_its_frame_and_the_end_finds_none() {
        let mut table = FrameTable::new();
        table.push(10, 100);
        table.push(20, 200);
        assert_eq!(table.frame_at(0), Some((0, 0)));
        assert_eq!(table.frame_at(99), Some((0, 0)));
        assert_eq!(table.frame_at(100), Some((1, 100)));
        assert_eq!(table.frame_at(300), None);
        assert_eq!((table.data_bytes(), table.compressed_bytes()), (300, 30));
    }

    #[test]
    fn the_table_is_a_skippable_frame_of_the_seekable_format() {
        let mut table = FrameTable::new();
        table.push(10, 100);
        let bytes = table.encode();
        assert_eq!(bytes.get(..4), Some(&[0x5E, 0x2A, 0x4D, 0x18][..]));
        assert_eq!(bytes.len() as u32 - 8, u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]));
        assert_eq!(bytes.get(bytes.len() - 4..), Some(&[0xB1, 0xEA, 0x92, 0x8F][..]));
    }
}
