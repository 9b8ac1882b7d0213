//! A read of the whole cluster: this node's own answer and the other nodes', each asked once for its own.
//!
//! A call with `Edgelog-Scope: node` is answered by this node alone, so that a question never goes round. Invariant:
//! each node's records are in an answer once, though a node be named twice, or be this one.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use model::{Partition, wire};
use serde::de::DeserializeOwned;
use url::form_urlencoded::Serializer;

use super::Shared;
use super::error::ApiError;
use crate::query::{Lack, PeerAnswer, PeerError, Peers, Plan, SHARE, Share, Staleness, Stats};
use crate::raft::Group;

/// Which process answers.
const INSTANCE: &str = "edgelog-instance";

/// What the other nodes answered.
#[derive(Debug, Default)]
pub(super) struct PeerAnswers {
    /// Answers with a status of success, each of another node.
    pub(super) useful: Vec<PeerAnswer>,
    /// What the whole lacks without the others.
    pub(super) lacks: Vec<Lack>,
}

/// Whom a request asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// This node alone, for this share of what it holds.
    Node(Share),
    /// All nodes.
    Cluster(Plan),
}

/// Whom a request asks; of all nodes those that have the `partition`, where one is asked for.
///
/// # Errors
/// When it names partitions that cannot be, or of which this node has no copy that can be read: whoever asks knows an
/// older state of the cluster, and must not take what is here for all there is.
pub(super) fn of(
    shared: &Shared,
    headers: &HeaderMap,
    partition: Option<Partition>,
) -> Result<Scope, ApiError> {
    let share = match headers.get(SHARE).map(HeaderValue::to_str) {
        Some(value) => value.ok().and_then(|value| value.parse().ok()).ok_or_else(|| ApiError::Header {
            name: SHARE,
            detail: "it is a list of partitions, as in 0,2".to_owned(),
        })?,
        None => Share::All,
    };
    if !is_of_cluster(shared, headers) {
        let mut asked = share.named().iter().copied();
        return match asked.find(|partition| !shared.app.has_copy(*partition)) {
            Some(partition) => {
                Err(ApiError::PartitionElsewhere { partition, held: shared.app.held(), leader: None })
            }
            None => Ok(Scope::Node(held_of(shared, share))),
        };
    }
    let plan = match &shared.app.replication {
        Some(cluster) => Peers::plan_of(cluster.url(), cluster.readers()),
        None => shared.app.peers.plan(),
    };
    Ok(Scope::Cluster(match partition {
        Some(partition) => plan.only(partition),
        None => plan,
    }))
}

/// A share without what this node has files of and no copy: a replica that was let go.
fn held_of(shared: &Shared, share: Share) -> Share {
    match (&shared.app.replication, share) {
        (Some(cluster), Share::All) => {
            let partitions = cluster.groups().iter().map(Group::partition);
            Share::Only(partitions.filter(|partition| shared.app.has_copy(*partition)).collect())
        }
        (_, share) => share,
    }
}

impl Scope {
    /// How old may be what this node itself reads for it; nothing where each partition has one copy.
    pub(super) fn staleness(&self, shared: &Shared, partition: Option<Partition>) -> Option<Staleness> {
        match self {
            Self::Node(share) => staleness_of_share(shared, share, partition),
            Self::Cluster(plan) => staleness_of_share(shared, &plan.own, partition),
        }
    }
}

/// How old may be what this node knows of its share, or of one partition in it; nothing where each partition has one
/// copy.
pub(super) fn staleness_of_share(
    shared: &Shared,
    share: &Share,
    partition: Option<Partition>,
) -> Option<Staleness> {
    let groups = shared.app.replication.as_ref()?.groups().iter();
    let read = groups.filter(|group| {
        let of_group = group.partition();
        partition.is_none_or(|partition| partition == of_group)
            && share.contains(of_group)
            && shared.app.has_copy(of_group)
    });
    read.map(staleness_of).max()
}

