//! Reads that may miss nothing, of replicas that come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use model::wire::Durability;
use model::{BatchDigest, BatchId, Offset, ValidBatch};
use openraft::ServerState;

use super::super::ReadError;
use super::super::types::{Member, NodeId};
use super::net::{Net, Running};
use crate::log::tests::random::Random;
use crate::log::tests::sim_disk::SimDisk;
use crate::partition::Append;

const WAIT_MAX: Duration = Duration::from_secs(20);
const LINE: &str = "{\"timestamp\":1,\"service\":\"s\",\"message\":\"m\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}\n";

async fn append(running: &Running, number: u8) {
    let bytes = Bytes::from_static(LINE.as_bytes());
    let append = Append {
        digest: BatchDigest::of(&bytes),
        batch: ValidBatch::from_ndjson(bytes).unwrap(),
        id: BatchId::from_bytes([number; 16]),
        id_is_new: true,
        acks: Some(Durability::Quorum),
        budget: None,
    };
    running.handle.append(append).await.unwrap();
}

/// Replicas of which the first leads.
async fn led_by_first(net: &Net, nodes: u64) -> BTreeMap<NodeId, Running> {
    let mut running = BTreeMap::new();
    for node in 1..=nodes {
        running.insert(node, Running::start(net, node, SimDisk::new()).await);
    }
    let raft = running[&1].group.raft();
    raft.initialize((1..=nodes).map(|node| (node, Member::default())).collect::<BTreeMap<_, _>>())
        .await
        .unwrap();
    raft.wait(Some(WAIT_MAX)).metrics(|metrics| metrics.current_leader == Some(1), "it leads").await.unwrap();
    running
}

async fn crash_all(net: &Net, all: BTreeMap<NodeId, Running>) {
    for (node, running) in all {
        running.crash(net, node, &mut Random::new(0)).await;
    }
}

#[tokio::test]
async fn a_leader_that_takes_up_its_lead_again_reads_nothing_before_it_has_all_that_it_had_acknowledged() {
    let net = Net::default();
    let mut all = led_by_first(&net, 3).await;
    for number in 0..3 {
        append(&all[&1], number).await;
    }
    net.0.lock().only_questions = true;
    for node in 1..=3 {
        let disk = all.remove(&node).unwrap().crash(&net, node, &mut Random::new(node)).await;
        all.insert(node, Running::start(&net, node, disk).await);
    }
    let first = &all[&1];
    let leads = || first.group.raft().wait(Some(WAIT_MAX));
    leads().metrics(|metrics| metrics.state == ServerState::Leader, "it leads").await.unwrap();
    // Others say that it leads; what is agreed on it has not found out again.
    first.group.confirm_leadership().await.unwrap_err();
    assert_eq!(first.reader.high_watermark(), Offset::ZERO);
    net.0.lock().only_questions = false;
    // Whoever leads by then.
    let end = loop {
        let known = leads().metrics(|metrics| metrics.current_leader.is_some(), "there is a leader").await;
        let leader = &all[&known.unwrap().current_leader.unwrap()];
        if leader.group.confirm_leadership().await.is_ok() {
            break leader.reader.high_watermark();
        }
    };
    assert_eq!(end, Offset::new(3));
    crash_all(&net, all).await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_serves_no_read_and_one_that_follows_points_to_it() {
    let net = Net::default();
    let all = led_by_first(&net, 3).await;
    append(&all[&1], 1).await;
    all[&1].group.confirm_leadership().await.unwrap();
    assert!(matches!(all[&2].group.confirm_leadership().await, Err(ReadError::NotLeader { .. })));
    // What the leader sends arrives, and no answer comes back: none of the others stands for election.
    net.0.lock().cut.extend([(2, 1), (3, 1)]);
    assert_eq!(all[&1].group.confirm_leadership().await, Err(ReadError::NoQuorum));
    assert!(all[&1].group.leads(), "it does not know better");
    net.heal();
    let metrics = all[&1].group.raft().wait(Some(WAIT_MAX));
    metrics.metrics(|metrics| metrics.current_leader.is_some(), "there is a leader").await.unwrap();
    crash_all(&net, all).await;
}
