//! `GET /v1/search?service=&level=&contains=&limit=&partition=`: the newest records that pass every filter, newest
//! first, over all partitions of this node.
//!
//! Newline-delimited JSON, or a JSON array for `Accept: application/json`; each record byte for byte as stored. An
//! answer that lacks something names it in `Partial`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use model::wire;

use super::error::ApiError;
use super::{Shared, parameters};
use crate::query::{Format, Query};

/// Searches.
pub(super) async fn search(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let query = Query::parse(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    if let Some(partition) = query.partition
        && shared.app.partition(partition).is_none()
    {
        return Err(ApiError::PartitionUnknown { partition, held: shared.app.held() });
    }
    let format = parameters::format(request.headers(), Format::Ndjson);
    let answer = shared.app.queries.search(query, format).await;
    shared.app.metrics.note_query(match &answer {
        Ok(answer) if answer.lacks.is_empty() => "whole",
        Ok(_) => "partial",
        Err(_) => "refused",
    });
    let answer = answer?;
    let content_type = HeaderValue::from_static(format.content_type());
    let mut response = ([(CONTENT_TYPE, content_type)], Body::from(answer.body)).into_response();
    name_lacks(&mut response, answer.lacks.iter().map(ToString::to_string));
    Ok(response)
}

/// Says in the header `Partial` what the answer lacks, if anything.
pub(super) fn name_lacks(response: &mut Response, lacks: impl Iterator<Item = String>) {
    let lacks: Vec<String> = lacks.collect();
    if lacks.is_empty() {
        return;
    }
    let value = HeaderValue::from_str(&lacks.join(", ")).unwrap_or(HeaderValue::from_static("yes"));
    response.headers_mut().insert(HeaderName::from_static(wire::PARTIAL), value);
}
