//! Batch ids: found however long ago they were stored, after restarts, and without their lists.

use super::*;
use crate::log::KnownBatch;
use crate::log::id_list::IdListSlot;

fn known(written: &[NewBatch]) -> Vec<KnownBatch> {
    let mut base_offset = Offset::ZERO;
    written
        .iter()
        .map(|new| {
            let known = KnownBatch {
                id: new.id,
                digest: new.digest,
                base_offset,
                record_count: new.batch.record_count(),
            };
            base_offset = base_offset.plus(new.batch.record_count().into());
            known
        })
        .collect()
}

fn check_all_found(log: &PartitionLog, written: &[NewBatch]) {
    for expected in known(written) {
        assert_eq!(log.find_batch(expected.id).unwrap(), Some(expected));
    }
    for stranger in 10_000..10_100 {
        assert_eq!(log.find_batch(id(stranger)).unwrap(), None);
    }
}

#[test]
fn every_id_is_found_in_sealed_and_active_segments_and_after_restarts() {
    let written = some_batches(30);
    let disk = SimDisk::new();
    let log = log_of(&disk, &small_segments(), &written);
    check_all_found(&log, &written);
    log.close().unwrap();
    let (log, _) = open(&disk, &small_segments());
    check_all_found(&log, &written);
    drop(log);
    let (log, _) = open(&disk.after_kill(), &small_segments());
    check_all_found(&log, &written);
}

#[test]
fn id_lists_that_are_gone_or_spoilt_are_made_again() {
    let written = some_batches(30);
    let disk = SimDisk::new();
    let log = log_of(&disk, &small_segments(), &written);
    let bases: Vec<u64> =
        log.reader().status().segments.iter().map(|segment| segment.base_offset.get()).collect();
    log.close().unwrap();
    let sealed = &bases[..bases.len() - 1];
    for (number, base_offset) in sealed.iter().enumerate() {
        let list = path(*base_offset, Part::Ids);
        let mut bytes = disk.read(&list);
        match number % 3 {
            0 => disk.delete(&list),
            1 => {
                let last = bytes.len() - 10;
                bytes[last] ^= 1;
                disk.put(&list, &bytes);
            }
            _ => disk.put(&list, &bytes[..40]),
        }
    }
    let (log, _) = open(&disk, &small_segments());
    check_all_found(&log, &written);
    for base_offset in sealed {
        assert!(disk.read(&path(*base_offset, Part::Ids)).len() > 4096);
    }
}

#[test]
fn filters_for_which_there_is_no_memory_are_asked_on_the_disk() {
    let written = some_batches(60);
    let disk = SimDisk::new();
    let mut log = log_of(&disk, &small_segments(), &written);
    log.id_filter_bytes_max = 0;
    for segment in log.shared.segments().iter() {
        *segment.ids.lock() = IdListSlot::default();
    }
    check_all_found(&log, &written);
    let sealed = log.reader().status().segments.len() as u64 - 1;
    let before = disk.read_bytes();
    for stranger in 20_000..21_000 {
        assert_eq!(log.find_batch(id(stranger)).unwrap(), None);
    }
    // One block of each filter, and now and then a page that was asked for nothing.
    let bytes = (disk.read_bytes() - before) / 1000 / sealed;
    assert!((64..100).contains(&bytes), "{bytes} bytes for each question in each of {sealed} segments");
}

#[test]
fn the_newest_batches_fill_the_hot_window_after_a_restart() {
    let written = some_batches(30);
    let disk = SimDisk::new();
    log_of(&disk, &small_segments(), &written).close().unwrap();
    let (log, _) = open(&disk, &small_segments());
    let expected = known(&written);
    assert_eq!(log.recent_batches(7), &expected[23..]);
    assert_eq!(log.recent_batches(1000), expected);
    assert_eq!(log.recent_batches(0), []);
}

#[test]
fn a_segment_with_thousands_of_ids_has_them_on_several_pages() {
    let written: Vec<NewBatch> = (0..3000).map(|number| batch(number, 1)).collect();
    let disk = SimDisk::new();
    let options = LogOptions { segment_batches_max: 2000, ..one_segment() };
    let (mut log, _) = open(&disk, &options);
    for group in written.chunks(250) {
        log.append(group).unwrap();
    }
    log.close().unwrap();
    let (log, _) = open(&disk, &options);
    assert_eq!(log.reader().status().segments.len(), 2);
    check_all_found(&log, &written);
}
