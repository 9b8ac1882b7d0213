//! Segments copied from one replica's log beside another's and put in its place; and a log cut where it is damaged.

use super::random::Random;
use super::*;
use crate::log::{EntryContent, EntryReader, Manifest, NewEntry, Piece, Staging};

fn entry(log_index: u64) -> NewEntry {
    let content = match log_index % 4 {
        0 => EntryContent::Blank,
        batches => EntryContent::Batches(
            (0..batches).map(|place| batch(log_index * 10 + place, place % 3 + 1)).collect(),
        ),
    };
    NewEntry { log_index, term: 1, appended_at_ms: log_index * BATCH_MS, content }
}

fn append(log: &mut PartitionLog, entries: impl IntoIterator<Item = u64>) {
    for index in entries {
        log.append_entries(&[entry(index)]).unwrap();
        log.sync().unwrap();
    }
}

/// A log of entries from 1 on, in several segments, the first of them compressed.
fn source(entries: u64) -> PartitionLog {
    let options = LogOptions { compress_age: Some(Duration::from_millis(1)), ..small_segments() };
    let (mut log, _) =
        PartitionLog::open(Arc::new(SimDisk::new()), Path::new(DIR), Partition::new(0), options, 0).unwrap();
    append(&mut log, 1..=entries);
    log.publish(log.flushed_end());
    while log.maintain(1_000_000 * BATCH_MS).unwrap().more {}
    assert!(log.reader().status().segments[0].compressed);
    log
}

fn check_all(staging: &Staging, manifest: &Manifest) -> Result<(), LogError> {
    manifest.segments.iter().try_for_each(|segment| staging.check(segment))?;
    staging.sync()
}

/// The indexes of a log's entries and the bytes of their batches.
fn stored(log: &PartitionLog) -> Vec<(u64, Vec<Bytes>)> {
    let entries = log.entry_reader().read(1, u64::MAX, u64::MAX).unwrap();
    let bytes = |entry: crate::log::StoredEntry| entry.batches.into_iter().map(|batch| batch.bytes).collect();
    entries.into_iter().map(|entry| (entry.extent.log_index, bytes(entry))).collect()
}

fn open_raw(disk: &SimDisk) -> PartitionLog {
    let disk = Arc::new(disk.clone());
    PartitionLog::open(disk, Path::new(DIR), Partition::new(0), small_segments(), 0).unwrap().0
}

/// Copies all that is missing, in pieces of so many bytes; at most `pieces` of them.
fn copy(from: &EntryReader, to: &Staging, manifest: &Manifest, length: usize, mut pieces: usize) {
    for segment in &manifest.segments {
        for (piece, bytes) in [(Piece::Data, segment.data_bytes), (Piece::Index, segment.index_bytes)] {
            let mut position = to.length(segment.base_offset, piece);
            while position < bytes && pieces > 0 {
                let wanted = length.min((bytes - position) as usize);
                let got = from.read_piece(segment.base_offset, piece, position, wanted).unwrap().unwrap();
                assert_eq!(got.len(), wanted);
                to.add(segment.base_offset, piece, position, &got).unwrap();
                position += wanted as u64;
                pieces -= 1;
            }
        }
    }
}

#[test]
fn a_copy_up_to_any_entry_is_the_log_up_to_it_and_goes_on_where_it_broke_off() {
    let source = source(20);
    let all = stored(&source);
    for upto in 1..=20 {
        let manifest = source.entry_reader().manifest(upto).unwrap();
        let disk = SimDisk::new();
        let mut target = open_raw(&disk);
        append(&mut target, 1..=3);
        copy(&source.entry_reader(), &target.staging(), &manifest, 333, 4);
        target.staging().keep_only(&manifest).unwrap();
        copy(&source.entry_reader(), &target.staging(), &manifest, 333, usize::MAX);
        check_all(&target.staging(), &manifest).unwrap();
        target.replace_by_staged(&manifest).unwrap();
        let expected = &all[..upto as usize];
        assert_eq!(stored(&target), expected, "up to {upto}");
        assert_eq!(target.flushed_end().get(), manifest.end_offset);
        append(&mut target, [upto + 1]);
        drop(target);
        let target = open_raw(&disk);
        assert_eq!(stored(&target).len(), expected.len() + 1);
        assert!(!disk.names().iter().any(|name| name.ends_with(".staged")), "{:?}", disk.names());
    }
}

