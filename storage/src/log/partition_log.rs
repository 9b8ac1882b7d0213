//! One partition's log: the one writer.
//!
//! Invariants: `high watermark ≤ flushed ≤ written`; a batch that was appended is whole or absent after any crash, and
//! there once [`PartitionLog::sync`] returned; after a failed sync nothing more is written. Opening writes nothing but
//! the lock: what a crash left is put right before the first write, so that a node with a full disk starts and reads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{BatchId, Offset, Partition};

use super::compression::Compression;
use super::disk::{self, Disk, DiskLock};
use super::error::{Damage, LogError};
use super::format::ClosedMarker;
use super::id_list;
use super::layout;
use super::limits;
use super::open::{self, ActiveTail, Fix, Opened};
use super::options::{FsyncPolicy, LogOptions};
use super::reader::LogReader;
use super::recovery::AlteredEnd;
use super::reserve::Reserve;
use super::segment::Summary;
use super::segment_writer::{NewBatch, SegmentWriter, WriteError};
use super::shared::Shared;
use super::sidecars::Sidecars;
use super::stopping_disk::{Stop, StoppingDisk};

/// The one writer of a partition's log.
#[derive(Debug)]
pub struct PartitionLog {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) shared: Arc<Shared>,
    /// The segment that is being compressed.
    pub(super) compression: Option<Compression>,
    /// Segments whose compression failed; not tried again before the next start.
    pub(super) compression_given_up: Vec<Offset>,
    pub(super) reserve: Reserve,
    /// Memory for the filters over the sealed segments' batch ids.
    pub(super) id_filter_bytes_max: usize,
    /// With replication: the last entry that no other replica may ask for any more.
    pub(super) purged_upto: Option<u64>,
    /// The time as it was told last; the log has no clock.
    pub(super) now_ms: u64,
    synced_at_ms: u64,
    pub(super) tail: Tail,
    /// What has to be put right before the first write.
    pub(super) fixes: Vec<Fix>,
    _lock: Box<dyn DiskLock>,
}

/// The end of the log.
#[derive(Debug)]
pub(super) enum Tail {
    /// All segments are sealed.
    Sealed,
    /// The last segment takes appends, once the fixes are applied.
    Found(ActiveTail),
    /// The last segment takes appends.
    Writing(SegmentWriter),
}

/// What was found when a log was opened.
#[derive(Clone, Debug)]
pub struct RecoveryReport {
    /// The segments.
    pub segments: usize,
    /// The offset that the next record gets.
    pub next_offset: Offset,
    /// Whether nothing had to be recovered.
    pub was_closed: bool,
    /// Bytes of a torn tail: batches that were never acknowledged, cut before the next append.
    pub torn_bytes: u64,
    /// Records at the end that were flushed and are gone all the same: the disk lied about its syncs, or a hand cut the
    /// file. Their offsets are given again.
    pub lost_records: u64,
    /// Headers at the very end that are there, and are not what was written. Entries without records may be cut with
    /// them: a replica has to take them for lost.
    pub altered: AlteredEnd,
    /// Indexes that were rebuilt from their segments' lines. That of a segment without a byte, whose creation was broken
    /// off, is none of them.
    pub rebuilt_indexes: usize,
    /// Damage that was found. Sealed segments are not read at opening; `verify` reads all.
    pub damage: Vec<Damage>,
}

