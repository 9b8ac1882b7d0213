//! Every single call fails once, in every way: what was acknowledged survives it, a restart and a power cut; what was
//! refused never appears; and after a failed sync the log takes nothing more until it is opened again.

use std::collections::BTreeMap;

use super::random::Random;
use super::sim_disk::Fault;
use super::*;

/// A client of the log that repeats what it was not told to be stored, and the operator who restarts a stopped log.
struct Client<'a> {
    disk: &'a SimDisk,
    options: LogOptions,
    log: Option<PartitionLog>,
    next_number: u64,
    /// Where each acknowledged batch was stored.
    acked: BTreeMap<u64, Offset>,
    /// Batches to be repeated.
    open_numbers: Vec<u64>,
    /// The first record that retention may have left.
    kept_from: Offset,
    restarts: u32,
    /// Whether nobody restarts a stopped log.
    is_left_stopped: bool,
    /// Whether there is nothing more to be done: the log is left stopped, or the machine is dead.
    is_over: bool,
}

impl<'a> Client<'a> {
    fn new(disk: &'a SimDisk, options: &LogOptions) -> Self {
        Self {
            disk,
            options: options.clone(),
            log: None,
            next_number: 0,
            acked: BTreeMap::new(),
            open_numbers: Vec::new(),
            kept_from: Offset::ZERO,
            restarts: 0,
            is_left_stopped: false,
            is_over: false,
        }
    }

    /// Uses the log in every way.
    fn go(&mut self) {
        for round in 0..6 {
            self.commit_new(round % 3 + 1);
        }
        self.close();
        self.commit_new(2);
        // Time passes: the first segments are compressed, the active one is rolled, and later the oldest are deleted.
        self.maintain(200 * BATCH_MS);
        self.commit_new(1);
        self.maintain(400 * BATCH_MS);
        self.commit_new(3);
        self.repeat_open();
        assert!(self.is_over || self.open_numbers.is_empty(), "one fault does not last");
    }

    /// The log, opened if need be; `None` when all is over.
    fn log(&mut self) -> Option<&mut PartitionLog> {
        if self.log.is_none() && !self.is_over {
            // The first opening may meet the fault; an operator tries again.
            let opened = try_open(self.disk, &self.options).or_else(|_| try_open(self.disk, &self.options));
            self.is_over = self.disk.is_dead();
            self.log = if self.is_over { None } else { Some(opened.unwrap().0) };
        }
        self.log.as_mut().filter(|_| !self.is_over)
    }

    fn commit_new(&mut self, batches: u64) {
        let numbers: Vec<u64> = (self.next_number..self.next_number + batches).collect();
        self.next_number += batches;
        self.open_numbers.extend(&numbers);
        self.commit(&numbers);
    }

    fn commit(&mut self, numbers: &[u64]) {
        let group: Vec<NewBatch> = numbers.iter().map(|number| batch(*number, number % 4 + 1)).collect();
        let Some(log) = self.log() else { return };
        let offsets = log.append(&group).and_then(|offsets| {
            let end = log.sync()?;
            log.publish(end);
            Ok(offsets)
        });
        self.is_over |= self.disk.is_dead();
        match offsets {
            Ok(offsets) => {
                self.acked.extend(numbers.iter().copied().zip(offsets));
                self.open_numbers.retain(|number| !numbers.contains(number));
            }
            Err(LogError::Stopped { .. }) => self.restart(),
            Err(_) => {
                let Some(log) = self.log() else { return };
                for new in &group {
                    assert_eq!(log.find_batch(new.id).unwrap(), None, "what is refused is not there");
                }
            }
        }
    }

    /// Sends again what was not acknowledged, as deduplication takes it.
    fn repeat_open(&mut self) {
        for number in std::mem::take(&mut self.open_numbers) {
            let Some(log) = self.log() else { return };
            if let Some(known) = log.find_batch(id(number)).unwrap() {
                self.acked.insert(number, known.base_offset);
            } else {
                self.open_numbers.push(number);
                self.commit(&[number]);
            }
        }
    }

    fn maintain(&mut self, now_ms: u64) {
        let disk = self.disk;
        let Some(log) = self.log() else { return };
        // Whatever it deletes, even if it fails in between, is sealed by then.
        let sealed_end = log.reader().status().segments.last().map_or(Offset::ZERO, |last| last.end_offset);
        let outcome = loop {
            match log.maintain(now_ms) {
                Ok(report) if !report.more => break Ok(log.reader().first_offset()),
                Err(error @ LogError::Stopped { .. }) => break Err(error),
                Err(error) if disk.is_dead() => break Err(error),
                Ok(_) | Err(_) => {}
            }
        };
        self.kept_from = *outcome.as_ref().unwrap_or(&sealed_end);
        self.is_over |= disk.is_dead();
        if let Err(LogError::Stopped { .. }) = outcome {
            self.restart();
        }
    }

