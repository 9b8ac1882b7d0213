//! One block: some hundred KiB of a segment's lines one after another, and what is known of them.
//!
//! Invariants: a block never changes; its records are those from its base offset to its end, and its bytes those
//! lines and no others. A block ends at a line's end, but not always at a batch's.

use std::sync::Arc;

use bytes::Bytes;
use model::Offset;

use super::filter::BlockFilter;
use super::names::Names;
use super::{packed, varint};

/// A block of lines.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) base_offset: Offset,
    pub(crate) end_offset: Offset,
    /// Where its first line begins in its segment, before compression.
    pub(crate) position: u64,
    /// Bytes of its lines.
    pub(crate) length: u64,
    pub(crate) timestamp_min_ms: u64,
    pub(crate) timestamp_max_ms: u64,
    /// Whether no record is older than the one before it.
    pub(crate) is_in_time_order: bool,
    /// The first is that of records whose service or level is not listed; it may have none.
    pub(crate) groups: Box<[Group]>,
    pub(super) columns: Bytes,
}

/// What is known of a segment, or of its beginning.
#[derive(Clone, Debug)]
pub(crate) struct SegmentIndex {
    pub(crate) names: Arc<Names>,
    /// In the order of their offsets. Records between them could not be read.
    pub(crate) blocks: Arc<[Arc<Block>]>,
    /// A filter for each block, if they were asked for.
    pub(crate) filters: Option<Arc<[BlockFilter]>>,
}

/// The records of one service and level in one block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Ids in the segment's names.
    pub(crate) service: u32,
    pub(crate) level: u32,
    pub(crate) records: u32,
    pub(crate) timestamp_min_ms: u64,
    pub(crate) timestamp_max_ms: u64,
}

/// The place in [`Block::groups`] of records that are to be looked at one by one.
pub(crate) const UNLISTED: usize = 0;

/// The columns of a block, one value for each record in the order of their offsets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    pub(crate) timestamps_ms: Vec<u64>,
    /// Places in [`Block::groups`].
    pub(crate) groups: Vec<u64>,
    /// Where each line begins in the block, and where the last ends.
    pub(crate) positions: Vec<u64>,
}

impl Block {
    /// How many records it has.
    pub(crate) fn records(&self) -> u64 {
        self.end_offset.since(self.base_offset)
    }

    /// Whether records are in it whose service or level is not listed.
    pub(crate) fn has_unlisted(&self) -> bool {
        self.groups.get(UNLISTED).is_some_and(|group| group.records > 0)
    }

    /// Decodes when each record is from and which group it belongs to; `None` when the columns are not as they should
    /// be.
    pub(crate) fn read_columns(&self, columns: &mut Columns) -> Option<()> {
        let count = usize::try_from(self.records()).ok()?;
        let mut rest = &self.columns[..];
        columns.clear();
        packed::read(&mut rest, count, &mut columns.timestamps_ms)?;
        // Kept as differences; a wrong sum would be out of the block's bounds.
        let mut timestamp_ms = self.timestamp_min_ms;
        for value in &mut columns.timestamps_ms {
            timestamp_ms = timestamp_ms.checked_add_signed(varint::unzigzag(*value))?;
            *value = timestamp_ms;
        }
        packed::read(&mut rest, count, &mut columns.groups)?;
        let length_at = self.columns.len() - rest.len();
        self.read_positions(length_at, count, columns)
    }

    fn read_positions(&self, at: usize, count: usize, columns: &mut Columns) -> Option<()> {
        let mut rest = self.columns.get(at..)?;
        packed::read(&mut rest, count, &mut columns.positions)?;
        let mut position = 0_u64;
        for value in &mut columns.positions {
            let length = std::mem::replace(value, position);
            position = position.checked_add(length)?;
        }
        columns.positions.push(position);
        (position == self.length && rest.is_empty()).then_some(())
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.groups) + self.columns.len()
    }
}

impl SegmentIndex {
    /// The offset after the last record of which something is known.
    pub(super) fn end_offset(&self) -> Option<Offset> {
        self.blocks.last().map(|block| block.end_offset)
    }

    /// The same without the blocks that reach beyond `end`.
    pub(super) fn up_to(self, end: Offset) -> Self {
        if self.end_offset().is_none_or(|own| own <= end) {
            return self;
        }
        let count = self.blocks.partition_point(|block| block.end_offset <= end);
        Self {
            names: self.names,
            blocks: self.blocks.iter().take(count).cloned().collect(),
            filters: self.filters.map(|filters| filters.iter().take(count).cloned().collect()),
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let filters = self.filters.iter().flat_map(|filters| filters.iter());
        self.names.memory_bytes()
            + self.blocks.iter().map(|block| block.memory_bytes()).sum::<usize>()
            + filters.map(|filter| size_of::<BlockFilter>() + filter.bytes().len()).sum::<usize>()
    }
}

impl Columns {
    pub(super) fn clear(&mut self) {
        self.timestamps_ms.clear();
        self.groups.clear();
        self.positions.clear();
    }

    /// The columns as bytes. Of `positions` the differences are kept.
    pub(super) fn encode(&self, timestamp_min_ms: u64) -> Bytes {
        let mut out = Vec::with_capacity(self.groups.len() * 4);
        let mut before = timestamp_min_ms;
        let steps: Vec<u64> = self
            .timestamps_ms
            .iter()
            .map(|timestamp_ms| {
                let step = timestamp_ms.wrapping_sub(before) as i64;
                before = *timestamp_ms;
                varint::zigzag(step)
            })
            .collect();
        packed::write(&mut out, &steps);
        packed::write(&mut out, &self.groups);
        let lengths: Vec<u64> =
            self.positions.iter().zip(self.positions.iter().skip(1)).map(|(from, to)| to - from).collect();
        packed::write(&mut out, &lengths);
        out.into()
    }
}
