//! The partition's log as the library's log store.
//!
//! Indexes are the library's plus one: on disk 0 means that there was no replication.
//!
//! Invariants: an append is answered after its sync; a vote is on the disk before it is given. The log is written by
//! its actor alone; it is read past the actor, with a check that what was read was not cut off meanwhile.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use model::{BatchId, Offset, Partition, ValidBatch};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::Mutex;

use super::found_log::FoundLog;
use super::recent::RecentEntries;
use super::state::GroupState;
use super::types::{Entry, EntryData, LogId, SavedMembership, StorageError, TypeConfig, Vote, log_id};
use crate::limits;
use crate::log::{
    EntryBatch, EntryExtent, EntryKind, EntryReader, LogError, LogReader, NewBatch, Publisher, Staging,
};
use crate::partition::{LogAccess, LogContent, LogEntry};

/// The log store of one partition. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogStore {
    pub(super) shared: Arc<StoreShared>,
}

/// Reads whole entries, for other replicas.
#[derive(Clone, Debug)]
pub struct EntrySource {
    shared: Arc<StoreShared>,
}

/// What the log store and the state machine of a replica share.
#[derive(Debug)]
pub struct StoreShared {
    pub(super) partition: Partition,
    pub(super) access: LogAccess,
    pub(super) entries: EntryReader,
    pub(super) reader: LogReader,
    pub(super) publisher: Publisher,
    pub(super) staging: Staging,
    pub(super) state: Mutex<GroupState>,
    /// What of it is on the disk, or about to be.
    saved_applied: Mutex<Option<LogId>>,
    /// Whether the replica has again what it had, and its disk does not say so yet.
    is_refill_unsaved: AtomicBool,
    pub(super) recent: Mutex<RecentEntries>,
    /// How often the log's end was cut off, counted before and after: odd while it is being done.
    pub(super) cuts: AtomicU64,
    /// Whether the replica waits for room on its disk.
    is_standing_still: AtomicBool,
    /// Whether the replica is about to end.
    is_closing: AtomicBool,
    /// Whether a snapshot was asked for: without one the library may not purge.
    pub(super) has_snapshot: AtomicBool,
}

impl LogStore {
    /// The store of a log that its actor has by now.
    pub fn new(partition: Partition, found: FoundLog, access: LogAccess) -> Self {
        let FoundLog { entries, reader, publisher, staging, state } = found;
        Self {
            shared: Arc::new(StoreShared {
                partition,
                access,
                entries,
                reader,
                publisher,
                staging,
                saved_applied: Mutex::new(state.applied()),
                is_refill_unsaved: AtomicBool::new(false),
                state: Mutex::new(state),
                recent: Mutex::default(),
                cuts: AtomicU64::new(0),
                is_standing_still: AtomicBool::new(false),
                is_closing: AtomicBool::new(false),
                has_snapshot: AtomicBool::new(false),
            }),
        }
    }

    /// What the log store and the state machine share.
    pub fn shared(&self) -> &Arc<StoreShared> {
        &self.shared
    }

    /// Where entries lie, without what they hold.
    async fn extents(&self, from: u64, to: u64) -> Result<Vec<EntryExtent>, StorageError> {
        self.shared.extents(from, to).await.map_err(|error| read_failed(&error))
    }
}

impl StoreShared {
    /// Where the entries from `from` to before `to` lie, as far as there are any.
    pub(super) async fn extents(&self, from: u64, to: u64) -> Result<Vec<EntryExtent>, LogError> {
        if from >= to {
            return Ok(Vec::new());
        }
        if let Some(known) = self.recent.lock().between(from, to) {
            return Ok(known);
        }
        let entries = self.entries.clone();
        let count = usize::try_from(to - from).unwrap_or(usize::MAX);
        let mut found = blocking(move || entries.extents(from, count)).await?;
        found.retain(|extent| (from..to).contains(&extent.log_index));
        Ok(found)
    }

