//! `GET /v1/labels`: the names of labels, and `GET /v1/labels/{name}/values`: a label's values; each with how many of
//! the newest records have it.

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::Uri;
use serde::Serialize;

use super::error::ApiError;
use super::search::{describe, note};
use super::{Shared, parameters};
use crate::clock::unix_now_ms;
use crate::limits;
use crate::query::{CountQuery, Counted, CountsAnswer, merge_counted};

/// A value of a label.
#[derive(Serialize)]
struct ValueCount {
    value: String,
    records: u64,
}

/// Counts the names of labels.
pub(super) async fn names(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let (limit, answer) = count(&shared, request.uri().clone(), None).await?;
    let mut response = axum::Json(merge_counted(vec![answer.counts], limit)).into_response();
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    Ok(response)
}

/// Counts the values of a label.
pub(super) async fn values(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (limit, answer) = count(&shared, request.uri().clone(), Some(name)).await?;
    let counted = merge_counted(vec![answer.counts], limit).into_iter();
    let values: Vec<ValueCount> =
        counted.map(|Counted { name, records }| ValueCount { value: name, records }).collect();
    let mut response = axum::Json(values).into_response();
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    Ok(response)
}

async fn count(
    shared: &Shared,
    uri: Uri,
    of: Option<String>,
) -> Result<(usize, CountsAnswer<Vec<Counted>>), ApiError> {
    let parameters = parameters::decode(&uri)?;
    let limit = Some(limits::LABELS_LISTED_DEFAULT);
    let query = CountQuery::parse(parameters::pairs(&parameters), limit, unix_now_ms())?;
    let answer = shared.app.queries.labels(query.filter, of).await;
    note(shared, answer.as_ref().map(|answer| answer.lacks.is_empty()));
    Ok((query.limit, answer?))
}
