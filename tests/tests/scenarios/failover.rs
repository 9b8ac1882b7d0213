//! Three nodes with three copies of each partition: whatever happens to one of them, or to all, what was acknowledged is
//! on every copy, once, in order, byte for byte the same.

use std::collections::BTreeMap;
use std::time::Duration;

use model::wire::PartitionState;
use rand::RngExt;
use tests::cluster::Stored;
use tests::history::History;
use tests::isolated::{fill_up, in_own_network, on_small_disk};
use tests::load::{Load, LoadSpec};
use tests::oracle::{Fate, Oracle};
use tests::recorder::{self, RECORDER, Recorder};
use tests::{Cluster, ClusterSpec, eventually, random};

/// How long clients may be kept waiting by a leader that dies: an election, and that its clients find the new one. The
/// promise at default times is 3 s; the rest is for two cores that all of the tests share.
const FAILOVER_MAX: Duration = Duration::from_secs(10);

/// How long the ingest may wait for an election before it lets records wait.
const WAITS_MAX: Duration = Duration::from_secs(20);

/// How long it may take until a full disk shows: the node has to be sent something.
const FULL_MAX: Duration = Duration::from_secs(20);

async fn three_nodes() -> Cluster {
    let cluster = ClusterSpec::default().nodes(3).replicas(3).partitions(2).start().await;
    cluster.leaders().await;
    cluster
}

fn load(cluster: &Cluster, seed: u64) -> Load {
    let urls = vec![cluster.url("/v1/logs")];
    Load::start(&LoadSpec { urls, connections: 4, batch_records_max: 30, given_up: 0.2, seed })
}

/// Records what clients of the first partition see.
fn recorder(cluster: &Cluster, seed: u64) -> Recorder {
    Recorder::start(cluster.nodes.iter().map(|node| node.url("")).collect(), 0, 3, 2, seed)
}

/// Lets the load end, has the rest taken to storage, and compares all copies with it; returns what they hold.
async fn assert_holds(cluster: &Cluster, load: Load) -> Stored {
    let ledgers = load.finish().await;
    cluster.drain_wals().await;
    let oracle = Oracle::new(cluster.partitions(), ledgers);
    let stored = cluster.same_everywhere().await;
    let mut loaded = stored.clone();
    // What a recorder sent is in its history.
    loaded.values_mut().for_each(|records| records.retain(|record| record.ingested_node_id != RECORDER));
    oracle.assert_holds(&loaded);
    eprintln!("{} records acked, {} in doubt", oracle.count(Fate::Acked), oracle.count(Fate::InDoubt));
    stored
}

/// Compares what clients of the first partition saw with what all copies of it hold in the end.
fn assert_explains(stored: &Stored, mut history: History) {
    eprintln!("{} batches acked, {} reads", history.acked(), history.reads());
    history.end_with(recorder::as_seen(&stored[&0]));
    history.assert_holds();
}

#[tokio::test]
async fn three_copies_are_the_same_and_acknowledged_at_a_quorum() {
    let cluster = three_nodes().await;
    let load = load(&cluster, random::seeded().random());
    load.progress(50).await;
    assert_holds(&cluster, load).await;
    let records = [tests::records::record("event_creator", "one more")];
    assert_eq!(cluster.send(&records, "one-more").await.expect(200).header("durability"), "quorum");
    cluster.same_everywhere().await;
}

#[tokio::test]
async fn a_leader_that_is_killed_is_followed_by_another_and_comes_back_as_a_follower() {
    let mut random = random::seeded();
    let mut cluster = three_nodes().await;
    let load = load(&cluster, random.random());
    let recorder = recorder(&cluster, random.random());
    for _ in 0..3 {
        load.progress(20).await;
        let leader = cluster.leader_of(0).await;
        cluster.nodes[leader].kill();
        // As many as there are writers may have had their answer on the way.
        let took = recorder.progress(4).await;
        eprintln!("failover took {took:?}");
        assert!(took < FAILOVER_MAX, "{took:?}");
        load.progress(20).await;
        cluster.nodes[leader].start().await;
    }
    let history = recorder.finish().await;
    assert_explains(&assert_holds(&cluster, load).await, history);
}

#[tokio::test]
async fn a_rolling_restart_under_load_costs_nothing() {
    let mut random = random::seeded();
    let mut cluster = three_nodes().await;
    let load = load(&cluster, random.random());
    let recorder = recorder(&cluster, random.random());
    for place in 0..3 {
        load.progress(20).await;
        assert!(cluster.nodes[place].stop().await.success());
        load.progress(20).await;
        recorder.progress(5).await;
        cluster.nodes[place].start().await;
        cluster.leaders().await;
    }
    let history = recorder.finish().await;
    assert_explains(&assert_holds(&cluster, load).await, history);
}

