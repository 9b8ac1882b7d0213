//! What a query has to look at, in the order in which it has to: segments, and in each its blocks, and what has none.
//!
//! A unit has a bound: no record of it comes before that in the order of answers. Whoever takes units in the order of
//! their bounds may stop when what is found comes before the next bound.
//!
//! Invariant: every record that may be read and passes the filter is in exactly one unit, or in a segment that is yet
//! to be opened.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use model::{Offset, Partition};

use super::filter::Filter;
use super::key::{Direction, Key, Order};
use super::probe::Probe;
use super::selection::{GroupSelection, NameSelection};
use super::stats::Stats;
use crate::index::{Block, Names, PartitionIndex, SegmentIndex};
use crate::limits;
use crate::log::{LogError, SegmentExtent};

/// Bytes of records without an index that are one unit. Tests have few records, and want many units.
const PIECE_BYTES: u64 = if cfg!(test) { 1 << 10 } else { limits::UNINDEXED_UNIT_BYTES };

/// The partitions of a node, each up to where it is read.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) partitions: Vec<Pinned>,
}

/// A partition up to the high watermark that it had.
#[derive(Clone, Debug)]
pub(super) struct Pinned {
    pub(super) index: Arc<PartitionIndex>,
    pub(super) begin: Offset,
    pub(super) end: Offset,
}

/// What is looked at as a whole.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) partition: Partition,
    /// The place of the partition in the snapshot.
    pub(super) place: usize,
    pub(super) bound: Key,
    /// The records.
    pub(super) from: Offset,
    pub(super) to: Offset,
    /// What is known of them; `None` when nothing is.
    pub(super) indexed: Option<Indexed>,
}

/// What is known of a unit's records.
#[derive(Clone, Debug)]
pub(super) struct Indexed {
    pub(super) block: Arc<Block>,
    pub(super) names: Arc<Names>,
    pub(super) groups: GroupSelection,
}

/// Hands out units in the order of their bounds.
#[derive(Debug)]
pub(super) struct Units<'q> {
    snapshot: &'q Snapshot,
    filter: &'q Filter,
    probe: &'q Probe,
    direction: Direction,
    order: Order,
    /// The segments that have units left, the one with the next first.
    segments: BinaryHeap<Ranked>,
    pub(super) stats: Stats,
}

/// A segment by what comes next in it.
#[derive(Debug)]
struct Ranked {
    bound: Key,
    direction: Direction,
    segment: Segment,
}

#[derive(Debug)]
enum Segment {
    /// Nothing of it was looked at.
    Closed {
        place: usize,
        extent: SegmentExtent,
    },
    Open(OpenSegment),
}

/// A segment's units that are left, the next of them last.
#[derive(Debug)]
struct OpenSegment {
    place: usize,
    index: Option<(SegmentIndex, NameSelection)>,
    entries: Vec<Entry>,
}

/// A unit that was not looked at.
#[derive(Clone, Copy, Debug)]
struct Entry {
    bound: Key,
    what: Piece,
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    /// The block of this place in the index.
    Block(usize),
    /// Records of which nothing is known.
    Unindexed(Offset, Offset),
}

impl Snapshot {
    /// All that can be read now of those of these partitions that the filter wants.
    pub(super) fn now(indexes: &[Arc<PartitionIndex>], filter: &Filter) -> Self {
        let wanted = indexes.iter().filter(|index| filter.wants_partition(index.partition()));
        let pin = |index: &Arc<PartitionIndex>| Pinned {
            index: Arc::clone(index),
            begin: Offset::ZERO,
            end: index.reader().high_watermark(),
        };
        Self { partitions: wanted.map(pin).collect() }
    }

    /// The same in up to `count` parts of about as many bytes, cut between segments: no record is in two.
    pub(super) fn split(&self, count: usize) -> Vec<Self> {
        let mut segments: Vec<(usize, SegmentExtent)> = self.segments().collect();
        segments.sort_by_key(|(_, extent)| std::cmp::Reverse(extent.data_bytes));
        let mut parts: Vec<(u64, Vec<Pinned>)> = vec![(0, Vec::new()); count.clamp(1, segments.len().max(1))];
        for (place, extent) in segments {
            let Some(pinned) = self.partitions.get(place) else { continue };
            let Some((bytes, part)) = parts.iter_mut().min_by_key(|(bytes, _)| *bytes) else { continue };
            *bytes += extent.data_bytes;
            part.push(Pinned {
                index: Arc::clone(&pinned.index),
                begin: pinned.begin.max(extent.base_offset),
                end: pinned.end.min(extent.end_offset),
            });
        }
        parts.into_iter().map(|(_, partitions)| Self { partitions }).collect()
    }

