//! What replication asks of a partition's actor: entries to append, to cut off, to remember.
//!
//! A leader's entry is made here: the batches that wait are looked up, those that are stored already get their first
//! answer again, and the rest become the entry. So the log itself decides what is new, at the moment that it is
//! written, whatever happened between the batch's arrival and its entry's turn.
//!
//! Invariant: an answer from here follows the sync. Must not know how replicas agree.

use std::sync::Arc;

use model::Offset;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::actor::{Actor, refusal};
use super::dedup::HotBatches;
use super::inbox::Inbox;
use super::message::{AppendError, Appended, Message, Pending};
use super::round::Round;
use crate::clock::unix_now_ms;
use crate::limits;
use crate::log::{
    ConsumerCommit, EntryContent, EntryExtent, KnownBatch, LogError, Manifest, NewBatch, NewEntry,
};

/// An entry of the replicated log.
#[derive(Debug)]
pub struct LogEntry {
    /// Its place, from 1.
    pub log_index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// What it holds.
    pub content: LogContent,
}

impl LogEntry {
    /// The same entries, if none of them holds records.
    pub fn without_records(entries: &[Self]) -> Option<Vec<Self>> {
        let same = |Self { log_index, term, content }: &Self| {
            let content = match content {
                LogContent::Blank => LogContent::Blank,
                LogContent::Membership => LogContent::Membership,
                LogContent::Consumer(commit) => LogContent::Consumer(*commit),
                LogContent::Batches { .. } | LogContent::Proposed(_) => return None,
            };
            Some(Self { log_index: *log_index, term: *term, content })
        };
        entries.iter().map(same).collect()
    }
}

/// What an entry holds.
#[derive(Debug)]
pub enum LogContent {
    /// Nothing.
    Blank,
    /// A change of the members.
    Membership,
    /// How far a consumer has read.
    Consumer(ConsumerCommit),
    /// Batches, as a leader has stored them.
    Batches {
        /// The offset of their first record there.
        base_offset: Offset,
        /// The batches.
        batches: Vec<NewBatch>,
    },
    /// Batches that wait on this node, the leader.
    Proposed(Proposal),
}

/// Batches that wait to become an entry. Taken once, by the actor; or taken back.
#[derive(Clone, Debug)]
pub struct Proposal(Arc<Mutex<Option<Proposed>>>);

#[derive(Debug)]
struct Proposed {
    waiting: Vec<Pending>,
    settled: oneshot::Sender<Vec<Settled>>,
}

/// A batch of a proposal, and its answer once the entry is agreed on.
#[derive(Debug)]
pub struct Settled {
    /// The batch.
    pub pending: Pending,
    /// Where it is stored on this node's disk, or why it is not.
    pub answer: Result<Appended, AppendError>,
}

/// What the actor is asked for.
#[derive(Debug)]
pub(super) enum Replicated {
    Append {
        entries: Vec<LogEntry>,
        /// Whether they may follow a log that is about to be put in the place of this one.
        after_install: bool,
        done: oneshot::Sender<Result<Vec<EntryExtent>, LogError>>,
    },
    Truncate {
        from: u64,
        done: oneshot::Sender<Result<(), LogError>>,
    },
    Purge {
        upto: u64,
        state: Vec<u8>,
        done: oneshot::Sender<Result<(), LogError>>,
    },
    SaveState {
        state: Vec<u8>,
        done: oneshot::Sender<Result<(), LogError>>,
    },
    Install {
        manifest: Manifest,
        upto: u64,
        before: Vec<u8>,
        after: Vec<u8>,
        done: oneshot::Sender<Result<(), LogError>>,
    },
}

/// The way to a replicated log's actor.
#[derive(Clone, Debug)]
pub struct LogAccess {
    inbox: Inbox,
}

