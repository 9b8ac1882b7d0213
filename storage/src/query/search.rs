//! The first records, in the order of the answer, that pass a filter.
//!
//! Invariants: the answer is a prefix of all records that pass, in order; it says where to go on if there are more.
//! What is kept is bounded in records and in bytes.

use std::collections::BTreeMap;

use model::{Offset, Partition};

use super::deadline::Watch;
use super::drive;
use super::encode::{Format, RecordWriter};
use super::filter::Filter;
use super::key::{Cursor, Direction, Key, Order};
use super::parse::Query;
use super::scan::{Sink, Wanted};
use super::stats::{Lack, Stats};
use super::units::Snapshot;
use crate::index::Fields;

/// The records that a search found, in the order of the answer.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Each with its place.
    pub records: Vec<(Key, Box<[u8]>)>,
    /// Where to go on; `None` when there is no more.
    pub next: Option<Cursor>,
    /// What the answer lacks; empty when it is whole.
    pub lacks: Vec<Lack>,
    /// What it took.
    pub stats: Stats,
}

impl Found {
    /// The records as a body.
    pub fn encode(&self, format: Format, with_places: bool) -> Vec<u8> {
        let bytes: usize = self.records.iter().map(|(_, line)| line.len() + 64).sum();
        let mut body = Vec::with_capacity(bytes);
        let mut writer = RecordWriter::new(format);
        for (key, line) in &self.records {
            if with_places {
                writer.record_at(&mut body, key.partition, key.offset, line);
            } else {
                writer.record(&mut body, line);
            }
        }
        writer.end(&mut body);
        body
    }
}

/// Searches.
pub(super) fn search(snapshot: &Snapshot, query: &Query, bytes_max: usize, watch: &Watch) -> Found {
    if query.limit == 0 {
        return Found::default();
    }
    let (snapshot, filter) = behind_cursor(snapshot, query);
    let mut best = Best::new(&snapshot, query, bytes_max);
    let run = drive::run(&snapshot, &filter, query.direction, query.order, watch, &mut best);
    let mut found = best.into_found(run.broken_off_at);
    found.lacks.extend(run.lacks());
    found.stats = run.stats;
    found
}

/// Searches with so many threads at once, this one included, each in its part of the segments.
pub(super) fn search_in_parallel(
    snapshot: &Snapshot,
    query: &Query,
    bytes_max: usize,
    watch: &Watch,
    threads: usize,
) -> Found {
    // Searching on from a cursor of arrival looks at ends of partitions, which parts do not have.
    let parts = if threads > 1 && query.order == Order::Time { snapshot.split(threads) } else { Vec::new() };
    if parts.len() < 2 {
        return search(snapshot, query, bytes_max, watch);
    }
    let bytes_each = bytes_max / parts.len();
    let found = in_parallel(&parts, |part| search(part, query, bytes_each, watch));
    merge(found, query)
}

