//! Looks at one unit's records: by their columns where that is enough, at their lines where it is not.
//!
//! Invariant: what is handed to the sink passes the filter, and nothing that does and is wanted is passed over, unless
//! the scan says so by [`Scanner::damaged`] or [`Interrupted`]. Holds one window of batches at a time, and a few large
//! batches of which more is to come.

use std::collections::BTreeSet;
use std::ops::Range;

use memchr::memchr_iter;
use model::{Offset, Partition};

use super::deadline::{Interrupted, Watch};
use super::filter::Filter;
use super::key::{Direction, Key, Order};
use super::needle::Needle;
use super::run::Run;
use super::units::{Indexed, Snapshot, Unit};
use crate::index::{Columns, FieldReader, Fields, message_of};
use crate::log::{LogError, StoredBatch};

/// Bytes of a batch that is kept for the next block of it.
const HELD_BATCH_BYTES_MAX: usize = 4 << 20;

/// How often a text has to be seen to be called frequent.
const NEEDLE_SAMPLE_MAX: usize = 256;

/// Whether a record is wanted by its place in the order of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Yes,
    /// It is not, but some that come later may be.
    NotThis,
    /// Neither it nor any that comes later.
    NoMore,
}

/// Takes what passes the filter.
pub(super) trait Sink {
    /// Whether a record at this place is wanted.
    fn wants(&self, _key: Key) -> Wanted {
        Wanted::Yes
    }

    /// Takes a record. Its fields are not given where they were not looked at.
    fn take(&mut self, key: Key, fields: Option<&Fields<'_>>, line: &[u8]);

    /// Whether it needs the fields of what it takes.
    fn needs_fields(&self) -> bool {
        false
    }

    /// How many records it takes of one unit at most.
    fn capacity(&self) -> usize {
        usize::MAX
    }

    /// Takes a whole block by what is known of it, if that is enough for it: then it never sees the block's lines.
    /// Asked only when the filter does not look at texts, and all names are listed.
    fn take_block(&mut self, _indexed: &Indexed, _filter: &Filter, _columns: &mut Columns) -> bool {
        false
    }
}

/// Looks at units, one after another.
pub(super) struct Scanner<'q> {
    snapshot: &'q Snapshot,
    filter: &'q Filter,
    direction: Direction,
    order: Order,
    watch: &'q Watch,
    /// Texts of which one is looked for: the rarest, once that is known.
    needles: Vec<&'q Needle>,
    /// What is looked for where there is no text; not any more when it is in most lines.
    run: Option<&'q Run>,
    reader: FieldReader,
    columns: Columns,
    lines: Vec<LineAt>,
    /// By the partition's place: a batch that reaches beyond the unit that was looked at last.
    held: Vec<Option<StoredBatch>>,
    pub(super) scanned_bytes: u64,
    pub(super) damaged: BTreeSet<Partition>,
}

/// A line that is to be looked at.
#[derive(Clone, Copy, Debug)]
struct LineAt {
    offset: Offset,
    start: usize,
    end: usize,
    /// When it is from, if that is known; then its time, and its names, are known to be wanted.
    timestamp_ms: Option<u64>,
}

impl<'q> Scanner<'q> {
    /// A scanner of units of this snapshot.
    pub(super) fn new(
        snapshot: &'q Snapshot,
        filter: &'q Filter,
        direction: Direction,
        order: Order,
        watch: &'q Watch,
    ) -> Self {
        Self {
            snapshot,
            filter,
            direction,
            order,
            watch,
            needles: filter.needles(),
            run: filter.run(),
            reader: FieldReader::default(),
            columns: Columns::default(),
            lines: Vec::new(),
            held: vec![None; snapshot.partitions.len()],
            scanned_bytes: 0,
            damaged: BTreeSet::new(),
        }
    }

    /// Hands the unit's records that pass the filter to `sink`.
    pub(super) fn scan(&mut self, unit: &Unit, sink: &mut impl Sink) -> Result<(), Interrupted> {
        self.watch.check()?;
        if let Some(indexed) = &unit.indexed
            && !self.filter.looks_at_text()
            && !indexed.groups.has_unlisted()
        {
            let is_taken =
                !indexed.block.has_unlisted() && sink.take_block(indexed, self.filter, &mut self.columns);
            if is_taken || (!sink.needs_fields() && self.scan_by_columns(unit, indexed, sink)?) {
                return Ok(());
            }
        }
        self.scan_lines(unit, sink)
    }

