//! Both sidecars as the second version wrote them: they are read, and still written the same; those of the first are
//! made again.
//!
//! The fixtures are the files that [`frozen_node`] makes, from records as the ingest writes them and in other forms. A
//! change that fails here changes the format: it needs a new version.

use std::os::unix::fs::MetadataExt as _;

use super::*;

const LINES: &str = include_str!("../../../fixtures/v1/index/00000000000000000000.jsonl");
const SIDECARS: [(&str, &[u8]); 2] = [
    (
        "00000000000000000000.columns",
        include_bytes!("../../../fixtures/v2/index/00000000000000000000.columns"),
    ),
    ("00000000000000000000.filter", include_bytes!("../../../fixtures/v2/index/00000000000000000000.filter")),
];

const FIRST_SIDECARS: [(&str, &[u8]); 2] = [
    (
        "00000000000000000000.columns",
        include_bytes!("../../../fixtures/v1/index/00000000000000000000.columns"),
    ),
    ("00000000000000000000.filter", include_bytes!("../../../fixtures/v1/index/00000000000000000000.filter")),
];

/// A sealed segment of the fixtures' records, without an index.
fn frozen_node() -> Node {
    let mut node = Node::new(1, LogOptions { compress_age: None, ..LogOptions::default() });
    let lines: Vec<String> = LINES.lines().map(str::to_owned).collect();
    for batch in lines.chunks(9) {
        node.append(0, batch);
    }
    node.maintain(LogOptions::default().segment_age_max.as_millis() as u64 + 1);
    node
}

#[test]
fn what_is_written_now_is_the_second_version() {
    let mut node = frozen_node();
    node.indexer.catch_up();
    let written = node.sidecars();
    let names: Vec<_> = written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, SIDECARS.map(|(name, _)| name));
    for (path, (name, frozen)) in written.iter().zip(SIDECARS) {
        assert!(std::fs::read(path).unwrap() == frozen, "{name} is written otherwise");
    }
}

#[test]
fn the_second_version_is_read() {
    let mut node = frozen_node();
    let dir = log::partition_dir(node.dir.path(), Partition::new(0));
    for (name, bytes) in SIDECARS {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    node.restart();
    let before: Vec<u64> =
        node.sidecars().iter().map(|path| std::fs::metadata(path).unwrap().ino()).collect();
    node.indexer.catch_up();
    let all: u64 = LINES.len() as u64;
    for (parameters, field, wanted) in [
        (("word", "request_id=e6d5c63adc8c3c1a"), "message", "request_id=e6d5c63adc8c3c1a"),
        (("icontains", "DÉJÀ VU 9:"), "message", "déjà vu 9:"),
    ] {
        let found = node.search(&query(&[parameters]));
        let expected =
            node.expected(Direction::Backward, |stored| text(&stored.record, field).contains(wanted));
        assert_eq!(found_lines(&found), lines_of(&expected), "{parameters:?}");
        assert!(!expected.is_empty());
        // It was the files that told where to look.
        assert!(found.stats.scanned_bytes < all / 2, "{parameters:?}: {}", found.stats);
    }
    let after: Vec<u64> = node.sidecars().iter().map(|path| std::fs::metadata(path).unwrap().ino()).collect();
    assert_eq!(after, before, "they were good, and were not made again");
}

#[test]
fn files_of_the_first_version_are_made_again() {
    let mut node = frozen_node();
    let dir = log::partition_dir(node.dir.path(), Partition::new(0));
    for (name, bytes) in FIRST_SIDECARS {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    node.restart();
    node.indexer.catch_up();
    for (name, frozen) in SIDECARS {
        assert!(std::fs::read(dir.join(name)).unwrap() == frozen, "{name} is of the second version now");
    }
}
