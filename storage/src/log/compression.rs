//! Compressing a sealed segment, a step at a time, into frames that end where batches do.
//!
//! Invariant: the plain file goes only after the compressed one is durable under its name; a crash in between leaves
//! both, and the next start keeps the whole one. Only bytes that match their checksums are compressed: a damaged
//! segment stays as it is.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use zstd::zstd_safe::CParameter;

use super::disk::{self, Disk, DiskFile, OpenMode};
use super::error::{DamageKind, LogError};
use super::format::BatchHeader;
use super::frames::FrameTable;
use super::layout::{self, Part};
use super::limits;
use super::segment::Segment;
use super::segment_data::{FrameCache, SegmentData};

/// A segment that is being compressed.
#[derive(Debug)]
pub(super) struct Compression {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    table: FrameTable,
    next_batch: u32,
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Step {
    /// There is more to compress.
    Unfinished(Compression),
    /// The segment, compressed; its plain file is to be removed.
    Finished(Segment),
}

impl Compression {
    /// Begins with a sealed segment.
    pub(super) fn start(disk: &dyn Disk, dir: &Path, segment: Arc<Segment>) -> Result<Self, LogError> {
        let path = dir.join(temporary_name(&segment));
        let file =
            disk.open(&path, OpenMode::Create).map_err(|error| LogError::io("create", &path, error))?;
        Ok(Self { segment, file, table: FrameTable::new(), next_batch: 0 })
    }

    /// The segment.
    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Compresses the next frame; makes the whole durable after the last. After an error the file is gone.
    pub(super) fn step(mut self, disk: &dyn Disk, dir: &Path) -> Result<Step, LogError> {
        let path = dir.join(temporary_name(&self.segment));
        let outcome = self
            .compress_frame(&path)
            .and_then(|is_done| if is_done { self.finish(disk, dir).map(Some) } else { Ok(None) });
        match outcome {
            Ok(Some(segment)) => Ok(Step::Finished(segment)),
            Ok(None) => Ok(Step::Unfinished(self)),
            Err(error) => {
                // What cannot be removed now is removed at the next start.
                disk.remove(&path).ok();
                Err(error)
            }
        }
    }

    /// Compresses the next whole batches into one frame; true when none are left.
    fn compress_frame(&mut self, path: &Path) -> Result<bool, LogError> {
        let frame = self.next_frame()?;
        if frame.is_empty() {
            return Ok(true);
        }
        frame_compressor()
            .and_then(|mut compressor| compressor.compress(&frame))
            .and_then(|compressed| {
                let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
                let bytes = u32::try_from(frame.len()).map_err(too_large)?;
                let compressed_bytes = u32::try_from(compressed.len()).map_err(too_large)?;
                let position = self.table.compressed_bytes();
                disk::write_all(&*self.file, &mut [IoSlice::new(&compressed)], position)?;
                self.table.push(compressed_bytes, bytes);
                Ok(())
            })
            .map_err(|error| LogError::io("write", path, error))?;
        Ok(false)
    }

    /// The bytes of the next whole batches, checked; nothing after the last.
    fn next_frame(&mut self) -> Result<BytesMut, LogError> {
        let mut frame = BytesMut::new();
        let batch_count = self.segment.summary().batch_count;
        while self.next_batch < batch_count && (frame.len() as u64) < limits::FRAME_BYTES {
            let run = self.next_run(batch_count, frame.len() as u64)?;
            for bytes in self.segment.read_batches(&run, &mut FrameCache::default()) {
                frame.extend_from_slice(&bytes?);
            }
            self.next_batch += run.len() as u32;
        }
        Ok(frame)
    }

    /// The next headers for a frame that has `frame_bytes` already: at least one, and no more than make it full.
    fn next_run(&self, batch_count: u32, frame_bytes: u64) -> Result<Vec<BatchHeader>, LogError> {
        let mut run = Vec::new();
        let count = limits::HEADER_RUN.min(batch_count - self.next_batch);
        let frame_position = self.table.data_bytes();
        let mut position = frame_position + frame_bytes;
        for slot in self.segment.headers(self.next_batch, count)? {
            let header = slot.map_err(|_| self.unreadable_header())?;
            if header.position != position {
                return Err(self.segment.damaged(&header, DamageKind::Header));
            }
            position = header.end_position();
            if position - frame_position > limits::FRAME_BYTES && !run.is_empty() {
                break;
            }
            run.push(header);
        }
        Ok(run)
    }

    fn unreadable_header(&self) -> LogError {
        let path = temporary_name(&self.segment).into();
        LogError::Io { action: "compress to", path, source: Arc::new(io::ErrorKind::InvalidData.into()) }
    }

    fn finish(&self, disk: &dyn Disk, dir: &Path) -> Result<Segment, LogError> {
        let temporary = dir.join(temporary_name(&self.segment));
        let path = dir.join(layout::file_name(self.segment.base_offset, Part::CompressedData));
        let table = self.table.encode();
        disk::write_all(&*self.file, &mut [IoSlice::new(&table)], self.table.compressed_bytes())
            .and_then(|()| self.file.sync_data())
            .and_then(|()| disk.rename(&temporary, &path))
            .and_then(|()| disk.sync_dir(dir))
            .and_then(|()| {
                let file = disk.open(&path, OpenMode::Read)?;
                let table = FrameTable::read(&*file)?.ok_or(io::ErrorKind::InvalidData)?;
                Ok(self
                    .segment
                    .with_files(self.segment.index.clone(), SegmentData::Frames(file, Arc::new(table))))
            })
            .map_err(|error| LogError::io("finish", &path, error))
    }
}

fn frame_compressor() -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(limits::COMPRESSION_LEVEL)?;
    // `zstd -t` and `zstdcat` then notice a damaged frame by themselves.
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

fn temporary_name(segment: &Segment) -> String {
    format!("{}.tmp", layout::file_name(segment.base_offset, Part::CompressedData))
}