impl Proposal {
    /// Batches that wait, and where their answers come from.
    pub fn new(waiting: Vec<Pending>) -> (Self, oneshot::Receiver<Vec<Settled>>) {
        let (settled, answers) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(Proposed { waiting, settled })))), answers)
    }

    /// Takes the batches back, if they have not come to the log.
    pub fn take_back(&self) -> Vec<Pending> {
        self.take().map(|proposed| proposed.waiting).unwrap_or_default()
    }

    fn take(&self) -> Option<Proposed> {
        self.0.lock().take()
    }
}

impl LogAccess {
    pub(super) fn new(inbox: Inbox) -> Self {
        Self { inbox }
    }

    /// Appends entries and syncs them. With `after_install` they wait, if they do not follow what is there, for
    /// [`Self::install`], which has to be called then.
    ///
    /// # Errors
    /// The log's. After an error none of them is there.
    pub async fn append(
        &self,
        entries: Vec<LogEntry>,
        after_install: bool,
    ) -> Result<Vec<EntryExtent>, LogError> {
        self.ask(|done| Replicated::Append { entries, after_install, done }).await
    }

    /// Cuts entries off from `from` on.
    ///
    /// # Errors
    /// The log's.
    pub async fn truncate(&self, from: u64) -> Result<(), LogError> {
        self.ask(|done| Replicated::Truncate { from, done }).await
    }

    /// Lets retention delete entries up to `upto`, after `state` is remembered. States are written in the order of the
    /// calls: who has to keep them in order calls this while nobody else can, and awaits the answer later.
    ///
    /// # Errors
    /// The log's.
    pub fn purge(&self, upto: u64, state: Vec<u8>) -> impl Future<Output = Result<(), LogError>> + use<> {
        self.ask(move |done| Replicated::Purge { upto, state, done })
    }

    /// Remembers the replica's state, in the order of the calls as [`Self::purge`] does.
    ///
    /// # Errors
    /// The log's.
    pub fn save_state(&self, state: Vec<u8>) -> impl Future<Output = Result<(), LogError>> + use<> {
        self.ask(|done| Replicated::SaveState { state, done })
    }

    /// Puts staged segments, up to entry `upto`, in the place of the log: `before` is remembered before, `after` after
    /// it; in the order of the calls as [`Self::purge`] does. All that was there counts as purged.
    ///
    /// # Errors
    /// The log's; it takes nothing more then.
    pub fn install(
        &self,
        manifest: Manifest,
        upto: u64,
        before: Vec<u8>,
        after: Vec<u8>,
    ) -> impl Future<Output = Result<(), LogError>> + use<> {
        self.ask(move |done| Replicated::Install { manifest, upto, before, after, done })
    }

    fn ask<T, F: FnOnce(oneshot::Sender<Result<T, LogError>>) -> Replicated>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T, LogError>> + use<T, F> {
        let (done, answer) = oneshot::channel();
        let sent = self.inbox.send(Message::Replicated(Box::new(work(done))));
        async move {
            let gone = || LogError::Stopped { cause: Arc::from("the partition's thread has ended") };
            sent.map_err(|_gone| gone())?;
            answer.await.unwrap_or_else(|_gone| Err(gone()))
        }
    }
}

