//! The file system's calls.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{FileChange, SimFile};
use super::{Fault, NameChange, SimDisk};
use crate::log::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.state.lock().alive()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        state.alive()?;
        let below = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        Ok(below
            .map(|(path, number)| DirEntry {
                name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                length: state.files[*number].content.len() as u64,
            })
            .collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let found = {
            let state = self.state.lock();
            state.alive()?;
            state.names.get(path).copied()
        };
        let number = match (found, mode) {
            (Some(number), OpenMode::Create) => {
                let mut state = self.change()?;
                state.fault()?;
                state.files[number].change(FileChange::Length(0));
                number
            }
            (Some(number), OpenMode::Read | OpenMode::Write) => number,
            (None, OpenMode::Create) => {
                let mut state = self.change()?;
                state.fault()?;
                if state.room() == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let number = state.files.len();
                state.files.push(SimFile::default());
                state.change_name(NameChange::Link(path.to_owned(), number));
                number
            }
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimHandle { disk: self.clone(), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        state.fault()?;
        let number = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change_name(NameChange::Link(to.to_owned(), number));
        state.change_name(NameChange::Unlink(from.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        {
            let state = self.state.lock();
            state.alive()?;
            if !state.names.contains_key(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        let mut state = self.change()?;
        state.fault()?;
        state.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        state.syncs += 1;
        state.fault()?;
        if state.fail_syncs {
            return Err(io::Error::other("the disk did not answer"));
        }
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.state.lock().room() as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.state.lock();
        state.alive()?;
        if !state.locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct SimHandle {
    disk: SimDisk,
    number: usize,
}

impl DiskFile for SimHandle {
    fn length(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.alive()?;
        Ok(state.files[self.number].content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.alive()?;
        if let Some((path, bad)) = &state.bad_sector
            && state.names.get(path) == Some(&self.number)
            && (position..position + buffer.len() as u64).contains(bad)
        {
            return Err(io::Error::other("a bad sector"));
        }
        let content = &state.files[self.number].content;
        let start = (position as usize).min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        state.read_bytes += count as u64;
        Ok(count)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let position = position as usize;
        let (mut state, died) = self.disk.change_or_die();
        assert!(!state.panic_at_write, "a thread dies, as told");
        if state.fail_writes {
            return Err(io::Error::other("a bad sector"));
        }
        let fault = state.take_fault();
        let grows_from = state.files[self.number].content.len().max(position);
        let fits = match fault {
            Some(Fault::Full) => 0,
            _ => (grows_from - position).saturating_add(state.room()),
        };
        let limit = match fault {
            // A write that a crash or a failure interrupts leaves a part of itself.
            _ if died => bytes.len() / 2,
            Some(Fault::Io | Fault::Short) => bytes.len().div_ceil(2),
            _ => state.write_bytes_max.unwrap_or(usize::MAX),
        };
        bytes.truncate(fits.min(limit));
        if bytes.is_empty() && !died {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = bytes.len();
        crate::simulated::note(|| {
            format!("disk write {} at {position}: {count} {:08x}", self.number, crc32fast::hash(&bytes))
        });
        state.files[self.number].change(FileChange::Write { position, bytes });
        if fault == Some(Fault::Io) {
            return Err(io::Error::other("the disk did not answer"));
        }
        state.alive()?;
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.change()?;
        state.syncs += 1;
        while state.hold_syncs {
            self.disk.changed.wait(&mut state);
        }
        let number = self.number;
        crate::simulated::note(|| format!("disk sync {number}"));
        if let Err(error) = state.fault() {
            state.files[number].fail_sync();
            return Err(error);
        }
        if state.fail_syncs {
            state.files[number].fail_sync();
            return Err(io::Error::other("the disk did not answer"));
        }
        state.files[number].sync();
        self.disk.changed.notify_all();
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        state.fault()?;
        state.files[self.number].change(FileChange::Length(length as usize));
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        state.fault()?;
        if state.room() < length as usize {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.files[self.number].change(FileChange::Length(length as usize));
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state.lock().locked.remove(&self.path);
    }
}
