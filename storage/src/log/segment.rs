//! One segment as readers see it: its files held open, its index, and a summary of what they hold.
//!
//! Invariant: a reader that holds a segment can read it to the end, whatever becomes of the files' names. The batches
//! that the summary counts are written; which of them may be read, the high watermark says.

use std::sync::Arc;

use bytes::Bytes;
use model::{BatchDigest, Offset, Partition};
use parking_lot::{Mutex, RwLock};

use super::batch_index::{BatchIndex, HeaderSlot};
use super::error::{Damage, DamageKind, LogError};
use super::format::{BatchHeader, BatchKind, Seal};
use super::id_list::IdListSlot;
use super::limits;
use super::segment_data::{DataError, FrameCache, SegmentData};

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base_offset: Offset,
    pub(super) partition: Partition,
    pub(super) index: BatchIndex,
    pub(super) data: SegmentData,
    /// The sorted ids of a sealed segment, once they were asked for.
    pub(super) ids: Mutex<IdListSlot>,
    summary: RwLock<Summary>,
    damage: Mutex<DamageList>,
}

/// What one has to know of a segment to pass it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) batch_count: u32,
    pub(super) end_offset: Offset,
    pub(super) data_bytes: u64,
    pub(super) timestamp_min_ms: u64,
    pub(super) timestamp_max_ms: u64,
    pub(super) appended_first_ms: u64,
    pub(super) appended_last_ms: u64,
    pub(super) last_term: u64,
    pub(super) last_log_index: u64,
    pub(super) sealed: bool,
}

/// Places of damage, each once, and only so many.
#[derive(Clone, Debug, Default)]
pub(super) struct DamageList {
    pub(super) listed: Vec<Damage>,
    pub(super) count: u64,
}

impl Segment {
    /// A segment of these files.
    pub(super) fn new(
        partition: Partition,
        base_offset: Offset,
        index: BatchIndex,
        data: SegmentData,
        summary: Summary,
    ) -> Self {
        Self {
            base_offset,
            partition,
            index,
            data,
            ids: Mutex::default(),
            summary: RwLock::new(summary),
            damage: Mutex::default(),
        }
    }

    /// The same segment with other files, for readers that come after.
    pub(super) fn with_files(&self, index: BatchIndex, data: SegmentData) -> Self {
        Self {
            base_offset: self.base_offset,
            partition: self.partition,
            index,
            data,
            ids: Mutex::default(),
            summary: RwLock::new(self.summary()),
            damage: Mutex::new(self.damage()),
        }
    }

    /// What it holds now.
    pub(super) fn summary(&self) -> Summary {
        *self.summary.read()
    }

    /// Says what it holds, after a write.
    pub(super) fn set_summary(&self, summary: Summary) {
        *self.summary.write() = summary;
    }

    /// The damage that was seen so far.
    pub(super) fn damage(&self) -> DamageList {
        self.damage.lock().clone()
    }

    /// Whether any damage was seen so far.
    pub(super) fn is_damaged(&self) -> bool {
        self.damage.lock().count > 0
    }

    /// Remembers a place of damage.
    pub(super) fn note_damage(&self, damage: &Damage) {
        self.damage.lock().note(damage);
    }

    /// The headers of a run of batches.
    pub(super) fn headers(&self, first: u32, count: u32) -> Result<Vec<HeaderSlot>, LogError> {
        self.index.headers(first, count).map_err(|error| self.index_error(error))
    }

    /// The last batch that begins at or before `offset`.
    pub(super) fn batch_at(&self, offset: Offset) -> Result<u32, LogError> {
        self.index.batch_at(offset, self.summary().batch_count).map_err(|error| self.index_error(error))
    }

    /// The first batch of an entry of the replicated log at or after `log_index`; the batches' count when none is.
    pub(super) fn first_batch_of_entry(&self, log_index: u64) -> Result<u32, LogError> {
        let batch_count = self.summary().batch_count;
        self.index.first_batch_of_entry(log_index, batch_count).map_err(|error| self.index_error(error))
    }

    /// Reads all headers in order and hands each to `visit`, with its place.
    pub(super) fn scan_headers(&self, visit: impl FnMut(u32, HeaderSlot)) -> Result<(), LogError> {
        self.index.scan(self.summary().batch_count, visit).map_err(|error| self.index_error(error))
    }

    /// Reads the bytes of batches that lie one after another, and checks each. One read for all, unless that fails.
    pub(super) fn read_batches(
        &self,
        headers: &[BatchHeader],
        cache: &mut FrameCache,
    ) -> Vec<Result<Bytes, LogError>> {
        let Some(first) = headers.first() else { return Vec::new() };
        let length: u64 = headers.iter().map(|header| u64::from(header.length)).sum();
        match self.data.read(first.position, usize::try_from(length).unwrap_or(usize::MAX), cache) {
            Ok(bytes) => headers
                .iter()
                .map(|header| {
                    let start = (header.position - first.position) as usize;
                    self.checked(header, bytes.slice(start..start + header.length as usize))
                })
                .collect(),
            Err(error) if headers.len() == 1 => vec![Err(self.data_error(first, error))],
            Err(_) => headers
                .iter()
                .map(|header| match self.data.read(header.position, header.length as usize, cache) {
                    Ok(bytes) => self.checked(header, bytes),
                    Err(error) => Err(self.data_error(header, error)),
                })
                .collect(),
        }
    }