    /// Finds the records by the columns and reads only those; whether the columns were right.
    fn scan_by_columns(
        &mut self,
        unit: &Unit,
        indexed: &Indexed,
        sink: &mut impl Sink,
    ) -> Result<bool, Interrupted> {
        let mut columns = std::mem::take(&mut self.columns);
        let chosen = if indexed.block.read_columns(&mut columns).is_some() {
            Some(self.choose(unit, indexed, &columns, sink))
        } else {
            None
        };
        let taken = match chosen {
            Some(chosen) => self.take_chosen(unit, indexed, &columns, chosen, sink),
            None => Ok(false),
        };
        self.columns = columns;
        taken
    }

    /// The places in the block of the records that are wanted, in the order of their offsets.
    fn choose(
        &self,
        unit: &Unit,
        indexed: &Indexed,
        columns: &Columns,
        sink: &impl Sink,
    ) -> Vec<(usize, Key)> {
        let count = columns.timestamps_ms.len();
        let is_ordered = self.order == Order::Arrival || indexed.block.is_in_time_order;
        let mut chosen = Vec::new();
        for step in 0..count {
            let place = match self.direction {
                Direction::Backward => count - 1 - step,
                Direction::Forward => step,
            };
            let (Some(timestamp_ms), Some(group)) =
                (columns.timestamps_ms.get(place), columns.groups.get(place))
            else {
                break;
            };
            if !indexed.groups.wants(*group) || !self.filter.wants_time(*timestamp_ms) {
                continue;
            }
            let key = self.key(unit, *timestamp_ms, unit.from.plus(place as u64));
            match sink.wants(key) {
                Wanted::Yes => chosen.push((place, key)),
                Wanted::NoMore if is_ordered => break,
                Wanted::NotThis | Wanted::NoMore => {}
            }
            if is_ordered && chosen.len() >= sink.capacity() {
                break;
            }
        }
        if chosen.len() > sink.capacity() {
            match self.direction {
                Direction::Backward => chosen.sort_unstable_by_key(|(_, key)| std::cmp::Reverse(*key)),
                Direction::Forward => chosen.sort_unstable_by_key(|(_, key)| *key),
            }
            chosen.truncate(sink.capacity());
        }
        chosen.sort_unstable();
        chosen
    }

    fn take_chosen(
        &mut self,
        unit: &Unit,
        indexed: &Indexed,
        columns: &Columns,
        chosen: Vec<(usize, Key)>,
        sink: &mut impl Sink,
    ) -> Result<bool, Interrupted> {
        let (Some((_, first)), Some((_, last))) = (chosen.first(), chosen.last()) else { return Ok(true) };
        let range = first.offset..last.offset.plus(1);
        let mut chosen = chosen.into_iter().peekable();
        let mut is_right = true;
        self.for_each_batch(unit, range, |_, batch| {
            let end = batch.end_offset();
            // What was to be in batches that cannot be read is passed over.
            while let Some((place, key)) = chosen.next_if(|(_, key)| key.offset < end) {
                if key.offset < batch.base_offset {
                    continue;
                }
                match line_of(batch, indexed, columns, place) {
                    Some(line) => sink.take(key, None, line),
                    None => is_right = false,
                }
            }
            Ok(())
        })?;
        Ok(is_right)
    }

    /// Looks at the lines.
    fn scan_lines(&mut self, unit: &Unit, sink: &mut impl Sink) -> Result<(), Interrupted> {
        let mut columns = std::mem::take(&mut self.columns);
        let has_columns = self.needles.is_empty()
            && self.run.is_none()
            && unit
                .indexed
                .as_ref()
                .is_some_and(|indexed| indexed.block.read_columns(&mut columns).is_some());
        let known = unit.indexed.as_ref().filter(|_| has_columns).map(|indexed| (indexed, &columns));
        let scanned = self.for_each_batch(unit, unit.from..unit.to, |scanner, batch| {
            scanner.choose_needle(&batch.bytes);
            let mut lines = std::mem::take(&mut scanner.lines);
            scanner.find_lines(unit, batch, known, &mut lines);
            if lines.len() as u64 > batch.end_offset().since(batch.base_offset) / 2 {
                scanner.run = None;
            }
            if scanner.direction == Direction::Backward {
                lines.reverse();
            }
            scanner.take_lines(unit, batch, &lines, sink);
            lines.clear();
            scanner.lines = lines;
            Ok(())
        });
        self.columns = columns;
        scanned
    }

