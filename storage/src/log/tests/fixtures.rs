//! Files of every format as the first version wrote them: they stay readable, and are still written the same.
//!
//! The fixtures are the files of [`frozen_log`], copied from a real run. A change that fails here changes the format:
//! it needs a new version, and the old fixtures stay.

use super::*;

/// The fixtures' files, by name.
const FILES: [(&str, &[u8]); 7] = [
    ("00000000000000000000.jsonl.zst", include_bytes!("../../../fixtures/v1/00000000000000000000.jsonl.zst")),
    ("00000000000000000000.batches", include_bytes!("../../../fixtures/v1/00000000000000000000.batches")),
    ("00000000000000000000.ids", include_bytes!("../../../fixtures/v1/00000000000000000000.ids")),
    ("00000000000000000009.jsonl", include_bytes!("../../../fixtures/v1/00000000000000000009.jsonl")),
    ("00000000000000000009.batches", include_bytes!("../../../fixtures/v1/00000000000000000009.batches")),
    ("closed", include_bytes!("../../../fixtures/v1/closed")),
    ("notes.txt", b"not the log's"),
];

fn frozen_batches() -> Vec<NewBatch> {
    some_batches(8)
}

/// A compressed segment and an active one, closed cleanly.
fn frozen_log(disk: &SimDisk) {
    let options = LogOptions { compress_age: Some(Duration::ZERO), ..small_segments() };
    let mut log = log_of(disk, &options, &frozen_batches());
    while log.maintain(0).unwrap().more {}
    log.close().unwrap();
}

fn frozen_disk() -> SimDisk {
    let disk = SimDisk::new();
    for (name, bytes) in FILES {
        disk.put(&Path::new(DIR).join(name), bytes);
    }
    disk
}

#[test]
fn the_first_version_is_read() {
    let disk = frozen_disk();
    let (mut log, report) = open(&disk, &small_segments());
    assert!(report.was_closed && report.damage.is_empty() && report.rebuilt_indexes == 0, "{report:?}");
    assert_same(&read_all(&log.reader()), &frozen_batches());
    let expected: Vec<_> = frozen_batches().iter().map(|new| (new.id, new.digest)).collect();
    assert_eq!(
        log.recent_batches(100).iter().map(|known| (known.id, known.digest)).collect::<Vec<_>>(),
        expected
    );
    for new in frozen_batches() {
        assert!(log.find_batch(new.id).unwrap().is_some());
    }
    assert_eq!(disk.read(&path(0, Part::Ids)), FILES[2].1, "the list was good, and was not made again");
    commit(&mut log, &[batch(50, 1)]).unwrap();
}

#[test]
fn what_is_written_now_is_the_first_version() {
    let disk = SimDisk::new();
    frozen_log(&disk);
    for (name, bytes) in FILES.iter().filter(|(name, _)| *name != "notes.txt") {
        let written = disk.read(&Path::new(DIR).join(name));
        if name.ends_with(".zst") {
            // Another zstd may compress otherwise; what comes out is the same.
            assert_eq!(zstd::decode_all(&written[..]).unwrap(), zstd::decode_all(*bytes).unwrap());
        } else {
            assert_eq!(written, *bytes, "{name}");
        }
    }
}
