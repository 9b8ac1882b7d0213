//! What the daemon counts, and how it is shown at `/metrics` (OpenMetrics text).
//!
//! Counters are kept where things happen; gauges are read when somebody asks. Knows nothing of HTTP.

use std::fmt;
use std::time::Duration;

use model::Partition;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    appends: Family<PartitionLabel, Counter>,
    records: Family<PartitionLabel, Counter>,
    bytes: Family<PartitionLabel, Counter>,
    rejections: Family<ReasonLabel, Counter>,
    queries: Family<ReasonLabel, Counter>,
    sync_seconds: Histogram,
    batches_per_sync: Histogram,
    gauges: Gauges,
}

/// What one partition's actor counts.
#[derive(Clone, Debug)]
pub struct PartitionMetrics {
    appends: Counter,
    records: Counter,
    bytes: Counter,
    sync_seconds: Histogram,
    batches_per_sync: Histogram,
}

/// What is read from a partition when somebody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionReading {
    /// Bytes that wait for the actor.
    pub queue_bytes: u64,
    /// Requests that wait for the actor.
    pub queue_requests: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Segments in which damage was found, or which are missing.
    pub damaged_segments: u64,
    /// Records that had been synced, and were gone when the node started.
    pub lost_records: u64,
    /// Records below the high watermark, since the partition began.
    pub high_watermark: u64,
    /// Whether it takes no more writes.
    pub stopped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Default)]
struct Gauges {
    queue_bytes: Family<PartitionLabel, Gauge>,
    queue_requests: Family<PartitionLabel, Gauge>,
    disk_bytes: Family<PartitionLabel, Gauge>,
    segments: Family<PartitionLabel, Gauge>,
    damaged_segments: Family<PartitionLabel, Gauge>,
    lost_records: Family<PartitionLabel, Gauge>,
    high_watermark: Family<PartitionLabel, Gauge>,
    stopped: Family<PartitionLabel, Gauge>,
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        // 50 µs to 13 s: from a fast disk's sync to one that is about to fail.
        let sync_seconds = Histogram::new((0..10).map(|step| 50e-6 * 4f64.powi(step)));
        let batches_per_sync = Histogram::new((0..11).map(|step| 2f64.powi(step)));
        let mut metrics = Self {
            registry: Registry::default(),
            appends: Family::default(),
            records: Family::default(),
            bytes: Family::default(),
            rejections: Family::default(),
            queries: Family::default(),
            sync_seconds,
            batches_per_sync,
            gauges: Gauges::default(),
        };
        metrics.register();
        metrics
    }

    /// The counters of one partition.
    pub fn of_partition(&self, partition: Partition) -> PartitionMetrics {
        let label = PartitionLabel { partition: partition.get() };
        PartitionMetrics {
            appends: self.appends.get_or_create_owned(&label),
            records: self.records.get_or_create_owned(&label),
            bytes: self.bytes.get_or_create_owned(&label),
            sync_seconds: self.sync_seconds.clone(),
            batches_per_sync: self.batches_per_sync.clone(),
        }
    }

    /// Counts an append that was refused; `reason` is one of a fixed set.
    pub fn note_rejection(&self, reason: &'static str) {
        self.rejections.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a query; `outcome` is one of a fixed set.
    pub fn note_query(&self, outcome: &'static str) {
        self.queries.get_or_create(&ReasonLabel { reason: outcome }).inc();
    }

    /// All metrics as OpenMetrics text, with the partitions as they are now.
    pub fn encode(&self, partitions: impl Iterator<Item = (Partition, PartitionReading)>) -> String {
        for (partition, reading) in partitions {
            self.gauges.set(partition, reading);
        }
        let mut text = String::new();
        // Writing to a string does not fail; should it one day, half the metrics are better than none.
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            tracing::warn!("the metrics could not be encoded");
        }
        text
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("storage_appends", "Batches stored", self.appends.clone());
        r.register("storage_records", "Records stored", self.records.clone());
        r.register("storage_bytes", "Bytes of records stored", self.bytes.clone());
        r.register("storage_append_rejections", "Appends refused, by reason", self.rejections.clone());
        r.register("storage_queries", "Searches, by outcome", self.queries.clone());
        r.register("storage_sync_seconds", "Time of one sync of a log", self.sync_seconds.clone());
        r.register(
            "storage_batches_per_sync",
            "Batches made durable by one sync",
            self.batches_per_sync.clone(),
        );
        let g = &self.gauges;
        r.register("storage_queue_bytes", "Bytes that wait for a partition", g.queue_bytes.clone());
        r.register("storage_queue_requests", "Requests that wait for a partition", g.queue_requests.clone());
        r.register("storage_disk_bytes", "Bytes on disk", g.disk_bytes.clone());
        r.register("storage_segments", "Segments on disk", g.segments.clone());
        r.register(
            "storage_damaged_segments",
            "Segments that are damaged or missing",
            g.damaged_segments.clone(),
        );
        r.register(
            "storage_lost_records",
            "Records that had been synced, and were gone when the node started",
            g.lost_records.clone(),
        );
        r.register("storage_high_watermark", "One past the newest readable offset", g.high_watermark.clone());
        r.register("storage_partition_stopped", "1 when it takes no more writes", g.stopped.clone());
        r.register_collector(Box::new(ProcessCollector));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl PartitionMetrics {
    /// Counts a batch that was stored.
    pub(crate) fn note_stored(&self, record_count: u32) {
        self.appends.inc();
        self.records.inc_by(record_count.into());
    }

    /// Counts a group commit of `batches` with `bytes` in all.
    pub(crate) fn note_round(&self, batches: usize, bytes: usize) {
        self.batches_per_sync.observe(batches as f64);
        self.bytes.inc_by(bytes as u64);
    }

    /// Counts a sync.
    pub(crate) fn note_sync(&self, time: Duration) {
        self.sync_seconds.observe(time.as_secs_f64());
    }
}

impl Gauges {
    fn set(&self, partition: Partition, reading: PartitionReading) {
        let label = PartitionLabel { partition: partition.get() };
        let set = |family: &Family<PartitionLabel, Gauge>, value: u64| {
            family.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.queue_bytes, reading.queue_bytes);
        set(&self.queue_requests, reading.queue_requests);
        set(&self.disk_bytes, reading.disk_bytes);
        set(&self.segments, reading.segments);
        set(&self.damaged_segments, reading.damaged_segments);
        set(&self.lost_records, reading.lost_records);
        set(&self.high_watermark, reading.high_watermark);
        set(&self.stopped, reading.stopped.into());
    }
}

/// The process's own use of the machine, under the names that all Prometheus clients use.
#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let counter = ConstCounter::new(cpu_seconds);
        let help = "CPU time used, in user and system";
        counter.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            counter.metric_type(),
        )?)?;
        if let Some(bytes) = resident_bytes() {
            let gauge = ConstGauge::new(bytes);
            let help = "Memory in use";
            gauge.encode(encoder.encode_descriptor(
                "process_resident_memory_bytes",
                help,
                None,
                gauge.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// The resident set, in bytes; `None` where the system does not tell.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
