//! Reads that miss nothing: before one is served, the leader makes sure that it still leads.
//!
//! A leader that was cut off does not know that another has followed it. It asks a majority whether they follow it still,
//! and waits until all is applied that was agreed on when it asked (ReadIndex).
//!
//! Invariants: a read is served only after a question that was asked after the read came; however many reads wait, one
//! question is under way. The waiting is bounded in time, those who wait by their connections. Must not know what is read.

use std::sync::Arc;

use openraft::error::{CheckIsLeaderError, Fatal, RaftError};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::group::Group;
use super::timing::Timing;
use super::types::{LogId, Member, NodeId, Raft, Vote};

/// Why a replica cannot say that it knows of all that is agreed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another replica leads the partition, or none does just now.
    #[error("this node does not lead the partition")]
    NotLeader {
        /// The URL of the one that leads, where that is known.
        leader: Option<Arc<str>>,
    },
    /// Too few replicas say that this one still leads.
    #[error("too few replicas of the partition answer")]
    NoQuorum,
    /// The replica works no more.
    #[error("the replica has ended: {reason}")]
    Stopped {
        /// What happened.
        reason: Arc<str>,
    },
}

/// What came of a question.
type Outcome = Result<(), ReadError>;

/// The questions of one replica. Cheap to clone.
#[derive(Clone)]
pub(super) struct ReadIndex {
    raft: Raft,
    timing: Timing,
    resumed: Option<Resumed>,
    turns: Turns,
}

/// A lead that a replica takes up again that was restarted without another having followed it. The library then asks
/// for what it knows to be agreed on, which after a restart is less than it was: of the log that was found all may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    /// The vote by which it leads.
    vote: Vote,
    /// Where the log that was found ends.
    last: LogId,
}

/// Who waits for which question.
#[derive(Clone, Debug, Default)]
struct Turns(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// Whether a question is under way.
    is_asking: bool,
    /// Who came since it was asked: the next one is theirs.
    next: Vec<oneshot::Sender<Outcome>>,
}

impl ReadIndex {
    pub(super) fn new(raft: Raft, timing: Timing, resumed: Option<Resumed>) -> Self {
        Self { raft, timing, resumed, turns: Turns::default() }
    }

    /// Returns once this replica is known to lead, with all applied that was agreed on at the time of the call.
    async fn confirm(&self) -> Outcome {
        let index = self.clone();
        self.turns
            .take(move || {
                let index = index.clone();
                async move { index.ask().await }
            })
            .await
    }

    async fn ask(&self) -> Outcome {
        let deadline = Instant::now() + self.timing.read_wait_max();
        loop {
            let Ok(asked) = timeout_at(deadline, self.ask_once()).await else {
                return Err(ReadError::NoQuorum);
            };
            let pause = self.timing.tick();
            match asked {
                Ok(_) => return Ok(()),
                // One request that was late is no sign yet.
                Err(error) if is_quorum_missing(&error) && Instant::now() + pause < deadline => {
                    sleep(pause).await;
                }
                Err(error) => return Err(refusal(&error)),
            }
        }
    }

    async fn ask_once(&self) -> Result<(), LeaderError> {
        // Votes only rise: one that is over now is over for this question.
        let vote = self.raft.metrics().borrow().vote;
        self.raft.ensure_linearizable().await?;
        if let Some(resumed) = self.resumed.filter(|resumed| resumed.vote == vote) {
            let wait = self.raft.wait(None);
            let applied = wait.applied_index_at_least(Some(resumed.last.index), "a resumed lead").await;
            applied.map_err(|_ended| RaftError::Fatal(Fatal::Stopped))?;
        }
        Ok(())
    }
}

impl Resumed {
    /// That of `node`, with what its log was found to hold.
    pub(super) fn of(node: NodeId, vote: Option<Vote>, last: Option<LogId>) -> Option<Self> {
        let (vote, last) = vote.zip(last)?;
        (vote.committed && vote.leader_id.voted_for == Some(node)).then_some(Self { vote, last })
    }
}

