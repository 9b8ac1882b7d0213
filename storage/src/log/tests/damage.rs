//! Files cut at every byte, and bits flipped: what is intact is served as it was, what is not is reported or, at the
//! tail that no sync vouches for, absent.

use super::*;
use crate::log::format::ENTRY_BYTES;
use crate::log::{Damage, DamageKind};

/// Everything that can be read, batches and damage alike.
fn read_items(reader: &LogReader) -> Vec<Result<StoredBatch, Damage>> {
    let damage_only = |error| match error {
        LogError::Damaged(damage) => damage,
        other => panic!("{other}"),
    };
    let items: Vec<_> = reader.batches_from(Offset::ZERO).map(|item| item.map_err(damage_only)).collect();
    let mut backward: Vec<_> =
        reader.batches_before(reader.high_watermark()).map(|item| item.map_err(damage_only)).collect();
    backward.reverse();
    assert_eq!(items.iter().map(span).collect::<Vec<_>>(), backward.iter().map(span).collect::<Vec<_>>());
    items
}

fn span(item: &Result<StoredBatch, Damage>) -> (Offset, Offset, bool) {
    match item {
        Ok(batch) => (batch.base_offset, batch.end_offset(), true),
        Err(damage) => (damage.first_offset, damage.end_offset, false),
    }
}

/// Asserts that the items cover the offsets without a gap, and that every batch is as it was written. Returns which of
/// the batches could be read.
fn check_items(items: &[Result<StoredBatch, Damage>], written: &[NewBatch], context: &str) -> Vec<usize> {
    let mut expected = Offset::ZERO;
    let mut base_offset = Offset::ZERO;
    let mut by_base = std::collections::BTreeMap::new();
    for (number, new) in written.iter().enumerate() {
        by_base.insert(base_offset, number);
        base_offset = base_offset.plus(new.batch.record_count().into());
    }
    let mut readable = Vec::new();
    for item in items {
        let (from, to, _) = span(item);
        assert_eq!(from, expected, "{context}: a gap in {items:?}");
        expected = to;
        if let Ok(batch) = item {
            let number = *by_base.get(&batch.base_offset).unwrap_or_else(|| panic!("{context}: {batch:?}"));
            assert_eq!(batch.bytes, written[number].batch.bytes(), "{context}");
            readable.push(number);
        }
    }
    readable
}

/// The files of a log of one segment.
struct Files {
    data: Vec<u8>,
    index: Vec<u8>,
    closed: Option<Vec<u8>>,
}

impl Files {
    fn of(disk: &SimDisk) -> Self {
        let closed = Path::new(DIR).join("closed");
        let has_closed = disk.names().iter().any(|name| name == "closed");
        Self {
            data: disk.read(&path(0, Part::Data)),
            index: disk.read(&path(0, Part::Index)),
            closed: has_closed.then(|| disk.read(&closed)),
        }
    }

    fn put(&self) -> SimDisk {
        let disk = SimDisk::new();
        disk.put(&path(0, Part::Data), &self.data);
        disk.put(&path(0, Part::Index), &self.index);
        if let Some(closed) = &self.closed {
            disk.put(&Path::new(DIR).join("closed"), closed);
        }
        disk
    }
}

/// Where each batch's bytes begin.
fn starts(written: &[NewBatch]) -> Vec<usize> {
    let begin =
        |end: &mut usize, new: &NewBatch| Some(std::mem::replace(end, *end + new.batch.bytes().len()));
    written.iter().scan(0, begin).collect()
}

fn crashed(batches: &[NewBatch]) -> Files {
    let disk = SimDisk::new();
    let _log = log_of(&disk, &one_segment(), batches);
    Files::of(&disk)
}

fn closed(batches: &[NewBatch]) -> Files {
    let disk = SimDisk::new();
    log_of(&disk, &one_segment(), batches).close().unwrap();
    Files::of(&disk)
}

