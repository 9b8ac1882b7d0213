//! The machine dies at every single call: what was acknowledged is there, once, in order; the rest whole or absent.

use std::time::Duration;

use super::random::Random;
use super::*;
use crate::log::{AlteredEnd, LogOptions};

/// What a run did before the machine died.
#[derive(Default)]
struct Run {
    /// Every batch that was handed to the log, in order.
    appended: Vec<NewBatch>,
    /// How many of them were acknowledged.
    acknowledged: usize,
    /// The first record that retention may have left.
    kept_from: Offset,
}

impl Run {
    /// Uses the log in every way until the machine dies.
    fn go(&mut self, disk: &SimDisk, options: &LogOptions) -> Result<(), LogError> {
        let (mut log, _) = try_open(disk, options)?;
        for round in 0..6 {
            self.group_commit(&mut log, round % 3 + 1)?;
        }
        log.close()?;
        let (mut log, _) = try_open(disk, options)?;
        self.group_commit(&mut log, 2)?;
        // Time passes: the first segments are compressed, the active one is rolled, and later the oldest are deleted.
        self.maintain(&mut log, 200 * BATCH_MS)?;
        self.group_commit(&mut log, 1)?;
        self.maintain(&mut log, 400 * BATCH_MS)?;
        self.group_commit(&mut log, 3)?;
        log.close()
    }

    fn group_commit(&mut self, log: &mut PartitionLog, batches: u64) -> Result<(), LogError> {
        let first = self.appended.len() as u64;
        let group: Vec<NewBatch> =
            (first..first + batches).map(|number| batch(number, number % 4 + 1)).collect();
        self.appended.extend_from_slice(&group);
        log.append(&group)?;
        let end = log.sync()?;
        log.publish(end);
        self.acknowledged = self.appended.len();
        Ok(())
    }

    fn maintain(&mut self, log: &mut PartitionLog, now_ms: u64) -> Result<(), LogError> {
        let last_base = log.reader().status().segments.last().map_or(Offset::ZERO, |last| last.end_offset);
        // Whatever it deletes, even if it dies in between, is sealed by then.
        self.kept_from = last_base;
        while log.maintain(now_ms)?.more {}
        self.kept_from = log.reader().first_offset();
        Ok(())
    }

    /// Asserts what a crash may never break, and that the log goes on.
    fn check(&self, disk: &SimDisk, options: &LogOptions, context: &str) {
        let (mut log, report) = open(disk, options);
        assert!(report.damage.is_empty(), "{context}: {:?}", report.damage);
        assert_eq!(report.altered, AlteredEnd::default(), "{context}: a crash alters nothing");
        let stored = read_all(&log.reader());
        let bases = base_offsets(&self.appended);
        let first = stored.first().map_or(log.flushed_end(), |first| first.base_offset);
        let skipped = bases.iter().position(|base| *base == first).unwrap_or_else(|| {
            panic!("{context}: {first} begins no batch");
        });
        assert!(
            first <= self.kept_from,
            "{context}: what retention left begins at {}, not {first}",
            self.kept_from
        );
        let there = skipped + stored.len();
        assert!(there >= self.acknowledged, "{context}: {there} of {} acknowledged", self.acknowledged);
        assert_same(&stored, &self.appended[skipped..there]);
        for (number, new) in self.appended.iter().enumerate() {
            let known = log.find_batch(new.id).unwrap();
            assert_eq!(known.is_some(), (skipped..there).contains(&number), "{context}: id {number}");
        }

        let more = batch(1000, 3);
        commit(&mut log, std::slice::from_ref(&more)).unwrap();
        log.close().unwrap();
        let (log, report) = open(disk, options);
        assert!(report.was_closed && report.torn_bytes == 0, "{context}: {report:?}");
        let mut expected = self.appended[skipped..there].to_vec();
        expected.push(more);
        assert_same(&read_all(&log.reader()), &expected);
    }
}

