//! The load generator against the real thing: it says that all is well when it is, and only then.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use model::wire;
use serde_json::Value;
use tests::client::answer;
use tests::programs::programs;
use tests::{Cluster, ClusterSpec, eventually, files};

/// How long until the first records of a run are in a file.
const FIRST_RECORD_MAX: Duration = Duration::from_secs(10);

fn start(cluster: &Cluster, flags: &[&str]) -> Child {
    let storage: Vec<String> = cluster.nodes.iter().map(|node| node.url("")).collect();
    Command::new(&programs().loadgen)
        .args(["--url", &cluster.url("/v1/logs"), "--storage", &storage.join(","), "--json", "--verify"])
        .args(["--settle-ms", "1000", "--seed", "1"])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the end of a run without keeping the test's other tasks from theirs.
async fn end(child: Child) -> (Option<i32>, Value) {
    let ended: Output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    eprintln!("{text}");
    (
        ended.status.code(),
        serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {text}")),
    )
}

/// The first partition's file that holds a record, as soon as there is one.
async fn first_record(cluster: &Cluster) -> PathBuf {
    let has_record = |dir: PathBuf| {
        files::segments(&dir).into_iter().find(|path| fs::read(path).unwrap().contains(&b'\n'))
    };
    let look = async || {
        let dirs =
            cluster.nodes.iter().flat_map(|node| node.partitions().iter().map(|p| node.partition_dir(*p)));
        dirs.into_iter().find_map(has_record)
    };
    eventually("a record is in a file", FIRST_RECORD_MAX, look).await
}

#[tokio::test]
async fn a_run_is_verified_end_to_end() {
    let cluster = ClusterSpec::default().start().await;
    for flags in [
        &["--total", "1000", "--batch", "50", "--delay", "0"][..],
        &[
            "--total",
            "3000",
            "--batch",
            "100",
            "--delay",
            "0",
            "--connections",
            "4",
            "--profile",
            "rich",
            "--ndjson",
        ],
        &["--total", "999", "--batch", "100", "--delay", "0", "--connections", "2", "--minimal"],
    ] {
        let (code, report) = end(start(&cluster, flags)).await;
        assert_eq!((code, &report["ok"]), (Some(0), &Value::Bool(true)), "{flags:?}: {report}");
        let total: u64 = flags[1].parse().unwrap();
        assert_eq!(report["records"]["acked"], total, "{report}");
        assert_eq!(report["verify"]["acked"], total, "{report}");
    }
    assert_eq!(cluster.stored_count().await, 1000 + 3000 + 999);
}

#[tokio::test]
async fn a_stored_record_that_was_tampered_with_is_found() {
    let cluster = ClusterSpec::default().start().await;
    // Long enough to be caught in the act: more than a second of pauses.
    let run = start(&cluster, &["--total", "600", "--batch", "10", "--delay", "20"]);
    let path = first_record(&cluster).await;
    let message = fs::read_to_string(&path).unwrap().find("\"message\":\"").unwrap() + "\"message\":\"".len();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(message as u64)).unwrap();
    file.write_all(b"#").unwrap();
    let (code, report) = end(run).await;
    assert_eq!((code, &report["ok"]), (Some(1), &Value::Bool(false)), "{report}");
    assert!(report["verify"]["missing"].as_u64().is_some_and(|missing| missing > 0), "{report}");
}

#[tokio::test]
async fn a_record_that_is_stored_twice_is_found() {
    let cluster = ClusterSpec::default().nodes(1).partitions(1).start().await;
    let run = start(&cluster, &["--total", "600", "--batch", "10", "--delay", "20"]);
    let path = first_record(&cluster).await;
    let text = fs::read_to_string(&path).unwrap();
    let line = text.split_inclusive('\n').next().unwrap().to_owned();
    let request = cluster.client.post(&cluster.nodes[0].url("/v1/storage?partition=0"));
    answer(request.header("content-type", wire::NDJSON).body(line)).await.unwrap().expect(200);
    let (code, report) = end(run).await;
    assert_eq!((code, &report["ok"]), (Some(1), &Value::Bool(false)), "{report}");
    assert_eq!(report["verify"]["doubled"], 1, "{report}");
}

#[tokio::test]
async fn a_node_killed_during_a_run_costs_nothing_that_was_acked() {
    // At its end the generator looks for all records at once: none may be on its way.
    let mut cluster = ClusterSpec::default().variable("wal", "off").start().await;
    let run = start(&cluster, &["--total", "5000", "--batch", "50", "--delay", "5", "--connections", "2"]);
    first_record(&cluster).await;
    cluster.nodes[0].kill();
    cluster.nodes[0].start().await;
    let (code, report) = end(run).await;
    assert_eq!((code, &report["records"]["acked"]), (Some(0), &Value::from(5000)), "{report}");
}
