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
use super::error::LogError;
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

    /// Compresses the next few MiB; makes the whole durable at the end. After an error the file is gone.
    pub(super) fn step(mut self, disk: &dyn Disk, dir: &Path) -> Result<Step, LogError> {
        let path = dir.join(temporary_name(&self.segment));
        let outcome = self
            .compress_some(&path)
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

    fn compress_some(&mut self, path: &Path) -> Result<bool, LogError> {
        let mut compressor = frame_compressor().map_err(|error| LogError::io("compress to", path, error))?;
        let step_end = self.table.data_bytes().saturating_add(limits::COMPRESSION_STEP_BYTES);
        while self.table.data_bytes() < step_end {
            let frame = self.next_frame()?;
            if frame.is_empty() {
                return Ok(true);
            }
            compressor
                .compress(&frame)
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
        }
        Ok(false)
    }

    /// The bytes of the next whole batches, checked; nothing after the last.
    fn next_frame(&mut self) -> Result<BytesMut, LogError> {
        let mut frame = BytesMut::new();
        let batch_count = self.segment.summary().batch_count;
        while self.next_batch < batch_count && (frame.len() as u64) < limits::FRAME_BYTES {
            let header = self.next_header()?;
            let expected = self.table.data_bytes() + frame.len() as u64;
            if header.position != expected {
                return Err(self.segment.damaged(&header, super::error::DamageKind::Header));
            }
            for bytes in self.segment.read_batches(&[header], &mut FrameCache::default()) {
                frame.extend_from_slice(&bytes?);
            }
            self.next_batch += 1;
        }
        Ok(frame)
    }

    fn next_header(&self) -> Result<BatchHeader, LogError> {
        let slots = self.segment.headers(self.next_batch, 1)?;
        slots.into_iter().next().and_then(Result::ok).ok_or_else(|| {
            let path = temporary_name(&self.segment).into();
            LogError::Io { action: "compress to", path, source: Arc::new(io::ErrorKind::InvalidData.into()) }
        })
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
