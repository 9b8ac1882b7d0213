//! The log as the replicated log: entries of several batches or of none, found by their index.
//!
//! An entry is what the replicas agree on at once: the batches of one group commit, a blank that a new leader writes,
//! or a change of the members. Its batches' headers carry its term and index; each but the last says that the entry
//! goes on, so that an entry of which a crash left a part is known.
//!
//! Invariant: indexes are consecutive, from 1; what is read matches its checksum. Must not know of consensus.

use std::sync::Arc;

use bytes::Bytes;
use model::{BatchDigest, BatchId, Offset};

use super::batch_index::HeaderSlot;
use super::consumer::ConsumerCommit;
use super::error::{Damage, DamageKind, LogError};
use super::format::{BatchHeader, BatchKind};
use super::limits;
use super::partition_log::PartitionLog;
use super::segment::Segment;
use super::segment_data::FrameCache;
use super::segment_writer::NewBatch;
use super::shared::{Publisher, SegmentList, Shared};

/// An entry to append.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// Its place in the replicated log.
    pub log_index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// Now, Unix milliseconds.
    pub appended_at_ms: u64,
    /// What it holds.
    pub content: EntryContent,
}

/// What an entry holds.
#[derive(Clone, Debug)]
pub enum EntryContent {
    /// Nothing.
    Blank,
    /// A change of the members, which is kept elsewhere.
    Membership,
    /// How far a consumer has read.
    Consumer(ConsumerCommit),
    /// Batches, at least one.
    Batches(Vec<NewBatch>),
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing.
    Blank,
    /// A change of the members.
    Membership,
    /// How far a consumer has read.
    Consumer(ConsumerCommit),
    /// Batches.
    Batches,
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryExtent {
    /// Its place in the replicated log.
    pub log_index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// The offset of its first record, or of the record after it.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
}

/// An entry as it was read.
#[derive(Clone, Debug)]
pub struct StoredEntry {
    /// Where it lies.
    pub extent: EntryExtent,
    /// Its batches.
    pub batches: Vec<EntryBatch>,
}

/// A batch of an entry: what another replica needs to store the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBatch {
    /// Its id; `None` for one that was made of bare lines.
    pub id: Option<BatchId>,
    /// The digest of what the client sent.
    pub digest: BatchDigest,
    /// Its records.
    pub record_count: u32,
    /// The earliest record's timestamp, Unix milliseconds.
    pub timestamp_min_ms: u64,
    /// The latest record's timestamp, Unix milliseconds.
    pub timestamp_max_ms: u64,
    /// When it was appended on the leader, Unix milliseconds.
    pub appended_at_ms: u64,
    /// CRC-32 of its bytes.
    pub crc: u32,
    /// The records, one a line.
    pub bytes: Bytes,
}

/// Finds and reads entries, committed or not. Cheap to clone; never waits for the writer.
#[derive(Clone, Debug)]
pub struct EntryReader {
    shared: Arc<Shared>,
}

impl EntryContent {
    /// What it is.
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Blank => EntryKind::Blank,
            Self::Membership => EntryKind::Membership,
            Self::Consumer(commit) => EntryKind::Consumer(*commit),
            Self::Batches(_) => EntryKind::Batches,
        }
    }

    /// The batches.
    pub(super) fn batches(&self) -> &[NewBatch] {
        match self {
            Self::Blank | Self::Membership | Self::Consumer(_) => &[],
            Self::Batches(batches) => batches,
        }
    }

    /// How many headers it takes.
    pub(super) fn header_count(&self) -> u32 {
        self.batches().len().max(1) as u32
    }
}

impl PartitionLog {
    /// Writes entries, all or none, and returns where each lies. They are not flushed, and not to be acknowledged
    /// before [`Self::sync`].
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_entries(&mut self, entries: &[NewEntry]) -> Result<Vec<EntryExtent>, LogError> {
        let appended = self.append_all_entries(entries);
        self.or_stopped(appended)
    }

    fn append_all_entries(&mut self, entries: &[NewEntry]) -> Result<Vec<EntryExtent>, LogError> {
        let Some(newest) = entries.last() else { return Ok(Vec::new()) };
        let batches = || entries.iter().flat_map(|entry| entry.content.batches());
        let bytes: u64 = batches().map(|new| new.batch.bytes().len() as u64).sum();
        let headers: usize = entries.iter().map(|entry| entry.content.header_count() as usize).sum();
        self.make_room_for(bytes, headers, newest.appended_at_ms)?;
        let appended = self.writer()?.append_entries(entries);
        let extents = self.settle(appended)?;
        self.note_written();
        Ok(extents)
    }

