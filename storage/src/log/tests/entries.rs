//! The log as the replicated log: entries of several batches or none, cut off and written again, and the machine that
//! dies at every single call of it.

use super::random::Random;
use super::*;
use crate::log::{ConsumerCommit, ConsumerKey, EntryContent, EntryKind, NewEntry};

/// What the log holds: each entry's index and term, and its batches' bytes.
type Entries = Vec<(u64, u64, Vec<Bytes>)>;

fn entry(log_index: u64, term: u64, batches: u64) -> NewEntry {
    let content = match batches {
        0 if log_index.is_multiple_of(2) => EntryContent::Blank,
        0 if log_index.is_multiple_of(3) => EntryContent::Membership,
        0 => EntryContent::Consumer(ConsumerCommit {
            consumer: ConsumerKey::of("c"),
            offset: Some(Offset::new(log_index)),
        }),
        _ => EntryContent::Batches(
            (0..batches).map(|place| batch(term * 10_000 + log_index * 10 + place, place % 3 + 1)).collect(),
        ),
    };
    NewEntry { log_index, term, appended_at_ms: log_index * BATCH_MS, content }
}

fn expected(entries: &[NewEntry]) -> Entries {
    let bytes = |entry: &NewEntry| match &entry.content {
        EntryContent::Batches(batches) => batches.iter().map(|new| new.batch.bytes().clone()).collect(),
        EntryContent::Blank | EntryContent::Membership | EntryContent::Consumer(_) => Vec::new(),
    };
    entries.iter().map(|entry| (entry.log_index, entry.term, bytes(entry))).collect()
}

fn stored(log: &PartitionLog) -> Entries {
    let entries = log.entry_reader().read(1, u64::MAX, u64::MAX).unwrap();
    let bytes = |entry: &crate::log::StoredEntry| entry.batches.iter().map(|b| b.bytes.clone()).collect();
    entries.iter().map(|entry| (entry.extent.log_index, entry.extent.term, bytes(entry))).collect()
}

fn open_entries(disk: &SimDisk, options: &LogOptions) -> Result<PartitionLog, LogError> {
    let (mut log, report) =
        PartitionLog::open(Arc::new(disk.clone()), Path::new(DIR), Partition::new(0), options.clone(), 0)?;
    assert!(report.damage.is_empty() && report.lost_records == 0, "{report:?}");
    log.cut_partial_entry()?;
    Ok(log)
}

fn append(log: &mut PartitionLog, entries: &[NewEntry]) -> Result<(), LogError> {
    log.append_entries(entries)?;
    log.sync().map(|_| ())
}

#[test]
fn entries_are_found_by_their_index_across_segments_and_blanks_have_no_records() {
    let disk = SimDisk::new();
    let mut log = open_entries(&disk, &small_segments()).unwrap();
    let entries: Vec<NewEntry> = (1..=20).map(|index| entry(index, 1, index % 4)).collect();
    for group in entries.chunks(3) {
        append(&mut log, group).unwrap();
    }
    assert!(log.reader().status().segments.len() > 3);
    let reader = log.entry_reader();
    for index in 1..=20 {
        let read = reader.read(index, index + 1, u64::MAX).unwrap();
        assert_eq!(read.len(), 1);
        let extent = read[0].extent;
        assert_eq!((extent.log_index, reader.extents(index, 1).unwrap()[0]), (index, extent));
        assert_eq!(extent.kind == EntryKind::Batches, extent.base_offset < extent.end_offset);
    }
    assert_eq!(reader.first_index().unwrap(), Some(1));
    assert_eq!(log.last_entry().unwrap().map(|last| last.log_index), Some(20));
    assert_eq!(reader.read(21, 30, u64::MAX).unwrap().len(), 0);
    // A bound in bytes is met, but for the first entry.
    assert_eq!(reader.read(3, 20, 0).unwrap().len(), 1);
    assert!((2..17).contains(&reader.read(3, 20, 1000).unwrap().len()));
    log.publish(log.flushed_end());
    let records: u64 = read_all(&log.reader()).iter().map(|batch| u64::from(batch.record_count)).sum();
    assert_eq!(log.written_end(), Offset::new(records));
}

