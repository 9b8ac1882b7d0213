use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use model::batches::BATCHES;

use super::{Forward, Metrics, RequestNote, WalReport};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    pairs.iter().map(pair).collect()
}

/// Metrics of a host that has done everything once.
fn busy() -> Metrics {
    let metrics = Metrics::new();
    let note = RequestNote::new(&Method::POST, "/v1/logs", 700, Duration::from_millis(3));
    let fields = ("rejected-fields", "message=2, record=1, passwd=7");
    let counts = [("received", "5"), ("queued", "2"), ("rejected", "3"), fields];
    metrics.note_request(&note, 202, &headers(&counts));
    metrics.note_request(&note, 413, &HeaderMap::new());
    let strange = RequestNote::new(&Method::TRACE, "/etc/passwd", 0, Duration::ZERO);
    metrics.note_request(&strange, 404, &HeaderMap::new());
    let append = headers(&[("batch-id", "x"), ("batch-attempt", "2")]);
    let append = Forward::of(&append).unwrap();
    metrics.note_forward(append, Some(200), Duration::from_millis(1));
    metrics.note_forward(append, None, Duration::from_secs(3));
    assert!(Forward::of(&headers(&[("content-type", BATCHES)])).is_some(), "of several batches");
    assert!(Forward::of(&HeaderMap::new()).is_none(), "a read is no forward");
    metrics
}

fn report() -> WalReport {
    let json = r#"{"entries":2,"records":7,"bytes":10,"occupied_bytes":12,"bytes_max":99,"oldest_age_ms":1500,"set_aside":1,"wal":"on"}"#;
    serde_json::from_str(json).unwrap()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_shown() {
    let operations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let table = telemetry::reference::table(&busy().encode(Some(report())));
    telemetry::reference::check_section(&operations, "metrics-ingest-host", &table).unwrap();
}

#[test]
fn what_happened_is_shown() {
    let metrics = busy();
    let text = metrics.encode(Some(report()));
    for line in [
        r#"ingest_requests_total{method="POST",route="/v1/logs",status="202"} 1"#,
        r#"ingest_requests_total{method="other",route="none",status="404"} 1"#,
        r#"ingest_records_total{outcome="stored"} 3"#,
        r#"ingest_records_total{outcome="queued"} 2"#,
        r#"ingest_records_total{outcome="rejected"} 3"#,
        r#"ingest_rejected_records_total{field="message"} 2"#,
        r#"ingest_rejected_records_total{field="record"} 1"#,
        r#"ingest_rejected_records_total{field="level"} 0"#,
        r#"ingest_rejections_total{reason="too_large"} 1"#,
        "ingest_request_body_bytes_total 1400",
        r#"ingest_forwards_total{status="200"} 1"#,
        r#"ingest_forwards_total{status="none"} 1"#,
        "ingest_forward_duration_seconds_count 2",
        "ingest_forward_retries_total 2",
        "ingest_wal_readable 1",
        "ingest_wal_entries 2",
        "ingest_wal_bytes 12",
        "ingest_wal_oldest_age_seconds 1.5",
        "ingest_wal_set_aside 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }
    let unreadable = metrics.encode(None);
    assert!(unreadable.contains("ingest_wal_readable 0\n") && unreadable.contains("ingest_wal_entries 2\n"));
}
