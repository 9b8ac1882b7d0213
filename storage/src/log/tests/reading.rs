//! Lookups and iterators: every start, either direction, by time, over all sizes of batches.

use super::*;

#[test]
fn reading_begins_at_the_batch_that_holds_the_offset() {
    let written = some_batches(20);
    let log = log_of(&SimDisk::new(), &small_segments(), &written);
    let reader = log.reader();
    let all = read_all(&reader);
    for offset in 0..reader.high_watermark().get() {
        let offset = Offset::new(offset);
        let forward: Vec<StoredBatch> = reader.batches_from(offset).map(Result::unwrap).collect();
        let expected: Vec<StoredBatch> =
            all.iter().filter(|batch| batch.end_offset() > offset).cloned().collect();
        assert_eq!(forward, expected, "from {offset}");
        let mut backward: Vec<StoredBatch> = reader.batches_before(offset).map(Result::unwrap).collect();
        backward.reverse();
        let expected: Vec<StoredBatch> =
            all.iter().filter(|batch| batch.base_offset < offset).cloned().collect();
        assert_eq!(backward, expected, "before {offset}");
    }
    assert_eq!(reader.batches_from(reader.high_watermark()).count(), 0);
    assert_eq!(reader.batches_from(Offset::new(u64::MAX)).count(), 0);
    assert_eq!(reader.batches_before(Offset::ZERO).count(), 0);
}

#[test]
fn nothing_at_or_above_the_high_watermark_is_read() {
    let (mut log, _) = open(&SimDisk::new(), &small_segments());
    let written = some_batches(8);
    log.append(&written).unwrap();
    let flushed_end = log.sync().unwrap();
    let mut shown = 0;
    for end in 0..=flushed_end.get() {
        log.publish(Offset::new(end));
        let stored = read_all(&log.reader());
        assert!(stored.iter().all(|batch| batch.base_offset.get() < end));
        shown = stored.len();
    }
    assert_eq!(shown, written.len());
    log.publish(Offset::ZERO);
    assert_eq!(log.reader().high_watermark(), flushed_end, "what was readable stays so");
}

#[test]
fn batches_of_another_time_are_left_out_unread() {
    let disk = SimDisk::new();
    let written = some_batches(20);
    let log = log_of(&disk, &small_segments(), &written);
    let reader = log.reader();
    for (from, to) in
        [(0, u64::MAX), (5 * BATCH_MS, 7 * BATCH_MS), (6 * BATCH_MS + 1, 6 * BATCH_MS + 1), (90_000, 99_000)]
    {
        let expected: Vec<NewBatch> = written
            .iter()
            .filter(|new| new.batch.timestamp_min_ms() <= to && from <= new.batch.timestamp_max_ms())
            .cloned()
            .collect();
        let stored: Vec<_> =
            reader.batches_from(Offset::ZERO).within_time(from, to).map(Result::unwrap).collect();
        let bytes = |batches: &[StoredBatch]| batches.iter().map(|b| b.bytes.clone()).collect::<Vec<_>>();
        assert_eq!(bytes(&stored), expected.iter().map(|new| new.batch.bytes().clone()).collect::<Vec<_>>());
        let mut backward: Vec<_> = reader
            .batches_before(reader.high_watermark())
            .within_time(from, to)
            .map(Result::unwrap)
            .collect();
        backward.reverse();
        assert_eq!(backward, stored);
    }
}

#[test]
fn an_offset_is_found_by_time() {
    let log = log_of(&SimDisk::new(), &small_segments(), &some_batches(20));
    let reader = log.reader();
    for batch in read_all(&reader) {
        assert_eq!(reader.offset_at_time(batch.timestamp_min_ms).unwrap(), batch.base_offset);
        assert_eq!(reader.offset_at_time(batch.timestamp_max_ms).unwrap(), batch.base_offset);
    }
    assert_eq!(reader.offset_at_time(0).unwrap(), Offset::ZERO);
    assert_eq!(reader.offset_at_time(u64::MAX).unwrap(), reader.high_watermark());
}

#[test]
fn batches_larger_than_the_window_and_thousands_of_small_ones_are_read_alike() {
    let sizes = [1, 1, 3000, 1, 9000, 2, 2, 2];
    let mut written: Vec<NewBatch> =
        (0..).zip(sizes).map(|(number, records)| batch(number, records)).collect();
    written.extend((100..1600).map(|number| batch(number, 1)));
    let (mut log, _) = open(&SimDisk::new(), &one_segment());
    log.append(&written).unwrap();
    let end = log.sync().unwrap();
    log.publish(end);
    assert_same(&read_all(&log.reader()), &written);
}

#[test]
fn an_empty_log_has_nothing_to_read() {
    let disk = SimDisk::new();
    let (log, report) = open(&disk, &one_segment());
    assert_eq!((report.segments, report.next_offset), (0, Offset::ZERO));
    let reader = log.reader();
    assert!(read_all(&reader).is_empty());
    assert_eq!((reader.first_offset(), reader.high_watermark()), (Offset::ZERO, Offset::ZERO));
    assert_eq!(reader.offset_at_time(0).unwrap(), Offset::ZERO);
    log.close().unwrap();
    assert!(open(&disk, &one_segment()).1.was_closed);
}

#[test]
fn opening_reads_the_seals_and_after_a_crash_the_last_segment_too() {
    let disk = SimDisk::new();
    let log = log_of(&disk, &small_segments(), &some_batches(200));
    let status = log.reader().status();
    let last = status.segments.last().unwrap();
    // Each file's own header and its last entry; of the last segment all headers, twice.
    let headers = 2 * 128 * status.segments.len() as u64 + 2 * last.index_bytes + 128;
    // What no later batch vouches for is read once more, to be written again.
    let unsure = read_all(&log.reader()).last().unwrap().bytes.len() as u64 + 128;
    let crashed = disk.after_kill();
    open(&crashed, &small_segments());
    assert!(crashed.read_bytes() <= headers + last.data_bytes + unsure);
    assert!(crashed.read_bytes() >= last.data_bytes);

    log.close().unwrap();
    let closed = disk.after_kill();
    open(&closed, &small_segments());
    assert!(closed.read_bytes() <= headers, "{} bytes of {headers}", closed.read_bytes());
}
