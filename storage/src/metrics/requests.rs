//! Requests by route and status, how long their answers took, and what queries read.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::query::Stats;

/// The counters of requests.
#[derive(Debug)]
pub struct Requests {
    requests: Family<RequestLabel, Counter>,
    seconds: Family<RouteLabel, Histogram, Buckets>,
    scanned_bytes: Counter,
    skipped_bytes: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

/// 100 µs to 13 s, by factors of 2: a query by its index, up to one that its budget ends.
#[derive(Clone, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new((0..18).map(|step| 100e-6 * 2f64.powi(step)))
    }
}

impl Requests {
    pub(super) fn registered(r: &mut Registry) -> Self {
        let requests = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(Buckets),
            scanned_bytes: Counter::default(),
            skipped_bytes: Counter::default(),
        };
        let help = "Requests answered, by route and status";
        r.register("storage_requests", help, requests.requests.clone());
        let help = "Time from a request's head to its answer's head; of a query: all of its work";
        r.register_with_unit("storage_request_duration", help, Unit::Seconds, requests.seconds.clone());
        let help = "Bytes of records that queries answered here read, other nodes' parts of them included";
        let counter = requests.scanned_bytes.clone();
        r.register_with_unit("storage_query_scanned", help, Unit::Bytes, counter);
        let help = "Bytes of records that these could pass over";
        let counter = requests.skipped_bytes.clone();
        r.register_with_unit("storage_query_skipped", help, Unit::Bytes, counter);
        requests
    }

    /// Counts a request. `route` is one of the router's patterns, or a name for all that match none.
    pub fn note(&self, route: &str, status: u16, time: Duration) {
        let label = RequestLabel { route: route.to_owned(), status };
        self.requests.get_or_create(&label).inc();
        self.seconds.get_or_create(&RouteLabel { route: label.route }).observe(time.as_secs_f64());
    }

    /// Counts what a query's answer took.
    pub fn note_stats(&self, stats: &Stats) {
        self.scanned_bytes.inc_by(stats.scanned_bytes);
        self.skipped_bytes.inc_by(stats.skipped_bytes);
    }
}
