//! The log engine against the floor of the disk, in the same run: `cargo bench -p storage --bench log [DIR]`.
//!
//! Files are made below DIR, by default in the system's directory for temporary files; give one on the disk in
//! question. Every figure is a median of rounds in which the log and the floor alternate.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{BatchDigest, BatchId, Offset, Partition, Tenant, ValidBatch};
use storage::log::{LogOptions, NewBatch, PartitionLog, RealDisk};

const ROUNDS: usize = 5;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    // `cargo bench` passes `--bench`; what is left is the directory.
    let dir = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let dir = match dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    for (records, batches) in [(10, 1), (1000, 1), (1000, 8)] {
        append_against_floor(dir.path(), records, batches)?;
    }
    group_commit(dir.path())?;
    recovery(dir.path(), 1000, 256 << 20)?;
    recovery(dir.path(), 1, 32 << 20)?;
    lookup_and_compression(dir.path())?;
    println!("peak memory: {}", peak_memory()?);
    Ok(())
}

/// Appends and syncs the same bytes through the log and through a bare loop.
fn append_against_floor(dir: &Path, records: u64, batches: usize) -> Result<(), Failure> {
    let group: Vec<NewBatch> =
        (0..batches as u64).map(|number| batch(number, records)).collect::<Result<_, _>>()?;
    let bytes: usize = group.iter().map(|new| new.batch.bytes().len()).sum();
    let turns = ((128 << 20) / bytes).clamp(20, 500);
    let (mut floor, mut log) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        floor.push(bare_loop(&dir.join("floor"), &group, turns)?);
        let log_dir = dir.join(format!("append-{records}-{batches}-{round}"));
        log.push(append_loop(&log_dir, &group, turns)?);
        std::fs::remove_dir_all(log_dir)?;
    }
    let (floor, log) = (median(floor), median(log));
    let rate = |time: Duration| (bytes * turns) as f64 / 1e6 / time.as_secs_f64();
    println!(
        "append and sync {batches} x {records} records ({bytes} bytes): {:.0} MB/s, {:.0} us each; bare loop {:.0} MB/s, \
         {:.0} us each; {:.0} %",
        rate(log),
        log.as_secs_f64() * 1e6 / turns as f64,
        rate(floor),
        floor.as_secs_f64() * 1e6 / turns as f64,
        100.0 * floor.as_secs_f64() / log.as_secs_f64(),
    );
    Ok(())
}

fn bare_loop(path: &Path, group: &[NewBatch], turns: usize) -> Result<Duration, Failure> {
    let mut file = File::create(path)?;
    let started = Instant::now();
    for _ in 0..turns {
        for new in group {
            file.write_all(new.batch.bytes())?;
        }
        rustix::fs::fdatasync(&file)?;
    }
    let took = started.elapsed();
    std::fs::remove_file(path)?;
    Ok(took)
}

fn append_loop(dir: &Path, group: &[NewBatch], turns: usize) -> Result<Duration, Failure> {
    let mut log = open(dir, LogOptions::default())?;
    log.append(group)?;
    log.sync()?;
    let started = Instant::now();
    for _ in 0..turns {
        log.append(group)?;
        let end = log.sync()?;
        log.publish(end);
    }
    Ok(started.elapsed())
}

/// Batches of one record: one by one, and 256 with each sync.
fn group_commit(dir: &Path) -> Result<(), Failure> {
    let group: Vec<NewBatch> = (0..256).map(|number| batch(number, 1)).collect::<Result<_, _>>()?;
    let one = [batch(0, 1)?];
    let (mut single, mut together) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        single.push(append_loop(&dir.join(format!("single-{round}")), &one, 500)?);
        together.push(append_loop(&dir.join(format!("together-{round}")), &group, 200)?);
    }
    let single = 500.0 / median(single).as_secs_f64();
    let together = 200.0 * 256.0 / median(together).as_secs_f64();
    println!(
        "batches of one record: {single:.0} acks/s one by one, {together:.0} acks/s with 256 a sync; x{:.0}",
        together / single
    );
    Ok(())
}

