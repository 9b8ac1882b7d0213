//! A history of one partition: appends and reads with their times, and whether it is one that a single log explains.
//!
//! Pure. A log is a simple thing to explain: an acknowledged batch lies at the offsets that its answer names, for ever.
//! So the check needs no search: each operation says where it was in the log's order, and time must not contradict it.
//! It holds the invariants 1 and 3 of the design. What is stored in the end is its last read; [`crate::oracle`] compares
//! that with what was sent through an ingest.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Faults that are shown of each kind.
const EXAMPLES_MAX: usize = 3;

/// What a record begins with that others wrote: nothing is known of it but that it lies where it lies.
pub const FOREIGN: &str = "~";

/// What a client did to a partition, and when by one clock for all clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Before it was sent.
    pub began: Duration,
    /// After its answer had come, or nothing more was to be expected.
    pub ended: Duration,
    /// What it was, and what came of it.
    pub event: Event,
}

/// What a client did, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A batch of records, each of which no other batch has.
    Append {
        /// The records.
        records: Vec<String>,
        /// The offset of its first one, if it was acknowledged. Else it is there once, whole, or not at all, and may come
        /// at any later time.
        offset: Option<u64>,
    },
    /// Records from an offset on.
    Read {
        /// The offset of the first one.
        from: u64,
        /// The records.
        records: Vec<String>,
        /// Whether that was all there was: the end of the log, as the node that was asked knows it.
        is_to_end: bool,
        /// Whether that node is to know of all that was acknowledged before it was asked.
        is_current: bool,
    },
}

/// All that was done to one partition.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
}

/// A kind of fault, and the cases of it.
pub type Faults = BTreeMap<&'static str, Vec<String>>;

