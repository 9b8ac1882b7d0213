//! The ways to other replicas, with an ear for refusals: votes that are refused say how long a replica has to wait before
//! it stands again; appends that are, that there is a later vote than the leader's.
//!
//! The library's stream to a replica ends when it hears of a later vote. Its core hears of that a moment after, and when it
//! has a snapshot for the stream just then it ends itself, for good (`RaftCore::run_command`, `Command::Replicate`, in
//! 0.9.25). So a stream hears here that the replica cannot be reached, and the group hears of the vote; once its core has
//! it, all streams end in order.
//!
//! Must not know how requests travel: what lies below does.

use std::future::Future;
use std::sync::Arc;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::patience::Patience;
use super::types::{Member, NodeId, TypeConfig, Vote};

/// Later votes that may wait to be heard of: every replica may say one.
pub(super) const LATER_VOTES_MAX: usize = 16;

/// Ways to other replicas, or the way to one.
#[derive(Debug)]
pub(super) struct Heeding<N> {
    pub(super) inner: N,
    pub(super) patience: Arc<Mutex<Patience>>,
    /// Takes later votes. What finds it full is dropped: the next append is refused too.
    pub(super) later: mpsc::Sender<LaterVote>,
}

/// A leader's vote, and a later one that another replica has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaterVote {
    pub(super) own: Vote,
    pub(super) later: Vote,
}

/// Why a stream gets no answer.
#[derive(Debug, thiserror::Error)]
#[error("the replica knows a later vote than this leader's")]
struct Superseded;

impl<N> Heeding<N> {
    fn superseded(&self, own: Vote, later: Vote) -> Unreachable {
        self.later.try_send(LaterVote { own, later }).ok();
        Unreachable::new(&Superseded)
    }
}

impl<N: RaftNetworkFactory<TypeConfig>> RaftNetworkFactory<TypeConfig> for Heeding<N> {
    type Network = Heeding<N::Network>;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Self::Network {
        Heeding {
            inner: self.inner.new_client(target, member).await,
            patience: Arc::clone(&self.patience),
            later: self.later.clone(),
        }
    }
}

impl<N: RaftNetwork<TypeConfig>> RaftNetwork<TypeConfig> for Heeding<N> {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, Member, RaftError<NodeId>>> {
        let own = request.vote;
        match self.inner.append_entries(request, option).await? {
            AppendEntriesResponse::HigherVote(later) => {
                Err(RPCError::Unreachable(self.superseded(own, later)))
            }
            response => Ok(response),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, Member, RaftError<NodeId>>> {
        let asked = Instant::now();
        let response = self.inner.vote(request.clone(), option).await?;
        if !response.vote_granted {
            self.patience.lock().note_refused(asked, &request, &response);
        }
        Ok(response)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let response = self.inner.full_snapshot(vote, snapshot, cancel, option).await?;
        if response.vote > vote {
            return Err(StreamingError::Unreachable(self.superseded(vote, response.vote)));
        }
        Ok(response)
    }

    fn backoff(&self) -> Backoff {
        self.inner.backoff()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openraft::{SnapshotMeta, StoredMembership};

    use super::super::snapshot::SnapshotData;
    use super::super::timing::Timing;
    use super::*;

    /// A replica that knows this vote.
    struct Other(Vote);

    impl RaftNetwork<TypeConfig> for Other {
        async fn append_entries(
            &mut self,
            request: AppendEntriesRequest<TypeConfig>,
            _: RPCOption,
        ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, Member, RaftError<NodeId>>> {
            let is_later = self.0 > request.vote;
            Ok(if is_later {
                AppendEntriesResponse::HigherVote(self.0)
            } else {
                AppendEntriesResponse::Success
            })
        }

        async fn vote(
            &mut self,
            _: VoteRequest<NodeId>,
            _: RPCOption,
        ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, Member, RaftError<NodeId>>> {
            Ok(VoteResponse::new(self.0, None, false))
        }

        async fn full_snapshot(
            &mut self,
            vote: Vote,
            _: Snapshot<TypeConfig>,
            _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
            _: RPCOption,
        ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
            Ok(SnapshotResponse::new(if self.0 > vote { self.0 } else { vote }))
        }
    }

    fn snapshot() -> Snapshot<TypeConfig> {
        let meta = SnapshotMeta {
            last_log_id: None,
            last_membership: StoredMembership::default(),
            snapshot_id: String::new(),
        };
        Snapshot { meta, snapshot: Box::new(SnapshotData::Own { consumers: Default::default() }) }
    }

    #[tokio::test]
    async fn a_later_vote_goes_to_the_group_and_not_to_the_stream_that_met_it() {
        let (later, mut heard) = mpsc::channel(LATER_VOTES_MAX);
        let patience = Arc::new(Mutex::new(Patience::new(Timing::new(Duration::from_secs(1)))));
        let own = Vote::new_committed(3, 1);
        let option = || RPCOption::new(Duration::from_secs(1));
        let heartbeat = || AppendEntriesRequest {
            vote: own,
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let never = std::future::pending::<ReplicationClosed>;
        let of = |vote| Heeding { inner: Other(vote), patience: Arc::clone(&patience), later: later.clone() };
        let mut line = of(own);
        assert_eq!(line.append_entries(heartbeat(), option()).await.unwrap(), AppendEntriesResponse::Success);
        line.full_snapshot(own, snapshot(), never(), option()).await.unwrap();
        assert!(heard.try_recv().is_err());
        let vote = Vote::new(4, 2);
        let is_heard = Ok(LaterVote { own, later: vote });
        let mut line = of(vote);
        let appended = line.append_entries(heartbeat(), option()).await;
        assert!(matches!(appended, Err(RPCError::Unreachable(_))), "{appended:?}");
        assert_eq!(heard.try_recv(), is_heard);
        let copied = line.full_snapshot(own, snapshot(), never(), option()).await;
        assert!(matches!(copied, Err(StreamingError::Unreachable(_))), "{copied:?}");
        assert_eq!(heard.try_recv(), is_heard);
    }
}
