//! Files that another program wrote, and leftovers of crashes between creating, renaming and removing.

use super::*;
use crate::log::DamageKind;

fn lines(batches: &[NewBatch]) -> Vec<u8> {
    batches.iter().flat_map(|new| new.batch.bytes().to_vec()).collect()
}

fn read_bytes(log: &PartitionLog) -> Vec<u8> {
    read_all(&log.reader()).iter().flat_map(|batch| batch.bytes.to_vec()).collect()
}

#[test]
fn a_bare_file_of_records_is_taken_as_it_is_and_appended_to() {
    let disk = SimDisk::new();
    let text = lines(&some_batches(9));
    disk.put(&path(0, Part::Data), &text);
    let (mut log, report) = open(&disk, &one_segment());
    assert_eq!((report.rebuilt_indexes, report.torn_bytes, report.damage.len()), (1, 0, 0));
    assert_eq!(read_bytes(&log), text);
    assert!(!disk.names().contains(&layout::file_name(Offset::ZERO, Part::Index)), "opening writes nothing");
    let more = batch(50, 2);
    commit(&mut log, std::slice::from_ref(&more)).unwrap();
    let expected = [text.clone(), more.batch.bytes().to_vec()].concat();
    assert_eq!(read_bytes(&log), expected);
    log.close().unwrap();
    let (log, report) = open(&disk, &one_segment());
    assert!(report.was_closed && report.rebuilt_indexes == 0);
    assert_eq!(read_bytes(&log), expected);
    assert_eq!(log.find_batch(more.id).unwrap().unwrap().base_offset, Offset::new(18));
}

#[test]
fn a_last_line_without_newline_is_a_torn_tail() {
    let text = lines(&some_batches(3));
    for cut in 1..100 {
        let disk = SimDisk::new();
        disk.put(&path(0, Part::Data), &text[..text.len() - cut]);
        let (mut log, report) = open(&disk, &one_segment());
        let kept = text[..text.len() - cut].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!(report.torn_bytes as usize, text.len() - cut - kept);
        commit(&mut log, &[batch(50, 1)]).unwrap();
        assert_eq!(read_bytes(&log), [&text[..kept], batch(50, 1).batch.bytes()].concat());
    }
}

#[test]
fn lines_that_are_no_records_are_kept_and_reported_not_served() {
    let disk = SimDisk::new();
    let good = some_batches(4);
    let text = [lines(&good[..2]), b"not a record\n\n".to_vec(), lines(&good[2..])].concat();
    disk.put(&path(0, Part::Data), &text);
    let (mut log, _) = open(&disk, &one_segment());
    let items: Vec<_> = log.reader().batches_from(Offset::ZERO).collect();
    let damage: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
    let [LogError::Damaged(damage)] = &damage[..] else { panic!("{damage:?}") };
    assert_eq!((damage.kind, damage.first_offset.get(), damage.end_offset.get()), (DamageKind::Lines, 3, 5));
    let served: Vec<u8> = items.iter().flatten().flat_map(|batch| batch.bytes.to_vec()).collect();
    assert_eq!(served, lines(&good));
    commit(&mut log, &[batch(50, 1)]).unwrap();
    assert_eq!(&disk.read(&path(0, Part::Data))[..text.len()], text);
}

#[test]
fn a_large_bare_file_becomes_batches_of_bounded_size() {
    let disk = SimDisk::new();
    let text = lines(&[batch(0, 2500), batch(1, 2500)]);
    disk.put(&path(0, Part::Data), &text);
    let (log, _) = open(&disk, &one_segment());
    let stored = read_all(&log.reader());
    assert_eq!(stored.iter().map(|batch| batch.record_count).collect::<Vec<_>>(), [1000; 5]);
    assert_eq!(stored.first().unwrap().timestamp_min_ms, 0);
    assert_eq!(stored.last().unwrap().timestamp_max_ms, BATCH_MS + 2499);
}

#[test]
fn a_lost_index_of_any_segment_is_rebuilt() {
    let disk = SimDisk::new();
    let written = some_batches(12);
    let log = log_of(&disk, &small_segments(), &written);
    let bases: Vec<u64> =
        log.reader().status().segments.iter().map(|segment| segment.base_offset.get()).collect();
    drop(log);
    for base_offset in &bases {
        let disk = disk.after_kill();
        disk.delete(&path(*base_offset, Part::Index));
        let (mut log, report) = open(&disk, &small_segments());
        assert_eq!((report.rebuilt_indexes, report.damage.len()), (1, 0));
        assert_eq!(read_bytes(&log), lines(&written));
        commit(&mut log, &[batch(50, 1)]).unwrap();
        drop(log);
        let (log, report) = open(&disk.after_kill(), &small_segments());
        assert_eq!((report.rebuilt_indexes, report.damage.len()), (0, 0));
        assert_eq!(read_bytes(&log), lines(&[written.clone(), vec![batch(50, 1)]].concat()));
    }
}