#[test]
fn a_segment_of_blanks_alone_is_not_sealed() {
    let disk = SimDisk::new();
    let options = LogOptions { segment_bytes_max: 1, segment_age_max: Duration::ZERO, ..one_segment() };
    let mut log = open_entries(&disk, &options).unwrap();
    for index in 1..5 {
        append(&mut log, &[entry(index * 2, 1, 0)]).unwrap();
        log.maintain(u64::MAX / 2).unwrap();
    }
    append(&mut log, &[entry(9, 1, 2)]).unwrap();
    append(&mut log, &[entry(10, 1, 2)]).unwrap();
    let bases: Vec<Offset> = log.reader().status().segments.iter().map(|s| s.base_offset).collect();
    assert!(bases.is_sorted() && bases.windows(2).all(|pair| pair[0] < pair[1]), "{bases:?}");
    assert_eq!(stored(&log).len(), 6);
}

#[test]
fn what_is_cut_off_is_gone_with_all_that_is_derived_from_it() {
    for cut_from in 1..=20 {
        let disk = SimDisk::new();
        let mut log = open_entries(&disk, &small_segments()).unwrap();
        let entries: Vec<NewEntry> = (1..=20).map(|index| entry(index, 1, index % 4)).collect();
        for group in entries.chunks(2) {
            append(&mut log, group).unwrap();
        }
        let kept = &entries[..cut_from as usize - 1];
        log.truncate_from(cut_from).unwrap();
        assert_eq!(stored(&log), expected(kept));
        assert_eq!(log.flushed_end(), log.written_end());
        for (number, one) in entries.iter().enumerate() {
            let EntryContent::Batches(batches) = &one.content else { continue };
            for new in batches {
                assert_eq!(log.find_batch(new.id).unwrap().is_some(), number < kept.len());
            }
        }
        let again =
            [kept.to_vec(), (cut_from..=24).map(|index| entry(index, 2, index % 3)).collect()].concat();
        append(&mut log, &again[kept.len()..]).unwrap();
        assert_eq!(stored(&log), expected(&again));
        log.close().unwrap();
        let log = open_entries(&disk, &small_segments()).unwrap();
        assert_eq!(stored(&log), expected(&again));
    }
}

#[test]
fn what_is_committed_is_not_cut_off() {
    let disk = SimDisk::new();
    let mut log = open_entries(&disk, &one_segment()).unwrap();
    append(&mut log, &[entry(1, 1, 2), entry(2, 1, 2), entry(3, 1, 1)]).unwrap();
    let committed = log.entry_reader().extents(2, 1).unwrap()[0].end_offset;
    log.publisher().publish(committed);
    assert!(matches!(log.truncate_from(2), Err(LogError::Committed { log_index: 2 })));
    log.truncate_from(3).unwrap();
    assert_eq!(stored(&log).len(), 2);
}

#[test]
fn retention_keeps_what_is_not_committed_or_not_purged() {
    let disk = SimDisk::new();
    let options = LogOptions { retention_age: Some(Duration::from_millis(1)), ..small_segments() };
    let mut log = open_entries(&disk, &options).unwrap();
    log.purge_upto(0);
    for index in 1..=20 {
        append(&mut log, &[entry(index, 1, 3)]).unwrap();
    }
    let later = 10_000_000 * BATCH_MS;
    assert_eq!(log.maintain(later).unwrap().deleted_segments, 0);
    log.publish(log.flushed_end());
    let report = log.maintain(later).unwrap();
    assert_eq!(report.deleted_segments, 0);
    let wanted = log.reader().purge_wanted().unwrap();
    log.purge_upto(wanted);
    assert_eq!(log.maintain(later).unwrap().deleted_segments, 1);
    assert_eq!(log.entry_reader().first_index().unwrap(), Some(wanted + 1));
}

/// What a run did: the states the log may be in, of which the last is what was acknowledged.
#[derive(Default)]
struct Run {
    before: Vec<NewEntry>,
    after: Vec<NewEntry>,
}

impl Run {
    fn append(&mut self, log: &mut PartitionLog, entries: &[NewEntry]) -> Result<(), LogError> {
        self.after.extend_from_slice(entries);
        append(log, entries)?;
        self.before = self.after.clone();
        Ok(())
    }

    fn cut(&mut self, log: &mut PartitionLog, from: u64) -> Result<(), LogError> {
        self.after.truncate(from as usize - 1);
        log.truncate_from(from)?;
        self.before = self.after.clone();
        Ok(())
    }

    fn go(&mut self, disk: &SimDisk) -> Result<(), LogError> {
        let mut log = open_entries(disk, &small_segments())?;
        for index in (1..=12).step_by(2) {
            self.append(&mut log, &[entry(index, 1, index % 4), entry(index + 1, 1, 3)])?;
        }
        // Within the last segment, and then over several.
        self.cut(&mut log, 12)?;
        self.append(&mut log, &[entry(12, 2, 0), entry(13, 2, 2)])?;
        self.cut(&mut log, 4)?;
        log.write_group_state(b"a vote")?;
        self.append(&mut log, &(4..9).map(|index| entry(index, 3, 2)).collect::<Vec<_>>())?;
        log.close()?;
        let mut log = open_entries(disk, &small_segments())?;
        self.cut(&mut log, 7)?;
        self.append(&mut log, &[entry(7, 4, 3)])?;
        log.close()
    }

