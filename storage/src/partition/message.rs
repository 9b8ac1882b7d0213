//! All that can be asked of a partition's actor, and what it answers.

use std::sync::Arc;

use model::wire::Durability;
use model::{BatchDigest, BatchId, Offset, ValidBatch};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::queue::Ticket;
use super::replicated::Replicated;

/// A batch to append.
#[derive(Debug)]
pub struct Append {
    /// The records.
    pub batch: ValidBatch,
    /// The batch's id.
    pub id: BatchId,
    /// What tells a repetition from other content under the same id.
    pub digest: BatchDigest,
    /// Whether this node drew the id itself just now, so that nothing can be stored under it.
    pub id_is_new: bool,
    /// How far the batch is to have got when it is answered; `None`: as far as is usual for the partition. Without
    /// replication it is this node's own disk, whatever is asked for.
    pub acks: Option<Durability>,
    /// The share that its request's body has of the process's byte budget, given back when all batches of it are answered.
    pub budget: Option<Arc<OwnedSemaphorePermit>>,
}

/// Where a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Its records.
    pub record_count: u32,
    /// How far it has got.
    pub durability: Durability,
}

/// Why a batch was not stored. Nothing of it is, unless the error says that this is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too much waits already.
    #[error("the partition's queue is full")]
    QueueFull {
        /// When it should have drained.
        retry_after: std::time::Duration,
    },
    /// The id is taken by other content.
    #[error("another batch was stored under this id")]
    Conflict,
    /// There is no room on the disk. Reads go on, and writes resume by themselves when there is room.
    #[error("the disk is full")]
    DiskFull,
    /// The partition takes no more writes until the node is restarted.
    #[error("the partition is stopped: {reason}")]
    Stopped {
        /// What happened.
        reason: std::sync::Arc<str>,
    },
    /// The disk failed, and the log is as it was before: a retry may succeed.
    #[error("the batch could not be written: {reason}")]
    Failed {
        /// What happened.
        reason: std::sync::Arc<str>,
    },
    /// Another replica leads the partition, or none does just now. Where the lead was lost while the batch was on its
    /// way it may be stored all the same; its id tells.
    #[error("this node does not lead the partition")]
    NotLeader {
        /// The URL of the one that leads, where that is known.
        leader: Option<std::sync::Arc<str>>,
    },
    /// Too few replicas answer. The batch may come to be stored; its id tells.
    #[error("too few replicas of the partition answer")]
    NoQuorum,
    /// The node is stopping.
    #[error("the node is stopping")]
    Closing,
}

/// What the actor receives.
#[derive(Debug)]
pub(super) enum Message {
    /// Append a batch.
    Append(Box<Pending>),
    /// Do what the replicas agreed on, or are to agree on.
    Replicated(Box<Replicated>),
    /// Answer what came before, close the log and end.
    Close,
}

/// A batch that waits for its answer.
#[derive(Debug)]
pub struct Pending {
    pub(super) append: Append,
    pub(super) arrived: Instant,
    pub(super) ticket: Ticket,
    pub(super) answer: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Pending {
    /// The bytes of its records.
    pub fn bytes(&self) -> usize {
        self.append.batch.bytes().len()
    }

    /// When it came.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// How far it is to have got when it is answered, if it says.
    pub fn acks(&self) -> Option<Durability> {
        self.append.acks
    }

    /// Answers it.
    pub fn answer(self, answer: Result<Appended, AppendError>) {
        let Self { append, ticket, answer: sender, .. } = self;
        // The place in the queue and the bytes are given back before the client can come with its next batch.
        drop((append, ticket));
        // A client that went away does not hear of it; its retry will, by the batch's id.
        sender.send(answer).ok();
    }
}
