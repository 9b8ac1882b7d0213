//! The ways to other replicas, with an ear for votes that are refused: they say how long a replica has to wait before it
//! stands again.
//!
//! Must not know how requests travel: what lies below does.

use std::future::Future;
use std::sync::Arc;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::patience::Patience;
use super::types::{Member, NodeId, TypeConfig, Vote};

/// Ways to other replicas, or the way to one.
#[derive(Debug)]
pub(super) struct Heeding<N> {
    pub(super) inner: N,
    pub(super) patience: Arc<Mutex<Patience>>,
}

impl<N: RaftNetworkFactory<TypeConfig>> RaftNetworkFactory<TypeConfig> for Heeding<N> {
    type Network = Heeding<N::Network>;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Self::Network {
        Heeding { inner: self.inner.new_client(target, member).await, patience: Arc::clone(&self.patience) }
    }
}

impl<N: RaftNetwork<TypeConfig>> RaftNetwork<TypeConfig> for Heeding<N> {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, Member, RaftError<NodeId>>> {
        self.inner.append_entries(request, option).await
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
        self.inner.full_snapshot(vote, snapshot, cancel, option).await
    }

    fn backoff(&self) -> Backoff {
        self.inner.backoff()
    }
}
