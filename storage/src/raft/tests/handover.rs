//! A leader that goes hands over: to whom, how fast, and what becomes of it when something fails on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use model::limits::APPEND_AGREED_TIME_MAX;
use model::wire::Durability;
use model::{BatchDigest, BatchId, Offset, Tenant, ValidBatch};
use tokio::time::{Instant, timeout};

use super::super::codec::AppendHead;
use super::super::handover::Heralds;
use super::super::members;
use super::super::types::{Member, NodeId, SavedVote};
use super::net::{Net, NetHeralds, PARTITION, Running};
use crate::log::tests::sim_disk::SimDisk;
use crate::partition::{Append, AppendError, PartitionHandle};

/// How long things may take on a machine that does much else.
const TIME_MAX: Duration = Duration::from_secs(20);

async fn three(net: &Net) -> BTreeMap<NodeId, Running> {
    let mut running = BTreeMap::new();
    for node in 1..=3 {
        running.insert(node, Running::start(net, node, SimDisk::new()).await);
    }
    let members: BTreeMap<NodeId, Member> = (1..=3).map(|node| (node, Member::default())).collect();
    running[&1].group.raft().initialize(members).await.unwrap();
    running
}

/// The node that leads, once all say so.
async fn leader(running: &BTreeMap<NodeId, Running>) -> NodeId {
    let waited = running[&1].group.raft().wait(Some(TIME_MAX));
    let metrics = waited.metrics(|metrics| metrics.current_leader.is_some(), "a leader").await.unwrap();
    let leader = metrics.current_leader.unwrap();
    for node in running.values() {
        let waited = node.group.raft().wait(Some(TIME_MAX));
        waited.current_leader(leader, "all follow it").await.unwrap();
    }
    leader
}

async fn append(handle: &PartitionHandle, key: u64) -> Result<Offset, AppendError> {
    let line = format!(
        "{{\"timestamp\":{key},\"service\":\"s\",\"message\":\"{key}\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
    );
    let bytes = Bytes::from(line);
    let append = Append {
        batch: ValidBatch::from_ndjson(bytes.clone()).unwrap(),
        id: BatchId::derive(&Tenant::default(), &key.to_string(), PARTITION),
        digest: BatchDigest::of(&bytes),
        id_is_new: false,
        acks: Some(Durability::Quorum),
        budget: None,
    };
    handle.append(append).await.map(|appended| appended.base_offset)
}

/// Waits until so many records are on all disks, and the leader knows.
async fn all_have(running: &BTreeMap<NodeId, Running>, records: u64) {
    let leader = running[&leader(running).await].group.clone();
    let last = leader.raft().metrics().borrow().last_log_index;
    for node in running.keys().filter(|node| **node != leader.raft().metrics().borrow().id) {
        let has = timeout(TIME_MAX, members::has(&leader, *node, last)).await;
        assert!(has.expect("it is sent all there is"), "it leads");
    }
    let ends: Vec<Offset> = running.values().map(|node| node.reader.status().written_end).collect();
    assert_eq!(ends, [Offset::new(records); 3]);
}

fn term(node: &Running) -> u64 {
    node.group.raft().metrics().borrow().current_term
}

/// Those that say what they are told to, but for the last word.
struct Broken(NetHeralds);

impl Heralds for Broken {
    async fn ask_heir(&self, heir: NodeId, leader: SavedVote) -> Result<(), String> {
        self.0.ask_heir(heir, leader).await
    }

    async fn release(&self, node: NodeId, vacancy: AppendHead) {
        self.0.release(node, vacancy).await;
    }

    async fn call_up(&self, _: NodeId, _: SavedVote) -> Result<(), String> {
        Err("it has just died".to_owned())
    }
}

/// Those that say what they are told to, but that some never answer whether they could follow.
struct Slow {
    heralds: NetHeralds,
    silent: Vec<NodeId>,
}

impl Heralds for Slow {
    async fn ask_heir(&self, heir: NodeId, leader: SavedVote) -> Result<(), String> {
        if self.silent.contains(&heir) {
            std::future::pending::<()>().await;
        }
        self.heralds.ask_heir(heir, leader).await
    }

    async fn release(&self, node: NodeId, vacancy: AppendHead) {
        self.heralds.release(node, vacancy).await;
    }

    async fn call_up(&self, heir: NodeId, leader: SavedVote) -> Result<(), String> {
        self.heralds.call_up(heir, leader).await
    }
}

#[tokio::test]
async fn a_leader_hands_over_to_one_that_has_all_and_the_next_term_is_that_ones() {
    let net = Net::patient();
    let running = three(&net).await;
    let first = leader(&running).await;
    for key in 0..5 {
        append(&running[&first].handle, key).await.unwrap();
    }
    let before = term(&running[&first]);
    let heir = (1..=3).find(|node| *node != first).unwrap();
    let heralds = NetHeralds { net: net.clone(), from: first };
    let led_by = running[&first].group.hand_over(|node| node == heir, &heralds).await.unwrap();
    assert_eq!((led_by, leader(&running).await), (heir, heir));
    // One election, and not one that came about since all had waited long enough.
    assert_eq!(term(&running[&heir]), before + 1);
    assert!(matches!(append(&running[&first].handle, 9).await, Err(AppendError::NotLeader { .. })));
    assert_eq!(append(&running[&heir].handle, 5).await.unwrap(), Offset::new(5));
    // What the earlier leader has acknowledged is known by its successor.
    assert_eq!(append(&running[&heir].handle, 2).await.unwrap(), Offset::new(2));
}

