//! What a replica makes of the log that it finds at its start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Offset, Partition};

use super::super::state::GroupState;
use super::super::types::{Vote, log_id};
use super::super::{FoundLog, FoundLogError};
use crate::log::tests::batch;
use crate::log::tests::random::Random;
use crate::log::tests::sim_disk::SimDisk;
use crate::log::{
    ConsumerCommit, ConsumerKey, EntryContent, LogError, LogOptions, NewEntry, PartitionLog, RecoveryReport,
};

const DIR: &str = "/data/partition-0";
pub(super) const ENTRIES: u64 = 8;

fn open(disk: &SimDisk) -> (PartitionLog, RecoveryReport) {
    let options = LogOptions { segment_bytes_max: 1500, ..LogOptions::default() };
    PartitionLog::open(Arc::new(disk.clone()), Path::new(DIR), Partition::new(0), options, 0).unwrap()
}

/// The log of a replica that has voted, leads, and has acknowledged some entries.
pub(super) fn replica(applied: Option<u64>) -> SimDisk {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    let mut state = GroupState::default();
    state.set_vote(Vote::new_committed(1, 1));
    if let Some(applied) = applied {
        state.set_applied(log_id(1, applied));
    }
    log.write_group_state(&state.encode()).unwrap();
    for log_index in 1..=ENTRIES {
        let content = EntryContent::Batches(vec![batch(log_index, 2)]);
        log.append_entries(&[NewEntry { log_index, term: 1, appended_at_ms: 0, content }]).unwrap();
        log.sync().unwrap();
    }
    disk
}

/// Where a header of an entry lies: of its batches the `batch`-th.
fn header_of(disk: &SimDisk, log_index: u64, batch: usize) -> (PathBuf, usize) {
    let indexes = disk.names().into_iter().filter(|name| name.ends_with(".batches"));
    let headers = indexes.flat_map(|name| {
        let index = Path::new(DIR).join(name);
        let count = disk.read(&index).len() / 128;
        (1..count).map(move |place| (index.clone(), place * 128))
    });
    let is_of_entry = |(index, position): &(PathBuf, usize)| {
        let header = &disk.read(index)[*position..position + 128];
        header[88..96] == log_index.to_le_bytes() && header[4] != 3
    };
    headers.filter(is_of_entry).nth(batch).unwrap()
}

/// Alters a header of an entry: of its batches the `batch`-th.
fn damage(disk: &SimDisk, log_index: u64, batch: usize) {
    let (index, position) = header_of(disk, log_index, batch);
    let mut bytes = disk.read(&index);
    bytes[position + 60] ^= 1;
    disk.put(&index, &bytes);
}

fn state_of(log: &PartitionLog) -> GroupState {
    GroupState::decode(&log.read_group_state().unwrap().unwrap()).unwrap()
}

fn copy_of(disk: &SimDisk) -> SimDisk {
    disk.after_kill()
}

#[test]
fn a_crash_while_damage_is_cut_off_leaves_no_replica_that_votes_without_what_it_acknowledged() {
    for (victim, applied) in [(1, Some(5)), (3, Some(5)), (3, None), (6, Some(2))] {
        let damaged = replica(applied);
        damage(&damaged, victim, 0);
        for call in 1.. {
            let disk = copy_of(&damaged);
            let (mut log, report) = open(&disk);
            disk.crash_at(disk.calls() + call);
            let is_done = FoundLog::prepare(&mut log, &report).is_ok();
            for seed in 0..6 {
                let left = disk.after_power_cut(&mut Random::new(seed));
                let (mut log, report) = open(&left);
                FoundLog::prepare(&mut log, &report).unwrap();
                let (state, last) = (state_of(&log), log.last_index());
                let what = format!("entry {victim}, call {call}, seed {seed}");
                assert!(state.is_refilling() || last == Some(ENTRIES), "{what}: {last:?}");
                assert_eq!(state.vote(), Some(Vote::new(1, 1)), "{what}");
                assert!(state.applied().map(|applied| applied.index + 1) <= last, "{what}: {state:?}");
            }
            if is_done {
                break;
            }
        }
    }
}

#[test]
fn a_power_cut_while_entries_are_written_costs_no_replica_its_vote() {
    for call in 1.. {
        let disk = replica(Some(3));
        let (mut log, report) = open(&disk);
        FoundLog::prepare(&mut log, &report).unwrap();
        disk.crash_at(disk.calls() + call);
        let write = |log: &mut PartitionLog, log_index| {
            let content = EntryContent::Batches(vec![batch(log_index, 2)]);
            log.append_entries(&[NewEntry { log_index, term: 1, appended_at_ms: 0, content }])?;
            log.sync()
        };
        let written = (ENTRIES + 1..=2 * ENTRIES).take_while(|index| write(&mut log, *index).is_ok()).count();
        let acknowledged = ENTRIES + written as u64;
        for seed in 0..6 {
            let left = disk.after_power_cut(&mut Random::new(seed));
            let (mut log, report) = open(&left);
            FoundLog::prepare(&mut log, &report).unwrap();
            let what = format!("call {call}, seed {seed}: {report:?}");
            assert!(!state_of(&log).is_refilling(), "{what}");
            assert!(log.last_index() >= Some(acknowledged), "{what}: {:?}", log.last_index());
        }
        if acknowledged == 2 * ENTRIES {
            break;
        }
    }
}