#[tokio::test]
async fn all_nodes_killed_at_once_come_back_with_all_that_was_acknowledged() {
    let mut random = random::seeded();
    let mut cluster = three_nodes().await;
    let load = load(&cluster, random.random());
    for _ in 0..2 {
        load.progress(30).await;
        cluster.nodes.iter_mut().for_each(|node| node.kill());
        let waits = async || (cluster.wal(0).await["entries"].as_u64() > Some(0)).then_some(());
        eventually("records wait at the edge", WAITS_MAX, waits).await;
        futures::future::join_all(cluster.nodes.iter_mut().map(|node| node.start_serving())).await;
        cluster.leaders().await;
        load.progress(10).await;
    }
    assert_holds(&cluster, load).await;
}

#[tokio::test]
async fn a_node_whose_disk_is_full_is_done_without_and_catches_up() {
    let name = "failover::a_node_whose_disk_is_full_is_done_without_and_catches_up";
    let Some(dir) = on_small_disk(name, 48) else { return };
    let mut random = random::seeded();
    let mut cluster =
        ClusterSpec::default().nodes(3).replicas(3).partitions(2).disk_of(1, &dir).start().await;
    cluster.leaders().await;
    let load = load(&cluster, random.random());
    load.progress(20).await;
    let ballast = dir.join("ballast");
    fill_up(&ballast);
    // Whoever leads: the other two are enough.
    load.progress(60).await;
    let is_felt = async || feels_its_full_disk(&cluster, &load, 1).await.then_some(());
    eventually("the node cannot store", FULL_MAX, is_felt).await;
    std::fs::remove_file(&ballast).unwrap();
    load.progress(20).await;
    assert_holds(&cluster, load).await;
    assert!(cluster.nodes[1].stop().await.success());
}

#[tokio::test]
async fn a_leader_that_freezes_past_the_election_and_wakes_has_nothing_to_say() {
    let mut random = random::seeded();
    let cluster = three_nodes().await;
    let recorder = recorder(&cluster, random.random());
    for _ in 0..3 {
        recorder.progress(20).await;
        let leader = cluster.leader_of(0).await;
        cluster.nodes[leader].pause();
        let took = recorder.progress(10).await;
        eprintln!("failover took {took:?}");
        assert!(took < FAILOVER_MAX, "{took:?}");
        cluster.nodes[leader].resume();
        recorder.progress(20).await;
    }
    let history = recorder.finish().await;
    assert!(history.acked() > 150 && history.reads() > 20);
    assert_explains(&cluster.same_everywhere().await, history);
}

#[tokio::test]
async fn a_leader_whose_words_do_not_arrive_is_followed_by_another_and_nothing_is_told_twice() {
    let name =
        "failover::a_leader_whose_words_do_not_arrive_is_followed_by_another_and_nothing_is_told_twice";
    let Some(network) = in_own_network(name, 3) else { return };
    let mut random = random::seeded();
    let cluster = ClusterSpec::default().nodes(3).replicas(3).partitions(2).network(&network).start().await;
    cluster.leaders().await;
    let load = load(&cluster, random.random());
    let recorder = recorder(&cluster, random.random());
    for round in 0..3 {
        recorder.progress(20).await;
        let leader = cluster.leader_of(0).await;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        // It hears the others, and its clients hear it: one way, or with one of the others left.
        let cut: &[usize] = if round == 1 { &others[..1] } else { &others };
        cut.iter().for_each(|other| network.cut(leader, *other));
        let took = recorder.progress(10).await;
        eprintln!("round {round}: batches went on after {took:?}");
        assert!(took < FAILOVER_MAX, "{took:?}");
        load.progress(10).await;
        cut.iter().for_each(|other| network.heal(leader, *other));
        recorder.progress(20).await;
    }
    let history = recorder.finish().await;
    assert_explains(&assert_holds(&cluster, load).await, history);
}

/// Whether the node at this place refuses batches because its disk is full, or has a copy that stands still while
/// batches are acknowledged that are not in it.
async fn feels_its_full_disk(cluster: &Cluster, load: &Load, place: usize) -> bool {
    let node = &cluster.nodes[place];
    let metrics = cluster.client.get(&node.url("/metrics")).await.unwrap().expect(200);
    let refused = "storage_append_rejections_total{reason=\"disk_full\"} ";
    if metrics.text().lines().filter_map(|line| line.strip_prefix(refused)).any(|times| times != "0") {
        return true;
    }
    // What the node says of itself: the others hear of it only now and then.
    let flushed = async || {
        let told = cluster.described_by(place).await;
        let of_node = |state: &PartitionState| {
            let copy = state.replicas.iter().find(|copy| copy.node == node.name())?;
            Some((state.partition, copy.flushed))
        };
        told.partitions.iter().filter_map(of_node).collect::<BTreeMap<_, _>>()
    };
    let before = flushed().await;
    let committed = cluster.described_by((place + 1) % 3).await;
    load.progress(20).await;
    let after = flushed().await;
    committed.partitions.iter().any(|state| {
        let (before, after) = (before[&state.partition], after[&state.partition]);
        before == after && after < state.high_watermark
    })
}
