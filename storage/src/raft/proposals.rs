//! The batches that wait for a replica's group to agree on them.
//!
//! Invariants: a batch is answered at the level that it asked for, or is told the one that was reached, and while its
//! ingest still listens; batches that arrive while an entry is being written become the next one (group commit).

use std::collections::VecDeque;

use std::sync::Arc;

use model::wire::Durability;
use openraft::error::ClientWriteError;
use openraft::raft::ClientWriteResponse;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::group::Group;
use super::types::{EntryData, LogId, Member, NodeId, TypeConfig};
use crate::limits;
use crate::partition::{AppendError, Appended, Pending, Proposal, Settled};

type Committed = oneshot::Receiver<Result<ClientWriteResponse<TypeConfig>, ClientWriteError<NodeId, Member>>>;

impl Group {
    /// Takes the batches that wait, round by round, until there will be no more.
    pub async fn propose_all(self, mut waiting: mpsc::Receiver<Pending>) {
        while let Some(first) = waiting.recv().await {
            let mut bytes = first.bytes();
            let mut round = vec![first];
            while bytes < limits::ROUND_BYTES_MAX
                && let Ok(next) = waiting.try_recv()
            {
                bytes += next.bytes();
                round.push(next);
            }
            // Where the lead is being handed over, the batches go to who has it then.
            let _writing = self.shared.writing.read().await;
            match self.check_ready(bytes) {
                Ok(()) => self.propose(round).await,
                Err(error) => round.into_iter().for_each(|pending| pending.answer(Err(error.clone()))),
            }
        }
    }

    /// Whether a batch is worth trying: a leader that nobody answers would only fill its disk.
    fn check_ready(&self, bytes: usize) -> Result<(), AppendError> {
        if let Some(reason) = self.failure() {
            return Err(AppendError::Stopped { reason: reason.into() });
        }
        if !self.leads() {
            return Err(AppendError::NotLeader { leader: self.leader_url() });
        }
        if self.is_out_of_touch() {
            return Err(AppendError::NoQuorum);
        }
        if !self.shared.room.has(bytes) {
            return Err(AppendError::DiskFull);
        }
        Ok(())
    }

    /// Makes an entry of a round. Returns once it is on this node's disk, or will not be; the rest is waited for beside.
    async fn propose(&self, round: Vec<Pending>) {
        let (proposal, mut settled) = Proposal::new(round);
        let proposed = self.shared.raft.client_write_ff(EntryData::Proposed(proposal.clone())).await;
        let mut committed = match proposed {
            Ok(committed) => committed,
            Err(fatal) => {
                let reason: Arc<str> = fatal.to_string().into();
                let stopped = AppendError::Stopped { reason };
                return proposal.take_back().into_iter().for_each(|p| p.answer(Err(stopped.clone())));
            }
        };
        tokio::select! {
            biased;
            settled = &mut settled => {
                // Dropped only with the actor; those who wait hear of that by themselves.
                let Ok(settled) = settled else { return };
                let group = self.clone();
                tokio::spawn(async move { group.finish(settled, committed).await });
            }
            outcome = &mut committed => {
                let error = match outcome {
                    Ok(Err(error)) => self.refusal(&error),
                    // Agreed on before it was written cannot be; a replica that ends answers nobody.
                    Ok(Ok(_)) | Err(_) => AppendError::NotLeader { leader: None },
                };
                proposal.take_back().into_iter().for_each(|pending| pending.answer(Err(error.clone())));
            }
        }
    }

    /// Answers a round that is on this node's disk, each batch at its level.
    async fn finish(&self, settled: Vec<Settled>, mut committed: Committed) {
        let mut waiting = VecDeque::new();
        for Settled { pending, answer } in settled {
            let wanted = pending.acks().unwrap_or(self.shared.acks);
            match answer {
                Ok(appended) if wanted > Durability::Leader => waiting.push_back((pending, appended, wanted)),
                other => pending.answer(other),
            }
        }
        let answer_by = |pending: &Pending| pending.arrived() + self.shared.timing.append_wait_max();
        // In the order in which they came, so that the first is the first whose time is over.
        let index = loop {
            let Some((first, ..)) = waiting.front() else { return };
            match timeout_at(answer_by(first), &mut committed).await {
                Ok(Ok(Ok(response))) => break response.log_id.index,
                Ok(outcome) => {
                    let error = match outcome {
                        Ok(Err(error)) => self.refusal(&error),
                        // The replica ends.
                        _ => AppendError::NoQuorum,
                    };
                    return waiting.into_iter().for_each(|(pending, ..)| pending.answer(Err(error.clone())));
                }
                Err(_time_is_over) => {
                    if let Some((first, ..)) = waiting.pop_front() {
                        first.answer(Err(AppendError::NoQuorum));
                    }
                }
            }
        };
        let (all, quorum): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(.., wanted)| *wanted == Durability::All);
        let answer = |(pending, appended, _): (Pending, Appended, Durability), durability| {
            pending.answer(Ok(Appended { durability, ..appended }));
        };
        quorum.into_iter().for_each(|one| answer(one, Durability::Quorum));
        if let Some((first, ..)) = all.first() {
            let until = answer_by(first).min(Instant::now() + self.shared.timing.all_wait_max());
            let is_everywhere = self.is_everywhere(index, until).await;
            let reached = if is_everywhere { Durability::All } else { Durability::Quorum };
            all.into_iter().for_each(|one| answer(one, reached));
        }
    }

    /// Waits, for a while, until every replica has the entry on its disk.
    async fn is_everywhere(&self, index: u64, until: Instant) -> bool {
        let mut metrics = self.shared.raft.metrics();
        let has_all = metrics.wait_for(|metrics| {
            let members = metrics.membership_config.membership();
            // One that is being filled, or was let go, is no copy.
            let has = |(id, matched): (&NodeId, &Option<LogId>)| {
                matched.is_some_and(|matched| matched.index >= index)
                    || members.voter_ids().all(|voter| voter != *id)
            };
            metrics.replication.as_ref().is_some_and(|replicas| replicas.iter().all(has))
        });
        timeout_at(until, has_all).await.is_ok_and(|found| found.is_ok())
    }

    fn refusal(&self, error: &ClientWriteError<NodeId, Member>) -> AppendError {
        match error {
            ClientWriteError::ForwardToLeader(forward) => {
                let known = forward.leader_id.and_then(|leader| self.shared.directory.url_of(leader));
                let url = known.or_else(|| forward.leader_node.as_ref().map(|node| node.url.clone()));
                AppendError::NotLeader { leader: url.map(Arc::from) }
            }
            ClientWriteError::ChangeMembershipError(error) => {
                AppendError::Failed { reason: error.to_string().into() }
            }
        }
    }
}
