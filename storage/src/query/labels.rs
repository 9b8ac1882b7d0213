//! The labels that records have, and a label's values, counted over the newest records.
//!
//! Invariant: what is counted are the newest records up to a bound of bytes; beyond it the answer says so.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::deadline::Watch;
use super::drive;
use super::filter::{Filter, as_text};
use super::key::{Direction, Key, Order};
use super::scan::{Sink, Wanted};
use super::stats::{Lack, Stats};
use super::units::Snapshot;
use crate::index::{FieldReader, Fields};
use crate::limits;

/// A text and how many records have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The label's name, or its value.
    pub name: String,
    /// The records.
    pub records: u64,
}

/// Counts names, or the values of the label `of`.
pub(super) fn labels(
    snapshot: &Snapshot,
    filter: &Filter,
    of: Option<&str>,
    watch: &Watch,
) -> (Vec<Counted>, Vec<Lack>, Stats) {
    let mut counts = Counts { of, ..Counts::default() };
    let run = drive::run(snapshot, filter, Direction::Backward, Order::Time, watch, &mut counts);
    let mut lacks = run.lacks();
    if counts.bytes >= limits::LABELS_SCAN_BYTES_MAX {
        lacks.push(Lack::Scan);
    }
    if counts.has_overflowed {
        lacks.push(Lack::Names);
    }
    (most_frequent(counts.by_text, usize::MAX), lacks, run.stats)
}

/// Puts counts together, and keeps so many of the most frequent.
pub fn merge_counted(parts: Vec<Vec<Counted>>, limit: usize) -> Vec<Counted> {
    let mut by_text: HashMap<String, u64> = HashMap::new();
    for counted in parts.into_iter().flatten() {
        *by_text.entry(counted.name).or_default() += counted.records;
    }
    most_frequent(by_text, limit)
}

fn most_frequent(by_text: HashMap<String, u64>, limit: usize) -> Vec<Counted> {
    let mut counted: Vec<Counted> =
        by_text.into_iter().map(|(name, records)| Counted { name, records }).collect();
    counted.sort_unstable_by(|a, b| b.records.cmp(&a.records).then_with(|| a.name.cmp(&b.name)));
    counted.truncate(limit);
    counted
}

#[derive(Default)]
struct Counts<'q> {
    of: Option<&'q str>,
    by_text: HashMap<String, u64>,
    bytes: u64,
    has_overflowed: bool,
    reader: FieldReader,
}

impl Counts<'_> {
    fn add_fields(&mut self, fields: &Fields<'_>) {
        match self.of {
            None => {
                for (name, _) in fields.labels() {
                    self.add(&as_text(&name.decode()));
                }
            }
            Some(of) => {
                let value = fields.labels().filter(|(name, _)| *name.decode() == *of.as_bytes()).last();
                if let Some((_, value)) = value {
                    self.add(&as_text(&value.decode()));
                }
            }
        }
    }

    fn add(&mut self, text: &str) {
        if let Some(count) = self.by_text.get_mut(text) {
            *count += 1;
        } else if self.by_text.len() < limits::LABELS_COUNTED_MAX {
            self.by_text.insert(text.to_owned(), 1);
        } else {
            self.has_overflowed = true;
        }
    }
}

impl Sink for Counts<'_> {
    fn wants(&self, _key: Key) -> Wanted {
        if self.bytes < limits::LABELS_SCAN_BYTES_MAX { Wanted::Yes } else { Wanted::NoMore }
    }

    fn take(&mut self, _key: Key, fields: Option<&Fields<'_>>, line: &[u8]) {
        self.bytes += line.len() as u64;
        match fields {
            Some(fields) => self.add_fields(fields),
            None => {
                let mut reader = std::mem::take(&mut self.reader);
                if let Some(fields) = reader.fields_of(line) {
                    self.add_fields(&fields);
                }
                self.reader = reader;
            }
        }
    }
}
