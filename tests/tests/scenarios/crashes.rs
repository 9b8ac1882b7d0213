//! Whatever happens to a storage node, what was acknowledged is there once, in order.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use rand::RngExt;
use tests::load::{Load, LoadSpec};
use tests::oracle::{Fate, Ledger, Oracle};
use tests::records::record;
use tests::{Cluster, ClusterSpec, files, random};

/// A cluster whose ingest keeps nothing: what storage does not take, its clients repeat.
fn without_wal() -> ClusterSpec {
    ClusterSpec::default().variable("wal", "off")
}

/// Several clients that send small batches, of which some are not repeated when they fail.
fn load(cluster: &Cluster, seed: u64) -> Load {
    let urls = cluster.ingests.iter().map(|ingest| ingest.url("/v1/logs")).collect();
    Load::start(&LoadSpec { urls, connections: 4, batch_records_max: 40, given_up: 0.3, seed })
}

/// Compares what the clients know with what is stored, over HTTP and in the files.
async fn assert_holds(cluster: &Cluster, ledgers: Vec<Ledger>) -> Oracle {
    let oracle = Oracle::new(cluster.partitions(), ledgers);
    let stored = cluster.stored().await;
    oracle.assert_holds(&stored);
    assert_eq!(cluster.in_files(), stored);
    eprintln!("{} records acked, {} in doubt", oracle.count(Fate::Acked), oracle.count(Fate::InDoubt));
    oracle
}

#[tokio::test]
async fn every_acked_record_is_there_once_after_kill_9_under_load() {
    let mut random = random::seeded();
    let mut cluster = without_wal().start().await;
    let load = load(&cluster, random.random());
    for _ in 0..random::kill_rounds() {
        load.progress(random.random_range(1..60)).await;
        let victim = random.random_range(0..cluster.nodes.len());
        cluster.nodes[victim].kill();
        // By chance it is back before anybody notices, or when clients were refused already.
        load.trouble(random.random_range(0..12)).await;
        cluster.nodes[victim].start().await;
    }
    // And after the last one it goes on.
    load.progress(20).await;
    let ledgers = load.finish().await;
    assert_holds(&cluster, ledgers).await;

    // The files alone, and what a recovery makes of them, say the same.
    let stored = cluster.in_files();
    for node in &mut cluster.nodes {
        node.kill();
        node.start().await;
    }
    assert_eq!(cluster.stored().await, stored);
}

#[tokio::test]
async fn both_nodes_killed_at_once_lose_nothing_that_was_acked() {
    let mut random = random::seeded();
    let mut cluster = without_wal().start().await;
    let load = load(&cluster, random.random());
    load.progress(random.random_range(10..60)).await;
    cluster.nodes.iter_mut().for_each(tests::Node::kill);
    load.trouble(4).await;
    futures::future::join_all(cluster.nodes.iter_mut().map(tests::Node::start)).await;
    load.progress(10).await;
    let ledgers = load.finish().await;
    assert_holds(&cluster, ledgers).await;
}

#[tokio::test]
async fn a_node_that_is_asked_to_stop_under_load_ends_cleanly_and_loses_nothing() {
    let mut random = random::seeded();
    let mut cluster = without_wal().start().await;
    let load = load(&cluster, random.random());
    for victim in [0, 1] {
        load.progress(random.random_range(1..40)).await;
        let status = cluster.nodes[victim].stop().await;
        assert!(status.success(), "{status}");
        for partition in cluster.nodes[victim].partitions() {
            let dir = cluster.nodes[victim].partition_dir(*partition);
            // Of a log without records there is nothing to vouch for.
            let is_closed = files::segments(&dir).is_empty() || dir.join("closed").exists();
            assert!(is_closed, "partition {partition} was not closed cleanly");
        }
        load.trouble(2).await;
        cluster.nodes[victim].start().await;
    }
    load.progress(10).await;
    let ledgers = load.finish().await;
    assert_holds(&cluster, ledgers).await;
}