    /// Whether the replica lost entries and has not had them again, or would not know it after a power cut.
    pub(super) fn is_refilling(&self) -> bool {
        self.is_refill_unsaved.load(Ordering::Acquire) || self.state.lock().is_refilling()
    }

    /// The replica has again what it had. It counts as such once its disk says so: whoever was told and lets another
    /// replica go would else be left without either.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) async fn end_refill(&self) -> Result<(), LogError> {
        self.is_refill_unsaved.store(true, Ordering::Release);
        self.save(GroupState::set_refilled).await?;
        self.is_refill_unsaved.store(false, Ordering::Release);
        Ok(())
    }

    /// Whether the log's end was cut off since `before`, or is being cut off.
    fn was_cut_since(&self, before: u64) -> bool {
        !before.is_multiple_of(2) || self.cuts.load(Ordering::Acquire) != before
    }

    /// The same, or the log is purged from its beginning to `from`, or further: a leader keeps what it sends, but who was
    /// one a moment ago may still be reading.
    fn is_gone_since(&self, before: u64, from: u64) -> bool {
        self.was_cut_since(before) || self.state.lock().purged().is_some_and(|purged| purged.index >= from)
    }

    /// Changes the replica's state and writes it. Changes are written in the order in which they are made.
    pub(super) async fn save(&self, change: impl FnOnce(&mut GroupState)) -> Result<(), LogError> {
        let written = {
            let mut state = self.state.lock();
            change(&mut state);
            *self.saved_applied.lock() = state.applied();
            self.access.save_state(state.encode())
        };
        written.await
    }

    /// The same of what the replica cannot go on without: on a full disk it waits for room.
    pub(super) async fn save_when_there_is_room(
        &self,
        change: impl Fn(&mut GroupState),
    ) -> Result<(), LogError> {
        loop {
            let done = self.save(&change).await;
            if !self.has_awaited_room(&done).await {
                return done;
            }
        }
    }

    /// Appends entries. What an election itself leaves waits for room on a full disk, as a vote does; records are not let
    /// come that far then ([`super::room`]).
    async fn append_when_there_is_room(
        &self,
        mut entries: Vec<LogEntry>,
        after_install: bool,
    ) -> Result<Vec<EntryExtent>, LogError> {
        loop {
            let again = LogEntry::without_records(&entries);
            let done = self.access.append(entries, after_install).await;
            match again {
                Some(again) if self.has_awaited_room(&done).await => entries = again,
                _ => return done,
            }
        }
    }

    /// Whether something failed because the disk is full, and is worth another attempt: after a while, for others may make
    /// room at any time, and an error would end the replica until a restart.
    async fn has_awaited_room<T>(&self, done: &Result<T, LogError>) -> bool {
        let is_full = matches!(done, Err(LogError::DiskFull)) && !self.is_closing.load(Ordering::Acquire);
        if self.is_standing_still.swap(is_full, Ordering::AcqRel) != is_full {
            let partition = self.partition;
            if is_full {
                tracing::error!(%partition, "the disk is full to the last byte: the replica stands still until there is room");
            } else {
                tracing::info!(%partition, "there is room on the disk: the replica goes on");
            }
        }
        if is_full {
            tokio::time::sleep(limits::FULL_DISK_PAUSE).await;
        }
        is_full
    }

    /// The replica ends: nothing is waited for any more.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    /// Writes what is known by now to be committed: a start from it has less to find out.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn save_applied(&self) -> Result<(), LogError> {
        self.save(|_| ()).await
    }

    /// The same, unless it is on the disk already.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn save_applied_if_changed(&self) -> Result<(), LogError> {
        // One after the other: a save holds the state's lock when it takes the other.
        let saved = *self.saved_applied.lock();
        let is_saved = saved == self.state.lock().applied();
        if is_saved { Ok(()) } else { self.save_applied().await }
    }

    /// The entry without what it holds: enough to apply it.
    fn skeleton(&self, extent: &EntryExtent) -> Result<Entry, StorageError> {
        let id = raft_id(extent);
        let payload = match extent.kind {
            EntryKind::Blank => EntryPayload::Blank,
            EntryKind::Batches => EntryPayload::Normal(EntryData::Elsewhere),
            EntryKind::Consumer(commit) => EntryPayload::Normal(EntryData::Consumer(commit)),
            EntryKind::Membership => EntryPayload::Membership(
                self.state
                    .lock()
                    .change_at(id)
                    .map(SavedMembership::membership)
                    .ok_or_else(|| unknown_members(id))?,
            ),
        };
        Ok(Entry { log_id: id, payload })
    }
}

