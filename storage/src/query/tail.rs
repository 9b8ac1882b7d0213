//! Following the partitions: the newest records that are there, then those that come, a piece at a time.
//!
//! Invariants: a tail goes through each partition by offset, and through each offset once; what it passes over it
//! counts and tells; a piece is bounded in bytes, and between pieces nothing is kept but positions. So a reader that is
//! slow costs no memory: the log is its buffer, and behind a bound it misses records.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use memchr::memchr;
use model::{Offset, Partition};

use super::deadline::Watch;
use super::drive;
use super::encode::{Format, RecordWriter};
use super::filter::Filter;
use super::key::{Direction, Key, Order};
use super::merge::split_place;
use super::parse::{Query, TailQuery};
use super::scan::{Sink, Wanted};
use super::search;
use super::stats::Lack;
use super::units::{Pinned, Snapshot};
use crate::index::{FieldReader, Fields};
use crate::limits;

/// Where a tail is: for each partition the next offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(BTreeMap<Partition, Offset>);

/// How far a tail may fall behind, and how much of it is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailBounds {
    /// Records of each partition that may wait for a reader.
    pub behind_max: u64,
    /// Bytes of records in a piece, the last of each partition aside.
    pub piece_bytes: usize,
    /// How long to look for a piece, and to count what is missed; what there was no time for counts as missed.
    pub piece_time_max: Duration,
    /// After how much silence it says that it is alive.
    pub heartbeat: Duration,
    /// Whether a partition here may be behind what a tail was told of another copy: then it is waited for. Else its end
    /// is behind because it began anew, and what comes is new.
    pub may_lag: bool,
}

impl TailBounds {
    /// Where a tail goes on that was told everything before `at`, in a partition that ends at `end`.
    fn position(self, at: Offset, end: Offset) -> Offset {
        if self.may_lag { at } else { at.min(end) }
    }
}

impl Default for TailBounds {
    fn default() -> Self {
        Self {
            behind_max: limits::TAIL_BEHIND_MAX,
            piece_bytes: limits::TAIL_PIECE_BYTES,
            piece_time_max: limits::TAIL_PIECE_TIME_MAX,
            heartbeat: limits::TAIL_HEARTBEAT,
            may_lag: false,
        }
    }
}

/// What a tail tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailEvent {
    /// A record.
    Record(TailRecord),
    /// So many records are not told.
    Missed(u64),
}

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRecord {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Its time, Unix milliseconds.
    pub timestamp_ms: u64,
    /// The record as stored, without its newline.
    pub line: Box<[u8]>,
}

/// How a tail begins.
#[derive(Clone, Debug, Default)]
pub struct TailBegin {
    /// The records that are there already, in the order of their times.
    pub records: Vec<TailRecord>,
    /// Where it goes on.
    pub positions: Positions,
    /// What the records lack.
    pub lacks: Vec<Lack>,
}

/// The next piece of a tail.
#[derive(Clone, Debug, Default)]
pub struct TailPiece {
    /// What is told; the records of each partition in the order of their offsets.
    pub events: Vec<TailEvent>,
    /// Where it goes on.
    pub positions: Positions,
    /// Whether there is more already.
    pub has_more: bool,
}

impl Positions {
    /// The next offset of a partition, if the tail knows it.
    pub fn get(&self, partition: Partition) -> Option<Offset> {
        self.0.get(&partition).copied()
    }

    /// Goes on in a partition at `next`.
    pub fn set(&mut self, partition: Partition, next: Offset) {
        self.0.insert(partition, next);
    }

    /// Takes over what `others` has, and keeps what it has not.
    pub fn update(&mut self, others: &Self) {
        self.0.extend(others.0.iter().map(|(partition, next)| (*partition, *next)));
    }

    /// Whether no partition is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (partition, next)) in self.0.iter().enumerate() {
            let dash = if place == 0 { "" } else { "-" };
            write!(f, "{dash}{:x}.{:x}", partition.get(), next.get())?;
        }
        Ok(())
    }
}

impl FromStr for Positions {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut positions = Self::default();
        for part in text.split('-').filter(|part| !part.is_empty()) {
            let (partition, next) = part.split_once('.').ok_or(())?;
            let partition = u16::from_str_radix(partition, 16).map_err(|_| ())?;
            let next = u64::from_str_radix(next, 16).map_err(|_| ())?;
            if partition >= model::limits::PARTITIONS_MAX {
                return Err(());
            }
            positions.set(Partition::new(partition), Offset::new(next));
        }
        Ok(positions)
    }
}

