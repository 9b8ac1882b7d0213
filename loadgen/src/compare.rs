//! Compares what a run was told with what storage holds.
//!
//! Pure: fates and stored lines go in, faults come out. Records are known by a 128-bit digest of their canonical JSON
//! text, about 30 bytes of memory each; lines of other writers are counted and otherwise ignored. This module must
//! not know how the lines are read.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use model::{EnrichedRecord, Partition};
use xxhash_rust::xxh3::xxh3_128;

use crate::ledger::Fate;
use crate::limits::EXAMPLES_MAX;
use crate::report::shorten;

/// A record's identity: the XXH3-128 digest of its canonical JSON text, as sent. Bytes and not a number, which would
/// be aligned to 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RecordKey([u8; 16]);

impl RecordKey {
    /// The identity of the record with this canonical text.
    pub(crate) fn of(text: &[u8]) -> Self {
        Self(xxh3_128(text).to_le_bytes())
    }
}

/// What matters of one stored line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredLine {
    key: RecordKey,
    timestamp_ms: u64,
    is_enriched: bool,
}

impl StoredLine {
    /// Reads a stored line.
    ///
    /// # Errors
    /// The line is not an enriched record.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let enriched: EnrichedRecord = serde_json::from_slice(line)?;
        let is_enriched = enriched.received_at > 0
            && !enriched.ingested_node_id.is_empty()
            && !enriched.client_ip.is_empty();
        let timestamp_ms = enriched.timestamp;
        let text = serde_json::to_vec(&enriched.into_record())?;
        Ok(Self { key: RecordKey::of(&text), timestamp_ms, is_enriched })
    }
}

/// What is wrong with a record in storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Missing,
    Doubled,
    Unexpected,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Unexpected => "stored although rejected",
        })
    }
}

#[derive(Clone, Copy)]
struct Entry {
    fate: Fate,
    copies: u8,
}

impl Entry {
    fn fault(self) -> Option<Fault> {
        match (self.fate, self.copies) {
            (Fate::Acked | Fate::Queued, 0) => Some(Fault::Missing),
            (Fate::Rejected, 1..) => Some(Fault::Unexpected),
            (Fate::Acked | Fate::Queued | Fate::InDoubt, 2..) => Some(Fault::Doubled),
            _ => None,
        }
    }
}

/// A comparison under way.
pub(crate) struct Comparison {
    entries: HashMap<RecordKey, Entry>,
    acked_unseen: u64,
    /// The timestamp of the newest acknowledged record of each partition; `None` when order is not compared.
    newest_ms: Option<BTreeMap<Partition, u64>>,
    result: Verification,
}

/// The result of a comparison. All but the first three are faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Verification {
    /// Records that were acknowledged.
    pub(crate) acked: u64,
    /// Records of which it is not known whether they were taken, and which are stored.
    pub(crate) in_doubt_stored: u64,
    /// Lines of other writers.
    pub(crate) foreign: u64,
    /// Acknowledged records that are not stored.
    pub(crate) missing: u64,
    /// Records that are stored more than once.
    pub(crate) doubled: u64,
    /// Records that are stored although the server said that it rejected them.
    pub(crate) unexpected: u64,
    /// Acknowledged records that stand after a later one in their partition. Always 0 with several connections.
    pub(crate) out_of_order: u64,
    /// Stored records that lack the time, the node or the address that the ingest adds.
    pub(crate) unenriched: u64,
    /// Stored lines that are no records.
    pub(crate) malformed: u64,
    /// The first faults of each kind.
    pub(crate) examples: Vec<String>,
}

impl Verification {
    /// Whether storage holds what it should.
    pub(crate) fn is_ok(&self) -> bool {
        let Self { missing, doubled, unexpected, out_of_order, unenriched, malformed, .. } = self;
        [missing, doubled, unexpected, out_of_order, unenriched, malformed]
            .into_iter()
            .all(|faults| *faults == 0)
    }

    fn note(&mut self, nth: u64, kind: &str, what: &str) {
        if nth <= EXAMPLES_MAX as u64 {
            self.examples.push(format!("{kind}: {}", shorten(what)));
        }
    }
}

impl Comparison {
    /// A comparison that expects nothing yet. Whether records must stand in the order of their timestamps is for the
    /// caller to say: they do when they were sent one batch after another.
    pub(crate) fn new(record_count: usize, compares_order: bool) -> Self {
        Self {
            entries: HashMap::with_capacity(record_count),
            acked_unseen: 0,
            newest_ms: compares_order.then(BTreeMap::new),
            result: Verification::default(),
        }
    }

    /// Expects the record with this canonical text to have met this fate.
    pub(crate) fn expect(&mut self, text: &[u8], fate: Fate) {
        if fate == Fate::Unsent {
            return;
        }
        if matches!(fate, Fate::Acked | Fate::Queued) {
            self.acked_unseen += 1;
            self.result.acked += 1;
        }
        self.entries.insert(RecordKey::of(text), Entry { fate, copies: 0 });
    }

