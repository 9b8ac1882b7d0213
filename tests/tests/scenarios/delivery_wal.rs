//! The edge WAL is bounded, survives its process, and may be replayed by anybody at any time.

use futures::future::join_all;
use rand::RngExt;
use serde_json::Value;
use tests::client::answer;
use tests::load::{Load, LoadSpec};
use tests::oracle::{Fate, Ledger, Oracle};
use tests::records::RecordSource;
use tests::{Cluster, ClusterSpec, Node, random};

/// How often the ingest is killed at least: by turns with and without a node, and each of these a few times.
const KILL_ROUNDS_MIN: usize = 8;

async fn assert_holds(cluster: &Cluster, ledgers: Vec<Ledger>) {
    let oracle = Oracle::new(cluster.partitions(), ledgers);
    let stored = cluster.stored().await;
    oracle.assert_holds(&stored);
    assert_eq!(cluster.in_files(), stored);
    eprintln!("{} records acked, {} in doubt", oracle.count(Fate::Acked), oracle.count(Fate::InDoubt));
}

/// Sends batches of 10 records until one is refused for want of room, or `batches_max` are taken.
async fn fill(
    cluster: &Cluster,
    source: &mut RecordSource,
    ledger: &mut Ledger,
    batches_max: usize,
) -> usize {
    for taken in 0..batches_max {
        let records = source.batch(10);
        let answer = cluster.send(&records, &format!("fill-{taken}")).await;
        if answer.status == 503 {
            let retry_after: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=60).contains(&retry_after));
            assert!(answer.problem().detail.contains("the edge WAL is full"), "{}", answer.text());
            ledger.note(records, Fate::InDoubt);
            return taken;
        }
        assert_eq!((answer.status, answer.header("durability")), (202, "edge"));
        ledger.note(records, Fate::Acked);
    }
    batches_max
}

#[tokio::test]
async fn a_full_wal_refuses_and_takes_again_when_it_has_drained() {
    let mut cluster = ClusterSpec::default().variable("wal_entries_max", "20").start().await;
    cluster.nodes.iter_mut().for_each(Node::kill);
    let (mut source, mut ledger) = (RecordSource::new(0, 5), Ledger::default());
    let taken = fill(&cluster, &mut source, &mut ledger, 100).await;
    assert!((5..=20).contains(&taken), "{taken} requests of up to four batches fill 20 places");
    let wal = cluster.wal(0).await;
    assert!(wal["entries"].as_u64().unwrap() <= 20, "{wal}");
    join_all(cluster.nodes.iter_mut().map(Node::start)).await;
    cluster.drain_wals().await;
    let records = source.batch(10);
    cluster.send(&records, "after").await.expect(200);
    ledger.note(records, Fate::Acked);
    assert_holds(&cluster, vec![ledger]).await;
}

#[tokio::test]
async fn a_full_wal_survives_its_host_and_is_replayed_by_its_successor() {
    let mut cluster = ClusterSpec::default().variable("wal_bytes_max", "60000").start().await;
    cluster.nodes.iter_mut().for_each(Node::kill);
    let (mut source, mut ledger) = (RecordSource::new(0, 6), Ledger::default());
    assert!(fill(&cluster, &mut source, &mut ledger, 200).await < 200);
    let before = cluster.wal(0).await;
    assert!(before["occupied_bytes"].as_u64().unwrap() <= 60_000, "{before}");
    cluster.ingests[0].kill();
    cluster.ingests[0].start().await;
    let after = cluster.wal(0).await;
    for field in ["entries", "bytes", "records", "occupied_bytes", "last_error"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    join_all(cluster.nodes.iter_mut().map(Node::start)).await;
    cluster.drain_wals().await;
    assert_holds(&cluster, vec![ledger]).await;
}

#[tokio::test]
async fn an_ingest_killed_at_any_moment_loses_nothing_and_doubles_nothing() {
    let mut random = random::seeded();
    let rounds = random::kill_rounds().max(KILL_ROUNDS_MIN);
    let mut cluster = ClusterSpec::default().start().await;
    let urls = vec![cluster.url("/v1/logs")];
    let spec = LoadSpec { urls, connections: 4, batch_records_max: 30, given_up: 0.3, seed: random.random() };
    let load = Load::start(&spec);
    for round in 0..rounds {
        // By turns while batches are written to the WAL, and while they are taken out of it.
        if round % 2 == 0 {
            cluster.nodes[1].kill();
        } else {
            cluster.nodes[1].start().await;
        }
        load.progress(random.random_range(1..25)).await;
        cluster.ingests[0].kill();
        cluster.ingests[0].start().await;
    }
    if rounds % 2 == 1 {
        cluster.nodes[1].start().await;
    }
    load.progress(10).await;
    let ledgers = load.finish().await;
    cluster.drain_wals().await;
    assert_holds(&cluster, ledgers).await;
}

#[tokio::test]
async fn replays_at_once_and_live_requests_do_each_others_work_and_not_more() {
    let mut cluster = ClusterSpec::default().start().await;
    cluster.nodes.iter_mut().for_each(Node::kill);
    let (mut source, mut ledger) = (RecordSource::new(0, 7), Ledger::default());
    fill(&cluster, &mut source, &mut ledger, 60).await;
    join_all(cluster.nodes.iter_mut().map(Node::start)).await;
    let replay = || async { answer(cluster.client.post(&cluster.url("/v1/wal/replay"))).await.unwrap() };
    let live = async {
        for number in 0..10 {
            let records = source.batch(10);
            let answer = cluster.send(&records, &format!("live-{number}")).await;
            assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
            ledger.note(records, Fate::Acked);
        }
    };
    let (replays, ()) = futures::join!(join_all((0..4).map(|_| replay())), live);
    for replay in replays {
        let told: Value = replay.expect(200).json();
        assert!(told["replayed"]["entries"].is_u64() && told["replayed"]["error"].is_null(), "{told}");
    }
    cluster.drain_wals().await;
    assert_holds(&cluster, vec![ledger]).await;
}

#[tokio::test]
async fn without_a_wal_there_is_nothing_to_tell_and_nothing_to_replay() {
    let cluster = ClusterSpec::default().variable("wal", "off").start().await;
    assert_eq!(cluster.wal(0).await["wal"], "off");
    let told = answer(cluster.client.post(&cluster.url("/v1/wal/replay"))).await.unwrap().expect(200);
    assert_eq!(told.json::<Value>()["wal"], "off");
    let answer = cluster.client.get(&cluster.url("/v1/wal/replay")).await.unwrap().expect(405);
    assert_eq!(answer.header("allow"), "POST");
}