/// Asserts that a damaged log takes appends, and afterwards reads as before, with them behind.
fn check_goes_on(disk: &SimDisk, items: &[Result<StoredBatch, Damage>], context: &str) {
    let (mut log, _) = open(disk, &one_segment());
    commit(&mut log, &[batch(77, 2)]).unwrap();
    let mut expected: Vec<_> = items.iter().map(span).collect();
    let end = expected.last().map_or(Offset::ZERO, |(_, end, _)| *end);
    expected.push((end, end.plus(2), true));
    let spans = |log: &PartitionLog| read_items(&log.reader()).iter().map(span).collect::<Vec<_>>();
    assert_eq!(spans(&log), expected, "{context}");
    drop(log);
    let (log, _) = open(&disk.after_kill(), &one_segment());
    assert_eq!(spans(&log), expected, "{context}, opened again");
}

#[test]
fn a_log_that_was_cut_at_any_byte_keeps_its_whole_batches() {
    let written = some_batches(4);
    let files = crashed(&written);
    let ends: Vec<usize> = written
        .iter()
        .scan(0, |end, new| {
            *end += new.batch.bytes().len();
            Some(*end)
        })
        .collect();
    let check = |data: usize, index: usize| {
        let context = format!("data cut at {data}, index at {index}");
        let cut =
            Files { data: files.data[..data].to_vec(), index: files.index[..index].to_vec(), closed: None };
        let disk = cut.put();
        let (log, report) = open(&disk, &one_segment());
        let items = read_items(&log.reader());
        // Bytes that are gone cannot be kept; that they were flushed once is said.
        assert!(report.damage.is_empty(), "{context}: {report:?}");
        let whole_bytes = ends.iter().take_while(|end| **end <= data).count();
        if index >= ENTRY_BYTES {
            let whole = whole_bytes.min(index / ENTRY_BYTES - 1);
            assert_eq!(check_items(&items, &written, &context), (0..whole).collect::<Vec<_>>());
            let flushed = (index / ENTRY_BYTES).saturating_sub(2);
            let lost =
                written.iter().take(flushed).skip(whole).map(|new| u64::from(new.batch.record_count()));
            assert_eq!(report.lost_records, lost.sum::<u64>(), "{context}");
        } else {
            // Without an index the lines speak for themselves.
            let lines: Vec<u8> =
                items.iter().flat_map(|item| item.as_ref().unwrap().bytes.to_vec()).collect();
            let kept =
                files.data[..data].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            assert_eq!(lines, &files.data[..kept], "{context}");
        }
        drop(log);
        check_goes_on(&disk, &items, &context);
    };
    for data in 0..=files.data.len() {
        check(data, files.index.len());
    }
    for index in 0..=files.index.len() {
        check(files.data.len(), index);
    }
    for data in (0..files.data.len()).step_by(97) {
        for index in (0..files.index.len()).step_by(61) {
            check(data, index);
        }
    }
}

#[test]
fn what_a_closed_log_lost_of_its_end_is_told() {
    let written = some_batches(4);
    let ends: Vec<usize> = starts(&written).into_iter().skip(1).collect();
    // Written by one append: no header says that another batch was flushed. The marker says it of all.
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, &one_segment());
    log.append(&written).unwrap();
    log.close().unwrap();
    let files = Files::of(&disk);
    let records =
        |batches: &[NewBatch]| batches.iter().map(|new| u64::from(new.batch.record_count())).sum::<u64>();
    let check = |data: usize, index: usize, kept: usize| {
        let cut = Files {
            data: files.data[..data].to_vec(),
            index: files.index[..index].to_vec(),
            closed: files.closed.clone(),
        };
        let context = format!("data cut at {data}, index at {index}");
        let disk = cut.put();
        let (log, report) = open(&disk, &one_segment());
        assert!(!report.was_closed && report.damage.is_empty(), "{context}: {report:?}");
        assert_eq!(report.lost_records, records(&written[kept..]), "{context}");
        assert_eq!(log.reader().status().lost_records, report.lost_records);
        let items = read_items(&log.reader());
        assert_eq!(check_items(&items, &written, &context), (0..kept).collect::<Vec<_>>());
        drop(log);
        check_goes_on(&disk, &items, &context);
    };
    for data in 0..files.data.len() {
        check(data, files.index.len(), ends.iter().take_while(|end| **end <= data).count());
    }
    for index in ENTRY_BYTES..files.index.len() {
        check(files.data.len(), index, index / ENTRY_BYTES - 1);
    }
}

