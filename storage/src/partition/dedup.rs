//! The batches that were written last, by id: the window in which nearly all retries fall.
//!
//! Invariant: only batches whose sync succeeded are in it. Older ids are the log's to find.

use std::collections::{HashMap, VecDeque};

use model::{BatchDigest, BatchId};

use crate::log::KnownBatch;

/// A bounded map from batch id to what was stored under it; the oldest leave first.
#[derive(Debug)]
pub(super) struct HotBatches {
    by_id: HashMap<BatchId, KnownBatch>,
    oldest_first: VecDeque<BatchId>,
    capacity: usize,
}

/// What an id and a digest say of a batch that is known under that id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repetition {
    /// The same batch: the first answer is given again.
    Same,
    /// Other content under the same id.
    Conflict,
}

impl Repetition {
    /// Compares what is known with what was sent.
    pub(super) fn of(known: BatchDigest, sent: BatchDigest) -> Self {
        if known == sent { Self::Same } else { Self::Conflict }
    }
}

impl HotBatches {
    /// A window of `capacity` batches that holds the newest of `recent`, which has the newest last.
    pub(super) fn new(capacity: usize, recent: Vec<KnownBatch>) -> Self {
        let mut hot = Self { by_id: HashMap::new(), oldest_first: VecDeque::new(), capacity };
        for batch in recent {
            hot.insert(batch);
        }
        hot
    }

    /// The batch that was stored under `id`, if it is among the newest.
    pub(super) fn get(&self, id: BatchId) -> Option<&KnownBatch> {
        self.by_id.get(&id)
    }

    /// Adds a batch that is flushed.
    pub(super) fn insert(&mut self, batch: KnownBatch) {
        let id = batch.id;
        if self.by_id.insert(id, batch).is_some() {
            return;
        }
        self.oldest_first.push_back(id);
        if self.oldest_first.len() > self.capacity
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Offset;

    use super::*;

    fn batch(number: u8) -> KnownBatch {
        KnownBatch {
            id: BatchId::from_bytes([number; 16]),
            digest: BatchDigest::from_u64(number.into()),
            base_offset: Offset::new(number.into()),
            record_count: 1,
        }
    }

    #[test]
    fn the_oldest_leave_first_and_the_window_is_bounded() {
        let mut hot = HotBatches::new(2, vec![batch(1), batch(2)]);
        hot.insert(batch(3));
        assert!(hot.get(batch(1).id).is_none());
        assert!(hot.get(batch(2).id).is_some() && hot.get(batch(3).id).is_some());
        assert_eq!(hot.by_id.len(), hot.oldest_first.len());
    }

    #[test]
    fn a_batch_that_is_known_already_takes_no_second_place() {
        let mut hot = HotBatches::new(2, vec![batch(1), batch(1), batch(2)]);
        hot.insert(batch(2));
        assert!(hot.get(batch(1).id).is_some());
        assert_eq!(hot.oldest_first.len(), 2);
    }
}
