//! The door to the files that a search derives from a segment's records, beside it: its filters and its columns.
//!
//! Invariant: they are written whole or not at all, and go with their segment. What they hold is not the log's to
//! know; they may be deleted at any time.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use model::Offset;

use super::disk::{self, Disk, OpenMode};
use super::error::LogError;
use super::layout::{self, Part};
use super::shared::Shared;

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sidecar {
    /// Filters of the words.
    Filter,
    /// Columns of what is counted and sorted by.
    Columns,
}

/// Reads and writes the sidecars of one partition.
#[derive(Clone, Debug)]
pub struct Sidecars {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    shared: Arc<Shared>,
}

impl Sidecars {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, shared: Arc<Shared>) -> Self {
        Self { disk, dir, shared }
    }

    /// The first `length` bytes of a segment's sidecar, or all that it has; `None` when there is none.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn read(&self, segment: Offset, sidecar: Sidecar, length: usize) -> Result<Option<Bytes>, LogError> {
        let path = self.dir.join(layout::file_name(segment, sidecar.part()));
        let read = self.disk.open(&path, OpenMode::Read).and_then(|file| {
            let length = usize::try_from(file.length()?).unwrap_or(usize::MAX).min(length);
            let mut buffer = vec![0; length];
            let filled = disk::read_full(&*file, &mut buffer, 0)?;
            buffer.truncate(filled);
            Ok(buffer)
        });
        match read {
            Ok(buffer) => Ok(Some(buffer.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("read", &path, error)),
        }
    }

    /// Puts a segment's sidecar in place of the one there may be. Does nothing for a segment that is gone.
    ///
    /// # Errors
    /// When the disk is full, or the system refuses; what was there is untouched then.
    pub fn write(&self, segment: Offset, sidecar: Sidecar, bytes: &[u8]) -> Result<(), LogError> {
        let name = layout::file_name(segment, sidecar.part());
        disk::write_atomically(&*self.disk, &self.dir, &name, bytes)
            .map_err(|error| LogError::io("write", &self.dir.join(&name), error))?;
        // A segment leaves the list before its files are removed: whoever sees it here leaves the removal to that.
        if !self.shared.segments().iter().any(|held| held.base_offset == segment) {
            self.remove(segment, sidecar)?;
        }
        Ok(())
    }

    /// Removes a segment's sidecar, if there is one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, segment: Offset, sidecar: Sidecar) -> Result<(), LogError> {
        let path = self.dir.join(layout::file_name(segment, sidecar.part()));
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LogError::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}

impl Sidecar {
    fn part(self) -> Part {
        match self {
            Self::Filter => Part::Filter,
            Self::Columns => Part::Columns,
        }
    }
}
