//! The actor's loop: take all that waits, append, sync, publish, answer; maintain the log in between.
//!
//! Invariant: `published ≤ flushed ≤ written`, and an answer follows its batch's publication. After a failed sync
//! nothing is written any more: the page cache may have dropped what the disk refused.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::Offset;
use tokio::time::Instant;

use super::dedup::HotBatches;
use super::message::{AppendError, Message, Pending};
use super::queue::Queue;
use super::replicated::EarlyEntries;
use super::round::Round;
use crate::clock::unix_now_ms;
use crate::limits;
use crate::log::{LogError, PartitionLog};
use crate::metrics::PartitionMetrics;

/// The one writer of a partition's log.
pub(super) struct Actor {
    pub(super) log: PartitionLog,
    inbox: Receiver<Message>,
    pub(super) queue: Arc<Queue>,
    pub(super) hot: HotBatches,
    stopped: Arc<OnceLock<Arc<str>>>,
    pub(super) metrics: PartitionMetrics,
    maintain_at: Instant,
    /// With replication: entries that come after a log that is about to be put in the place of this one.
    pub(super) early: Option<EarlyEntries>,
}

impl Actor {
    pub(super) fn new(
        log: PartitionLog,
        inbox: Receiver<Message>,
        queue: Arc<Queue>,
        stopped: Arc<OnceLock<Arc<str>>>,
        metrics: PartitionMetrics,
    ) -> Self {
        let hot = HotBatches::new(limits::HOT_BATCH_IDS_MAX, log.recent_batches(limits::HOT_BATCH_IDS_MAX));
        let maintain_at = Instant::now() + limits::MAINTENANCE_INTERVAL;
        Self { log, inbox, queue, hot, stopped, metrics, maintain_at, early: None }
    }

    /// Works until it is told to close, then closes the log.
    pub(super) fn run(mut self) -> Result<(), LogError> {
        let mut round = Round::default();
        // Dropped before the round is: those who wait for it hear why.
        let _guard = PanicGuard::new(Arc::clone(&self.stopped));
        loop {
            let first = self.inbox.recv_timeout(self.wait());
            if self.turn(first, &mut round).is_break() {
                return self.close();
            }
        }
    }

