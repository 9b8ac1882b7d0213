//! `GET /v1/labels`: the names of labels, and `GET /v1/labels/{name}/values`: a label's values; each with how many of
//! the newest records have it.

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use model::limits::QUERY_LIMIT_MAX;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::scope::{self, Scope};
use super::search::{describe, note};
use super::{Shared, parameters};
use crate::clock::unix_now_ms;
use crate::limits;
use crate::query::{CountQuery, Counted, CountsAnswer, Plan, PoolError, merge_counted};

/// A value of a label.
#[derive(Serialize, Deserialize)]
struct ValueCount {
    value: String,
    records: u64,
}

/// Counts the names of labels.
pub(super) async fn names(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let answer = count(&shared, request.into_parts().0, None).await?;
    let mut response = axum::Json(answer.counts).into_response();
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    Ok(response)
}

/// Counts the values of a label.
pub(super) async fn values(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let answer = count(&shared, request.into_parts().0, Some(name)).await?;
    let values: Vec<ValueCount> = answer.counts.into_iter().map(ValueCount::from).collect();
    let mut response = axum::Json(values).into_response();
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    Ok(response)
}

async fn count(
    shared: &Shared,
    request: Parts,
    of: Option<String>,
) -> Result<CountsAnswer<Vec<Counted>>, ApiError> {
    let parameters = parameters::decode(&request.uri)?;
    let limit = Some(limits::LABELS_LISTED_DEFAULT);
    let query = CountQuery::parse(parameters::pairs(&parameters), limit, unix_now_ms())?;
    let limit = query.limit;
    let scope = scope::of(shared, &request.headers, query.filter.partition)?;
    let staleness = scope.staleness(shared, query.filter.partition);
    let answer = match scope {
        Scope::Cluster(plan) => count_all(shared, &plan, &parameters, query, of).await,
        Scope::Node(share) => shared.app.queries.labels(query.filter.within(share), of).await,
    };
    note(shared, answer.as_ref().map(|answer| answer.lacks.is_empty()));
    let CountsAnswer { counts, lacks, mut stats } = answer?;
    stats.note_staleness(staleness);
    Ok(CountsAnswer { counts: merge_counted(vec![counts], limit), lacks, stats })
}

/// Counts on all nodes at once. Of each the most frequent are asked for, as many as one may answer with.
async fn count_all(
    shared: &Shared,
    plan: &Plan,
    parameters: &[(String, String)],
    query: CountQuery,
    of: Option<String>,
) -> Result<CountsAnswer<Vec<Counted>>, PoolError> {
    let (from, to) = (query.filter.from_ms.to_string(), query.filter.to_ms.to_string());
    let limit = QUERY_LIMIT_MAX.to_string();
    let asked = scope::with_times(parameters, &from, &to).filter(|(name, _)| *name != "limit");
    let path = match &of {
        Some(name) => format!("/v1/labels/{}/values", utf8_percent_encode(name, NON_ALPHANUMERIC)),
        None => "/v1/labels".to_owned(),
    };
    let path_and_query = scope::path_and_query(&path, asked.chain([("limit", limit.as_str())]));
    let are_values = of.is_some();
    let filter = query.filter.within(plan.own.clone());
    let (own, mut peers) =
        tokio::join!(shared.app.queries.labels(filter, of), scope::ask_peers(shared, plan, &path_and_query));
    let CountsAnswer { counts, mut lacks, mut stats } = own?;
    let mut parts: Vec<Vec<Counted>> = if are_values {
        let values = peers.counts::<Vec<ValueCount>>(&mut stats).into_iter();
        values.map(|values| values.into_iter().map(Counted::from).collect()).collect()
    } else {
        peers.counts(&mut stats)
    };
    parts.push(counts);
    lacks.extend(peers.lacks);
    Ok(CountsAnswer { counts: merge_counted(parts, usize::MAX), lacks, stats })
}

impl From<Counted> for ValueCount {
    fn from(Counted { name, records }: Counted) -> Self {
        Self { value: name, records }
    }
}

impl From<ValueCount> for Counted {
    fn from(ValueCount { value, records }: ValueCount) -> Self {
        Self { name: value, records }
    }
}
