//! `storage drain` and `storage move`: say to a running cluster what is wanted, and tell how it goes.
//!
//! Invariant: the cluster does it by itself; who is broken off here has only stopped watching, and may come again. The
//! secret is shown where other nodes are served, and there alone.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use model::Partition;
use model::problem::Problem;
use model::wire::{ClusterAnswer, PartitionState, Replica, ReplicaRole};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::{Outcome, ToolError};
use crate::config::units::parse_duration;
use crate::config::{TlsFlags, parse_node_url};
use crate::limits;
use crate::outbound::{self, CallError, HttpClient, NodeConnector, NodeHttpClient, Scheme};
use crate::raft::{NodeCard, Secret, SecretError, internal_at};
use crate::tls::{NodeTls, TlsError};

/// How often it is looked how things stand.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long one answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the node that is asked may be silent, as one that is restarted.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How a cluster is reached.
#[derive(Args, Clone, Debug)]
pub struct Access {
    /// The file with the secret that the cluster's nodes share, if they do
    #[arg(long, env = "EDGELOG_STORAGE_CLUSTER_SECRET_FILE", value_name = "FILE")]
    pub cluster_secret_file: Option<PathBuf>,
    /// The files for TLS between the cluster's nodes, if there is TLS: a certificate of one of them, or of its own.
    #[command(flatten)]
    pub tls: TlsFlags,
    /// How long to wait for the end of it; the cluster goes on by itself after that
    #[arg(long, default_value = "1d", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// The node to drain.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    /// The node's URL, at which clients reach it
    #[arg(value_parser = parse_node_url)]
    pub node: Url,
    /// Let the node hold replicas again instead
    #[arg(long)]
    pub cancel: bool,
    /// How the cluster is reached.
    #[command(flatten)]
    pub access: Access,
}

/// The replica to move.
#[derive(Args, Clone, Debug)]
pub struct MoveArgs {
    /// The partition
    #[arg(long, value_name = "N")]
    pub partition: Partition,
    /// The node that has the replica: its name or its URL
    #[arg(long, value_name = "NODE")]
    pub from: String,
    /// The node that is to have it
    #[arg(long, value_name = "NODE")]
    pub to: String,
    /// Any node of the cluster
    #[arg(long, default_value = "http://127.0.0.1:8081", value_parser = parse_node_url, value_name = "URL")]
    pub node: Url,
    /// How the cluster is reached.
    #[command(flatten)]
    pub access: Access,
}

/// Why the cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// Threads could not be had.
    #[error("the runtime could not be started: {0}")]
    Runtime(std::io::Error),
    /// The secret cannot be had.
    #[error(transparent)]
    Secret(SecretError),
    /// The files for TLS are of no use.
    #[error("TLS between nodes: {0}")]
    Tls(TlsError),
    /// A node does not answer.
    #[error("{url}: {error}")]
    Call {
        /// What was asked.
        url: String,
        /// What happened.
        error: CallError,
    },
    /// The node says no.
    #[error("{url} refuses: {reason}")]
    Refused {
        /// What was asked.
        url: String,
        /// What it says.
        reason: String,
    },
    /// The node does not say where other nodes reach it.
    #[error(
        "{0} does not say where other nodes reach it: partitions have one copy there, or it is no storage node"
    )]
    NoInternal(String),
    /// The node and who asks differ on TLS.
    #[error("{url} {}", if *.wants_tls {
        "talks to other nodes by TLS: --cluster-cert, --cluster-key and --cluster-ca are needed"
    } else {
        "does not talk to other nodes by TLS, or says nothing of use: leave out --cluster-cert, --cluster-key and --cluster-ca"
    })]
    Scheme {
        /// What was asked.
        url: String,
        /// Whether it is the node that wants TLS.
        wants_tls: bool,
    },
    /// The partition is not known.
    #[error("the cluster has no partition {0}")]
    NoPartition(Partition),
    /// The directory is none of a node with replicas.
    #[error("{} is not the data directory of a node with replicas", .0.display())]
    NoReplicas(PathBuf),
    /// The directory has nothing of the partition.
    #[error("nothing of partition {0} lies there")]
    NotHere(Partition),
    /// The node may hold the partition.
    #[error("partition {partition} is not forgotten: {reason}")]
    NotForgotten {
        /// The partition.
        partition: Partition,
        /// Why.
        reason: String,
    },
    /// It takes longer than it was to.
    #[error(
        "it is not done yet; the cluster goes on with it by itself, and the same command tells how it goes"
    )]
    TimedOut,
}