/// How old may be what a replica knows.
pub(super) fn staleness_of(group: &Group) -> Staleness {
    let ms = |age: Duration| Staleness::Ms(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    group.staleness().map_or(Staleness::Unknown, ms)
}

/// Whether a request is answered for all nodes.
fn is_of_cluster(shared: &Shared, headers: &HeaderMap) -> bool {
    let is_for_node = headers.get(wire::SCOPE).is_some_and(|scope| scope == wire::SCOPE_NODE);
    // With replicas others may come that nobody named to this node.
    !is_for_node && (shared.app.replication.is_some() || !shared.app.peers.is_empty())
}

/// Says in an answer which process gave it, and for whom it speaks.
pub(super) async fn sign(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let is_of_cluster = is_of_cluster(&shared, request.headers());
    let speaks_for = if is_of_cluster { wire::SCOPE_CLUSTER } else { wire::SCOPE_NODE };
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(INSTANCE), shared.app.instance.clone());
    headers.insert(HeaderName::from_static(wire::SCOPE), HeaderValue::from_static(speaks_for));
    response
}

/// Whether this process itself gave an answer.
pub(super) fn is_own(shared: &Shared, headers: &HeaderMap) -> bool {
    headers.get(INSTANCE).is_some_and(|instance| instance == shared.app.instance)
}

/// A path with these parameters.
pub(super) fn path_and_query<'a>(
    path: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let query = Serializer::new(String::new()).extend_pairs(parameters).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// The parameters of a request, with the times that were read from them: what is relative to now has to be the same
/// for all nodes.
pub(super) fn with_times<'a>(
    parameters: &'a [(String, String)],
    from: &'a str,
    to: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    parameters.iter().map(move |(name, value)| match name.as_str() {
        "from" if !value.is_empty() => ("from", from),
        "to" if !value.is_empty() => ("to", to),
        name => (name, value.as_str()),
    })
}

/// Makes the plan's calls. A node that does not hold what is asked for (404) lacks nothing.
pub(super) async fn ask_peers(shared: &Shared, plan: &Plan, path_and_query: &str) -> PeerAnswers {
    let mut answers = PeerAnswers::default();
    let mut seen: Vec<HeaderValue> = vec![shared.app.instance.clone()];
    for answer in shared.app.peers.ask(plan, path_and_query).await {
        let answer = match answer {
            Ok(answer) => answer,
            Err(lack) => {
                answers.lacks.push(lack);
                continue;
            }
        };
        let instance = answer.headers.get(INSTANCE).cloned();
        if instance.is_some_and(|instance| {
            let is_known = seen.contains(&instance);
            seen.push(instance);
            is_known
        }) {
            continue;
        }
        if answer.status.is_success() {
            answers.lacks.extend(answer.told_lack());
            answers.useful.push(answer);
        } else if answer.status != StatusCode::NOT_FOUND {
            answers.lacks.push(answer.lack(&PeerError::Refused(answer.status)));
        }
    }
    answers
}

impl PeerAnswers {
    /// Refuses a question about a partition that no node holds.
    pub(super) fn check_partition(
        &self,
        shared: &Shared,
        partition: Option<Partition>,
    ) -> Result<(), ApiError> {
        if self.useful.is_empty() && self.lacks.is_empty() {
            shared.app.check_partition(partition)?;
        }
        Ok(())
    }

    /// The counts of each node, and what all of them took. What is not understood lacks.
    pub(super) fn counts<T: DeserializeOwned>(&mut self, stats: &mut Stats) -> Vec<T> {
        let mut counts = Vec::new();
        for answer in std::mem::take(&mut self.useful) {
            match serde_json::from_slice(&answer.body) {
                Ok(count) => {
                    stats.add(&super::search::stats_of(&answer));
                    counts.push(count);
                }
                Err(_) => self.lacks.push(answer.lack(&PeerError::NotUnderstood)),
            }
        }
        counts
    }
}
