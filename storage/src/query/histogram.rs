//! How many records there are in each piece of a time, by level.
//!
//! Invariant: the counts are exact for all records that could be read in time; times before the first bucket or after
//! the last are counted nowhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::deadline::Watch;
use super::drive;
use super::filter::{Filter, as_text};
use super::key::{Direction, Key, Order};
use super::parse::{Cut, HistogramQuery};
use super::scan::Sink;
use super::search::in_parallel;
use super::stats::{Lack, Stats};
use super::units::{Indexed, Snapshot};
use crate::index::{Columns, Fields};
use crate::limits;

/// A histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// The begin of the first bucket, Unix milliseconds.
    pub from: u64,
    /// The end of the last bucket's records, exclusive.
    pub to: u64,
    /// The milliseconds of a bucket.
    pub step: u64,
    /// The levels, in capitals, the most frequent first; the empty one is that of records without.
    pub levels: Vec<String>,
    /// For each bucket the count of each level.
    pub buckets: Vec<Vec<u64>>,
    /// All counts together.
    pub total: u64,
}

/// The level under which those are counted for which there is no room.
const OTHER_LEVELS: &str = "OTHER";

/// How the time is cut: `buckets` pieces of `step_ms` from `from_ms` on, the last of which may be cut off at `to_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// The begin of the first.
    pub from_ms: u64,
    /// The end of the last.
    pub to_ms: u64,
    /// The length of each.
    pub step_ms: u64,
    /// How many.
    pub count: usize,
}

impl Buckets {
    /// The buckets between two times.
    ///
    /// # Errors
    /// When there would be too many.
    pub fn new(from_ms: u64, to_ms: u64, cut: Cut) -> Result<Self, String> {
        let span_ms = to_ms.saturating_sub(from_ms);
        let step_ms = match cut {
            Cut::Buckets(buckets) => span_ms.div_ceil(buckets.max(1)).max(1),
            Cut::Step(step_ms) => step_ms.max(1),
        };
        let count = span_ms.div_ceil(step_ms);
        if count > limits::HISTOGRAM_BUCKETS_MAX as u64 {
            return Err(format!(
                "these are {count} buckets; there are at most {}",
                limits::HISTOGRAM_BUCKETS_MAX
            ));
        }
        Ok(Self { from_ms, to_ms, step_ms, count: count as usize })
    }

    fn place(&self, timestamp_ms: u64) -> Option<usize> {
        let since_ms = timestamp_ms.checked_sub(self.from_ms).filter(|_| timestamp_ms < self.to_ms)?;
        Some((since_ms / self.step_ms) as usize)
    }
}