/// Does the same with each part on a thread of its own, the first on this one.
pub(super) fn in_parallel<T: Send>(parts: &[Snapshot], work: impl Fn(&Snapshot) -> T + Sync) -> Vec<T> {
    let Some((first, others)) = parts.split_first() else { return Vec::new() };
    let work = &work;
    std::thread::scope(|scope| {
        let others: Vec<_> = others.iter().map(|part| scope.spawn(move || work(part))).collect();
        let mut done = vec![work(first)];
        for other in others {
            match other.join() {
                Ok(result) => done.push(result),
                // The pool answers for it, as if it had happened here.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

/// Puts together what was found in parts that have no record in common.
fn merge(parts: Vec<Found>, query: &Query) -> Found {
    let direction = query.direction;
    let comes_first = |a: Key, b: Key| direction.comes_first(a, b);
    let mut merged = Found::default();
    // Behind the first place at which a part ends that has more, its records would be missing.
    let mut next: Option<Key> = None;
    for part in parts {
        merged.stats.add(&part.stats);
        for lack in part.lacks {
            if !merged.lacks.contains(&lack) {
                merged.lacks.push(lack);
            }
        }
        if let Some(Cursor { key, .. }) = part.next {
            next = Some(next.map_or(key, |next| if comes_first(key, next) { key } else { next }));
        }
        merged.records.extend(part.records);
    }
    if let Some(next) = next {
        merged.records.retain(|(key, _)| !comes_first(next, *key));
    }
    match direction {
        Direction::Backward => merged.records.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key)),
        Direction::Forward => merged.records.sort_unstable_by_key(|(key, _)| *key),
    }
    if merged.records.len() > query.limit {
        merged.records.truncate(query.limit);
        next = merged.records.last().map(|(key, _)| *key);
    }
    if merged.records.len() == query.limit {
        // As many as were asked for: that a part had no room for more is told by the cursor.
        merged.lacks.retain(|lack| *lack != Lack::Bytes);
    }
    merged.next = next.map(|key| Cursor { direction, key });
    merged
}

/// What is left behind the cursor, so that what lies before it is not looked at again.
fn behind_cursor(snapshot: &Snapshot, query: &Query) -> (Snapshot, Filter) {
    let (mut snapshot, mut filter) = (snapshot.clone(), query.filter.clone());
    let Some(Cursor { direction, key }) = query.cursor else { return (snapshot, filter) };
    match (query.order, direction) {
        (Order::Time, Direction::Backward) => filter.to_ms = filter.to_ms.min(key.rank.saturating_add(1)),
        (Order::Time, Direction::Forward) => filter.from_ms = filter.from_ms.max(key.rank),
        (Order::Arrival, direction) => {
            for pinned in &mut snapshot.partitions {
                match direction {
                    Direction::Backward => pinned.end = pinned.end.min(key.offset),
                    Direction::Forward => pinned.begin = key.offset.plus(1),
                }
            }
        }
    }
    (snapshot, filter)
}

/// The best records so far: one more than is asked for, to know whether there are more.
struct Best<'q> {
    query: &'q Query,
    bytes_max: usize,
    /// Up to where each partition is read; by partition.
    ends: Vec<(Partition, Offset)>,
    records: BTreeMap<Key, Box<[u8]>>,
    bytes: usize,
    /// The place of the best record that was let go of.
    dropped: Option<Key>,
    is_cut: bool,
}

impl<'q> Best<'q> {
    fn new(snapshot: &Snapshot, query: &'q Query, bytes_max: usize) -> Self {
        let mut ends: Vec<(Partition, Offset)> =
            snapshot.partitions.iter().map(|pinned| (pinned.index.partition(), pinned.end)).collect();
        // A part of a snapshot may have several pieces of one partition; what is behind the last is behind all.
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.dedup_by_key(|(partition, _)| *partition);
        Self { query, bytes_max, ends, records: BTreeMap::new(), bytes: 0, dropped: None, is_cut: false }
    }

    /// The record that would be let go of first.
    fn worst(&self) -> Option<Key> {
        let worst = match self.query.direction {
            Direction::Backward => self.records.first_key_value(),
            Direction::Forward => self.records.last_key_value(),
        };
        worst.map(|(key, _)| *key)
    }

    fn drop_worst(&mut self) {
        let dropped = match self.query.direction {
            Direction::Backward => self.records.pop_first(),
            Direction::Forward => self.records.pop_last(),
        };
        let Some((key, line)) = dropped else { return };
        self.bytes -= line.len();
        if self.dropped.is_none_or(|before| self.query.direction.comes_first(key, before)) {
            self.dropped = Some(key);
        }
    }

    fn into_found(mut self, broken_off_at: Option<Key>) -> Found {
        let direction = self.query.direction;
        // What comes after the place where the search broke off may lack others before it.
        if let Some(bound) = broken_off_at {
            self.records.retain(|key, _| direction.comes_first(*key, bound));
        }
        let mut next = broken_off_at.map(|bound| match direction {
            Direction::Backward => bound.next(),
            Direction::Forward => bound.previous(),
        });
        while self.records.len() > self.query.limit {
            self.drop_worst();
        }
        let comes_first =
            |key: Key, next: Option<Key>| next.is_none_or(|next| direction.comes_first(key, next));
        if self.dropped.is_some_and(|dropped| comes_first(dropped, next)) {
            next = self.worst();
        }
        let mut records: Vec<(Key, Box<[u8]>)> = self.records.into_iter().collect();
        if direction == Direction::Backward {
            records.reverse();
        }
        let is_cut = self.is_cut && records.len() < self.query.limit;
        Found {
            records,
            next: next.map(|key| Cursor { direction, key }),
            lacks: if is_cut { vec![Lack::Bytes] } else { Vec::new() },
            stats: Stats::default(),
        }
    }
}

impl Sink for Best<'_> {
    fn wants(&self, key: Key) -> Wanted {
        let direction = self.query.direction;
        if self.query.cursor.is_some_and(|cursor| !direction.comes_first(cursor.key, key)) {
            return Wanted::NotThis;
        }
        let is_full = self.records.len() > self.query.limit || self.is_cut;
        if is_full && self.worst().is_some_and(|worst| direction.comes_first(worst, key)) {
            return Wanted::NoMore;
        }
        Wanted::Yes
    }

    fn take(&mut self, key: Key, _fields: Option<&Fields<'_>>, line: &[u8]) {
        let end = self.ends.iter().find(|(partition, _)| *partition == key.partition).map(|(_, end)| *end);
        if end.is_some_and(|end| key.offset >= end) {
            return;
        }
        self.bytes += line.len();
        self.records.insert(key, line.into());
        while self.records.len() > self.query.limit + 1 {
            self.drop_worst();
        }
        // Each record counts with what is written around it.
        while self.bytes + self.records.len() * 64 > self.bytes_max && self.records.len() > 1 {
            self.is_cut = true;
            self.drop_worst();
        }
    }

    fn capacity(&self) -> usize {
        self.query.limit + 1
    }
}
