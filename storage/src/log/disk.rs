//! The one door to the disk: the seam that tests replace, and the only module that syncs or renames.
//!
//! Invariant: nothing is durable before [`DiskFile::sync_data`] returned, and no name before [`Disk::sync_dir`] of
//! its directory did. Must not know what the files hold.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

use super::limits;

/// What the log asks of a file system.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Creates a directory and those above it; no error if it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The files of a directory, in no order. `NotFound` when there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name in the same directory, replacing what had it. Durable after [`Self::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name. Those who have it open read on. Durable after [`Self::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be written below a directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes a lock file, created if need be, until the value is dropped. `WouldBlock` when another has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file. Positions are explicit, so that any number may read while one writes.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Reads up to `buffer.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Appends up to `length` bytes to `buffer`; 0 at the end of the file.
    fn read_onto(&self, buffer: &mut Vec<u8>, length: usize, position: u64) -> io::Result<usize> {
        let start = buffer.len();
        buffer.resize(start + length, 0);
        let read = self.read_at(buffer.get_mut(start..).unwrap_or_default(), position);
        buffer.truncate(start + read.as_ref().copied().unwrap_or_default());
        read
    }
    /// Writes the slices one after another; may write less than all, as the system may.
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    /// Makes what was written, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file, or lengthens it with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Allocates the first `length` bytes, so that writing them needs no room.
    fn allocate(&self, length: u64) -> io::Result<()>;
}

/// A lock that is held until it is dropped.
pub trait DiskLock: fmt::Debug + Send + Sync {}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it has to exist.
    Read,
    /// For reading and writing; it has to exist.
    Write,
    /// For reading and writing; created empty, and emptied if it is there.
    Create,
}

/// A file of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(dir)?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since the directory was read: as if it had been removed before.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let Ok(name) = entry.file_name().into_string()
                && metadata.is_file()
            {
                entries.push(DirEntry { name, length: metadata.len() });
            }
        }
        Ok(entries)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one durable-write module")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one durable-write module")]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock { _file: file }))
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }

    fn read_onto(&self, buffer: &mut Vec<u8>, length: usize, position: u64) -> io::Result<usize> {
        if length == 0 {
            return Ok(0);
        }
        let start = buffer.len();
        buffer.reserve_exact(length);
        // What is read into need not be cleared before.
        let count = rustix::io::pread(&self.0, rustix::buffer::spare_capacity(buffer), position)?;
        buffer.truncate(start + count.min(length));
        Ok(count.min(length))
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.0, slices, position)?)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one durable-write module")]
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length)?)
    }
}

/// The lock is the open file's; closing it gives the lock back.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}

/// Fills `buffer` from `position` on, as far as the file goes; returns how many bytes there were.
pub(super) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..)
        && !rest.is_empty()
    {
        match file.read_at(rest, position + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads `length` bytes from `position` on, or as many as there are.
pub(super) fn read_up_to(file: &dyn DiskFile, length: usize, position: u64) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(length);
    while buffer.len() < length {
        let (left, at) = (length - buffer.len(), position + buffer.len() as u64);
        match file.read_onto(&mut buffer, left, at) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer)
}

/// Writes all slices, however little the system takes at a time.
pub(super) fn write_all<'a>(
    file: &dyn DiskFile,
    slices: &mut [IoSlice<'a>],
    mut position: u64,
) -> io::Result<()> {
    let mut rest = slices;
    // A slice without bytes would read as a write that makes no progress.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let at_once = rest.get(..rest.len().min(limits::WRITE_SLICES_MAX)).unwrap_or_default();
        match file.write_at(at_once, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                position += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a small file whole; `None` when there is none.
///
/// # Errors
/// The system's; or that it is longer than `bytes_max`, and so not what it should be.
pub fn read_file(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.length()?;
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is longer than it may be"));
    }
    read_up_to(&*file, usize::try_from(length).unwrap_or(usize::MAX), 0).map(Some)
}

/// Replaces a file of a directory whole, durably, for who keeps something small beside the logs.
///
/// # Errors
/// The system's; what was there before is there still, or this is.
pub fn write_file(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_atomically(disk, dir, name, bytes)
}

/// Puts a whole file in place: after a crash its old content or its new one is found, never a part.
pub(super) fn write_atomically(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = dir.join(format!("{name}.tmp"));
    let written = disk.open(&part, OpenMode::Create).and_then(|file| {
        write_all(&*file, &mut [IoSlice::new(bytes)], 0)?;
        // The bytes before the name: a name that survives a crash has to have its content.
        file.sync_data()
    });
    if let Err(error) = written {
        // What is left of the file is removed at the next start if it cannot be now.
        disk.remove(&part).ok();
        return Err(error);
    }
    disk.rename(&part, &dir.join(name))?;
    disk.sync_dir(dir)
}