impl PartitionLog {
    /// Opens a partition's log in `dir`, which is created if need be. Nothing is published yet: without replication
    /// the caller publishes [`Self::flushed_end`].
    ///
    /// # Errors
    /// When another process has the log open, the files are of a newer version, or the system refuses.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        partition: Partition,
        options: LogOptions,
        now_ms: u64,
    ) -> Result<(Self, RecoveryReport), LogError> {
        let stop = Stop::default();
        let disk: Arc<dyn Disk> = Arc::new(StoppingDisk::new(disk, stop.clone()));
        let reserve = Reserve::new(dir);
        let lock = reserve.or_give_up(&*disk, || lock(&*disk, dir))?;
        let opened = open::open(&*disk, dir, partition)?;
        let report = RecoveryReport::of(&opened);
        let shared = Shared::new(partition, opened.segments, &report, opened.missing, stop);
        let log = Self {
            disk,
            dir: dir.to_owned(),
            options,
            shared: Arc::new(shared),
            compression: None,
            compression_given_up: Vec::new(),
            reserve,
            id_filter_bytes_max: limits::ID_FILTER_BYTES_MAX,
            purged_upto: None,
            tail: opened.active.map_or(Tail::Sealed, Tail::Found),
            fixes: opened.fixes,
            synced_at_ms: now_ms,
            now_ms,
            _lock: lock,
        };
        log.make_found_durable()?;
        Ok((log, report))
    }

    /// Writes batches, all or none, and returns the base offset of each. They are not flushed, and not to be
    /// acknowledged before [`Self::sync`].
    ///
    /// # Errors
    /// [`LogError::DiskFull`] and [`LogError::Io`]: nothing was appended, and a later append may succeed.
    /// [`LogError::Stopped`]: nothing will be until the log is opened again.
    pub fn append(&mut self, batches: &[NewBatch]) -> Result<Vec<Offset>, LogError> {
        let appended = self.append_all(batches);
        self.or_stopped(appended)
    }

    fn append_all(&mut self, batches: &[NewBatch]) -> Result<Vec<Offset>, LogError> {
        let Some(newest) = batches.last() else { return Ok(Vec::new()) };
        let bytes: u64 = batches.iter().map(|new| new.batch.bytes().len() as u64).sum();
        self.make_room_for(bytes, batches.len(), newest.appended_at_ms)?;
        let appended = self.writer()?.append(batches);
        let offsets = self.settle(appended)?;
        self.note_written();
        Ok(offsets)
    }

    /// Says where the log ends, after a write.
    pub(super) fn note_written(&self) {
        self.shared
            .set_written_end(self.tail_summary().map_or(self.written_end(), |summary| summary.end_offset));
    }

    /// Puts right what a crash left, and begins another segment if the last has no room for so much.
    pub(super) fn make_room_for(&mut self, bytes: u64, batches: usize, now_ms: u64) -> Result<(), LogError> {
        self.check_running()?;
        self.now_ms = now_ms;
        self.prepare()?;
        if self.is_full(bytes, batches) { self.seal() } else { Ok(()) }
    }

    /// Makes what was appended as durable as the fsync policy promises, and returns the end of what may be
    /// acknowledged and published: with [`FsyncPolicy::Always`] that is [`Self::flushed_end`].
    ///
    /// # Errors
    /// [`LogError::Stopped`] when the disk failed, now or earlier. What was appended since the last sync may be lost.
    pub fn sync(&mut self) -> Result<Offset, LogError> {
        self.check_running()?;
        let is_due = match self.options.fsync {
            FsyncPolicy::Always => true,
            FsyncPolicy::Interval(_) => self.time_to_sync(self.now_ms).is_some_and(|time| time.is_zero()),
            FsyncPolicy::Never => false,
        };
        if is_due {
            self.flush()?;
        }
        Ok(self.publishable_end())
    }

    /// How long what was appended may still wait for [`Self::sync`], where the fsync policy has an interval.
    pub fn time_to_sync(&self, now_ms: u64) -> Option<Duration> {
        let FsyncPolicy::Interval(interval) = self.options.fsync else { return None };
        // A clock that was set back says nothing of how long ago the last sync was.
        let waited = now_ms.checked_sub(self.synced_at_ms).map_or(Duration::MAX, Duration::from_millis);
        (self.flushed_end() < self.written_end()).then(|| interval.saturating_sub(waited))
    }

    /// Makes durable what was appended, where the fsync policy has an interval and it is over.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn sync_if_due(&mut self, now_ms: u64) -> Result<(), LogError> {
        self.check_running()?;
        self.now_ms = now_ms;
        if self.time_to_sync(now_ms).is_some_and(|time| time.is_zero()) {
            self.flush()?;
        }
        Ok(())
    }

    /// The end of what was written.
    pub fn written_end(&self) -> Offset {
        self.shared.written_end()
    }

    /// The end of what is on this disk for good.
    pub fn flushed_end(&self) -> Offset {
        self.shared.flushed_end()
    }

    /// Lets readers see the records below `end`, as far as they are flushed (or written, where the fsync policy says
    /// that this is enough).
    pub fn publish(&mut self, end: Offset) {
        self.shared.raise_high_watermark(end.min(self.publishable_end()));
    }

    /// A reader of this log. It outlives the writer.
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// The door to what a search keeps beside the segments. It outlives the writer.
    pub fn sidecars(&self) -> Sidecars {
        Sidecars::new(Arc::clone(&self.disk), self.dir.clone(), Arc::clone(&self.shared))
    }

    /// Flushes everything and says so on the disk, so that the next opening need not look.
    ///
    /// # Errors
    /// When the disk fails; the log is recovered at its next opening then.
    pub fn close(mut self) -> Result<(), LogError> {
        let closed = self.flush_and_mark();
        self.or_stopped(closed)
    }

    fn flush_and_mark(&mut self) -> Result<(), LogError> {
        self.check_running()?;
        if let Tail::Found(tail) = &self.tail
            && !tail.was_closed
        {
            self.prepare()?;
        }
        self.flush()?;
        // A tail that was found closed and is untouched still has its marker; a sealed one needs none.
        let Tail::Writing(writer) = &self.tail else { return Ok(()) };
        let summary = writer.summary();
        let marker = ClosedMarker {
            segment: writer.segment().base_offset,
            end_offset: summary.end_offset,
            data_bytes: summary.data_bytes,
            batch_count: summary.batch_count,
        }
        .encode();
        let (disk, dir) = (&*self.disk, &*self.dir);
        self.reserve.or_give_up(disk, || {
            disk::write_atomically(disk, dir, layout::CLOSED, &marker)
                .map_err(|error| LogError::io("write", &dir.join(layout::CLOSED), error))
        })
    }

    /// Makes everything that was written durable.
    pub(super) fn flush(&mut self) -> Result<(), LogError> {
        if let Tail::Writing(writer) = &mut self.tail {
            let synced = writer.sync();
            self.settle(synced)?;
        }
        self.shared.set_flushed_end(self.written_end());
        self.synced_at_ms = self.now_ms;
        Ok(())
    }

    /// The last segment that takes appends, if it does.
    pub(super) fn tail_summary(&self) -> Option<Summary> {
        match &self.tail {
            Tail::Sealed => None,
            Tail::Found(_) => self.shared.segments().last().map(|segment| segment.summary()),
            Tail::Writing(writer) => Some(writer.summary()),
        }
    }

    /// The place of `id`'s batch in the last segment, if it takes appends.
    pub(super) fn batch_in_tail(&self, id: BatchId) -> Option<u32> {
        match &self.tail {
            Tail::Sealed => None,
            Tail::Found(tail) => tail.batch_by_id.get(&id).copied(),
            Tail::Writing(writer) => writer.batch_of(id),
        }
    }

    pub(super) fn check_running(&self) -> Result<(), LogError> {
        match self.shared.stopped() {
            Some(cause) => Err(LogError::Stopped { cause }),
            None => Ok(()),
        }
    }

    /// Whatever failed: if a sync did, that is what there is to say.
    pub(super) fn or_stopped<T>(&self, outcome: Result<T, LogError>) -> Result<T, LogError> {
        outcome.map_err(|error| self.check_running().err().unwrap_or(error))
    }

    /// Seals the last segment. The next append begins another.
    pub(super) fn seal(&mut self) -> Result<(), LogError> {
        let Tail::Writing(writer) = &mut self.tail else { return Ok(()) };
        let sealed = writer.seal();
        let (segment, ids) = (Arc::clone(writer.segment()), writer.ids());
        self.settle(sealed)?;
        self.tail = Tail::Sealed;
        self.shared.set_flushed_end(self.written_end());
        self.synced_at_ms = self.now_ms;
        let room = self.id_filter_room();
        *segment.ids.lock() = id_list::write(&*self.disk, &self.dir, &segment, ids, room);
        Ok(())
    }

    /// The writer of the last segment; a new segment if that is sealed.
    pub(super) fn writer(&mut self) -> Result<&mut SegmentWriter, LogError> {
        if !matches!(self.tail, Tail::Writing(_)) {
            let writer =
                SegmentWriter::create(&*self.disk, &self.dir, self.shared.partition, self.written_end())?;
            self.shared.change_segments(|list| list.push(Arc::clone(writer.segment())));
            self.tail = Tail::Writing(writer);
        }
        match &mut self.tail {
            Tail::Writing(writer) => Ok(writer),
            // Cannot be: it was made a writer above.
            Tail::Sealed | Tail::Found(_) => {
                Err(LogError::Stopped { cause: "there is no active segment".into() })
            }
        }
    }

    pub(super) fn publishable_end(&self) -> Offset {
        match self.options.fsync {
            FsyncPolicy::Always => self.flushed_end(),
            FsyncPolicy::Interval(_) | FsyncPolicy::Never => self.written_end(),
        }
    }

    fn is_full(&self, bytes: u64, batches: usize) -> bool {
        self.tail_summary().is_some_and(|summary| {
            // A segment without records would give its name to the next.
            summary.has_records()
                && (summary.data_bytes.saturating_add(bytes) > self.options.segment_bytes_max
                    || u64::from(summary.batch_count) + batches as u64
                        > u64::from(self.options.segment_batches_max))
        })
    }

    /// Tells a refused write from a broken disk, after which the log is stopped.
    pub(super) fn settle<T>(&self, result: Result<T, WriteError>) -> Result<T, LogError> {
        result.map_err(|error| match error {
            WriteError::Refused(error) => error,
            WriteError::Broken(cause) => {
                self.shared.stop(cause.into());
                LogError::Stopped { cause: self.shared.stopped().unwrap_or_default() }
            }
        })
    }
}

impl RecoveryReport {
    pub(super) fn of(opened: &Opened) -> Self {
        let found = opened.segments.iter().flat_map(|segment| segment.damage().listed);
        Self {
            segments: opened.segments.len(),
            next_offset: opened.next_offset,
            was_closed: opened.active.as_ref().is_none_or(|tail| tail.was_closed),
            torn_bytes: opened.active.as_ref().map_or(0, |tail| tail.torn_bytes),
            lost_records: opened.active.as_ref().map_or(0, |tail| tail.lost_records),
            altered: opened.active.as_ref().map(|tail| tail.altered).unwrap_or_default(),
            rebuilt_indexes: opened.rebuilt_indexes,
            damage: opened.missing.iter().cloned().chain(found).collect(),
        }
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskLock>, LogError> {
    disk.create_dir(dir).map_err(|error| LogError::io("create", dir, error))?;
    let path = dir.join(layout::LOCK);
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked { path },
        _ => LogError::io("lock", &path, error),
    })
}
