//! A partition's files as `cat`, `grep` and `jq` see them: nothing of edgelog's code reads here.

use std::fs;
use std::path::{Path, PathBuf};

use model::EnrichedRecord;

/// The bytes of a batch index's header, and of each of its entries (docs/data-format.md).
const INDEX_ENTRY_BYTES: usize = 128;

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
/// When a line is anything but one enriched record, or the batch indexes count other records than there are lines.
pub fn records(partition_dir: &Path) -> Vec<EnrichedRecord> {
    let lines = lines(partition_dir);
    assert_eq!(lines.len() as u64, indexed_records(partition_dir), "as many lines as records");
    let parse =
        |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    lines.iter().map(parse).collect()
}

/// The records that a partition's batch indexes count.
///
/// # Panics
/// When an index cannot be read or ends within an entry.
pub fn indexed_records(partition_dir: &Path) -> u64 {
    let of_segment = |path: PathBuf| -> u64 {
        let index = fs::read(path.with_extension("batches")).unwrap();
        assert_eq!(index.len() % INDEX_ENTRY_BYTES, 0, "{} has whole entries", path.display());
        let batches = index.chunks_exact(INDEX_ENTRY_BYTES).skip(1).filter(|entry| entry[4] == 0);
        batches.map(|entry| u64::from(u32::from_le_bytes(entry[16..20].try_into().unwrap()))).sum()
    };
    segments(partition_dir).into_iter().map(of_segment).sum()
}
