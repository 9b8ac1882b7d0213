use std::path::Path;
use std::time::Duration;

use super::*;
use crate::limits;
use crate::query::Stats;

fn partitions() -> [Partition; 2] {
    [0, 1].map(Partition::new)
}

/// Metrics of a node that has done everything once.
fn busy() -> (Metrics, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let metrics = Metrics::of_node(data.path(), &partitions());
    let counted = metrics.of_partition(Partition::new(0));
    counted.note_stored(3);
    counted.note_round(1, 300);
    counted.note_sync(Duration::from_micros(300));
    metrics.note_rejection("queue_full");
    metrics.note_query("whole");
    metrics.ingest.note_taken(Some("ingest-1"), 3, 300);
    metrics.ingest.note_retry(Some("ingest-1"));
    metrics.requests.note("/v1/storage", 200, Duration::from_millis(1));
    metrics.requests.note_stats(&Stats { scanned_bytes: 7, skipped_bytes: 70, ..Stats::default() });
    (metrics, data)
}

fn text(metrics: &Metrics) -> String {
    let reading = PartitionReading { queue_bytes: 5, ..PartitionReading::default() };
    metrics.encode(partitions().into_iter().map(|partition| (partition, reading)), 2)
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_shown() {
    let (metrics, _data) = busy();
    let operations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let table = telemetry::reference::table(&text(&metrics));
    telemetry::reference::check_section(&operations, "metrics-storage", &table).unwrap();
}

#[test]
fn what_happened_is_shown() {
    let (metrics, _data) = busy();
    let text = text(&metrics);
    for line in [
        "storage_records_total{partition=\"0\"} 3",
        "storage_stored_bytes_total{partition=\"0\"} 300",
        "storage_queue_bytes{partition=\"1\"} 5",
        "storage_append_rejections_total{reason=\"queue_full\"} 1",
        "ingest_delivered_records_total{ingest_node=\"ingest-1\"} 3",
        "ingest_delivered_retries_total{ingest_node=\"ingest-1\"} 1",
        "storage_requests_total{route=\"/v1/storage\",status=\"200\"} 1",
        "storage_request_duration_seconds_count{route=\"/v1/storage\"} 1",
        "storage_query_skipped_bytes_total 70",
        "storage_tails 2",
        "storage_index_bytes{partition=\"1\"} 0",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }
    assert!(text.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{text}");
    let free = text.lines().find_map(|line| line.strip_prefix("storage_filesystem_free_bytes ")).unwrap();
    assert!(free.parse::<f64>().unwrap() > 0.0);
}

#[test]
fn ingest_nodes_beyond_the_bound_share_a_name_and_so_do_names_that_are_none() {
    let (metrics, _data) = busy();
    for number in 0..limits::INGEST_NODES_COUNTED_MAX * 2 {
        metrics.ingest.note_taken(Some(&format!("node-{number}")), 1, 1);
    }
    for bad in ["", "a b", "a\"b", &"x".repeat(1000)] {
        metrics.ingest.note_taken(Some(bad), 1, 1);
    }
    metrics.ingest.note_taken(None, 1, 1);
    let text = text(&metrics);
    let shown = text.lines().filter(|line| line.starts_with("ingest_delivered_batches_total{")).count();
    assert!(
        (limits::INGEST_NODES_COUNTED_MAX..=limits::INGEST_NODES_COUNTED_MAX + 2).contains(&shown),
        "{shown}"
    );
    let others = limits::INGEST_NODES_COUNTED_MAX + 1 + 4;
    assert!(
        text.contains(&format!("ingest_delivered_batches_total{{ingest_node=\"other\"}} {others}\n")),
        "{text}"
    );
    assert!(text.contains("ingest_delivered_batches_total{ingest_node=\"unknown\"} 1\n"));
}
