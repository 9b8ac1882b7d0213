//! The files of a search beside a segment: whole or not there, gone with it, and nobody's who has no segment.

use super::*;
use crate::log::{Sidecar, Sidecars};

const BOTH: [Sidecar; 2] = [Sidecar::Filter, Sidecar::Columns];

fn names_of_sidecars(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.ends_with(".filter") || name.ends_with(".columns")).collect()
}

fn write_all(sidecars: &Sidecars, log: &PartitionLog) {
    for extent in log.reader().segment_extents().iter().filter(|extent| extent.sealed) {
        for sidecar in BOTH {
            sidecars.write(extent.base_offset, sidecar, b"derived").unwrap();
        }
    }
}

#[test]
fn a_sidecar_is_read_as_written_and_may_be_missing() {
    let log = log_of(&SimDisk::new(), &small_segments(), &some_batches(20));
    let sidecars = log.sidecars();
    assert_eq!(sidecars.read(Offset::ZERO, Sidecar::Filter, 100).unwrap(), None);
    sidecars.write(Offset::ZERO, Sidecar::Filter, b"some bytes").unwrap();
    let read = |length| sidecars.read(Offset::ZERO, Sidecar::Filter, length).unwrap().unwrap();
    assert_eq!((read(100), read(4)), (Bytes::from_static(b"some bytes"), Bytes::from_static(b"some")));
    sidecars.remove(Offset::ZERO, Sidecar::Filter).unwrap();
    sidecars.remove(Offset::ZERO, Sidecar::Filter).unwrap();
    assert_eq!(sidecars.read(Offset::ZERO, Sidecar::Filter, 100).unwrap(), None);
}

#[test]
fn sidecars_go_with_their_segment_and_are_not_written_after_it() {
    let disk = SimDisk::new();
    let options = LogOptions { retention_age: Some(Duration::from_millis(BATCH_MS)), ..small_segments() };
    let mut log = log_of(&disk, &options, &some_batches(40));
    let sidecars = log.sidecars();
    write_all(&sidecars, &log);
    let sealed = log.reader().segment_extents().iter().filter(|extent| extent.sealed).count();
    assert_eq!(names_of_sidecars(&disk).len(), 2 * sealed);
    assert!(sealed > 2);
    log.maintain(1000 * BATCH_MS).unwrap();
    assert_eq!(names_of_sidecars(&disk), [] as [String; 0]);
    write_all(&sidecars, &log);
    sidecars.write(Offset::ZERO, Sidecar::Columns, b"too late").unwrap();
    assert_eq!(names_of_sidecars(&disk), [] as [String; 0]);
}

#[test]
fn sidecars_without_a_segment_are_removed_before_the_first_write() {
    let disk = SimDisk::new();
    let log = log_of(&disk, &small_segments(), &some_batches(20));
    write_all(&log.sidecars(), &log);
    let kept = names_of_sidecars(&disk).len();
    drop(log);
    let stray = Path::new(DIR).join(format!("{:020}.filter", 999_999));
    disk.put(&stray, b"of a segment that is gone");
    disk.put(&path(0, Part::Columns).with_extension("columns.tmp"), b"half");
    let (mut log, report) = open(&disk, &small_segments());
    assert!(report.damage.is_empty(), "{report:?}");
    commit(&mut log, &[batch(50, 1)]).unwrap();
    assert_eq!(names_of_sidecars(&disk).len(), kept);
    assert!(!disk.names().iter().any(|name| name.ends_with(".tmp")));
}

#[test]
fn the_extents_of_segments_and_batches_are_those_of_what_was_written() {
    let written = some_batches(30);
    let log = log_of(&SimDisk::new(), &small_segments(), &written);
    let reader = log.reader();
    let segments = reader.segment_extents();
    assert!(segments.len() > 2);
    assert_eq!(segments.iter().map(|segment| u64::from(segment.batch_count)).sum::<u64>(), 30);
    assert_eq!(segments.last().map(|segment| segment.end_offset), Some(reader.high_watermark()));
    for from in 0..reader.high_watermark().get() {
        let mut found = Vec::new();
        reader
            .visit_batch_extents(Offset::new(from), Offset::new(from + 5), |batch| found.push(batch))
            .unwrap();
        let expected: Vec<StoredBatch> =
            reader.batches_between(Offset::new(from), Offset::new(from + 5)).map(Result::unwrap).collect();
        assert_eq!(found.len(), expected.len(), "from {from}");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!((found.base_offset, found.end_offset), (expected.base_offset, expected.end_offset()));
            assert_eq!(found.length as usize, expected.bytes.len());
            assert_eq!(found.timestamp_max_ms, expected.timestamp_max_ms);
        }
    }
}