    /// How many acknowledged records have not been seen yet.
    pub(crate) fn acked_unseen(&self) -> u64 {
        self.acked_unseen
    }

    /// Takes in a stored line.
    pub(crate) fn see(&mut self, partition: Partition, line: StoredLine) {
        let Some(entry) = self.entries.get_mut(&line.key) else {
            self.result.foreign += 1;
            return;
        };
        entry.copies = entry.copies.saturating_add(1);
        let Entry { fate, copies } = *entry;
        if copies == 1 {
            match fate {
                Fate::Acked | Fate::Queued => self.acked_unseen -= 1,
                Fate::InDoubt => self.result.in_doubt_stored += 1,
                Fate::Unsent | Fate::Rejected => {}
            }
        }
        if !line.is_enriched {
            self.result.unenriched += 1;
            let what = format!("timestamp {} in partition {partition}", line.timestamp_ms);
            self.result.note(self.result.unenriched, "unenriched", &what);
        }
        // A record that came late by way of the edge, or a second copy, says nothing of the order of the others.
        if fate == Fate::Acked && copies == 1 {
            self.compare_order(partition, line.timestamp_ms);
        }
    }

    /// Takes in a stored line that is no record.
    pub(crate) fn see_malformed(&mut self, partition: Partition, line: &str) {
        self.result.malformed += 1;
        self.result.note(self.result.malformed, "malformed", &format!("partition {partition}: {line}"));
    }

    /// Judges, once all lines were seen. `texts` are all records of the corpus again, for the examples: the
    /// comparison itself keeps only their digests.
    pub(crate) fn finish(self, mut texts: impl FnMut(&mut Vec<u8>) -> bool) -> Verification {
        let mut result = self.result;
        for entry in self.entries.values() {
            match entry.fault() {
                Some(Fault::Missing) => result.missing += 1,
                Some(Fault::Doubled) => result.doubled += 1,
                Some(Fault::Unexpected) => result.unexpected += 1,
                None => {}
            }
        }
        let examples_max = EXAMPLES_MAX as u64;
        let mut lacking = [
            (Fault::Missing, result.missing.min(examples_max)),
            (Fault::Doubled, result.doubled.min(examples_max)),
            (Fault::Unexpected, result.unexpected.min(examples_max)),
        ];
        let mut text = Vec::new();
        while lacking.iter().any(|(_, left)| *left > 0) && texts(&mut text) {
            let fault = self.entries.get(&RecordKey::of(&text)).and_then(|entry| entry.fault());
            for (kind, left) in &mut lacking {
                if Some(*kind) == fault && *left > 0 {
                    *left -= 1;
                    result.examples.push(format!("{kind}: {}", shorten(&String::from_utf8_lossy(&text))));
                }
            }
            text.clear();
        }
        result
    }

