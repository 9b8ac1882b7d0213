//! Takes a partition's batch to the node that holds the partition, with the attempts that are worth making.
//!
//! Invariant: a batch counts as stored only if storage said so, and for as many records as it has; every attempt of
//! a batch has the same id and digest, so that storage takes it once; all attempts together end in time. What is to
//! happen with a batch that cannot be delivered is the caller's to decide ([`crate::settle`]).

mod backoff;
mod circuit;
mod judge;
mod leaders;
mod look;
mod retry_budget;
mod together;
mod way;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use model::trace::TRACEPARENT;
use model::wire::{self, Durability};
use model::{BatchDigest, BatchId, Partition};

use crate::body::ReceiveError;
use crate::clock::Clock;
use crate::config::StorageNode;
use crate::context::Context;
use crate::limits;
use crate::storage::{Call, ExchangeError, SendError, Storage, WholeReply, exchange};
pub(crate) use circuit::Circuits;
use judge::{Said, Step, judge};
pub(crate) use leaders::Leaders;
pub(crate) use look::another;
pub(crate) use retry_budget::RetryBudget;
pub(crate) use together::{First, TogetherUnknown, attempt_together, plan};
use way::Way;

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
    /// How durable they have to be before storage answers; `None`: as the cluster's operator chose.
    pub acks: Option<Durability>,
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

/// Delivers one batch: to the node that leads the partition, as far as that is known or can be found out, and again
/// where that may help.
pub async fn deliver<R: Storage + Clock>(
    context: &Context<'_, R>,
    delivery: &Delivery,
    patience: Patience,
) -> Outcome {
    deliver_after(context, delivery, patience, None).await
}

/// The same of a batch whose first attempt may have been made with others.
pub(crate) async fn deliver_after<'c, R: Storage + Clock>(
    context: &Context<'c, R>,
    delivery: &Delivery,
    patience: Patience,
    first: Option<First<'c>>,
) -> Outcome {
    if let Some(First { node, step }) = first {
        return Way::new(context, delivery, patience, node).go_after(step).await;
    }
    let Some(node) = node_of(context, delivery.partition) else {
        // Of a batch that was routed when there were more partitions.
        let detail = format!("partition {} does not exist", delivery.partition);
        return Outcome::Failed(Failure::new(FailureKind::Unavailable, detail));
    };
    context.instance.retries.note_forward();
    Way::new(context, delivery, patience, node).go().await
}

/// The node to send a partition's records to, as far as is known. `None` for a partition that does not exist.
pub(crate) fn node_of<'c, R: Clock>(
    context: &Context<'c, R>,
    partition: Partition,
) -> Option<Cow<'c, StorageNode>> {
    context.instance.leaders.node_of(context.config, partition, context.storage.elapsed())
}

/// One attempt.
#[derive(Clone, Copy, Debug)]
struct Try {
    /// From one on.
    number: u32,
    /// How long it may take.
    time_max: Duration,
}

/// Makes one attempt, and notes whether the node was reached.
async fn attempt<R: Storage + Clock>(
    context: &Context<'_, R>,
    node: &StorageNode,
    delivery: &Delivery,
    this: Try,
) -> Step {
    let reply = send(context, node, delivery, this).await;
    note_reply(context, node, &reply);
    judge(context.config, node, delivery, reply.as_ref().map(Said::by))
}

/// Notes whether a node was reached.
fn note_reply<R: Clock>(
    context: &Context<'_, R>,
    node: &StorageNode,
    reply: &Result<WholeReply<'_>, ExchangeError>,
) {
    let circuits = &context.instance.circuits;
    match reply {
        Err(ExchangeError::Send(SendError::TimedOut | SendError::Failed(_)))
        | Err(ExchangeError::Receive(ReceiveError::Source(_))) => {
            circuits.note_not_reached(node, context.storage.elapsed());
        }
        // What the runtime does not allow, or this instance has no room for, says nothing of the node.
        Err(ExchangeError::Send(SendError::Denied) | ExchangeError::Receive(ReceiveError::Busy(_))) => {}
        Ok(_) => circuits.note_reached(node),
    }
}

async fn send<'c, R: Storage>(
    context: &Context<'c, R>,
    node: &StorageNode,
    delivery: &Delivery,
    this: Try,
) -> Result<WholeReply<'c>, ExchangeError> {
    let mut headers = vec![
        ("content-type", wire::NDJSON.to_owned()),
        (wire::BATCH_ID, delivery.id.to_string()),
        (wire::BATCH_DIGEST, delivery.digest.to_string()),
        (wire::INGEST_NODE, context.config.node_id.clone()),
        (TRACEPARENT, context.trace.to_string()),
    ];
    if this.number > 1 {
        headers.push((wire::BATCH_ATTEMPT, this.number.to_string()));
    }
    if let Some(acks) = delivery.acks {
        headers.push((wire::ACKS, acks.as_str().to_owned()));
    }
    let call = Call {
        path_and_query: format!("/v1/storage?partition={}", delivery.partition),
        headers,
        body: Some(delivery.lines.clone()),
        time_max: limits::APPEND_TIME_MAX.min(this.time_max),
        rest_time_max: limits::APPEND_REST_TIME_MAX,
    };
    exchange(context.storage, node, call, limits::APPEND_ANSWER_BYTES_MAX, context.budget).await
}

#[cfg(test)]
mod discovery_tests;
#[cfg(test)]
mod tests;
