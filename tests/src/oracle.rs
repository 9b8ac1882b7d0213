//! What was acknowledged, compared with what is stored.
//!
//! Pure: ledgers and stored records in, faults out. It holds the invariants 1 and 4 of the design, and that nothing
//! is stored that was never sent, in another form or in another partition.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::Record;

use crate::cluster::Stored;
use crate::records;

/// Faults that are shown of each kind.
const EXAMPLES_MAX: usize = 3;

/// What became of a batch, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The ingest answers for it: it is there once.
    Acked,
    /// Nothing certain is known: each partition's part is there once or not at all.
    InDoubt,
    /// The ingest refused it: it is not there.
    Refused,
}

/// What one connection sent, in order.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    batches: Vec<(Vec<Record>, Fate)>,
}

impl Ledger {
    /// Notes a batch of records that a [`records::RecordSource`] made, and its fate.
    pub fn note(&mut self, records: Vec<Record>, fate: Fate) {
        self.batches.push((records, fate));
    }

    /// How many records have this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.batches.iter().filter(|(_, its)| *its == fate).map(|(records, _)| records.len()).sum()
    }
}

/// What all connections sent.
#[derive(Debug, Default)]
pub struct Oracle {
    /// By connection and place: the record, its batch and that batch's fate.
    sent: HashMap<(u32, u64), Sent>,
    partitions: u16,
}

#[derive(Debug)]
struct Sent {
    record: Record,
    batch: usize,
    fate: Fate,
}

/// A kind of fault, and the records that have it.
pub type Faults = BTreeMap<&'static str, Vec<String>>;

impl Oracle {
    /// An oracle for a cluster of so many partitions that was sent this.
    ///
    /// # Panics
    /// When two records have the same origin.
    pub fn new(partitions: u16, ledgers: Vec<Ledger>) -> Self {
        let mut oracle = Self { sent: HashMap::new(), partitions };
        let batches = ledgers.into_iter().flat_map(|ledger| ledger.batches);
        for (batch, (records, fate)) in batches.enumerate() {
            for record in records {
                let origin = records::origin(&record.message).expect("a record of a source");
                let former = oracle.sent.insert(origin, Sent { record, batch, fate });
                assert!(former.is_none(), "{origin:?} was made twice");
            }
        }
        oracle
    }