/// Opens a segment that was not closed cleanly, and the same after a clean close.
fn recovery(dir: &Path, records: u64, bytes: usize) -> Result<(), Failure> {
    let dir = dir.join(format!("recovery-{records}"));
    let options =
        LogOptions { segment_bytes_max: u64::MAX, segment_batches_max: u32::MAX, ..LogOptions::default() };
    let new = batch(0, records)?;
    let mut log = open(&dir, options.clone())?;
    let mut written = 0;
    for number in 0_u64.. {
        log.append(&[NewBatch { id: id(number), ..new.clone() }])?;
        written += new.batch.bytes().len();
        if written >= bytes {
            break;
        }
    }
    log.sync()?;
    drop(log);
    let mut dirty = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let log = open(&dir, options.clone())?;
        dirty.push(started.elapsed());
        drop(log);
    }
    let mut log = open(&dir, options.clone())?;
    log.append(&[batch(1, 1)?])?;
    log.close()?;
    let mut clean = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let log = open(&dir, options.clone())?;
        clean.push(started.elapsed());
        drop(log);
    }
    let (dirty, clean) = (median(dirty), median(clean));
    println!(
        "open {} MiB of batches of {records}: after a crash {:.0} ms, {:.2} GB/s; after a clean close {:.1} ms",
        written >> 20,
        dirty.as_secs_f64() * 1e3,
        written as f64 / 1e9 / dirty.as_secs_f64(),
        clean.as_secs_f64() * 1e3,
    );
    let mut log = open(&dir, options)?;
    log.publish(log.flushed_end());
    let started = Instant::now();
    let read: usize =
        log.reader().batches_from(Offset::ZERO).map(|item| item.map_or(0, |b| b.bytes.len())).sum();
    println!("read them all: {:.2} GB/s", read as f64 / 1e9 / started.elapsed().as_secs_f64());
    Ok(())
}

/// Forty sealed segments: opening them, asking for ids that are not there, and compressing one.
fn lookup_and_compression(dir: &Path) -> Result<(), Failure> {
    let dir = dir.join("lookup");
    let options = LogOptions {
        segment_bytes_max: 8 << 20,
        compress_age: Some(Duration::ZERO),
        ..LogOptions::default()
    };
    let mut log = open(&dir, options.clone())?;
    for number in 0..40 * 32 {
        log.append(&[NewBatch { id: id(number), ..batch(number, 1000)? }])?;
    }
    log.close()?;
    let started = Instant::now();
    let mut log = open(&dir, options)?;
    let opened = started.elapsed();
    let segments = log.reader().status().segments.len();
    log.find_batch(id(u64::MAX))?;
    let started = Instant::now();
    for number in 0..10_000 {
        log.find_batch(id(1_000_000 + number))?;
    }
    println!(
        "{segments} segments: opened in {:.1} ms; an id that is not there is told in {:.2} us",
        opened.as_secs_f64() * 1e3,
        started.elapsed().as_secs_f64() * 1e6 / 10_000.0
    );
    let (mut longest, mut steps) = (Duration::ZERO, 0);
    let started = Instant::now();
    loop {
        let step_started = Instant::now();
        let report = log.maintain(u64::MAX / 2)?;
        longest = longest.max(step_started.elapsed());
        steps += 1;
        if !report.more {
            break;
        }
    }
    let took = started.elapsed();
    let status = log.reader().status();
    let compressed = status.segments.iter().filter(|segment| segment.compressed);
    let (plain, stored) = compressed.fold((0, 0), |sum, s| (sum.0 + s.data_bytes, sum.1 + s.stored_bytes));
    println!(
        "compress: {:.0} MB/s to {:.3} of the size, in {steps} steps, the longest {:.0} ms",
        plain as f64 / 1e6 / took.as_secs_f64(),
        stored as f64 / plain as f64,
        longest.as_secs_f64() * 1e3
    );
    Ok(())
}

fn open(dir: &Path, options: LogOptions) -> Result<PartitionLog, Failure> {
    Ok(PartitionLog::open(Arc::new(RealDisk), dir, Partition::new(0), options, 0)?.0)
}

fn id(number: u64) -> BatchId {
    BatchId::derive(&Tenant::default(), &number.to_string(), Partition::new(0))
}

/// A batch whose records are of usual size, and half of which carry labels.
fn batch(number: u64, records: u64) -> Result<NewBatch, model::BatchError> {
    let mut lines = String::new();
    for record in 0..records {
        let mixed = (number * 1000 + record).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let labels = if mixed.is_multiple_of(2) {
            format!("\"labels\":{{\"request_id\":\"{mixed:016x}\",\"duration_ms\":\"{}\"}},", mixed >> 54)
        } else {
            String::new()
        };
        lines.push_str(&format!(
            "{{\"timestamp\":{},\"service\":\"service-{}\",\"level\":\"INFO\",\"message\":\"request {} of user {} served\",{labels}\"received_at\":1700000000000,\"ingested_node_id\":\"ingest-1\",\"client_ip\":\"127.0.0.1\"}}\n",
            1_700_000_000_000 + record,
            mixed % 17,
            mixed >> 32,
            mixed >> 48,
        ));
    }
    Ok(NewBatch {
        digest: BatchDigest::of(lines.as_bytes()),
        batch: ValidBatch::from_ndjson(Bytes::from(lines))?,
        id: id(number),
        appended_at_ms: 0,
        term: 0,
        log_index: 0,
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn peak_memory() -> Result<String, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or("unknown").trim().to_owned())
}