/// What a crash, or a hand, may leave at the end of a partition's last file.
const TAILS: [(&str, &[u8]); 6] = [
    ("half a record", b"{\"timestamp\":1700000000000,\"service\":\"event_creator\",\"mess"),
    ("a line that is no record", b"{\"timestamp\":1}\n"),
    ("garbage", b"\xff\xfe\x00garbage\n\n\x80"),
    ("zeros", &[0; 5_000]),
    ("a whole record that was never acked", WHOLE_RECORD.as_bytes()),
    ("a newline", b"\n"),
];
const WHOLE_RECORD: &str = "{\"timestamp\":1,\"service\":\"event_creator\",\"message\":\"torn\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}\n";

#[tokio::test]
async fn a_torn_tail_is_cut_and_appends_go_on_behind_the_acked_records() {
    let mut cluster = ClusterSpec::default().nodes(1).partitions(1).start().await;
    let mut expected = Vec::new();
    for (number, (name, tail)) in TAILS.iter().enumerate() {
        let text = format!("before {name}");
        let records = [record("event_creator", &text), record("auth_service", &text)];
        cluster.send(&records, &format!("before-{number}")).await.expect(200);
        expected.extend(records);
        // By turns after a clean stop and after none.
        if number % 2 == 0 {
            assert!(cluster.nodes[0].stop().await.success())
        } else {
            cluster.nodes[0].kill()
        }
        append(&cluster.nodes[0].partition_dir(0), "jsonl", tail);
        cluster.nodes[0].start().await;
        assert_eq!(stored(&cluster).await, expected, "after {name}, before an append");
        let text = format!("after {name}");
        let records = [record("focus_allocator", &text)];
        cluster.send(&records, &format!("after-{number}")).await.expect(200);
        expected.extend(records);
        assert_eq!(stored(&cluster).await, expected, "after {name} and an append");
        // The tail is gone from the file too: nothing but records.
        assert_eq!(cluster.in_files(), cluster.stored().await, "{name}");
        assert_eq!(files::lines(&cluster.nodes[0].partition_dir(0)).len(), expected.len());
    }
}

#[tokio::test]
async fn a_torn_batch_index_is_cut_with_its_records_kept() {
    let mut cluster = ClusterSpec::default().nodes(1).partitions(1).start().await;
    let mut expected = vec![record("event_creator", "first")];
    cluster.send(&expected, "first").await.expect(200);
    for (number, tail) in [&[0xab; 100][..], &[0; 128], &[0xff; 300]].into_iter().enumerate() {
        cluster.nodes[0].kill();
        append(&cluster.nodes[0].partition_dir(0), "batches", tail);
        cluster.nodes[0].start().await;
        assert_eq!(stored(&cluster).await, expected, "tail {number}, before an append");
        let records = [record("event_creator", &format!("after {number}"))];
        cluster.send(&records, &format!("after-{number}")).await.expect(200);
        expected.extend(records);
        assert_eq!(stored(&cluster).await, expected, "tail {number}, and an append");
        assert_eq!(cluster.in_files(), cluster.stored().await);
    }
    // What was stored before the crashes is still known: a repetition is no second copy.
    cluster.send(&expected[..1], "first").await.expect(200);
    assert_eq!(stored(&cluster).await, expected);
}

/// The records of the one partition, as their clients sent them.
async fn stored(cluster: &Cluster) -> Vec<model::Record> {
    let records = cluster.stored().await.remove(&0).unwrap();
    records.into_iter().map(model::EnrichedRecord::into_record).collect()
}

/// Appends to the last segment's file of this kind, as a torn write does.
fn append(partition_dir: &Path, extension: &str, bytes: &[u8]) {
    let segment = files::segments(partition_dir).pop().unwrap().with_extension(extension);
    assert!(fs::metadata(&segment).unwrap().is_file());
    OpenOptions::new().append(true).open(segment).unwrap().write_all(bytes).unwrap();
}
