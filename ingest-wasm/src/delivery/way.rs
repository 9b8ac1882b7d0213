//! The way of one batch: which node is tried next, and whether another attempt is worth making.

use std::borrow::Cow;
use std::time::Duration;

use super::backoff::Backoff;
use super::judge::Step;
use super::look::find_leader;
use super::{Delivery, Failure, FailureKind, Outcome, Patience, Try, attempt};
use crate::clock::Clock;
use crate::config::StorageNode;
use crate::context::Context;
use crate::limits;
use crate::storage::Storage;

/// A batch on its way.
pub(super) struct Way<'w, 'c, R> {
    context: &'w Context<'c, R>,
    delivery: &'w Delivery,
    patience: Patience,
    /// The node that is tried next.
    node: Cow<'c, StorageNode>,
    attempts: u32,
    /// How often another node was gone to that cost nobody an attempt.
    hops: u32,
    backoff: Backoff,
}

impl<'w, 'c, R: Storage + Clock> Way<'w, 'c, R> {
    /// A batch that begins at this node.
    pub(super) fn new(
        context: &'w Context<'c, R>,
        delivery: &'w Delivery,
        patience: Patience,
        node: Cow<'c, StorageNode>,
    ) -> Self {
        Self { context, delivery, patience, node, attempts: 1, hops: 0, backoff: Backoff::new() }
    }

    /// Goes until the batch is stored, or nothing is left to be tried.
    pub(super) async fn go(mut self) -> Outcome {
        self.await_election().await;
        self.go_on(None).await
    }

    /// The same, when this came of the first attempt.
    pub(super) async fn go_after(mut self, first: Step) -> Outcome {
        match self.take(first).await {
            Ok(failure) => self.go_on(Some(failure)).await,
            Err(outcome) => outcome,
        }
    }

    async fn go_on(mut self, mut last_failure: Option<Failure>) -> Outcome {
        loop {
            if self.time_left() < limits::ATTEMPT_TIME_MIN {
                return Outcome::Failed(
                    last_failure.unwrap_or_else(|| self.failure("no time is left for it")),
                );
            }
            let next = if self.context.instance.circuits.admits(&self.node, self.now()) {
                let step = attempt(self.context, &self.node, self.delivery, self.this()).await;
                self.take(step).await
            } else {
                let reason = "it could not be reached, and is left alone for a moment";
                let failure = last_failure.take().unwrap_or_else(|| self.failure(reason));
                self.hop(failure).await.map_err(Outcome::Failed)
            };
            match next {
                Ok(failure) => last_failure = Some(failure),
                Err(outcome) => return outcome,
            }
        }
    }

    /// Does what follows from an attempt: why it was not the last one, or what became of the batch.
    async fn take(&mut self, step: Step) -> Result<Failure, Outcome> {
        let next = match step {
            Step::Done(outcome) => return Err(self.done(outcome)),
            Step::Follow(leader) => self.follow(leader).await,
            Step::Astray(failure) => self.hop(failure).await,
            Step::Unserved(failure) => self.go_elsewhere(failure).await,
            Step::Again(failure) => self.stay(failure).await,
        };
        next.map_err(Outcome::Failed)
    }

    /// Where it is known that the partition has no leader just now, no node has to be told so by a whole batch.
    async fn await_election(&mut self) {
        let (leaders, partition) = (&self.context.instance.leaders, self.delivery.partition);
        let is_stuck = leaders.is_worth_waiting(partition, self.now());
        if is_stuck
            && leaders.learned(partition, self.now()).is_none()
            && let Some(leader) = self.find_leader().await
        {
            self.node = Cow::Owned(leader);
        }
    }

    fn done(&self, outcome: Outcome) -> Outcome {
        let (leaders, partition) = (&self.context.instance.leaders, self.delivery.partition);
        match &outcome {
            Outcome::Stored { .. } => leaders.note_stored(partition),
            // Be it that the runtime does not let it be called: whoever named it is not to be believed.
            Outcome::Failed(failure) if failure.kind == FailureKind::Unavailable => {
                leaders.note_failed(partition, &self.node, self.now());
            }
            _ => {}
        }
        outcome
    }

    /// Goes to the node that the last one named.
    async fn follow(&mut self, leader: StorageNode) -> Result<Failure, Failure> {
        let failure = self.failure(&format!("it names {leader} as the leader"));
        if leader == *self.node {
            return self.hop(failure).await;
        }
        self.context.instance.leaders.note_hint(self.delivery.partition, &leader, self.now());
        self.change_to(leader, failure)
    }

    /// Goes to the partition's leader, if that can be found out: the node is not it, or is not even tried.
    async fn hop(&mut self, failure: Failure) -> Result<Failure, Failure> {
        self.note_failed();
        match self.find_leader().await {
            Some(leader) => self.change_to(leader, failure),
            None => Err(failure),
        }
    }

    fn change_to(&mut self, leader: StorageNode, failure: Failure) -> Result<Failure, Failure> {
        if self.hops >= limits::LEADER_HOPS_MAX {
            return Err(failure);
        }
        self.hops += 1;
        self.node = Cow::Owned(leader);
        Ok(failure)
    }

    /// Tries again: another node if one leads now, else the same after a pause.
    async fn go_elsewhere(&mut self, failure: Failure) -> Result<Failure, Failure> {
        self.note_failed();
        match self.find_leader().await {
            Some(leader) if leader != *self.node => {
                if !self.may_repeat(Duration::ZERO) {
                    return Err(failure);
                }
                self.node = Cow::Owned(leader);
                Ok(failure)
            }
            _ => self.stay(failure).await,
        }
    }

    /// Tries the same node again after a pause.
    async fn stay(&mut self, failure: Failure) -> Result<Failure, Failure> {
        let wish = Duration::from_secs(failure.retry_after_s.unwrap_or_default());
        let pause = wish + self.backoff.next(self.context.chance());
        if !self.may_repeat(pause) {
            return Err(failure);
        }
        self.context.storage.pause(pause).await;
        Ok(failure)
    }

    /// Takes another attempt, if one is left.
    fn may_repeat(&mut self, pause: Duration) -> bool {
        let is_in_time = pause + limits::ATTEMPT_TIME_MIN <= self.time_left();
        let may =
            self.attempts < self.patience.attempts_max && is_in_time && self.context.instance.retries.take();
        self.attempts += u32::from(may);
        may
    }

    async fn find_leader(&self) -> Option<StorageNode> {
        let is_patient = self.patience.attempts_max > 1;
        find_leader(self.context, self.delivery.partition, &self.node, self.patience.deadline, is_patient)
            .await
    }

    fn this(&self) -> Try {
        Try { number: self.attempts, time_max: self.time_left() }
    }

    fn note_failed(&self) {
        self.context.instance.leaders.note_failed(self.delivery.partition, &self.node, self.now());
    }

    fn failure(&self, reason: &str) -> Failure {
        Failure::new(FailureKind::Unavailable, format!("{}: {reason}", self.node))
    }

    fn now(&self) -> Duration {
        self.context.storage.elapsed()
    }

    fn time_left(&self) -> Duration {
        self.patience.deadline.saturating_sub(self.now())
    }
}