    fn compare_order(&mut self, partition: Partition, timestamp_ms: u64) {
        let Some(newest_ms) = &mut self.newest_ms else { return };
        let newest = newest_ms.entry(partition).or_insert(timestamp_ms);
        if timestamp_ms < *newest {
            self.result.out_of_order += 1;
            let what = format!("timestamp {timestamp_ms} after {newest} in partition {partition}");
            self.result.note(self.result.out_of_order, "out of order", &what);
        } else {
            *newest = timestamp_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(timestamp: u64) -> Vec<u8> {
        format!(r#"{{"timestamp":{timestamp},"service":"s","message":"m \"1\"","labels":{{"a":"b"}}}}"#)
            .into_bytes()
    }

    fn stored(timestamp: u64) -> StoredLine {
        let line = format!(
            r#"{{"received_at":9,"timestamp":{timestamp},"labels":{{"a":"b"}},"service":"s","message":"m \u00221\"","ingested_node_id":"n","client_ip":"unknown"}}"#
        );
        StoredLine::parse(line.as_bytes()).unwrap()
    }

    /// Compares records, given by timestamp and fate, with those stored in partition 0, given by timestamp.
    fn compare(expected: &[(u64, Fate)], seen: &[u64]) -> Verification {
        let mut comparison = Comparison::new(expected.len(), true);
        for (timestamp, fate) in expected {
            comparison.expect(&text(*timestamp), *fate);
        }
        for timestamp in seen {
            comparison.see(Partition::new(0), stored(*timestamp));
        }
        let mut texts = expected.iter().map(|(timestamp, _)| text(*timestamp));
        comparison.finish(|out| texts.next().map(|text| *out = text).is_some())
    }

    #[test]
    fn every_acked_record_stored_once_is_right() {
        let got = compare(&[(1, Fate::Acked), (2, Fate::Queued), (3, Fate::Acked)], &[1, 3, 2]);
        assert!(got.is_ok(), "{got:?}");
        assert_eq!(got, Verification { acked: 3, ..Verification::default() });
    }

    #[test]
    fn an_acked_record_that_is_not_stored_is_missing() {
        let got = compare(&[(1, Fate::Acked), (2, Fate::Acked), (3, Fate::Queued)], &[1]);
        assert!(!got.is_ok());
        assert_eq!((got.acked, got.missing), (3, 2));
        assert_eq!(got.examples[0], format!("missing: {}", String::from_utf8(text(2)).unwrap()));
    }

    #[test]
    fn a_record_that_is_stored_twice_is_doubled_once() {
        let got = compare(&[(1, Fate::Acked), (2, Fate::InDoubt)], &[1, 1, 1, 2, 2]);
        assert!(!got.is_ok());
        assert_eq!((got.doubled, got.missing, got.out_of_order), (2, 0, 0));
        assert_eq!(got.examples.len(), 2);
    }

    #[test]
    fn a_record_in_doubt_may_be_stored_or_not() {
        let got = compare(&[(1, Fate::InDoubt), (2, Fate::InDoubt)], &[2]);
        assert!(got.is_ok(), "{got:?}");
        assert_eq!((got.acked, got.in_doubt_stored), (0, 1));
    }

    #[test]
    fn a_rejected_record_must_not_be_stored() {
        assert!(compare(&[(1, Fate::Rejected)], &[]).is_ok());
        let got = compare(&[(1, Fate::Rejected)], &[1]);
        assert_eq!((got.is_ok(), got.unexpected), (false, 1));
    }

    #[test]
    fn other_writers_records_are_ignored_and_so_are_ours_that_were_never_sent() {
        let got = compare(&[(1, Fate::Acked), (2, Fate::Unsent)], &[7, 1, 2, 7]);
        assert!(got.is_ok(), "{got:?}");
        assert_eq!(got.foreign, 3);
    }

    #[test]
    fn acked_records_of_one_connection_stand_in_order_in_each_partition() {
        let acked = [1, 2, 3].map(|timestamp| (timestamp, Fate::Acked));
        let got = compare(&acked, &[2, 1, 3]);
        assert_eq!((got.is_ok(), got.out_of_order), (false, 1));
        assert_eq!(got.examples, ["out of order: timestamp 1 after 2 in partition 0"]);

        let mut comparison = Comparison::new(3, true);
        acked.iter().for_each(|(timestamp, fate)| comparison.expect(&text(*timestamp), *fate));
        for (partition, timestamp) in [(0, 2), (0, 3), (1, 1)] {
            comparison.see(Partition::new(partition), stored(timestamp));
        }
        assert_eq!(comparison.finish(|_| false).out_of_order, 0);
    }

    #[test]
    fn order_is_not_compared_unless_asked() {
        let mut comparison = Comparison::new(2, false);
        [1, 2].iter().for_each(|timestamp| comparison.expect(&text(*timestamp), Fate::Acked));
        [2, 1].iter().for_each(|timestamp| comparison.see(Partition::new(0), stored(*timestamp)));
        assert!(comparison.finish(|_| false).is_ok());
    }

    #[test]
    fn what_the_ingest_adds_must_be_there() {
        let line = br#"{"timestamp":1,"service":"s","message":"m","received_at":0,"ingested_node_id":"","client_ip":""}"#;
        let mut comparison = Comparison::new(1, true);
        comparison.expect(br#"{"timestamp":1,"service":"s","message":"m"}"#, Fate::Acked);
        comparison.see(Partition::new(0), StoredLine::parse(line).unwrap());
        let got = comparison.finish(|_| false);
        assert_eq!((got.is_ok(), got.unenriched, got.missing), (false, 1, 0));
        assert!(StoredLine::parse(br#"{"timestamp":1,"service":"s","message":"m"}"#).is_err());
    }

    #[test]
    fn another_content_is_another_record() {
        let mut comparison = Comparison::new(1, true);
        comparison
            .expect(&String::from_utf8(text(1)).unwrap().replace("\"b\"", "\"c\"").into_bytes(), Fate::Acked);
        comparison.see(Partition::new(0), stored(1));
        let got = comparison.finish(|_| false);
        assert_eq!((got.missing, got.foreign), (1, 1));
    }

    #[test]
    fn a_line_that_is_no_record_is_a_fault() {
        let mut comparison = Comparison::new(0, true);
        comparison.see_malformed(Partition::new(3), "{\"timest");
        let got = comparison.finish(|_| false);
        assert_eq!((got.is_ok(), got.malformed), (false, 1));
        assert_eq!(got.examples, ["malformed: partition 3: {\"timest"]);
    }

    #[test]
    fn a_report_names_the_first_five_of_each_fault() {
        let expected: Vec<_> = (1..=20).map(|timestamp| (timestamp, Fate::Acked)).collect();
        let seen: Vec<_> = (11..=20).chain(11..=20).collect();
        let got = compare(&expected, &seen);
        assert_eq!((got.missing, got.doubled), (10, 10));
        assert_eq!(got.examples.len(), 10);
    }
}
