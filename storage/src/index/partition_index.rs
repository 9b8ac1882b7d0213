//! The index of one partition as searches see it: of each segment what is in memory, or what lies beside it.
//!
//! Invariant: what is handed out is right for the records below the high watermark, whatever the indexer does
//! meanwhile, and reaches no further than the segment that was asked for: a replica's segments may be replaced by others
//! of the same names that end elsewhere. Nothing here waits for the indexer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::{Offset, Partition};
use parking_lot::RwLock;

use super::block::SegmentIndex;
use super::cache::{Loaded, SidecarCache};
use super::sidecar;
use crate::log::{LogReader, SegmentExtent, Sidecar, Sidecars};

/// The index of one partition.
#[derive(Debug)]
pub struct PartitionIndex {
    pub(super) reader: LogReader,
    pub(super) sidecars: Sidecars,
    cache: Arc<SidecarCache>,
    memory: Arc<AtomicUsize>,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Segments whose index is in memory: the active one, and those that are not written yet.
    live: BTreeMap<Offset, SegmentIndex>,
    /// Sealed segments whose sidecars lie beside them, as far as is known, and where they end.
    stored: BTreeMap<Offset, Offset>,
    /// Sealed segments that cannot be indexed.
    given_up: BTreeSet<Offset>,
}

impl PartitionIndex {
    pub(super) fn new(
        reader: LogReader,
        sidecars: Sidecars,
        cache: Arc<SidecarCache>,
        memory: Arc<AtomicUsize>,
    ) -> Self {
        Self { reader, sidecars, cache, memory, state: RwLock::default() }
    }

    /// The partition.
    pub(crate) fn partition(&self) -> Partition {
        self.reader.partition()
    }

    /// The log that is indexed.
    pub(crate) fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// What is known of a segment; blocks lack their filters if they are not asked for. `None` when nothing is.
    pub(crate) fn of_segment(&self, segment: &SegmentExtent, with_filters: bool) -> Option<SegmentIndex> {
        let base_offset = segment.base_offset;
        {
            let state = self.state.read();
            if let Some(live) = state.live.get(&base_offset) {
                return Some(live.clone().up_to(segment.end_offset));
            }
            if !state.stored.contains_key(&base_offset) {
                return None;
            }
        }
        match self.load(segment, with_filters) {
            Some(index) => Some(index.up_to(segment.end_offset)),
            None => {
                tracing::info!(partition = %self.partition(), segment = %base_offset, "its sidecars are gone or wrong; they are made again");
                self.forget(base_offset);
                None
            }
        }
    }

    fn load(&self, segment: &SegmentExtent, with_filters: bool) -> Option<SegmentIndex> {
        let (partition, base_offset) = (self.partition(), segment.base_offset);
        let cached = self.cache.get(partition, base_offset);
        let columns = match cached {
            Some(Loaded { with_filters: Some(index), .. }) => return Some(index),
            Some(loaded) if !with_filters => return Some(loaded.columns.index.clone()),
            Some(loaded) => loaded.columns,
            None => Arc::new(sidecar::decode_columns(&self.read(base_offset, Sidecar::Columns)?, segment)?),
        };
        let filters = if with_filters {
            Some(sidecar::decode_filter(&self.read(base_offset, Sidecar::Filter)?, segment, &columns)?)
        } else {
            None
        };
        let index = filters.clone().unwrap_or_else(|| columns.index.clone());
        self.cache.insert(partition, base_offset, Loaded { columns, with_filters: filters });
        Some(index)
    }

    fn read(&self, segment: Offset, sidecar: Sidecar) -> Option<bytes::Bytes> {
        match self.sidecars.read(segment, sidecar, usize::MAX) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(partition = %self.partition(), %error, "a sidecar cannot be read");
                None
            }
        }
    }

    /// How far each segment is indexed that is in memory.
    pub(super) fn put_live(&self, segment: Offset, index: SegmentIndex) {
        let bytes = index.memory_bytes();
        let old = self.state.write().live.insert(segment, index);
        self.memory.fetch_add(bytes, Ordering::Relaxed);
        self.memory.fetch_sub(old.map_or(0, |old| old.memory_bytes()), Ordering::Relaxed);
    }

    /// A segment's sidecars are written, or were found.
    pub(super) fn note_stored(&self, segment: &SegmentExtent) {
        let mut state = self.state.write();
        state.stored.insert(segment.base_offset, segment.end_offset);
        let old = state.live.remove(&segment.base_offset);
        drop(state);
        self.memory.fetch_sub(old.map_or(0, |old| old.memory_bytes()), Ordering::Relaxed);
    }

    /// A segment cannot be indexed: it is not tried again before the next start.
    pub(super) fn give_up(&self, segment: Offset) {
        let mut state = self.state.write();
        state.given_up.insert(segment);
        let old = state.live.remove(&segment);
        drop(state);
        self.memory.fetch_sub(old.map_or(0, |old| old.memory_bytes()), Ordering::Relaxed);
    }

    fn forget(&self, segment: Offset) {
        self.state.write().stored.remove(&segment);
        self.cache.remove(self.partition(), segment);
    }

    /// Forgets what is known of segments that are gone, or that were replaced by others that end elsewhere.
    pub(super) fn retain(&self, segments: &[SegmentExtent]) {
        let end_of = |base: &Offset| {
            let place = segments.binary_search_by_key(base, |segment| segment.base_offset).ok()?;
            segments.get(place).map(|segment| segment.end_offset)
        };
        let mut state = self.state.write();
        let live = state
            .live
            .iter()
            .filter(|(base, index)| end_of(base) < Some(index.end_offset().unwrap_or(**base)));
        let stored = state.stored.iter().filter(|(base, end)| end_of(base) != Some(**end));
        let given_up = state.given_up.iter().filter(|base| end_of(base).is_none());
        let live = live.map(|(base, _)| *base);
        let gone: Vec<Offset> = live.chain(stored.map(|(base, _)| *base)).chain(given_up.copied()).collect();
        let mut freed = 0;
        for base in &gone {
            freed += state.live.remove(base).map_or(0, |old| old.memory_bytes());
            state.stored.remove(base);
            state.given_up.remove(base);
        }
        drop(state);
        self.memory.fetch_sub(freed, Ordering::Relaxed);
        for base in gone {
            self.cache.remove(self.partition(), base);
        }
    }

    /// Whether there is nothing to be done for a sealed segment.
    pub(super) fn is_settled(&self, segment: Offset) -> bool {
        let state = self.state.read();
        state.stored.contains_key(&segment) || state.given_up.contains(&segment)
    }

    /// Whether a segment cannot be indexed.
    pub(super) fn is_given_up(&self, segment: Offset) -> bool {
        self.state.read().given_up.contains(&segment)
    }

    /// Bytes of memory that all live indexes of the node take.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }
}
