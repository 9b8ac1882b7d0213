//! The live tail: all that is acknowledged, once, whatever happens to a node or to the reader.

use std::collections::BTreeMap;
use std::time::Duration;

use model::EnrichedRecord;
use model::wire::STALENESS;
use tests::records::{SERVICES, record};
use tests::tail::{Tail, Told};
use tests::{Cluster, ClusterSpec};
use tokio::time::timeout;

const ROUNDS: usize = 40;
const ROUND_RECORDS: usize = 25;
/// How long a node that is back may take until its records are told.
const TOLD_MAX: Duration = Duration::from_secs(30);

async fn send(cluster: &Cluster, round: usize) {
    let make =
        |number: usize| record(SERVICES[number % SERVICES.len()], &format!("round {round}, record {number}"));
    let batch: Vec<_> = (0..ROUND_RECORDS).map(make).collect();
    let answer = cluster.send(&batch, &format!("round-{round}")).await;
    assert!(matches!(answer.status, 200 | 202), "{} {}", answer.status, answer.text());
}

/// Reads until so many records were told in all, and notes each at its place.
async fn read(tail: &mut Tail, told: &mut BTreeMap<u16, Vec<(u64, EnrichedRecord)>>, count: usize) {
    while told.values().map(Vec::len).sum::<usize>() < count {
        match timeout(TOLD_MAX, tail.next()).await.expect("more is told").expect("the tail goes on") {
            Told::Record(partition, offset, record) => {
                told.entry(partition).or_default().push((offset, *record));
            }
            Told::Other(name, data) => assert!(matches!(name.as_str(), "begin" | "partial"), "{name} {data}"),
        }
    }
}

#[tokio::test]
async fn a_tail_tells_all_that_is_acknowledged_once_though_a_node_dies_and_the_reader_comes_back() {
    let mut cluster = ClusterSpec::default().peers().start().await;
    let mut tail = Tail::open(&cluster.client, &cluster.nodes[0].url("/v1/tail?last=0"), "").await;
    let mut told = BTreeMap::new();
    for round in 0..ROUNDS / 2 {
        send(&cluster, round).await;
    }
    // A reader that leaves in the middle, and goes on at the other node.
    read(&mut tail, &mut told, ROUND_RECORDS).await;
    let id = tail.last_id().to_owned();
    drop(tail);
    let mut tail = Tail::open(&cluster.client, &cluster.nodes[1].url("/v1/tail"), &id).await;
    read(&mut tail, &mut told, ROUNDS / 4 * ROUND_RECORDS).await;
    let id = tail.last_id().to_owned();
    let mut tail = Tail::open(&cluster.client, &cluster.nodes[0].url("/v1/tail"), &id).await;
    // Its own tail of the other node breaks off, and goes on.
    cluster.nodes[1].kill();
    for round in ROUNDS / 2..ROUNDS {
        send(&cluster, round).await;
    }
    cluster.nodes[1].start().await;
    cluster.drain_wals().await;
    read(&mut tail, &mut told, ROUNDS * ROUND_RECORDS).await;
    let stored: BTreeMap<u16, Vec<(u64, EnrichedRecord)>> = cluster
        .stored()
        .await
        .into_iter()
        .map(|(partition, records)| (partition, (0..).zip(records).collect()))
        .collect();
    assert_eq!(told, stored);

    // It does not hold up a node that is told to stop.
    assert!(timeout(TOLD_MAX, cluster.nodes[0].stop()).await.unwrap().success());
    while timeout(TOLD_MAX, tail.next()).await.unwrap().is_some() {}
}

/// The next event that is no record; records that come meanwhile are passed over.
async fn told(tail: &mut Tail) -> (String, serde_json::Value) {
    loop {
        match timeout(TOLD_MAX, tail.next()).await.expect("more is told").expect("the tail goes on") {
            Told::Record(..) => {}
            Told::Other(name, data) => return (name, data),
        }
    }
}

#[tokio::test]
async fn a_tail_says_how_old_what_it_tells_may_be_and_when_a_replica_loses_touch_and_is_back() {
    let mut cluster = ClusterSpec::default().nodes(3).replicas(3).partitions(2).start().await;
    cluster.leaders().await;
    let url = cluster.nodes[0].url("/v1/tail?last=0");
    let mut tail = Tail::open(&cluster.client, &url, "").await;
    let age: u64 = tail.header(STALENESS).parse().unwrap();
    assert!(age < 2_000, "it is in touch: {age}");
    assert_eq!(told(&mut tail).await.0, "begin");
    send(&cluster, 0).await;
    // It is the only one left, be it leader or follower of this or that partition.
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let (name, data) = told(&mut tail).await;
    assert_eq!(name, "stale");
    let age: u64 = data["staleness"].as_str().unwrap().parse().unwrap();
    assert!(age > 2_000, "as long as two election timeouts: {age}");
    // Whoever comes now is told at once, and in the header.
    let mut later = Tail::open(&cluster.client, &url, "").await;
    assert!(later.header(STALENESS).parse::<u64>().unwrap() >= age);
    assert_eq!((told(&mut later).await.0, told(&mut later).await.0), ("begin".into(), "stale".into()));
    for place in [1, 2] {
        cluster.nodes[place].start_serving().await;
    }
    for tail in [&mut tail, &mut later] {
        assert_eq!(told(tail).await, ("stale".to_owned(), serde_json::json!({ "staleness": null })));
    }
    cluster.drain_wals().await;
    send(&cluster, 1).await;
    let mut records = BTreeMap::new();
    read(&mut later, &mut records, ROUND_RECORDS).await;
}
