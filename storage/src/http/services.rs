//! `GET /v1/services`: the services of this node's records and how many each has, by name.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::error::ApiError;
use super::search::name_lacks;

/// Counts each service's records.
pub(super) async fn services(State(shared): State<Shared>) -> Result<Response, ApiError> {
    let answer = shared.app.queries.services().await?;
    let mut response = axum::Json(answer.services).into_response();
    name_lacks(&mut response, answer.lacks.iter().map(ToString::to_string));
    Ok(response)
}