    /// Asserts that the log is one that a crash may leave.
    fn check(&self, disk: &SimDisk, context: &str) {
        let mut log = open_entries(disk, &small_segments()).unwrap();
        let found = stored(&log);
        let (shorter, longer) = if self.before.len() < self.after.len() {
            (&self.before, &self.after)
        } else {
            (&self.after, &self.before)
        };
        assert!(
            (shorter.len()..=longer.len()).contains(&found.len()),
            "{context}: {} entries, not {} to {}",
            found.len(),
            shorter.len(),
            longer.len()
        );
        assert_eq!(found, expected(&longer[..found.len()]), "{context}");
        let next = found.len() as u64 + 1;
        append(&mut log, &[entry(next, 9, 2)]).unwrap();
        assert_eq!(stored(&log).len(), found.len() + 1, "{context}");
        drop(log);
        assert_eq!(
            stored(&open_entries(disk, &small_segments()).unwrap()).len(),
            found.len() + 1,
            "{context}"
        );
    }
}

#[test]
fn a_crash_at_every_call_leaves_a_prefix_of_whole_entries() {
    let whole = SimDisk::new();
    Run::default().go(&whole).unwrap();
    for call in 1..=whole.calls() {
        let disk = SimDisk::new();
        disk.crash_at(call);
        let mut run = Run::default();
        run.go(&disk).unwrap_err();
        run.check(&disk.after_kill(), &format!("kill at call {call}"));
        for seed in 0..12 {
            let left = disk.after_power_cut(&mut Random::new(seed));
            run.check(&left, &format!("power cut at call {call}, seed {seed}"));
        }
    }
}

#[test]
fn the_vote_is_the_old_or_the_new_after_a_crash_at_every_call() {
    for call in 1.. {
        let disk = SimDisk::new();
        let mut log = open_entries(&disk, &one_segment()).unwrap();
        log.write_group_state(b"old").unwrap();
        disk.crash_at(disk.calls() + call);
        let outcome = log.write_group_state(b"new");
        for seed in 0..12 {
            let left = disk.after_power_cut(&mut Random::new(seed));
            let found = open_entries(&left, &one_segment()).unwrap().read_group_state().unwrap().unwrap();
            assert!(found == b"new" || (found == b"old" && outcome.is_err()), "call {call}, seed {seed}");
        }
        if outcome.is_ok() {
            assert!(call > 3);
            break;
        }
    }
}

#[test]
fn a_vote_that_is_not_as_it_was_written_is_an_error() {
    let disk = SimDisk::new();
    let mut log = open_entries(&disk, &one_segment()).unwrap();
    assert_eq!(log.read_group_state().unwrap(), None);
    log.write_group_state(b"a vote").unwrap();
    let path = Path::new(DIR).join(layout::GROUP);
    let mut bytes = disk.read(&path);
    *bytes.last_mut().unwrap() ^= 1;
    disk.put(&path, &bytes);
    assert!(matches!(log.read_group_state(), Err(LogError::GroupState { .. })));
}

#[test]
fn entries_without_records_are_counted_until_a_record_comes() {
    let disk = SimDisk::new();
    let mut log = open(&disk, &LogOptions::default()).0;
    let reader = log.entry_reader();
    assert_eq!(reader.entries_without_records(), 0);
    for log_index in 1..=5 {
        log.append_entries(&[entry(log_index, 1, 0)]).unwrap();
        assert_eq!(u64::from(reader.entries_without_records()), log_index);
    }
    log.append_entries(&[entry(6, 1, 1), entry(7, 1, 0)]).unwrap();
    assert_eq!(reader.entries_without_records(), 0);
    let kinds: Vec<EntryKind> =
        reader.extents(1, 10).unwrap().into_iter().map(|extent| extent.kind).collect();
    let expected: Vec<EntryKind> =
        (1..=7).map(|index| entry(index, 1, u64::from(index == 6)).content.kind()).collect();
    assert_eq!(kinds, expected);
    assert!(
        matches!(kinds[4], EntryKind::Consumer(ConsumerCommit { offset: Some(at), .. }) if at.get() == 5)
    );
}
