//! `GET /v1/services`: the services there are, with the number of their records, by level, and from when to when.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::scope::{self, Scope};
use super::search::{describe, note};
use super::{Shared, parameters};
use crate::clock::unix_now_ms;
use crate::query::{CountQuery, CountsAnswer, Plan, PoolError, ServiceSummary, merge_services};

/// Counts each service's records.
pub(super) async fn services(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let query = CountQuery::parse(parameters::pairs(&parameters), None, unix_now_ms())?;
    let scope = scope::of(&shared, request.headers(), query.filter.partition)?;
    let staleness = scope.staleness(&shared, query.filter.partition);
    let answer = match scope {
        Scope::Cluster(plan) => count_all(&shared, &plan, &parameters, query).await,
        Scope::Node(share) => shared.app.queries.services(query.filter.within(share)).await,
    };
    note(&shared, answer.as_ref().map(|answer| answer.lacks.is_empty()));
    let mut answer = answer?;
    answer.stats.note_staleness(staleness);
    let mut response = axum::Json(answer.counts).into_response();
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    Ok(response)
}

/// Counts on all nodes at once.
async fn count_all(
    shared: &Shared,
    plan: &Plan,
    parameters: &[(String, String)],
    query: CountQuery,
) -> Result<CountsAnswer<Vec<ServiceSummary>>, PoolError> {
    let (from, to) = (query.filter.from_ms.to_string(), query.filter.to_ms.to_string());
    let path_and_query = scope::path_and_query("/v1/services", scope::with_times(parameters, &from, &to));
    let filter = query.filter.within(plan.own.clone());
    let (own, mut peers) =
        tokio::join!(shared.app.queries.services(filter), scope::ask_peers(shared, plan, &path_and_query));
    let CountsAnswer { counts, mut lacks, mut stats } = own?;
    let mut parts = peers.counts(&mut stats);
    parts.push(counts);
    let (counts, merge_lacks) = merge_services(parts);
    lacks.extend(peers.lacks);
    lacks.extend(merge_lacks);
    Ok(CountsAnswer { counts, lacks, stats })
}
