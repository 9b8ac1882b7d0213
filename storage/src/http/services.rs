//! `GET /v1/services`: the services there are, with the number of their records, by level, and from when to when.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::search::{describe, note};
use super::{Shared, parameters};
use crate::clock::unix_now_ms;
use crate::query::CountQuery;

/// Counts each service's records.
pub(super) async fn services(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let query = CountQuery::parse(parameters::pairs(&parameters), None, unix_now_ms())?;
    let answer = shared.app.queries.services(query.filter).await;
    note(&shared, answer.as_ref().map(|answer| answer.lacks.is_empty()));
    let answer = answer?;
    let mut response = axum::Json(answer.counts).into_response();
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    Ok(response)
}
