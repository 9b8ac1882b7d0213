//! How replicas talk: the library's requests, over HTTP between nodes.
//!
//! Records travel in a request of their own. Heartbeats and votes of all groups that are to be sent to the same node at
//! the same moment travel in one.
//!
//! Invariant: a request that failed may have been done. The library repeats it, and doing it twice does no harm.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use model::Partition;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::client::NodeClient;
use super::codec::{Addressed, Answer, AppendHead, CodecError, LightRequest, encode_append};
use super::directory::Directory;
use super::snapshot::Offer;
use super::types::{Member, NodeId, TypeConfig, Vote};
use crate::limits;
use crate::outbound::CallError;

/// The ways to all other nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: NodeClient,
    directory: Arc<Directory>,
    /// The requests that are about to go to each node. Bounded by the nodes that were ever members.
    links: Mutex<HashMap<NodeId, mpsc::Sender<Waiting>>>,
    request_time: Duration,
}

/// A heartbeat or a vote that is about to be sent.
struct Waiting {
    message: Addressed<LightRequest>,
    answer: oneshot::Sender<Result<Answer, NetError>>,
}

/// The way of one group to one node.
#[derive(Clone, Debug)]
pub struct GroupNetwork {
    network: Network,
    partition: Partition,
}

/// The way of one replica to another.
#[derive(Debug)]
pub struct Line {
    network: Network,
    partition: Partition,
    target: NodeId,
}

/// Why a replica was not reached.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum NetError {
    /// The node does not answer to that number, under any URL.
    #[error("node {target:016x} is nowhere to be found")]
    Nowhere {
        /// The node's number.
        target: NodeId,
    },
    /// The request failed.
    #[error("{0}")]
    Call(Arc<CallError>),
    /// The request cannot be said, or the answer is not one.
    #[error("{0}")]
    Codec(Arc<CodecError>),
    /// The replica refused.
    #[error("{0}")]
    Replica(String),
    /// Too many requests wait.
    #[error("the way to the node is full")]
    Busy,
}

impl From<CallError> for NetError {
    fn from(error: CallError) -> Self {
        Self::Call(Arc::new(error))
    }
}

impl From<CodecError> for NetError {
    fn from(error: CodecError) -> Self {
        Self::Codec(Arc::new(error))
    }
}

type AppendError = RPCError<NodeId, Member, RaftError<NodeId>>;

impl Network {
    /// The ways to the nodes of `directory`.
    pub fn new(client: NodeClient, directory: Arc<Directory>, request_time: Duration) -> Self {
        let shared = Shared { client, directory, links: Mutex::default(), request_time };
        Self { shared: Arc::new(shared) }
    }

    /// The ways of one group.
    pub fn of_group(&self, partition: Partition) -> GroupNetwork {
        GroupNetwork { network: self.clone(), partition }
    }

