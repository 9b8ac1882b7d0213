//! What the disk tells: its room, and how large the search's indexes are. Read when somebody asks.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use model::Partition;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::partition::PartitionLabel;
use crate::log::partition_dir;

/// Looks at the data directory.
#[derive(Debug)]
pub(super) struct DiskCollector {
    data: PathBuf,
    partitions: Vec<(Partition, PathBuf)>,
}

impl DiskCollector {
    pub(super) fn new(data: &Path, partitions: &[Partition]) -> Self {
        let partitions = partitions.iter().map(|partition| (*partition, partition_dir(data, *partition)));
        Self { data: data.to_owned(), partitions: partitions.collect() }
    }
}

impl Collector for DiskCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Ok(disk) = rustix::fs::statvfs(&self.data) {
            let mut gauge = |name: &str, help: &str, blocks: u64| {
                let gauge = ConstGauge::new(blocks.saturating_mul(disk.f_frsize) as f64);
                let unit = Some(&Unit::Bytes);
                gauge.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
            };
            gauge("storage_filesystem_free", "Room on the data directory's file system.", disk.f_bavail)?;
            gauge("storage_filesystem_size", "Size of the data directory's file system.", disk.f_blocks)?;
        }
        let help = "Bytes of the search's indexes beside sealed segments.";
        let unit = Some(&Unit::Bytes);
        let mut gauges = encoder.encode_descriptor("storage_index", help, unit, MetricType::Gauge)?;
        for (partition, dir) in &self.partitions {
            let gauge = ConstGauge::new(i64::try_from(index_bytes(dir)).unwrap_or(i64::MAX));
            gauge.encode(gauges.encode_family(&PartitionLabel::of(*partition))?)?;
        }
        Ok(())
    }
}

/// Bytes of the sidecars in a partition's directory; one that cannot be looked at has none.
fn index_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let is_index = |path: &Path| path.extension().is_some_and(|end| end == "filter" || end == "columns");
    let indexes = entries.filter_map(Result::ok).filter(|entry| is_index(&entry.path()));
    indexes.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