impl History {
    /// Adds what was done. The order of these calls does not matter.
    pub fn add(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// Adds all that is there in the end, from the first offset on, after all else is over: a read that may miss nothing.
    pub fn end_with(&mut self, records: Vec<String>) {
        let last = self.operations.iter().map(|operation| operation.ended).max().unwrap_or_default();
        let now = last + Duration::from_nanos(1);
        let event = Event::Read { from: 0, records, is_to_end: true, is_current: true };
        self.add(Operation { began: now, ended: now, event });
    }

    /// How many batches were acknowledged.
    pub fn acked(&self) -> usize {
        let is_acked =
            |operation: &&Operation| matches!(operation.event, Event::Append { offset: Some(_), .. });
        self.operations.iter().filter(is_acked).count()
    }

    /// How many reads there are.
    pub fn reads(&self) -> usize {
        self.operations.iter().filter(|operation| matches!(operation.event, Event::Read { .. })).count()
    }

    /// Checks.
    ///
    /// # Panics
    /// When no single log explains it; the message tells why, with examples.
    pub fn assert_holds(&self) {
        let faults = self.faults();
        let tell = |(kind, cases): (&&str, &Vec<String>)| {
            let examples: Vec<&str> = cases.iter().take(EXAMPLES_MAX).map(String::as_str).collect();
            format!("{} {kind}:\n    {}\n", cases.len(), examples.join("\n    "))
        };
        let told: String = faults.iter().map(tell).collect();
        assert!(faults.is_empty(), "of {} operations:\n{told}", self.operations.len());
    }

    /// All faults.
    pub fn faults(&self) -> Faults {
        let mut faults = Faults::new();
        let log = self.log(&mut faults);
        self.check_batches(&log, &mut faults);
        self.check_order_of_appends(&mut faults);
        self.check_ends(&mut faults);
        faults
    }

    /// What lay at each offset, by all that tell.
    fn log(&self, faults: &mut Faults) -> BTreeMap<u64, &str> {
        let mut log = BTreeMap::new();
        for operation in &self.operations {
            let (first, records) = match &operation.event {
                Event::Append { records, offset: Some(offset) } => (*offset, records),
                Event::Read { from, records, .. } => (*from, records),
                Event::Append { offset: None, .. } => continue,
            };
            for (offset, record) in (first..).zip(records) {
                let former = *log.entry(offset).or_insert(record.as_str());
                if former != record {
                    note(faults, "two records at one offset", format!("{offset}: {former} and {record}"));
                }
            }
        }
        log
    }

    /// Each batch is there once, whole, and nothing is there that nobody sent.
    fn check_batches(&self, log: &BTreeMap<u64, &str>, faults: &mut Faults) {
        let mut places: HashMap<&str, Vec<u64>> = HashMap::new();
        for (offset, record) in log {
            places.entry(record).or_default().push(*offset);
        }
        for operation in &self.operations {
            let Event::Append { records, .. } = &operation.event else { continue };
            let mut first = None;
            for (place, record) in (0u64..).zip(records) {
                let Some(offsets) = places.remove(record.as_str()) else { continue };
                if offsets.len() > 1 {
                    note(faults, "stored twice", format!("{record} at {offsets:?}"));
                }
                // The offset that the batch's first record has by this one.
                let begins = offsets.first().and_then(|offset| offset.checked_sub(place));
                if begins.is_none() || *first.get_or_insert(begins) != begins {
                    note(faults, "a batch is not in one piece", format!("{record} at {offsets:?}"));
                }
            }
            // Nor is anything else there where one of its records would be.
            let Some(Some(begin)) = first else { continue };
            for (offset, record) in (begin..).zip(records) {
                if let Some(there) = log.get(&offset).filter(|there| *there != record) {
                    let case = format!("{there} at {offset} instead of {record}");
                    note(faults, "a batch is not in one piece", case);
                }
            }
        }
        for (record, offsets) in places.into_iter().filter(|(record, _)| !record.starts_with(FOREIGN)) {
            note(faults, "never sent", format!("{record} at {offsets:?}"));
        }
        // Between what is known of nothing is known to be missing; where a read passed over an offset it is known.
        let mut last = None;
        for offset in log.keys() {
            if last.is_some_and(|last| last + 1 != *offset) && self.was_read_over(*offset - 1) {
                note(faults, "a hole", format!("before {offset}"));
            }
            last = Some(*offset);
        }
    }

    fn was_read_over(&self, offset: u64) -> bool {
        self.operations.iter().any(|operation| match &operation.event {
            Event::Read { from, records, .. } => (*from..*from + records.len() as u64).contains(&offset),
            Event::Append { .. } => false,
        })
    }

    /// A batch that was acknowledged before another was sent lies before it.
    fn check_order_of_appends(&self, faults: &mut Faults) {
        let mut acked: Vec<(&Operation, u64, u64)> = self
            .operations
            .iter()
            .filter_map(|operation| match &operation.event {
                Event::Append { records, offset: Some(offset) } => {
                    Some((operation, *offset, *offset + records.len() as u64))
                }
                _ => None,
            })
            .collect();
        acked.sort_by_key(|(operation, ..)| operation.began);
        let mut by_end = acked.clone();
        by_end.sort_by_key(|(operation, ..)| operation.ended);
        let mut before = by_end.into_iter().peekable();
        let mut end_max = 0;
        for (operation, offset, _) in acked {
            while let Some((_, _, end)) = before.next_if(|(earlier, ..)| earlier.ended < operation.began) {
                end_max = end_max.max(end);
            }
            if offset < end_max {
                note(faults, "appended behind what was acknowledged before", format!("{offset} < {end_max}"));
            }
        }
    }

    /// What was acknowledged, or read by anybody who is current, is read by all who are current and ask after that.
    fn check_ends(&self, faults: &mut Faults) {
        let end_of = |operation: &Operation| match &operation.event {
            Event::Append { records, offset: Some(offset) } => Some(*offset + records.len() as u64),
            // Even one who is not current reads only what is committed.
            Event::Read { from, records, .. } => {
                Some(*from + records.len() as u64).filter(|_| !records.is_empty())
            }
            Event::Append { offset: None, .. } => None,
        };
        let mut known: Vec<(Duration, u64)> = self
            .operations
            .iter()
            .filter_map(|operation| Some((operation.ended, end_of(operation)?)))
            .collect();
        known.sort_unstable();
        let mut reads: Vec<&Operation> = self
            .operations
            .iter()
            .filter(|operation| {
                matches!(operation.event, Event::Read { is_to_end: true, is_current: true, .. })
            })
            .collect();
        reads.sort_by_key(|read| read.began);
        let mut known = known.into_iter().peekable();
        let mut end_min = 0;
        for read in reads {
            while let Some((_, end)) = known.next_if(|(ended, _)| *ended < read.began) {
                end_min = end_min.max(end);
            }
            let Event::Read { from, records, .. } = &read.event else { continue };
            let end = *from + records.len() as u64;
            // One who asked for what is beyond the end says nothing of what is before it.
            if *from <= end_min && end < end_min {
                note(faults, "a read of the past", format!("it ends at {end}, {end_min} was known"));
            }
        }
    }
}

fn note(faults: &mut Faults, kind: &'static str, case: String) {
    faults.entry(kind).or_default().push(case);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn texts(records: &[&str]) -> Vec<String> {
        records.iter().map(|record| (*record).to_owned()).collect()
    }

    fn append(times: (u64, u64), records: &[&str], offset: Option<u64>) -> Operation {
        let event = Event::Append { records: texts(records), offset };
        Operation { began: ms(times.0), ended: ms(times.1), event }
    }

    fn read(times: (u64, u64), from: u64, records: &[&str]) -> Operation {
        let event = Event::Read { from, records: texts(records), is_to_end: true, is_current: true };
        Operation { began: ms(times.0), ended: ms(times.1), event }
    }

    /// The kinds of faults.
    fn faults(operations: &[Operation]) -> Vec<&'static str> {
        let history = History { operations: operations.to_vec() };
        history.faults().into_keys().collect()
    }

