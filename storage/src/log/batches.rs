//! The batches of a log one after another, in either direction, a bounded window at a time.
//!
//! Invariant: items come in strictly monotonic offsets, and every offset of the range is in an item, unless retention
//! took it or it lies outside of the asked time. What cannot be read is an error item, and the next batch follows.

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::sync::Arc;

use model::Offset;

use super::batch_index::HeaderSlot;
use super::error::{Damage, DamageKind, LogError};
use super::format::{BatchHeader, BatchKind};
use super::limits;
use super::reader::LogReader;
use super::segment::Segment;
use super::segment_data::FrameCache;
use super::stored_batch::StoredBatch;

/// Which way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// An iterator over stored batches.
#[derive(Debug)]
pub struct Batches {
    log: LogReader,
    direction: Direction,
    /// The offsets that are still to come.
    from: Offset,
    to: Offset,
    timestamp_min_ms: u64,
    timestamp_max_ms: u64,
    cursor: Option<Cursor>,
    window: VecDeque<Result<StoredBatch, LogError>>,
    window_bytes: usize,
    /// Headers that are fetched next.
    header_run: u32,
    cache: FrameCache,
}

/// A place in a segment.
#[derive(Debug)]
struct Cursor {
    segment: Arc<Segment>,
    /// The batches that are still to come.
    first: u32,
    end: u32,
    /// Where the bytes end of what came last; for saying where damage is.
    position: u64,
}

impl Batches {
    pub(super) fn new(log: LogReader, direction: Direction, from: Offset, to: Offset) -> Self {
        Self {
            log,
            direction,
            from,
            to,
            timestamp_min_ms: 0,
            timestamp_max_ms: u64::MAX,
            cursor: None,
            window: VecDeque::new(),
            window_bytes: limits::READ_WINDOW_BYTES_FIRST,
            header_run: limits::HEADER_RUN,
            cache: FrameCache::default(),
        }
    }

    /// Leaves out batches of which no record's timestamp can be in this range, ends included; whole segments unread.
    #[must_use]
    pub fn within_time(mut self, timestamp_min_ms: u64, timestamp_max_ms: u64) -> Self {
        self.timestamp_min_ms = timestamp_min_ms;
        self.timestamp_max_ms = timestamp_max_ms;
        self
    }

    /// Reads as much at a time as may be, from the first: for who wants all of it.
    #[must_use]
    pub(super) fn in_large_windows(mut self) -> Self {
        self.window_bytes = limits::READ_WINDOW_BYTES_MAX;
        self.header_run = limits::HEADER_RUN_SHORT;
        self
    }

    /// Reads until there is an item or nothing more to come.
    fn advance(&mut self) -> Result<(), LogError> {
        while self.window.is_empty() && self.from < self.to {
            match self.cursor.take() {
                Some(cursor) => self.fill(cursor)?,
                None => self.next_segment()?,
            }
        }
        Ok(())
    }

    /// Moves to the segment that has what comes next.
    fn next_segment(&mut self) -> Result<(), LogError> {
        self.cache.clear();
        let segments = self.log.segments();
        let after = match self.direction {
            Direction::Forward => {
                // Retention may have moved on since the iterator was made.
                self.from = self.from.max(segments.first().map_or(self.to, |first| first.base_offset));
                segments.partition_point(|segment| segment.base_offset <= self.from)
            }
            Direction::Backward => segments.partition_point(|segment| segment.base_offset < self.to),
        };
        let Some(segment) = after.checked_sub(1).and_then(|place| segments.get(place)) else {
            self.from = self.to;
            return Ok(());
        };
        let summary = segment.summary();
        let next_base = segments.get(after).map_or(self.to, |next| next.base_offset);
        let (gap_from, gap_to) = match self.direction {
            Direction::Forward => (self.from, next_base.min(self.to)),
            Direction::Backward => (summary.end_offset.max(self.from), self.to),
        };
        if gap_from >= summary.end_offset && gap_from < gap_to {
            // The opening of the log has noted that segments are missing here.
            self.push_gap(next_base, 0, gap_from, gap_to, DamageKind::MissingSegment);
        } else if summary.overlaps(self.timestamp_min_ms, self.timestamp_max_ms) {
            self.cursor = Some(self.cursor_in(segment, summary.batch_count)?);
        } else {
            self.pass_over(segment.base_offset, summary.end_offset);
        }
        Ok(())
    }

    fn cursor_in(&self, segment: &Arc<Segment>, batch_count: u32) -> Result<Cursor, LogError> {
        let (first, end) = match self.direction {
            Direction::Forward => (segment.batch_at(self.from)?, batch_count),
            // Damaged headers behind the last that can be read show as a gap behind it.
            Direction::Backward => {
                (0, segment.batch_at(self.to.minus(1))?.saturating_add(1).min(batch_count))
            }
        };
        Ok(Cursor { segment: Arc::clone(segment), first, end, position: 0 })
    }