    /// Does what came, with all that waits behind it, and what is due.
    pub(super) fn turn(
        &mut self,
        first: Result<Message, RecvTimeoutError>,
        round: &mut Round,
    ) -> ControlFlow<()> {
        match first {
            Ok(Message::Append(pending)) => self.commit_all_waiting(*pending, round)?,
            Ok(Message::Replicated(work)) => self.replicate(*work),
            Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        self.sync_if_due();
        if Instant::now() >= self.maintain_at {
            self.maintain();
        }
        ControlFlow::Continue(())
    }

    /// Closes the log.
    pub(super) fn close(self) -> Result<(), LogError> {
        self.log.close()
    }

    /// What has come, without waiting for it.
    #[cfg(test)]
    pub(super) fn try_next(&self) -> Result<Message, std::sync::mpsc::TryRecvError> {
        self.inbox.try_recv()
    }

    /// How long nothing is to be done, unless a message comes.
    pub(super) fn wait(&self) -> Duration {
        let until_maintenance = self.maintain_at.saturating_duration_since(Instant::now());
        let until_sync = self.log.time_to_sync(unix_now_ms()).unwrap_or(Duration::MAX);
        until_maintenance.min(until_sync)
    }

    /// Takes `first` and all that waits behind it, as far as one round goes, and commits them together.
    fn commit_all_waiting(&mut self, first: Pending, round: &mut Round) -> ControlFlow<()> {
        let now_ms = unix_now_ms();
        let mut flow = ControlFlow::Continue(());
        let mut next = Some(first);
        while let Some(pending) = next.take() {
            round.add(pending, now_ms, |id| match self.hot.get(id) {
                Some(known) => Ok(Some(*known)),
                None => self.log.find_batch(id).map_err(|error| refusal(&error)),
            });
            if round.new_bytes() >= limits::ROUND_BYTES_MAX {
                break;
            }
            match self.inbox.try_recv() {
                Ok(Message::Append(pending)) => next = Some(*pending),
                // A log is replicated or not: it gets messages of one kind.
                Ok(Message::Replicated(work)) => self.replicate(*work),
                Ok(Message::Close) => flow = ControlFlow::Break(()),
                // Empty, or nobody can send any more: the round is what it is.
                Err(_) => {}
            }
        }
        self.commit(round);
        flow
    }

    /// Writes, syncs and publishes a round, then answers it.
    fn commit(&mut self, round: &mut Round) {
        if round.is_empty() {
            return;
        }
        if round.new_batches().is_empty() {
            return round.answer(Ok(Vec::new()));
        }
        let started = Instant::now();
        let outcome = self.write(round);
        match &outcome {
            Ok(offsets) => {
                for known in round.stored(offsets) {
                    self.metrics.note_stored(known.record_count);
                    self.hot.insert(known);
                }
                self.metrics.note_round(round.new_batches().len(), round.new_bytes());
                self.queue.note_drained(round.new_bytes(), started.elapsed());
            }
            Err(AppendError::Stopped { reason }) => self.note_stopped(reason),
            Err(_) => {}
        }
        round.answer(outcome);
    }

    /// Appends a round's new batches and makes them durable and readable.
    fn write(&mut self, round: &Round) -> Result<Vec<Offset>, AppendError> {
        let offsets = self.log.append(round.new_batches()).map_err(|error| refusal(&error))?;
        let sync_started = Instant::now();
        let flushed_end = self.log.sync().map_err(|error| refusal(&error))?;
        self.metrics.note_sync(sync_started.elapsed());
        // Without replication what is flushed here is committed.
        self.log.publish(flushed_end);
        Ok(offsets)
    }

    /// Syncs what was answered without a sync, once its interval is over.
    fn sync_if_due(&mut self) {
        let now_ms = unix_now_ms();
        if self.log.time_to_sync(now_ms).is_some_and(|time| time.is_zero())
            && let Err(error) = self.log.sync_if_due(now_ms)
        {
            self.note_failed(&error);
        }
    }

    /// Rolls, retains and compresses what is due. Where there is more to compress it goes on soon, but leaves most of
    /// the time to appends.
    fn maintain(&mut self) {
        let started = Instant::now();
        let maintained = self.log.maintain(unix_now_ms());
        let pause = match maintained {
            Ok(report) => {
                if report.more {
                    started.elapsed() * limits::MAINTENANCE_PAUSES
                } else {
                    limits::MAINTENANCE_INTERVAL
                }
            }
            Err(error) => {
                self.note_failed(&error);
                limits::MAINTENANCE_INTERVAL
            }
        };
        self.maintain_at = Instant::now() + pause;
    }

    /// Says that the log could not do what nobody waits for.
    pub(super) fn note_failed(&self, error: &LogError) {
        match refusal(error) {
            AppendError::Stopped { reason } => self.note_stopped(&reason),
            _ => tracing::warn!(%error, "the log could not be maintained; it is tried again"),
        }
    }

    /// Remembers why the log takes no more writes, for good.
    fn note_stopped(&self, reason: &Arc<str>) {
        if self.stopped.set(Arc::clone(reason)).is_ok() {
            tracing::error!(%reason, "the partition takes no more writes until the node is restarted");
        }
    }
}

/// Says that the partition takes no more writes when its thread panics: nobody else is there to say it.
pub(super) struct PanicGuard(Arc<OnceLock<Arc<str>>>);

impl PanicGuard {
    pub(super) fn new(stopped: Arc<OnceLock<Arc<str>>>) -> Self {
        Self(stopped)
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.get_or_init(|| Arc::from("its thread panicked"));
        }
    }
}

/// What a failure of the log means for the batches that waited for it.
pub(super) fn refusal(error: &LogError) -> AppendError {
    match error {
        LogError::DiskFull => AppendError::DiskFull,
        LogError::Stopped { .. } => AppendError::Stopped { reason: Arc::from(error.to_string()) },
        _ => AppendError::Failed { reason: Arc::from(error.to_string()) },
    }
}
