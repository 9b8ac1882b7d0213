//! What the host counts of edgelog's ingest, and how it is shown at `/metrics` (OpenMetrics text).
//!
//! The component has no counters of its own: its instances come and go. The host sees its requests, its answers (whose
//! headers tell the counts of records) and its calls to storage, and asks it for what its edge WAL holds. Every metric
//! is in the table of docs/operations.md, which a test compares with what is shown.
//! Invariant: label sets are bounded, whatever clients send.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use model::batches::BATCHES;
use model::wire;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serde::Deserialize;

/// The paths that are counted by their name: the component's, and the host's own.
const ROUTES: [&str; 7] =
    ["/v1/logs", "/v1/query", "/v1/wal", "/v1/wal/replay", "/healthz", "/readyz", "/metrics"];

/// What a record can be rejected for.
const FIELDS: [&str; 6] = ["message", "service", "level", "timestamp", "labels", wire::REJECTED_WHOLE];

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabel, Counter>,
    request_seconds: Family<RouteLabel, Histogram, Buckets>,
    request_bytes: Counter,
    records: Family<OutcomeLabel, Counter>,
    rejections: Family<ReasonLabel, Counter>,
    rejected: Family<FieldLabel, Counter>,
    forwards: Family<StatusLabel, Counter>,
    forward_seconds: Histogram,
    forward_retries: Counter,
    ready: Gauge,
    wal: WalGauges,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    method: &'static str,
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FieldLabel {
    field: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: String,
}

/// 250 µs to 16 s, by factors of 2: from an answer without a sync to the longest that a client waits.
#[derive(Clone, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new((0..17).map(|step| 250e-6 * 2f64.powi(step)))
    }
}

#[derive(Debug, Default)]
struct WalGauges {
    readable: Gauge,
    entries: Gauge,
    records: Gauge,
    bytes: Gauge,
    bytes_max: Gauge,
    oldest_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    set_aside: Gauge,
}

/// The component's answer to `GET /v1/wal`, as far as it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct WalReport {
    entries: i64,
    records: i64,
    occupied_bytes: i64,
    bytes_max: i64,
    oldest_age_ms: u64,
    set_aside: i64,
}

impl Metrics {
    /// All counters at zero.
    pub(crate) fn new() -> Self {
        let new = Self {
            registry: telemetry::text::registry("ingest-host", env!("CARGO_PKG_VERSION")),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(Buckets),
            request_bytes: Counter::default(),
            records: Family::default(),
            rejections: Family::default(),
            rejected: Family::default(),
            forwards: Family::default(),
            forward_seconds: Buckets.new_metric(),
            forward_retries: Counter::default(),
            ready: Gauge::default(),
            wal: WalGauges::default(),
        };
        // Those that alerts and panels ask for are there from the start: what never happened is 0, not unknown.
        for outcome in ["stored", "queued", "rejected"] {
            new.records.get_or_create(&OutcomeLabel { outcome }).inc_by(0);
        }
        for field in FIELDS {
            new.rejected.get_or_create(&FieldLabel { field }).inc_by(0);
        }
        for reason in ["invalid", "unavailable"] {
            new.rejections.get_or_create(&ReasonLabel { reason }).inc_by(0);
        }
        new.registered()
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        let help = "Requests answered, by method, path and status";
        r.register("ingest_requests", help, self.requests.clone());
        let help = "Time from a request's head to its answer's head";
        r.register_with_unit("ingest_request_duration", help, Unit::Seconds, self.request_seconds.clone());
        let help = "Bytes of request bodies, as announced by their length";
        r.register_with_unit("ingest_request_body", help, Unit::Bytes, self.request_bytes.clone());
        let help = "Records by what became of them: stored, queued in the edge WAL, or rejected as invalid";
        r.register("ingest_records", help, self.records.clone());
        let help = "Requests of records that were refused whole, by reason";
        r.register("ingest_rejections", help, self.rejections.clone());
        let help = "Records rejected as invalid, by the field at fault, or record for the record as a whole";
        r.register("ingest_rejected_records", help, self.rejected.clone());
        let help = "Calls to storage, by its status (207: some batches of several were not stored), \
                    or none where there was no answer";
        r.register("ingest_forwards", help, self.forwards.clone());
        let help = "Time of a call to storage, until its answer's head or its failure";
        r.register_with_unit("ingest_forward_duration", help, Unit::Seconds, self.forward_seconds.clone());
        let help = "Calls to storage that repeat one";
        r.register("ingest_forward_retries", help, self.forward_retries.clone());
        let help = "1 when /readyz says yes; as it was asked last";
        r.register("ingest_ready", help, self.ready.clone());
        self.wal.register(r);
        self
    }

    /// All metrics as OpenMetrics text, with the edge WAL as the component tells it; `None` where it does not.
    pub(crate) fn encode(&self, wal: Option<WalReport>) -> String {
        self.wal.set(wal);
        telemetry::text::encode(&self.registry)
    }

    /// Notes whether the host is ready.
    pub(crate) fn note_ready(&self, is_ready: bool) {
        self.ready.set(is_ready.into());
    }

