//! A file that only takes room, to be given up when the disk is full: the node then can still start, write its
//! clean-close marker and delete.
//!
//! Invariant: losing the file never costs more than the room.

use std::path::{Path, PathBuf};

use super::disk::{Disk, OpenMode};
use super::error::LogError;
use super::layout;
use super::limits;

/// The reserve of one partition's directory.
#[derive(Debug)]
pub(super) struct Reserve {
    dir: PathBuf,
}

impl Reserve {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Does `work`; when there is no room for it, gives the reserve up and does it once more.
    pub(super) fn or_give_up<T>(
        &self,
        disk: &dyn Disk,
        mut work: impl FnMut() -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        match work() {
            Err(LogError::DiskFull) if disk.remove(&self.path()).is_ok() => work(),
            other => other,
        }
    }

    /// Takes the room again when there is plenty of it. Without it all works but for a full disk, so a refusal is
    /// no error.
    pub(super) fn refill(&self, disk: &dyn Disk) {
        let path = self.path();
        let is_there =
            disk.open(&path, OpenMode::Read).and_then(|file| file.length()).is_ok_and(|bytes| bytes > 0);
        let has_plenty = disk.free_bytes(&self.dir).is_ok_and(|free| free > limits::RESERVE_FREE_BYTES_MIN);
        if is_there || !has_plenty {
            return;
        }
        let taken = disk.open(&path, OpenMode::Create).and_then(|file| file.allocate(limits::RESERVE_BYTES));
        if taken.is_err() {
            disk.remove(&path).ok();
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(layout::RESERVE)
    }
}
