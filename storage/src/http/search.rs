//! `GET /v1/search`: the first records, newest first unless asked otherwise, that pass every filter.
//!
//! Newline-delimited JSON, or a JSON array for `Accept: application/json`; each record byte for byte as stored, or
//! with its place for `fields=meta`. `Next-Cursor` says where to go on, `Query-Stats` what the answer took, `Partial`
//! what it lacks.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::wire;

use super::error::ApiError;
use super::{Shared, parameters};
use crate::clock::unix_now_ms;
use crate::query::{Format, Lack, PoolError, Query, RecordsAnswer, Stats};

const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");
const QUERY_STATS: HeaderName = HeaderName::from_static("query-stats");

/// Searches.
pub(super) async fn search(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let query = Query::parse(parameters::pairs(&parameters), unix_now_ms())?;
    shared.app.check_partition(query.filter.partition)?;
    let format = parameters::format(request.headers(), Format::Ndjson);
    let answer = shared.app.queries.search(query, format).await;
    note(&shared, answer.as_ref().map(|answer| answer.lacks.is_empty()));
    Ok(records_response(answer?, format))
}

/// An answer of records.
pub(super) fn records_response(answer: RecordsAnswer, format: Format) -> Response {
    let content_type = HeaderValue::from_static(format.content_type());
    let mut response = ([(CONTENT_TYPE, content_type)], Body::from(answer.body)).into_response();
    if let Some(next) = answer.next.and_then(|next| HeaderValue::from_str(&next.to_string()).ok()) {
        response.headers_mut().insert(NEXT_CURSOR, next);
    }
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    response
}

/// Says in headers what an answer lacks, if anything, and what it took.
pub(super) fn describe(headers: &mut HeaderMap, lacks: &[Lack], stats: &Stats) {
    if let Ok(stats) = HeaderValue::from_str(&stats.to_string()) {
        headers.insert(QUERY_STATS, stats);
    }
    if !lacks.is_empty() {
        let lacks: Vec<String> = lacks.iter().map(ToString::to_string).collect();
        let value = HeaderValue::from_str(&lacks.join(", ")).unwrap_or(HeaderValue::from_static("yes"));
        headers.insert(HeaderName::from_static(wire::PARTIAL), value);
    }
}

/// Counts a query by its outcome.
pub(super) fn note(shared: &Shared, is_whole: Result<bool, &PoolError>) {
    shared.app.metrics.note_query(match is_whole {
        Ok(true) => "whole",
        Ok(false) => "partial",
        Err(_) => "refused",
    });
}
