//! What the daemon counts, and how it is shown at `/metrics` (OpenMetrics text).
//!
//! Counters are kept where things happen; gauges are read when somebody asks. Every metric is in the table of
//! docs/operations.md, which a test compares with what is shown. Invariant: label sets are bounded, whatever clients
//! send. Knows nothing of HTTP.

mod disk;
mod ingest;
mod partition;
mod requests;
#[cfg(test)]
mod tests;

use std::path::Path;

use model::Partition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use ingest::IngestNodes;
pub use partition::{PartitionMetrics, PartitionReading, ReplicationReading};
pub use requests::Requests;
pub use telemetry::text::CONTENT_TYPE;

use disk::DiskCollector;
use partition::Partitions;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    partitions: Partitions,
    /// What arrives, by the ingest node that sent it.
    pub ingest: IngestNodes,
    /// Requests and what queries read.
    pub requests: Requests,
    rejections: Family<ReasonLabel, Counter>,
    queries: Family<OutcomeLabel, Counter>,
    tails: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Metrics {
    /// All counters at zero; nothing of the disk.
    pub fn new() -> Self {
        let mut registry = telemetry::text::registry("storage", env!("CARGO_PKG_VERSION"));
        let new = Self {
            partitions: Partitions::registered(&mut registry),
            ingest: IngestNodes::registered(&mut registry),
            requests: Requests::registered(&mut registry),
            rejections: Family::default(),
            queries: Family::default(),
            tails: Gauge::default(),
            registry,
        };
        // Those that alerts and panels ask for are there from the start: what never happened is 0, not unknown.
        for reason in ["queue_full", "body_budget", "disk_full", "stopped", "invalid_batch"] {
            new.rejections.get_or_create(&ReasonLabel { reason }).inc_by(0);
        }
        for outcome in ["whole", "partial", "refused"] {
            new.queries.get_or_create(&OutcomeLabel { outcome }).inc_by(0);
        }
        new.registered()
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("storage_append_rejections", "Appends refused, by reason", self.rejections.clone());
        r.register("storage_tails", "Live tails that are followed now", self.tails.clone());
        r.register("storage_queries", "Queries, by outcome: whole, partial or refused", self.queries.clone());
        self
    }

    /// All counters at zero, and what is to be told of the data directory's disk.
    pub fn of_node(data: &Path, partitions: &[Partition]) -> Self {
        let mut metrics = Self::new();
        metrics.registry.register_collector(Box::new(DiskCollector::new(data, partitions)));
        metrics
    }

    /// The counters of one partition.
    pub fn of_partition(&self, partition: Partition) -> PartitionMetrics {
        self.partitions.of(partition)
    }

    /// Counts an append that was refused; `reason` is one of a fixed set.
    pub fn note_rejection(&self, reason: &'static str) {
        self.rejections.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a query; `outcome` is one of a fixed set.
    pub fn note_query(&self, outcome: &'static str) {
        self.queries.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// All metrics as OpenMetrics text, with the partitions and the count of live tails as they are now.
    pub fn encode(
        &self,
        partitions: impl Iterator<Item = (Partition, PartitionReading)>,
        tails: usize,
    ) -> String {
        self.tails.set(i64::try_from(tails).unwrap_or(i64::MAX));
        for (partition, reading) in partitions {
            self.partitions.set(partition, reading);
        }
        telemetry::text::encode(&self.registry)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
