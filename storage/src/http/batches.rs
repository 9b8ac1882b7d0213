//! `POST /v1/storage/batches`: stores batches of several partitions, each as `POST /v1/storage` would.
//!
//! Invariant: each batch is stored or not by itself, and the answer says of each what the other route would have answered;
//! one that keeps its partition waiting does not keep the others from being answered in time. What a request costs whatever
//! is in it is paid once.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use model::ValidBatch;
use model::batches::{self, BATCHES, BatchAnswer, BatchHead, BatchesAnswer};
use model::limits::APPEND_AGREED_TIME_MAX;
use model::wire::{AppendAnswer, Durability};
use serde_json::value::to_raw_value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::append::{acks, aside, held, reached, receive};
use super::error::ApiError;
use super::{Shared, observe, parameters, refuse};
use crate::partition::Append;

/// Stores batches.
pub(super) async fn append(State(shared): State<Shared>, request: Request) -> Response {
    match store(&shared, request).await {
        Ok(answer) => {
            // Whoever counts statuses sees where something is wrong.
            let is_all = answer.batches.iter().all(|batch| batch.status == 200);
            let status = if is_all { StatusCode::OK } else { StatusCode::MULTI_STATUS };
            (status, Json(answer)).into_response()
        }
        Err(error) => {
            shared.app.metrics.note_rejection(error.reason());
            error.into_response()
        }
    }
}

async fn store(shared: &Shared, request: Request) -> Result<BatchesAnswer, ApiError> {
    let (parts, body) = request.into_parts();
    let acks = match check_head(&parts) {
        Ok(acks) => acks,
        Err(error) => return Err(refuse(Request::from_parts(parts, body), error).await),
    };
    let (bytes, share) = receive(shared, &parts, body).await?;
    let check = move || {
        let found = batches::split(bytes)?;
        Ok(found.into_iter().map(|(head, lines)| (head, ValidBatch::from_ndjson(lines))).collect::<Vec<_>>())
    };
    let checked = aside(share.num_permits(), check).await?.map_err(ApiError::Batches)?;
    let (ingest, share) = (observe::ingest_node(&parts.headers), Arc::new(share));
    let deadline = Instant::now() + APPEND_AGREED_TIME_MAX;
    let answers = checked.into_iter().map(async |(head, batch)| {
        let stored = match batch {
            Ok(batch) => {
                let stored = store_one(shared, ingest, head, batch, acks, Arc::clone(&share));
                timeout_at(deadline, stored).await.unwrap_or(Err(ApiError::AppendSlow))
            }
            Err(error) => Err(error.into()),
        };
        answer(shared, head, stored)
    });
    let batches = join_all(answers).await;
    if let Some(batch) = batches.iter().find(|batch| batch.status >= 500) {
        let trace = observe::trace_of(&parts.headers);
        let trace_id = trace.as_ref().map(|trace| tracing::field::display(trace.trace_id()));
        let (partition, status, body) = (batch.partition.get(), batch.status, batch.body.get());
        tracing::warn!(trace_id, partition, status, body, "a batch among others was not stored");
    }
    Ok(BatchesAnswer { batches })
}

/// How far the client wants its batches to have got when it is answered, if it says.
fn check_head(parts: &Parts) -> Result<Option<Durability>, ApiError> {
    let [] = parameters::take(&parts.uri, [])?;
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !parameters::media_range_is(content_type.unwrap_or_default(), BATCHES) {
        return Err(ApiError::MediaTypeBatches);
    }
    acks(&parts.headers)
}

/// Stores one of them; the level that it reached, and what there is to say of it.
async fn store_one(
    shared: &Shared,
    ingest: Option<&str>,
    head: BatchHead,
    batch: ValidBatch,
    acks: Option<Durability>,
    share: Arc<OwnedSemaphorePermit>,
) -> Result<(Durability, AppendAnswer), ApiError> {
    let partition = held(shared, head.partition)?;
    let BatchHead { id, digest, .. } = head;
    let append = Append { batch, id, digest, id_is_new: false, acks, budget: Some(share) };
    let appended = partition.append(append).await?;
    shared.app.metrics.ingest.note_taken(ingest, appended.record_count, head.bytes);
    let answer = AppendAnswer { stored: appended.record_count.into(), offset: appended.base_offset };
    Ok((appended.durability, answer))
}

fn answer(
    shared: &Shared,
    head: BatchHead,
    stored: Result<(Durability, AppendAnswer), ApiError>,
) -> BatchAnswer {
    let text = |value: http::HeaderValue| value.to_str().ok().map(str::to_owned);
    let (status, durability, leader, retry_after, body) = match stored {
        Ok((durability, answer)) => {
            (StatusCode::OK, text(reached(shared, durability)), None, None, to_raw_value(&answer))
        }
        Err(error) => {
            shared.app.metrics.note_rejection(error.reason());
            let leader = error.leader().and_then(text);
            (error.status(), None, leader, error.retry_after_s(), to_raw_value(&error.problem()))
        }
    };
    // Plain values: there is nothing in them that JSON cannot say.
    let body = body.unwrap_or_default();
    BatchAnswer { partition: head.partition, status: status.as_u16(), durability, leader, retry_after, body }
}