    /// Keeps of several texts the one that is rarest in these bytes.
    fn choose_needle(&mut self, bytes: &[u8]) {
        if self.needles.len() > 1 {
            let rarest = self.needles.iter().min_by_key(|needle| {
                // Of texts that are not there, the longest promises most.
                (needle.count(bytes, NEEDLE_SAMPLE_MAX), std::cmp::Reverse(needle.length()))
            });
            self.needles = rarest.into_iter().copied().collect();
        }
    }

    /// The lines of a batch that are to be looked at, in the order of their offsets.
    fn find_lines(
        &self,
        unit: &Unit,
        batch: &StoredBatch,
        known: Option<(&Indexed, &Columns)>,
        lines: &mut Vec<LineAt>,
    ) {
        lines.clear();
        let bytes = &batch.bytes[..];
        if let Some((indexed, columns)) = known {
            let shift = indexed.block.position as i64 - batch.position as i64;
            let from = unit.from.max(batch.base_offset);
            let count = unit.to.min(batch.end_offset()).since(from) as usize;
            let first = from.since(unit.from) as usize;
            let timestamps_ms = columns.timestamps_ms.iter().enumerate().skip(first).take(count);
            for ((place, timestamp_ms), offset) in timestamps_ms.zip(from.get()..) {
                let offset = Offset::new(offset);
                let group = columns.groups.get(place).copied().unwrap_or_default();
                if !indexed.groups.wants(group) || !self.filter.wants_time(*timestamp_ms) {
                    continue;
                }
                let position = |place: usize| {
                    let position = *columns.positions.get(place)? as i64 + shift;
                    usize::try_from(position).ok()
                };
                let (Some(start), Some(next)) = (position(place), position(place + 1)) else { continue };
                let timestamp_ms = (!indexed.groups.has_unlisted()).then_some(*timestamp_ms);
                lines.push(LineAt { offset, start, end: next.saturating_sub(1), timestamp_ms });
            }
            return;
        }
        let range = bytes_of(unit, batch);
        let part = bytes.get(range.clone()).unwrap_or_default();
        let mut offset = batch.base_offset.max(unit.from);
        let mut counted = 0;
        let mut push = |line: Range<usize>, offset| {
            let (start, end) = (range.start + line.start, range.start + line.end);
            lines.push(LineAt { offset, start, end, timestamp_ms: None });
        };
        let candidates = match (self.needles.first(), self.run) {
            (Some(needle), _) => Some(needle.candidates(part)),
            (None, Some(run)) => Some(run.candidates(part)),
            (None, None) => None,
        };
        match candidates {
            Some(candidates) => {
                for line in candidates {
                    let between = part.get(counted..line.start).unwrap_or_default();
                    offset = offset.plus(memchr_iter(b'\n', between).count() as u64);
                    counted = line.start;
                    push(line, offset);
                }
            }
            None => {
                for newline in memchr_iter(b'\n', part) {
                    push(counted..newline, offset);
                    counted = newline + 1;
                    offset = offset.plus(1);
                }
            }
        }
    }

    fn take_lines(&mut self, unit: &Unit, batch: &StoredBatch, lines: &[LineAt], sink: &mut impl Sink) {
        let is_ordered = self.order == Order::Arrival
            || unit.indexed.as_ref().is_some_and(|indexed| indexed.block.is_in_time_order);
        let is_of_message_alone = self.filter.is_of_message_alone() && !sink.needs_fields();
        for at in lines {
            let known = at.timestamp_ms.map(|timestamp_ms| self.key(unit, timestamp_ms, at.offset));
            if let Some(key) = known {
                match sink.wants(key) {
                    Wanted::Yes => {}
                    Wanted::NoMore if is_ordered => return,
                    Wanted::NotThis | Wanted::NoMore => continue,
                }
            }
            let line = batch.bytes.get(at.start..at.end).unwrap_or_default();
            // Of what is known already the message is the rest.
            if let Some(key) = known
                && is_of_message_alone
                && let Some(message) = message_of(line)
            {
                if self.filter.passes_message(message) {
                    sink.take(key, None, line);
                }
                continue;
            }
            // Stored lines were checked when they came; one that does not parse cannot match a filter.
            let Some(fields) = self.reader.fields_of(line) else { continue };
            let key = self.key(unit, fields.timestamp_ms, at.offset);
            if known.is_none() {
                match sink.wants(key) {
                    Wanted::Yes => {}
                    Wanted::NoMore if is_ordered => return,
                    Wanted::NotThis | Wanted::NoMore => continue,
                }
                if !self.filter.wants_time(fields.timestamp_ms) || !self.filter.passes_names(&fields) {
                    continue;
                }
            }
            if self.filter.passes_text(&fields) {
                sink.take(key, Some(&fields), line);
            }
        }
    }

