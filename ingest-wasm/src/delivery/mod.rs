//! Takes each partition's batch to the node that holds the partition: all of them at once, within bounds.
//!
//! Invariant: a batch counts as stored only if storage said so, and for as many records as it has; every attempt of
//! a batch has the same id and digest, so that storage takes it once. What is to happen with a batch that cannot be
//! delivered is the caller's to decide: it gets every outcome, and the batch with it.

mod judge;

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use model::{BatchDigest, BatchId, Partition, wire};

use crate::budget::Budget;
use crate::config::{Config, StorageNode};
use crate::limits;
use crate::storage::{Call, ExchangeError, Storage, WholeReply, exchange};
use judge::{Step, judge};

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
    /// Storage does not have it, as far as is known.
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
    /// Storage does not understand what it was sent: the two do not fit together.
    Refused,
    /// The node's disk is full.
    DiskFull,
    /// The node cannot be reached, has no time, or does not hold the partition.
    Unavailable,
}

/// Delivers all batches; the outcomes are in the batches' order.
pub async fn deliver_all<S: Storage>(
    storage: &S,
    config: &Config,
    budget: &Budget,
    deliveries: &[Delivery],
) -> Vec<Outcome> {
    stream::iter(deliveries)
        .map(|delivery| deliver(storage, config, budget, delivery))
        .buffered(limits::FORWARDS_AT_ONCE)
        .collect()
        .await
}

/// Delivers one batch: follows the node's hints to the partition's leader, and tries once more what may succeed then.
async fn deliver<S: Storage>(storage: &S, config: &Config, budget: &Budget, delivery: &Delivery) -> Outcome {
    let Some(mut node) = config.node_of(delivery.partition) else {
        // Partitions are computed by the same count: this cannot be.
        let detail = format!("partition {} does not exist", delivery.partition);
        return Outcome::Failed(Failure { kind: FailureKind::Refused, detail, retry_after_s: None });
    };
    let (mut attempts, mut hops) = (1, 0);
    loop {
        let reply = send(storage, node, budget, delivery).await;
        match judge(config, node, delivery, reply) {
            Step::Done(outcome) => return outcome,
            Step::Follow(leader) if hops < limits::LEADER_HOPS_MAX && leader != node => {
                hops += 1;
                node = leader;
            }
            Step::Follow(leader) => {
                let detail = format!("{node} names {leader} as the leader, after {hops} others");
                let kind = FailureKind::Unavailable;
                return Outcome::Failed(Failure { kind, detail, retry_after_s: None });
            }
            Step::Again(failure) if attempts == limits::FORWARD_ATTEMPTS => return Outcome::Failed(failure),
            Step::Again(_failure) => {
                attempts += 1;
                storage.pause(retry_pause(delivery.id)).await;
            }
        }
    }
}

async fn send<'b, S: Storage>(
    storage: &S,
    node: &StorageNode,
    budget: &'b Budget,
    delivery: &Delivery,
) -> Result<WholeReply<'b>, ExchangeError> {
    let call = Call {
        path_and_query: format!("/v1/storage?partition={}", delivery.partition),
        headers: vec![
            ("content-type", wire::NDJSON.to_owned()),
            (wire::BATCH_ID, delivery.id.to_string()),
            (wire::BATCH_DIGEST, delivery.digest.to_string()),
        ],
        body: Some(delivery.lines.clone()),
        time_max: limits::APPEND_TIME_MAX,
    };
    exchange(storage, node, call, limits::APPEND_ANSWER_BYTES_MAX, budget).await
}

/// How long to wait before another attempt. The batch's id is as good as chance.
fn retry_pause(id: BatchId) -> Duration {
    let (least, spread) = limits::RETRY_PAUSE;
    let chance = id.to_bytes().last().copied().unwrap_or_default();
    least + spread * u32::from(chance) / u32::from(u8::MAX)
}
