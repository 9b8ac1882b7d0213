//! `GET /v1/context?partition=&offset=&before=&after=`: the records around a record, each with its place.

use axum::extract::{Request, State};
use axum::response::Response;

use super::error::ApiError;
use super::search::{note, records_response};
use super::{Shared, parameters};
use crate::query::{ContextQuery, Format};

/// Reads a record and its neighbours.
pub(super) async fn context(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let query = ContextQuery::parse(parameters::pairs(&parameters))?;
    shared.app.check_partition(Some(query.partition))?;
    let format = parameters::format(request.headers(), Format::Ndjson);
    let answer = shared.app.queries.context(query, format).await;
    note(&shared, answer.as_ref().map(|answer| answer.as_ref().is_none_or(|answer| answer.lacks.is_empty())));
    let missing = ApiError::RecordUnknown { partition: query.partition, offset: query.offset };
    Ok(records_response(answer?.ok_or(missing)?, format))
}