/// The times of the first record of all and the last, as far as the segments tell without being read.
pub(super) fn extent(snapshot: &Snapshot) -> Option<(u64, u64)> {
    let times = snapshot.segments().map(|(_, extent)| (extent.timestamp_min_ms, extent.timestamp_max_ms));
    times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

impl HistogramQuery {
    /// The buckets, where the data is from these times if it is not said which are wanted.
    ///
    /// # Errors
    /// When there would be too many, or the end is before the begin.
    pub fn buckets(&self, extent: Option<(u64, u64)>) -> Result<Buckets, super::parse::ParameterError> {
        let (first_ms, last_ms) = extent.unwrap_or_default();
        let from_ms = if self.has_begin { self.filter.from_ms } else { first_ms };
        let to_ms = if self.has_end { self.filter.to_ms } else { last_ms.saturating_add(1).max(from_ms) };
        if to_ms < from_ms {
            return Err(super::parse::ParameterError::new("to", "to is before from"));
        }
        Buckets::new(from_ms, to_ms, self.cut)
            .map_err(|error| super::parse::ParameterError::new("step", error))
    }
}

/// Counts.
pub(super) fn histogram(
    snapshot: &Snapshot,
    filter: &Filter,
    buckets: Buckets,
    watch: &Watch,
) -> (Histogram, Vec<Lack>, Stats) {
    let filter = Filter { from_ms: buckets.from_ms, to_ms: buckets.to_ms, ..filter.clone() };
    let mut counts = Counts::new(buckets);
    let run = drive::run(snapshot, &filter, Direction::Backward, Order::Time, watch, &mut counts);
    let mut lacks = run.lacks();
    if counts.has_overflowed {
        lacks.push(Lack::Names);
    }
    (counts.into_histogram(), lacks, run.stats)
}

/// Counts with so many threads at once, this one included, each in its part of the segments.
pub(super) fn histogram_in_parallel(
    snapshot: &Snapshot,
    filter: &Filter,
    buckets: Buckets,
    watch: &Watch,
    threads: usize,
) -> (Histogram, Vec<Lack>, Stats) {
    let parts = if threads > 1 { snapshot.split(threads) } else { Vec::new() };
    if parts.len() < 2 {
        return histogram(snapshot, filter, buckets, watch);
    }
    let (mut counts, mut lacks, mut stats) = (Vec::new(), Vec::new(), Stats::default());
    for part in in_parallel(&parts, |part| histogram(part, filter, buckets, watch)) {
        counts.push(part.0);
        lacks.extend(part.1);
        stats.add(&part.2);
    }
    lacks.sort_unstable_by_key(ToString::to_string);
    lacks.dedup();
    (Histogram::merge(counts, buckets), lacks, stats)
}

impl Histogram {
    /// Puts histograms of the same buckets together.
    pub fn merge(parts: Vec<Self>, buckets: Buckets) -> Self {
        let mut counts = Counts::new(buckets);
        for part in parts {
            for (level, place) in part.levels.iter().zip(0..) {
                let column = counts.level(level);
                for (total, bucket) in column.iter_mut().zip(&part.buckets) {
                    *total += bucket.get::<usize>(place).copied().unwrap_or_default();
                }
            }
        }
        counts.into_histogram()
    }
}

struct Counts {
    buckets: Buckets,
    by_level: BTreeMap<String, Vec<u64>>,
    /// The level that was counted last, as it was written, and in capitals.
    last: (Vec<u8>, String),
    has_overflowed: bool,
}

impl Counts {
    fn new(buckets: Buckets) -> Self {
        Self { buckets, by_level: BTreeMap::new(), last: Default::default(), has_overflowed: false }
    }

    /// The counts of a level in capitals.
    fn level(&mut self, level: &str) -> &mut Vec<u64> {
        let has_room =
            self.by_level.len() < limits::HISTOGRAM_LEVELS_MAX || self.by_level.contains_key(level);
        self.has_overflowed |= !has_room;
        let name = if has_room { level } else { OTHER_LEVELS };
        let count = self.buckets.count;
        self.by_level.entry(name.to_owned()).or_insert_with(|| vec![0; count])
    }

    fn into_histogram(self) -> Histogram {
        let Buckets { from_ms, to_ms, step_ms, count } = self.buckets;
        let mut columns: Vec<(String, Vec<u64>)> = self.by_level.into_iter().collect();
        columns.retain(|(_, counts)| counts.iter().any(|count| *count > 0));
        // The sort keeps the order of names where counts are the same.
        columns.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<u64>()));
        let bucket = |place: usize| {
            columns.iter().map(|(_, counts)| counts.get(place).copied().unwrap_or_default()).collect()
        };
        let buckets: Vec<Vec<u64>> = (0..count).map(bucket).collect();
        let total = buckets.iter().flatten().sum();
        let levels = columns.into_iter().map(|(level, _)| level).collect();
        Histogram { from: from_ms, to: to_ms, step: step_ms, levels, buckets, total }
    }

    /// Counts a block of which all wanted records fall into one bucket; whether they do.
    fn take_as_one(&mut self, indexed: &Indexed, filter: &Filter) -> bool {
        let (min_ms, max_ms) = indexed.groups.times_ms();
        let place = self.buckets.place(min_ms);
        if !filter.covers(min_ms, max_ms) || place != self.buckets.place(max_ms) {
            return false;
        }
        for (group, at) in indexed.block.groups.iter().zip(0..) {
            if group.records > 0 && indexed.groups.wants(at) {
                let level = indexed.names.levels().name(group.level).unwrap_or_default().to_uppercase();
                let counts = self.level(&level);
                if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                    *count += u64::from(group.records);
                }
            }
        }
        true
    }
}