    /// The damage of `kind` to one batch; it is remembered.
    pub(super) fn damaged(&self, header: &BatchHeader, kind: DamageKind) -> LogError {
        let damage = Damage {
            segment: self.base_offset,
            position: header.position,
            first_offset: header.base_offset,
            end_offset: header.end_offset(),
            kind,
        };
        self.note_damage(&damage);
        LogError::Damaged(damage)
    }

    fn checked(&self, header: &BatchHeader, bytes: Bytes) -> Result<Bytes, LogError> {
        if header.unreadable {
            Err(self.damaged(header, DamageKind::Lines))
        } else if crc32fast::hash(&bytes) == header.crc {
            Ok(bytes)
        } else {
            Err(self.damaged(header, DamageKind::Bytes))
        }
    }

    fn data_error(&self, header: &BatchHeader, error: DataError) -> LogError {
        match error {
            DataError::Missing => self.damaged(header, DamageKind::MissingBytes),
            DataError::Corrupt => self.damaged(header, DamageKind::Bytes),
            DataError::Io(source) => self.io_error("read the records of segment", source),
        }
    }

    fn index_error(&self, source: std::io::Error) -> LogError {
        self.io_error("read the batch index of segment", source)
    }

    fn io_error(&self, action: &'static str, source: std::io::Error) -> LogError {
        LogError::Io {
            action,
            path: format!("partition-{}/{:020}", self.partition, self.base_offset.get()).into(),
            source: Arc::new(source),
        }
    }
}

impl Summary {
    /// A segment without batches.
    pub(super) fn empty(base_offset: Offset) -> Self {
        Self {
            batch_count: 0,
            end_offset: base_offset,
            data_bytes: 0,
            timestamp_min_ms: u64::MAX,
            timestamp_max_ms: 0,
            appended_first_ms: u64::MAX,
            appended_last_ms: 0,
            last_term: 0,
            last_log_index: 0,
            sealed: false,
        }
    }

    /// The header of a batch of nothing that comes next.
    pub(super) fn next_header(&self, kind: BatchKind) -> BatchHeader {
        BatchHeader {
            kind,
            id: None,
            unreadable: false,
            continues: false,
            base_offset: self.end_offset,
            record_count: 0,
            position: self.data_bytes,
            length: 0,
            crc: crc32fast::hash(&[]),
            timestamp_min_ms: 0,
            timestamp_max_ms: 0,
            digest: BatchDigest::from_u64(0),
            term: 0,
            log_index: 0,
            tenant_hash: 0,
            appended_at_ms: self.appended_last_ms,
            flushed_batches: 0,
        }
    }

    /// Adds the next batch.
    pub(super) fn add(&mut self, header: &BatchHeader) {
        self.batch_count += 1;
        self.end_offset = header.end_offset();
        self.data_bytes = header.end_position();
        if header.record_count > 0 {
            self.timestamp_min_ms = self.timestamp_min_ms.min(header.timestamp_min_ms);
            self.timestamp_max_ms = self.timestamp_max_ms.max(header.timestamp_max_ms);
        }
        self.appended_first_ms = self.appended_first_ms.min(header.appended_at_ms);
        self.appended_last_ms = self.appended_last_ms.max(header.appended_at_ms);
        self.last_term = header.term;
        self.last_log_index = header.log_index;
    }

    /// Whether there is a record: entries of the replicated log may have none.
    pub(super) fn has_records(&self) -> bool {
        self.data_bytes > 0
    }

    /// Whether a record's timestamp may be in this range, ends included.
    pub(super) fn overlaps(&self, timestamp_min_ms: u64, timestamp_max_ms: u64) -> bool {
        self.timestamp_min_ms <= timestamp_max_ms && timestamp_min_ms <= self.timestamp_max_ms
    }

    /// The seal that says the same.
    pub(super) fn seal(&self, base_offset: Offset) -> Seal {
        Seal {
            base_offset,
            end_offset: self.end_offset,
            data_bytes: self.data_bytes,
            batch_count: self.batch_count,
            timestamp_min_ms: self.timestamp_min_ms,
            timestamp_max_ms: self.timestamp_max_ms,
            appended_first_ms: self.appended_first_ms,
            appended_last_ms: self.appended_last_ms,
            last_term: self.last_term,
            last_log_index: self.last_log_index,
        }
    }
}

impl From<Seal> for Summary {
    fn from(seal: Seal) -> Self {
        Self {
            batch_count: seal.batch_count,
            end_offset: seal.end_offset,
            data_bytes: seal.data_bytes,
            timestamp_min_ms: seal.timestamp_min_ms,
            timestamp_max_ms: seal.timestamp_max_ms,
            appended_first_ms: seal.appended_first_ms,
            appended_last_ms: seal.appended_last_ms,
            last_term: seal.last_term,
            last_log_index: seal.last_log_index,
            sealed: true,
        }
    }
}

impl DamageList {
    fn note(&mut self, damage: &Damage) {
        if self.listed.contains(damage) {
            return;
        }
        // Beyond the list's bound a place that is seen twice counts twice; the list being full says enough.
        self.count += 1;
        if self.listed.len() < limits::DAMAGE_LISTED_MAX {
            self.listed.push(damage.clone());
        }
    }
}
