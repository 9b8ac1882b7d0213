//! What makes searches fast: of each block of lines the words, the times, the services and the levels it holds.
//!
//! `fields` (a line's fields) → `builder` (lines → blocks, with `filter`, `names` and packed columns) → `sidecar`
//! (blocks ↔ files) ; `indexer` drives it in the background, `partition_index` hands it to searches.
//!
//! Invariants: an index is derived, and may be missing in part or in whole without changing an answer; what a filter
//! or a column denies is not in the block. Depends on [`crate::log`] alone. Must not know what a query is.

mod block;
mod builder;
mod cache;
mod fields;
mod filter;
mod indexer;
mod names;
mod packed;
mod partition_index;
mod sidecar;
mod token;
mod varint;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

pub(crate) use block::{Block, Columns, Group, SegmentIndex, UNLISTED};
pub(crate) use builder::GROUPS_MAX;
pub(crate) use fields::{FieldReader, Fields, Text, message_of};
pub(crate) use filter::BlockFilter;
pub(crate) use names::Names;
pub(crate) use token::{
    beginning_key, fold, fold_char, fold_fully, for_each_word, inner_gram, is_word_byte, label_key,
    service_key, word_key,
};

pub use indexer::{Indexer, IndexerThread};
pub use partition_index::PartitionIndex;

use crate::log::{LogReader, Sidecars};
use cache::SidecarCache;

/// What the indexes of a node share, and where they come from.
#[derive(Debug)]
pub struct Indexes {
    cache: Arc<SidecarCache>,
    memory: Arc<AtomicUsize>,
}

impl Indexes {
    /// Indexes that keep at most so many bytes of sidecars in memory, beside those of active segments.
    pub fn new(cache_bytes_max: usize) -> Self {
        Self { cache: Arc::new(SidecarCache::new(cache_bytes_max)), memory: Arc::default() }
    }

    /// The index of one partition, without anything in it yet.
    pub fn partition(&self, reader: LogReader, sidecars: Sidecars) -> Arc<PartitionIndex> {
        Arc::new(PartitionIndex::new(reader, sidecars, Arc::clone(&self.cache), Arc::clone(&self.memory)))
    }

    /// Forgets the sidecars that are in memory.
    pub fn drop_cache(&self) {
        self.cache.clear();
    }

    /// Bytes of memory that the sidecars and the indexes of active segments take.
    pub fn memory_bytes(&self) -> usize {
        self.cache.bytes() + self.memory.load(std::sync::atomic::Ordering::Relaxed)
    }
}