#[test]
fn a_flipped_bit_of_a_closed_log_costs_its_own_batch_alone() {
    let written = some_batches(4);
    let files = closed(&written);
    let check = |flipped: Files, hit: Option<usize>, context: String| {
        let disk = flipped.put();
        let (log, _) = open(&disk, &one_segment());
        let items = read_items(&log.reader());
        let readable = check_items(&items, &written, &context);
        assert_eq!(readable, (0..4).filter(|number| Some(*number) != hit).collect::<Vec<_>>(), "{context}");
        assert_eq!(log.reader().status().damage_count(), 1, "{context}");
        drop(log);
        check_goes_on(&disk, &items, &context);
    };
    for bit in 0..files.index.len() * 8 {
        let mut index = files.index.clone();
        index[bit / 8] ^= 1 << (bit % 8);
        let hit = (bit / 8 / ENTRY_BYTES).checked_sub(1);
        let flipped = Files { data: files.data.clone(), index, closed: files.closed.clone() };
        check(flipped, hit, format!("bit {bit} of the index"));
    }
    let starts = starts(&written);
    for byte in (0..files.data.len()).step_by(5) {
        let mut data = files.data.clone();
        data[byte] ^= 1 << (byte % 8);
        let hit = starts.partition_point(|start| *start <= byte) - 1;
        let flipped = Files { data, index: files.index.clone(), closed: files.closed.clone() };
        check(flipped, Some(hit), format!("byte {byte} of the data"));
    }
}

#[test]
fn a_flipped_bit_after_a_crash_costs_its_own_batch_alone() {
    let written = some_batches(4);
    let files = crashed(&written);
    for entry in 0..4 {
        for bit in (0..ENTRY_BYTES * 8).step_by(3) {
            let mut index = files.index.clone();
            index[(entry + 1) * ENTRY_BYTES + bit / 8] ^= 1 << (bit % 8);
            let disk = Files { data: files.data.clone(), index, closed: None }.put();
            let context = format!("bit {bit} of entry {entry}");
            let (log, report) = open(&disk, &one_segment());
            let items = read_items(&log.reader());
            let readable = check_items(&items, &written, &context);
            assert_eq!(readable, (0..4).filter(|number| *number != entry).collect::<Vec<_>>(), "{context}");
            // At the very tail too: the lines are all there, so the header was written, and altered since.
            assert_eq!((report.damage.len(), report.torn_bytes), (1, 0), "{context}");
            assert_eq!(report.damage[0].kind, DamageKind::Header, "{context}");
            drop(log);
            check_goes_on(&disk, &items, &context);
        }
    }
}

#[test]
fn a_sector_of_altered_headers_at_the_very_end_costs_the_batches_of_those_alone() {
    let written = some_batches(6);
    let files = crashed(&written);
    for altered in 1..=6_usize {
        let mut index = files.index.clone();
        let kept = 6 - altered;
        for entry in kept..6 {
            index[(entry + 1) * ENTRY_BYTES + 20] ^= 0x55;
        }
        let disk = Files { data: files.data.clone(), index, closed: None }.put();
        let context = format!("the last {altered}");
        let (log, report) = open(&disk, &one_segment());
        let items = read_items(&log.reader());
        assert_eq!(check_items(&items, &written, &context), (0..kept).collect::<Vec<_>>(), "{context}");
        assert_eq!((report.damage.len(), report.torn_bytes, report.lost_records), (1, 0, 0), "{context}");
        assert_eq!((report.altered.headers as usize, report.altered.cut), (altered, 0), "{context}");
        assert_eq!(report.damage[0].end_offset, report.next_offset, "{context}");
        drop(log);
        check_goes_on(&disk, &items, &context);
    }
}

