//! Changes of a group's members, one at a time, by its leader.
//!
//! Invariants: a node votes only once it has all that there was when it was looked; who is let go hears, if it is there,
//! that it votes no more before it is no member. A change that was broken off is finished before another begins.
//!
//! Errors in words: there is nobody who would tell them apart.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use tokio::time::timeout;

use super::group::Group;
use super::types::{Member, NodeId};
use crate::limits;

/// Puts one node in the place of another, which is not there any more.
pub(super) async fn replace(group: &Group, old: NodeId, new: NodeId, member: Member) -> Result<(), String> {
    change(group, Some((new, member)), Some((old, false))).await
}

/// Fills a node, lets it vote, and lets another go: one that is there if it says so.
pub(super) async fn change(
    group: &Group,
    add: Option<(NodeId, Member)>,
    drop: Option<(NodeId, bool)>,
) -> Result<(), String> {
    let added = add.as_ref().map(|(node, _)| *node);
    if let Some((node, member)) = add {
        fill(group, node, member).await?;
    }
    // Filling takes long, and whoever led meanwhile may have changed them.
    let mut voters = voters(group);
    voters.extend(added);
    if let Some((node, _)) = drop {
        voters.remove(&node);
    }
    let is_there = drop.is_none_or(|(_, is_there)| is_there);
    set(group, ChangeMembers::ReplaceAllVoters(voters), is_there).await?;
    match drop {
        Some((node, is_there)) => let_go(group, node, is_there).await,
        None => Ok(()),
    }
}

/// Ends the membership of a node that does not vote.
pub(super) async fn let_go(group: &Group, node: NodeId, is_there: bool) -> Result<(), String> {
    let last = {
        let metrics = group.raft().metrics();
        let metrics = metrics.borrow();
        if metrics.membership_config.membership().get_node(&node).is_none() {
            return Ok(());
        }
        metrics.membership_config.log_id().map(|at| at.index)
    };
    // A leader that lets itself go knows. One that does not hear of it stands for election again and again.
    if is_there && group.raft().metrics().borrow().id != node {
        timeout(limits::LET_GO_TIME_MAX, has(group, node, last)).await.ok();
    }
    set(group, ChangeMembers::RemoveNodes(BTreeSet::from([node])), true).await
}

/// Whether a change of the voters was broken off half-way.
pub(super) fn is_half_way(group: &Group) -> bool {
    group.raft().metrics().borrow().membership_config.membership().get_joint_config().len() > 1
}

/// Finishes a change of the voters that was broken off.
pub(super) async fn finish(group: &Group) -> Result<(), String> {
    set(group, ChangeMembers::ReplaceAllVoters(voters(group)), true).await
}

/// The voters that there are, or will be when the change that is under way is done.
fn voters(group: &Group) -> BTreeSet<NodeId> {
    let metrics = group.raft().metrics();
    let metrics = metrics.borrow();
    metrics.membership_config.membership().get_joint_config().last().cloned().unwrap_or_default()
}

/// Returns once the node has all that the leader has now. The node may be gone before that.
async fn fill(group: &Group, node: NodeId, member: Member) -> Result<(), String> {
    let filled = async {
        let known = {
            let metrics = group.raft().metrics();
            let metrics = metrics.borrow();
            metrics.membership_config.membership().get_node(&node).cloned()
        };
        if known.is_some_and(|known| member.placed && !known.placed) {
            // The library leaves a learner that is there already as it is: that it was put there by hand would be lost.
            set(group, ChangeMembers::SetNodes(BTreeMap::from([(node, member.clone())])), true).await?;
        }
        group.raft().add_learner(node, member, true).await.map_err(|error| error.to_string())?;
        // The library is content when little is lacking.
        let last = group.raft().metrics().borrow().last_log_index;
        if has(group, node, last).await { Ok(()) } else { Err("another node leads now".to_owned()) }
    };
    timeout(limits::REPLACE_TIME_MAX, filled).await.unwrap_or(Err("it took too long to fill it".to_owned()))
}

/// Waits until a node has an entry; whether it has, or this node does not lead any more.
pub(super) async fn has(group: &Group, node: NodeId, index: Option<u64>) -> bool {
    let mut metrics = group.raft().metrics();
    let is_over = metrics.wait_for(|metrics| match &metrics.replication {
        Some(replicas) => replicas.get(&node).copied().flatten().map(|matched| matched.index) >= index,
        None => true,
    });
    is_over.await.is_ok_and(|metrics| metrics.replication.is_some())
}

async fn set(group: &Group, members: ChangeMembers<NodeId, Member>, retain: bool) -> Result<(), String> {
    let changed = timeout(limits::MEMBERS_TIME_MAX, group.raft().change_membership(members, retain)).await;
    let changed = changed.map_err(|_| "the others do not agree to it in time".to_owned())?;
    changed.map(drop).map_err(|error| error.to_string())
}