pub(super) fn drain(args: &DrainArgs, out: &mut dyn Write) -> Result<Outcome, ToolError> {
    in_time(&args.access, async |operator: &Operator| operator.drain(args, out).await)
}

pub(super) fn move_replica(args: &MoveArgs, out: &mut dyn Write) -> Result<Outcome, ToolError> {
    in_time(&args.access, async |operator: &Operator| operator.move_replica(args, out).await)
}

pub(super) fn in_time(
    access: &Access,
    task: impl AsyncFnOnce(&Operator) -> Result<(), ToolError>,
) -> Result<Outcome, ToolError> {
    let secret = match &access.cluster_secret_file {
        Some(path) => Secret::read(path).map_err(OperateError::Secret)?,
        None => Secret::none(),
    };
    let tls = NodeTls::of(&access.tls).map_err(OperateError::Tls)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OperateError::Runtime)?;
    runtime.block_on(async {
        let client = outbound::builder().build(outbound::connector(limits::NODE_CONNECT_TIME_MAX));
        let connector = NodeConnector::new(tls.as_ref(), limits::NODE_CONNECT_TIME_MAX);
        let scheme = connector.scheme();
        let node_client = outbound::builder().build(connector);
        let operator = Operator { client, node_client, scheme, secret };
        timeout(access.timeout, task(&operator)).await.map_err(|_| OperateError::TimedOut)??;
        Ok(Outcome::Sound)
    })
}

/// Asks nodes.
pub(super) struct Operator {
    /// For where clients are served.
    client: HttpClient<Empty<Bytes>>,
    /// For where other nodes are.
    node_client: NodeHttpClient<Empty<Bytes>>,
    scheme: Scheme,
    secret: Secret,
}

/// What a node answered.
pub(super) struct Answer {
    url: String,
    pub(super) status: StatusCode,
    body: Bytes,
}

impl Operator {
    async fn drain(&self, args: &DrainArgs, out: &mut dyn Write) -> Result<(), ToolError> {
        let url = base(&args.node);
        let method = if args.cancel { Method::DELETE } else { Method::PUT };
        let answer = self.command(method, &url, "/cluster/drain").await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal().into());
        }
        if args.cancel {
            return say(out, &format!("{url} may hold replicas again"));
        }
        say(
            out,
            &format!(
                "{url} is being drained; if this is broken off, it goes on, and the same command tells how"
            ),
        )?;
        let mut told = BTreeMap::new();
        loop {
            let seen = patiently(|| self.cluster(&url)).await?;
            let own = seen.own_url().map(str::to_owned).unwrap_or_else(|| url.clone());
            let left = seen.partitions.iter().filter(|state| !has_left(state, &own)).count();
            for state in &seen.partitions {
                let now = how_it_leaves(state, &own);
                if told.get(&state.partition) != Some(&now) {
                    say(out, &format!("partition {}: {now}", state.partition))?;
                    told.insert(state.partition, now);
                }
            }
            if left == 0 {
                return say(
                    out,
                    &format!("{} holds nothing any more: it can be stopped for good", seen.node),
                );
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn move_replica(&self, args: &MoveArgs, out: &mut dyn Write) -> Result<(), ToolError> {
        let (url, partition) = (base(&args.node), args.partition);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("partition", &partition.to_string());
        query.append_pair("from", &args.from).append_pair("to", &args.to);
        let path = format!("/cluster/move?{}", query.finish());
        let mut told = String::new();
        loop {
            let seen = patiently(|| self.cluster(&url)).await?;
            let state = seen.partitions.iter().find(|state| state.partition == partition);
            let state = state.ok_or(OperateError::NoPartition(partition))?;
            let now = match &state.leader {
                None => "a leader is being elected".to_owned(),
                Some(leader) => match self.command(Method::POST, leader, &path).await {
                    Ok(answer) if answer.status == StatusCode::OK => {
                        return say(
                            out,
                            &format!("partition {partition}: moved from {} to {}", args.from, args.to),
                        );
                    }
                    Ok(answer) if answer.status == StatusCode::ACCEPTED => how_it_stands(state),
                    Ok(answer) if is_for_later(answer.status) => answer.reason(),
                    Ok(answer) => return Err(answer.refusal().into()),
                    // Another leader may be on the way.
                    Err(error) => error.to_string(),
                },
            };
            if now != told {
                say(out, &format!("partition {partition}: {now}"))?;
                told = now;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// The cluster, as the node at this URL knows it.
    pub(super) async fn cluster(&self, url: &str) -> Result<ClusterAnswer, OperateError> {
        self.get(format!("{url}/v1/cluster")).await
    }

    /// Asks something of the node at this URL, where other nodes reach it.
    pub(super) async fn command(
        &self,
        method: Method,
        url: &str,
        path: &str,
    ) -> Result<Answer, OperateError> {
        let card: NodeCard = match self.get(format!("{url}/v1/node")).await {
            Ok(card) => card,
            Err(OperateError::Refused { .. }) => return Err(OperateError::NoInternal(url.to_owned())),
            Err(error) => return Err(error),
        };
        let internal = internal_at(self.scheme, url, &card.internal).ok_or_else(|| {
            let wants_tls = card.internal.starts_with(Scheme::Https.as_str());
            if wants_tls || self.scheme == Scheme::Https {
                OperateError::Scheme { url: url.to_owned(), wants_tls }
            } else {
                OperateError::NoInternal(url.to_owned())
            }
        })?;
        self.call(method, format!("{internal}{path}"), true).await
    }

    async fn get<T: DeserializeOwned>(&self, url: String) -> Result<T, OperateError> {
        let answer = self.call(Method::GET, url, false).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal());
        }
        answer.json()
    }

    async fn call(&self, method: Method, url: String, of_nodes: bool) -> Result<Answer, OperateError> {
        let exchange = async {
            let mut request = Request::builder().method(method).uri(&url);
            if let Some(secret) = self.secret.header().filter(|_| of_nodes) {
                request = request.header(AUTHORIZATION, secret);
            }
            let request = request.body(Empty::new())?;
            let response = if of_nodes {
                self.node_client.request(request).await?
            } else {
                self.client.request(request).await?
            };
            let status = response.status();
            let body = Limited::new(response.into_body(), limits::NODE_ANSWER_BYTES_MAX);
            Ok((status, body.collect().await.map_err(CallError::BrokeOff)?.to_bytes()))
        };
        match timeout(ANSWER_TIME_MAX, exchange).await.unwrap_or(Err(CallError::TimedOut)) {
            Ok((status, body)) => Ok(Answer { url, status, body }),
            Err(error) => Err(OperateError::Call { url, error }),
        }
    }
}

impl Answer {
    pub(super) fn json<T: DeserializeOwned>(self) -> Result<T, OperateError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| OperateError::Call { url: self.url, error: error.into() })
    }

    fn reason(&self) -> String {
        if self.status == StatusCode::UNAUTHORIZED {
            return "it wants the cluster's secret: --cluster-secret-file".to_owned();
        }
        let problem = serde_json::from_slice(&self.body).map(|problem: Problem| problem.detail);
        problem.unwrap_or_else(|_| self.status.to_string())
    }

    pub(super) fn refusal(&self) -> OperateError {
        OperateError::Refused { url: self.url.clone(), reason: self.reason() }
    }
}

