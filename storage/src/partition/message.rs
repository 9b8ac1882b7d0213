//! All that can be asked of a partition's actor, and what it answers.

use model::{BatchDigest, BatchId, Offset, ValidBatch};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::queue::Ticket;

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
    /// The batch's share of the process's byte budget, given back when the batch is answered.
    pub budget: Option<OwnedSemaphorePermit>,
}

/// Where a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Its records.
    pub record_count: u32,
}

/// Why a batch was not stored. Nothing of it is.
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
    /// The node is stopping.
    #[error("the node is stopping")]
    Closing,
}

/// What the actor receives.
#[derive(Debug)]
pub(super) enum Message {
    /// Append a batch.
    Append(Box<Pending>),
    /// Answer what came before, close the log and end.
    Close,
}

/// A batch that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) append: Append,
    pub(super) ticket: Ticket,
    pub(super) answer: oneshot::Sender<Result<Appended, AppendError>>,
}
