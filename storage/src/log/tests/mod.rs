//! Scenarios of the log over a disk that fails as told. The harness is here, the scenarios in the modules.

pub(crate) mod random;
pub(crate) mod sim_disk;

mod crash_points;
mod damage;
mod dedup;
mod entries;
mod fault_points;
mod faults;
mod fixtures;
mod foreign;
mod maintenance;
mod model_based;
mod reading;
mod real_disk;
mod sidecars;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{BatchDigest, BatchId, Offset, Partition, Tenant, ValidBatch};

use super::layout::{self, Part};
use super::{LogError, LogOptions, LogReader, NewBatch, PartitionLog, RecoveryReport, StoredBatch};
use random::Random;
use sim_disk::SimDisk;

const DIR: &str = "/data/partition-0";

/// One batch's milliseconds of the tests' time: batch `n` is appended at `n` of them.
const BATCH_MS: u64 = 1000;

/// Options under which a few batches are a segment, and nothing happens by age.
fn small_segments() -> LogOptions {
    LogOptions {
        segment_bytes_max: 1500,
        segment_age_max: Duration::MAX,
        compress_age: None,
        ..LogOptions::default()
    }
}

/// Options under which all is one segment.
fn one_segment() -> LogOptions {
    LogOptions { segment_bytes_max: u64::MAX, segment_age_max: Duration::MAX, ..LogOptions::default() }
}

/// Batch `number`, of as many records: always the same bytes.
pub(crate) fn batch(number: u64, records: u64) -> NewBatch {
    let mut random = Random::new(number);
    let lines: String = (0..records)
        .map(|record| {
            let timestamp = number * BATCH_MS + record;
            let filler = "x".repeat(random.below(60) as usize);
            format!(
                "{{\"timestamp\":{timestamp},\"service\":\"s\",\"message\":\"{number}/{record} {filler}\",\"received_at\":{timestamp},\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
            )
        })
        .collect();
    NewBatch {
        digest: BatchDigest::of(lines.as_bytes()),
        batch: ValidBatch::from_ndjson(Bytes::from(lines)).unwrap(),
        id: id(number),
        appended_at_ms: number * BATCH_MS,
        term: 0,
        log_index: 0,
    }
}

fn id(number: u64) -> BatchId {
    BatchId::derive(&Tenant::default(), &number.to_string(), Partition::new(0))
}

fn path(base_offset: u64, part: Part) -> PathBuf {
    Path::new(DIR).join(layout::file_name(Offset::new(base_offset), part))
}

/// Opens the log, and publishes what was recovered.
fn open(disk: &SimDisk, options: &LogOptions) -> (PartitionLog, RecoveryReport) {
    try_open(disk, options).unwrap()
}

fn try_open(disk: &SimDisk, options: &LogOptions) -> Result<(PartitionLog, RecoveryReport), LogError> {
    let (mut log, report) =
        PartitionLog::open(Arc::new(disk.clone()), Path::new(DIR), Partition::new(0), options.clone(), 0)?;
    log.publish(log.flushed_end());
    Ok((log, report))
}

/// Appends, syncs and publishes each of the batches by itself.
fn commit(log: &mut PartitionLog, batches: &[NewBatch]) -> Result<(), LogError> {
    for new in batches {
        log.append(std::slice::from_ref(new))?;
        let end = log.sync()?;
        log.publish(end);
    }
    Ok(())
}

/// A log of these batches, each committed by itself.
fn log_of(disk: &SimDisk, options: &LogOptions, batches: &[NewBatch]) -> PartitionLog {
    let (mut log, _) = open(disk, options);
    commit(&mut log, batches).unwrap();
    log
}

/// Some batches of one to three records.
fn some_batches(count: u64) -> Vec<NewBatch> {
    (0..count).map(|number| batch(number, number % 3 + 1)).collect()
}

/// Everything that can be read, which has to be without damage and the same from either end.
fn read_all(reader: &LogReader) -> Vec<StoredBatch> {
    let forward: Vec<StoredBatch> = reader.batches_from(Offset::ZERO).map(Result::unwrap).collect();
    let mut backward: Vec<StoredBatch> =
        reader.batches_before(reader.high_watermark()).map(Result::unwrap).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    forward
}

/// Asserts that `stored` are exactly `expected`, in order and without a gap.
#[track_caller]
fn assert_same(stored: &[StoredBatch], expected: &[NewBatch]) {
    let bytes = |batch: &StoredBatch| String::from_utf8(batch.bytes.to_vec()).unwrap();
    let stored_bytes: Vec<String> = stored.iter().map(bytes).collect();
    let expected_bytes: Vec<&str> =
        expected.iter().map(|new| std::str::from_utf8(new.batch.bytes()).unwrap()).collect();
    assert_eq!(stored_bytes, expected_bytes);
    for (before, after) in stored.iter().zip(stored.iter().skip(1)) {
        assert_eq!(before.end_offset(), after.base_offset);
    }
    for batch in stored {
        assert_eq!(batch.lines().count(), batch.record_count as usize);
    }
}