/// Whether the same may be asked again, here or of another leader.
pub(super) fn is_for_later(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::MISDIRECTED_REQUEST)
}

/// Asks until there is an answer, for as long as a restart may take.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, OperateError>
where
    F: Future<Output = Result<T, OperateError>>,
{
    let deadline = Instant::now() + SILENCE_MAX;
    loop {
        match ask().await {
            Err(OperateError::Call { .. }) if Instant::now() < deadline => sleep(LOOK_INTERVAL).await,
            other => return other,
        }
    }
}

/// Whether the node at this URL has no replica of a partition. Nobody but its leader knows.
fn has_left(state: &PartitionState, url: &str) -> bool {
    state.leader.is_some() && state.replicas.iter().all(|replica| replica.url != url)
}

fn how_it_leaves(state: &PartitionState, url: &str) -> String {
    let names: Vec<&str> = state.replicas.iter().map(|replica| replica.node.as_str()).collect();
    if has_left(state, url) { format!("is on {}", names.join(", ")) } else { how_it_stands(state) }
}

fn how_it_stands(state: &PartitionState) -> String {
    let is_filled = |replica: &&Replica| replica.role == ReplicaRole::Learner;
    match (state.replicas.iter().find(is_filled), &state.leader) {
        (_, None) => "a leader is being elected".to_owned(),
        (Some(filled), _) if filled.lag > 0 => {
            format!("{} is being filled, and {} records behind", filled.node, filled.lag)
        }
        (Some(_), _) => "its members are being changed".to_owned(),
        (None, _) => "waits".to_owned(),
    }
}

pub(super) fn say(out: &mut dyn Write, line: &str) -> Result<(), ToolError> {
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(ToolError::Output)
}

pub(super) fn base(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

impl From<OperateError> for ToolError {
    fn from(error: OperateError) -> Self {
        Self::Operate(error)
    }
}
