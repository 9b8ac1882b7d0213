//! What is known of every record of a run: the ground on which `--verify` judges storage.
//!
//! Kept per batch, with the exceptions per record, so that it costs next to nothing while the run is measured.

use std::collections::BTreeSet;

use crate::sender::{Ending, Outcome};

/// What may be expected of a record in storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was never sent: nothing is known of it.
    Unsent,
    /// It was acknowledged as stored: to be there once.
    Acked,
    /// It was acknowledged, and is perhaps still on its way to storage: to be there once, soon.
    Queued,
    /// It was sent, and no answer came that says what became of it: to be there once or not at all.
    InDoubt,
    /// The server said that it did not take it: not to be there.
    Rejected,
}

/// The fates of a run's records.
pub(crate) struct Ledger {
    record_count: u64,
    batch_records: u32,
    batches: Vec<Fate>,
    /// Records that were rejected from batches that were taken otherwise.
    rejected: BTreeSet<u64>,
}

impl Ledger {
    /// A ledger of `record_count` records in batches of `batch_records`, none of them sent.
    pub(crate) fn new(record_count: u64, batch_records: u32) -> Self {
        let batches = record_count.div_ceil(u64::from(batch_records));
        Self {
            record_count,
            batch_records,
            batches: vec![Fate::Unsent; usize::try_from(batches).unwrap_or(usize::MAX)],
            rejected: BTreeSet::new(),
        }
    }

    /// Enters what became of one batch.
    pub(crate) fn enter(&mut self, outcome: &Outcome) {
        let fate = outcome.fate();
        let place = usize::try_from(outcome.batch_number).ok();
        if let Some(entry) = place.and_then(|place| self.batches.get_mut(place)) {
            *entry = fate;
        }
        if let Ending::Taken(taken) = &outcome.ending
            && fate != Fate::InDoubt
        {
            let first = outcome.batch_number * u64::from(self.batch_records);
            self.rejected.extend(taken.rejected_places.iter().map(|place| first + u64::from(*place)));
        }
    }

    /// The fates of all records, in the order of the corpus.
    pub(crate) fn fates(&self) -> impl Iterator<Item = Fate> {
        (0..self.record_count).map(|record| {
            let batch = usize::try_from(record / u64::from(self.batch_records)).unwrap_or(usize::MAX);
            let fate = self.batches.get(batch).copied().unwrap_or(Fate::Unsent);
            if !self.rejected.is_empty() && self.rejected.contains(&record) { Fate::Rejected } else { fate }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::answer::Taken;

    fn outcome(batch_number: u64, ending: Ending) -> Outcome {
        let latency = Duration::ZERO;
        Outcome { batch_number, record_count: 3, body_bytes: 0, ending, latency, attempts: Vec::new() }
    }

    #[test]
    fn a_record_has_the_fate_of_its_batch_unless_it_was_rejected_by_name() {
        let mut ledger = Ledger::new(11, 3);
        let rejected_places = BTreeSet::from([1]);
        let taken = Taken { received: 2, rejected: 1, rejected_places, queued: false, first_error: None };
        ledger.enter(&outcome(1, Ending::Taken(taken)));
        ledger.enter(&outcome(3, Ending::Failed(String::new())));
        let fates: Vec<_> = ledger.fates().collect();
        assert_eq!(fates[..3], [Fate::Unsent; 3]);
        assert_eq!(fates[3..6], [Fate::Acked, Fate::Rejected, Fate::Acked]);
        assert_eq!(fates[6..9], [Fate::Unsent; 3]);
        assert_eq!(fates[9..], [Fate::InDoubt; 2]);
    }
}
