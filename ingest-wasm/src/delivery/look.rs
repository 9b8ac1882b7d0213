//! Finds out who leads a partition, by asking the nodes there are.

use std::time::Duration;

use model::Partition;
use model::wire::{self, ClusterAnswer};

use super::note_reply;
use crate::clock::Clock;
use crate::config::StorageNode;
use crate::context::Context;
use crate::limits;
use crate::storage::{Call, Storage, exchange};

/// The node that takes a partition's records in place of `failed`: found by asking, and, if `is_patient`, by waiting
/// for an election to end, until `deadline` at most. `None` if none is found.
pub(super) async fn find_leader<R: Storage + Clock>(
    context: &Context<'_, R>,
    partition: Partition,
    failed: &StorageNode,
    deadline: Duration,
    is_patient: bool,
) -> Option<StorageNode> {
    let leaders = &context.instance.leaders;
    loop {
        look(context, partition, failed, deadline).await;
        let now = context.storage.elapsed();
        let found = leaders.learned(partition, now);
        if let Some(node) = found.filter(|node| context.instance.circuits.would_admit(node, now)) {
            return Some(node);
        }
        let is_worth_it = is_patient && leaders.is_worth_waiting(partition, now);
        if !is_worth_it || now + limits::LOOK_PAUSE_MAX + limits::ATTEMPT_TIME_MIN > deadline {
            return None;
        }
        let chance = (context.chance() >> 32) as f64 / f64::from(u32::MAX);
        let (least, most) = (limits::LOOK_PAUSE_MIN, limits::LOOK_PAUSE_MAX);
        context.storage.pause(least + (most - least).mul_f64(chance)).await;
    }
}

/// Another node for a read that `failed` did not answer: the partition's leader, if that can be found out at once.
pub(crate) async fn another<R: Storage + Clock>(
    context: &Context<'_, R>,
    partition: Partition,
    failed: &StorageNode,
) -> Option<StorageNode> {
    let now = context.storage.elapsed();
    context.instance.leaders.note_failed(partition, failed, now);
    let found = find_leader(context, partition, failed, now + limits::READ_LOOK_TIME_MAX, false).await;
    found.filter(|node| node != failed)
}

/// Asks some nodes, until one names a leader of the partition; does nothing where that is known to be of no use.
async fn look<R: Storage + Clock>(
    context: &Context<'_, R>,
    partition: Partition,
    failed: &StorageNode,
    deadline: Duration,
) {
    let now = context.storage.elapsed();
    let Some(looking) = context.instance.leaders.look(context.config, now) else { return };
    // The one that failed is asked last: it may be all there is.
    let (last, first): (Vec<_>, Vec<_>) = looking.nodes.iter().partition(|node| *node == failed);
    let mut asked = 0;
    for node in first.into_iter().chain(last) {
        let now = context.storage.elapsed();
        let left = deadline.saturating_sub(now);
        let is_known = context.instance.leaders.learned(partition, now).is_some();
        if is_known || left < limits::ATTEMPT_TIME_MIN || asked >= limits::LOOK_NODES_MAX {
            return;
        }
        if !context.instance.circuits.admits(node, now) {
            continue;
        }
        asked += 1;
        if let Some(answer) = ask(context, node, left).await {
            looking.note(context.config, node, &answer, context.storage.elapsed());
        }
    }
}

/// What a node says of the cluster; `None` if it says nothing that can be used.
async fn ask<R: Storage + Clock>(
    context: &Context<'_, R>,
    node: &StorageNode,
    left: Duration,
) -> Option<ClusterAnswer> {
    let time_max = limits::LOOK_TIME_MAX.min(left);
    let call = Call {
        path_and_query: "/v1/cluster".to_owned(),
        headers: vec![("accept", wire::JSON.to_owned())],
        body: None,
        time_max,
        rest_time_max: time_max,
    };
    let reply = exchange(context.storage, node, call, limits::CLUSTER_ANSWER_BYTES_MAX, context.budget).await;
    note_reply(context, node, &reply);
    let reply = reply.ok().filter(|reply| reply.status == 200 && reply.is_whole)?;
    serde_json::from_slice(reply.body.bytes()).ok()
}