#[test]
fn an_empty_copy_goes_on_at_its_offset_after_a_start_too() {
    let disk = SimDisk::new();
    let mut target = open_raw(&disk);
    append(&mut target, 1..=3);
    target.replace_by_staged(&Manifest { segments: Vec::new(), end_offset: 500 }).unwrap();
    assert_eq!((target.written_end(), stored(&target).len()), (Offset::new(500), 0));
    drop(target);
    let mut target = open_raw(&disk);
    append(&mut target, [77]);
    assert_eq!(target.entry_reader().extents(77, 1).unwrap()[0].base_offset, Offset::new(500));
}

#[test]
fn every_wrong_bit_of_a_copy_is_noticed_and_had_again() {
    let source = source(6);
    let manifest = source.entry_reader().manifest(6).unwrap();
    let disk = SimDisk::new();
    let target = open_raw(&disk);
    copy(&source.entry_reader(), &target.staging(), &manifest, 4096, usize::MAX);
    let staged: Vec<String> = disk.names().into_iter().filter(|name| name.ends_with(".staged")).collect();
    for name in &staged {
        let path = Path::new(DIR).join(name);
        let right = disk.read(&path);
        for place in (0..right.len()).step_by(37) {
            let mut wrong = right.clone();
            wrong[place] ^= 4;
            disk.put(&path, &wrong);
            assert!(check_all(&target.staging(), &manifest).is_err(), "{name} at {place}");
            copy(&source.entry_reader(), &target.staging(), &manifest, 4096, usize::MAX);
            check_all(&target.staging(), &manifest).unwrap();
        }
    }
}

#[test]
fn a_crash_while_a_copy_takes_the_logs_place_leaves_the_old_the_new_or_a_word_that_there_is_neither() {
    let source = source(12);
    let manifest = source.entry_reader().manifest(12).unwrap();
    let mut outcomes = std::collections::BTreeSet::new();
    for call in 1.. {
        let disk = SimDisk::new();
        let mut target = open_raw(&disk);
        append(&mut target, 1..=5);
        target.write_group_state(b"old").unwrap();
        copy(&source.entry_reader(), &target.staging(), &manifest, 4096, usize::MAX);
        check_all(&target.staging(), &manifest).unwrap();
        disk.crash_at(disk.calls() + call);
        let outcome = target
            .write_group_state(b"neither")
            .and_then(|()| target.replace_by_staged(&manifest))
            .and_then(|()| target.write_group_state(b"new"));
        for seed in 0..8 {
            let left = disk.after_power_cut(&mut Random::new(seed));
            let mut log = open_raw(&left);
            let state = log.read_group_state().unwrap().unwrap();
            outcomes.insert(state.clone());
            match state.as_slice() {
                b"old" => assert_eq!(stored(&log).len(), 5, "call {call}"),
                b"new" => assert_eq!(stored(&log), stored(&source), "call {call}"),
                _ => {
                    log.wipe().unwrap();
                    assert_eq!((stored(&log).len(), log.written_end()), (0, Offset::ZERO), "call {call}");
                    copy(&source.entry_reader(), &log.staging(), &manifest, 4096, usize::MAX);
                    check_all(&log.staging(), &manifest).unwrap();
                    log.replace_by_staged(&manifest).unwrap();
                    assert_eq!(stored(&log), stored(&source), "call {call}");
                }
            }
        }
        if outcome.is_ok() {
            break;
        }
    }
    assert_eq!(outcomes.len(), 3, "every outcome was seen");
}

#[test]
fn a_damaged_log_is_cut_before_its_first_damage() {
    for victim in 1..=12_u64 {
        let disk = SimDisk::new();
        let mut log = open_raw(&disk);
        append(&mut log, 1..=12);
        let whole = stored(&log);
        drop(log);
        // The entry's own header is damaged: found whatever the segment's state. A blank has no place of its own.
        let is_victim = |entry: &[u8]| entry[88..96] == victim.to_le_bytes() && entry[4] < 3;
        let indexes = disk.names().into_iter().filter(|name| name.ends_with(".batches"));
        let (index, place) = indexes
            .filter_map(|name| {
                let index = Path::new(DIR).join(name);
                let place = disk.read(&index).chunks(128).skip(1).position(is_victim)?;
                Some((index, place))
            })
            .next()
            .unwrap();
        let mut bytes = disk.read(&index);
        bytes[(place + 1) * 128 + 60] ^= 1;
        disk.put(&index, &bytes);
        let mut log = open_raw(&disk);
        let is_last = victim == 12;
        // At the very end it is what a crash leaves too, and was cut off by the opening.
        assert!(log.cut_damage().unwrap() || is_last, "entry {victim}");
        log.cut_partial_entry().unwrap();
        let kept = victim as usize - 1;
        assert_eq!(stored(&log), whole[..kept], "entry {victim}");
        append(&mut log, [victim]);
        assert_eq!(stored(&log), whole[..=kept], "entry {victim}");
    }
}
