//! Reading a log while it is written: lookups, iterators and the state of things.
//!
//! Invariant: nothing at or above the high watermark is read, and the writer is never waited for.

use std::sync::Arc;

use model::{Offset, Partition};

use super::batches::{Batches, Direction};
use super::error::{Damage, LogError};
use super::format::BatchHeader;
use super::limits;
use super::segment::Segment;
use super::shared::{SegmentList, Shared};

/// Reads a log. Cheap to clone; any number may read at once.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

/// The state of a partition's log.
#[derive(Clone, Debug)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: Partition,
    /// The first record that is still there.
    pub first_offset: Offset,
    /// The end of what was written.
    pub written_end: Offset,
    /// The end of what is on this disk for good.
    pub flushed_end: Offset,
    /// The end of what may be read.
    pub high_watermark: Offset,
    /// The segments, oldest first.
    pub segments: Vec<SegmentStatus>,
    /// Segments that are missing between others.
    pub missing: Vec<Damage>,
    /// Records that had been flushed, and were gone at the end of the log when it was opened.
    pub lost_records: u64,
    /// Why the log takes no more writes, if it does not.
    pub stopped: Option<Arc<str>>,
}

/// The state of one segment.
#[derive(Clone, Debug)]
pub struct SegmentStatus {
    /// Its base offset, and so its name.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Its batches.
    pub batch_count: u32,
    /// Bytes of records, before compression.
    pub data_bytes: u64,
    /// Bytes that the records take on the disk.
    pub stored_bytes: u64,
    /// Bytes of the batch index.
    pub index_bytes: u64,
    /// The earliest record's timestamp, Unix milliseconds; `None` without records.
    pub timestamp_min_ms: Option<u64>,
    /// The latest record's timestamp, Unix milliseconds; `None` without records.
    pub timestamp_max_ms: Option<u64>,
    /// Whether it never changes again.
    pub sealed: bool,
    /// Whether its records are compressed.
    pub compressed: bool,
    /// Places of damage that were seen so far, up to a bound.
    pub damage: Vec<Damage>,
    /// How many places of damage were seen so far.
    pub damage_count: u64,
}

/// What one has to know of a segment to pass it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentExtent {
    /// Its base offset, and so its name.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Bytes of records, before compression.
    pub data_bytes: u64,
    /// Its batches.
    pub batch_count: u32,
    /// The earliest record's timestamp, Unix milliseconds.
    pub timestamp_min_ms: u64,
    /// The latest record's timestamp, Unix milliseconds.
    pub timestamp_max_ms: u64,
    /// Whether it never changes again.
    pub sealed: bool,
}

