//! What a replica of a partition must never forget, and what it would be slow to find out again.
//!
//! Invariant: a vote is on the disk before anybody hears of it, and a change of the members before its entry is.

use std::collections::BTreeMap;

use model::Offset;
use serde::{Deserialize, Serialize};

use super::types::{LogId, SavedLogId, SavedMembership, SavedVote, StoredMembership, Vote};
use crate::log::{ConsumerCommit, ConsumerKey};

/// How far consumers have read.
pub(super) type Consumers = BTreeMap<ConsumerKey, Offset>;

/// The state that is kept beside the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupState {
    vote: Option<SavedVote>,
    /// Up to where the log may be deleted by retention. No other replica is served from before it.
    purged: Option<SavedLogId>,
    /// The same with a snapshot that is about to be put in place. Never written: before that is done nothing is purged.
    #[serde(skip)]
    purged_ahead: Option<SavedLogId>,
    /// Up to where the log is known to be committed: as it was when this was written, so no more than a hint.
    applied: Option<SavedLogId>,
    /// The members at that place.
    members: SavedMembership,
    /// Whether the replica lost some of what it had acknowledged: until it has it again it neither votes nor leads.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    refilling: bool,
    /// The last entry that it had when it lost some: its acknowledgement may still be on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    had: Option<SavedLogId>,
    /// Whether another log is being put in the place of this one: after a crash in the midst of it there is none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    installing: bool,
    /// How far consumers have read, as of what is applied. Applied again, entries give the same.
    #[serde(default, skip_serializing_if = "Consumers::is_empty")]
    consumers: Consumers,
    /// The members that entries of the log have set, committed or not, since what was purged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changes: Vec<SavedMembership>,
}

impl GroupState {
    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// What JSON has to say of it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// As it is written: a JSON object and a newline, for people too.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Maps with numbers for keys and plain values: there is nothing in it that JSON cannot say.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The vote.
    pub(super) fn vote(&self) -> Option<Vote> {
        self.vote.map(Vote::from)
    }

    /// Votes.
    pub(super) fn set_vote(&mut self, vote: Vote) {
        self.vote = Some(vote.into());
    }

    /// Whether the replica neither votes nor leads.
    pub(super) fn is_refilling(&self) -> bool {
        self.refilling
    }

    /// The replica has again what it had.
    pub(super) fn set_refilled(&mut self) {
        self.refilling = false;
        self.had = None;
    }

    /// Whether a log that ends with `last` has all that this says of it.
    pub(super) fn is_held_by(&self, last: Option<LogId>) -> bool {
        // A log of which all is purged may have no entry any more.
        self.purged() <= self.applied() && last.or(self.purged()) >= self.applied()
    }

    /// Whether what is applied has all that was there when the replica lost some of it, as far as that was agreed on: an
    /// entry of a later term comes after everything that was.
    pub(super) fn has_what_it_had(&self) -> bool {
        self.applied() >= self.had.map(LogId::from)
    }

    /// The replica has lost some of its log that ended with `had`, how much is not known yet; what it has promised stays.
    pub(super) fn set_lost(&mut self, had: Option<LogId>) {
        self.refilling = true;
        self.had = self.had.map(LogId::from).max(had).map(SavedLogId::from);
        // It must not take up the lead that it had.
        if let Some(vote) = &mut self.vote {
            vote.committed = false;
        }
    }

    /// The replica has lost what comes after `kept`.
    pub(super) fn set_refilling(&mut self, kept: Option<LogId>) {
        self.set_lost(self.applied());
        self.cut_changes(kept.map_or(0, |kept| kept.index + 1));
        if self.applied() > kept {
            self.applied = kept.map(SavedLogId::from);
        }
        if self.purged() > kept {
            self.purged = kept.map(SavedLogId::from);
        }
        if self.members.log_id() > self.applied() {
            self.members = SavedMembership::default();
        }
    }

    /// Whether a crash left neither the old log nor the new one.
    pub(super) fn is_installing(&self) -> bool {
        self.installing
    }

    /// Another log is about to be put in the place of this one, or there.
    pub(super) fn set_installing(&mut self, installing: bool) {
        self.installing = installing;
    }

