//! The newest records of all partitions: a k-way merge by time that stops at the limit.
//!
//! Invariants: within a partition the order is by offset, newest first; between partitions by timestamp, then by
//! the partition's number. The answer is bounded in records, bytes and time, and says what it lacks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use model::Partition;

use super::encode::{Format, RecordWriter};
use super::scan::{Hit, Interrupted, PartitionScan};
use crate::log::{LogError, StoredBatch};

/// A search's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The records, in the format that was asked for.
    pub body: Vec<u8>,
    /// How many.
    pub records: usize,
    /// What the answer lacks; empty when it is whole.
    pub lacks: Vec<Lack>,
}

/// Why an answer has less than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The time for one query was over: records beyond those given were not searched.
    Time,
    /// The answer has as many bytes as one may have: there are further records.
    Bytes,
    /// Records of this partition could not be read.
    Damage(Partition),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time => f.write_str("time: older records were not searched"),
            Self::Bytes => f.write_str("bytes: the answer would be too large; older records are left out"),
            Self::Damage(partition) => write!(f, "damage: records of partition {partition} cannot be read"),
        }
    }
}

/// Merges `scans` until there are `limit` records, or `bytes_max` bytes.
pub(super) fn merge<B: Iterator<Item = Result<StoredBatch, LogError>>>(
    mut scans: Vec<PartitionScan<'_, B>>,
    limit: usize,
    bytes_max: usize,
    format: Format,
) -> Answer {
    let mut answer = Answer { body: Vec::new(), records: 0, lacks: Vec::new() };
    let mut writer = RecordWriter::new(format);
    if limit > 0
        && let Err(lack) = fill(&mut scans, limit, bytes_max, &mut writer, &mut answer)
    {
        answer.lacks.push(lack);
    }
    writer.end(&mut answer.body);
    let damaged = scans.iter().filter(|scan| scan.met_damage());
    answer.lacks.extend(damaged.map(|scan| Lack::Damage(scan.partition())));
    answer
}

fn fill<B: Iterator<Item = Result<StoredBatch, LogError>>>(
    scans: &mut [PartitionScan<'_, B>],
    limit: usize,
    bytes_max: usize,
    writer: &mut RecordWriter,
    answer: &mut Answer,
) -> Result<(), Lack> {
    let mut heads = BinaryHeap::with_capacity(scans.len());
    for scan in scans.iter_mut() {
        heads.extend(Head::next(scan)?);
    }
    while let Some(head) = heads.pop() {
        // Two more for a bracket and a comma or newline.
        if answer.body.len() + head.hit.line.len() + 2 > bytes_max {
            return Err(Lack::Bytes);
        }
        writer.record(&mut answer.body, &head.hit.line);
        answer.records += 1;
        if answer.records == limit {
            break;
        }
        if let Some(scan) = scans.iter_mut().find(|scan| scan.partition() == head.partition.0) {
            heads.extend(Head::next(scan)?);
        }
    }
    Ok(())
}

/// The newest hit of a scan that is not in the answer yet. The greatest comes first.
struct Head {
    partition: Reverse<Partition>,
    hit: Hit,
}

impl Head {
    fn next<B: Iterator<Item = Result<StoredBatch, LogError>>>(
        scan: &mut PartitionScan<'_, B>,
    ) -> Result<Option<Self>, Lack> {
        let partition = Reverse(scan.partition());
        let hit = scan.next_hit().map_err(|Interrupted| Lack::Time)?;
        Ok(hit.map(|hit| Self { partition, hit }))
    }

    fn key(&self) -> (u64, Reverse<Partition>) {
        (self.hit.timestamp_ms, self.partition)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