impl TailEvent {
    /// Reads a record with its place, as [`TailRecord::encode`] writes it.
    pub fn parse_record(data: &[u8]) -> Option<Self> {
        let (partition, offset, line) = split_place(data)?;
        let timestamp_ms = FieldReader::default().fields_of(line)?.timestamp_ms;
        Some(Self::Record(TailRecord { partition, offset, timestamp_ms, line: line.into() }))
    }
}

impl TailRecord {
    /// The record with its place, on one line.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        RecordWriter::new(Format::Ndjson).record_at(out, self.partition, self.offset, &self.line);
        out.pop();
        // Between the parts of a JSON text a carriage return may stand, which would end the line for some.
        let written = out.get_mut(start..).unwrap_or_default();
        if memchr(b'\r', written).is_some() {
            written.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
        }
    }
}

/// Begins a tail at the end of what can be read, or where another one ended.
pub(super) fn begin(
    snapshot: &Snapshot,
    query: &TailQuery,
    resumed: Option<&Positions>,
    bounds: TailBounds,
    watch: &Watch,
) -> TailBegin {
    let mut begin = TailBegin::default();
    for pinned in &snapshot.partitions {
        let partition = pinned.index.partition();
        // Of a partition that it did not know, it follows what comes from now on.
        let next = resumed.and_then(|positions| positions.get(partition)).unwrap_or(pinned.end);
        begin.positions.set(partition, bounds.position(next, pinned.end));
    }
    if resumed.is_some() || query.last == 0 {
        return begin;
    }
    let search = Query { filter: query.filter.clone(), limit: query.last, ..Query::newest() };
    let found = search::search(snapshot, &search, limits::TAIL_BEGIN_BYTES_MAX, watch);
    let as_record = |(key, line): (Key, Box<[u8]>)| TailRecord {
        partition: key.partition,
        offset: key.offset,
        timestamp_ms: key.rank,
        line,
    };
    begin.records = found.records.into_iter().rev().map(as_record).collect();
    begin.lacks = found.lacks;
    begin
}

/// Goes on from `positions`.
pub(super) fn next(
    snapshot: &Snapshot,
    filter: &Filter,
    positions: &Positions,
    bounds: TailBounds,
    watch: &Watch,
) -> TailPiece {
    let mut follower = Follower {
        filter,
        bounds,
        watch,
        reader: FieldReader::default(),
        positions: positions.clone(),
        missed: 0,
        has_more: false,
    };
    let with_news: Vec<&Pinned> =
        snapshot.partitions.iter().filter(|pinned| follower.skip_to_bound(pinned) < pinned.end).collect();
    let share = bounds.piece_bytes / with_news.len().max(1);
    let records: Vec<Vec<TailRecord>> =
        with_news.into_iter().map(|pinned| follower.read(pinned, share)).collect();
    let Follower { positions, missed, has_more, .. } = follower;
    let missed = (missed > 0).then_some(TailEvent::Missed(missed));
    let events = missed.into_iter().chain(by_time(records).into_iter().map(TailEvent::Record)).collect();
    TailPiece { events, positions, has_more }
}

/// Each partition's records in their order, those of several by time.
fn by_time(records: Vec<Vec<TailRecord>>) -> Vec<TailRecord> {
    let mut heads: Vec<_> = records.into_iter().map(|records| records.into_iter().peekable()).collect();
    let mut merged = Vec::new();
    loop {
        let with_time =
            heads.iter_mut().filter_map(|head| head.peek().map(|next| next.timestamp_ms).zip(Some(head)));
        let Some((_, head)) = with_time.min_by_key(|(timestamp_ms, _)| *timestamp_ms) else { return merged };
        merged.extend(head.next());
    }
}

struct Follower<'q> {
    filter: &'q Filter,
    bounds: TailBounds,
    watch: &'q Watch,
    reader: FieldReader,
    positions: Positions,
    missed: u64,
    has_more: bool,
}

