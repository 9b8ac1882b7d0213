//! `GET /v1/histogram`: how many records pass every filter in each piece of a time, by level.
//!
//! `GET /v1/extent`, which nodes ask each other: from when to when a node's records are.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use model::Partition;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::scope::{self, Scope};
use super::search::{describe, note};
use super::{Shared, parameters};
use crate::clock::unix_now_ms;
use crate::query::{
    Buckets, CountsAnswer, Filter, Histogram, HistogramQuery, Lack, Plan, PoolError, Stats, parse_partition,
};

/// The times of a node's first and last records; none when it has none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Extent {
    first: Option<u64>,
    last: Option<u64>,
}

/// Counts.
pub(super) async fn histogram(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let mut query = HistogramQuery::parse(parameters::pairs(&parameters), unix_now_ms())?;
    let scope = scope::of(&shared, request.headers(), query.filter.partition)?;
    let staleness = scope.staleness(&shared, query.filter.partition);
    let answer = match scope {
        Scope::Cluster(plan) => {
            query.filter.share = plan.own.clone();
            let mut extent = shared.app.queries.extent(&query.filter);
            let mut lacks = Vec::new();
            if !(query.has_begin && query.has_end) {
                extent = widest(&shared, &plan, query.filter.partition, extent, &mut lacks).await?;
            }
            let buckets = query.buckets(extent)?;
            count_all(&shared, &plan, &parameters, query, buckets, lacks).await?
        }
        Scope::Node(share) => {
            shared.app.check_partition(query.filter.partition)?;
            query.filter.share = share;
            let buckets = query.buckets(shared.app.queries.extent(&query.filter))?;
            shared.app.queries.histogram(query.filter, buckets).await
        }
    };
    note(&shared, answer.as_ref().map(|answer| answer.lacks.is_empty()));
    let mut answer = answer?;
    answer.stats.note_staleness(staleness);
    let mut response = Json(answer.counts).into_response();
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    Ok(response)
}

/// From when to when this node's records are, or those of one partition.
pub(super) async fn extent(State(shared): State<Shared>, request: Request) -> Result<Json<Extent>, ApiError> {
    let [partition] = parameters::take(request.uri(), ["partition"])?;
    let partition = partition.map(|partition| parse_partition(&partition)).transpose()?;
    shared.app.check_partition(partition)?;
    let share = match scope::of(&shared, request.headers(), partition)? {
        Scope::Node(share) => share,
        Scope::Cluster(plan) => plan.own,
    };
    let mut filter = Filter::default().within(share);
    filter.partition = partition;
    let extent = shared.app.queries.extent(&filter);
    Ok(Json(Extent { first: extent.map(|(first, _)| first), last: extent.map(|(_, last)| last) }))
}

/// From when to when the records of all nodes are.
async fn widest(
    shared: &Shared,
    plan: &Plan,
    partition: Option<Partition>,
    own: Option<(u64, u64)>,
    lacks: &mut Vec<Lack>,
) -> Result<Option<(u64, u64)>, ApiError> {
    let partition_text = partition.map(|partition| partition.to_string());
    let asked = partition_text.as_deref().map(|partition| ("partition", partition));
    let mut answers = scope::ask_peers(shared, plan, &scope::path_and_query("/v1/extent", asked)).await;
    answers.check_partition(shared, partition)?;
    let theirs = answers.counts::<Extent>(&mut Stats::default());
    lacks.append(&mut answers.lacks);
    let theirs = theirs.into_iter().filter_map(|extent| extent.first.zip(extent.last));
    Ok(theirs.chain(own).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))))
}

/// Counts on all nodes at once, in the same buckets.
async fn count_all(
    shared: &Shared,
    plan: &Plan,
    parameters: &[(String, String)],
    query: HistogramQuery,
    buckets: Buckets,
    mut lacks: Vec<Lack>,
) -> Result<Result<CountsAnswer<Histogram>, PoolError>, ApiError> {
    let [from, to] = [buckets.from_ms, buckets.to_ms].map(|time_ms| time_ms.to_string());
    let step = format!("{}ms", buckets.step_ms);
    let asked = parameters::pairs(parameters)
        .filter(|(name, _)| !matches!(*name, "from" | "to" | "step" | "buckets"));
    let partition = query.filter.partition;
    let asked = asked.chain([("from", from.as_str()), ("to", to.as_str()), ("step", step.as_str())]);
    let path_and_query = scope::path_and_query("/v1/histogram", asked);
    let (own, mut peers) = tokio::join!(
        shared.app.queries.histogram(query.filter, buckets),
        scope::ask_peers(shared, plan, &path_and_query)
    );
    peers.check_partition(shared, partition)?;
    let CountsAnswer { counts, lacks: own_lacks, mut stats } = match own {
        Ok(own) => own,
        Err(error) => return Ok(Err(error)),
    };
    let mut parts = peers.counts(&mut stats);
    parts.push(counts);
    // A node that did not answer the first time need not be named again.
    lacks.extend(own_lacks);
    for lack in peers.lacks {
        if !lacks.contains(&lack) {
            lacks.push(lack);
        }
    }
    Ok(Ok(CountsAnswer { counts: Histogram::merge(parts, buckets), lacks, stats }))
}
