//! Reading a segment's batch index: fixed-size entries, so that the n-th is one read away and nothing is kept in memory.
//!
//! Invariant: an entry is returned only if its checksum matches. Does not know what the batches hold.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use model::Offset;

use super::disk::{self, DiskFile};
use super::format::{BatchHeader, ENTRY_BYTES, ENTRY_BYTES_U64, Entry, IndexFileHeader, Seal, Undecodable};
use super::limits;

/// A segment's batch index.
#[derive(Clone, Debug)]
pub(super) enum BatchIndex {
    /// The `.batches` file.
    File(Arc<dyn DiskFile>),
    /// What the file would hold: rebuilt from the lines, and not written yet.
    Memory(Bytes),
}

/// A batch's header, or why there is none at its place.
pub(super) type HeaderSlot = Result<BatchHeader, Undecodable>;

/// The index file's own header, or why there is none.
pub(super) type FileHeaderSlot = Result<IndexFileHeader, Undecodable>;

impl BatchIndex {
    /// The bytes that an index of `batch_count` batches has without a seal.
    pub(super) fn bytes_of(batch_count: u32) -> u64 {
        ENTRY_BYTES_U64 * (u64::from(batch_count) + 1)
    }

    /// The index's bytes.
    pub(super) fn length(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => file.length(),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// The file's own header.
    pub(super) fn file_header(&self) -> io::Result<FileHeaderSlot> {
        Ok(IndexFileHeader::decode(&self.read(0, ENTRY_BYTES)?))
    }

    /// The seal after `batch_count` batches, if there is one that counts as many.
    pub(super) fn seal_after(&self, batch_count: u32) -> io::Result<Option<Seal>> {
        let bytes = self.read(Self::bytes_of(batch_count), ENTRY_BYTES)?;
        Ok(match Entry::decode(&bytes) {
            Ok(Entry::Seal(seal)) if seal.batch_count == batch_count => Some(seal),
            _ => None,
        })
    }

    /// The headers of `count` batches from the `first` on, as many as asked for.
    pub(super) fn headers(&self, first: u32, count: u32) -> io::Result<Vec<HeaderSlot>> {
        let bytes = self.read(Self::bytes_of(first), ENTRY_BYTES * count as usize)?;
        let mut slots: Vec<HeaderSlot> = bytes.chunks(ENTRY_BYTES).map(decode_header).collect();
        slots.resize(count as usize, Err(Undecodable::Absent));
        Ok(slots)
    }

    /// The header of one batch.
    pub(super) fn header(&self, batch: u32) -> io::Result<HeaderSlot> {
        Ok(decode_header(&self.read(Self::bytes_of(batch), ENTRY_BYTES)?))
    }

    /// The last batch, of `batch_count`, that begins at or before `offset`; 0 when none does. Headers that cannot be
    /// decoded are passed over.
    pub(super) fn batch_at(&self, offset: Offset, batch_count: u32) -> io::Result<u32> {
        let (mut found, mut low, mut high) = (0, 0, batch_count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_readable(middle, high)? {
                Some((batch, header)) if header.base_offset <= offset => {
                    found = batch;
                    low = batch + 1;
                }
                _ => high = middle,
            }
        }
        Ok(found)
    }

    /// The first batch, of `batch_count`, whose entry of the replicated log is at or after `log_index`; `batch_count`
    /// when none is. Headers that cannot be decoded are passed over.
    pub(super) fn first_batch_of_entry(&self, log_index: u64, batch_count: u32) -> io::Result<u32> {
        let (mut low, mut high) = (0, batch_count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_readable(middle, high)? {
                Some((batch, header)) if header.log_index < log_index => low = batch + 1,
                _ => high = middle,
            }
        }
        // What cannot be read in front of it is not known to belong to an earlier one.
        while low > 0 && self.header(low - 1)?.is_err() {
            low -= 1;
        }
        Ok(low)
    }

    /// Reads all headers in order and hands each to `visit`, with its place.
    pub(super) fn scan(&self, batch_count: u32, mut visit: impl FnMut(u32, HeaderSlot)) -> io::Result<()> {
        let mut first = 0;
        while first < batch_count {
            let count = (batch_count - first).min(limits::HEADER_RUN_SCAN);
            for (batch, slot) in (first..).zip(self.headers(first, count)?) {
                visit(batch, slot);
            }
            first += count;
        }
        Ok(())
    }

    /// The file's bytes from `position` on, at most `length`.
    pub(super) fn read_raw(&self, position: u64, length: usize) -> io::Result<Bytes> {
        self.read(position, length)
    }

    fn first_readable(&self, from: u32, to: u32) -> io::Result<Option<(u32, BatchHeader)>> {
        for batch in from..to {
            if let Ok(header) = self.header(batch)? {
                return Ok(Some((batch, header)));
            }
        }
        Ok(None)
    }

    fn read(&self, position: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Self::File(file) => {
                let mut buffer = vec![0; length];
                let count = disk::read_full(&**file, &mut buffer, position)?;
                buffer.truncate(count);
                Ok(buffer.into())
            }
            Self::Memory(bytes) => {
                let start = usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
                let end = start.saturating_add(length).min(bytes.len());
                Ok(bytes.slice(start..end))
            }
        }
    }
}

fn decode_header(bytes: &[u8]) -> HeaderSlot {
    match Entry::decode(bytes)? {
        // A header that reaches beyond every batch is no header, whatever its checksum says.
        Entry::Batch(header) if u64::from(header.length) <= limits::BATCH_BYTES_MAX => Ok(header),
        Entry::Batch(_) => Err(Undecodable::Checksum),
        // A seal in a batch's place: an append after a seal that was not to be.
        Entry::Seal(_) => Err(Undecodable::Absent),
    }
}
