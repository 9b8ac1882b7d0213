//! What lies in a data directory.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Sizes, and the number of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskUsage {
    /// What the files occupy on the disk, as `du` counts.
    pub(crate) disk_bytes: u64,
    /// Bytes of the plain JSONL.
    pub(crate) jsonl_bytes: u64,
    /// Its lines: one a record.
    pub(crate) records: u64,
}

impl DiskUsage {
    /// Looks at every file below `dir`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let mut usage = Self::default();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let metadata = std::fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                usage += Self::of(&path)?;
                continue;
            }
            // As stat(2) has it, in units of 512 bytes whatever the file system's blocks are.
            usage.disk_bytes += metadata.blocks() * 512;
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                usage.jsonl_bytes += metadata.len();
                usage.records += count_lines(File::open(&path)?)?;
            }
        }
        Ok(usage)
    }
}

impl AddAssign for DiskUsage {
    fn add_assign(&mut self, other: Self) {
        self.disk_bytes += other.disk_bytes;
        self.jsonl_bytes += other.jsonl_bytes;
        self.records += other.records;
    }
}

fn count_lines(mut file: File) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut lines = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(lines);
        }
        // xtask itself is not optimised, its dependencies are.
        let newlines = memchr::memchr_iter(b'\n', buffer.get(..read).unwrap_or_default());
        lines += newlines.count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_the_lines_of_jsonl_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("partition-0")).unwrap();
        std::fs::write(dir.path().join("partition-0/0.jsonl"), "{}\n{}\n").unwrap();
        std::fs::write(dir.path().join("partition-0/0.batches"), "\n\n\n").unwrap();
        std::fs::write(dir.path().join("1.jsonl"), "{}\n").unwrap();
        let usage = DiskUsage::of(dir.path()).unwrap();
        assert_eq!((usage.records, usage.jsonl_bytes), (3, 9));
        assert!(usage.disk_bytes.is_multiple_of(512));
    }
}
