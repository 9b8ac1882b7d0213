//! Sidecars in memory: those that were asked for last, within a bound for the whole node.
//!
//! Invariant: the bytes of all entries are within the bound, but for one entry that is larger by itself.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Offset, Partition};
use parking_lot::Mutex;

use super::block::SegmentIndex;
use super::sidecar::StoredColumns;

/// Sidecars that were loaded.
#[derive(Debug)]
pub(super) struct SidecarCache {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<(Partition, Offset), Entry>,
    bytes: usize,
    /// Counts uses.
    now: u64,
}

/// What was loaded of a segment.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) columns: Arc<StoredColumns>,
    /// The same with the filters, once they were asked for.
    pub(super) with_filters: Option<SegmentIndex>,
}

#[derive(Debug)]
struct Entry {
    loaded: Loaded,
    bytes: usize,
    used: u64,
}

impl SidecarCache {
    /// A cache of at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    /// What is loaded of a segment.
    pub(super) fn get(&self, partition: Partition, segment: Offset) -> Option<Loaded> {
        let mut state = self.state.lock();
        state.now += 1;
        let now = state.now;
        let entry = state.entries.get_mut(&(partition, segment))?;
        entry.used = now;
        Some(entry.loaded.clone())
    }

    /// Keeps what was loaded, and forgets what was not asked for longest if there is no room.
    pub(super) fn insert(&self, partition: Partition, segment: Offset, loaded: Loaded) {
        // Filters come on top of the columns, which both forms share.
        let bytes = match &loaded.with_filters {
            Some(index) => index.memory_bytes(),
            None => loaded.columns.index.memory_bytes(),
        };
        let mut state = self.state.lock();
        state.now += 1;
        let entry = Entry { loaded, bytes, used: state.now };
        state.bytes += bytes;
        if let Some(old) = state.entries.insert((partition, segment), entry) {
            state.bytes -= old.bytes;
        }
        while state.bytes > self.bytes_max && state.entries.len() > 1 {
            let oldest = state.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            let removed = oldest.and_then(|key| state.entries.remove(&key));
            state.bytes -= removed.map_or(0, |entry| entry.bytes);
        }
    }

    /// Forgets a segment.
    pub(super) fn remove(&self, partition: Partition, segment: Offset) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.remove(&(partition, segment)) {
            state.bytes -= entry.bytes;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.state.lock() = State::default();
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}
