//! The actor over a simulated disk, whose syncs are held back where a test wants batches to wait.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use futures::stream::{FuturesUnordered, StreamExt as _};
use model::wire::Durability;
use model::{BatchDigest, BatchId, Offset, Partition, Tenant, ValidBatch};

use super::*;
use crate::clock::unix_now_ms;
use crate::limits;
use crate::log::tests::sim_disk::SimDisk;
use crate::log::{FsyncPolicy, LogOptions};
use crate::metrics::Metrics;

const DIR: &str = "/data/partition-0";
const PARTITION: Partition = Partition::new(0);
const FIRST_SEGMENT: &str = "00000000000000000000.jsonl";
const WIDE: QueueLimits = QueueLimits { bytes_max: 1 << 20, requests_max: 1000 };

/// A partition that runs.
struct Running {
    disk: SimDisk,
    handle: PartitionHandle,
    thread: PartitionThread,
}

/// A batch on its way.
struct Sent(BoxFuture<'static, Result<Appended, AppendError>>);

impl Sent {
    fn is_waiting(&mut self) -> bool {
        (&mut self.0).now_or_never().is_none()
    }

    fn join(self) -> Result<Appended, AppendError> {
        block_on(self.0)
    }
}

impl Running {
    fn start(disk: &SimDisk) -> Self {
        Self::start_with(disk, LogOptions::default(), WIDE)
    }

    fn start_with(disk: &SimDisk, options: LogOptions, queue_limits: QueueLimits) -> Self {
        let opened =
            PartitionLog::open(Arc::new(disk.clone()), Path::new(DIR), PARTITION, options, unix_now_ms());
        let (mut log, _) = opened.unwrap();
        log.publish(log.written_end());
        let (handle, thread) =
            start(PARTITION, log, queue_limits, Metrics::new().of_partition(PARTITION)).unwrap();
        Self { disk: disk.clone(), handle, thread }
    }

    fn append(&self, new: Append) -> Result<Appended, AppendError> {
        block_on(self.handle.append(new))
    }

    /// Sends a batch; when this returns, it waits for the actor.
    fn send(&self, new: Append) -> Sent {
        let handle = self.handle.clone();
        let mut sent = Sent(async move { handle.append(new).await }.boxed());
        assert!(sent.is_waiting());
        sent
    }

    /// With a segment that has one batch, so that what is appended next causes one write and its sync.
    fn with_one_batch(self) -> Self {
        assert_eq!(self.append(append("zero")), at(0));
        self
    }

    /// Lets the first batch's sync begin and holds it there: what is sent now waits for the next round.
    fn hold_with(&self, first: Append) -> Sent {
        self.disk.hold_syncs(true);
        let syncs = self.disk.syncs();
        let sent = self.send(first);
        self.disk.wait_until("the first round syncs", |seen| seen.syncs() > syncs);
        sent
    }

    fn release(&self) {
        self.disk.hold_syncs(false);
    }

    fn stop(self) -> Result<(), PartitionEndError> {
        self.handle.close();
        self.thread.join()
    }

    fn stored(&self) -> String {
        let batches = self.handle.reader().batches_from(Offset::ZERO);
        batches.map(|batch| String::from_utf8(batch.unwrap().bytes.to_vec()).unwrap()).collect()
    }
}

fn line(text: &str) -> String {
    format!(
        "{{\"timestamp\":1,\"service\":\"s\",\"message\":\"{text}\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
    )
}

/// A batch of one record under an id of its own.
fn append(name: &str) -> Append {
    append_as(name, name)
}

/// A batch of one record under the id of `name`.
fn append_as(name: &str, text: &str) -> Append {
    let line = line(text);
    Append {
        digest: BatchDigest::of(line.as_bytes()),
        batch: ValidBatch::from_ndjson(Bytes::from(line)).unwrap(),
        id: BatchId::derive(&Tenant::default(), name, PARTITION),
        id_is_new: false,
        acks: None,
        budget: None,
    }
}

fn at(offset: u64) -> Result<Appended, AppendError> {
    Ok(Appended { base_offset: Offset::new(offset), record_count: 1, durability: Durability::Leader })
}

#[test]
fn a_repetition_gets_the_first_answer_and_other_content_a_conflict_also_after_a_restart() {
    let disk = SimDisk::new();
    let running = Running::start(&disk);
    assert_eq!(running.append(append("a")), at(0));
    assert_eq!(running.append(append("b")), at(1));
    assert_eq!(running.append(append("a")), at(0));
    assert_eq!(running.append(append_as("a", "other")), Err(AppendError::Conflict));
    running.stop().unwrap();

    let running = Running::start(&disk);
    assert_eq!(running.append(append("a")), at(0));
    assert_eq!(running.append(append_as("b", "other")), Err(AppendError::Conflict));
    assert_eq!(running.append(append("c")), at(2));
    assert_eq!(running.stored(), line("a") + &line("b") + &line("c"));
}

#[test]
fn ids_older_than_the_window_in_memory_are_known_too() {
    let disk = SimDisk::new();
    let running = Running::start_with(
        &disk,
        LogOptions { segment_bytes_max: 64 << 10, ..LogOptions::default() },
        QueueLimits { bytes_max: 64 << 20, requests_max: usize::MAX },
    );
    let count = limits::HOT_BATCH_IDS_MAX as u64 + 500;
    let all = join_all((0..count).map(|number| running.handle.append(append(&number.to_string()))));
    let answers = block_on(all);
    assert!(answers.iter().enumerate().all(|(number, answer)| *answer == at(number as u64)));
    assert_eq!(running.append(append("0")), at(0));
    assert_eq!(running.append(append_as("1", "other")), Err(AppendError::Conflict));
    running.stop().unwrap();
    let running = Running::start(&disk);
    assert_eq!(running.append(append("2")), at(2));
}

#[test]
fn a_repetition_in_flight_waits_for_the_first_outcome() {
    let running = Running::start(&SimDisk::new()).with_one_batch();
    let mut first = running.hold_with(append("a"));
    // Its first is being synced; the others wait for the next round, where one repeats the other.
    let mut repeated = running.send(append("a"));
    let conflict = running.send(append_as("a", "other"));
    let second = running.send(append("b"));
    let second_repeated = running.send(append("b"));
    let second_conflict = running.send(append_as("b", "other"));
    assert!(first.is_waiting() && repeated.is_waiting());
    assert_eq!(running.stored(), line("zero"), "nothing is read that is not flushed");
    running.release();
    assert_eq!((first.join(), repeated.join()), (at(1), at(1)));
    assert_eq!((second.join(), second_repeated.join()), (at(2), at(2)));
    assert_eq!(conflict.join(), Err(AppendError::Conflict));
    assert_eq!(second_conflict.join(), Err(AppendError::Conflict));
    assert_eq!(running.stored(), line("zero") + &line("a") + &line("b"));
}

#[test]
fn a_repetition_in_flight_shares_the_failure_and_a_later_one_is_stored() {
    let disk = SimDisk::new();
    let running = Running::start(&disk).with_one_batch();
    let first = running.hold_with(append("a"));
    let second = running.send(append("b"));
    let repeated = running.send(append("b"));
    let conflict = running.send(append_as("b", "other"));
    disk.set_capacity(Some(0));
    running.release();
    assert_eq!(first.join(), at(1));
    for refused in [second, repeated, conflict] {
        assert_eq!(refused.join(), Err(AppendError::DiskFull));
    }
    assert_eq!(running.append(append("a")), at(1), "what is stored is known on a full disk too");
    disk.set_capacity(None);
    // Nothing of the id is stored, so either content may have it now.
    assert_eq!(running.append(append_as("b", "other")), at(2));
    assert_eq!(running.append(append("b")), Err(AppendError::Conflict));
    assert_eq!(running.stored(), line("zero") + &line("a") + &line("other"));
}

#[test]
fn what_waits_is_committed_together_and_answered_in_order() {
    let running = Running::start(&SimDisk::new()).with_one_batch();
    let first = running.hold_with(append("first"));
    let handle = &running.handle;
    let syncs = running.disk.syncs();
    let mut waiting: FuturesUnordered<_> = (0..200_u64)
        .map(|number| async move { (number, handle.append(append(&number.to_string())).await) })
        .collect();
    // Polled once, each of them waits in the queue.
    assert!(block_on(async { futures::poll!(waiting.next()) }).is_pending());
    assert_eq!(handle.queue_depth().requests, 201);
    running.release();
    let answers: Vec<_> = block_on(waiting.collect());
    assert_eq!(first.join(), at(1));
    for (place, (number, answer)) in answers.into_iter().enumerate() {
        assert_eq!((number, answer), (place as u64, at(place as u64 + 2)), "answers come in order");
    }
    // Its two files, once; the first round's second file; and that was all.
    assert!(running.disk.syncs() - syncs <= 3, "{} syncs", running.disk.syncs() - syncs);
    assert_eq!(handle.queue_depth(), QueueDepth::default());
}

#[test]
fn what_waits_is_bounded_by_bytes_and_by_requests() {
    let bytes = line("a").len();
    let limits = QueueLimits { bytes_max: 3 * bytes, requests_max: 100 };
    let running = Running::start_with(&SimDisk::new(), LogOptions::default(), limits).with_one_batch();
    let first = running.hold_with(append("a"));
    let others: Vec<_> = ["b", "c"].map(|name| running.send(append(name))).into();
    assert_eq!(running.handle.queue_depth(), QueueDepth { bytes: 3 * bytes, requests: 3 });
    assert!(matches!(running.append(append("d")), Err(AppendError::QueueFull { .. })));
    running.release();
    assert_eq!(first.join(), at(1));
    for (number, other) in (2..).zip(others) {
        assert_eq!(other.join(), at(number));
    }
    assert_eq!(running.append(append("d")), at(4), "what was refused was not stored");

    let limits = QueueLimits { bytes_max: usize::MAX, requests_max: 2 };
    let running = Running::start_with(&SimDisk::new(), LogOptions::default(), limits);
    let _first = running.hold_with(append("a"));
    let _second = running.send(append("b"));
    assert!(matches!(running.append(append("c")), Err(AppendError::QueueFull { .. })));
    running.release();
}

#[test]
fn a_batch_is_stored_once_although_its_client_went_away() {
    let running = Running::start(&SimDisk::new()).with_one_batch();
    let first = running.hold_with(append("a"));
    let gone = running.send(append("b"));
    drop(gone);
    running.release();
    assert_eq!(first.join(), at(1));
    assert_eq!(running.append(append("b")), at(2));
    assert_eq!(running.append(append("c")), at(3));
    assert_eq!(running.stored(), line("zero") + &line("a") + &line("b") + &line("c"));
}

#[test]
fn a_full_disk_refuses_and_writes_resume_by_themselves() {
    let disk = SimDisk::new();
    let running = Running::start(&disk);
    assert_eq!(running.append(append("a")), at(0));
    disk.set_capacity(Some(disk.used_bytes() + 10));
    assert_eq!(running.append(append("b")), Err(AppendError::DiskFull));
    assert_eq!(running.stored(), line("a"), "reads go on");
    assert!(running.handle.stopped().is_none());
    disk.set_capacity(None);
    assert_eq!(running.append(append("b")), at(1));
}

#[test]
fn after_a_failed_sync_nothing_is_taken_and_nobody_is_told_that_it_is_stored() {
    let disk = SimDisk::new();
    let running = Running::start(&disk);
    assert_eq!(running.append(append("a")), at(0));
    disk.fail_syncs(true);
    let is_stopped = |answer| matches!(answer, Err(AppendError::Stopped { .. }));
    assert!(is_stopped(running.append(append("b"))));
    disk.fail_syncs(false);
    assert!(is_stopped(running.append(append("b"))), "what could not be synced is not known as stored");
    assert!(is_stopped(running.append(append("c"))));
    assert_eq!(running.append(append("a")), at(0), "what was stored before still is");
    assert_eq!(running.stored(), line("a"), "reads go on");
    assert!(running.handle.stopped().is_some());
    assert!(running.stop().is_err());

    let running = Running::start(&disk.after_kill());
    assert_eq!(running.append(append("b")), at(1));
    assert_eq!(running.append(append("c")), at(2));
    assert_eq!(running.stored(), line("a") + &line("b") + &line("c"));
}

#[test]
fn closing_answers_what_waits_and_refuses_what_comes_later() {
    let disk = SimDisk::new();
    let running = Running::start(&disk).with_one_batch();
    let first = running.hold_with(append("a"));
    let second = running.send(append("b"));
    running.handle.close();
    assert_eq!(running.append(append("c")), Err(AppendError::Closing));
    running.release();
    assert_eq!((first.join(), second.join()), (at(1), at(2)));
    running.thread.join().unwrap();
    let (_, report) =
        PartitionLog::open(Arc::new(disk), Path::new(DIR), PARTITION, LogOptions::default(), 0).unwrap();
    assert!(report.was_closed && report.next_offset == Offset::new(3));
}

#[test]
fn an_id_that_the_node_drew_itself_is_not_looked_up() {
    let running = Running::start(&SimDisk::new());
    assert_eq!(running.append(Append { id_is_new: true, ..append("a") }), at(0));
    assert_eq!(running.append(append("a")), at(0), "but it is known from then on");
}

#[test]
fn a_batch_is_synced_within_the_interval_although_nothing_follows_it() {
    let disk = SimDisk::new();
    let interval = Duration::from_millis(30);
    let options = LogOptions { fsync: FsyncPolicy::Interval(interval), ..LogOptions::default() };
    let running = Running::start_with(&disk, options, WIDE);
    // The first write makes the segment's files; after that only the interval syncs.
    running.append(append("a")).unwrap();
    disk.wait_until("the first batch is synced", |seen| seen.is_durable(&Path::new(DIR).join(FIRST_SEGMENT)));
    let started = std::time::Instant::now();
    running.append(append("b")).unwrap();
    disk.wait_until("the second batch is synced", |seen| {
        seen.is_durable(&Path::new(DIR).join(FIRST_SEGMENT))
    });
    assert!(started.elapsed() < limits::MAINTENANCE_INTERVAL, "{:?}", started.elapsed());
}

#[test]
fn what_is_to_be_compressed_is_compressed_without_waiting_for_the_next_second() {
    let disk = SimDisk::new();
    let options =
        LogOptions { segment_bytes_max: 300, compress_age: Some(Duration::ZERO), ..LogOptions::default() };
    let running = Running::start_with(&disk, options, WIDE);
    for number in 0..100 {
        running.append(append(&number.to_string())).unwrap();
    }
    let sealed = running.handle.reader().status().segments.len() - 1;
    assert!(sealed > 30, "{sealed}");
    let started = std::time::Instant::now();
    disk.wait_until("all is compressed", |seen| {
        seen.names().iter().filter(|name| name.ends_with(".jsonl.zst")).count() == sealed
    });
    assert!(started.elapsed() < limits::MAINTENANCE_INTERVAL * 5, "{:?}", started.elapsed());
    // Appends go on in between.
    assert_eq!(running.append(append("more")), at(100));
}

#[test]
fn a_partition_whose_thread_is_gone_says_so() {
    let disk = SimDisk::new();
    let running = Running::start(&disk);
    disk.panic_at_next_write();
    assert!(running.append(append("a")).is_err());
    assert!(matches!(running.thread.join(), Err(PartitionEndError::Panicked { .. })));
    assert!(running.handle.stopped().is_some());
    assert!(matches!(block_on(running.handle.append(append("b"))), Err(AppendError::Stopped { .. })));
}
