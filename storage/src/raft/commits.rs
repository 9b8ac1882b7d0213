//! How far consumers have read: an entry of the partition's own log for each change, so that whoever leads next knows it.
//!
//! Invariants: what was acknowledged is agreed on; there are never more consumers than there may be, for one change after
//! another is decided on, by a leader that knows all earlier ones. Must not know of consumers' names.

use model::Offset;
use openraft::error::{ClientWriteError, RaftError};
use tokio::time::timeout;

use super::group::Group;
use super::reads::ReadError;
use super::types::EntryData;
use crate::limits;
use crate::log::{ConsumerCommit, ConsumerKey};

/// Why a consumer's offset is not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// This replica may not decide on it, or the others do not answer. Then it may come to be kept.
    #[error(transparent)]
    NotAgreed(#[from] ReadError),
    /// There are as many consumers as there may be.
    #[error("the partition has {} consumers already", limits::CONSUMERS_MAX)]
    TooMany,
    /// Consumers have moved too often since the last record came.
    #[error("the partition's consumers have moved {} times since its last record", limits::IDLE_ENTRIES_MAX)]
    Idle,
    /// There is no room on the disk.
    #[error("the disk is full")]
    DiskFull,
}

impl Group {
    /// Where a consumer is, as far as this replica knows: [`Self::confirm_leadership`] before it makes that all there is.
    pub fn offset_of(&self, consumer: ConsumerKey) -> Option<Offset> {
        self.shared.store.shared().state.lock().consumers().get(&consumer).copied()
    }

    /// Has the others agree on where a consumer is.
    ///
    /// # Errors
    /// Nothing has changed then, but where they do not answer in time it may come to.
    pub async fn commit_offset(&self, commit: ConsumerCommit) -> Result<(), CommitError> {
        let time_max = self.shared.timing.commit_wait_max();
        let turn = timeout(time_max, self.shared.committing.lock()).await;
        let _turn = turn.map_err(|_| ReadError::NoQuorum)?;
        let writing = timeout(time_max, self.shared.writing.read()).await;
        let _writing = writing.map_err(|_| ReadError::NoQuorum)?;
        self.confirm_leadership().await?;
        let known = self.offset_of(commit.consumer);
        if known == commit.offset {
            return Ok(());
        }
        let store = self.shared.store.shared();
        if known.is_none() && store.state.lock().consumers().len() >= limits::CONSUMERS_MAX {
            return Err(CommitError::TooMany);
        }
        if store.entries.entries_without_records() >= limits::IDLE_ENTRIES_MAX {
            return Err(CommitError::Idle);
        }
        if !self.room().has(0) {
            return Err(CommitError::DiskFull);
        }
        let written = timeout(time_max, self.raft().client_write(EntryData::Consumer(commit))).await;
        match written.map_err(|_| ReadError::NoQuorum)? {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                Err(ReadError::NotLeader { leader: self.leader_url() }.into())
            }
            Err(error) => Err(ReadError::Stopped { reason: error.to_string().into() }.into()),
        }
    }
}