impl Actor {
    /// Does one thing that replication asks for. Who asked may have gone; then nobody hears of it.
    pub(super) fn replicate(&mut self, work: Replicated) {
        match work {
            Replicated::Append { entries, after_install, done } => {
                match self.check_next(&entries, after_install) {
                    Ok(()) => {
                        done.send(self.append_entries(entries)).ok();
                    }
                    // The library sends what follows a snapshot without waiting for it to be put in place.
                    Err(_) if after_install => self.early = Some(EarlyEntries { entries, done }),
                    Err(error) => {
                        done.send(self.noting(Err(error))).ok();
                    }
                }
            }
            Replicated::Truncate { from, done } => {
                let outcome = self.log.truncate_from(from);
                self.hot = HotBatches::new(
                    limits::HOT_BATCH_IDS_MAX,
                    self.log.recent_batches(limits::HOT_BATCH_IDS_MAX),
                );
                done.send(self.noting(outcome)).ok();
            }
            Replicated::Purge { upto, state, done } => {
                let saved = self.log.write_group_state(&state);
                if saved.is_ok() {
                    self.log.purge_upto(upto);
                }
                done.send(self.noting(saved)).ok();
            }
            Replicated::SaveState { state, done } => {
                let saved = self.log.write_group_state(&state);
                done.send(self.noting(saved)).ok();
            }
            Replicated::Install { manifest, upto, before, after, done } => {
                let installed = self.log.write_group_state(&before);
                let installed = installed.and_then(|()| self.log.replace_by_staged(&manifest));
                let installed = installed.and_then(|()| self.log.write_group_state(&after));
                self.log.purge_upto(upto);
                self.hot = HotBatches::new(
                    limits::HOT_BATCH_IDS_MAX,
                    self.log.recent_batches(limits::HOT_BATCH_IDS_MAX),
                );
                let installed = self.noting(installed);
                done.send(installed.clone()).ok();
                if let Some(EarlyEntries { entries, done }) = self.early.take() {
                    let next = installed.and_then(|()| self.check_next(&entries, true));
                    let appended = next.and_then(|()| self.append_entries(entries));
                    done.send(self.noting(appended)).ok();
                }
            }
        }
    }

    /// Whether the first of the entries follows the last that is there, or what was purged.
    fn check_next(&self, entries: &[LogEntry], after_install: bool) -> Result<(), LogError> {
        let Some(first) = entries.first() else { return Ok(()) };
        let last_index = self.log.last_index();
        let last = last_index.unwrap_or(0).max(self.log.purged());
        // An empty log begins where its group says, unless another is about to be put in its place.
        let may_begin = last_index.is_none() && !after_install;
        if may_begin || first.log_index == last + 1 {
            Ok(())
        } else {
            Err(LogError::NoEntry { log_index: last + 1 })
        }
    }

    /// Whether the leader has stored the entries at the offsets at which they are about to be stored here.
    fn check_offsets(&self, entries: &[LogEntry]) -> Result<(), LogError> {
        let mut next = self.log.written_end();
        for LogEntry { log_index, content, .. } in entries {
            let LogContent::Batches { base_offset, batches } = content else { continue };
            if *base_offset != next {
                return Err(LogError::OtherOffset { log_index: *log_index, offset: *base_offset, next });
            }
            next = next.plus(batches.iter().map(|new| u64::from(new.batch.record_count())).sum());
        }
        Ok(())
    }

    fn append_entries(&mut self, entries: Vec<LogEntry>) -> Result<Vec<EntryExtent>, LogError> {
        let is_proposal = |entry: &&LogEntry| matches!(entry.content, LogContent::Proposed(_));
        if entries.len() > 1 && entries.iter().any(|entry| is_proposal(&entry)) {
            // One after another: whether a batch of the second is new shows when the first is there.
            let each = entries.into_iter().map(|entry| self.append_entries(vec![entry]));
            return each.collect::<Result<Vec<_>, _>>().map(|extents| extents.concat());
        }
        self.check_offsets(&entries)?;
        let started = std::time::Instant::now();
        let now_ms = unix_now_ms();
        let mut rounds = Vec::new();
        let mut new = Vec::with_capacity(entries.len());
        for LogEntry { log_index, term, content } in entries {
            let content = match content {
                LogContent::Blank => EntryContent::Blank,
                LogContent::Membership => EntryContent::Membership,
                LogContent::Consumer(commit) => EntryContent::Consumer(commit),
                LogContent::Batches { batches, .. } if batches.is_empty() => EntryContent::Blank,
                LogContent::Batches { batches, .. } => EntryContent::Batches(batches),
                LogContent::Proposed(proposal) => self.decide(&proposal, now_ms, log_index, &mut rounds),
            };
            new.push(NewEntry { log_index, term, appended_at_ms: now_ms, content });
        }
        let written = self.write_entries(&new);
        if written.is_ok() {
            self.note_entries(&new, written.as_deref().unwrap_or_default(), started);
        }
        for round in rounds {
            let outcome = match &written {
                Ok(extents) => Ok(round.offsets(extents)),
                Err(error) => Err(refusal(error)),
            };
            round.settle(outcome);
        }
        self.noting(written)
    }