    fn key(&self, unit: &Unit, timestamp_ms: u64, offset: Offset) -> Key {
        Key { rank: self.order.rank(timestamp_ms), partition: unit.partition, offset }
    }

    /// Reads the batches that hold records of a range of the unit.
    fn for_each_batch(
        &mut self,
        unit: &Unit,
        range: Range<Offset>,
        mut each: impl FnMut(&mut Self, &StoredBatch) -> Result<(), Interrupted>,
    ) -> Result<(), Interrupted> {
        let Some(pinned) = self.snapshot.partitions.get(unit.place) else { return Ok(()) };
        let held = self.held.get_mut(unit.place).and_then(Option::take);
        if let Some(batch) = held
            && batch.base_offset <= range.start
            && range.end <= batch.end_offset()
        {
            let done = each(self, &batch);
            self.hold(unit, Some(batch));
            return done;
        }
        let mut last = None;
        for batch in pinned.index.reader().batches_between(range.start, range.end) {
            self.watch.check()?;
            match batch {
                Ok(batch) => {
                    self.scanned_bytes += batch.bytes.len() as u64;
                    each(self, &batch)?;
                    last = Some(batch);
                }
                Err(error) => self.note_damage(unit.partition, &error),
            }
        }
        self.hold(unit, last);
        Ok(())
    }

    /// Keeps a batch of which more is to come.
    fn hold(&mut self, unit: &Unit, batch: Option<StoredBatch>) {
        let more = batch.filter(|batch| {
            let is_more = batch.base_offset < unit.from || unit.to < batch.end_offset();
            is_more && batch.bytes.len() <= HELD_BATCH_BYTES_MAX
        });
        if let Some(place) = self.held.get_mut(unit.place) {
            *place = more;
        }
    }

    /// Notes that records of a partition could not be read.
    pub(super) fn note_damage(&mut self, partition: Partition, error: &LogError) {
        if self.damaged.insert(partition) {
            tracing::warn!(%partition, %error, "a query passes over what it cannot read");
        }
    }
}

/// The line of a record whose place in its block is known, without its newline; `None` when there is none just there.
fn line_of<'a>(
    batch: &'a StoredBatch,
    indexed: &Indexed,
    columns: &Columns,
    place: usize,
) -> Option<&'a [u8]> {
    let at = |place: usize| {
        let position = indexed.block.position.checked_add(*columns.positions.get(place)?)?;
        usize::try_from(position.checked_sub(batch.position)?).ok()
    };
    let (line, newline) = batch
        .bytes
        .get(at(place)?..at(place + 1)?)?
        .split_at_checked(at(place + 1)?.checked_sub(at(place)?)?.checked_sub(1)?)?;
    (newline == b"\n").then_some(line)
}

/// The part of a batch's bytes that holds the unit's records.
fn bytes_of(unit: &Unit, batch: &StoredBatch) -> Range<usize> {
    if let Some(indexed) = &unit.indexed {
        let block = &indexed.block;
        let within = |position: u64| {
            usize::try_from(position.saturating_sub(batch.position))
                .unwrap_or(usize::MAX)
                .min(batch.bytes.len())
        };
        return within(block.position)..within(block.position.saturating_add(block.length));
    }
    let end_of_lines = |count: u64| match usize::try_from(count).unwrap_or(usize::MAX).checked_sub(1) {
        Some(last) => {
            memchr_iter(b'\n', &batch.bytes).nth(last).map_or(batch.bytes.len(), |newline| newline + 1)
        }
        None => 0,
    };
    let start = end_of_lines(unit.from.since(batch.base_offset));
    let end = if unit.to < batch.end_offset() {
        end_of_lines(unit.to.since(batch.base_offset))
    } else {
        batch.bytes.len()
    };
    start..end
}
