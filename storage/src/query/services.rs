//! The services there are: how many records each has, of which levels, and from when to when.
//!
//! Invariant: the counts are exact for all records that could be read in time.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::deadline::Watch;
use super::drive;
use super::filter::{Filter, as_text};
use super::key::{Direction, Key, Order};
use super::scan::Sink;
use super::stats::{Lack, Stats};
use super::units::{Indexed, Snapshot};
use crate::index::{Columns, Fields, Group};
use crate::limits;

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Its name.
    pub service: String,
    /// Its records.
    pub records: u64,
    /// The earliest record's timestamp, Unix milliseconds.
    pub first: u64,
    /// The latest record's timestamp, Unix milliseconds.
    pub last: u64,
    /// Its records of each level, in capitals; the empty one is that of records without.
    pub levels: BTreeMap<String, u64>,
}

/// Counts.
pub(super) fn services(
    snapshot: &Snapshot,
    filter: &Filter,
    watch: &Watch,
) -> (Vec<ServiceSummary>, Vec<Lack>, Stats) {
    let mut counts = Counts::default();
    let run = drive::run(snapshot, filter, Direction::Backward, Order::Time, watch, &mut counts);
    let mut lacks = run.lacks();
    if counts.has_overflowed {
        lacks.push(Lack::Names);
    }
    (counts.into_summaries(), lacks, run.stats)
}

/// Puts the counts of several nodes together, by name.
pub fn merge_services(parts: Vec<Vec<ServiceSummary>>) -> (Vec<ServiceSummary>, Vec<Lack>) {
    let mut counts = Counts::default();
    for summary in parts.into_iter().flatten() {
        for (level, records) in &summary.levels {
            counts.add(&summary.service, level, *records, summary.first, summary.last);
        }
    }
    let lacks = if counts.has_overflowed { vec![Lack::Names] } else { Vec::new() };
    (counts.into_summaries(), lacks)
}

#[derive(Default)]
struct Counts {
    by_service: HashMap<String, ServiceSummary>,
    has_overflowed: bool,
}

impl Counts {
    fn add(&mut self, service: &str, level: &str, records: u64, first_ms: u64, last_ms: u64) {
        if !self.by_service.contains_key(service) {
            if self.by_service.len() >= limits::SERVICES_COUNTED_MAX {
                self.has_overflowed = true;
                return;
            }
            let new =
                ServiceSummary { service: service.to_owned(), first: u64::MAX, ..ServiceSummary::default() };
            self.by_service.insert(service.to_owned(), new);
        }
        let Some(summary) = self.by_service.get_mut(service) else { return };
        summary.records += records;
        summary.first = summary.first.min(first_ms);
        summary.last = summary.last.max(last_ms);
        match summary.levels.get_mut(level) {
            Some(count) => *count += records,
            None => {
                summary.levels.insert(level.to_owned(), records);
            }
        }
    }

    fn add_group(&mut self, indexed: &Indexed, group: &Group) {
        let service = indexed.names.services().name(group.service).unwrap_or_default();
        let level = indexed.names.levels().name(group.level).unwrap_or_default().to_uppercase();
        self.add(service, &level, group.records.into(), group.timestamp_min_ms, group.timestamp_max_ms);
    }

    fn into_summaries(self) -> Vec<ServiceSummary> {
        let mut summaries: Vec<ServiceSummary> = self.by_service.into_values().collect();
        summaries.sort_unstable_by(|a, b| a.service.cmp(&b.service));
        summaries
    }
}

impl Sink for Counts {
    fn needs_fields(&self) -> bool {
        true
    }

    fn take(&mut self, _key: Key, fields: Option<&Fields<'_>>, _line: &[u8]) {
        let Some(fields) = fields else { return };
        let service = fields.service.decode();
        let level = fields.level.map(|level| level.decode()).unwrap_or_default();
        let (service, level) = (as_text(&service), as_text(&level).to_uppercase());
        self.add(&service, &level, 1, fields.timestamp_ms, fields.timestamp_ms);
    }

    fn take_block(&mut self, indexed: &Indexed, filter: &Filter, columns: &mut Columns) -> bool {
        let wanted = indexed.block.groups.iter().zip(0..);
        let wanted = wanted.filter(|(group, at)| group.records > 0 && indexed.groups.wants(*at));
        let (min_ms, max_ms) = indexed.groups.times_ms();
        if filter.covers(min_ms, max_ms) {
            wanted.for_each(|(group, _)| self.add_group(indexed, group));
            return true;
        }
        if indexed.block.read_columns(columns).is_none() {
            return false;
        }
        let mut found: Vec<Group> =
            indexed.block.groups.iter().map(|group| Group { records: 0, ..*group }).collect();
        for (timestamp_ms, at) in columns.timestamps_ms.iter().zip(&columns.groups) {
            if filter.wants_time(*timestamp_ms)
                && let Some(group) = found.get_mut(*at as usize)
            {
                group.add(*timestamp_ms);
            }
        }
        for (_, at) in wanted {
            if let Some(group) = found.get(at as usize).filter(|group| group.records > 0) {
                self.add_group(indexed, group);
            }
        }
        true
    }
}