impl Sink for Counts {
    fn needs_fields(&self) -> bool {
        true
    }

    fn take(&mut self, _key: Key, fields: Option<&Fields<'_>>, _line: &[u8]) {
        let Some(fields) = fields else { return };
        let raw = fields.level.map_or(&[][..], |level| level.raw);
        if self.last.0 != raw {
            let decoded = fields.level.map(|level| level.decode()).unwrap_or_default();
            self.last = (raw.to_vec(), as_text(&decoded).to_uppercase());
        }
        let place = self.buckets.place(fields.timestamp_ms);
        let name = std::mem::take(&mut self.last.1);
        if let Some(count) = place.and_then(|place| self.level(&name).get_mut(place)) {
            *count += 1;
        }
        self.last.1 = name;
    }

    fn take_block(&mut self, indexed: &Indexed, filter: &Filter, columns: &mut Columns) -> bool {
        if self.take_as_one(indexed, filter) {
            return true;
        }
        if indexed.block.read_columns(columns).is_none() {
            return false;
        }
        // First by bucket and group: a level may have several groups.
        let groups = indexed.block.groups.len();
        let mut counts = vec![0_u64; self.buckets.count * groups];
        let mut known = 0..0;
        let mut base = 0;
        for (timestamp_ms, group) in columns.timestamps_ms.iter().zip(&columns.groups) {
            if !filter.wants_time(*timestamp_ms) {
                continue;
            }
            // Records come mostly in the order of time: the last one's bucket is worth a look before a division.
            if !known.contains(timestamp_ms) {
                let Some(place) = self.buckets.place(*timestamp_ms) else { continue };
                let begin = self.buckets.from_ms + place as u64 * self.buckets.step_ms;
                known = begin..begin.saturating_add(self.buckets.step_ms);
                base = place * groups;
            }
            if let Some(count) = counts.get_mut(base + *group as usize) {
                *count += 1;
            }
        }
        for (group, at) in indexed.block.groups.iter().zip(0..) {
            if group.records == 0 || !indexed.groups.wants(at) {
                continue;
            }
            let level = indexed.names.levels().name(group.level).unwrap_or_default().to_uppercase();
            let of_group = counts.iter().skip(at as usize).step_by(groups.max(1));
            self.level(&level).iter_mut().zip(of_group).for_each(|(total, count)| *total += count);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_cut_into_buckets_that_cover_it() {
        let buckets = Buckets::new(1000, 2000, Cut::Buckets(3)).unwrap();
        assert_eq!((buckets.step_ms, buckets.count), (334, 3));
        assert_eq!(
            [999, 1000, 1333, 1334, 1999, 2000].map(|t| buckets.place(t)),
            [None, Some(0), Some(0), Some(1), Some(2), None]
        );
        assert_eq!(Buckets::new(5, 5, Cut::Buckets(3)).unwrap().count, 0);
        assert_eq!(Buckets::new(0, u64::MAX, Cut::Buckets(60)).unwrap().count, 60);
        assert!(Buckets::new(0, 1_000_000, Cut::Step(1)).is_err());
    }

    #[test]
    fn histograms_of_the_same_buckets_are_put_together() {
        let buckets = Buckets::new(0, 20, Cut::Step(10)).unwrap();
        let part = |levels: [&str; 2], counts: [[u64; 2]; 2]| Histogram {
            levels: levels.map(str::to_owned).to_vec(),
            buckets: counts.map(|bucket| bucket.to_vec()).to_vec(),
            ..Histogram::default()
        };
        let merged = Histogram::merge(
            vec![part(["A", "B"], [[1, 2], [3, 4]]), part(["B", ""], [[10, 20], [0, 5]])],
            buckets,
        );
        assert_eq!(merged.levels, ["", "B", "A"]);
        assert_eq!(merged.buckets, [[20, 12, 1], [5, 4, 3]]);
        assert_eq!((merged.total, merged.step), (45, 10));
    }
}
