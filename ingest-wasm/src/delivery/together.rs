//! Batches that begin at the same node go there in one request: what a forward costs whatever is in it is paid once for
//! them.
//!
//! Invariant: only first attempts are made together, of batches that nothing is known to stand in the way of. What is not
//! settled by that, each batch goes on with alone, from where its part of the answer leaves it.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use model::batches::{BATCHES, BatchAnswer, BatchHead, BatchesAnswer};
use model::limits::BATCHES_AT_ONCE_MAX;
use model::trace::TRACEPARENT;
use model::wire;

use super::judge::{Said, Step, judge, strange};
use super::{Delivery, Patience, note_reply};
use crate::clock::Clock;
use crate::config::StorageNode;
use crate::context::Context;
use crate::limits;
use crate::storage::{Call, ExchangeError, Storage, WholeReply, exchange};

/// The nodes that were found not to take batches together, and when.
#[derive(Debug, Default)]
pub(crate) struct TogetherUnknown(Mutex<Vec<(StorageNode, Duration)>>);

/// What came of a batch's first attempt, made with others.
#[derive(Debug)]
pub(crate) struct First<'c> {
    pub(super) node: Cow<'c, StorageNode>,
    pub(super) step: Step,
}

impl TogetherUnknown {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn has(&self, node: &StorageNode, now: Duration) -> bool {
        let is_recent = |at: Duration| now.saturating_sub(at) < limits::TOGETHER_UNKNOWN_AGE_MAX;
        self.lock().iter().any(|(known, at)| known == node && is_recent(*at))
    }

    fn note(&self, node: &StorageNode, now: Duration) {
        let mut nodes = self.lock();
        nodes.retain(|(known, _)| known != node);
        if nodes.len() >= limits::STORAGE_NODES_MAX {
            nodes.remove(0);
        }
        nodes.push((node.clone(), now));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(StorageNode, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deals batches with their places out to requests: those of one request begin at one node. A large batch, and one that
/// something is in the way of, is alone.
pub(crate) fn plan<'d, R: Clock>(
    context: &Context<'_, R>,
    deliveries: Vec<(usize, &'d Delivery)>,
) -> Vec<Vec<(usize, &'d Delivery)>> {
    struct Planned<'c, 'd> {
        node: Option<Cow<'c, StorageNode>>,
        bytes: usize,
        deliveries: Vec<(usize, &'d Delivery)>,
    }
    let now = context.storage.elapsed();
    let mut requests: Vec<Planned<'_, '_>> = Vec::new();
    for (place, delivery) in deliveries {
        let (node, bytes) = (node_together(context, delivery, now), delivery.lines.len());
        let has_room = |request: &Planned<'_, '_>| {
            request.bytes + bytes <= limits::TOGETHER_BYTES_MAX
                && request.deliveries.len() < BATCHES_AT_ONCE_MAX
        };
        let mut open = requests.iter_mut().filter(|request| node.is_some() && request.node == node);
        match open.find(|request| has_room(request)) {
            Some(request) => {
                request.bytes += bytes;
                request.deliveries.push((place, delivery));
            }
            None => requests.push(Planned { node, bytes, deliveries: vec![(place, delivery)] }),
        }
    }
    requests.into_iter().map(|request| request.deliveries).collect()
}

/// The node that a batch can go to with others.
fn node_together<'c, R: Clock>(
    context: &Context<'c, R>,
    delivery: &Delivery,
    now: Duration,
) -> Option<Cow<'c, StorageNode>> {
    let instance = context.instance;
    let node = super::node_of(context, delivery.partition)?;
    let may = delivery.lines.len() <= limits::TOGETHER_BATCH_BYTES_MAX
        && !instance.leaders.is_worth_waiting(delivery.partition, now)
        && instance.circuits.is_closed(&node)
        && !instance.together_unknown.has(&node, now);
    may.then_some(node)
}

/// Makes the first attempt of these batches, which were planned to go to one node. `None` for each whose first attempt is
/// still to be made, alone.
pub(crate) async fn attempt_together<'c, R: Storage + Clock>(
    context: &Context<'c, R>,
    deliveries: &[&Delivery],
    patience: Patience,
) -> Vec<Option<First<'c>>> {
    let alone = || deliveries.iter().map(|_| None).collect();
    let now = context.storage.elapsed();
    // Others may have found out since it was planned that the node fails, or does not lead.
    let mut nodes = deliveries.iter().map(|delivery| node_together(context, delivery, now));
    let Some(node) = nodes.next().flatten().filter(|node| nodes.all(|other| other.as_ref() == Some(node)))
    else {
        return alone();
    };
    let time_left = patience.deadline.saturating_sub(now);
    if deliveries.len() < 2 || time_left < limits::ATTEMPT_TIME_MIN {
        return alone();
    }
    context.instance.retries.note_forward();
    let reply = send(context, &node, deliveries, time_left).await;
    note_reply(context, &node, &reply);
    if reply.as_ref().is_ok_and(|reply| is_refused_together(reply.status)) {
        context.instance.together_unknown.note(&node, context.storage.elapsed());
        return alone();
    }
    let answer = reply.as_ref().ok().and_then(answer_of);
    let step = |delivery: &&Delivery| match (&answer, &reply) {
        (Some(answer), _) => {
            let own = answer.batches.iter().find(|batch| batch.partition == delivery.partition);
            own.map_or_else(|| strange(&node), |own| judge(context.config, &node, delivery, Ok(said_by(own))))
        }
        (None, Ok(reply)) if (200..300).contains(&reply.status) => strange(&node),
        (None, reply) => judge(context.config, &node, delivery, reply.as_ref().map(Said::by)),
    };
    deliveries.iter().map(|delivery| Some(First { node: node.clone(), step: step(delivery) })).collect()
}

