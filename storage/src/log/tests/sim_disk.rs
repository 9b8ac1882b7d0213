//! A file system in memory that crashes, fails, fills up and writes short, as told.
//!
//! A crash keeps what was synced, and of what was not any part, by sectors, in any order; names likewise. A kill of
//! the process alone keeps everything that was written.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::random::Random;
use crate::log::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

const SECTOR_BYTES: usize = 512;

/// The file system.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<SimFile>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    locked: BTreeSet<PathBuf>,
    /// Calls that change or sync something, so far.
    calls: u64,
    crash_at: Option<u64>,
    is_dead: bool,
    capacity: Option<u64>,
    write_bytes_max: Option<usize>,
    fail_writes: bool,
    fail_syncs: bool,
    bad_sector: Option<(PathBuf, u64)>,
    read_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<FileChange>,
}

#[derive(Clone, Debug)]
enum FileChange {
    Write { position: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
}

impl SimDisk {
    pub(crate) fn new() -> Self {
        Self::of(State::default())
    }

    fn of(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The same files after the process died: nothing that was written is lost, nothing more is synced.
    pub(crate) fn after_kill(&self) -> Self {
        let state = self.state.lock();
        Self::of(State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending_names: state.pending_names.clone(),
            capacity: state.capacity,
            ..State::default()
        })
    }

    /// The same files after the power failed.
    pub(crate) fn after_power_cut(&self, random: &mut Random) -> Self {
        let state = self.state.lock();
        let survival = Survival::draw(random);
        let files = state.files.iter().map(|file| file.after_power_cut(survival, random)).collect();
        let mut names = state.durable_names.clone();
        for change in &state.pending_names {
            if survival.keeps(random) {
                apply_name(&mut names, change);
            }
        }
        Self::of(State {
            files,
            durable_names: names.clone(),
            names,
            capacity: state.capacity,
            ..State::default()
        })
    }

    /// From the `call`-th call that changes something on, nothing works any more.
    pub(crate) fn crash_at(&self, call: u64) {
        self.state.lock().crash_at = Some(call);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().is_dead
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    pub(crate) fn set_write_bytes_max(&self, bytes: Option<usize>) {
        self.state.lock().write_bytes_max = bytes;
    }

    pub(crate) fn fail_writes(&self, fail: bool) {
        self.state.lock().fail_writes = fail;
    }

    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.state.lock().fail_syncs = fail;
    }

    /// Bytes that were read so far.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.state.lock().read_bytes
    }

    /// The byte at `position` of a file cannot be read any more.
    pub(crate) fn set_bad_sector(&self, path: &Path, position: u64) {
        self.state.lock().bad_sector = Some((path.to_owned(), position));
    }

    /// The files below a directory, by name.
    pub(crate) fn names(&self) -> Vec<String> {
        let state = self.state.lock();
        state.names.keys().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }

    pub(crate) fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.state.lock();
        state.files[state.names[path]].content.clone()
    }

    /// Puts a file there, durably, as another program may have.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state.lock();
        let number = state.files.len();
        state.files.push(SimFile { content: bytes.to_vec(), durable: bytes.to_vec(), pending: Vec::new() });
        state.names.insert(path.to_owned(), number);
        state.durable_names.insert(path.to_owned(), number);
    }

    pub(crate) fn delete(&self, path: &Path) {
        let mut state = self.state.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }
}

impl State {
    /// Counts a call that changes something; dead from the chosen one on.
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.crash_at.is_some_and(|call| self.calls >= call) {
            self.is_dead = true;
        }
        self.alive()
    }

    fn alive(&self) -> io::Result<()> {
        if self.is_dead { Err(io::Error::other("the machine is dead")) } else { Ok(()) }
    }

    fn used_bytes(&self) -> u64 {
        let linked: BTreeSet<usize> = self.names.values().copied().collect();
        linked.iter().map(|number| self.files[*number].content.len() as u64).sum()
    }

    fn room(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used_bytes()) as usize)
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Link(path, number) => {
            names.insert(path.clone(), *number);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
    }
}

impl SimFile {
    fn change(&mut self, change: FileChange) {
        change.apply(&mut self.content);
        self.pending.push(change);
    }

    fn after_power_cut(&self, survival: Survival, random: &mut Random) -> Self {
        let mut left = self.durable.clone();
        for change in &self.pending {
            match change {
                FileChange::Length(_) if survival.keeps(random) => change.apply(&mut left),
                FileChange::Length(_) => {}
                FileChange::Write { position, bytes } => {
                    for (place, sector) in sectors(*position, bytes) {
                        if survival.keeps(random) {
                            FileChange::Write { position: place, bytes: sector.to_vec() }.apply(&mut left);
                        }
                    }
                }
            }
        }
        Self { content: left.clone(), durable: left, pending: Vec::new() }
    }
}

impl FileChange {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(length) => content.resize(*length, 0),
            Self::Write { position, bytes } => {
                let end = position + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*position..end].copy_from_slice(bytes);
            }
        }
    }
}

/// Cuts a write where sectors end.
fn sectors(position: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let place = position + start;
        let length = (SECTOR_BYTES - place % SECTOR_BYTES).min(bytes.len() - start);
        pieces.push((place, &bytes[start..start + length]));
        start += length;
    }
    pieces
}

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug)]
enum Survival {
    Nothing,
    Everything,
    Some,
}

impl Survival {
    fn draw(random: &mut Random) -> Self {
        match random.below(6) {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Some,
        }
    }

    fn keeps(self, random: &mut Random) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some => random.below(2) == 0,
        }
    }
}

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
        let mut state = self.state.lock();
        state.alive()?;
        let number = match (state.names.get(path).copied(), mode) {
            (Some(number), OpenMode::Create) => {
                state.call()?;
                state.files[number].change(FileChange::Length(0));
                number
            }
            (Some(number), OpenMode::Read | OpenMode::Write) => number,
            (None, OpenMode::Create) => {
                state.call()?;
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
        let mut state = self.state.lock();
        state.call()?;
        let number = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change_name(NameChange::Link(to.to_owned(), number));
        state.change_name(NameChange::Unlink(from.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.call()?;
        state.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
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
        let mut state = self.disk.state.lock();
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let position = position as usize;
        let died = state.call().is_err();
        if state.fail_writes {
            return Err(io::Error::other("a bad sector"));
        }
        let grows_from = state.files[self.number].content.len().max(position);
        let fits = (grows_from - position).saturating_add(state.room());
        // A write that the crash interrupts leaves a part of itself.
        let limit = if died { bytes.len() / 2 } else { state.write_bytes_max.unwrap_or(usize::MAX) };
        bytes.truncate(fits.min(limit));
        if bytes.is_empty() && !died {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = bytes.len();
        state.files[self.number].change(FileChange::Write { position, bytes });
        state.alive()?;
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.call()?;
        if state.fail_syncs {
            return Err(io::Error::other("the disk did not answer"));
        }
        let file = &mut state.files[self.number];
        file.durable = file.content.clone();
        file.pending.clear();
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.call()?;
        state.files[self.number].change(FileChange::Length(length as usize));
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.call()?;
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