    /// Reads the next window of a segment, and leaves the segment when it has no more.
    fn fill(&mut self, mut cursor: Cursor) -> Result<(), LogError> {
        let run = cursor.headers(self.direction, self.header_run)?;
        if run.is_empty() {
            self.leave(&cursor);
            return Ok(());
        }
        let mut wanted: Vec<BatchHeader> = Vec::new();
        let mut bytes = 0;
        for slot in run {
            // A header that cannot be read shows as a gap before the next that can.
            let Ok(header) = slot else {
                cursor.pass(self.direction);
                continue;
            };
            let is_wanted = self.is_wanted(&header);
            if is_wanted && bytes > 0 && bytes + header.length as usize > self.window_bytes {
                break;
            }
            cursor.pass(self.direction);
            if !adjoins(&wanted, &header, self.direction) || self.gap_before(&header).is_some() {
                self.read(&cursor.segment, &mut wanted);
            }
            self.go_over(&mut cursor, &header);
            if is_wanted {
                bytes += header.length as usize;
                wanted.push(header);
            }
        }
        self.read(&cursor.segment, &mut wanted);
        self.window_bytes = (self.window_bytes * 2).min(limits::READ_WINDOW_BYTES_MAX);
        self.header_run = (self.header_run * 2).min(limits::HEADER_RUN_MAX);
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Whether the batch is still to come, and within the asked time.
    fn is_wanted(&self, header: &BatchHeader) -> bool {
        header.kind == BatchKind::Records
            && header.base_offset < self.to
            && header.end_offset() > self.from
            && header.timestamp_min_ms <= self.timestamp_max_ms
            && self.timestamp_min_ms <= header.timestamp_max_ms
    }

    /// The offsets between what came last and this batch.
    fn gap_before(&self, header: &BatchHeader) -> Option<(Offset, Offset)> {
        let (first_offset, end_offset) = match self.direction {
            Direction::Forward => (self.from, header.base_offset.min(self.to)),
            Direction::Backward => (header.end_offset().max(self.from), self.to),
        };
        (first_offset < end_offset).then_some((first_offset, end_offset))
    }

    /// Moves past a batch; a gap before it becomes an item.
    fn go_over(&mut self, cursor: &mut Cursor, header: &BatchHeader) {
        if let Some((first_offset, end_offset)) = self.gap_before(header) {
            let position = match self.direction {
                Direction::Forward => cursor.position,
                Direction::Backward => header.end_position(),
            };
            self.push_gap_in(&cursor.segment, position, first_offset, end_offset);
        }
        cursor.position = header.end_position();
        self.pass_over(header.base_offset, header.end_offset());
    }

    /// A segment has no more headers: what of its offsets did not come is a gap.
    fn leave(&mut self, cursor: &Cursor) {
        let segment = &cursor.segment;
        let (position, first_offset, end_offset) = match self.direction {
            Direction::Forward => (cursor.position, self.from, segment.summary().end_offset.min(self.to)),
            Direction::Backward => (0, segment.base_offset.max(self.from), self.to),
        };
        if first_offset < end_offset {
            self.push_gap_in(segment, position, first_offset, end_offset);
        }
    }

    fn push_gap_in(&mut self, segment: &Segment, position: u64, first_offset: Offset, end_offset: Offset) {
        let damage =
            self.push_gap(segment.base_offset, position, first_offset, end_offset, DamageKind::Header);
        segment.note_damage(&damage);
    }

    fn push_gap(
        &mut self,
        segment: Offset,
        position: u64,
        first_offset: Offset,
        end_offset: Offset,
        kind: DamageKind,
    ) -> Damage {
        let damage = Damage { segment, position, first_offset, end_offset, kind };
        self.window.push_back(Err(LogError::Damaged(damage.clone())));
        self.pass_over(first_offset, end_offset);
        damage
    }

    fn pass_over(&mut self, first_offset: Offset, end_offset: Offset) {
        match self.direction {
            Direction::Forward => self.from = self.from.max(end_offset),
            Direction::Backward => self.to = self.to.min(first_offset),
        }
    }

    /// Reads batches that lie one after another, and puts them into the window in the iterator's order.
    fn read(&mut self, segment: &Segment, wanted: &mut Vec<BatchHeader>) {
        if self.direction == Direction::Backward {
            wanted.reverse();
        }
        let read = segment.read_batches(wanted, &mut self.cache);
        let items = wanted
            .iter()
            .zip(read)
            .map(|(header, bytes)| bytes.map(|bytes| StoredBatch::new(segment.base_offset, header, bytes)));
        match self.direction {
            Direction::Forward => self.window.extend(items),
            Direction::Backward => self.window.extend(items.rev()),
        }
        wanted.clear();
    }
}

impl Cursor {
    /// The next headers, in the order of `direction`: more of them when more bytes are to be read at a time.
    fn headers(&self, direction: Direction, run: u32) -> Result<Vec<HeaderSlot>, LogError> {
        let count = run.min(self.end.saturating_sub(self.first));
        match direction {
            Direction::Forward => self.segment.headers(self.first, count),
            Direction::Backward => {
                let mut headers = self.segment.headers(self.end - count, count)?;
                headers.reverse();
                Ok(headers)
            }
        }
    }

    /// The next header is dealt with.
    fn pass(&mut self, direction: Direction) {
        match direction {
            Direction::Forward => self.first += 1,
            Direction::Backward => self.end -= 1,
        }
    }
}

/// Whether a batch's bytes lie right beside those that were gathered.
fn adjoins(gathered: &[BatchHeader], header: &BatchHeader, direction: Direction) -> bool {
    gathered.last().is_none_or(|last| match direction {
        Direction::Forward => last.end_position() == header.position,
        Direction::Backward => header.end_position() == last.position,
    })
}

impl Iterator for Batches {
    type Item = Result<StoredBatch, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.advance() {
            // Where the index cannot be read there is no next batch to go on with.
            self.from = self.to;
            return Some(Err(error));
        }
        self.window.pop_front()
    }
}

impl FusedIterator for Batches {}
