//! Rolling, retention and compression, and the readers that live through them.

use super::*;
use crate::log::MaintenanceReport;

fn aged(options: LogOptions) -> LogOptions {
    LogOptions { compress_age: Some(Duration::from_millis(10 * BATCH_MS)), ..options }
}

fn maintain_all(log: &mut PartitionLog, now_ms: u64) -> MaintenanceReport {
    let mut total = MaintenanceReport::default();
    loop {
        let report = log.maintain(now_ms).unwrap();
        total.rolled |= report.rolled;
        total.deleted_segments += report.deleted_segments;
        total.compressed_segments += report.compressed_segments;
        if !report.more {
            return total;
        }
    }
}

#[test]
fn segments_roll_by_bytes_by_batches_and_by_age() {
    let disk = SimDisk::new();
    let log = log_of(&disk, &small_segments(), &some_batches(12));
    let status = log.reader().status();
    assert!(status.segments.len() > 2);
    assert!(status.segments.iter().all(|segment| segment.data_bytes <= 1500));
    assert!(status.segments.iter().rev().skip(1).all(|segment| segment.sealed));

    let by_batches = LogOptions { segment_batches_max: 5, ..one_segment() };
    let log = log_of(&SimDisk::new(), &by_batches, &some_batches(12));
    let counts: Vec<u32> = log.reader().status().segments.iter().map(|segment| segment.batch_count).collect();
    assert_eq!(counts, [5, 5, 2]);

    let by_age = LogOptions { segment_age_max: Duration::from_millis(20 * BATCH_MS), ..one_segment() };
    let mut log = log_of(&SimDisk::new(), &by_age, &some_batches(5));
    assert!(!log.maintain(19 * BATCH_MS).unwrap().rolled);
    assert!(log.maintain(20 * BATCH_MS).unwrap().rolled);
    assert!(!log.maintain(90 * BATCH_MS).unwrap().rolled, "a segment without batches is not rolled");
    commit(&mut log, &[batch(30, 1)]).unwrap();
    assert_eq!(log.reader().status().segments.len(), 2);
}

#[test]
fn a_batch_larger_than_a_segment_has_one_to_itself() {
    let written = [batch(0, 1), batch(1, 40), batch(2, 1)];
    let log = log_of(&SimDisk::new(), &small_segments(), &written);
    assert_same(&read_all(&log.reader()), &written);
    assert_eq!(log.reader().status().segments.len(), 3);
}

#[test]
fn retention_deletes_the_oldest_segments_by_bytes() {
    let disk = SimDisk::new();
    let written = some_batches(30);
    let mut log = log_of(&disk, &small_segments(), &written);
    let bytes = |log: &PartitionLog| {
        log.reader().status().segments.iter().map(|s| s.stored_bytes + s.index_bytes).sum::<u64>()
    };
    let before = log.reader().status().segments.len();
    log.options.retention_bytes = Some(bytes(&log) / 2);
    let report = log.maintain(0).unwrap();
    assert!(report.deleted_segments > 0 && (report.deleted_segments as usize) < before);
    assert!(bytes(&log) <= log.options.retention_bytes.unwrap());
    let stored = read_all(&log.reader());
    assert_eq!(stored.first().unwrap().base_offset, log.reader().first_offset());
    assert_same(&stored, &written[30 - stored.len()..]);
    assert_eq!(
        disk.names().iter().filter(|name| name.ends_with(".batches")).count(),
        before - report.deleted_segments as usize
    );
}

#[test]
fn retention_by_age_takes_all_that_is_old_and_the_offsets_go_on() {
    let disk = SimDisk::new();
    let options = LogOptions {
        retention_age: Some(Duration::from_millis(100 * BATCH_MS)),
        segment_age_max: Duration::from_millis(50 * BATCH_MS),
        ..small_segments()
    };
    let mut log = log_of(&disk, &options, &some_batches(12));
    let end = log.written_end();
    log.maintain(1000 * BATCH_MS).unwrap();
    assert!(read_all(&log.reader()).is_empty());
    assert_eq!(log.reader().first_offset(), end);
    log.close().unwrap();
    let (mut log, _) = open(&disk, &options);
    assert_eq!(log.append(&[batch(2000, 1)]).unwrap(), [end]);
}

#[test]
fn compressed_segments_read_the_same_in_every_way() {
    let disk = SimDisk::new();
    let options = aged(small_segments());
    let written = some_batches(20);
    let mut log = log_of(&disk, &options, &written);
    let before = log.reader().status();
    let report = maintain_all(&mut log, 1000 * BATCH_MS);
    assert_eq!(report.compressed_segments as usize, before.segments.len() - 1);
    for segment in &before.segments[..before.segments.len() - 1] {
        let names = disk.names();
        let base_offset = segment.base_offset;
        assert!(!names.contains(&layout::file_name(base_offset, Part::Data)));
        // Any zstd reads it, and prints the records and nothing else.
        let compressed = disk.read(&path(base_offset.get(), Part::CompressedData));
        let lines = zstd::decode_all(&compressed[..]).unwrap();
        assert_eq!(lines.len() as u64, segment.data_bytes);
    }
    assert_same(&read_all(&log.reader()), &written);
    for new in &written {
        assert!(log.find_batch(new.id).unwrap().is_some());
    }
    drop(log);
    let (log, report) = open(&disk.after_kill(), &options);
    assert!(report.damage.is_empty());
    assert_same(&read_all(&log.reader()), &written);
    assert!(log.reader().status().segments[0].compressed);
}

