//! A file system in memory that crashes, fails, fills up and writes short, as told.
//!
//! A crash keeps what was synced, and of what was not any part, by sectors, in any order; names likewise. A kill of
//! the process alone keeps everything that was written. A sync that fails loses what it should have written for good:
//! it is read until the power fails, and no later sync brings it to the disk.

mod calls;
mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::random::Random;
use content::{SimFile, Survival};

/// How long a test waits for the disk to be used before it fails.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The file system.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The device fails; of a write the first half is there.
    Io,
    /// There is no room.
    Full,
    /// A write takes half of its bytes. Other calls succeed.
    Short,
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
    fault_at: Option<(u64, Fault)>,
    is_dead: bool,
    capacity: Option<u64>,
    write_bytes_max: Option<usize>,
    fail_writes: bool,
    fail_syncs: bool,
    hold_syncs: bool,
    panic_at_write: bool,
    bad_sector: Option<(PathBuf, u64)>,
    syncs: u64,
    read_bytes: u64,
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
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::default() }
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

    /// The `call`-th call that changes something fails, and only that.
    pub(crate) fn fault_at(&self, call: u64, fault: Fault) {
        self.state.lock().fault_at = Some((call, fault));
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().is_dead
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Syncs that were begun.
    pub(crate) fn syncs(&self) -> u64 {
        self.state.lock().syncs
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

    /// The next write takes the thread that does it with it.
    pub(crate) fn panic_at_next_write(&self) {
        self.state.lock().panic_at_write = true;
    }

    /// Syncs of files do not return while this holds.
    pub(crate) fn hold_syncs(&self, hold: bool) {
        self.state.lock().hold_syncs = hold;
        self.changed.notify_all();
    }

    /// Waits until `is_there` holds; it is asked whenever something on the disk changes.
    pub(crate) fn wait_until(&self, what: &str, is_there: impl Fn(&Seen<'_>) -> bool) {
        let deadline = Instant::now() + WAIT_MAX;
        let mut state = self.state.lock();
        while !is_there(&Seen(&state)) {
            let timed_out = self.changed.wait_until(&mut state, deadline).timed_out();
            assert!(!timed_out, "{what}: not within {WAIT_MAX:?}");
        }
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
        Seen(&self.state.lock()).names()
    }

    pub(crate) fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.state.lock();
        state.files[state.names[path]].content.clone()
    }

    /// Puts a file there, durably, as another program may have.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state.lock();
        let number = state.files.len();
        state.files.push(SimFile::durable(bytes));
        state.names.insert(path.to_owned(), number);
        state.durable_names.insert(path.to_owned(), number);
    }

    pub(crate) fn delete(&self, path: &Path) {
        let mut state = self.state.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Counts a call that changes something, and says so to those who wait; an error when the machine is dead.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let (state, died) = self.change_or_die();
        if died { Err(dead()) } else { Ok(state) }
    }

    fn change_or_die(&self) -> (MutexGuard<'_, State>, bool) {
        let mut state = self.state.lock();
        self.changed.notify_all();
        state.calls += 1;
        crate::simulated::note(|| format!("disk call {} of {} files", state.calls, state.names.len()));
        if state.crash_at.is_some_and(|call| state.calls >= call) {
            state.is_dead = true;
        }
        let died = state.is_dead;
        (state, died)
    }
}

/// The disk as a waiting test sees it.
pub(crate) struct Seen<'a>(&'a State);

impl Seen<'_> {
    /// Syncs that were begun.
    pub(crate) fn syncs(&self) -> u64 {
        self.0.syncs
    }

    /// Whether a file is there, and all of it would survive a power cut.
    pub(crate) fn is_durable(&self, path: &Path) -> bool {
        let file = self.0.names.get(path).and_then(|number| self.0.files.get(*number));
        file.is_some_and(|file| !file.content.is_empty() && file.is_durable())
    }

    /// The names of all files.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.names.keys().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.is_dead { Err(dead()) } else { Ok(()) }
    }

    /// What is to go wrong with this call.
    fn take_fault(&mut self) -> Option<Fault> {
        let (call, fault) = self.fault_at?;
        (self.calls == call).then(|| {
            self.fault_at = None;
            fault
        })
    }

    /// As [`Self::take_fault`], for calls that succeed whole or not at all.
    fn fault(&mut self) -> io::Result<()> {
        match self.take_fault() {
            Some(Fault::Io) => Err(io::Error::other("the disk did not answer")),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Short) | None => Ok(()),
        }
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

fn dead() -> io::Error {
    io::Error::other("the machine is dead")
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