    /// The segments of all partitions, each with its partition's place.
    pub(super) fn segments(&self) -> impl Iterator<Item = (usize, SegmentExtent)> {
        self.partitions.iter().enumerate().flat_map(|(place, pinned)| {
            let (begin, end) = (pinned.begin, pinned.end);
            let extents = pinned.index.reader().segment_extents().into_iter();
            let is_read = move |extent: &SegmentExtent| extent.base_offset < end && begin < extent.end_offset;
            extents.filter(is_read).map(move |extent| (place, extent))
        })
    }
}

impl<'q> Units<'q> {
    /// The units that may have records which pass `filter`.
    pub(super) fn new(
        snapshot: &'q Snapshot,
        filter: &'q Filter,
        probe: &'q Probe,
        direction: Direction,
        order: Order,
    ) -> Self {
        let mut units = Self {
            snapshot,
            filter,
            probe,
            direction,
            order,
            segments: BinaryHeap::new(),
            stats: Stats::default(),
        };
        for (place, extent) in snapshot.segments() {
            units.stats.segments += 1;
            units.stats.skipped_bytes += extent.data_bytes;
            if !filter.overlaps(extent.timestamp_min_ms, extent.timestamp_max_ms) {
                units.stats.segments_skipped += 1;
                continue;
            }
            let partition = snapshot.partitions.get(place).map(|pinned| pinned.index.partition());
            let times_ms = (extent.timestamp_min_ms, extent.timestamp_max_ms);
            if let Some(partition) = partition {
                let bound = units.bound(partition, times_ms, (extent.base_offset, extent.end_offset));
                units.segments.push(Ranked { bound, direction, segment: Segment::Closed { place, extent } });
            }
        }
        units
    }

    /// The bound of what comes next. A segment that was not opened yet may have nothing that does.
    pub(super) fn next_bound(&self) -> Option<Key> {
        self.segments.peek().map(|ranked| ranked.bound)
    }

    /// The next unit that has to be looked at.
    ///
    /// # Errors
    /// When a batch index cannot be read.
    pub(super) fn next(
        &mut self,
        wants: impl Fn(Key) -> bool,
    ) -> Result<Option<Unit>, (Partition, LogError)> {
        while let Some(ranked) = self.segments.pop() {
            if !wants(ranked.bound) {
                // Nor is anything wanted that comes later.
                self.segments.push(ranked);
                return Ok(None);
            }
            match ranked.segment {
                Segment::Closed { place, extent } => self.open(place, &extent)?,
                Segment::Open(mut segment) => {
                    let unit = self.take_next(&mut segment);
                    self.put_back(segment);
                    if unit.is_some() {
                        return Ok(unit);
                    }
                    self.stats.blocks_skipped += 1;
                }
            }
        }
        Ok(None)
    }

    /// Counts what was not looked at, when nothing more is wanted.
    pub(super) fn finish(mut self) -> Stats {
        for ranked in std::mem::take(&mut self.segments) {
            match ranked.segment {
                Segment::Closed { .. } => self.stats.segments_skipped += 1,
                Segment::Open(segment) => self.stats.blocks_skipped += segment.entries.len() as u64,
            }
        }
        self.stats.skipped_bytes = self.stats.skipped_bytes.saturating_sub(self.stats.scanned_bytes);
        self.stats
    }

    /// The next unit of a segment, if its filter leaves room for what is looked for.
    fn take_next(&self, segment: &mut OpenSegment) -> Option<Unit> {
        let Entry { bound, what } = segment.entries.pop()?;
        let (place, partition) = (segment.place, bound.partition);
        let block = match what {
            Piece::Unindexed(from, to) => {
                return Some(Unit { partition, place, bound, from, to, indexed: None });
            }
            Piece::Block(block) => block,
        };
        let (index, selection) = segment.index.as_ref()?;
        let filter = index.filters.as_ref().and_then(|filters| filters.get(block));
        if filter.is_some_and(|filter| !self.probe.may_match(filter)) {
            return None;
        }
        let block = index.blocks.get(block)?;
        let (from, to) = (block.base_offset, block.end_offset);
        let groups = selection.of_block(block)?;
        let indexed = Some(Indexed { block: Arc::clone(block), names: Arc::clone(&index.names), groups });
        Some(Unit { partition, place, bound, from, to, indexed })
    }

    fn open(&mut self, place: usize, extent: &SegmentExtent) -> Result<(), (Partition, LogError)> {
        let Some(pinned) = self.snapshot.partitions.get(place) else { return Ok(()) };
        let index = pinned.index.of_segment(extent, !self.probe.is_empty());
        let opener = Opener { units: self, pinned, extent, entries: Vec::new() };
        let (entries, index) = opener.run(index).map_err(|error| (pinned.index.partition(), error))?;
        self.put_back(OpenSegment { place, index, entries });
        Ok(())
    }

    fn put_back(&mut self, segment: OpenSegment) {
        if let Some(next) = segment.entries.last() {
            let (bound, direction) = (next.bound, self.direction);
            self.segments.push(Ranked { bound, direction, segment: Segment::Open(segment) });
        }
    }

