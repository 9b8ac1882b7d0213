//! Upgrades: what the version before has written is read and gone on with, node by node and under load; what a later one
//! has written is refused by name, and left as it is.
//!
//! `fixtures/before` holds the data directories of three nodes with the first form of every file: no field and no kind of
//! entry that came later (moves, drains, consumers' offsets). Two nodes were stopped, one was killed. With `cargo xtask
//! upgrade --from REV` nodes of another commit are upgraded instead.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::EnrichedRecord;
use rand::RngExt;
use tests::load::{Load, LoadSpec};
use tests::oracle::{Fate, Oracle};
use tests::programs::programs;
use tests::{Cluster, ClusterSpec, files, random};
use tokio::process::Command;
use tokio::time::timeout;

/// Names the program of the version before.
const BEFORE: &str = "EDGELOG_TEST_STORAGE_BEFORE";
/// Who sent the fixtures' records.
const SENDER_BEFORE: &str = "before";
/// How long a node may take to refuse what it finds.
const REFUSED_MAX: Duration = Duration::from_secs(30);
/// How many records each partition of the fixtures has.
const RECORDS_BEFORE: usize = 60;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/before")
}

fn spec() -> ClusterSpec {
    ClusterSpec::default().nodes(3).replicas(3).partitions(2)
}

/// Upgrades each node under load, and returns what all copies hold then.
async fn upgraded(cluster: &mut Cluster) -> BTreeMap<u16, Vec<EnrichedRecord>> {
    cluster.leaders().await;
    let urls = vec![cluster.url("/v1/logs")];
    let seed = random::seeded().random();
    let load = Load::start(&LoadSpec { urls, connections: 4, batch_records_max: 30, given_up: 0.2, seed });
    for place in 0..3 {
        load.progress(30).await;
        assert!(cluster.nodes[place].stop().await.success(), "it ends in order");
        load.progress(20).await;
        cluster.nodes[place].upgrade();
        cluster.nodes[place].start().await;
        cluster.leaders().await;
    }
    load.progress(20).await;
    let ledgers = load.finish().await;
    cluster.drain_wals().await;
    let oracle = Oracle::new(cluster.partitions(), ledgers);
    let stored = cluster.same_everywhere().await;
    let mut loaded = stored.clone();
    loaded.values_mut().for_each(|records| records.retain(|record| record.ingested_node_id != SENDER_BEFORE));
    oracle.assert_holds(&loaded);
    assert!(oracle.count(Fate::Acked) > 100);
    stored
}

#[tokio::test]
async fn nodes_are_upgraded_one_after_another_under_load_and_nothing_is_lost() {
    let Some(before) = std::env::var_os(BEFORE) else {
        // What there is of the version before is what it wrote.
        let mut cluster = spec().found_data(&fixtures()).start().await;
        let stored = upgraded(&mut cluster).await;
        for (partition, records) in stored {
            let found: Vec<&str> = records
                .iter()
                .filter(|record| record.ingested_node_id == SENDER_BEFORE)
                .map(|record| record.message.as_str())
                .collect();
            let sent: Vec<String> = (0..RECORDS_BEFORE).map(|number| format!("record {number}")).collect();
            assert_eq!(found, sent, "partition {partition}");
        }
        return;
    };
    let mut cluster = spec().other_program(Path::new(&before)).start().await;
    upgraded(&mut cluster).await;
}

/// A partition's file, and a place in it at which an entry of 128 bytes begins with its checksum.
const ENTRIES: [(&str, usize); 3] =
    [("00000000000000000000.batches", 0), ("00000000000000000000.batches", 128), ("raft", 0)];

/// Makes the entry one of a later version, or of a kind that this one does not know, with a checksum that is right.
fn of_a_later_version(path: &Path, place: usize) {
    let mut bytes = fs::read(path).unwrap();
    let entry = &mut bytes[place..place + 128];
    // The header's version, or a batch's kind.
    entry[if place == 0 { 12 } else { 4 }] = 77;
    let crc = crc32fast::hash(&entry[4..]);
    entry[..4].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

/// All files below a directory that hold what is stored, with their bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if !["lock", "reserve"].contains(&path.file_name().unwrap().to_str().unwrap()) {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn what_a_later_version_has_written_is_refused_by_name_and_left_as_it_is() {
    for (file, place) in ENTRIES {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("node-1");
        files::copy_dir(&fixtures().join("node-1"), &data);
        let path = data.join("partition-0").join(file);
        of_a_later_version(&path, place);
        let before = contents(&data);
        let mut command = Command::new(&programs().storage);
        command.args(["--listen", "127.0.0.1:0", "--partitions", "0,1", "--replicas", "3", "--data"]);
        command.arg(&data).args(["--peers", "http://127.0.0.1:1,http://127.0.0.1:2,http://127.0.0.1:3"]);
        let ended = timeout(REFUSED_MAX, command.kill_on_drop(true).output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{file} at {place} is not refused")).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{file}");
        let reason = format!("{} has a format that this version does not know", path.display());
        assert!(said.contains(&reason), "{file} at {place}: {said}");
        assert_eq!(contents(&data), before, "{file} at {place}");
    }
}