/// Where an entry lies, as the library counts.
pub(super) fn raft_id(extent: &EntryExtent) -> LogId {
    log_id(extent.term, extent.log_index.saturating_sub(1))
}

/// Does what reads a disk where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    #[cfg(test)]
    if crate::simulated::is_entered() {
        crate::simulated::pause().await;
        return work();
    }
    let broken_off = |_| LogError::Stopped { cause: Arc::from("the reading was broken off") };
    tokio::task::spawn_blocking(work).await.map_err(broken_off)?
}

pub(super) fn read_failed(error: &LogError) -> StorageError {
    StorageIOError::read_logs(openraft::AnyError::new(error)).into()
}

pub(super) fn write_failed(error: &LogError) -> StorageError {
    StorageIOError::write_logs(openraft::AnyError::new(error)).into()
}

fn unknown_members(id: LogId) -> StorageError {
    let what = format!("the members that entry {id} has set are not in the replica's state");
    StorageIOError::read_log_entry(id, openraft::AnyError::error(what)).into()
}

/// The first index of a range, and the one after its last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        // Half of all numbers are enough, and leave room to add.
        Bound::Unbounded => u64::MAX / 2,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (from, to) = bounds(&range);
        let purged = self.shared.state.lock().purged();
        let from = from.max(purged.map_or(0, |purged| purged.index + 1));
        let extents = self.extents(from.saturating_add(1), to.saturating_add(1)).await?;
        extents.iter().map(|extent| self.shared.skeleton(extent)).collect()
    }
}