    #[test]
    fn what_a_log_explains_has_no_faults() {
        assert_eq!(faults(&[]), [""; 0]);
        let operations = [
            append((0, 10), &["a", "b"], Some(0)),
            // At the same time: either may be first.
            append((5, 30), &["e"], Some(5)),
            append((6, 20), &["c"], Some(2)),
            // In doubt, and there after all.
            append((7, 9), &["d", "d2"], None),
            append((7, 9), &["never came"], None),
            read((8, 9), 0, &[]),
            read((12, 13), 0, &["a", "b"]),
            read((31, 32), 0, &["a", "b", "c", "d", "d2", "e"]),
            read((33, 34), 6, &[]),
            read((33, 34), 2, &["c", "d", "d2", "e"]),
        ];
        assert_eq!(faults(&operations), [""; 0]);
    }

    #[test]
    fn an_offset_names_the_same_record_for_ever() {
        let operations = [append((0, 1), &["a"], Some(0)), append((0, 1), &["b"], Some(0))];
        assert_eq!(faults(&operations), ["two records at one offset"]);
        let operations = [
            append((0, 1), &["a"], Some(0)),
            append((0, 1), &["b"], None),
            append((0, 1), &["c"], None),
            read((2, 3), 0, &["a", "b"]),
            read((4, 5), 0, &["a", "c"]),
        ];
        assert_eq!(faults(&operations), ["two records at one offset"]);
    }

    #[test]
    fn a_batch_is_there_once_and_whole() {
        let batch = append((0, 1), &["a", "b"], Some(0));
        let other = append((0, 1), &["c"], None);
        let with = |records: &[&str]| faults(&[batch.clone(), other.clone(), read((2, 3), 0, records)]);
        assert_eq!(with(&["a", "b", "c"]), [""; 0]);
        assert_eq!(with(&["a", "b", "a"]), ["stored twice"]);
        assert_eq!(with(&["a", "b", "x"]), ["never sent"]);
        assert_eq!(with(&["a", "b", "~others'"]), [""; 0]);
        let in_doubt = append((0, 1), &["a", "b"], None);
        let torn = |records: &[&str]| faults(&[in_doubt.clone(), other.clone(), read((2, 3), 0, records)]);
        assert_eq!(torn(&["a", "c", "b"]), ["a batch is not in one piece"]);
        assert_eq!(torn(&["a", "c"]), ["a batch is not in one piece"]);
        assert_eq!(torn(&["c", "a", "b"]), [""; 0]);
    }

    #[test]
    fn later_batches_lie_behind_those_that_were_acknowledged_before() {
        let first = append((0, 10), &["a"], Some(1));
        assert_eq!(
            faults(&[first.clone(), append((11, 12), &["b"], Some(0))]),
            ["appended behind what was acknowledged before"]
        );
        assert_eq!(faults(&[first, append((9, 12), &["b"], Some(0))]), [""; 0]);
    }

    #[test]
    fn who_is_current_reads_all_that_was_known_before() {
        let acked = append((0, 10), &["a"], Some(0));
        assert_eq!(faults(&[acked.clone(), read((11, 12), 0, &[])]), ["a read of the past"]);
        assert_eq!(faults(&[acked.clone(), read((9, 12), 0, &[])]), [""; 0]);
        let mut stale = read((11, 12), 0, &[]);
        if let Event::Read { is_current, .. } = &mut stale.event {
            *is_current = false;
        }
        assert_eq!(faults(&[acked, stale]), [""; 0]);
        // What one has read the next may not miss, though it was never acknowledged.
        let in_doubt = append((0, 1), &["a"], None);
        let operations = [in_doubt, read((2, 3), 0, &["a"]), read((4, 5), 0, &[])];
        assert_eq!(faults(&operations), ["a read of the past"]);
    }

    #[test]
    fn what_was_acknowledged_is_there_in_the_end() {
        let ends = |records: &[&str]| {
            let mut history = History::default();
            history.add(append((0, 10), &["a"], Some(0)));
            history.add(append((0, 12), &["b", "c"], Some(1)));
            history.end_with(texts(records));
            history.faults().into_keys().collect::<Vec<_>>()
        };
        assert_eq!(ends(&["a", "b", "c"]), [""; 0]);
        assert_eq!(ends(&["a", "b", "c", "~others'"]), [""; 0]);
        assert_eq!(ends(&["a", "b"]), ["a read of the past"]);
        assert_eq!(ends(&[]), ["a read of the past"]);
        assert_eq!(ends(&["a", "b", "c", "a"]), ["stored twice"]);
        assert_eq!(ends(&["a", "b", "~others'"]), ["two records at one offset"]);
    }
}
