//! What the consensus library is told of ours: who the members are, what an entry carries, what an answer is.
//!
//! Invariant: [`NodeId`] is drawn at random once for each data directory; a directory that was lost has another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::Partition;
use serde::{Deserialize, Serialize};

use crate::log::{ConsumerCommit, EntryBatch};
use crate::partition::Proposal;

/// A node's number.
pub type NodeId = u64;

/// A place in the replicated log.
pub(super) type LogId = openraft::LogId<NodeId>;

/// Whom a replica has promised to follow.
pub(super) type Vote = openraft::Vote<NodeId>;

/// The members at a place in the log.
pub(super) type StoredMembership = openraft::StoredMembership<NodeId, Member>;

/// The members.
pub(super) type Membership = openraft::Membership<NodeId, Member>;

/// An entry as the library holds it.
pub(super) type Entry = openraft::Entry<TypeConfig>;

/// A failure of the store, which ends the replica until it is started again.
pub(super) type StorageError = openraft::StorageError<NodeId>;

/// The library's replica of one partition.
pub(super) type Raft = openraft::Raft<TypeConfig>;

/// A node as the members of a group know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name in answers.
    pub name: String,
    /// Its public URL: who comes with another identity under the same URL has lost its disk.
    pub url: String,
    /// Where it stands, if its operator says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether an operator put the replica there, against what the nodes would choose.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub placed: bool,
}

/// What an entry that is ours carries.
pub enum EntryData {
    /// Batches that wait on this node, the leader.
    Proposed(Proposal),
    /// The batches, on their way to another replica.
    Stored {
        /// The partition, which tells where a copy of another log went.
        partition: Partition,
        /// The offset that the first record has on the leader, and has to get everywhere.
        base_offset: u64,
        /// The batches.
        batches: Vec<EntryBatch>,
    },
    /// How far a consumer has read.
    Consumer(ConsumerCommit),
    /// Nothing but that there are some: enough to apply the entry.
    Elsewhere,
}

/// The types of the library's parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = EntryData;
    type R = ();
    type NodeId = NodeId;
    type Node = Member;
    type Entry = Entry;
    type SnapshotData = super::snapshot::SnapshotData;
    type AsyncRuntime = openraft::TokioRuntime;
    type Responder = openraft::impls::OneshotResponder<Self>;
}

impl fmt::Debug for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proposed(_) => f.write_str("Proposed"),
            Self::Stored { base_offset, batches, .. } => {
                write!(f, "Stored({} batches from {base_offset})", batches.len())
            }
            Self::Consumer(commit) => fmt::Debug::fmt(commit, f),
            Self::Elsewhere => f.write_str("Elsewhere"),
        }
    }
}

/// A place in the log as it is written to disk and sent: the library's own form is not ours to freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLogId {
    term: u64,
    index: u64,
}

/// A vote as it is written to disk and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedVote {
    term: u64,
    node: Option<NodeId>,
    pub(super) committed: bool,
}

/// Members as they are written to disk and sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedMembership {
    /// Where in the log they were set; nowhere before there are any.
    at: Option<SavedLogId>,
    /// The voters: two sets while a change is under way.
    voters: Vec<BTreeSet<NodeId>>,
    /// All members, learners among them.
    nodes: BTreeMap<NodeId, Member>,
}

impl From<LogId> for SavedLogId {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<SavedLogId> for LogId {
    fn from(saved: SavedLogId) -> Self {
        log_id(saved.term, saved.index)
    }
}

/// The place of this term and index.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(term, 0), index)
}

impl From<Vote> for SavedVote {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<SavedVote> for Vote {
    fn from(saved: SavedVote) -> Self {
        let leader_id = openraft::LeaderId { term: saved.term, voted_for: saved.node };
        Self { leader_id, committed: saved.committed }
    }
}

impl From<&StoredMembership> for SavedMembership {
    fn from(stored: &StoredMembership) -> Self {
        Self::of(*stored.log_id(), stored.membership())
    }
}

impl SavedMembership {
    /// `membership` as it is set at `at`.
    pub(super) fn of(at: Option<LogId>, membership: &Membership) -> Self {
        Self {
            at: at.map(SavedLogId::from),
            voters: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }

    /// The members.
    pub(super) fn membership(&self) -> Membership {
        Membership::new(self.voters.clone(), self.nodes.clone())
    }

    /// The members and where they were set.
    pub(super) fn stored(&self) -> StoredMembership {
        StoredMembership::new(self.log_id(), self.membership())
    }

    /// Where they were set.
    pub(super) fn log_id(&self) -> Option<LogId> {
        self.at.map(LogId::from)
    }
}