    fn close(&mut self) {
        if let Some(log) = self.log.take() {
            log.close().ok();
        }
    }

    fn restart(&mut self) {
        self.is_over |= self.is_left_stopped;
        if !self.is_over {
            self.log = None;
            self.restarts += 1;
        }
    }

    /// Asserts what may never break, on what is left of the disk.
    fn check(&self, disk: &SimDisk, context: &str) {
        let (log, report) = open(disk, &self.options);
        assert!(report.damage.is_empty() && report.lost_records == 0, "{context}: {report:?}");
        let stored: BTreeMap<Offset, StoredBatch> =
            read_all(&log.reader()).into_iter().map(|batch| (batch.base_offset, batch)).collect();
        assert!(log.reader().first_offset() <= self.kept_from, "{context}");
        let mut expected = 0;
        for (number, base_offset) in &self.acked {
            if *base_offset < log.reader().first_offset() {
                continue;
            }
            expected += 1;
            let there =
                stored.get(base_offset).unwrap_or_else(|| panic!("{context}: batch {number} is lost"));
            let new = batch(*number, number % 4 + 1);
            assert_eq!(there.bytes, new.batch.bytes(), "{context}: batch {number}");
            let known = log.find_batch(new.id).unwrap().map(|known| known.base_offset);
            assert_eq!(known, Some(*base_offset), "{context}: id {number}");
        }
        assert_eq!(stored.len(), expected, "{context}: something is there twice, or was never sent");
    }
}

fn busy_options() -> LogOptions {
    LogOptions {
        segment_bytes_max: 1200,
        segment_age_max: Duration::from_millis(100 * BATCH_MS),
        compress_age: Some(Duration::from_millis(100 * BATCH_MS)),
        retention_age: Some(Duration::from_millis(300 * BATCH_MS)),
        ..LogOptions::default()
    }
}

fn calls_of_a_run(options: &LogOptions) -> u64 {
    let disk = SimDisk::new();
    Client::new(&disk, options).go();
    disk.calls()
}

#[test]
fn acknowledged_batches_survive_a_failure_of_every_call() {
    let options = busy_options();
    let calls = calls_of_a_run(&options);
    let mut restarts = 0;
    for fault in [Fault::Io, Fault::Full, Fault::Short] {
        for call in 1..=calls {
            let disk = SimDisk::new();
            disk.fault_at(call, fault);
            let mut client = Client::new(&disk, &options);
            client.go();
            client.check(&disk.after_kill(), &format!("{fault:?} at call {call} of {calls}"));
            for seed in 0..6 {
                let left = disk.after_power_cut(&mut Random::new(seed));
                client.check(
                    &left,
                    &format!("{fault:?} at call {call} of {calls}, power cut with seed {seed}"),
                );
            }
            restarts += client.restarts;
        }
    }
    assert!(restarts > 20, "syncs fail too: {restarts}");
}

#[test]
fn a_failure_of_any_sync_stops_the_log_for_good() {
    let options = busy_options();
    let calls = calls_of_a_run(&options);
    let mut stopped = 0;
    for call in 1..=calls {
        let disk = SimDisk::new();
        disk.fault_at(call, Fault::Io);
        let mut client = Client { is_left_stopped: true, ..Client::new(&disk, &options) };
        client.go();
        let Some(mut log) = client.log.take().filter(|_| client.is_over) else { continue };
        stopped += 1;
        let calls = disk.calls();
        assert!(matches!(log.append(&[batch(1000, 1)]), Err(LogError::Stopped { .. })), "call {call}");
        assert!(matches!(log.maintain(900 * BATCH_MS), Err(LogError::Stopped { .. })), "call {call}");
        assert!(matches!(log.sync(), Err(LogError::Stopped { .. })), "call {call}");
        assert!(log.reader().status().stopped.is_some_and(|cause| cause.contains("sync")), "call {call}");
        assert!(matches!(log.close(), Err(LogError::Stopped { .. })), "call {call}");
        assert_eq!(disk.calls(), calls, "nothing on the disk changes any more");
    }
    assert!(stopped > 20, "{stopped}");
}

#[test]
fn what_survived_a_kill_survives_the_power_cut_after_it() {
    let options = busy_options();
    for call in 1..=calls_of_a_run(&options) {
        let first_life = SimDisk::new();
        first_life.crash_at(call);
        let mut client = Client::new(&first_life, &options);
        client.go();
        let disk = first_life.after_kill();
        let mut second = Client { disk: &disk, log: None, is_over: false, ..client };
        // The clients' retries meet what the process had written before it died.
        second.repeat_open();
        second.maintain(400 * BATCH_MS);
        second.commit_new(1);
        for seed in 0..6 {
            let left = disk.after_power_cut(&mut Random::new(seed));
            second.check(&left, &format!("kill at call {call}, power cut with seed {seed}"));
        }
    }
}