#[tokio::test]
async fn a_leader_whose_heirs_do_not_answer_or_lack_something_goes_on_to_lead() {
    let net = Net::patient();
    // Whoever is cut off must not stand for election before the end.
    net.0.lock().election = Some(Duration::from_secs(4));
    let running = three(&net).await;
    let first = leader(&running).await;
    append(&running[&first].handle, 0).await.unwrap();
    let before = term(&running[&first]);
    let others: Vec<NodeId> = (1..=3).filter(|node| *node != first).collect();
    let heralds = || NetHeralds { net: net.clone(), from: first };
    let group = &running[&first].group;
    let goes_on = || group.leads() && term(&running[&first]) == before;
    // One that answers nothing; then all of them.
    for silent in [&others[..1], &others[..]] {
        let slow = Slow { heralds: heralds(), silent: silent.to_vec() };
        let handing = group.hand_over(|node| silent.contains(&node), &slow);
        timeout(TIME_MAX, handing).await.expect("nobody is waited for so long").unwrap_err();
        assert!(goes_on(), "{silent:?}");
    }
    // One that cannot be reached, and one that lacks what the others have agreed on.
    let heir = others[0];
    net.0.lock().cut.insert((first, heir));
    group.hand_over(|node| node == heir, &heralds()).await.unwrap_err();
    assert!(goes_on());
    append(&running[&first].handle, 1).await.unwrap();
    group.hand_over(|node| node == heir, &heralds()).await.unwrap_err();
    assert!(goes_on());
    group.hand_over(|_| false, &heralds()).await.unwrap_err();
    assert!(goes_on());
    net.heal();
    assert_eq!(append(&running[&first].handle, 2).await.unwrap(), Offset::new(2));
}

#[tokio::test]
async fn where_one_does_not_answer_another_gets_the_lead() {
    let net = Net::patient();
    let running = three(&net).await;
    // Each of the two is the one that does not answer, whichever is asked first; at once, or never.
    for turn in 0..8 {
        let first = leader(&running).await;
        append(&running[&first].handle, turn).await.unwrap();
        let others: Vec<NodeId> = (1..=3).filter(|node| *node != first).collect();
        let (silent, heir) = if turn % 2 == 0 { (others[0], others[1]) } else { (others[1], others[0]) };
        let heralds = NetHeralds { net: net.clone(), from: first };
        let group = &running[&first].group;
        let led_by = if turn < 4 {
            net.0.lock().cut.extend([(first, silent), (silent, first)]);
            group.hand_over(|_| true, &heralds).await
        } else {
            // Both have all there is: else the one that has not is not asked at all.
            all_have(&running, turn + 1).await;
            let slow = Slow { heralds, silent: vec![silent] };
            let handing = timeout(TIME_MAX, group.hand_over(|_| true, &slow)).await;
            handing.expect("nobody is waited for so long")
        };
        assert_eq!(led_by.unwrap(), heir, "turn {turn}");
        net.heal();
    }
}

#[tokio::test]
async fn a_lead_that_was_given_up_in_vain_is_taken_up_again_with_all_there_was() {
    let net = Net::patient();
    let running = three(&net).await;
    let first = leader(&running).await;
    append(&running[&first].handle, 0).await.unwrap();
    let before = term(&running[&first]);
    let heralds = Broken(NetHeralds { net: net.clone(), from: first });
    running[&first].group.hand_over(|_| true, &heralds).await.unwrap_err();
    let waited = running[&first].group.raft().wait(Some(TIME_MAX));
    let is_led = |metrics: &openraft::RaftMetrics<NodeId, Member>| {
        metrics.current_term > before && metrics.current_leader.is_some()
    };
    waited.metrics(is_led, "another term has a leader").await.unwrap();
    let next = leader(&running).await;
    assert_eq!(append(&running[&next].handle, 0).await.unwrap(), Offset::ZERO);
    assert_eq!(append(&running[&next].handle, 1).await.unwrap(), Offset::new(1));
}

#[tokio::test]
async fn a_leader_without_a_majority_tells_a_batch_so_while_its_ingest_listens_however_long_elections_take() {
    let net = Net::patient();
    // What follows from the election alone would be a wait of minutes.
    net.0.lock().election = Some(Duration::from_secs(60));
    let running = three(&net).await;
    let first = leader(&running).await;
    append(&running[&first].handle, 0).await.unwrap();
    for other in (1..=3).filter(|node| *node != first) {
        net.0.lock().cut.extend([(first, other), (other, first)]);
    }
    let asked_at = Instant::now();
    let refused = timeout(TIME_MAX, append(&running[&first].handle, 1)).await;
    let refused = refused.expect("it waits no longer than its ingest does");
    assert!(matches!(refused, Err(AppendError::NoQuorum)), "{refused:?}");
    assert!(asked_at.elapsed() >= APPEND_AGREED_TIME_MAX, "{:?}", asked_at.elapsed());
}