    /// The last entry; `None` in a log without any.
    ///
    /// # Errors
    /// When its header cannot be read.
    pub fn last_entry(&self) -> Result<Option<EntryExtent>, LogError> {
        self.entry_reader().last()
    }

    /// Cuts off the last entry if a crash left a part of it only. It was never acknowledged.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn cut_partial_entry(&mut self) -> Result<(), LogError> {
        match self.last_header()? {
            Some(last) if last.continues => self.truncate_from(last.log_index),
            _ => Ok(()),
        }
    }

    /// A reader of entries. It outlives the writer.
    pub fn entry_reader(&self) -> EntryReader {
        EntryReader { shared: Arc::clone(&self.shared) }
    }

    /// Raises the high watermark for the writer.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.shared))
    }

    /// Allows retention to delete segments of which all entries are up to `log_index`; until this is called it is not
    /// held back.
    pub fn purge_upto(&mut self, log_index: u64) {
        self.purged_upto = Some(self.purged_upto.unwrap_or_default().max(log_index));
    }

    /// The index of the last entry; `None` in a log without any.
    pub fn last_index(&self) -> Option<u64> {
        let segments = self.shared.segments();
        let last = segments.iter().rev().map(|segment| segment.summary()).find(|s| s.batch_count > 0)?;
        (last.last_log_index > 0).then_some(last.last_log_index)
    }

    /// The last entry that retention may delete, with those before it; 0 when none may be.
    pub fn purged(&self) -> u64 {
        self.purged_upto.unwrap_or_default()
    }

    fn last_header(&self) -> Result<Option<BatchHeader>, LogError> {
        self.entry_reader().last_header()
    }
}

impl EntryReader {
    /// The last entry; `None` in a log without any.
    ///
    /// # Errors
    /// When its header cannot be read.
    pub fn last(&self) -> Result<Option<EntryExtent>, LogError> {
        let Some(last) = self.last_header()?.filter(|header| header.log_index > 0) else { return Ok(None) };
        Ok(self.extents(last.log_index, 1)?.pop())
    }

    /// The last entry of which a header can be read, and whether it goes on behind that; `None` where there is none.
    ///
    /// # Errors
    /// The system's.
    pub fn last_readable(&self) -> Result<Option<(EntryExtent, bool)>, LogError> {
        for segment in self.shared.segments().iter().rev() {
            let mut last = None;
            segment
                .scan_headers(|_, header| last = header.ok().filter(|h| h.log_index > 0).or(last.take()))?;
            if let Some(header) = last {
                return Ok(Some((extent_of(&header), header.continues)));
            }
        }
        Ok(None)
    }

    /// The index of the first entry that is still there; `None` in a log without any.
    ///
    /// # Errors
    /// When a header cannot be read.
    pub fn first_index(&self) -> Result<Option<u64>, LogError> {
        for segment in self.shared.segments().iter() {
            let place = segment.first_batch_of_entry(1)?;
            if place < segment.summary().batch_count {
                return Ok(Some(header_at(segment, place)?.log_index));
            }
        }
        Ok(None)
    }

    /// Where the entries from `from` on lie, at most `count`, as far as there are any.
    ///
    /// # Errors
    /// When a header among them cannot be read.
    pub fn extents(&self, from: u64, count: usize) -> Result<Vec<EntryExtent>, LogError> {
        let mut extents: Vec<EntryExtent> = Vec::new();
        self.visit(from, |_, header| {
            let is_full = extents.len() == count;
            match extents.last_mut() {
                Some(last) if last.log_index == header.log_index => last.end_offset = header.end_offset(),
                _ if is_full => return false,
                _ => extents.push(extent_of(header)),
            }
            true
        })?;
        Ok(extents)
    }