#[test]
fn a_replica_whose_last_segment_has_neither_an_index_nor_a_line_that_can_be_read_has_lost_entries() {
    let disk = replica(Some(3));
    let last = |suffix: &str| {
        let name = disk.names().into_iter().filter(|name| name.ends_with(suffix)).max().unwrap();
        Path::new(DIR).join(name)
    };
    let (index, data) = (last(".batches"), last(".jsonl"));
    disk.put(&index, &vec![0; disk.read(&index).len()]);
    let lines = disk.read(&data);
    assert!(!lines.is_empty());
    disk.put(&data, &vec![b'x'; lines.len()]);
    let (mut log, report) = open(&disk);
    FoundLog::prepare(&mut log, &report).unwrap();
    assert!(state_of(&log).is_refilling(), "{report:?}");
}

#[test]
fn of_an_entry_of_several_batches_nothing_is_kept_when_one_of_them_is_damaged() {
    for (segment_bytes_max, victim) in [(1 << 20, 4), (1 << 20, 1), (1500, 4), (1500, 1)] {
        for batch_of_victim in 0..3 {
            let disk = SimDisk::new();
            let options = LogOptions { segment_bytes_max, ..LogOptions::default() };
            let dir = Path::new(DIR);
            let open = |disk: &SimDisk| {
                PartitionLog::open(Arc::new(disk.clone()), dir, Partition::new(0), options.clone(), 0)
                    .unwrap()
            };
            let (mut log, _) = open(&disk);
            log.write_group_state(&GroupState::default().encode()).unwrap();
            for log_index in 1..=ENTRIES {
                let batches = (0..3).map(|number| batch(log_index * 10 + number, 2)).collect();
                let content = EntryContent::Batches(batches);
                log.append_entries(&[NewEntry { log_index, term: 1, appended_at_ms: 0, content }]).unwrap();
                log.sync().unwrap();
            }
            drop(log);
            damage(&disk, victim, batch_of_victim);
            let (mut log, report) = open(&disk);
            FoundLog::prepare(&mut log, &report).unwrap();
            assert!(state_of(&log).is_refilling());
            assert_eq!(log.last_index().unwrap_or(0), victim - 1, "batch {batch_of_victim}");
            assert_eq!(log.written_end().get(), (victim - 1) * 6);
        }
    }
}

#[test]
fn a_log_that_ends_before_what_its_replica_said_is_filled_anew() {
    let disk = replica(Some(5));
    let (mut log, _) = open(&disk);
    log.truncate_from(4).unwrap();
    drop(log);
    let (mut log, report) = open(&disk);
    FoundLog::prepare(&mut log, &report).unwrap();
    let state = state_of(&log);
    assert!(state.is_refilling() && state.applied() == Some(log_id(1, 2)), "{state:?}");
}

#[test]
fn blanks_without_a_replicas_state_are_no_new_log() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    let blank = NewEntry { log_index: 1, term: 1, appended_at_ms: 0, content: EntryContent::Blank };
    log.append_entries(&[blank]).unwrap();
    log.sync().unwrap();
    drop(log);
    let (mut log, report) = open(&disk);
    assert!(matches!(FoundLog::prepare(&mut log, &report), Err(FoundLogError::NotReplicated)));
}

#[test]
fn a_replica_whose_last_entry_was_altered_after_a_crash_does_not_vote_without_it() {
    // It is acknowledged, and no later entry says that it was flushed; nor does what is known to be applied.
    for part in [".batches", ".jsonl"] {
        let disk = replica(Some(5));
        let name = disk.names().into_iter().filter(|name| name.ends_with(part)).max().unwrap();
        let path = Path::new(DIR).join(name);
        let mut bytes = disk.read(&path);
        let place = bytes.len() - 30;
        bytes[place] ^= 1;
        disk.put(&path, &bytes);
        let (mut log, report) = open(&copy_of(&disk));
        FoundLog::prepare(&mut log, &report).unwrap();
        assert_eq!(log.last_index(), Some(ENTRIES - 1), "{part}");
        let mut state = state_of(&log);
        assert!(state.is_refilling(), "{part}: {state:?}");
        for (applied, has) in [(ENTRIES - 2, false), (ENTRIES - 1, true)] {
            state.set_applied(log_id(1, applied));
            assert_eq!(state.has_what_it_had(), has, "{part}: {applied}");
        }
    }
}

