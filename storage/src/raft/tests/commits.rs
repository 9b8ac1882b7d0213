//! Offsets of consumers, of replicas that come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use model::Offset;
use openraft::ServerState;

use super::super::CommitError;
use super::super::state::GroupState;
use super::super::types::Member;
use super::net::{Net, Running};
use crate::limits;
use crate::log::tests::random::Random;
use crate::log::tests::sim_disk::SimDisk;
use crate::log::{ConsumerCommit, ConsumerKey};

const WAIT_MAX: Duration = Duration::from_secs(20);

fn commit(name: &str, offset: Option<u64>) -> ConsumerCommit {
    ConsumerCommit { consumer: ConsumerKey::of(name), offset: offset.map(Offset::new) }
}

/// The only replica of a group, once it leads.
async fn leader(net: &Net, disk: SimDisk, is_new: bool) -> Running {
    let running = Running::start(net, 1, disk).await;
    let raft = running.group.raft();
    if is_new {
        raft.initialize(BTreeMap::from([(1, Member::default())])).await.unwrap();
    }
    let leads = raft.wait(Some(WAIT_MAX));
    leads.metrics(|metrics| metrics.state == ServerState::Leader, "it leads").await.unwrap();
    running
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_power_cut_and_what_did_not_change_costs_nothing() {
    let net = Net::default();
    let first = leader(&net, SimDisk::new(), true).await;
    let group = &first.group;
    for (name, offset) in [("a", Some(7)), ("b", Some(1)), ("a", Some(u64::MAX)), ("a", Some(3)), ("b", None)]
    {
        group.commit_offset(commit(name, offset)).await.unwrap();
    }
    let last = group.raft().metrics().borrow().last_log_index;
    group.commit_offset(commit("a", Some(3))).await.unwrap();
    group.commit_offset(commit("never there", None)).await.unwrap();
    assert_eq!(group.raft().metrics().borrow().last_log_index, last);
    // Their state is written now and then; what came after that is in the log.
    let disk = first.crash(&net, 1, &mut Random::new(1)).await;
    let again = leader(&net, disk, false).await;
    again.group.confirm_leadership().await.unwrap();
    assert_eq!(again.group.offset_of(ConsumerKey::of("a")), Some(Offset::new(3)));
    assert_eq!(again.group.offset_of(ConsumerKey::of("b")), None);
    again.crash(&net, 1, &mut Random::new(0)).await;
}

#[tokio::test]
async fn there_are_so_many_consumers_and_no_more() {
    let net = Net::default();
    let running = leader(&net, SimDisk::new(), true).await;
    let group = &running.group;
    let shared = group.store().shared();
    let all_but_one: Vec<ConsumerCommit> =
        (1..limits::CONSUMERS_MAX).map(|number| commit(&number.to_string(), Some(1))).collect();
    shared.state.lock().commit_offsets(&all_but_one);
    // At the same time: one of them is the last.
    let (one, other) =
        tokio::join!(group.commit_offset(commit("x", Some(1))), group.commit_offset(commit("y", Some(1))));
    assert_eq!((one, other), (Ok(()), Err(CommitError::TooMany)));
    group.commit_offset(commit("1", Some(2))).await.unwrap();
    group.commit_offset(commit("2", None)).await.unwrap();
    group.commit_offset(commit("y", Some(1))).await.unwrap();
    // With the longest of all it is a small file still.
    let state: GroupState = shared.state.lock().clone();
    assert!(state.encode().len() < 100_000);
    running.crash(&net, 1, &mut Random::new(0)).await;
}
