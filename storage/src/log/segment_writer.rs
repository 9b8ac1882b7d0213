//! The active segment: the one that takes appends.
//!
//! Invariants: `flushed ≤ written`; an append that fails leaves the files as they were before it; bytes are written
//! before their headers, and both are synced before anything counts as flushed.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::{BatchDigest, BatchId, Offset, Partition, ValidBatch};

use super::batch_index::BatchIndex;
use super::disk::{self, Disk, DiskFile, OpenMode};
use super::entries::{EntryContent, EntryExtent, NewEntry};
use super::error::LogError;
use super::format::{BatchHeader, BatchKind, IndexFileHeader};
use super::layout::{self, Part};
use super::limits;
use super::segment::{Segment, Summary};
use super::segment_data::SegmentData;

/// A batch to append.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// The records.
    pub batch: ValidBatch,
    /// The batch's id. That it is new is the caller's to know.
    pub id: BatchId,
    /// The digest of what the client sent.
    pub digest: BatchDigest,
    /// Now, Unix milliseconds.
    pub appended_at_ms: u64,
    /// The leader's term; 0 without replication.
    pub term: u64,
    /// The place in the replicated log; 0 without replication.
    pub log_index: u64,
}

/// Why the active segment did not do what it was asked.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Nothing has changed.
    Refused(LogError),
    /// What the disk holds is not known any more; the log has to stop.
    Broken(String),
}

/// The active segment.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    segment: Arc<Segment>,
    data: Arc<dyn DiskFile>,
    index: Arc<dyn DiskFile>,
    /// What was written.
    summary: Summary,
    flushed_batches: u32,
    /// The batches' places, by id. Bounded by the batches of a segment.
    batch_by_id: HashMap<BatchId, u32>,
    /// The headers of one append, kept for its allocation.
    headers: Vec<u8>,
}