#[test]
fn a_replica_whose_last_entries_without_records_were_altered_does_not_vote_without_them() {
    let consumer = ConsumerCommit { consumer: ConsumerKey::of("c"), offset: Some(Offset::new(3)) };
    for content in [EntryContent::Blank, EntryContent::Consumer(consumer)] {
        for (altered, is_closed) in [(1, false), (2, false), (1, true), (2, true)] {
            let disk = replica(Some(5));
            let (mut log, _) = open(&disk);
            for log_index in ENTRIES + 1..=ENTRIES + 2 {
                let content = content.clone();
                log.append_entries(&[NewEntry { log_index, term: 1, appended_at_ms: 0, content }]).unwrap();
                log.sync().unwrap();
            }
            if is_closed {
                log.close().unwrap();
            } else {
                drop(log);
            }
            for log_index in ENTRIES + 3 - altered..=ENTRIES + 2 {
                damage(&disk, log_index, 0);
            }
            let what = format!("{content:?}, {altered} altered, closed: {is_closed}");
            let (mut log, report) = open(&copy_of(&disk));
            assert_eq!(u64::from(report.altered.cut), altered, "{what}");
            FoundLog::prepare(&mut log, &report).unwrap();
            assert_eq!(log.last_index(), Some(ENTRIES + 2 - altered), "{what}");
            let mut state = state_of(&log);
            assert!(state.is_refilling(), "{what}: {state:?}");
            for (applied, has) in [(ENTRIES, false), (ENTRIES + 1, true)] {
                state.set_applied(log_id(1, applied));
                assert_eq!(state.has_what_it_had(), has, "{what}: {applied}");
            }
        }
    }
}

#[test]
fn an_entry_of_which_a_part_is_altered_is_waited_for_and_none_behind_it() {
    let disk = replica(Some(5));
    let (mut log, _) = open(&disk);
    let content = EntryContent::Batches((90..93).map(|number| batch(number, 2)).collect());
    log.append_entries(&[NewEntry { log_index: ENTRIES + 1, term: 1, appended_at_ms: 0, content }]).unwrap();
    log.sync().unwrap();
    drop(log);
    damage(&disk, ENTRIES + 1, 2);
    let (mut log, report) = open(&copy_of(&disk));
    FoundLog::prepare(&mut log, &report).unwrap();
    let mut state = state_of(&log);
    for (applied, has) in [(ENTRIES - 1, false), (ENTRIES, true)] {
        state.set_applied(log_id(1, applied));
        assert_eq!(state.has_what_it_had(), has, "{applied}");
    }
}

#[test]
fn damage_in_front_of_entries_that_can_be_read_makes_no_entry_behind_them() {
    let disk = replica(Some(5));
    let (mut log, _) = open(&disk);
    let content = EntryContent::Blank;
    log.append_entries(&[NewEntry { log_index: ENTRIES + 1, term: 1, appended_at_ms: 0, content }]).unwrap();
    log.sync().unwrap();
    drop(log);
    damage(&disk, ENTRIES, 0);
    let (mut log, report) = open(&copy_of(&disk));
    FoundLog::prepare(&mut log, &report).unwrap();
    let mut state = state_of(&log);
    assert!(state.is_refilling());
    state.set_applied(log_id(1, ENTRIES));
    assert!(state.has_what_it_had(), "{state:?}");
}

#[test]
fn entries_of_a_later_version_are_refused_wherever_they_lie_and_nothing_is_cut_or_written() {
    // In each segment, sealed or not; also behind damage.
    for (victim, damaged) in [(1, None), (4, None), (ENTRIES, None), (6, Some(2))] {
        let disk = replica(Some(5));
        let (index, position) = header_of(&disk, victim, 0);
        let mut bytes = disk.read(&index);
        let header = &mut bytes[position..position + 128];
        header[4] = 77;
        let crc = crc32fast::hash(&header[4..]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
        disk.put(&index, &bytes);
        if let Some(damaged) = damaged {
            damage(&disk, damaged, 0);
        }
        let files = |disk: &SimDisk| -> Vec<_> {
            let names = disk.names().into_iter().filter(|name| name != "lock");
            names.map(|name| (disk.read(&Path::new(DIR).join(&name)), name)).collect()
        };
        let before = files(&disk);
        let options = LogOptions { segment_bytes_max: 1500, ..LogOptions::default() };
        let opened =
            PartitionLog::open(Arc::new(disk.clone()), Path::new(DIR), Partition::new(0), options, 0);
        let refused = opened
            .map_err(FoundLogError::Log)
            .and_then(|(mut log, report)| FoundLog::prepare(&mut log, &report));
        let error = refused.map(drop).expect_err("it is refused");
        assert!(
            matches!(error, FoundLogError::Log(LogError::UnknownFormat { .. })),
            "entry {victim}: {error}"
        );
        assert!(files(&disk) == before, "entry {victim}");
    }
}