/// Where a batch is, and when its records are from, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchExtent {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Bytes of its records, before compression.
    pub length: u32,
    /// The earliest record's timestamp, Unix milliseconds.
    pub timestamp_min_ms: u64,
    /// The latest record's timestamp, Unix milliseconds.
    pub timestamp_max_ms: u64,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The partition.
    pub fn partition(&self) -> Partition {
        self.shared.partition
    }

    /// The first record that is still there; the high watermark when there is none.
    pub fn first_offset(&self) -> Offset {
        let high_watermark = self.high_watermark();
        self.shared.segments().first().map_or(high_watermark, |first| first.base_offset.min(high_watermark))
    }

    /// The end of what may be read.
    pub fn high_watermark(&self) -> Offset {
        self.shared.high_watermark()
    }

    /// Calls `hook` whenever there is more to read, on the thread that published it: it must not wait. Only the first
    /// hook stays.
    pub fn on_publish(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.shared.on_publish(hook);
    }

    /// The end of what is on this disk for good.
    pub fn flushed_end(&self) -> Offset {
        self.shared.flushed_end()
    }

    /// The batches from the one that holds `offset` on, oldest first, up to what is the high watermark now. What was
    /// deleted by retention is passed over; damage is an item, and the batches after it follow.
    pub fn batches_from(&self, offset: Offset) -> Batches {
        Batches::new(self.clone(), Direction::Forward, offset, self.high_watermark())
    }

    /// The batches that begin before `offset`, newest first.
    pub fn batches_before(&self, offset: Offset) -> Batches {
        Batches::new(
            self.clone(),
            Direction::Backward,
            self.first_offset(),
            offset.min(self.high_watermark()),
        )
    }

    /// The batches that hold records from `from` to `to`, oldest first, read in as few pieces as can be.
    pub fn batches_between(&self, from: Offset, to: Offset) -> Batches {
        Batches::new(self.clone(), Direction::Forward, from, to.min(self.high_watermark())).in_large_windows()
    }

    /// With replication: the entry up to which retention waits until entries are purged, if it does.
    pub fn purge_wanted(&self) -> Option<u64> {
        self.shared.purge_wanted()
    }

    /// The segments that have records, oldest first. What was appended last may lie beyond the high watermark.
    pub fn segment_extents(&self) -> Vec<SegmentExtent> {
        let segments = self.shared.segments();
        let high_watermark = self.high_watermark();
        let extents = segments.iter().map(|segment| SegmentExtent::of(segment, high_watermark));
        extents.filter(|extent| extent.base_offset < extent.end_offset).collect()
    }

    /// Hands the batches that hold records from `from` to `to` to `visit`, oldest first, unread but for their
    /// headers. Headers that cannot be read are passed over.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub fn visit_batch_extents(
        &self,
        from: Offset,
        to: Offset,
        mut visit: impl FnMut(BatchExtent),
    ) -> Result<(), LogError> {
        let to = to.min(self.high_watermark());
        for segment in self.shared.segments().iter() {
            let summary = segment.summary();
            if segment.base_offset >= to || summary.end_offset <= from {
                continue;
            }
            let mut batch = segment.batch_at(from)?;
            while batch < summary.batch_count {
                let count = (summary.batch_count - batch).min(limits::HEADER_RUN_SCAN);
                for header in segment.headers(batch, count)?.into_iter().flatten() {
                    if header.base_offset >= to {
                        return Ok(());
                    }
                    if header.end_offset() > from && header.record_count > 0 {
                        visit(BatchExtent::of(&header));
                    }
                }
                batch += count;
            }
        }
        Ok(())
    }

    /// An offset before which every record is older than `timestamp_ms`: where a reader of later records may begin.
    /// The high watermark when all are older.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub fn offset_at_time(&self, timestamp_ms: u64) -> Result<Offset, LogError> {
        let high_watermark = self.high_watermark();
        for segment in self.shared.segments().iter() {
            if segment.summary().timestamp_max_ms < timestamp_ms {
                continue;
            }
            let mut found = None;
            segment.scan_headers(|_, header| {
                if let Ok(header) = header
                    && header.timestamp_max_ms >= timestamp_ms
                    && header.record_count > 0
                {
                    found.get_or_insert(header.base_offset);
                }
            })?;
            if let Some(offset) = found {
                return Ok(offset.min(high_watermark));
            }
        }
        Ok(high_watermark)
    }

    /// The state of things. Asks the file system for each segment's size.
    pub fn status(&self) -> PartitionStatus {
        PartitionStatus {
            partition: self.shared.partition,
            first_offset: self.first_offset(),
            written_end: self.shared.written_end(),
            flushed_end: self.shared.flushed_end(),
            high_watermark: self.high_watermark(),
            segments: self.shared.segments().iter().map(|segment| SegmentStatus::of(segment)).collect(),
            missing: self.shared.missing.lock().clone(),
            lost_records: self.shared.lost_records,
            stopped: self.shared.stopped(),
        }
    }

    pub(super) fn segments(&self) -> SegmentList {
        self.shared.segments()
    }
}

impl PartitionStatus {
    /// How many places of damage are known.
    pub fn damage_count(&self) -> u64 {
        self.segments.iter().map(|segment| segment.damage_count).sum::<u64>() + self.missing.len() as u64
    }

    /// The places of damage that are listed.
    pub fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.missing.iter().chain(self.segments.iter().flat_map(|segment| &segment.damage))
    }
}

impl SegmentExtent {
    fn of(segment: &Segment, high_watermark: Offset) -> Self {
        let summary = segment.summary();
        Self {
            base_offset: segment.base_offset,
            end_offset: summary.end_offset,
            data_bytes: summary.data_bytes,
            batch_count: summary.batch_count,
            timestamp_min_ms: summary.timestamp_min_ms,
            timestamp_max_ms: summary.timestamp_max_ms,
            // What is not committed may be cut off again, out of a segment that was sealed meanwhile too.
            sealed: summary.sealed && summary.end_offset <= high_watermark,
        }
    }
}

impl BatchExtent {
    fn of(header: &BatchHeader) -> Self {
        Self {
            base_offset: header.base_offset,
            end_offset: header.end_offset(),
            length: header.length,
            timestamp_min_ms: header.timestamp_min_ms,
            timestamp_max_ms: header.timestamp_max_ms,
        }
    }
}

impl SegmentStatus {
    pub(super) fn of(segment: &Segment) -> Self {
        let summary = segment.summary();
        let damage = segment.damage();
        let has_records = summary.end_offset > segment.base_offset;
        Self {
            base_offset: segment.base_offset,
            end_offset: summary.end_offset,
            batch_count: summary.batch_count,
            data_bytes: summary.data_bytes,
            // A size that cannot be had is no reason to say nothing of the rest.
            stored_bytes: segment.data.stored_bytes().unwrap_or_default(),
            index_bytes: segment.index.length().unwrap_or_default(),
            timestamp_min_ms: has_records.then_some(summary.timestamp_min_ms),
            timestamp_max_ms: has_records.then_some(summary.timestamp_max_ms),
            sealed: summary.sealed,
            compressed: segment.data.is_compressed(),
            damage: damage.listed,
            damage_count: damage.count,
        }
    }
}