#[test]
fn a_rebuilt_index_does_not_reach_into_the_next_segments_offsets() {
    let disk = SimDisk::new();
    let written = some_batches(12);
    let log = log_of(&disk, &small_segments(), &written);
    let second = log.reader().status().segments[1].base_offset.get();
    drop(log);
    for surplus in [lines(&[batch(70, 1)]), lines(&[batch(70, 3)]), b"not a record\n".to_vec(), b"x".to_vec()]
    {
        let disk = disk.after_kill();
        disk.delete(&path(0, Part::Index));
        let text = [disk.read(&path(0, Part::Data)), surplus].concat();
        disk.put(&path(0, Part::Data), &text);
        let (mut log, report) = open(&disk, &small_segments());
        assert_eq!(report.rebuilt_indexes, 1);
        let items: Vec<_> = log.reader().batches_from(Offset::ZERO).collect();
        let served: Vec<u8> = items.iter().flatten().flat_map(|batch| batch.bytes.to_vec()).collect();
        assert_eq!(served, lines(&written), "each record once, under its own offset");
        let mut expected = 0;
        for stored in items.iter().flatten() {
            assert_eq!(stored.base_offset.get(), expected);
            expected += u64::from(stored.record_count);
        }
        assert!(second < expected);
        commit(&mut log, &[batch(50, 1)]).unwrap();
        drop(log);
        let (log, report) = open(&disk.after_kill(), &small_segments());
        assert_eq!(report.rebuilt_indexes, 0);
        assert_eq!(log.written_end().get(), expected + 1);
        assert_eq!(disk.read(&path(0, Part::Data)), text, "nothing is cut");
    }
}

#[test]
fn leftovers_of_a_creation_are_gone_on_with_or_removed() {
    let written = some_batches(12);
    let with_leftovers = |put: &dyn Fn(&SimDisk, u64)| {
        let disk = SimDisk::new();
        let log = log_of(&disk, &small_segments(), &written);
        let end = log.written_end();
        drop(log);
        put(&disk, end.get());
        let (mut log, report) = open(&disk.after_kill(), &small_segments());
        assert!(report.damage.is_empty(), "{report:?}");
        assert_eq!(log.append(&[batch(50, 1)]).unwrap(), [end]);
        let end = log.sync().unwrap();
        log.publish(end);
        assert_eq!(read_bytes(&log), lines(&[written.clone(), vec![batch(50, 1)]].concat()));
    };
    with_leftovers(&|disk, end| disk.put(&path(end, Part::Data), b""));
    with_leftovers(&|disk, end| disk.put(&path(end, Part::Index), b""));
    with_leftovers(&|disk, end| disk.put(&path(end, Part::Index), &disk.read(&path(0, Part::Index))[..128]));
    with_leftovers(&|disk, end| {
        disk.put(&path(end, Part::Data), b"");
        disk.put(&path(end, Part::Index), b"half a header");
    });
    with_leftovers(&|disk, _| disk.put(&Path::new(DIR).join("closed.tmp"), b"half a marker"));
    with_leftovers(&|disk, _| {
        disk.put(&Path::new(DIR).join("00000000000000000000.jsonl.zst.tmp"), b"half a segment")
    });
    with_leftovers(&|disk, _| disk.put(&Path::new(DIR).join("notes.txt"), b"not ours"));
}

#[test]
fn leftovers_of_a_deletion_are_removed() {
    let disk = SimDisk::new();
    let written = some_batches(12);
    let log = log_of(&disk, &small_segments(), &written);
    let second = log.reader().status().segments[1].base_offset;
    drop(log);
    disk.delete(&path(0, Part::Data));
    let disk = disk.after_kill();
    let (mut log, report) = open(&disk, &small_segments());
    assert!(report.damage.is_empty());
    assert_eq!(log.reader().first_offset(), second);
    commit(&mut log, &[batch(50, 1)]).unwrap();
    assert!(!disk.names().iter().any(|name| name.starts_with("00000000000000000000.")));
}