#[test]
fn an_altered_header_in_front_of_what_was_just_being_written_keeps_its_lines() {
    let written = some_batches(4);
    let files = crashed(&written);
    let starts = starts(&written);
    // The third was acknowledged and its header altered since; of the fourth the header is not there, or not at all, and
    // of its bytes none, a part, zeros, or all.
    let end = files.data.len();
    let of_the_fourth =
        [&files.data[starts[3]..starts[3]], &files.data[starts[3]..starts[3] + 40], &[0; 300]];
    for (bytes, headers) in
        of_the_fourth.iter().chain([&&files.data[starts[3]..end]]).flat_map(|bytes| [(bytes, 3), (bytes, 4)])
    {
        let mut data = files.data[..starts[3]].to_vec();
        data.extend_from_slice(bytes);
        let mut index = files.index[..(1 + headers) * ENTRY_BYTES].to_vec();
        index[3 * ENTRY_BYTES + 20] ^= 1;
        if headers == 4 {
            index[4 * ENTRY_BYTES..].fill(0);
        }
        let context = format!("{} bytes, {headers} headers", bytes.len());
        let disk = Files { data, index, closed: None }.put();
        let (log, report) = open(&disk, &one_segment());
        assert_eq!((report.damage.len(), report.altered.headers, report.altered.cut), (1, 1, 0), "{context}");
        let third = u64::from(written[2].batch.record_count());
        let span = report.damage[0].end_offset.since(report.damage[0].first_offset);
        assert!(span >= third, "{context}: {report:?}");
        let items = read_items(&log.reader());
        assert_eq!(check_items(&items, &written, &context), [0, 1], "{context}");
        drop(log);
        check_goes_on(&disk, &items, &context);
    }
}

#[test]
fn a_batch_that_cannot_be_read_and_was_perhaps_never_acknowledged_is_stored_when_it_comes_again() {
    let written = some_batches(4);
    let files = crashed(&written);
    let starts = starts(&written);
    for (hit, is_known) in [(2, true), (3, false)] {
        let mut data = files.data.clone();
        data[starts[hit] + 20] ^= 1;
        let disk = Files { data, index: files.index.clone(), closed: None }.put();
        let (log, report) = open(&disk, &one_segment());
        assert_eq!(report.damage.len(), 1);
        let found = log.find_batch(written[hit].id).unwrap();
        assert_eq!(found.is_some(), is_known, "batch {hit}");
        let recent: Vec<_> = log.recent_batches(9).iter().map(|known| known.id).collect();
        let expected: Vec<_> =
            (0..4).filter(|number| *number != hit).map(|number| written[number].id).collect();
        assert_eq!(recent, expected, "batch {hit}");
    }
}

#[test]
fn a_flipped_bit_of_the_data_after_a_crash_costs_its_own_batch_alone() {
    let written = some_batches(4);
    let files = crashed(&written);
    let starts = starts(&written);
    // Of each byte one bit; and of some bytes all bits, which leaves a zero.
    let single = (0..files.data.len()).map(|byte| (byte, 1 << (byte % 8)));
    let whole = (0..files.data.len()).step_by(3).map(|byte| (byte, files.data[byte]));
    for (byte, flip) in single.chain(whole) {
        let mut data = files.data.clone();
        data[byte] ^= flip;
        let hit = starts.partition_point(|start| *start <= byte) - 1;
        let disk = Files { data, index: files.index.clone(), closed: None }.put();
        let context = format!("byte {byte} xor {flip}");
        let (log, report) = open(&disk, &one_segment());
        let items = read_items(&log.reader());
        let readable = check_items(&items, &written, &context);
        assert_eq!(readable, (0..4).filter(|number| *number != hit).collect::<Vec<_>>(), "{context}");
        // Of the last batch no later one says that it was flushed; but it was written, and a crash alters nothing.
        assert_eq!((report.damage.len(), report.lost_records, report.torn_bytes), (1, 0, 0), "{context}");
        assert!(report.damage.iter().all(|damage| damage.kind == DamageKind::Bytes), "{context}");
        drop(log);
        check_goes_on(&disk, &items, &context);
    }
}

