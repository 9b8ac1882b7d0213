//! A disk that fills up, fails or writes short: refused appends leave no trace, a failed sync stops the log.

use super::*;
use crate::log::FsyncPolicy;

#[test]
fn a_full_disk_refuses_appends_whole_and_takes_them_when_there_is_room() {
    let written = some_batches(6);
    let disk = SimDisk::new();
    let mut log = log_of(&disk, &one_segment(), &written);
    let files = (disk.read(&path(0, Part::Data)), disk.read(&path(0, Part::Index)));
    // Every amount of room that is too little, wherever that cuts the group.
    let group = [batch(100, 2), batch(101, 3)];
    let needed: u64 = group.iter().map(|new| new.batch.bytes().len() as u64 + 128).sum();
    for room in 0..needed {
        disk.set_capacity(Some(disk.used_bytes() + room));
        assert!(matches!(log.append(&group), Err(LogError::DiskFull)), "room {room} of {needed}");
        assert_eq!((disk.read(&path(0, Part::Data)), disk.read(&path(0, Part::Index))), files);
        assert_same(&read_all(&log.reader()), &written);
    }
    disk.set_capacity(Some(disk.used_bytes() + needed));
    commit(&mut log, &[]).unwrap();
    log.append(&group).unwrap();
    let end = log.sync().unwrap();
    log.publish(end);
    assert_same(&read_all(&log.reader()), &[written, group.to_vec()].concat());
}

#[test]
fn a_disk_that_fills_up_at_a_roll_refuses_and_recovers() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &small_segments());
    let mut written: Vec<NewBatch> = Vec::new();
    let mut refused = 0;
    for number in 0..60 {
        let new = batch(number, number % 3 + 1);
        // Room for a little less than a batch, over and over.
        disk.set_capacity(Some(disk.used_bytes() + number * 37 % 400));
        match commit(&mut log, std::slice::from_ref(&new)) {
            Ok(()) => written.push(new),
            Err(LogError::DiskFull) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        assert_same(&read_all(&log.reader()), &written);
    }
    assert!(refused > 5 && written.len() > 5, "{refused} refused, {} written", written.len());
    disk.set_capacity(None);
    commit(&mut log, &[batch(500, 2)]).unwrap();
    written.push(batch(500, 2));
    log.close().unwrap();
    let (log, report) = open(&disk, &small_segments());
    assert!(report.damage.is_empty());
    assert_same(&read_all(&log.reader()), &written);
}

#[test]
fn a_full_disk_still_opens_reads_deletes_and_closes() {
    let written = some_batches(12);
    let disk = SimDisk::new();
    let mut log = log_of(&disk, &small_segments(), &written);
    log.maintain(0).unwrap();
    assert!(disk.names().iter().any(|name| name == "reserve"));
    drop(log);
    let disk = disk.after_kill();
    disk.set_capacity(Some(disk.used_bytes()));
    let options = LogOptions { retention_age: Some(Duration::from_millis(1)), ..small_segments() };
    let (mut log, _) = open(&disk, &options);
    assert_same(&read_all(&log.reader()), &written);
    assert!(matches!(log.append(&[batch(100, 1)]), Err(LogError::DiskFull)));
    let segments = log.reader().status().segments.len();
    let report = log.maintain(100 * BATCH_MS).unwrap();
    assert_eq!(report.deleted_segments as usize, segments - 1);
    // What was deleted made room: writes resume by themselves.
    commit(&mut log, &[batch(100, 1)]).unwrap();
    log.close().unwrap();
    let (_, report) = open(&disk, &options);
    assert!(report.was_closed);
}

#[test]
fn the_reserve_is_given_up_for_the_clean_close_marker() {
    let disk = SimDisk::new();
    let mut log = log_of(&disk, &one_segment(), &some_batches(3));
    log.maintain(0).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    log.close().unwrap();
    assert!(!disk.names().iter().any(|name| name == "reserve"));
    assert!(open(&disk, &one_segment()).1.was_closed);
}

