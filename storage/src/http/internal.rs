//! What nodes say to one another, on an address of its own: replicas' requests.
//!
//! Invariant: nobody who does not show the cluster's secret is answered, nor is anything of the body read.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use futures::future::join_all;
use http::StatusCode;
use model::Partition;
use serde::Deserialize;

use crate::limits;
use crate::raft::{Addressed, Answer, Cluster, Group, LightRequest, NodeCard, decode_append};

/// The partition that a request is about.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Of {
    partition: Partition,
}

/// The routes between nodes.
pub fn internal_router(cluster: Arc<Cluster>) -> Router {
    Router::new()
        .route("/raft/light", post(light))
        .route("/raft/append", post(append))
        .layer(DefaultBodyLimit::max(limits::REPLICATE_BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&cluster), check_secret))
        .with_state(cluster)
}

/// `GET /v1/node`: what this node says of itself to others.
pub(super) async fn node(State(shared): State<super::Shared>) -> Result<Json<NodeCard>, super::ApiError> {
    match &shared.app.replication {
        Some(cluster) => Ok(Json(cluster.card())),
        None => Err(super::ApiError::UnknownPath { path: "/v1/node".to_owned() }),
    }
}

async fn check_secret(State(cluster): State<Arc<Cluster>>, request: Request, next: Next) -> Response {
    if cluster.secret().is_shown_by(request.headers()) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// Heartbeats and votes of many groups: each is answered by itself.
async fn light(State(cluster): State<Arc<Cluster>>, body: Bytes) -> Result<Json<Vec<Answer>>, StatusCode> {
    let messages: Vec<Addressed<LightRequest>> =
        serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    if messages.len() > limits::LIGHT_REQUESTS_MAX {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let answers = messages.into_iter().map(|Addressed { partition, message }| {
        let group = cluster.group(partition).cloned();
        async move {
            match group {
                Some(group) => answer_light(&group, message).await,
                None => not_here(partition),
            }
        }
    });
    Ok(Json(join_all(answers).await))
}

async fn answer_light(group: &Group, message: LightRequest) -> Answer {
    match message {
        LightRequest::Append(head) => match group.raft().append_entries(head.into_heartbeat()).await {
            Ok(response) => Answer::of_append(response),
            Err(error) => Answer::Failed(error.to_string()),
        },
        LightRequest::Vote { vote, last } => {
            let request = openraft::raft::VoteRequest::new(vote.into(), last.map(Into::into));
            match group.raft().vote(request).await {
                Ok(response) => Answer::of_vote(response),
                Err(error) => Answer::Failed(error.to_string()),
            }
        }
    }
}

/// Entries with their records.
async fn append(
    State(cluster): State<Arc<Cluster>>,
    Query(Of { partition }): Query<Of>,
    body: Bytes,
) -> Json<Answer> {
    let Some(group) = cluster.group(partition) else { return Json(not_here(partition)) };
    if !group.room().has(body.len()) {
        return Json(Answer::Failed("the disk is full".to_owned()));
    }
    let request = match decode_append(partition, body) {
        Ok(request) => request,
        Err(error) => return Json(Answer::Failed(error.to_string())),
    };
    Json(match group.raft().append_entries(request).await {
        Ok(response) => Answer::of_append(response),
        Err(error) => Answer::Failed(error.to_string()),
    })
}

fn not_here(partition: Partition) -> Answer {
    Answer::Failed(format!("partition {partition} is not named by this node's --partitions"))
}
