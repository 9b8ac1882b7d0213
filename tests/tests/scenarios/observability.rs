//! What an operator sees: metrics that agree with what was sent, and log lines that can be found by their trace.

use std::time::Duration;

use serde_json::Value;
use tests::client::answer;
use tests::records::RecordSource;
use tests::{Cluster, ClusterSpec, eventually};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SOON: Duration = Duration::from_secs(10);

/// The sum of a metric's samples whose labels contain this text.
async fn metric(cluster: &Cluster, url: &str, name: &str, labels: &str) -> f64 {
    let text = cluster.client.get(url).await.unwrap().expect(200);
    assert!(text.header("content-type").starts_with("application/openmetrics-text"));
    let samples = text.text().lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let (own_name, own_labels) = sample.split_once('{').unwrap_or((sample, ""));
        (own_name == name && own_labels.contains(labels)).then(|| value.parse::<f64>().unwrap())
    });
    samples.sum()
}

#[tokio::test]
async fn the_metrics_of_ingest_and_storage_agree_with_what_was_sent() {
    let mut cluster = ClusterSpec::default().start().await;
    let records = RecordSource::new(1, 7).batch(200);
    cluster.send(&records, "counted").await.expect(200);
    let url = cluster.url("/v1/logs");
    let half_bad = r#"[{"service":"s"},{"message":"m"}]"#;
    cluster.client.post_json(&url, half_bad).await.unwrap().expect(200);
    cluster.client.post_json(&url, "[").await.unwrap().expect(400);

    let ingest = cluster.url("/metrics");
    let stored = 201.0;
    assert_eq!(metric(&cluster, &ingest, "ingest_records_total", "\"stored\"").await, stored);
    assert_eq!(metric(&cluster, &ingest, "ingest_records_total", "\"rejected\"").await, 1.0);
    assert_eq!(metric(&cluster, &ingest, "ingest_rejections_total", "\"invalid\"").await, 1.0);
    let post = "method=\"POST\",route=\"/v1/logs\",status=\"200\"";
    assert_eq!(metric(&cluster, &ingest, "ingest_requests_total", post).await, 2.0);
    let (mut delivered, mut appended, mut forwards) = (0.0, 0.0, 0.0);
    for node in &cluster.nodes {
        let url = node.url("/metrics");
        delivered += metric(&cluster, &url, "ingest_delivered_records_total", "\"ingest-1\"").await;
        appended += metric(&cluster, &url, "storage_records_total", "").await;
        for route in ["/v1/storage", "/v1/storage/batches"] {
            let of_route = format!("route=\"{route}\",status=\"200\"");
            forwards += metric(&cluster, &url, "storage_requests_total", &of_route).await;
        }
        assert!(metric(&cluster, &url, "storage_filesystem_free_bytes", "").await > 0.0);
    }
    assert_eq!((delivered, appended), (stored, stored));
    assert_eq!(metric(&cluster, &ingest, "ingest_forwards_total", "\"200\"").await, forwards);

    // A node is away: what it does not take is seen waiting.
    cluster.nodes[0].kill();
    let records = RecordSource::new(2, 7).batch(200);
    let queued: Value = cluster.send(&records, "queued").await.expect(202).json();
    assert_eq!(
        metric(&cluster, &ingest, "ingest_records_total", "\"queued\"").await,
        queued["queued"].as_f64().unwrap()
    );
    assert!(metric(&cluster, &ingest, "ingest_wal_entries", "").await >= 1.0);
    assert_eq!(metric(&cluster, &ingest, "ingest_wal_records", "").await, queued["queued"].as_f64().unwrap());
    assert!(metric(&cluster, &ingest, "ingest_forwards_total", "\"none\"").await >= 1.0);
}

#[tokio::test]
async fn one_trace_is_found_in_the_log_lines_of_ingest_and_storage_which_tell_no_record() {
    let spec = ClusterSpec::default().ingest_flag(&["--log-format", "json"]);
    let cluster = spec.node_flag("--log-format", "json").start().await;
    let secret = "correct-horse-battery-staple";
    let body = format!(r#"[{{"service":"s","message":"{secret}"}}]"#);
    let request = cluster.client.post(&cluster.url("/v1/logs")).header("content-type", "application/json");
    let request = request.header("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01"));
    answer(request.header("authorization", secret).body(body)).await.unwrap().expect(200);
    cluster.client.get(&cluster.url(&format!("/v1/logs?contains={secret}"))).await.unwrap().expect(200);

    let node = &cluster.nodes[cluster.holder_of_service("s")];
    let of_trace = |log: String| -> Option<Value> {
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
        lines.into_iter().find(|line| line["trace_id"] == TRACE_ID)
    };
    let ingest =
        eventually("the ingest logs it", SOON, async || of_trace(cluster.ingests[0].log().text())).await;
    assert_eq!((&ingest["path"], &ingest["status"]), (&"/v1/logs".into(), &200.into()), "{ingest}");
    let storage = eventually("storage logs it", SOON, async || of_trace(node.log().text())).await;
    assert_eq!((&storage["route"], &storage["status"]), (&"/v1/storage".into(), &200.into()), "{storage}");
    for log in [cluster.ingests[0].log(), node.log()] {
        assert!(!log.text().contains(secret), "{}", log.text());
    }
}

#[tokio::test]
async fn a_request_without_a_trace_gets_one_that_both_processes_log() {
    let spec = ClusterSpec::default().ingest_flag(&["--log-format", "json", "--log", "debug"]);
    let cluster =
        spec.node_flag("--log-format", "json").node_flag("--log", "storage::http=debug").start().await;
    cluster.send(&RecordSource::new(1, 7).batch(1), "k").await.expect(200);
    let ids = |log: String, route: &str| -> Vec<String> {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_route = lines.filter(|line| line["route"] == route || line["path"] == route);
        of_route.filter_map(|line| line["trace_id"].as_str().map(str::to_owned)).collect()
    };
    eventually("a trace is in both logs", SOON, async || {
        let at_ingest = ids(cluster.ingests[0].log().text(), "/v1/logs");
        let at_storage =
            cluster.nodes.iter().flat_map(|node| ids(node.log().text(), "/v1/storage")).collect::<Vec<_>>();
        (at_ingest.len() == 1 && at_storage == at_ingest).then_some(())
    })
    .await;
}

#[tokio::test]
async fn readiness_says_no_when_the_component_cannot_work() {
    let cluster = ClusterSpec::default().variable("partitions", "none").start_serving().await;
    let answer = cluster.client.get(&cluster.url("/readyz")).await.unwrap().expect(503);
    assert!(answer.problem().detail.contains("partitions"), "{}", answer.text());
    assert_eq!(metric(&cluster, &cluster.url("/metrics"), "ingest_ready", "").await, 0.0);

    let cluster = ClusterSpec::default().start().await;
    cluster.client.get(&cluster.url("/readyz")).await.unwrap().expect(200);
    assert_eq!(metric(&cluster, &cluster.url("/metrics"), "ingest_ready", "").await, 1.0);
    cluster.client.post_json(&cluster.url("/metrics"), "").await.unwrap().expect(405);
}