impl Follower<'_> {
    /// Passes over what is too far behind, and returns where the partition is read on.
    fn skip_to_bound(&mut self, pinned: &Pinned) -> Offset {
        let partition = pinned.index.partition();
        let at = self.bounds.position(self.positions.get(partition).unwrap_or(pinned.end), pinned.end);
        if at > pinned.end {
            return at;
        }
        // What retention has taken cannot be looked at any more.
        let first = at.max(pinned.index.reader().first_offset()).min(pinned.end);
        self.missed += first.since(at);
        let mut next = first;
        if pinned.end.since(first) > self.bounds.behind_max {
            // To the middle of what may wait: else a reader that is hardly too slow would miss a few all the time.
            next = pinned.end.minus(self.bounds.behind_max / 2);
            self.missed += self.count(pinned, first, next);
        }
        self.positions.set(partition, next);
        next
    }

    /// How many records between these offsets pass the filter; all of them, if there is no time to look.
    fn count(&self, pinned: &Pinned, from: Offset, to: Offset) -> u64 {
        if !self.filter.is_selective() {
            return to.since(from);
        }
        let pinned = Pinned { begin: from, end: to, ..pinned.clone() };
        let snapshot = Snapshot { partitions: vec![pinned] };
        let mut count = Count { from, to, count: 0 };
        let (direction, order) = (Direction::Forward, Order::Arrival);
        let run = drive::run(&snapshot, self.filter, direction, order, self.watch, &mut count);
        if run.broken_off_at.is_some() { to.since(from) } else { count.count }
    }

    /// The partition's next records.
    fn read(&mut self, pinned: &Pinned, bytes_max: usize) -> Vec<TailRecord> {
        let partition = pinned.index.partition();
        let mut next = self.positions.get(partition).unwrap_or(pinned.end);
        let (mut records, mut bytes, mut bytes_read, mut is_whole) = (Vec::new(), 0, 0, true);
        'batches: for batch in pinned.index.reader().batches_between(next, pinned.end) {
            if self.watch.check().is_err() || bytes_read >= limits::TAIL_PIECE_SCAN_BYTES_MAX {
                is_whole = false;
                break;
            }
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::warn!(%partition, %error, "a tail passes over what it cannot read");
                    continue;
                }
            };
            bytes_read += batch.bytes.len();
            let begin = next;
            for (offset, line) in batch.lines().skip_while(|(offset, _)| *offset < begin) {
                if offset >= pinned.end {
                    break;
                }
                if bytes >= bytes_max {
                    is_whole = false;
                    break 'batches;
                }
                // What could not be read in between.
                self.missed += offset.since(next);
                next = offset.plus(1);
                if let Some(timestamp_ms) = self.time_if_wanted(line) {
                    bytes += line.len();
                    records.push(TailRecord { partition, offset, timestamp_ms, line: line.into() });
                }
            }
        }
        self.has_more |= !is_whole;
        if is_whole {
            self.missed += pinned.end.since(next);
            next = pinned.end;
        }
        self.positions.set(partition, next);
        records
    }

    fn time_if_wanted(&mut self, line: &[u8]) -> Option<u64> {
        let fields = self.reader.fields_of(line)?;
        let is_wanted = self.filter.wants_time(fields.timestamp_ms)
            && self.filter.passes_names(&fields)
            && self.filter.passes_text(&fields);
        is_wanted.then_some(fields.timestamp_ms)
    }
}

/// Counts what passes between two offsets.
struct Count {
    from: Offset,
    to: Offset,
    count: u64,
}

impl Sink for Count {
    fn wants(&self, key: Key) -> Wanted {
        if key.offset >= self.to {
            Wanted::NoMore
        } else if key.offset < self.from {
            Wanted::NotThis
        } else {
            Wanted::Yes
        }
    }

    fn take(&mut self, key: Key, _fields: Option<&Fields<'_>>, _line: &[u8]) {
        self.count += u64::from((self.from..self.to).contains(&key.offset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_keep_their_text() {
        let mut positions = Positions::default();
        assert_eq!((positions.to_string().as_str(), "".parse()), ("", Ok(Positions::default())));
        positions.set(Partition::new(0), Offset::new(31));
        positions.set(Partition::new(1023), Offset::new(u64::MAX));
        assert_eq!(positions.to_string(), "0.1f-3ff.ffffffffffffffff");
        assert_eq!(positions.to_string().parse(), Ok(positions));
        for bad in ["x", "1", "0.", "400.1", "0.1,1.2", "0.10000000000000000"] {
            assert_eq!(bad.parse::<Positions>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn a_record_stays_on_its_line_and_is_read_back() {
        let line = "{\"timestamp\":7,\r\"service\":\"s\",\"message\":\"m\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}";
        let record = TailRecord {
            partition: Partition::new(3),
            offset: Offset::new(9),
            timestamp_ms: 7,
            line: line.as_bytes().into(),
        };
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        let text = String::from_utf8(encoded).unwrap();
        assert_eq!(text, format!("{{\"partition\":3,\"offset\":9,\"record\":{}}}", line.replace('\r', " ")));
        let line = line.replace('\r', " ").into_bytes().into();
        assert_eq!(
            TailEvent::parse_record(text.as_bytes()),
            Some(TailEvent::Record(TailRecord { line, ..record }))
        );
        assert_eq!(TailEvent::parse_record(b"{\"partition\":3,\"offset\":9,\"record\":{}}"), None);
    }
}
