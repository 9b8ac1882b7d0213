//! A disk that changes nothing any more once a sync failed.
//!
//! After a failed sync the system may have dropped what it could not write, and a second sync may not say so: nobody
//! may build on what was written since the last one that succeeded. Whoever has a log on this disk need not think of
//! it at each sync. Invariant: after the first failed sync of a file or a directory no call changes a file or a name.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

/// Whether and why a log takes no more writes, shared by all who write and all who ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<OnceLock<Arc<str>>>);

/// The disk.
#[derive(Debug)]
pub(super) struct StoppingDisk {
    disk: Arc<dyn Disk>,
    stop: Stop,
}

#[derive(Debug)]
struct StoppingFile {
    file: Arc<dyn DiskFile>,
    name: String,
    stop: Stop,
}

impl Stop {
    /// Why, if it is so.
    pub(super) fn cause(&self) -> Option<Arc<str>> {
        self.0.get().cloned()
    }

    /// Stops for good. The first cause stays.
    pub(super) fn set(&self, cause: Arc<str>) {
        self.0.get_or_init(|| cause);
    }

    /// An error when it is so.
    fn check(&self) -> io::Result<()> {
        match self.0.get() {
            Some(cause) => Err(io::Error::other(format!("nothing is written any more: {cause}"))),
            None => Ok(()),
        }
    }

    /// Passes a sync's outcome on, and remembers a failure.
    fn note_sync(&self, name: impl fmt::Display, outcome: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &outcome {
            self.set(format!("could not sync {name}: {error}").into());
        }
        outcome
    }
}

impl StoppingDisk {
    /// `disk`, until the first failed sync.
    pub(super) fn new(disk: Arc<dyn Disk>, stop: Stop) -> Self {
        Self { disk, stop }
    }
}

impl Disk for StoppingDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.stop.check()?;
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match mode {
            OpenMode::Read => self.disk.open(path, mode),
            OpenMode::Write | OpenMode::Create => {
                self.stop.check()?;
                let file = self.disk.open(path, mode)?;
                let (name, stop) = (path.display().to_string(), self.stop.clone());
                Ok(Arc::new(StoppingFile { file, name, stop }))
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.stop.check()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.stop.check()?;
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.stop.check()?;
        self.stop.note_sync(dir.display(), self.disk.sync_dir(dir))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(path)
    }
}

impl DiskFile for StoppingFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn read_onto(&self, buffer: &mut Vec<u8>, length: usize, position: u64) -> io::Result<usize> {
        self.file.read_onto(buffer, length, position)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.stop.check()?;
        self.file.write_at(slices, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.stop.check()?;
        self.stop.note_sync(&self.name, self.file.sync_data())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.stop.check()?;
        self.file.set_length(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.stop.check()?;
        self.file.allocate(length)
    }
}
