//! What a log needs from time to time: rolling by age, retention, compression, and its reserve.
//!
//! Invariant: sealed segments are deleted whole, oldest first, and never changed but for their compression.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::compression::{Compression, Step};
use super::error::LogError;
use super::layout::{self, Part};
use super::partition_log::PartitionLog;
use super::segment::Segment;

/// What one call of [`PartitionLog::maintain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceReport {
    /// Whether the active segment was sealed for its age.
    pub rolled: bool,
    /// Segments that retention deleted.
    pub deleted_segments: u64,
    /// Segments whose compression was finished.
    pub compressed_segments: u64,
    /// Whether there is more to compress: worth calling again soon when nothing else is to be done.
    pub more: bool,
}

impl PartitionLog {
    /// Does what is due now: some milliseconds of work, tens of them when there is something to compress. To be called
    /// every second or so, or sooner when the report says that there is more.
    ///
    /// # Errors
    /// When the disk refuses; what was not done is tried again by the next call. A full disk is no error: what frees
    /// room is done all the same.
    pub fn maintain(&mut self, now_ms: u64) -> Result<MaintenanceReport, LogError> {
        let done = self.do_what_is_due(now_ms);
        self.or_stopped(done)
    }

    fn do_what_is_due(&mut self, now_ms: u64) -> Result<MaintenanceReport, LogError> {
        self.sync_if_due(now_ms)?;
        let rolled = none_if_full(self.roll_by_age())?.unwrap_or_default();
        let deleted_segments = self.retain()?;
        let purge_wanted = self.oldest_to_delete().map(|oldest| oldest.summary().last_log_index);
        self.shared.set_purge_wanted(purge_wanted);
        let mut report = MaintenanceReport { rolled, deleted_segments, ..MaintenanceReport::default() };
        none_if_full(self.compress_step(&mut report))?;
        self.reserve.refill(&*self.disk);
        Ok(report)
    }

    fn roll_by_age(&mut self) -> Result<bool, LogError> {
        let is_due = self.tail_summary().is_some_and(|summary| {
            summary.has_records()
                && is_older(self.now_ms, summary.appended_first_ms, self.options.segment_age_max)
        });
        if is_due {
            self.prepare()?;
            self.seal()?;
        }
        Ok(is_due)
    }

    /// Deletes what is too old or too much. The log keeps its place: the last segment goes only after a new one is
    /// there.
    fn retain(&mut self) -> Result<u64, LogError> {
        let mut deleted = 0;
        while let Some(oldest) = self.oldest_to_delete().filter(|oldest| self.is_purged(oldest)) {
            if self.shared.segments().len() == 1 {
                let successor = self.prepare().and_then(|()| self.writer().map(|_| ()));
                if none_if_full(successor)?.is_none() {
                    break;
                }
            }
            self.delete(&oldest)?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Whether no replica may ask for the segment's entries: it gets the whole segments then.
    fn is_purged(&self, segment: &Segment) -> bool {
        self.purged_upto.is_none_or(|purged| segment.summary().last_log_index <= purged)
    }

    fn oldest_to_delete(&self) -> Option<Arc<Segment>> {
        let segments = self.shared.segments();
        let oldest = segments.first().filter(|oldest| self.is_settled(oldest))?;
        let too_old = self
            .options
            .retention_age
            .is_some_and(|age| is_older(self.now_ms, oldest.summary().appended_last_ms, age));
        let too_much = || {
            self.options.retention_bytes.is_some_and(|bytes_max| {
                segments.len() > 1
                    && segments.iter().map(|segment| bytes_on_disk(segment)).sum::<u64>() > bytes_max
            })
        };
        (too_old || too_much()).then(|| Arc::clone(oldest))
    }

    /// Readers that hold the segment read on; for others it is gone. The bytes go first: an index without bytes in
    /// front of all others is known as what a crash left of a deletion.
    fn delete(&mut self, segment: &Arc<Segment>) -> Result<(), LogError> {
        if self
            .compression
            .as_ref()
            .is_some_and(|running| running.segment().base_offset == segment.base_offset)
        {
            self.compression = None;
            self.remove(&format!("{}.tmp", layout::file_name(segment.base_offset, Part::CompressedData)))?;
        }
        self.remove(&layout::file_name(segment.base_offset, Part::Data))?;
        self.remove(&layout::file_name(segment.base_offset, Part::CompressedData))?;
        self.sync_dir()?;
        // Until here it is the oldest, so that what failed is tried again before a younger one is deleted.
        self.shared.change_segments(|list| list.retain(|other| other.base_offset != segment.base_offset));
        self.remove(&layout::file_name(segment.base_offset, Part::Index))?;
        self.remove(&layout::file_name(segment.base_offset, Part::Ids))?;
        Part::SIDECARS.iter().try_for_each(|part| self.remove(&layout::file_name(segment.base_offset, *part)))
    }

    fn compress_step(&mut self, report: &mut MaintenanceReport) -> Result<(), LogError> {
        let compression = match self.compression.take() {
            Some(running) => running,
            None => match self.next_to_compress() {
                Some(segment) => Compression::start(&*self.disk, &self.dir, segment)?,
                None => return Ok(()),
            },
        };
        let base_offset = compression.segment().base_offset;
        match compression.step(&*self.disk, &self.dir) {
            Ok(Step::Unfinished(running)) => {
                self.compression = Some(running);
                report.more = true;
            }
            Ok(Step::Finished(segment)) => {
                self.shared.replace_segment(&Arc::new(segment));
                self.remove(&layout::file_name(base_offset, Part::Data))?;
                report.compressed_segments += 1;
                report.more = self.next_to_compress().is_some();
            }
            Err(LogError::DiskFull) => {}
            Err(error) => {
                self.compression_given_up.push(base_offset);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The oldest segment that is cold, plain and whole, if there is room for both of its forms.
    fn next_to_compress(&self) -> Option<Arc<Segment>> {
        let age = self.options.compress_age?;
        let segments = self.shared.segments();
        let cold = segments.iter().find(|segment| {
            let summary = segment.summary();
            self.is_settled(segment)
                && !segment.data.is_compressed()
                && !segment.is_damaged()
                && !self.compression_given_up.contains(&segment.base_offset)
                && is_older(self.now_ms, summary.appended_last_ms, age)
        })?;
        let free_bytes = self.disk.free_bytes(&self.dir).ok()?;
        (free_bytes > cold.summary().data_bytes).then(|| Arc::clone(cold))
    }

    /// Whether a segment never changes again: what is not committed may be cut off a sealed one too.
    fn is_settled(&self, segment: &Segment) -> bool {
        let summary = segment.summary();
        summary.sealed && summary.end_offset <= self.shared.high_watermark()
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), LogError> {
        match self.disk.remove(&self.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LogError::io("remove", &self.dir.join(name), error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn sync_dir(&self) -> Result<(), LogError> {
        self.disk.sync_dir(&self.dir).map_err(|error| LogError::io("sync", &self.dir, error))
    }
}

fn bytes_on_disk(segment: &Segment) -> u64 {
    segment.data.stored_bytes().unwrap_or_default() + segment.index.length().unwrap_or_default()
}

fn is_older(now_ms: u64, then_ms: u64, age: Duration) -> bool {
    u128::from(now_ms.saturating_sub(then_ms)) >= age.as_millis()
}

fn none_if_full<T>(result: Result<T, LogError>) -> Result<Option<T>, LogError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(LogError::DiskFull) => Ok(None),
        Err(error) => Err(error),
    }
}
