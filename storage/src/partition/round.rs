//! One group commit's plan: which of the waiting batches are new, and which repeat something.
//!
//! Invariant: every batch of the round gets exactly one answer, in the order of arrival. Pure: the log is asked
//! through a closure, and nothing is written here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use model::wire::Durability;
use model::{BatchId, Offset};

use super::dedup::Repetition;
use super::message::{AppendError, Appended, Pending};
use crate::log::{KnownBatch, NewBatch};

/// The waiting batches, each with what is to become of it.
#[derive(Debug, Default)]
pub(super) struct Round {
    planned: Vec<(Pending, Plan)>,
    new: Vec<NewBatch>,
    new_bytes: usize,
    by_id: HashMap<BatchId, usize>,
}

/// What is to become of a waiting batch.
#[derive(Debug)]
enum Plan {
    /// It is the round's new batch of this place.
    New(usize),
    /// It has the id of the round's new batch of this place, and shares its outcome.
    Repeats(usize, Repetition),
    /// It is answered whatever the write's outcome.
    Answered(Result<Appended, AppendError>),
}

impl Round {
    /// Adds a batch that waits. `find` looks an id up among the batches that are flushed.
    pub(super) fn add(
        &mut self,
        pending: Pending,
        now_ms: u64,
        find: impl FnOnce(BatchId) -> Result<Option<KnownBatch>, AppendError>,
    ) {
        let append = &pending.append;
        let known = if append.id_is_new { Ok(None) } else { find(append.id) };
        let plan = match known {
            Err(error) => Plan::Answered(Err(error)),
            Ok(Some(known)) => {
                Plan::Answered(answer_of_known(&known, Repetition::of(known.digest, append.digest)))
            }
            Ok(None) => match self.by_id.entry(append.id) {
                Entry::Occupied(place) => {
                    let place = *place.get();
                    let first = self.new.get(place).map_or(append.digest, |first| first.digest);
                    Plan::Repeats(place, Repetition::of(first, append.digest))
                }
                Entry::Vacant(vacant) => {
                    let place = *vacant.insert(self.new.len());
                    self.new_bytes += append.batch.bytes().len();
                    self.new.push(NewBatch {
                        batch: append.batch.clone(),
                        id: append.id,
                        digest: append.digest,
                        appended_at_ms: now_ms,
                        term: 0,
                        log_index: 0,
                    });
                    Plan::New(place)
                }
            },
        };
        self.planned.push((pending, plan));
    }

    /// The batches to append, in order of arrival.
    pub(super) fn new_batches(&self) -> &[NewBatch] {
        &self.new
    }

    /// The bytes of the batches to append.
    pub(super) fn new_bytes(&self) -> usize {
        self.new_bytes
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }

    /// What is stored now, given where each new batch was.
    pub(super) fn stored<'a>(&'a self, offsets: &'a [Offset]) -> impl Iterator<Item = KnownBatch> + 'a {
        self.new.iter().zip(offsets).map(|(new, base_offset)| KnownBatch {
            id: new.id,
            digest: new.digest,
            base_offset: *base_offset,
            record_count: new.batch.record_count(),
        })
    }

    /// Answers every batch of the round, in order of arrival: `outcome` is where each new batch was stored, or why
    /// none was. Leaves the round empty.
    pub(super) fn answer(&mut self, outcome: Result<Vec<Offset>, AppendError>) {
        self.settle(outcome, |pending, answer| pending.answer(answer));
    }

    /// Hands every batch of the round to `each` with its answer, in order of arrival. Leaves the round empty.
    pub(super) fn settle(
        &mut self,
        outcome: Result<Vec<Offset>, AppendError>,
        mut each: impl FnMut(Pending, Result<Appended, AppendError>),
    ) {
        let stored: Result<Vec<KnownBatch>, AppendError> =
            outcome.map(|offsets| self.stored(&offsets).collect());
        for (pending, plan) in self.planned.drain(..) {
            let answer = match plan {
                Plan::Answered(answer) => answer,
                Plan::New(place) => answer_of_place(&stored, place, Repetition::Same),
                Plan::Repeats(place, repetition) => answer_of_place(&stored, place, repetition),
            };
            each(pending, answer);
        }
        self.new.clear();
        self.new_bytes = 0;
        self.by_id.clear();
    }
}

fn answer_of_place(
    stored: &Result<Vec<KnownBatch>, AppendError>,
    place: usize,
    repetition: Repetition,
) -> Result<Appended, AppendError> {
    let stored = stored.as_ref().map_err(Clone::clone)?;
    let known = stored.get(place).ok_or_else(|| AppendError::Failed {
        reason: Arc::from("the log gave fewer offsets than it was given batches"),
    })?;
    answer_of_known(known, repetition)
}

fn answer_of_known(known: &KnownBatch, repetition: Repetition) -> Result<Appended, AppendError> {
    match repetition {
        Repetition::Same => Ok(Appended {
            base_offset: known.base_offset,
            record_count: known.record_count,
            durability: Durability::Leader,
        }),
        Repetition::Conflict => Err(AppendError::Conflict),
    }
}
