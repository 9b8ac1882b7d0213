//! A segment's bytes, plain or compressed: read by the positions that they have before compression.
//!
//! Invariant: what is returned has the length that was asked for. Whether it is right, the batch's checksum tells.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::disk::{self, DiskFile};
use super::frames::FrameTable;

/// Where a segment's bytes are.
#[derive(Clone, Debug)]
pub(super) enum SegmentData {
    /// As JSONL.
    Plain(Arc<dyn DiskFile>),
    /// As zstd frames.
    Frames(Arc<dyn DiskFile>, Arc<FrameTable>),
    /// Nowhere: the file is gone.
    Missing,
}

/// The frame that was decompressed last, so that its neighbours need not decompress it again.
#[derive(Debug, Default)]
pub(super) struct FrameCache {
    /// The frame's place in its table, and its bytes.
    frame: Option<(usize, Bytes)>,
}

/// Why bytes could not be read.
#[derive(Debug)]
pub(super) enum DataError {
    /// The file ends before.
    Missing,
    /// A frame cannot be decompressed.
    Corrupt,
    /// The system refused.
    Io(io::Error),
}

impl From<io::Error> for DataError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl SegmentData {
    /// Whether the bytes are compressed.
    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Self::Frames(..))
    }

    /// Bytes of the file.
    pub(super) fn stored_bytes(&self) -> io::Result<u64> {
        match self {
            Self::Plain(file) | Self::Frames(file, _) => file.length(),
            Self::Missing => Ok(0),
        }
    }

    /// Reads `length` bytes from `position` on.
    pub(super) fn read(
        &self,
        position: u64,
        length: usize,
        cache: &mut FrameCache,
    ) -> Result<Bytes, DataError> {
        match self {
            Self::Plain(file) => {
                let buffer = disk::read_up_to(&**file, length, position)?;
                if buffer.len() == length { Ok(buffer.into()) } else { Err(DataError::Missing) }
            }
            Self::Frames(file, table) => read_frames(&**file, table, position, length, cache),
            Self::Missing => Err(DataError::Missing),
        }
    }
}

impl FrameCache {
    /// Forgets the frame: the next read is of another segment.
    pub(super) fn clear(&mut self) {
        self.frame = None;
    }

    fn get(&mut self, file: &dyn DiskFile, table: &FrameTable, number: usize) -> Result<Bytes, DataError> {
        if let Some((cached, bytes)) = &self.frame
            && *cached == number
        {
            return Ok(bytes.clone());
        }
        let bytes = table.read_frame(file, number)?;
        self.frame = Some((number, bytes.clone()));
        Ok(bytes)
    }
}

fn read_frames(
    file: &dyn DiskFile,
    table: &FrameTable,
    position: u64,
    length: usize,
    cache: &mut FrameCache,
) -> Result<Bytes, DataError> {
    let mut gathered = BytesMut::new();
    let mut at = position;
    loop {
        let wanted = length - gathered.len();
        let (number, frame_position) = table.frame_at(at).ok_or(DataError::Missing)?;
        let frame = cache.get(file, table, number)?;
        let start = usize::try_from(at - frame_position).map_err(|_| DataError::Missing)?;
        let end = start.saturating_add(wanted).min(frame.len());
        if start >= end {
            return if wanted == 0 { Ok(gathered.freeze()) } else { Err(DataError::Missing) };
        }
        let part = frame.slice(start..end);
        // Frames are cut between batches: a batch is nearly always a slice of one, and is not copied.
        if part.len() == length {
            return Ok(part);
        }
        at += part.len() as u64;
        gathered.extend_from_slice(&part);
        if gathered.len() == length {
            return Ok(gathered.freeze());
        }
    }
}