#[test]
fn a_flipped_bit_in_front_of_a_torn_batch_is_not_taken_for_torn() {
    let written = some_batches(4);
    let files = crashed(&written);
    let starts = starts(&written);
    // The third batch is torn; the second was flushed, and has a zero where there was something else.
    let mut data = files.data[..starts[2] + 50].to_vec();
    data[starts[1] + 50] = 0;
    let index = files.index[..4 * ENTRY_BYTES].to_vec();
    let disk = Files { data, index, closed: None }.put();
    let (log, report) = open(&disk, &one_segment());
    assert_eq!((report.torn_bytes, report.lost_records, report.damage.len()), (50, 0, 1), "{report:?}");
    let items = read_items(&log.reader());
    assert_eq!(check_items(&items, &written, "torn"), [0]);
    assert_eq!(items.len(), 2, "the second is damage");
    drop(log);
    check_goes_on(&disk, &items, "torn");
}

#[test]
fn damage_is_named_exactly_and_never_cut() {
    let written = some_batches(12);
    let disk = SimDisk::new();
    let log = log_of(&disk, &small_segments(), &written);
    let reader = log.reader();
    let segments = reader.status().segments;
    assert!(segments.len() > 2);
    let second = &segments[1];
    let victim = path(second.base_offset.get(), Part::Data);
    let mut data = disk.read(&victim);
    data[10] ^= 1;
    disk.put(&victim, &data);
    drop(log);

    let disk = disk.after_kill();
    let (log, report) = open(&disk, &small_segments());
    assert!(report.damage.is_empty(), "sealed segments are not read at opening");
    let items = read_items(&log.reader());
    let readable = check_items(&items, &written, "second segment");
    assert_eq!(readable.len(), written.len() - 1);
    let status = log.reader().status();
    let damage: Vec<&Damage> = status.damage().collect();
    assert_eq!(damage.len(), 1);
    assert_eq!(
        (damage[0].segment, damage[0].position, damage[0].kind),
        (second.base_offset, 0, DamageKind::Bytes)
    );
    assert_eq!(disk.read(&victim), data);
}

#[test]
fn a_lost_segment_is_a_gap_that_is_reported_and_served_around() {
    let written = some_batches(12);
    let disk = SimDisk::new();
    let log = log_of(&disk, &small_segments(), &written);
    let lost = log.reader().status().segments[1].clone();
    drop(log);
    for part in [Part::Data, Part::Index, Part::Ids] {
        disk.delete(&path(lost.base_offset.get(), part));
    }
    let (log, report) = open(&disk.after_kill(), &small_segments());
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].kind, DamageKind::MissingSegment);
    let items = read_items(&log.reader());
    let gaps: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].first_offset, gaps[0].end_offset), (lost.base_offset, lost.end_offset));
    check_items(&items, &written, "a lost segment");
}

#[test]
fn lost_bytes_of_a_sealed_segment_are_reported_at_opening() {
    let written = some_batches(12);
    let disk = SimDisk::new();
    let log = log_of(&disk, &small_segments(), &written);
    let second = log.reader().status().segments[1].base_offset;
    drop(log);
    let victim = path(second.get(), Part::Data);
    let data = disk.read(&victim);
    disk.put(&victim, &data[..data.len() - 1]);
    let (log, report) = open(&disk.after_kill(), &small_segments());
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].kind, DamageKind::MissingBytes);
    let readable = check_items(&read_items(&log.reader()), &written, "cut");
    assert_eq!(readable.len(), written.len() - 1);

    disk.delete(&victim);
    let (log, report) = open(&disk.after_kill(), &small_segments());
    assert_eq!(report.damage[0].kind, DamageKind::MissingBytes);
    check_items(&read_items(&log.reader()), &written, "gone");
}

#[test]
fn an_index_of_a_newer_version_is_left_alone() {
    let files = crashed(&some_batches(2));
    let mut index = files.index.clone();
    index[ENTRY_BYTES + 4] = 200;
    let crc = crc32fast::hash(&index[ENTRY_BYTES + 4..2 * ENTRY_BYTES]);
    index[ENTRY_BYTES..ENTRY_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
    let disk = Files { data: files.data, index, closed: None }.put();
    assert!(matches!(try_open(&disk, &one_segment()), Err(LogError::UnknownFormat { .. })));
}