    /// Reads the entries from `from` to before `to`, as far as there are any: at least one, and no more than
    /// `bytes_max` bytes beyond it.
    ///
    /// # Errors
    /// When one of them is damaged or cannot be read.
    pub fn read(&self, from: u64, to: u64, bytes_max: u64) -> Result<Vec<StoredEntry>, LogError> {
        let mut runs: Vec<(Arc<Segment>, Vec<BatchHeader>)> = Vec::new();
        let mut bytes = 0;
        let mut last_index = from;
        self.visit(from, |segment, header| {
            bytes += u64::from(header.length);
            if header.log_index >= to || (header.log_index != last_index && bytes > bytes_max) {
                return false;
            }
            last_index = header.log_index;
            match runs.last_mut() {
                Some((run, headers)) if run.base_offset == segment.base_offset => {
                    headers.push(header.clone())
                }
                _ => runs.push((Arc::clone(segment), vec![header.clone()])),
            }
            true
        })?;
        let mut entries: Vec<StoredEntry> = Vec::new();
        for (segment, headers) in &runs {
            let read = segment.read_batches(headers, &mut FrameCache::default());
            for (header, bytes) in headers.iter().zip(read) {
                add_batch(&mut entries, header, bytes?);
            }
        }
        Ok(entries)
    }

    /// How many entries came since the last segment was begun, if none of them has records: until one has there cannot
    /// be another segment.
    pub fn entries_without_records(&self) -> u32 {
        let segments = self.shared.segments();
        let summary = segments.last().map(|segment| segment.summary());
        summary.filter(|summary| !summary.has_records()).map_or(0, |summary| summary.batch_count)
    }

    pub(super) fn segments(&self) -> SegmentList {
        self.shared.segments()
    }

    /// Hands the headers from entry `from` on to `visit`, until it has enough.
    fn visit(
        &self,
        from: u64,
        mut visit: impl FnMut(&Arc<Segment>, &BatchHeader) -> bool,
    ) -> Result<(), LogError> {
        for segment in self.shared.segments().iter() {
            let summary = segment.summary();
            if summary.batch_count == 0 || summary.last_log_index < from {
                continue;
            }
            let mut place = segment.first_batch_of_entry(from)?;
            while place < summary.batch_count {
                let run = (summary.batch_count - place).min(limits::HEADER_RUN);
                for slot in segment.headers(place, run)? {
                    if !visit(segment, &readable(segment, slot)?) {
                        return Ok(());
                    }
                }
                place += run;
            }
        }
        Ok(())
    }

    fn last_header(&self) -> Result<Option<BatchHeader>, LogError> {
        let segments = self.shared.segments();
        let Some(segment) = segments.iter().rev().find(|segment| segment.summary().batch_count > 0) else {
            return Ok(None);
        };
        header_at(segment, segment.summary().batch_count - 1).map(Some)
    }
}

fn add_batch(entries: &mut Vec<StoredEntry>, header: &BatchHeader, bytes: Bytes) {
    if entries.last().is_none_or(|last| last.extent.log_index != header.log_index) {
        entries.push(StoredEntry { extent: extent_of(header), batches: Vec::new() });
    }
    let Some(entry) = entries.last_mut() else { return };
    entry.extent.end_offset = header.end_offset();
    if header.kind == BatchKind::Records {
        entry.batches.push(EntryBatch {
            id: header.id,
            digest: header.digest,
            record_count: header.record_count,
            timestamp_min_ms: header.timestamp_min_ms,
            timestamp_max_ms: header.timestamp_max_ms,
            appended_at_ms: header.appended_at_ms,
            crc: header.crc,
            bytes,
        });
    }
}

fn extent_of(header: &BatchHeader) -> EntryExtent {
    EntryExtent {
        log_index: header.log_index,
        term: header.term,
        kind: match header.kind {
            BatchKind::Records => EntryKind::Batches,
            BatchKind::Blank => EntryKind::Blank,
            BatchKind::Membership => EntryKind::Membership,
            BatchKind::Consumer(commit) => EntryKind::Consumer(commit),
        },
        base_offset: header.base_offset,
        end_offset: header.end_offset(),
    }
}

fn header_at(segment: &Segment, place: u32) -> Result<BatchHeader, LogError> {
    let slot = segment.headers(place, 1)?.pop();
    readable(segment, slot.unwrap_or(Err(super::format::Undecodable::Absent)))
}

/// A header that cannot be read is damage: what comes after it cannot be told to be next.
fn readable(segment: &Segment, slot: HeaderSlot) -> Result<BatchHeader, LogError> {
    slot.map_err(|_undecodable| {
        let summary = segment.summary();
        let damage = Damage {
            segment: segment.base_offset,
            position: 0,
            first_offset: segment.base_offset,
            end_offset: summary.end_offset,
            kind: DamageKind::Header,
        };
        LogError::Damaged(damage)
    })
}
