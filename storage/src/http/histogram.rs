//! `GET /v1/histogram`: how many records pass every filter in each piece of a time, by level.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::search::{describe, note};
use super::{Shared, parameters};
use crate::clock::unix_now_ms;
use crate::query::HistogramQuery;

/// Counts.
pub(super) async fn histogram(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let query = HistogramQuery::parse(parameters::pairs(&parameters), unix_now_ms())?;
    shared.app.check_partition(query.filter.partition)?;
    let buckets = query.buckets(shared.app.queries.extent(query.filter.partition))?;
    let answer = shared.app.queries.histogram(query.filter, buckets).await;
    note(&shared, answer.as_ref().map(|answer| answer.lacks.is_empty()));
    let answer = answer?;
    let mut response = axum::Json(answer.counts).into_response();
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    Ok(response)
}