impl RaftLogReader<TypeConfig> for EntrySource {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (from, to) = bounds(&range);
        if from >= to {
            return Ok(Vec::new());
        }
        let entries = self.shared.entries.clone();
        let cuts_before = self.shared.cuts.load(Ordering::Acquire);
        let read = move || entries.read(from + 1, to + 1, limits::REPLICATE_BYTES_MAX);
        let stored = match blocking(read).await {
            Ok(stored) => stored,
            // Who reads for others has lost the lead, and the log was cut or purged while it read. Nothing to send is the
            // answer that harms nobody; an error would end the replica.
            Err(_) if self.shared.is_gone_since(cuts_before, from) => return Ok(Vec::new()),
            Err(error) => return Err(read_failed(&error)),
        };
        let partition = self.shared.partition;
        let entries = stored.into_iter().map(|entry| match entry.extent.kind {
            EntryKind::Batches => Ok(Entry {
                log_id: raft_id(&entry.extent),
                payload: EntryPayload::Normal(EntryData::Stored {
                    partition,
                    base_offset: entry.extent.base_offset.get(),
                    batches: entry.batches,
                }),
            }),
            EntryKind::Blank | EntryKind::Membership | EntryKind::Consumer(_) => {
                self.shared.skeleton(&entry.extent)
            }
        });
        match entries.collect() {
            // The same: the members that an entry has set go with it.
            Err(_) if self.shared.is_gone_since(cuts_before, from) => Ok(Vec::new()),
            collected => collected,
        }
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = EntrySource;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let entries = self.shared.entries.clone();
        let last = blocking(move || entries.last()).await.map_err(|error| read_failed(&error))?;
        let purged = self.shared.state.lock().purged();
        let last_log_id = last.map(|extent| raft_id(&extent)).max(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> EntrySource {
        EntrySource { shared: Arc::clone(&self.shared) }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let saved = self.shared.save_when_there_is_room(|state| state.set_vote(*vote)).await;
        saved.map_err(|error| StorageIOError::write_vote(openraft::AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.shared.state.lock().vote())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut appended = Vec::new();
        let mut changes = Vec::new();
        for Entry { log_id, payload } in entries {
            let content = match payload {
                EntryPayload::Blank => LogContent::Blank,
                EntryPayload::Membership(members) => {
                    changes.push(SavedMembership::of(Some(log_id), &members));
                    LogContent::Membership
                }
                EntryPayload::Normal(data) => self.content_of(data)?,
            };
            appended.push(LogEntry { log_index: log_id.index + 1, term: log_id.leader_id.term, content });
        }
        if !changes.is_empty() {
            let add = |state: &mut GroupState| changes.iter().cloned().for_each(|c| state.add_change(c));
            let saved = self.shared.save_when_there_is_room(add);
            saved.await.map_err(|error| write_failed(&error))?;
        }
        let after_install = self.shared.state.lock().is_purged_ahead();
        match self.shared.append_when_there_is_room(appended, after_install).await {
            Ok(extents) => {
                self.shared.recent.lock().add(&extents);
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.to_string())));
                Err(write_failed(&error))
            }
        }
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        // Counted first: who reads for others does not find the members of an entry that is about to go.
        self.shared.cuts.fetch_add(1, Ordering::AcqRel);
        self.shared.recent.lock().cut_from(since.index + 1);
        self.shared.state.lock().cut_changes(since.index);
        let cut = self.shared.access.truncate(since.index + 1).await;
        self.shared.cuts.fetch_add(1, Ordering::AcqRel);
        cut.map_err(|error| write_failed(&error))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let purged = {
            let mut state = self.shared.state.lock();
            if state.applied() < Some(upto) {
                // A snapshot that is about to be put in place has it; until then the log is what it was.
                state.set_purged_ahead(upto);
                return Ok(());
            }
            state.set_purged(upto);
            self.shared.access.purge(upto.index + 1, state.encode())
        };
        purged.await.map_err(|error| write_failed(&error))
    }
}

impl LogStore {
    fn content_of(&self, data: EntryData) -> Result<LogContent, StorageError> {
        let wrong = |what: &str| -> StorageError {
            StorageIOError::write_logs(openraft::AnyError::error(what.to_owned())).into()
        };
        match data {
            EntryData::Proposed(proposal) => Ok(LogContent::Proposed(proposal)),
            EntryData::Stored { partition, .. } if partition != self.shared.partition => {
                Err(wrong("the entry is of another partition"))
            }
            EntryData::Stored { base_offset, batches, .. } => {
                let batches = batches.into_iter().map(new_batch);
                let batches = batches.collect::<Option<Vec<NewBatch>>>();
                Ok(LogContent::Batches {
                    base_offset: Offset::new(base_offset),
                    batches: batches.ok_or_else(|| wrong("a batch is not what it says"))?,
                })
            }
            EntryData::Consumer(commit) => Ok(LogContent::Consumer(commit)),
            EntryData::Elsewhere => Err(wrong("the entry came without what it holds")),
        }
    }
}

/// The batch to append. Its checksum was compared when it arrived; here it is only told apart from nonsense.
fn new_batch(batch: EntryBatch) -> Option<NewBatch> {
    let EntryBatch { id, digest, record_count, timestamp_min_ms, timestamp_max_ms, bytes, .. } = batch;
    let bytes: Bytes = bytes;
    let valid = ValidBatch::from_replica(bytes, record_count, timestamp_min_ms, timestamp_max_ms)?;
    Some(NewBatch {
        batch: valid,
        id: id.unwrap_or_else(|| BatchId::from_bytes([0; 16])),
        digest,
        appended_at_ms: batch.appended_at_ms,
        term: 0,
        log_index: 0,
    })
}