#[test]
fn after_a_failed_sync_nothing_is_written_until_a_restart() {
    let written = some_batches(3);
    let disk = SimDisk::new();
    let mut log = log_of(&disk, &one_segment(), &written);
    log.append(&[batch(100, 1)]).unwrap();
    disk.fail_syncs(true);
    assert!(matches!(log.sync(), Err(LogError::Stopped { .. })));
    disk.fail_syncs(false);
    // The second sync would succeed, and say nothing of what the first one lost.
    assert!(matches!(log.sync(), Err(LogError::Stopped { .. })));
    assert!(matches!(log.append(&[batch(101, 1)]), Err(LogError::Stopped { .. })));
    assert!(matches!(log.maintain(0), Err(LogError::Stopped { .. })));
    assert!(
        matches!(log.find_batch(id(100)), Err(LogError::Stopped { .. })),
        "nobody is told that it is stored"
    );
    assert!(log.find_batch(id(2)).unwrap().is_some());
    log.publish(log.written_end());
    assert_same(&read_all(&log.reader()), &written);
    assert!(log.reader().status().stopped.is_some());
    assert!(matches!(log.close(), Err(LogError::Stopped { .. })));

    let (mut log, _) = open(&disk.after_kill(), &one_segment());
    assert!(read_all(&log.reader()).len() >= written.len());
    commit(&mut log, &[batch(101, 1)]).unwrap();
}

#[test]
fn a_write_that_fails_leaves_no_trace() {
    let written = some_batches(3);
    let disk = SimDisk::new();
    let mut log = log_of(&disk, &one_segment(), &written);
    disk.fail_writes(true);
    assert!(matches!(log.append(&[batch(100, 1)]), Err(LogError::Io { .. })));
    disk.fail_writes(false);
    assert_same(&read_all(&log.reader()), &written);
    commit(&mut log, &[batch(101, 1)]).unwrap();
    assert_same(&read_all(&log.reader()), &[written, vec![batch(101, 1)]].concat());
}

#[test]
fn a_bad_sector_costs_its_own_batch_alone_and_nothing_is_cut() {
    for victim in 0..5 {
        let written = some_batches(5);
        let disk = SimDisk::new();
        drop(log_of(&disk, &one_segment(), &written));
        let position: usize = written.iter().take(victim).map(|new| new.batch.bytes().len()).sum();
        let disk = disk.after_kill();
        disk.set_bad_sector(&path(0, Part::Data), position as u64 + 3);
        let (mut log, report) = open(&disk, &one_segment());
        assert_eq!((report.damage.len(), report.torn_bytes, report.lost_records), (1, 0, 0));
        commit(&mut log, &[batch(100, 1)]).unwrap();
        let items: Vec<_> = log.reader().batches_from(Offset::ZERO).collect();
        assert_eq!(items.len(), 6);
        for (number, item) in items.iter().enumerate() {
            assert_eq!(item.is_err(), number == victim, "batch {number} with {victim} bad");
        }
    }
}

#[test]
fn short_writes_are_continued() {
    for bytes in [1, 7, 127, 128, 129] {
        let written = some_batches(5);
        let disk = SimDisk::new();
        disk.set_write_bytes_max(Some(bytes));
        let (mut log, _) = open(&disk, &small_segments());
        log.append(&written).unwrap();
        let end = log.sync().unwrap();
        log.publish(end);
        assert_same(&read_all(&log.reader()), &written);
        drop(log);
        let (log, _) = open(&disk.after_kill(), &small_segments());
        assert_same(&read_all(&log.reader()), &written);
    }
}

#[test]
fn two_writers_of_one_log_are_refused() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, &one_segment());
    assert!(matches!(try_open(&disk, &one_segment()), Err(LogError::Locked { .. })));
    drop(log);
    open(&disk, &one_segment());
}

#[test]
fn nothing_that_is_not_flushed_is_read_unless_the_policy_says_so() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &one_segment());
    log.append(&some_batches(2)).unwrap();
    log.publish(log.written_end());
    assert!(read_all(&log.reader()).is_empty());
    assert_eq!((log.flushed_end().get(), log.written_end().get()), (0, 3));

    for (fsync, is_synced) in
        [(FsyncPolicy::Never, false), (FsyncPolicy::Interval(Duration::from_millis(5 * BATCH_MS)), true)]
    {
        let disk = SimDisk::new();
        let options = LogOptions { fsync, ..one_segment() };
        let (mut log, _) = open(&disk, &options);
        // The interval is over with the batch that is appended at its end.
        for (number, is_due) in [(0, false), (1, false), (6, true)] {
            log.append(&[batch(number, number + 1)]).unwrap();
            let end = log.sync().unwrap();
            log.publish(end);
            assert_eq!(end, log.written_end());
            let expected = if is_due && is_synced { log.written_end() } else { Offset::ZERO };
            assert_eq!(log.flushed_end(), expected, "{fsync:?}");
        }
        assert_eq!(read_all(&log.reader()).len(), 3);
        log.close().unwrap();
        assert_eq!(read_all(&open(&disk, &options).0.reader()).len(), 3);
    }
}