    /// Sends a heartbeat or a vote, with others that are about to be sent.
    async fn send_light(
        &self,
        target: NodeId,
        partition: Partition,
        message: LightRequest,
    ) -> Result<Answer, NetError> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { message: Addressed { partition, message }, answer };
        self.link(target).try_send(waiting).map_err(|_full| NetError::Busy)?;
        answered.await.unwrap_or(Err(NetError::Busy))
    }

    fn link(&self, target: NodeId) -> mpsc::Sender<Waiting> {
        let mut links = self.shared.links.lock();
        let link = links.entry(target).or_insert_with(|| {
            let (link, waiting) = mpsc::channel(limits::LIGHT_REQUESTS_MAX);
            tokio::spawn(self.clone().send_together(target, waiting));
            link
        });
        link.clone()
    }

    /// Gathers what is to be sent at the same moment, and sends it; does not wait for the answers.
    async fn send_together(self, target: NodeId, mut waiting: mpsc::Receiver<Waiting>) {
        let mut together = Vec::new();
        while waiting.recv_many(&mut together, limits::LIGHT_REQUESTS_MAX).await > 0 {
            // The groups' heartbeats are triggered one after another; a moment later all of them are here.
            tokio::time::sleep(limits::LIGHT_REQUESTS_WAIT).await;
            while together.len() < limits::LIGHT_REQUESTS_MAX
                && let Ok(more) = waiting.try_recv()
            {
                together.push(more);
            }
            let sent = std::mem::take(&mut together);
            let network = self.clone();
            tokio::spawn(async move { network.exchange_light(target, sent).await });
        }
    }

    async fn exchange_light(&self, target: NodeId, waiting: Vec<Waiting>) {
        let (messages, answers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.message, waiting.answer)).unzip();
        // Who does not wait any more does not hear of it.
        match self.call_light(target, &messages).await {
            Ok(all) if all.len() == answers.len() => {
                answers.into_iter().zip(all).for_each(|(answer, one)| drop(answer.send(Ok(one))));
            }
            Ok(_) => {
                let short = NetError::Replica("it answered fewer questions than it was asked".to_owned());
                answers.into_iter().for_each(|answer| drop(answer.send(Err(short.clone()))));
            }
            Err(error) => answers.into_iter().for_each(|answer| drop(answer.send(Err(error.clone())))),
        }
    }

    async fn call_light(
        &self,
        target: NodeId,
        messages: &[Addressed<LightRequest>],
    ) -> Result<Vec<Answer>, NetError> {
        let body = serde_json::to_vec(messages).map_err(CallError::from)?;
        let answer = self.post(target, "/raft/light", vec![body.into()], self.shared.request_time).await?;
        Ok(serde_json::from_slice(&answer).map_err(CallError::from)?)
    }

    async fn post(
        &self,
        target: NodeId,
        path: &str,
        body: Vec<Bytes>,
        time_max: Duration,
    ) -> Result<Bytes, NetError> {
        let base = self.shared.directory.internal_url(target).ok_or(NetError::Nowhere { target })?;
        let url = format!("{base}{path}");
        let answer_max = limits::NODE_ANSWER_BYTES_MAX;
        Ok(self.shared.client.call(Method::POST, &url, body, time_max, answer_max).await?)
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, _: &Member) -> Line {
        Line { network: self.network.clone(), partition: self.partition, target }
    }
}

impl Line {
    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        time_max: Duration,
    ) -> Result<Answer, NetError> {
        if request.entries.is_empty() {
            let message = LightRequest::Append(AppendHead::of_heartbeat(&request));
            return self.network.send_light(self.target, self.partition, message).await;
        }
        let path = format!("/raft/append?partition={}", self.partition);
        let answer = self.network.post(self.target, &path, encode_append(request)?, time_max).await?;
        Ok(serde_json::from_slice(&answer).map_err(CallError::from)?)
    }
}

impl RaftNetwork<TypeConfig> for Line {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, AppendError> {
        let answer = self.append(request, option.hard_ttl()).await.map_err(not_reached)?;
        answer.into_append().map_err(|why| not_reached(NetError::Replica(why)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, AppendError> {
        let message = LightRequest::of_vote(&request);
        let answer = self.network.send_light(self.target, self.partition, message).await;
        answer.map_err(not_reached)?.into_vote().map_err(|why| not_reached(NetError::Replica(why)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let not_sent = |error: NetError| StreamingError::Network(NetworkError::new(&error));
        let Some(offer) = Offer::new(vote, &snapshot) else {
            return Err(not_sent(NetError::Replica("there is nothing in the snapshot".to_owned())));
        };
        let body = serde_json::to_vec(&offer).map_err(|error| not_sent(CallError::from(error).into()))?;
        let path = format!("/raft/snapshot?partition={}", self.partition);
        // The other side goes on copying whether or not this request is there, and refuses a second one meanwhile.
        let copied = self.network.post(self.target, &path, vec![body.into()], limits::COPY_TIME_MAX);
        let answer = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            copied = copied => copied.map_err(not_sent)?,
        };
        match serde_json::from_slice(&answer) {
            Ok(Answer::HigherVote(vote)) => Ok(SnapshotResponse::new(vote.into())),
            Ok(Answer::Failed(why)) => Err(not_sent(NetError::Replica(why))),
            Ok(_) => Err(not_sent(NetError::Replica("it answered another question".to_owned()))),
            Err(error) => Err(not_sent(CallError::from(error).into())),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(limits::NODE_RETRY_PAUSE))
    }
}

fn not_reached(error: NetError) -> AppendError {
    RPCError::Unreachable(Unreachable::new(&error))
}
