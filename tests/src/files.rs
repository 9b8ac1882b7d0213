//! A partition's files as `cat`, `grep` and `jq` see them: nothing of edgelog's code reads here.

use std::fs;
use std::path::{Path, PathBuf};

use model::EnrichedRecord;

/// The bytes of a batch index's header, and of each of its entries (docs/data-format.md).
const ENTRY_BYTES: usize = 128;

/// The segments of a partition, oldest first.
///
/// # Panics
/// When the directory cannot be read.
pub fn segments(partition_dir: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(partition_dir).unwrap_or_else(|error| panic!("{}: {error}", partition_dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    paths
}

/// Copies a directory with all that is below it.
///
/// # Panics
/// When it cannot be read, or written.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// The lines of a partition, without their newlines.
///
/// # Panics
/// When a file is not UTF-8, does not end with a newline, or does not begin at the offset that its name says.
pub fn lines(partition_dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for path in segments(partition_dir) {
        let offset: usize = path.file_stem().and_then(|name| name.to_str()).unwrap().parse().unwrap();
        assert_eq!(offset, lines.len(), "{} begins at the offset of its name", path.display());
        let text = String::from_utf8(fs::read(&path).unwrap())
            .unwrap_or_else(|error| panic!("{} is not UTF-8: {error}", path.display()));
        assert!(text.is_empty() || text.ends_with('\n'), "{} ends within a line", path.display());
        // Not `lines()`: a carriage return would be swallowed.
        lines.extend(text.split_terminator('\n').map(str::to_owned));
    }
    lines
}

/// The records of a partition, each parsed from its line by a parser that is not edgelog's.
///
/// # Panics
/// When a line is anything but one enriched record, or the batch indexes do not describe the lines.
pub fn records(partition_dir: &Path) -> Vec<EnrichedRecord> {
    let lines = lines(partition_dir);
    let indexed: usize = segments(partition_dir).iter().map(|path| check_index(path)).sum();
    assert_eq!(lines.len(), indexed, "{}: as many lines as records", partition_dir.display());
    let parse =
        |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    lines.iter().map(parse).collect()
}

/// Checks a segment's batch index as docs/data-format.md describes it, and returns the records that it counts.
///
/// # Panics
/// When it is not as described.
fn check_index(segment: &Path) -> usize {
    let data = fs::read(segment).unwrap();
    let index = fs::read(segment.with_extension("batches")).unwrap();
    let shown = segment.display();
    assert_eq!(index.len() % ENTRY_BYTES, 0, "{shown}: the index has whole entries");
    let mut entries = index.chunks_exact(ENTRY_BYTES);
    let header = entries.next().unwrap();
    assert_eq!(
        number(header, 0, 4),
        u64::from(crc32fast::hash(&header[4..])),
        "{shown}: the header's checksum"
    );
    assert_eq!(&header[4..12], b"edgelogB", "{shown}");
    let mut offset = number(header, 18, 8);
    let (mut records, mut position) = (0, 0);
    for entry in entries {
        assert_eq!(
            number(entry, 0, 4),
            u64::from(crc32fast::hash(&entry[4..])),
            "{shown}: an entry's checksum"
        );
        // 3 is the seal; 1 and 2 have no records.
        if entry[4] != 0 {
            continue;
        }
        let length = number(entry, 32, 4) as usize;
        assert_eq!(
            (number(entry, 8, 8), number(entry, 24, 8)),
            (offset, position as u64),
            "{shown}: batches join"
        );
        let bytes = &data[position..position + length];
        assert_eq!(
            number(entry, 20, 4),
            u64::from(crc32fast::hash(bytes)),
            "{shown}: the checksum of {position}"
        );
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(number(entry, 16, 4), lines as u64, "{shown}: the lines from {position}");
        offset += lines as u64;
        records += lines;
        position += length;
    }
    assert_eq!(position, data.len(), "{shown}: nothing but batches");
    records
}

/// A little-endian number.
fn number(entry: &[u8], start: usize, bytes: usize) -> u64 {
    entry[start..start + bytes].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What the file says in which a replica keeps its state.
///
/// # Panics
/// When it is not as docs/data-format.md describes it.
pub fn read_group_state(partition_dir: &Path) -> serde_json::Value {
    let bytes = fs::read(partition_dir.join("raft")).unwrap();
    serde_json::from_slice(&bytes[ENTRY_BYTES..]).unwrap()
}