#[test]
fn a_segment_of_many_mebibytes_is_compressed_in_steps_and_frames() {
    let disk = SimDisk::new();
    let options = aged(LogOptions { segment_bytes_max: 24 << 20, ..one_segment() });
    let (mut log, _) = open(&disk, &options);
    let new = batch(0, 2000);
    let copies = (20 << 20) / new.batch.bytes().len() as u64;
    for number in 0..copies {
        log.append(&[NewBatch { id: id(number), ..new.clone() }]).unwrap();
    }
    log.seal().unwrap();
    let end = log.sync().unwrap();
    log.publish(end);
    assert!(log.maintain(1000 * BATCH_MS).unwrap().more);
    // Rolls, reads and appends go on in between.
    assert_eq!(read_all(&log.reader()).len() as u64, copies);
    commit(&mut log, &[batch(1, 1)]).unwrap();
    assert_eq!(maintain_all(&mut log, 1000 * BATCH_MS).compressed_segments, 1);
    let stored = read_all(&log.reader());
    assert_eq!(stored.len() as u64, copies + 1);
    assert!(stored.iter().take(copies as usize).all(|batch| batch.bytes == new.batch.bytes()));
}

#[test]
fn a_damaged_segment_is_not_compressed() {
    let disk = SimDisk::new();
    let options = aged(small_segments());
    let mut log = log_of(&disk, &options, &some_batches(12));
    let sealed = log.reader().status().segments.len() as u64 - 1;
    drop(log);
    let mut data = disk.read(&path(0, Part::Data));
    data[5] ^= 1;
    disk.put(&path(0, Part::Data), &data);
    (log, _) = open(&disk.after_kill(), &options);
    assert!(matches!(log.maintain(1000 * BATCH_MS), Err(LogError::Damaged(_))));
    assert_eq!(maintain_all(&mut log, 1000 * BATCH_MS).compressed_segments, sealed - 1);
    assert!(!log.reader().status().segments[0].compressed);
}

#[test]
fn a_crash_that_left_both_forms_of_a_segment_keeps_the_whole_one() {
    let disk = SimDisk::new();
    let options = aged(small_segments());
    let written = some_batches(12);
    let mut log = log_of(&disk, &options, &written);
    let plain = disk.read(&path(0, Part::Data));
    maintain_all(&mut log, 1000 * BATCH_MS);
    drop(log);
    let compressed = disk.read(&path(0, Part::CompressedData));

    // Died before the plain file was removed.
    disk.put(&path(0, Part::Data), &plain);
    let (mut log, report) = open(&disk.after_kill(), &options);
    assert!(report.damage.is_empty());
    assert!(log.reader().status().segments[0].compressed);
    assert_same(&read_all(&log.reader()), &written);
    commit(&mut log, &[batch(90, 1)]).unwrap();

    // The compressed file is not whole: not ours, but no reason to lose anything.
    let other = disk.after_kill();
    other.put(&path(0, Part::CompressedData), &compressed[..compressed.len() - 3]);
    let (mut log, report) = open(&other, &options);
    assert!(report.damage.is_empty());
    assert!(!log.reader().status().segments[0].compressed);
    assert_same(&read_all(&log.reader()), &written);
    commit(&mut log, &[batch(90, 1)]).unwrap();
    assert!(!other.names().contains(&layout::file_name(Offset::ZERO, Part::CompressedData)));
}

#[test]
fn readers_live_through_rolls_compression_and_retention() {
    let disk = SimDisk::new();
    let options = LogOptions {
        retention_age: Some(Duration::from_millis(500 * BATCH_MS)),
        segment_age_max: Duration::from_millis(50 * BATCH_MS),
        ..aged(small_segments())
    };
    let written = some_batches(12);
    let mut log = log_of(&disk, &options, &written);
    let reader = log.reader();
    let mut begun = reader.batches_from(Offset::ZERO);
    let mut backward = reader.batches_before(reader.high_watermark());
    let first = begun.next().unwrap().unwrap();
    let last = backward.next().unwrap().unwrap();

    maintain_all(&mut log, 100 * BATCH_MS);
    commit(&mut log, &[batch(100, 1)]).unwrap();
    // They end where they would have ended, whatever was appended since.
    let mut all = vec![first.clone()];
    all.extend(begun.map(Result::unwrap));
    assert_same(&all, &written);
    let mut all = vec![last];
    all.extend(backward.map(Result::unwrap));
    all.reverse();
    assert_same(&all, &written);

    let mut begun = reader.batches_from(Offset::ZERO);
    assert_eq!(begun.next().unwrap().unwrap(), first);
    maintain_all(&mut log, 2000 * BATCH_MS);
    assert!(log.reader().first_offset() > Offset::ZERO);
    // The segment that it is in is read to its end; those after it are gone, which is no damage.
    assert!(begun.all(|item| item.is_ok()));
}
