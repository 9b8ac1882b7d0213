//! Takes a partition's batch to the node that holds the partition, with the attempts that are worth making.
//!
//! Invariant: a batch counts as stored only if storage said so, and for as many records as it has; every attempt of
//! a batch has the same id and digest, so that storage takes it once; all attempts together end in time. What is to
//! happen with a batch that cannot be delivered is the caller's to decide ([`crate::settle`]).

mod backoff;
mod circuit;
mod judge;
mod retry_budget;

use std::time::Duration;

use bytes::Bytes;
use model::{BatchDigest, BatchId, Partition, wire};

use crate::body::ReceiveError;
use crate::clock::Clock;
use crate::config::StorageNode;
use crate::context::Context;
use crate::limits;
use crate::storage::{Call, ExchangeError, SendError, Storage, WholeReply, exchange};
use backoff::Backoff;
pub(crate) use circuit::Circuits;
use judge::{Step, judge};
pub(crate) use retry_budget::RetryBudget;

/// A partition's batch on its way.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The partition.
    pub partition: Partition,
    /// The batch's identity: the same for every attempt, at whatever ingest node.
    pub id: BatchId,
    /// Tells a repetition from other content under the same id.
    pub digest: BatchDigest,
    /// Records of the batch.
    pub record_count: usize,
    /// The records, one a line.
    pub lines: Bytes,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Storage has it.
    Stored {
        /// The level that storage names.
        durability: Option<String>,
    },
    /// The edge WAL has it, and storage will.
    Queued,
    /// Neither has it, as far as is known.
    Failed(Failure),
}

/// Why a batch is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The node and what happened, in words.
    pub detail: String,
    /// When to come back, in seconds, if storage said so.
    pub retry_after_s: Option<u64>,
}

/// Kinds of failure, the ones first that another try cannot mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The batch's id was used for other content.
    Conflict,
    /// Storage does not take batches that large.
    TooLarge,
    /// Storage finds a record that is none.
    Invalid,
    /// Storage does not understand what it was sent: the two do not fit together.
    Refused,
    /// The node's disk is full.
    DiskFull,
    /// The node cannot be reached, fails, or does not hold the partition.
    Unavailable,
    /// The node is there and has too much to do. The client is to slow down: a log at the edge that took this would
    /// make more work of too much work.
    Overloaded,
}

impl FailureKind {
    /// Whether the batch can wait in the edge WAL until the failure is over.
    pub fn may_wait(self) -> bool {
        matches!(self, Self::DiskFull | Self::Unavailable)
    }

    /// Whether the batch itself is at fault, so that it fails at any time.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Conflict | Self::TooLarge | Self::Invalid)
    }
}

impl Failure {
    /// A failure without more to say.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after_s: None }
    }
}

/// How much is done for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// When the last attempt has to be over, by the runtime's clock.
    pub deadline: Duration,
    /// Attempts at most.
    pub attempts_max: u32,
}

/// Delivers one batch: follows the node's hints to the partition's leader, and repeats what may succeed then.
pub async fn deliver<R: Storage + Clock>(
    context: &Context<'_, R>,
    delivery: &Delivery,
    patience: Patience,
) -> Outcome {
    let Some(node) = context.config.node_of(delivery.partition) else {
        // Of a batch that was routed when there were more partitions.
        let detail = format!("partition {} does not exist", delivery.partition);
        return Outcome::Failed(Failure::new(FailureKind::Unavailable, detail));
    };
    context.instance.retries.note_forward();
    let mut backoff = Backoff::new();
    let (mut node, mut attempts, mut hops) = (node, 1, 0);
    let mut last_failure = None;
    loop {
        let left = patience.deadline.saturating_sub(context.storage.elapsed());
        if left < limits::ATTEMPT_TIME_MIN {
            return Outcome::Failed(
                last_failure.unwrap_or_else(|| unavailable(node, "no time is left for it")),
            );
        }
        if !context.instance.circuits.admits(node, context.storage.elapsed()) {
            let reason = "it could not be reached, and is left alone for a moment";
            return Outcome::Failed(last_failure.unwrap_or_else(|| unavailable(node, reason)));
        }
        let failure = match attempt(context, node, delivery, left).await {
            Step::Done(outcome) => return outcome,
            Step::Follow(leader) if hops < limits::LEADER_HOPS_MAX && leader != node => {
                hops += 1;
                node = leader;
                continue;
            }
            Step::Follow(leader) => {
                let detail = format!("{node} names {leader} as the leader, after {hops} others");
                return Outcome::Failed(Failure::new(FailureKind::Unavailable, detail));
            }
            Step::Again(failure) => failure,
        };
        let wish = Duration::from_secs(failure.retry_after_s.unwrap_or_default());
        let pause = wish + backoff.next(context.chance());
        let left = patience.deadline.saturating_sub(context.storage.elapsed());
        let is_in_time = pause + limits::ATTEMPT_TIME_MIN <= left;
        if attempts >= patience.attempts_max || !is_in_time || !context.instance.retries.take() {
            return Outcome::Failed(failure);
        }
        attempts += 1;
        last_failure = Some(failure);
        context.storage.pause(pause).await;
    }
}

fn unavailable(node: &StorageNode, reason: &str) -> Failure {
    Failure::new(FailureKind::Unavailable, format!("{node}: {reason}"))
}

/// Makes one attempt, and notes whether the node was reached.
async fn attempt<'c, R: Storage + Clock>(
    context: &Context<'c, R>,
    node: &'c StorageNode,
    delivery: &Delivery,
    left: Duration,
) -> Step<'c> {
    let circuits = &context.instance.circuits;
    let reply = send(context, node, delivery, left).await;
    match &reply {
        Err(ExchangeError::Send(SendError::TimedOut | SendError::Failed(_)))
        | Err(ExchangeError::Receive(ReceiveError::Source(_))) => {
            circuits.note_not_reached(node, context.storage.elapsed());
        }
        // What the runtime does not allow, or this instance has no room for, says nothing of the node.
        Err(ExchangeError::Send(SendError::Denied) | ExchangeError::Receive(ReceiveError::Busy(_))) => {}
        Ok(_) => circuits.note_reached(node),
    }
    judge(context.config, node, delivery, reply)
}

async fn send<'c, R: Storage>(
    context: &Context<'c, R>,
    node: &StorageNode,
    delivery: &Delivery,
    left: Duration,
) -> Result<WholeReply<'c>, ExchangeError> {
    let call = Call {
        path_and_query: format!("/v1/storage?partition={}", delivery.partition),
        headers: vec![
            ("content-type", wire::NDJSON.to_owned()),
            (wire::BATCH_ID, delivery.id.to_string()),
            (wire::BATCH_DIGEST, delivery.digest.to_string()),
        ],
        body: Some(delivery.lines.clone()),
        time_max: limits::APPEND_TIME_MAX.min(left),
        rest_time_max: limits::APPEND_REST_TIME_MAX,
    };
    exchange(context.storage, node, call, limits::APPEND_ANSWER_BYTES_MAX, context.budget).await
}

#[cfg(test)]
mod tests;
