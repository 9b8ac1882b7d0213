//! The machine's own file system: the same log, for once on a real disk.

use super::*;
use crate::log::{Disk, OpenMode, RealDisk};

fn open_real(dir: &Path, options: &LogOptions) -> Result<(PartitionLog, RecoveryReport), LogError> {
    let (mut log, report) =
        PartitionLog::open(Arc::new(RealDisk), dir, Partition::new(0), options.clone(), 0)?;
    log.publish(log.flushed_end());
    Ok((log, report))
}

#[test]
fn a_log_on_a_real_disk_is_written_closed_compressed_and_read_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("node").join("partition-0");
    let options = LogOptions { compress_age: Some(Duration::ZERO), ..small_segments() };
    let written = some_batches(20);
    let (mut log, _) = open_real(&dir, &options).unwrap();
    commit(&mut log, &written).unwrap();
    assert!(matches!(open_real(&dir, &options), Err(LogError::Locked { .. })));
    while log.maintain(100 * BATCH_MS).unwrap().more {}
    assert!(dir.join("reserve").exists());
    assert_same(&read_all(&log.reader()), &written);
    log.close().unwrap();

    let (log, report) = open_real(&dir, &options).unwrap();
    assert!(report.was_closed);
    assert_same(&read_all(&log.reader()), &written);
    let status = log.reader().status();
    let last = status.segments.last().unwrap();
    assert!(status.segments[0].compressed && !last.sealed);
    // A plain segment is exactly its records.
    let lines = std::fs::read(dir.join(layout::file_name(last.base_offset, Part::Data))).unwrap();
    assert_eq!(
        lines.iter().filter(|byte| **byte == b'\n').count() as u64,
        last.end_offset.since(last.base_offset)
    );
}

#[test]
fn readers_read_while_the_writer_writes() {
    let temp = tempfile::tempdir().unwrap();
    let options = LogOptions { compress_age: Some(Duration::ZERO), ..small_segments() };
    let (mut log, _) = open_real(temp.path(), &options).unwrap();
    let reader = log.reader();
    let written = some_batches(200);
    let expected: Vec<Bytes> = written.iter().map(|new| new.batch.bytes().clone()).collect();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (reader, expected) = (reader.clone(), expected.clone());
            std::thread::spawn(move || {
                loop {
                    let stored: Vec<Bytes> =
                        reader.batches_from(Offset::ZERO).map(|batch| batch.unwrap().bytes).collect();
                    assert_eq!(stored, expected[..stored.len()]);
                    if stored.len() == expected.len() {
                        return;
                    }
                }
            })
        })
        .collect();
    for new in written.chunks(3) {
        log.append(new).unwrap();
        let end = log.sync().unwrap();
        log.publish(end);
        log.maintain(1000 * BATCH_MS).unwrap();
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_missing_file_and_directory_are_told_apart_from_other_errors() {
    let temp = tempfile::tempdir().unwrap();
    let gone = temp.path().join("gone");
    assert_eq!(RealDisk.list(&gone).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(RealDisk.open(&gone, OpenMode::Read).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(RealDisk.free_bytes(temp.path()).unwrap() > 0);
}
