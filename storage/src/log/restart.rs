//! What a log does about what the process before it left: it makes it durable before anybody relies on it, and puts
//! it right before the first write.
//!
//! Invariant: opening changes no byte of any file, so that a node with a full disk starts and reads.

use std::io::IoSlice;
use std::sync::Arc;

use model::Offset;

use super::batch_index::BatchIndex;
use super::disk::{self, DiskFile, OpenMode};
use super::error::LogError;
use super::layout::{self, Part};
use super::limits;
use super::open::Fix;
use super::options::FsyncPolicy;
use super::partition_log::{PartitionLog, Tail};
use super::segment_writer::SegmentWriter;

impl PartitionLog {
    /// Makes the last segment durable, unless the process before has said that it is.
    ///
    /// That process may have died before its sync; or its sync failed, and then the system counts as clean what the
    /// disk does not have. Whoever reads a batch, or is told that it is stored already, has to be able to rely on it.
    /// So what no later batch vouches for is written once more, as it is, and then synced.
    pub(super) fn make_found_durable(&self) -> Result<(), LogError> {
        let Tail::Found(tail) = &self.tail else { return Ok(()) };
        if tail.was_closed {
            return Ok(());
        }
        let segments = self.shared.segments();
        let Some(last) = segments.last() else { return Ok(()) };
        let summary = last.summary();
        self.write_again(last.base_offset, Part::Data, tail.unsure_position, summary.data_bytes)?;
        if let BatchIndex::File(_) = last.index {
            // A batch that was flushed vouches for the file's own header too.
            let unsure_headers =
                tail.unsure_batch.checked_sub(1).map_or(0, |_| BatchIndex::bytes_of(tail.unsure_batch));
            let end = BatchIndex::bytes_of(summary.batch_count);
            self.write_again(last.base_offset, Part::Index, unsure_headers, end)?;
        }
        self.sync_names()
    }

    /// Puts right what a crash left, once, before the first write.
    pub(super) fn prepare(&mut self) -> Result<(), LogError> {
        if !self.fixes.is_empty() {
            self.apply_fixes()?;
        }
        if let Tail::Found(tail) = &mut self.tail {
            let segments = self.shared.segments();
            let Some(last) = segments.last() else { return Ok(()) };
            let batch_by_id = std::mem::take(&mut tail.batch_by_id);
            match SegmentWriter::resume(&*self.disk, &self.dir, last, batch_by_id) {
                Ok(writer) => {
                    self.shared.replace_segment(writer.segment());
                    self.tail = Tail::Writing(writer);
                }
                Err((error, batch_by_id)) => {
                    tail.batch_by_id = batch_by_id;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn apply_fixes(&mut self) -> Result<(), LogError> {
        // Before names are removed: what is to stay instead of them may have come to its name just before the crash.
        self.sync_names()?;
        let is_removal = |fix: &Fix| matches!(fix, Fix::Remove(_));
        for fix in self.fixes.iter().filter(|fix| is_removal(fix)) {
            fix.apply(&*self.disk, &self.dir)?;
        }
        // The marker's removal has to be durable before the segment that it vouches for changes.
        self.sync_names()?;
        self.fixes.retain(|fix| !is_removal(fix));
        while let Some(fix) = self.fixes.first() {
            fix.apply(&*self.disk, &self.dir)?;
            if let Fix::WriteIndex { base_offset, .. } = fix {
                self.use_written_index(*base_offset)?;
            }
            self.fixes.remove(0);
        }
        Ok(())
    }

    fn use_written_index(&self, base_offset: Offset) -> Result<(), LogError> {
        let path = self.dir.join(layout::file_name(base_offset, Part::Index));
        let file =
            self.disk.open(&path, OpenMode::Read).map_err(|error| LogError::io("open", &path, error))?;
        if let Some(segment) =
            self.shared.segments().iter().find(|segment| segment.base_offset == base_offset)
        {
            let with_file = segment.with_files(BatchIndex::File(file), segment.data.clone());
            self.shared.replace_segment(&Arc::new(with_file));
        }
        Ok(())
    }

    /// Writes the bytes of a file from `position` to `end` once more, and syncs it.
    fn write_again(&self, base_offset: Offset, part: Part, position: u64, end: u64) -> Result<(), LogError> {
        let path = self.dir.join(layout::file_name(base_offset, part));
        let file =
            self.disk.open(&path, OpenMode::Write).map_err(|error| LogError::io("open", &path, error))?;
        // Without a sync before each answer nobody was promised that a power cut loses nothing.
        if self.options.fsync == FsyncPolicy::Always {
            copy_onto_itself(&*file, position, end).map_err(|error| LogError::io("write", &path, error))?;
        }
        file.sync_data().map_err(|error| LogError::io("sync", &path, error))
    }

    fn sync_names(&self) -> Result<(), LogError> {
        self.disk.sync_dir(&self.dir).map_err(|error| LogError::io("sync", &self.dir, error))
    }
}

fn copy_onto_itself(file: &dyn DiskFile, mut position: u64, end: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; limits::SCAN_BUFFER_BYTES];
    while position < end {
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        // Bytes that cannot be read are damage, and are told as such when they are asked for.
        let Ok(count) = disk::read_full(file, piece, position) else { return Ok(()) };
        let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else { return Ok(()) };
        disk::write_all(file, &mut [IoSlice::new(read)], position)?;
        position += count as u64;
    }
    Ok(())
}
