//! What a block's filter is asked: whether a message with certain literals could be in the block.
//!
//! Invariant: a block that a probe denies holds no record that passes the filter which the probe was made from.

use crate::index::{self, BlockFilter};

/// Grams of one literal that are asked for: more would tell little more.
const GRAMS_MAX: usize = 64;

/// Conditions that all have to hold for a block to be looked at. Without any, every block is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Probe {
    keys: Vec<u64>,
    grams: Vec<u32>,
    /// Of each of these, one.
    any_of: Vec<Vec<Probe>>,
}

/// Whether a literal's end is an end of a word, where the literal ends within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// More of the word may follow.
    Open,
    /// The word ends here.
    Closed,
}

impl Probe {
    /// The probe of messages that contain `literal`, in whatever case.
    pub(super) fn of_literal(literal: &str, left: Edge, right: Edge) -> Self {
        let folded = index::fold(literal);
        let bytes = folded.as_bytes();
        let mut probe = Self::default();
        index::for_each_word(bytes, 0, bytes.len(), |at, length| {
            let begins = at > 0 || left == Edge::Closed;
            let ends = at + length < bytes.len() || right == Edge::Closed;
            let word = bytes.get(at..at + length).unwrap_or_default();
            if begins && ends {
                probe.keys.push(index::word_key(bytes, at, length));
            }
            // A whole word's number says more.
            if begins
                && !ends
                && let Some(beginning) = word.first_chunk()
            {
                probe.keys.push(index::beginning_key(*beginning));
            }
            let room = GRAMS_MAX.saturating_sub(probe.grams.len());
            probe.grams.extend(word.array_windows().take(room).map(|gram| index::inner_gram(*gram)));
        });
        probe
    }

    /// The probe of one number that was put into the filter.
    pub(super) fn of_key(key: u64) -> Self {
        Self { keys: vec![key], ..Self::default() }
    }

    /// Asks for all that `other` asks for too.
    pub(super) fn and(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.grams.extend(other.grams);
        self.any_of.extend(other.any_of);
    }

    /// Asks for one of these at least.
    pub(super) fn and_any(&mut self, alternatives: Vec<Self>) {
        // One that asks for nothing makes the whole ask for nothing.
        if !alternatives.iter().any(Self::is_empty) {
            self.any_of.push(alternatives);
        }
    }

    /// Whether it asks for nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.grams.is_empty() && self.any_of.is_empty()
    }

    /// Whether a block with this filter could hold what is asked for.
    pub(super) fn may_match(&self, filter: &BlockFilter) -> bool {
        self.keys.iter().all(|key| filter.may_have_key(*key))
            && self.grams.iter().all(|gram| filter.may_have_gram(*gram))
            && self.any_of.iter().all(|alternatives| alternatives.iter().any(|probe| probe.may_match(filter)))
    }
}