impl Turns {
    /// Waits for the answer to a question that is asked after this call.
    async fn take<F>(&self, ask: impl Fn() -> F + Send + 'static) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let must_ask = {
            let mut waiting = self.0.lock();
            waiting.next.push(answer);
            !std::mem::replace(&mut waiting.is_asking, true)
        };
        if must_ask {
            // Not by this read, which may be broken off while others wait for its answer.
            tokio::spawn(self.clone().ask_for_all(ask));
        }
        let gone = |_| ReadError::Stopped { reason: Arc::from("the question was broken off") };
        answered.await.unwrap_or_else(|error| Err(gone(error)))
    }

    /// Asks for all that wait, again and again until none does.
    async fn ask_for_all<F: Future<Output = Outcome> + Send + 'static>(
        self,
        ask: impl Fn() -> F + Send + 'static,
    ) {
        let _asking = Asking(self.clone());
        loop {
            let served = {
                let mut waiting = self.0.lock();
                let mut served = std::mem::take(&mut waiting.next);
                served.retain(|answer| !answer.is_closed());
                waiting.is_asking = !served.is_empty();
                served
            };
            if served.is_empty() {
                return;
            }
            let outcome = ask().await;
            // Who has gone hears nothing.
            served.into_iter().for_each(|answer| drop(answer.send(outcome.clone())));
        }
    }
}

/// That questions are asked. A question that ends the task takes along all who wait, and the next read asks for itself.
struct Asking(Turns);

impl Drop for Asking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut waiting = self.0.0.lock();
            waiting.is_asking = false;
            waiting.next.clear();
        }
    }
}

type LeaderError = RaftError<NodeId, CheckIsLeaderError<NodeId, Member>>;

fn is_quorum_missing(error: &LeaderError) -> bool {
    matches!(error, RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))
}

fn refusal(error: &LeaderError) -> ReadError {
    match error {
        RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_)) => ReadError::NotLeader { leader: None },
        RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)) => ReadError::NoQuorum,
        RaftError::Fatal(fatal) => ReadError::Stopped { reason: fatal.to_string().into() },
    }
}

impl Group {
    /// Returns once this replica is known to lead still, and all that was agreed on before the call may be read here.
    ///
    /// # Errors
    /// When it does not lead, or not enough replicas say so in time.
    pub async fn confirm_leadership(&self) -> Result<(), ReadError> {
        if !self.leads() {
            return Err(ReadError::NotLeader { leader: self.leader_url() });
        }
        if self.is_out_of_touch() {
            return Err(ReadError::NoQuorum);
        }
        self.shared.reads.confirm().await.map_err(|error| match error {
            ReadError::NotLeader { leader: None } => ReadError::NotLeader { leader: self.leader_url() },
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::poll;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_read_waits_for_a_question_that_is_asked_after_it_and_shares_it_with_others() {
        let turns = Turns::default();
        let (asked, mut questions) = mpsc::channel(4);
        let ask = move || {
            let (answer, answered) = oneshot::channel();
            asked.try_send(answer).unwrap();
            async move { answered.await.unwrap() }
        };
        let mut first = Box::pin(turns.take(ask.clone()));
        assert!(poll!(&mut first).is_pending());
        let question: oneshot::Sender<Outcome> = questions.recv().await.unwrap();
        // While it is under way others come, and one of them goes again.
        let mut later: Vec<_> = (0..3).map(|_| Box::pin(turns.take(ask.clone()))).collect();
        for read in &mut later {
            assert!(poll!(read).is_pending());
        }
        later.pop();
        question.send(Ok(())).unwrap();
        assert_eq!(first.await, Ok(()));
        let question = questions.recv().await.unwrap();
        for read in &mut later {
            assert!(poll!(read).is_pending(), "it was asked before the read came");
        }
        question.send(Err(ReadError::NoQuorum)).unwrap();
        for read in later {
            assert_eq!(read.await, Err(ReadError::NoQuorum));
        }
        assert_eq!(questions.len(), 0, "one question for both");
        // Nobody waits any more; the next one asks for itself.
        let mut last = Box::pin(turns.take(ask));
        assert_eq!(poll!(&mut last), Poll::Pending);
        questions.recv().await.unwrap().send(Ok(())).unwrap();
        assert_eq!(last.await, Ok(()));
    }

    #[tokio::test]
    async fn a_question_that_ends_its_task_does_not_end_all_later_reads() {
        let turns = Turns::default();
        let (asked, mut questions) = mpsc::channel(1);
        let broken = move || {
            let (answer, answered) = oneshot::channel::<Outcome>();
            asked.try_send(answer).unwrap();
            async move { answered.await.expect("what nobody thought of") }
        };
        let mut first = Box::pin(turns.take(broken.clone()));
        assert!(poll!(&mut first).is_pending());
        let question = questions.recv().await.unwrap();
        let mut second = Box::pin(turns.take(broken));
        assert!(poll!(&mut second).is_pending());
        drop(question);
        assert!(matches!(first.await, Err(ReadError::Stopped { .. })));
        assert!(matches!(second.await, Err(ReadError::Stopped { .. })));
        assert_eq!(turns.take(|| async { Ok(()) }).await, Ok(()));
    }
}