impl SegmentWriter {
    /// Creates an empty segment. Its files and their names are durable when this returns; when it fails, none is left.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        partition: Partition,
        base_offset: Offset,
    ) -> Result<Self, LogError> {
        let path = |part| dir.join(layout::file_name(base_offset, part));
        match Self::create_files(disk, dir, partition, base_offset) {
            Ok((data, index)) => {
                let segment = Segment::new(
                    partition,
                    base_offset,
                    BatchIndex::File(Arc::clone(&index)),
                    SegmentData::Plain(Arc::clone(&data)),
                    Summary::empty(base_offset),
                );
                Ok(Self::new(Arc::new(segment), data, index, HashMap::new()))
            }
            Err(error) => {
                // An empty segment that cannot be removed does no harm: the next start goes on with it.
                for part in [Part::Data, Part::Index] {
                    disk.remove(&path(part)).ok();
                }
                Err(LogError::io("create", &path(Part::Data), error))
            }
        }
    }

    /// Goes on with a segment whose files hold what its summary says, and no more; all of it is flushed.
    pub(super) fn resume(
        disk: &dyn Disk,
        dir: &Path,
        segment: &Segment,
        batch_by_id: HashMap<BatchId, u32>,
    ) -> Result<Self, (LogError, HashMap<BatchId, u32>)> {
        let open = |part| {
            let path: PathBuf = dir.join(layout::file_name(segment.base_offset, part));
            disk.open(&path, OpenMode::Write).map_err(|error| LogError::io("open", &path, error))
        };
        let (data, index) = match (open(Part::Data), open(Part::Index)) {
            (Ok(data), Ok(index)) => (data, index),
            (Err(error), _) | (_, Err(error)) => return Err((error, batch_by_id)),
        };
        let segment =
            segment.with_files(BatchIndex::File(Arc::clone(&index)), SegmentData::Plain(Arc::clone(&data)));
        Ok(Self::new(Arc::new(segment), data, index, batch_by_id))
    }

    /// The segment for readers.
    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// What was written.
    pub(super) fn summary(&self) -> Summary {
        self.summary
    }

    /// The place of the batch of this id.
    pub(super) fn batch_of(&self, id: BatchId) -> Option<u32> {
        self.batch_by_id.get(&id).copied()
    }

    /// Every batch's id and place, for the id list.
    pub(super) fn ids(&self) -> Vec<(BatchId, u32)> {
        self.batch_by_id.iter().map(|(id, batch)| (*id, *batch)).collect()
    }

    /// Writes entries of the replicated log, all or none; returns where each lies.
    pub(super) fn append_entries(&mut self, entries: &[NewEntry]) -> Result<Vec<EntryExtent>, WriteError> {
        let mut after = self.summary;
        let mut extents = Vec::with_capacity(entries.len());
        self.headers.clear();
        for entry in entries {
            let base_offset = after.end_offset;
            for mut header in self.headers_of(entry, &after)? {
                (header.base_offset, header.position) = (after.end_offset, after.data_bytes);
                header.encode(&mut self.headers);
                after.add(&header);
            }
            extents.push(EntryExtent {
                log_index: entry.log_index,
                term: entry.term,
                kind: entry.content.kind(),
                base_offset,
                end_offset: after.end_offset,
            });
        }
        let batches = || entries.iter().flat_map(|entry| entry.content.batches());
        if let Err(error) = self.write(batches()) {
            return Err(self.take_back(error));
        }
        let mut place = self.summary.batch_count;
        for entry in entries {
            for (number, new) in (place..).zip(entry.content.batches()) {
                self.batch_by_id.insert(new.id, number);
            }
            place += entry.content.header_count();
        }
        self.summary = after;
        self.segment.set_summary(after);
        Ok(extents)
    }

    /// Writes batches, all or none; returns the base offset of each.
    pub(super) fn append(&mut self, batches: &[NewBatch]) -> Result<Vec<Offset>, WriteError> {
        let mut after = self.summary;
        let mut offsets = Vec::with_capacity(batches.len());
        self.headers.clear();
        for new in batches {
            let header = self.header_of(new, &after)?;
            offsets.push(header.base_offset);
            header.encode(&mut self.headers);
            after.add(&header);
        }
        if let Err(error) = self.write(batches.iter()) {
            return Err(self.take_back(error));
        }
        for (batch, new) in (self.summary.batch_count..).zip(batches) {
            self.batch_by_id.insert(new.id, batch);
        }
        self.summary = after;
        self.segment.set_summary(after);
        Ok(offsets)
    }

    /// Makes what was written durable. After a failure the system may have dropped what it could not write, and a
    /// second sync may not say so: the log has to stop.
    pub(super) fn sync(&mut self) -> Result<(), WriteError> {
        if self.flushed_batches == self.summary.batch_count {
            return Ok(());
        }
        self.sync_files().map_err(|error| self.broken("sync", &error))?;
        self.flushed_batches = self.summary.batch_count;
        Ok(())
    }

    /// Flushes the segment and writes its seal: from now on it never changes.
    pub(super) fn seal(&mut self) -> Result<(), WriteError> {
        self.sync()?;
        let seal = self.summary.seal(self.segment.base_offset).encode();
        let position = BatchIndex::bytes_of(self.summary.batch_count);
        if let Err(error) = disk::write_all(&*self.index, &mut [IoSlice::new(&seal)], position) {
            return Err(self.take_back(error));
        }
        self.index.sync_data().map_err(|error| self.broken("sync", &error))?;
        self.summary.sealed = true;
        self.segment.set_summary(self.summary);
        Ok(())
    }

    fn new(
        segment: Arc<Segment>,
        data: Arc<dyn DiskFile>,
        index: Arc<dyn DiskFile>,
        batch_by_id: HashMap<BatchId, u32>,
    ) -> Self {
        let summary = segment.summary();
        let flushed_batches = summary.batch_count;
        Self { segment, data, index, summary, flushed_batches, batch_by_id, headers: Vec::new() }
    }

    fn create_files(
        disk: &dyn Disk,
        dir: &Path,
        partition: Partition,
        base_offset: Offset,
    ) -> io::Result<(Arc<dyn DiskFile>, Arc<dyn DiskFile>)> {
        let path = |part| dir.join(layout::file_name(base_offset, part));
        let data = disk.open(&path(Part::Data), OpenMode::Create)?;
        let index = disk.open(&path(Part::Index), OpenMode::Create)?;
        let header = IndexFileHeader { partition, base_offset }.encode();
        disk::write_all(&*index, &mut [IoSlice::new(&header)], 0)?;
        // All of it before the first batch: an index that lacks its header was never in use.
        data.sync_data()?;
        index.sync_data()?;
        disk.sync_dir(dir)?;
        Ok((data, index))
    }

    fn header_of(&self, new: &NewBatch, before: &Summary) -> Result<BatchHeader, WriteError> {
        let bytes: &Bytes = new.batch.bytes();
        let length =
            u32::try_from(bytes.len()).ok().filter(|length| u64::from(*length) <= limits::BATCH_BYTES_MAX);
        let Some(length) = length else {
            let too_large = io::ErrorKind::FileTooLarge.into();
            return Err(WriteError::Refused(self.io("append a batch of more than 1 GiB to", too_large)));
        };
        Ok(BatchHeader {
            kind: BatchKind::Records,
            id: Some(new.id),
            unreadable: false,
            continues: false,
            base_offset: before.end_offset,
            record_count: new.batch.record_count(),
            position: before.data_bytes,
            length,
            crc: crc32fast::hash(bytes),
            timestamp_min_ms: new.batch.timestamp_min_ms(),
            timestamp_max_ms: new.batch.timestamp_max_ms(),
            digest: new.digest,
            term: new.term,
            log_index: new.log_index,
            tenant_hash: 0,
            appended_at_ms: new.appended_at_ms,
            flushed_batches: self.flushed_batches,
        })
    }

    /// The headers of an entry, but for their places.
    fn headers_of(&self, entry: &NewEntry, before: &Summary) -> Result<Vec<BatchHeader>, WriteError> {
        let kind = match &entry.content {
            EntryContent::Batches(batches) => {
                let mut headers: Vec<BatchHeader> = batches
                    .iter()
                    .map(|new| Ok(BatchHeader { continues: true, ..self.header_of(new, before)? }))
                    .collect::<Result<_, WriteError>>()?;
                for header in &mut headers {
                    (header.term, header.log_index) = (entry.term, entry.log_index);
                }
                if let Some(last) = headers.last_mut() {
                    last.continues = false;
                }
                return Ok(headers);
            }
            EntryContent::Blank => BatchKind::Blank,
            EntryContent::Membership => BatchKind::Membership,
            EntryContent::Consumer(commit) => BatchKind::Consumer(*commit),
        };
        let offset = match &entry.content {
            EntryContent::Consumer(commit) => commit.offset.map_or(0, Offset::get),
            _ => 0,
        };
        Ok(vec![BatchHeader {
            digest: BatchDigest::from_u64(offset),
            term: entry.term,
            log_index: entry.log_index,
            appended_at_ms: entry.appended_at_ms,
            flushed_batches: self.flushed_batches,
            ..before.next_header(kind)
        }])
    }

    fn write<'a>(&self, batches: impl Iterator<Item = &'a NewBatch>) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = batches.map(|new| IoSlice::new(new.batch.bytes())).collect();
        if !slices.is_empty() {
            disk::write_all(&*self.data, &mut slices, self.summary.data_bytes)?;
        }
        let position = BatchIndex::bytes_of(self.summary.batch_count);
        disk::write_all(&*self.index, &mut [IoSlice::new(&self.headers)], position)
    }

    /// Cuts off what a failed write left. The cut is synced: were it lost in a crash, the bytes of the failed write
    /// could appear below a header of a later one.
    fn take_back(&self, cause: io::Error) -> WriteError {
        let index_bytes = BatchIndex::bytes_of(self.summary.batch_count);
        let cut = self
            .index
            .set_length(index_bytes)
            .and_then(|()| self.data.set_length(self.summary.data_bytes))
            .and_then(|()| self.sync_files());
        match cut {
            Ok(()) => WriteError::Refused(self.io("write", cause)),
            Err(error) => self.broken("take back a failed write of", &error),
        }
    }

    /// The bytes first. The journal commit that makes their length durable usually carries the index's length too, so
    /// that the second sync has little left to do; syncing both at once from two threads was measured to be no faster.
    fn sync_files(&self) -> io::Result<()> {
        self.data.sync_data()?;
        self.index.sync_data()
    }

    fn io(&self, action: &'static str, error: io::Error) -> LogError {
        LogError::io(action, self.name().as_ref(), error)
    }

    fn broken(&self, action: &'static str, error: &io::Error) -> WriteError {
        WriteError::Broken(format!("could not {action} {}: {error}", self.name()))
    }

    fn name(&self) -> String {
        let Segment { partition, base_offset, .. } = &*self.segment;
        format!("partition-{partition}/{}", layout::file_name(*base_offset, Part::Data))
    }
}