    /// How many records have this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.sent.values().filter(|sent| sent.fate == fate).count()
    }

    /// Compares.
    ///
    /// # Panics
    /// When anything is not as it has to be; the message tells what, with examples.
    pub fn assert_holds(&self, stored: &Stored) {
        self.assert_none(&self.faults(stored));
    }

    /// As [`Self::assert_holds`], where retention deletes the oldest records: of what a connection sent to a partition
    /// the first may be gone, and nothing behind anything that is there.
    ///
    /// # Panics
    /// As there.
    pub fn assert_holds_the_newest(&self, stored: &Stored) {
        self.assert_none(&self.faults_among_the_newest(stored));
    }

    fn assert_none(&self, faults: &Faults) {
        let tell = |(kind, cases): (&&str, &Vec<String>)| {
            let examples: Vec<&str> = cases.iter().take(EXAMPLES_MAX).map(String::as_str).collect();
            format!("{} {kind}:\n    {}\n", cases.len(), examples.join("\n    "))
        };
        let told: String = faults.iter().map(tell).collect();
        let acked = self.count(Fate::Acked);
        assert!(
            faults.is_empty(),
            "of {} records ({acked} acked), in what is stored:\n{told}",
            self.sent.len()
        );
    }

    /// All faults.
    pub fn faults(&self, stored: &Stored) -> Faults {
        self.faults_but(stored, |_origin, _record| false)
    }

    fn faults_among_the_newest(&self, stored: &Stored) -> Faults {
        let mut oldest: HashMap<(u16, u32), u64> = HashMap::new();
        for (partition, records) in stored {
            for (connection, place) in records.iter().filter_map(|record| records::origin(&record.message)) {
                let first = oldest.entry((*partition, connection)).or_insert(place);
                *first = place.min(*first);
            }
        }
        self.faults_but(stored, |(connection, place), record| {
            let partition = records::partition_of(&record.service, self.partitions);
            oldest.get(&(partition, connection)).is_none_or(|first| place < *first)
        })
    }

    /// All faults, where records may be gone of which `may_be_gone` says so.
    fn faults_but(&self, stored: &Stored, may_be_gone: impl Fn((u32, u64), &Record) -> bool) -> Faults {
        let mut faults = Faults::new();
        let mut note = |kind, text: String| faults.entry(kind).or_default().push(text);
        let mut seen = HashSet::new();
        for (partition, records) in stored {
            let mut last_place = HashMap::new();
            for enriched in records {
                let record = enriched.clone().into_record();
                let origin = records::origin(&record.message);
                let Some((origin, sent)) = origin.and_then(|origin| Some((origin, self.sent.get(&origin)?)))
                else {
                    note("never sent", format!("{record:?}"));
                    continue;
                };
                if !seen.insert(origin) {
                    note("stored twice", format!("{record:?}"));
                    continue;
                }
                if sent.record != record {
                    note("altered", format!("{record:?} was {:?}", sent.record));
                }
                if records::partition_of(&record.service, self.partitions) != *partition {
                    note("in the wrong partition", format!("{record:?} in {partition}"));
                }
                let (connection, place) = origin;
                match sent.fate {
                    Fate::Refused => note("refused and yet stored", format!("{record:?}")),
                    Fate::InDoubt => {}
                    Fate::Acked => {
                        if last_place.insert(connection, place).is_some_and(|last| last > place) {
                            note("out of order", format!("{record:?}"));
                        }
                    }
                }
            }
        }
        let is_missing = |origin: &(u32, u64), sent: &Sent| {
            sent.fate == Fate::Acked && !seen.contains(origin) && !may_be_gone(*origin, &sent.record)
        };
        for (_, sent) in self.sent.iter().filter(|(origin, sent)| is_missing(origin, sent)) {
            note("acked and missing", format!("{:?}", sent.record));
        }
        for part in self.torn_parts(&seen) {
            note("stored in part", part);
        }
        faults
    }

    /// The parts of batches, each of one partition, that are neither whole nor absent. (An acked one's missing
    /// records are named for themselves already.)
    fn torn_parts(&self, seen: &HashSet<(u32, u64)>) -> Vec<String> {
        let mut parts: BTreeMap<(usize, u16), (usize, usize)> = BTreeMap::new();
        for (origin, sent) in self.sent.iter().filter(|(_, sent)| sent.fate == Fate::InDoubt) {
            let partition = records::partition_of(&sent.record.service, self.partitions);
            let (stored, all) = parts.entry((sent.batch, partition)).or_default();
            *stored += usize::from(seen.contains(origin));
            *all += 1;
        }
        let torn = parts.into_iter().filter(|(_, (stored, all))| *stored != 0 && stored != all);
        torn.map(|((batch, partition), (stored, all))| {
            format!("{stored} of {all} records of batch {batch} in partition {partition}")
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use model::EnrichedRecord;

    use super::*;
    use crate::records::{RecordSource, partition_of};

    const PARTITIONS: u16 = 4;

    /// Three batches of each fate, one after another, as one connection sends them.
    fn ledger() -> Ledger {
        let mut source = RecordSource::new(7, 1);
        let mut ledger = Ledger::default();
        for fate in [Fate::Acked, Fate::InDoubt, Fate::Refused].repeat(3) {
            ledger.note(source.batch(20), fate);
        }
        ledger
    }

    /// What is stored if every batch that is not refused is.
    fn stored(ledger: &Ledger) -> Stored {
        let mut stored = Stored::new();
        for (records, _) in ledger.batches.iter().filter(|(_, fate)| *fate != Fate::Refused) {
            for record in records.clone() {
                stored.entry(partition_of(&record.service, PARTITIONS)).or_default().push(enriched(record));
            }
        }
        stored
    }

    fn enriched(record: Record) -> EnrichedRecord {
        let Record { timestamp, service, level, message, labels } = record;
        let (ingested_node_id, client_ip) = ("n".to_owned(), "127.0.0.1".to_owned());
        EnrichedRecord {
            timestamp,
            service,
            level,
            message,
            labels,
            received_at: 1,
            ingested_node_id,
            client_ip,
        }
    }

    /// The kinds of faults after `change`, each with its number of cases.
    fn faults_after(change: impl FnOnce(&mut Stored)) -> Vec<(&'static str, usize)> {
        let ledger = ledger();
        let mut stored = stored(&ledger);
        change(&mut stored);
        let faults = Oracle::new(PARTITIONS, vec![ledger]).faults(&stored);
        faults.into_iter().map(|(kind, cases)| (kind, cases.len())).collect()
    }

    #[test]
    fn a_faithful_log_has_no_faults_and_so_has_one_without_the_batches_in_doubt() {
        assert_eq!(faults_after(|_| {}), []);
        let in_doubt: HashSet<_> =
            ledger().batches[1].0.iter().map(|record| record.message.clone()).collect();
        let without = |stored: &mut Stored| {
            stored
                .values_mut()
                .for_each(|records| records.retain(|record| !in_doubt.contains(&record.message)));
        };
        assert_eq!(faults_after(without), []);
    }

    #[test]
    fn retention_may_take_the_first_and_nothing_behind_them() {
        let ledger = ledger();
        let faults = |stored: &Stored| {
            let faults = Oracle::new(PARTITIONS, vec![ledger.clone()]).faults_among_the_newest(stored);
            faults.into_iter().map(|(kind, cases)| (kind, cases.len())).collect::<Vec<_>>()
        };
        let mut stored = stored(&ledger);
        // A whole batch's worth, for the second one is in doubt.
        let first: HashSet<_> = ledger.batches[0].0.iter().map(|record| record.message.clone()).collect();
        let records = stored.get_mut(&0).unwrap();
        records.retain(|record| !first.contains(&record.message));
        assert_eq!(faults(&stored), []);
        let last = ledger.batches.iter().rfind(|(_, fate)| *fate == Fate::Acked).unwrap().0.clone();
        let is_of_last = |message: &str| last.iter().any(|record| record.message == message);
        let records = stored.get_mut(&0).unwrap();
        let place = records.iter().position(|record| is_of_last(&record.message)).unwrap();
        records.remove(place);
        assert_eq!(faults(&stored), [("acked and missing", 1)]);
    }

    #[test]
    fn each_fault_is_found_and_named() {
        let first = |stored: &mut Stored| stored[&0][0].clone();
        assert_eq!(
            faults_after(|stored| drop(stored.get_mut(&0).unwrap().remove(0))),
            [("acked and missing", 1)]
        );
        let twice = |stored: &mut Stored| {
            let record = first(stored);
            stored.get_mut(&0).unwrap().push(record);
        };
        assert_eq!(faults_after(twice), [("stored twice", 1)]);
        let altered = |stored: &mut Stored| stored.get_mut(&0).unwrap()[0].message.push('!');
        assert_eq!(faults_after(altered), [("altered", 1)]);
        let misplaced = |stored: &mut Stored| {
            let record = stored.get_mut(&0).unwrap().remove(0);
            stored.get_mut(&1).unwrap().insert(0, record);
        };
        let faults = faults_after(misplaced);
        assert!(faults.contains(&("in the wrong partition", 1)), "{faults:?}");
        let swapped = |stored: &mut Stored| stored.get_mut(&0).unwrap().swap(0, 1);
        assert_eq!(faults_after(swapped), [("out of order", 1)]);
        let foreign = |stored: &mut Stored| stored.get_mut(&0).unwrap()[0].message = "9:9: x".to_owned();
        assert_eq!(faults_after(foreign), [("acked and missing", 1), ("never sent", 1)]);
        let refused = |stored: &mut Stored| {
            let record = ledger().batches[2].0[0].clone();
            stored.get_mut(&partition_of(&record.service, PARTITIONS)).unwrap().push(enriched(record));
        };
        assert_eq!(faults_after(refused), [("refused and yet stored", 1)]);
        let torn = |stored: &mut Stored| {
            let record = &ledger().batches[1].0[0];
            let records = stored.get_mut(&partition_of(&record.service, PARTITIONS)).unwrap();
            records.retain(|stored| stored.message != record.message);
        };
        assert_eq!(faults_after(torn), [("stored in part", 1)]);
    }
}