    /// Up to where the log is purged.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.purged_ahead.or(self.purged).map(LogId::from)
    }

    /// The log will be purged up to `upto` once the snapshot that reaches there is in its place.
    pub(super) fn set_purged_ahead(&mut self, upto: LogId) {
        self.purged_ahead = Some(upto.into());
    }

    /// Whether a snapshot is about to be put in place.
    pub(super) fn is_purged_ahead(&self) -> bool {
        self.purged_ahead.is_some()
    }

    /// Purges.
    pub(super) fn set_purged(&mut self, upto: LogId) {
        self.purged_ahead = None;
        self.purged = Some(upto.into());
        self.changes.retain(|change| change.log_id().is_some_and(|at| at.index > upto.index));
    }

    /// Up to where the log is committed, as far as is known.
    pub(super) fn applied(&self) -> Option<LogId> {
        self.applied.map(LogId::from)
    }

    /// The members at that place.
    pub(super) fn members(&self) -> StoredMembership {
        self.members.stored()
    }

    /// The log is committed up to `applied`.
    pub(super) fn set_applied(&mut self, applied: LogId) {
        self.applied = Some(applied.into());
    }

    /// How far consumers have read.
    pub(super) fn consumers(&self) -> &Consumers {
        &self.consumers
    }

    /// Consumers have read further, or back; in order.
    pub(super) fn commit_offsets(&mut self, commits: &[ConsumerCommit]) {
        for ConsumerCommit { consumer, offset } in commits {
            match offset {
                Some(offset) => self.consumers.insert(*consumer, *offset),
                None => self.consumers.remove(consumer),
            };
        }
    }

    /// Another replica's, with its log.
    pub(super) fn set_consumers(&mut self, consumers: Consumers) {
        self.consumers = consumers;
    }

    /// The members at what is applied.
    pub(super) fn set_members(&mut self, members: &StoredMembership) {
        self.members = members.into();
    }

    /// An entry that sets the members is about to be written.
    pub(super) fn add_change(&mut self, change: SavedMembership) {
        // What lies there or behind was cut off, or is about to be.
        if let Some(at) = change.log_id() {
            self.cut_changes(at.index);
        }
        self.changes.push(change);
    }

    /// Entries from `index` on were cut off.
    pub(super) fn cut_changes(&mut self, index: u64) {
        self.changes.retain(|change| change.log_id().is_none_or(|at| at.index < index));
    }

    /// The members that the entry at `at` has set.
    pub(super) fn change_at(&self, at: LogId) -> Option<&SavedMembership> {
        self.changes.iter().find(|change| change.log_id() == Some(at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::types::{Member, Membership, log_id};
    use super::*;

    fn members(ids: &[u64]) -> Membership {
        let member = |id: &u64| (*id, Member { name: format!("n{id}"), ..Member::default() });
        Membership::new(
            vec![ids.iter().copied().collect()],
            ids.iter().map(member).collect::<BTreeMap<_, _>>(),
        )
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut state = GroupState::default();
        state.set_vote(Vote::new_committed(3, 1 << 63));
        state.set_applied(log_id(2, 7));
        state.set_members(&StoredMembership::new(Some(log_id(1, 0)), members(&[1, 2])));
        state.add_change(SavedMembership::of(Some(log_id(3, 9)), &members(&[1, u64::MAX])));
        let commit = |name, offset: Option<u64>| ConsumerCommit {
            consumer: ConsumerKey::of(name),
            offset: offset.map(Offset::new),
        };
        state.commit_offsets(&[commit("a", Some(3)), commit("b", Some(u64::MAX)), commit("c", Some(1))]);
        state.commit_offsets(&[commit("a", Some(2)), commit("c", None)]);
        let expected = [("a", 2), ("b", u64::MAX)].map(|(name, at)| (ConsumerKey::of(name), Offset::new(at)));
        assert_eq!(state.consumers(), &Consumers::from(expected));
        assert_eq!(GroupState::decode(&state.encode()).unwrap(), state);
        assert_eq!(state.vote(), Some(Vote::new_committed(3, 1 << 63)));
        assert_eq!(state.change_at(log_id(3, 9)).unwrap().membership(), members(&[1, u64::MAX]));
    }

    #[test]
    fn what_was_lost_is_there_again_with_the_last_entry_or_one_of_a_later_term() {
        let mut state = GroupState::default();
        state.set_applied(log_id(2, 7));
        state.set_lost(Some(log_id(2, 9)));
        state.set_refilling(Some(log_id(1, 3)));
        for (applied, has) in [((2, 7), false), ((2, 8), false), ((2, 9), true), ((3, 8), true)] {
            state.set_applied(log_id(applied.0, applied.1));
            assert_eq!(state.has_what_it_had(), has, "{applied:?}");
            let state = GroupState::decode(&state.encode()).unwrap();
            assert_eq!(state.has_what_it_had(), has, "{applied:?}, after a start");
        }
        state.set_refilled();
        state.set_applied(log_id(1, 1));
        assert!(state.has_what_it_had());
        // A log that ends before what its state says was at least that long.
        state.set_applied(log_id(4, 4));
        state.set_refilling(None);
        assert!(!state.has_what_it_had());
    }

    #[test]
    fn a_change_goes_with_its_entry() {
        let mut state = GroupState::default();
        for index in [3, 5, 8] {
            state.add_change(SavedMembership::of(Some(log_id(1, index)), &members(&[index])));
        }
        state.cut_changes(8);
        assert!(state.change_at(log_id(1, 8)).is_none() && state.change_at(log_id(1, 5)).is_some());
        // Another leader's entry in the place of one that was cut off.
        state.add_change(SavedMembership::of(Some(log_id(2, 5)), &members(&[9])));
        assert!(state.change_at(log_id(1, 5)).is_none() && state.change_at(log_id(2, 5)).is_some());
        state.set_purged(log_id(2, 5));
        assert!(state.change_at(log_id(2, 5)).is_none() && state.purged() == Some(log_id(2, 5)));
    }
}
