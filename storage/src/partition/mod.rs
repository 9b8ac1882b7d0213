//! One actor per partition: it alone writes the partition's log, on a thread of its own.
//!
//! All batches that wait are appended by one write and made durable by one sync (group commit); each is answered
//! after that, in order. An id is stored once: a repetition gets the first answer again.
//!
//! Invariants: a batch is answered only after what its answer promises has happened; what waits is bounded by bytes
//! and by requests. Must not know of HTTP. Depends on [`crate::log`] alone.

mod actor;
mod dedup;
mod inbox;
mod message;
mod queue;
mod replicated;
mod round;
#[cfg(test)]
mod stepped;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use model::Partition;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use message::{Append, AppendError, Appended, Pending};
pub use queue::{QueueDepth, QueueLimits};
pub use replicated::{LogAccess, LogContent, LogEntry, Proposal, Settled};
#[cfg(test)]
pub(crate) use stepped::start_stepped;

use crate::log::{LogError, LogReader, PartitionLog};
use crate::metrics::PartitionMetrics;
use actor::Actor;
use inbox::Inbox;
use message::Message;
use queue::{Queue, Refusal};

/// The way to a partition: appends go through its actor, reads past it.
#[derive(Clone, Debug)]
pub struct PartitionHandle {
    partition: Partition,
    inbox: Inbox,
    queue: Arc<Queue>,
    reader: LogReader,
    stopped: Arc<OnceLock<Arc<str>>>,
    /// Where batches go that the replicas have to agree on; `None` without replication.
    proposals: Option<mpsc::Sender<Pending>>,
}

/// The actor's thread, to wait for.
#[derive(Debug)]
pub struct PartitionThread {
    partition: Partition,
    thread: JoinHandle<Result<(), LogError>>,
}

/// Why a partition did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum PartitionEndError {
    /// The log could not be closed cleanly. Nothing acknowledged is lost; the next start has to recover.
    #[error("partition {partition} was not closed cleanly: {source}")]
    Log {
        /// The partition.
        partition: Partition,
        /// What happened.
        source: LogError,
    },
    /// The actor's thread panicked.
    #[error("partition {partition}'s thread panicked")]
    Panicked {
        /// The partition.
        partition: Partition,
    },
}

/// Starts the actor of `log`, on a thread of its own.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    partition: Partition,
    log: PartitionLog,
    queue_limits: QueueLimits,
    metrics: PartitionMetrics,
) -> std::io::Result<(PartitionHandle, PartitionThread)> {
    let (handle, actor) = parts(partition, log, queue_limits, metrics);
    let thread =
        std::thread::Builder::new().name(format!("partition-{partition}")).spawn(move || actor.run())?;
    Ok((handle, PartitionThread { partition, thread }))
}

/// The actor of `log`, and the way to it.
fn parts(
    partition: Partition,
    log: PartitionLog,
    queue_limits: QueueLimits,
    metrics: PartitionMetrics,
) -> (PartitionHandle, Actor) {
    // Not bounded by itself: each message but the last holds a ticket of the queue, which is.
    let (inbox, messages) = std::sync::mpsc::channel();
    let inbox = Inbox::new(inbox);
    let queue = Queue::new(queue_limits);
    let stopped = Arc::new(OnceLock::new());
    let reader = log.reader();
    let actor = Actor::new(log, messages, Arc::clone(&queue), Arc::clone(&stopped), metrics);
    (PartitionHandle { partition, inbox, queue, reader, stopped, proposals: None }, actor)
}

impl PartitionHandle {
    /// The partition's number.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Appends a batch and waits for its answer. A caller that stops waiting does not stop the append.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing of the batch is stored then.
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let ticket = self.queue.admit(append.batch.bytes().len()).map_err(|refusal| match refusal {
            Refusal::Full { retry_after } => AppendError::QueueFull { retry_after },
            Refusal::Closed => AppendError::Closing,
        })?;
        let (answer, answered) = oneshot::channel();
        let pending = Pending { append, arrived: tokio::time::Instant::now(), ticket, answer };
        match &self.proposals {
            Some(proposals) => proposals.try_send(pending).map_err(|_gone| self.gone())?,
            None => self.inbox.send(Message::Append(Box::new(pending))).map_err(|_gone| self.gone())?,
        }
        answered.await.unwrap_or_else(|_gone| Err(self.gone()))
    }

    /// The same partition, whose batches come out of the receiver first: the replicas have to agree on them.
    pub fn with_proposals(self) -> (Self, mpsc::Receiver<Pending>) {
        // All that waits has a place in the queue: the channel is never full.
        let (proposals, waiting) = mpsc::channel(self.queue.requests_max().min(Semaphore::MAX_PERMITS));
        (Self { proposals: Some(proposals), ..self }, waiting)
    }

    /// The way past the queue, for replication.
    pub fn log_access(&self) -> LogAccess {
        LogAccess::new(self.inbox.clone())
    }

    /// Why the actor is gone without an answer: it has closed its log before it came to the batch, or it died.
    fn gone(&self) -> AppendError {
        self.stopped().map_or(AppendError::Closing, |reason| AppendError::Stopped { reason })
    }

    /// Reads the partition's log. Never waits for the actor.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// How much waits for the actor.
    pub fn queue_depth(&self) -> QueueDepth {
        self.queue.depth()
    }

    /// Why the partition takes no more writes, if it does not.
    pub fn stopped(&self) -> Option<Arc<str>> {
        self.stopped.get().cloned()
    }

    /// Takes no more appends; the actor answers those that wait, closes the log and ends.
    pub fn close(&self) {
        self.queue.close();
        // An actor that is gone already has nothing left to close.
        self.inbox.send(Message::Close).ok();
    }
}

impl PartitionThread {
    /// Waits until the actor has ended. Blocks.
    ///
    /// # Errors
    /// When the log was not closed cleanly.
    pub fn join(self) -> Result<(), PartitionEndError> {
        let partition = self.partition;
        match self.thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(PartitionEndError::Log { partition, source }),
            Err(_panic) => Err(PartitionEndError::Panicked { partition }),
        }
    }
}
