//! What is counted of each partition, and read from it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use model::Partition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The metrics of all partitions.
#[derive(Debug)]
pub(super) struct Partitions {
    appends: Family<PartitionLabel, Counter>,
    records: Family<PartitionLabel, Counter>,
    bytes: Family<PartitionLabel, Counter>,
    fsync_seconds: Histogram,
    batches_per_fsync: Histogram,
    gauges: Gauges,
}

/// What one partition's actor counts.
#[derive(Clone, Debug)]
pub struct PartitionMetrics {
    appends: Counter,
    records: Counter,
    bytes: Counter,
    fsync_seconds: Histogram,
    batches_per_fsync: Histogram,
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
    /// How its copies agree.
    pub replication: ReplicationReading,
}

/// What is read from a replica when somebody asks; all zero without replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicationReading {
    /// Its term.
    pub term: u64,
    /// How often another leader followed one that it knew.
    pub leader_changes: u64,
    /// Records that the leader has and this replica has not, as far as the leader was heard.
    pub lag_records: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PartitionLabel {
    partition: u16,
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
    term: Family<PartitionLabel, Gauge>,
    leader_changes: Family<PartitionLabel, Counter>,
    lag_records: Family<PartitionLabel, Gauge>,
}

impl Partitions {
    pub(super) fn registered(r: &mut Registry) -> Self {
        let partitions = Self {
            appends: Family::default(),
            records: Family::default(),
            bytes: Family::default(),
            // 50 µs to 13 s: from a fast disk's sync to one that is about to fail.
            fsync_seconds: Histogram::new((0..10).map(|step| 50e-6 * 4f64.powi(step))),
            batches_per_fsync: Histogram::new((0..11).map(|step| 2f64.powi(step))),
            gauges: Gauges::default(),
        };
        r.register("storage_appends", "Batches stored", partitions.appends.clone());
        r.register("storage_records", "Records stored, on each copy", partitions.records.clone());
        r.register_with_unit(
            "storage_stored",
            "Bytes of records stored",
            Unit::Bytes,
            partitions.bytes.clone(),
        );
        let fsync = partitions.fsync_seconds.clone();
        r.register_with_unit("storage_fsync_duration", "Time of one sync of a log", Unit::Seconds, fsync);
        let batches = partitions.batches_per_fsync.clone();
        r.register("storage_fsync_batches", "Batches made durable by one sync", batches);
        partitions.gauges.register(r);
        partitions
    }

    pub(super) fn of(&self, partition: Partition) -> PartitionMetrics {
        let label = PartitionLabel::of(partition);
        PartitionMetrics {
            appends: self.appends.get_or_create_owned(&label),
            records: self.records.get_or_create_owned(&label),
            bytes: self.bytes.get_or_create_owned(&label),
            fsync_seconds: self.fsync_seconds.clone(),
            batches_per_fsync: self.batches_per_fsync.clone(),
        }
    }

    pub(super) fn set(&self, partition: Partition, reading: PartitionReading) {
        self.gauges.set(partition, reading);
    }
}

impl PartitionLabel {
    pub(super) fn of(partition: Partition) -> Self {
        Self { partition: partition.get() }
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
        self.batches_per_fsync.observe(batches as f64);
        self.bytes.inc_by(bytes as u64);
    }

    /// Counts a sync.
    pub(crate) fn note_sync(&self, time: Duration) {
        self.fsync_seconds.observe(time.as_secs_f64());
    }
}

impl Gauges {
    fn register(&self, r: &mut Registry) {
        let bytes = Unit::Bytes;
        let help = "Bytes of batches that wait for a partition's disk";
        r.register_with_unit("storage_queue", help, bytes.clone(), self.queue_bytes.clone());
        let help = "Batches that wait for a partition's disk";
        r.register("storage_queue_requests", help, self.queue_requests.clone());
        let help = "Bytes of segments on disk: records and batch index";
        r.register_with_unit("storage_disk", help, bytes, self.disk_bytes.clone());
        r.register("storage_segments", "Segments on disk", self.segments.clone());
        let help = "Segments in which damage was found, or which are missing";
        r.register("storage_damaged_segments", help, self.damaged_segments.clone());
        let help = "Records that had been synced, and were gone when the node started";
        r.register("storage_lost_records", help, self.lost_records.clone());
        let help = "One past the newest readable offset";
        r.register("storage_high_watermark", help, self.high_watermark.clone());
        let help = "1 when the partition takes no more writes until a restart";
        r.register("storage_partition_stopped", help, self.stopped.clone());
        r.register("storage_raft_term", "Term of the replica; 0 without replication", self.term.clone());
        let help = "Leaders that followed another one, as this replica saw it";
        r.register("storage_raft_leader_changes", help, self.leader_changes.clone());
        let help = "Records that the leader has and this replica has not";
        r.register("storage_replication_lag_records", help, self.lag_records.clone());
    }

    fn set(&self, partition: Partition, reading: PartitionReading) {
        let label = PartitionLabel::of(partition);
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
        let ReplicationReading { term, leader_changes, lag_records } = reading.replication;
        set(&self.term, term);
        set(&self.lag_records, lag_records);
        // It never falls: an older reading that comes late changes nothing.
        self.leader_changes.get_or_create(&label).inner().fetch_max(leader_changes, Relaxed);
    }
}
