//! How long a replica still waits for a leader before it stands for election.
//!
//! Pure but for the clock. Invariant: of replicas that stand again and again, one whose log is behind gives way to one
//! whose log is not. The library refuses a shorter log before it looks at the candidate's term, so that the voter learns
//! of that term only by standing itself: without giving way the one would outrun the other for ever.

use std::time::Duration;

use openraft::raft::{VoteRequest, VoteResponse};
use tokio::time::Instant;

use super::identity::HexId;
use super::timing::Timing;
use super::types::NodeId;

/// How long a replica still waits.
#[derive(Debug)]
pub(super) struct Patience {
    timing: Timing,
    since: Instant,
    wait: Duration,
    /// When a leader was heard, a vote was given, or the replica stood itself.
    renewed: Instant,
    /// Whether it gives way to one whose log is longer.
    gives_way: bool,
}

impl Patience {
    /// That of a replica that has just begun.
    pub(super) fn new(timing: Timing) -> Self {
        let now = Instant::now();
        let wait = timing.election_wait(HexId::random().0);
        Self { timing, since: now, wait, renewed: now, gives_way: false }
    }

    /// A leader was heard, a candidate was given the vote, or the replica stands itself.
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.timing);
    }

    /// Another replica did not give its vote, for which it was asked then.
    pub(super) fn note_refused(
        &mut self,
        asked: Instant,
        request: &VoteRequest<NodeId>,
        response: &VoteResponse<NodeId>,
    ) {
        // A leader was heard since, or another has the vote: an answer that comes late must not unseat it.
        if self.renewed > asked {
            return;
        }
        let is_behind = response.last_log_id > request.last_log_id;
        if self.gives_way && !is_behind {
            return;
        }
        let wait = if is_behind {
            self.timing.election_wait(HexId::random().0) + self.timing.election_wait(HexId::random().0)
        } else if response.vote.committed {
            // Somebody leads, and will be heard.
            return;
        } else if response.vote.leader_id.term > request.vote.leader_id.term {
            // It has the term now, and nothing else is against it.
            self.timing.second_try_wait(HexId::random().0)
        } else if response.vote.leader_id.term == request.vote.leader_id.term {
            // The other stood too, or gave its vote to one that did: who of them leads is heard of soon, or nobody does.
            self.timing.split_wait(HexId::random().0)
        } else {
            return;
        };
        *self = Self { since: Instant::now(), wait, gives_way: is_behind, ..*self };
    }

    /// Whether it is time to stand.
    pub(super) fn is_over(&self) -> bool {
        self.since.elapsed() >= self.wait
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, LogId, Vote};

    use super::*;

    const ELECTION: Duration = Duration::from_secs(1);

    fn last(index: u64) -> Option<LogId<NodeId>> {
        Some(LogId::new(CommittedLeaderId::new(1, 0), index))
    }

    /// How long one waits that stood in term 4 with 10 entries, and was refused by one with so many, of that term.
    fn wait_after(term: u64, entries: u64) -> Duration {
        let mut patience = Patience::new(Timing::new(ELECTION));
        let request = VoteRequest::new(Vote::new(4, 1), last(10));
        let response = VoteResponse::new(Vote::new(term, 2), last(entries), false);
        patience.note_refused(Instant::now(), &request, &response);
        patience.wait
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_comes_late_takes_nothing_from_a_leader_that_was_heard_since() {
        let mut patience = Patience::new(Timing::new(ELECTION));
        let request = VoteRequest::new(Vote::new(4, 1), last(10));
        let split = VoteResponse::new(Vote::new(4, 2), last(10), false);
        let asked = Instant::now();
        tokio::time::advance(ELECTION / 10).await;
        patience.renew();
        let wait = patience.wait;
        patience.note_refused(asked, &request, &split);
        assert_eq!(patience.wait, wait);
        let led = VoteResponse::new(Vote::new_committed(4, 2), last(10), false);
        patience.note_refused(Instant::now(), &request, &led);
        assert_eq!(patience.wait, wait, "somebody leads");
        patience.note_refused(Instant::now(), &request, &VoteResponse::new(Vote::new(4, 2), last(11), false));
        patience.note_refused(Instant::now(), &request, &split);
        assert!(patience.wait >= ELECTION * 2, "it is behind one of them: {:?}", patience.wait);
    }

    #[test]
    fn who_is_behind_gives_way_and_who_is_only_late_or_was_not_alone_stands_again_soon() {
        for _ in 0..100 {
            // The other has heard its leader a moment ago.
            let usual = wait_after(3, 10);
            let (behind, late, split) = (wait_after(4, 11), wait_after(5, 9), wait_after(4, 10));
            assert!(usual >= ELECTION && usual < ELECTION * 2, "{usual:?}");
            assert!(behind >= ELECTION * 2, "{behind:?}");
            assert!(late < ELECTION / 2, "{late:?}");
            assert!(split < ELECTION * 7 / 10, "votes were split: {split:?}");
            assert!(wait_after(9, 11) >= ELECTION * 2, "to be behind is what counts");
        }
    }
}
