//! The query engine against a plain reading of all records. The harness is here, the scenarios in the modules.

mod differential;
mod frozen;
mod scenarios;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{BatchDigest, BatchId, Offset, Partition, Tenant, ValidBatch};
use tempfile::TempDir;

use super::units::Snapshot;
use super::*;
use crate::index::{Indexer, Indexes};
use crate::log::{self, LogOptions, NewBatch, PartitionLog, RealDisk};

/// Bytes of a block in these tests: a few records.
const BLOCK_BYTES: usize = 1500;

/// A node's partitions, and every record that they were given.
struct Node {
    dir: TempDir,
    options: LogOptions,
    logs: Vec<PartitionLog>,
    indexes: Indexes,
    partitions: Vec<Arc<PartitionIndex>>,
    indexer: Indexer,
    stored: Vec<Stored>,
    batches: u64,
    now_ms: u64,
}

/// A record that was stored.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    key: Key,
    line: String,
    record: serde_json::Value,
}

impl Node {
    fn new(partitions: u16, options: LogOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let logs: Vec<PartitionLog> = (0..partitions)
            .map(|number| {
                let partition = Partition::new(number);
                let dir = log::partition_dir(dir.path(), partition);
                PartitionLog::open(Arc::new(RealDisk), &dir, partition, options.clone(), 0).unwrap().0
            })
            .collect();
        let indexes = Indexes::new(1 << 20);
        let partitions: Vec<Arc<PartitionIndex>> =
            logs.iter().map(|log| indexes.partition(log.reader(), log.sidecars())).collect();
        let indexer = Indexer::with_blocks(partitions.iter().cloned(), usize::MAX, BLOCK_BYTES);
        Self { dir, options, logs, indexes, partitions, indexer, stored: Vec::new(), batches: 0, now_ms: 0 }
    }

    /// Stores a batch of lines.
    fn append(&mut self, partition: usize, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.batches += 1;
        let batch = NewBatch {
            digest: BatchDigest::of(text.as_bytes()),
            batch: ValidBatch::from_ndjson(Bytes::from(text)).unwrap(),
            id: BatchId::derive(&Tenant::default(), &self.batches.to_string(), Partition::new(0)),
            appended_at_ms: self.now_ms,
            term: 0,
            log_index: 0,
        };
        let log = &mut self.logs[partition];
        let base = log.append(&[batch]).unwrap()[0];
        let end = log.sync().unwrap();
        log.publish(end);
        for (line, place) in lines.iter().zip(0..) {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let rank = record["timestamp"].as_u64().unwrap();
            let key = Key { rank, partition: Partition::new(partition as u16), offset: base.plus(place) };
            self.stored.push(Stored { key, line: line.clone(), record });
        }
    }

    /// Rolls, retains and compresses what is due after some time.
    fn maintain(&mut self, elapsed_ms: u64) {
        self.now_ms += elapsed_ms;
        for log in &mut self.logs {
            while log.maintain(self.now_ms).unwrap().more {}
        }
        let first_offsets: Vec<Offset> = self.logs.iter().map(|log| log.reader().first_offset()).collect();
        self.stored.retain(|stored| stored.key.offset >= first_offsets[stored.key.partition.get() as usize]);
    }

    /// Forgets every index, as a restart does.
    fn restart(&mut self) {
        self.logs.clear();
        let options = self.options.clone();
        let partitions = self.partitions.len();
        for number in 0..partitions as u16 {
            let partition = Partition::new(number);
            let dir = log::partition_dir(self.dir.path(), partition);
            let mut log =
                PartitionLog::open(Arc::new(RealDisk), &dir, partition, options.clone(), self.now_ms)
                    .unwrap()
                    .0;
            log.publish(log.written_end());
            self.logs.push(log);
        }
        self.indexes = Indexes::new(1 << 20);
        self.partitions =
            self.logs.iter().map(|log| self.indexes.partition(log.reader(), log.sidecars())).collect();
        self.indexer = Indexer::with_blocks(self.partitions.iter().cloned(), usize::MAX, BLOCK_BYTES);
    }

    /// The sidecars that there are, in order.
    fn sidecars(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for partition in &self.partitions {
            let dir = log::partition_dir(self.dir.path(), partition.partition());
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "filter" || extension == "columns") {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::now(&self.partitions, &Filter::default())
    }

    fn search(&self, query: &Query) -> Found {
        let snapshot = Snapshot::now(&self.partitions, &query.filter);
        search::search(&snapshot, query, usize::MAX, &no_hurry())
    }

    /// The records that pass, in the order of an answer.
    fn expected(&self, direction: Direction, passes: impl Fn(&Stored) -> bool) -> Vec<Stored> {
        let mut expected: Vec<Stored> = self.stored.iter().filter(|stored| passes(stored)).cloned().collect();
        expected.sort_by_key(|stored| stored.key);
        if direction == Direction::Backward {
            expected.reverse();
        }
        expected
    }
}

/// A watch that never ends a scan.
fn no_hurry() -> Watch {
    let (watch, abandon) = Watch::until(Instant::now() + Duration::from_secs(3600));
    std::mem::forget(abandon);
    watch
}

fn query(parameters: &[(&str, &str)]) -> Query {
    Query::parse(parameters.iter().copied(), 0).unwrap()
}

fn found_lines(found: &Found) -> Vec<(Key, String)> {
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
    found.records.iter().map(|(key, line)| (*key, text(line))).collect()
}

fn lines_of(stored: &[Stored]) -> Vec<(Key, String)> {
    stored.iter().map(|stored| (stored.key, stored.line.clone())).collect()
}

/// A line in the ingest's form.
fn line(
    timestamp: u64,
    service: &str,
    level: Option<&str>,
    message: &str,
    labels: &[(&str, &str)],
) -> String {
    let string = |text: &str| serde_json::to_string(text).unwrap();
    let level = level.map(|level| format!(",\"level\":{}", string(level))).unwrap_or_default();
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{}:{}", string(name), string(value))).collect();
    let labels =
        if labels.is_empty() { String::new() } else { format!(",\"labels\":{{{}}}", pairs.join(",")) };
    format!(
        "{{\"timestamp\":{timestamp},\"service\":{}{level},\"message\":{}{labels},\"received_at\":5,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}",
        string(service),
        string(message),
    )
}

fn text<'a>(record: &'a serde_json::Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_default()
}

/// Counts by level, as the answers spell levels.
fn by_level<'a>(stored: impl Iterator<Item = &'a Stored>) -> BTreeMap<String, u64> {
    let mut levels = BTreeMap::new();
    for stored in stored {
        *levels.entry(text(&stored.record, "level").to_uppercase()).or_default() += 1;
    }
    levels
}
