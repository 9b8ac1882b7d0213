//! The names of a partition's files.
//!
//! Invariant: a segment's files all begin with its base offset in 20 digits, so that names sort as offsets do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{Offset, Partition};

use super::disk::DirEntry;

/// The clean-close marker.
pub(super) const CLOSED: &str = "closed";

/// The vote, the members and the places in the replicated log that this replica keeps; only there with replication.
pub(super) const GROUP: &str = "raft";

/// The file that one process at a time may hold.
pub(super) const LOCK: &str = "lock";

/// The file whose room is given up when the disk is full.
pub(super) const RESERVE: &str = "reserve";

const TEMPORARY: &str = ".tmp";

/// What a file of a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The records.
    Data,
    /// The records, compressed.
    CompressedData,
    /// The batch index.
    Index,
    /// The sorted batch ids, derived from the index.
    Ids,
    /// The filters of the words, derived from the records.
    Filter,
    /// The columns, derived from the records.
    Columns,
}

impl Part {
    const ALL: [Self; 6] =
        [Self::Data, Self::CompressedData, Self::Index, Self::Ids, Self::Filter, Self::Columns];
    /// What a search makes for itself: whatever becomes of these, the log is whole.
    pub(super) const SIDECARS: [Self; 2] = [Self::Filter, Self::Columns];
}

/// The lengths of a segment's files, where they exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentFiles {
    pub(super) data: Option<u64>,
    pub(super) compressed: Option<u64>,
    pub(super) index: Option<u64>,
    pub(super) ids: Option<u64>,
    pub(super) filter: Option<u64>,
    pub(super) columns: Option<u64>,
}

impl SegmentFiles {
    /// The files that are derived from others.
    pub(super) fn derived(&self) -> impl Iterator<Item = Part> {
        let parts = [(Part::Ids, self.ids), (Part::Filter, self.filter), (Part::Columns, self.columns)];
        parts.into_iter().filter_map(|(part, length)| length.map(|_| part))
    }
}

/// What was found in a partition's directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) segments: BTreeMap<Offset, SegmentFiles>,
    pub(super) has_closed_marker: bool,
    /// Files that a crash left half-written.
    pub(super) temporary: Vec<String>,
}

/// The directory of `partition` below a node's data directory.
pub fn partition_dir(data_dir: &Path, partition: Partition) -> PathBuf {
    data_dir.join(format!("partition-{partition}"))
}

/// The partition whose directory this is, by its name.
pub fn partition_of_dir(name: &str) -> Option<Partition> {
    let digits = name.strip_prefix("partition-")?;
    let partition: Partition = digits.parse().ok()?;
    (partition.to_string() == digits).then_some(partition)
}

/// The name of a segment's file.
pub(super) fn file_name(base_offset: Offset, part: Part) -> String {
    format!("{:020}.{}", base_offset.get(), suffix(part))
}

/// Sorts a directory's files by what they are. Files that are not the log's are passed over: they are not ours to
/// judge or to remove.
pub(super) fn read_listing(entries: Vec<DirEntry>) -> Listing {
    let mut listing = Listing::default();
    for DirEntry { name, length } in entries {
        if name == CLOSED {
            listing.has_closed_marker = true;
        } else if let Some(whole) = name.strip_suffix(TEMPORARY) {
            if whole == CLOSED || whole == GROUP || parse(whole).is_some() {
                listing.temporary.push(name);
            }
        } else if let Some((base_offset, part)) = parse(&name) {
            let files = listing.segments.entry(base_offset).or_default();
            match part {
                Part::Data => files.data = Some(length),
                Part::CompressedData => files.compressed = Some(length),
                Part::Index => files.index = Some(length),
                Part::Ids => files.ids = Some(length),
                Part::Filter => files.filter = Some(length),
                Part::Columns => files.columns = Some(length),
            }
        }
    }
    // Derived files alone are what a crash left of a deletion; they name no segment.
    listing.segments.retain(|base_offset, files| {
        let real = files.data.is_some() || files.compressed.is_some() || files.index.is_some();
        if !real {
            listing.temporary.extend(files.derived().map(|part| file_name(*base_offset, part)));
        }
        real
    });
    listing
}

fn suffix(part: Part) -> &'static str {
    match part {
        Part::Data => "jsonl",
        Part::CompressedData => "jsonl.zst",
        Part::Index => "batches",
        Part::Ids => "ids",
        Part::Filter => "filter",
        Part::Columns => "columns",
    }
}

fn parse(name: &str) -> Option<(Offset, Part)> {
    let (digits, rest) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = Part::ALL.into_iter().find(|p| suffix(*p) == rest)?;
    Some((Offset::new(digits.parse().ok()?), part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_parsed_back_and_strangers_are_passed_over() {
        for part in Part::ALL {
            let name = file_name(Offset::new(u64::MAX), part);
            assert_eq!(parse(&name), Some((Offset::new(u64::MAX), part)));
        }
        for stranger in
            ["1.jsonl", "0000000000000000000x.jsonl", "99999999999999999999.jsonl", "notes.txt", "jsonl"]
        {
            assert_eq!(parse(stranger), None, "{stranger}");
        }
        let entry = |name: &str| DirEntry { name: name.to_owned(), length: 1 };
        let listing =
            read_listing(vec![entry("notes.tmp"), entry("00000000000000000007.ids"), entry("closed")]);
        assert!(listing.segments.is_empty() && listing.has_closed_marker);
        assert_eq!(listing.temporary, ["00000000000000000007.ids"]);
    }

    #[test]
    fn a_partition_has_one_directory_name() {
        let dir = partition_dir(Path::new("d"), Partition::new(12));
        assert_eq!(dir, Path::new("d/partition-12"));
        assert_eq!(partition_of_dir("partition-12"), Some(Partition::new(12)));
        assert_eq!(partition_of_dir("partition-012"), None);
        assert_eq!(partition_of_dir("partition-x"), None);
    }
}
