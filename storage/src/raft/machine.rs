//! What becomes of an entry that the replicas have agreed on: its records may be read, or it is known how far a consumer
//! has read.
//!
//! There is little state but the log's own, so that applying an entry is raising the high watermark, and a snapshot is the
//! log itself, and the consumers' offsets.
//!
//! Invariant: the high watermark is the end of an entry that is committed, and flushed here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageIOError};

use super::snapshot::SnapshotData;
use super::state::Consumers;
use super::store::{LogStore, StoreShared, read_failed};
use super::types::{Entry, EntryData, LogId, Member, NodeId, StorageError, StoredMembership, TypeConfig};

/// The state machine of one partition.
#[derive(Clone, Debug)]
pub struct StateMachine {
    shared: Arc<StoreShared>,
}

impl StateMachine {
    /// The state machine over the log of `store`.
    pub fn new(store: &LogStore) -> Self {
        Self { shared: Arc::clone(store.shared()) }
    }

    /// The snapshot of what is applied now. It takes no room and no time: it is the log.
    fn snapshot(&self) -> Snapshot<TypeConfig> {
        let state = self.shared.state.lock();
        let last_log_id = state.applied();
        // The same log gives the same snapshot on every replica.
        let snapshot_id = last_log_id.map_or_else(String::new, |id| id.to_string());
        Snapshot {
            meta: SnapshotMeta { last_log_id, last_membership: state.members(), snapshot_id },
            snapshot: Box::new(SnapshotData::Own { consumers: state.consumers().clone() }),
        }
    }

    async fn publish(&self, applied: LogId) -> Result<(), StorageError> {
        let extents = self.shared.extents(applied.index + 1, applied.index + 2).await;
        if let Some(extent) = extents.map_err(|error| read_failed(&error))?.first() {
            self.shared.publisher.publish(extent.end_offset);
        }
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        self.shared.has_snapshot.store(true, Ordering::Release);
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let state = self.shared.state.lock();
        Ok((state.applied(), state.members()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut last, mut members, mut count) = (None, None, 0);
        let mut commits = Vec::new();
        for entry in entries {
            match &entry.payload {
                EntryPayload::Membership(changed) => {
                    members = Some(StoredMembership::new(Some(entry.log_id), changed.clone()));
                }
                EntryPayload::Normal(EntryData::Consumer(commit)) => commits.push(*commit),
                EntryPayload::Normal(_) | EntryPayload::Blank => {}
            }
            last = Some(entry.log_id);
            count += 1;
        }
        let Some(last) = last else { return Ok(Vec::new()) };
        self.publish(last).await?;
        match members {
            // A start has to know the members that are agreed on without a look at the whole log.
            Some(members) => {
                let saved = self.shared.save_when_there_is_room(|state| {
                    state.set_applied(last);
                    state.commit_offsets(&commits);
                    state.set_members(&members);
                });
                saved.await.map_err(|error| apply_failed(last, &error))?;
            }
            None => {
                // Together: what is written of it is written of both.
                let mut state = self.shared.state.lock();
                state.set_applied(last);
                state.commit_offsets(&commits);
            }
        }
        Ok(vec![(); count])
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError> {
        Ok(Box::new(SnapshotData::Own { consumers: Consumers::default() }))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, Member>,
        snapshot: Box<SnapshotData>,
    ) -> Result<(), StorageError> {
        super::snapshot::install(&self.shared, meta, *snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        Ok(self.shared.has_snapshot.load(Ordering::Acquire).then(|| self.snapshot()))
    }
}

fn apply_failed(at: LogId, error: &crate::log::LogError) -> StorageError {
    StorageIOError::apply(at, openraft::AnyError::new(error)).into()
}