/// Where each batch begins; and where the one after the last would.
fn base_offsets(batches: &[NewBatch]) -> Vec<Offset> {
    let ends = batches.iter().scan(Offset::ZERO, |end, new| {
        *end = end.plus(new.batch.record_count().into());
        Some(*end)
    });
    std::iter::once(Offset::ZERO).chain(ends).collect()
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

#[test]
fn acknowledged_batches_survive_a_power_cut_at_every_call() {
    let options = busy_options();
    let whole = SimDisk::new();
    let mut run = Run::default();
    run.go(&whole, &options).unwrap();
    let calls = whole.calls();
    run.check(&whole.after_kill(), &options, "without a crash");
    for call in 1..=calls {
        let disk = SimDisk::new();
        disk.crash_at(call);
        let mut run = Run::default();
        run.go(&disk, &options).unwrap_err();
        assert!(disk.is_dead());
        for seed in 0..24 {
            let left = disk.after_power_cut(&mut Random::new(seed));
            run.check(&left, &options, &format!("power cut at call {call} of {calls}, seed {seed}"));
        }
    }
}

#[test]
fn acknowledged_batches_survive_a_kill_at_every_call() {
    let options = busy_options();
    let whole = SimDisk::new();
    Run::default().go(&whole, &options).unwrap();
    for call in 1..=whole.calls() {
        let disk = SimDisk::new();
        disk.crash_at(call);
        let mut run = Run::default();
        run.go(&disk, &options).unwrap_err();
        run.check(&disk.after_kill(), &options, &format!("kill at call {call}"));
    }
}

#[test]
fn what_was_read_after_a_kill_survives_a_power_cut() {
    let options = one_segment();
    let disk = SimDisk::new();
    let batches = some_batches(4);
    let (mut log, _) = open(&disk, &options);
    log.append(&batches).unwrap();
    // The process dies before its sync; the page cache does not.
    let disk = disk.after_kill();
    let (log, _) = open(&disk, &options);
    assert_same(&read_all(&log.reader()), &batches);
    for seed in 0..24 {
        let (log, _) = open(&disk.after_power_cut(&mut Random::new(seed)), &options);
        assert_same(&read_all(&log.reader()), &batches);
    }
}

#[test]
fn a_refused_write_leaves_nothing_that_a_power_cut_could_bring_back() {
    let options = one_segment();
    let written = some_batches(3);
    for seed in 0..200 {
        let disk = SimDisk::new();
        let mut log = log_of(&disk, &options, &written);
        disk.set_capacity(Some(disk.used_bytes() + 3000));
        assert!(matches!(log.append(&[batch(100, 40)]), Err(LogError::DiskFull)));
        disk.set_capacity(None);
        // Their bytes come to lie where those of the refused batch were for a while.
        log.append(&(200..210).map(|number| batch(number, 2)).collect::<Vec<_>>()).unwrap();
        let (log, report) = open(&disk.after_power_cut(&mut Random::new(seed)), &options);
        assert!(report.damage.is_empty(), "seed {seed}: {:?}", report.damage);
        assert_eq!(report.altered, AlteredEnd::default(), "seed {seed}");
        assert_same(&read_all(&log.reader())[..3], &written);
    }
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    let options = busy_options();
    let disk = SimDisk::new();
    let mut run = Run::default();
    run.go(&disk, &options).unwrap();
    // A torn batch behind all that is whole, and a power cut at each call of putting that right.
    disk.crash_at(disk.calls() + 1);
    let torn = disk.after_kill();
    let last = path(last_segment(&torn), Part::Data);
    torn.put(&last, &[torn.read(&last), b"{\"timestamp\":1".to_vec()].concat());
    for call in 1.. {
        let disk = torn.after_kill();
        disk.crash_at(call);
        let outcome = try_open(&disk, &options).and_then(|(mut log, _)| {
            commit(&mut log, &[batch(500, 2)])?;
            log.close()
        });
        if outcome.is_ok() {
            assert!(call > 5, "putting right takes some calls");
            break;
        }
        for seed in 0..24 {
            let left = disk.after_power_cut(&mut Random::new(seed));
            let mut with_more = Run { appended: run.appended.clone(), ..run };
            with_more.appended.push(batch(500, 2));
            with_more.check(&left, &options, &format!("call {call}, seed {seed}"));
        }
    }
}

fn last_segment(disk: &SimDisk) -> u64 {
    let names = disk.names();
    names.iter().filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok()).max().unwrap()
}