    fn bound(&self, partition: Partition, times_ms: (u64, u64), offsets: (Offset, Offset)) -> Key {
        let (time_ms, offset) = match self.direction {
            Direction::Backward => (times_ms.1, offsets.1.minus(1)),
            Direction::Forward => (times_ms.0, offsets.0),
        };
        Key { rank: self.order.rank(time_ms), partition, offset }
    }
}

/// Finds the units of one segment.
struct Opener<'a, 'q> {
    units: &'a mut Units<'q>,
    pinned: &'a Pinned,
    extent: &'a SegmentExtent,
    entries: Vec<Entry>,
}

/// A segment's units, the next of them last, and its index with what is wanted of it.
type Opened = (Vec<Entry>, Option<(SegmentIndex, NameSelection)>);

impl Opener<'_, '_> {
    fn run(mut self, index: Option<SegmentIndex>) -> Result<Opened, LogError> {
        let first = self.pinned.index.reader().first_offset().max(self.pinned.begin);
        let begin = self.extent.base_offset.max(first);
        let end = self.extent.end_offset.min(self.pinned.end);
        let mut next = begin;
        let index = index.map(|index| {
            let selection = NameSelection::new(self.units.filter, &index.names);
            (index, selection)
        });
        if let Some((index, selection)) = &index {
            for (place, block) in index.blocks.iter().enumerate() {
                if block.base_offset >= end || block.end_offset <= begin {
                    continue;
                }
                self.add_unindexed(next, block.base_offset.min(end))?;
                next = next.max(block.end_offset);
                self.add_block(place, block, selection);
            }
        }
        self.add_unindexed(next, end)?;
        let direction = self.units.direction;
        // Blocks mostly follow one another in time.
        self.entries.sort_by(|a, b| match direction {
            Direction::Backward => a.bound.cmp(&b.bound),
            Direction::Forward => b.bound.cmp(&a.bound),
        });
        Ok((self.entries, index))
    }

    fn add_block(&mut self, place: usize, block: &Block, selection: &NameSelection) {
        self.units.stats.blocks += 1;
        match selection.times_ms(block) {
            Some(times_ms) if self.units.filter.overlaps(times_ms.0, times_ms.1) => {
                self.add(Piece::Block(place), times_ms, (block.base_offset, block.end_offset));
            }
            _ => self.units.stats.blocks_skipped += 1,
        }
    }

    fn add(&mut self, what: Piece, times_ms: (u64, u64), offsets: (Offset, Offset)) {
        let bound = self.units.bound(self.pinned.index.partition(), times_ms, offsets);
        self.entries.push(Entry { bound, what });
    }

    /// Adds the records from `from` to `to`, of which only the batches' headers are known, in pieces.
    fn add_unindexed(&mut self, from: Offset, to: Offset) -> Result<(), LogError> {
        if from >= to {
            return Ok(());
        }
        let nothing = (u64::MAX, 0);
        let (mut piece, mut times_ms, mut bytes) = (from..from, nothing, 0);
        let mut pieces = Vec::new();
        let whole_times_ms = (self.extent.timestamp_min_ms, self.extent.timestamp_max_ms);
        self.pinned.index.reader().visit_batch_extents(from, to, |batch| {
            if batch.base_offset > piece.end {
                // Between two headers is one that cannot be read: it may be from any time.
                pieces.push((piece.clone(), times_ms));
                pieces.push((piece.end..batch.base_offset, whole_times_ms));
                (piece, times_ms, bytes) = (batch.base_offset..batch.base_offset, nothing, 0);
            } else if bytes >= PIECE_BYTES {
                pieces.push((piece.clone(), times_ms));
                (piece, times_ms, bytes) = (piece.end..piece.end, nothing, 0);
            }
            piece.end = batch.end_offset.min(to);
            times_ms = (times_ms.0.min(batch.timestamp_min_ms), times_ms.1.max(batch.timestamp_max_ms));
            bytes += u64::from(batch.length);
        })?;
        let end = piece.end;
        pieces.push((piece, times_ms));
        pieces.push((end..to, whole_times_ms));
        for (piece, times_ms) in pieces {
            self.add_piece(piece, times_ms);
        }
        Ok(())
    }

    fn add_piece(&mut self, piece: std::ops::Range<Offset>, times_ms: (u64, u64)) {
        if piece.start >= piece.end {
            return;
        }
        self.units.stats.blocks += 1;
        if !self.units.filter.overlaps(times_ms.0, times_ms.1) {
            self.units.stats.blocks_skipped += 1;
            return;
        }
        self.add(Piece::Unindexed(piece.start, piece.end), times_ms, (piece.start, piece.end));
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.bound == other.bound
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    /// The one that comes first is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        match self.direction {
            Direction::Backward => self.bound.cmp(&other.bound),
            Direction::Forward => other.bound.cmp(&self.bound),
        }
    }
}