    /// Which of the batches that wait are new: those become the entry.
    fn decide(
        &mut self,
        proposal: &Proposal,
        now_ms: u64,
        log_index: u64,
        rounds: &mut Vec<ProposedRound>,
    ) -> EntryContent {
        let Some(Proposed { waiting, settled }) = proposal.take() else { return EntryContent::Blank };
        let mut round = Round::default();
        for pending in waiting {
            round.add(pending, now_ms, |id| match self.hot.get(id) {
                Some(known) => Ok(Some(*known)),
                None => self.log.find_batch(id).map_err(|error| refusal(&error)),
            });
        }
        let batches = round.new_batches().to_vec();
        rounds.push(ProposedRound { log_index, round, settled });
        if batches.is_empty() { EntryContent::Blank } else { EntryContent::Batches(batches) }
    }

    fn write_entries(&mut self, entries: &[NewEntry]) -> Result<Vec<EntryExtent>, LogError> {
        let extents = self.log.append_entries(entries)?;
        let sync_started = std::time::Instant::now();
        self.log.sync()?;
        self.metrics.note_sync(sync_started.elapsed());
        Ok(extents)
    }

    fn note_entries(&mut self, entries: &[NewEntry], extents: &[EntryExtent], started: std::time::Instant) {
        let (mut count, mut bytes) = (0, 0);
        for (entry, extent) in entries.iter().zip(extents) {
            let EntryContent::Batches(batches) = &entry.content else { continue };
            let mut base_offset = extent.base_offset;
            for new in batches {
                let record_count = new.batch.record_count();
                self.hot.insert(KnownBatch { id: new.id, digest: new.digest, base_offset, record_count });
                self.metrics.note_stored(record_count);
                base_offset = base_offset.plus(record_count.into());
                count += 1;
                bytes += new.batch.bytes().len();
            }
        }
        if count > 0 {
            self.metrics.note_round(count, bytes);
            self.queue.note_drained(bytes, started.elapsed());
        }
    }

    fn noting<T>(&self, outcome: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(error) = &outcome {
            self.note_failed(error);
        }
        outcome
    }
}

/// Entries that wait until the log that they follow is in place.
#[derive(Debug)]
pub(super) struct EarlyEntries {
    entries: Vec<LogEntry>,
    done: oneshot::Sender<Result<Vec<EntryExtent>, LogError>>,
}

/// A proposal whose new batches are being written.
struct ProposedRound {
    log_index: u64,
    round: Round,
    settled: oneshot::Sender<Vec<Settled>>,
}

impl ProposedRound {
    /// Where each new batch was stored.
    fn offsets(&self, extents: &[EntryExtent]) -> Vec<Offset> {
        let extent = extents.iter().find(|extent| extent.log_index == self.log_index);
        let mut next = extent.map_or(Offset::ZERO, |extent| extent.base_offset);
        let counts = self.round.new_batches().iter().map(|new| u64::from(new.batch.record_count()));
        let starts = counts.map(|count| {
            let start = next;
            next = start.plus(count);
            start
        });
        starts.collect()
    }

    fn settle(mut self, outcome: Result<Vec<Offset>, AppendError>) {
        let mut all = Vec::new();
        self.round.settle(outcome, |pending, answer| all.push(Settled { pending, answer }));
        // Where nobody listens any more the batches are dropped, and those who wait hear that it is not known.
        self.settled.send(all).ok();
    }
}