    /// Counts a request and its answer.
    pub(crate) fn note_request(&self, request: &RequestNote, status: u16, answer: &HeaderMap) {
        let RequestNote { method, route, body_bytes, time } = *request;
        self.requests.get_or_create(&RequestLabel { method, route, status }).inc();
        self.request_seconds.get_or_create(&RouteLabel { method, route }).observe(time.as_secs_f64());
        if (method, route) != ("POST", "/v1/logs") {
            return;
        }
        self.request_bytes.inc_by(body_bytes);
        let count = |name: &str| -> u64 {
            answer.get(name).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default()
        };
        let (received, queued) = (count("received"), count("queued"));
        for (outcome, count) in
            [("stored", received.saturating_sub(queued)), ("queued", queued), ("rejected", count("rejected"))]
        {
            self.records.get_or_create(&OutcomeLabel { outcome }).inc_by(count);
        }
        let fields = answer.get(wire::REJECTED_FIELDS).and_then(|value| value.to_str().ok());
        for (field, count) in fields.into_iter().flat_map(by_field) {
            self.rejected.get_or_create(&FieldLabel { field }).inc_by(count);
        }
        if let Some(reason) = rejection(status) {
            self.rejections.get_or_create(&ReasonLabel { reason }).inc();
        }
    }

    /// Counts a call to storage; `status` is `None` where there was no answer.
    pub(crate) fn note_forward(&self, forward: Forward, status: Option<u16>, time: Duration) {
        let status = status.map_or("none".to_owned(), |status| status.to_string());
        self.forwards.get_or_create(&StatusLabel { status }).inc();
        self.forward_seconds.observe(time.as_secs_f64());
        if forward.is_retry {
            self.forward_retries.inc();
        }
    }
}

/// The counts of [`wire::REJECTED_FIELDS`], of the fields that there are.
fn by_field(counts: &str) -> impl Iterator<Item = (&'static str, u64)> {
    counts.split(',').filter_map(|count| {
        let (name, count) = count.trim().split_once('=')?;
        Some((FIELDS.into_iter().find(|field| *field == name)?, count.parse().ok()?))
    })
}

/// A call that brings records to storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forward {
    is_retry: bool,
}

impl Forward {
    /// The call with this head; `None` for a read or a search.
    pub(crate) fn of(head: &HeaderMap) -> Option<Self> {
        let has_several = head.get(CONTENT_TYPE).is_some_and(|value| value == BATCHES);
        let is_append = has_several || head.contains_key(wire::BATCH_ID);
        is_append.then(|| Self { is_retry: head.contains_key(wire::BATCH_ATTEMPT) })
    }
}

/// What is counted of a request, but for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestNote {
    method: &'static str,
    route: &'static str,
    body_bytes: u64,
    time: Duration,
}

impl RequestNote {
    /// The note of a request that took so long.
    pub(crate) fn new(method: &Method, path: &str, body_bytes: u64, time: Duration) -> Self {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            _ => "other",
        };
        let route = ROUTES.into_iter().find(|route| *route == path).unwrap_or("none");
        Self { method, route, body_bytes, time }
    }
}

/// Why a request of records was refused; `None` when it was not.
fn rejection(status: u16) -> Option<&'static str> {
    Some(match status {
        200..=299 => return None,
        400 => "invalid",
        405 => "method",
        408 => "timeout",
        409 => "conflict",
        413 => "too_large",
        415 => "unsupported",
        502 => "storage_refused",
        503 => "unavailable",
        504 => "timeout",
        _ => "failed",
    })
}

impl WalGauges {
    fn register(&self, r: &mut Registry) {
        let bytes = Unit::Bytes;
        let help = "1 when the edge WAL could be looked at just now; the other figures are its last ones";
        r.register("ingest_wal_readable", help, self.readable.clone());
        let help = "Batches that wait in the edge WAL";
        r.register("ingest_wal_entries", help, self.entries.clone());
        let help = "Records that wait in the edge WAL";
        r.register("ingest_wal_records", help, self.records.clone());
        let help = "Bytes that the edge WAL occupies, of what waits and what was set aside";
        r.register_with_unit("ingest_wal", help, bytes.clone(), self.bytes.clone());
        let help = "Bytes that it may occupy; 0 where it is off";
        r.register_with_unit("ingest_wal_max", help, bytes, self.bytes_max.clone());
        let help = "Age of the oldest batch that waits in the edge WAL";
        r.register_with_unit("ingest_wal_oldest_age", help, Unit::Seconds, self.oldest_age.clone());
        let help = "Batches of the edge WAL that can never be stored, and were set aside";
        r.register("ingest_wal_set_aside", help, self.set_aside.clone());
    }

    fn set(&self, report: Option<WalReport>) {
        self.readable.set(report.is_some().into());
        let Some(report) = report else { return };
        self.entries.set(report.entries);
        self.records.set(report.records);
        self.bytes.set(report.occupied_bytes);
        self.bytes_max.set(report.bytes_max);
        self.oldest_age.set(Duration::from_millis(report.oldest_age_ms).as_secs_f64());
        self.set_aside.set(report.set_aside);
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