/// Whether a node, or what stands before it, refuses a request for what it is: of its batches that says nothing.
fn is_refused_together(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 408 | 429)
}

/// What became of each batch, if the reply says that: `207` where not all were stored.
fn answer_of(reply: &WholeReply<'_>) -> Option<BatchesAnswer> {
    let is_answer = matches!(reply.status, 200 | 207) && reply.is_whole;
    is_answer.then(|| serde_json::from_slice(reply.body.bytes()).ok())?
}

fn said_by(batch: &BatchAnswer) -> Said<'_> {
    Said {
        status: batch.status,
        durability: batch.durability.as_deref(),
        leader: batch.leader.as_deref(),
        retry_after_s: batch.retry_after,
        body: batch.body.get().as_bytes(),
    }
}

async fn send<'c, R: Storage>(
    context: &Context<'c, R>,
    node: &StorageNode,
    deliveries: &[&Delivery],
    time_left: Duration,
) -> Result<WholeReply<'c>, ExchangeError> {
    let mut headers = vec![
        ("content-type", BATCHES.to_owned()),
        (wire::INGEST_NODE, context.config.node_id.clone()),
        (TRACEPARENT, context.trace.to_string()),
    ];
    // All are of one request, and it asks for one level.
    if let Some(acks) = deliveries.first().and_then(|delivery| delivery.acks) {
        headers.push((wire::ACKS, acks.as_str().to_owned()));
    }
    let call = Call {
        path_and_query: "/v1/storage/batches".to_owned(),
        headers,
        body: Some(body(deliveries)),
        time_max: limits::APPEND_TIME_MAX.min(time_left),
        rest_time_max: limits::APPEND_REST_TIME_MAX,
    };
    exchange(context.storage, node, call, limits::TOGETHER_ANSWER_BYTES_MAX, context.budget).await
}

fn body(deliveries: &[&Delivery]) -> Bytes {
    let size = |delivery: &&Delivery| limits::TOGETHER_HEAD_BYTES + delivery.lines.len();
    let mut body = Vec::with_capacity(deliveries.iter().map(size).sum());
    for delivery in deliveries {
        let Delivery { partition, id, digest, lines, .. } = delivery;
        let head = BatchHead { partition: *partition, id: *id, digest: *digest, bytes: lines.len() };
        body.extend_from_slice(&head.to_line());
        body.extend_from_slice(lines);
    }
    body.into()
}

#[cfg(test)]
mod tests;
