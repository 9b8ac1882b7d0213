//! What nodes say to one another, on an address of its own: replicas' requests, and what an operator asks of a cluster.
//!
//! Invariant: nobody who does not show the cluster's secret is answered, nor is anything of the body read.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use futures::future::join_all;
use http::StatusCode;
use model::Partition;
use openraft::raft::VoteRequest;
use serde::Deserialize;

use super::operator;
use crate::limits;
use crate::log::{LogError, Manifest};
use crate::raft::{
    Addressed, Answer, Cluster, Group, Introduction, LightRequest, NodeCard, Offer, PieceOf, SavedVote,
};

/// The partition that a request is about.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Of {
    partition: Partition,
}

/// An entry of a partition.
#[derive(Clone, Copy, Debug, Deserialize)]
struct UpTo {
    partition: Partition,
    index: u64,
}

/// The routes between nodes.
pub fn internal_router(cluster: Arc<Cluster>) -> Router {
    Router::new()
        .route("/raft/light", post(light))
        .route("/raft/heir", post(heir))
        .route("/raft/candidacy", post(candidacy))
        .route("/raft/append", post(append))
        .route("/raft/snapshot", post(snapshot))
        .route("/raft/manifest", get(manifest))
        .route("/raft/segment", get(segment))
        .route("/cluster/node", get(own_card))
        .route("/cluster/nodes", post(introduce))
        .route("/cluster/drain", put(operator::drain).delete(operator::undrain))
        .route("/cluster/move", post(operator::move_replica))
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

/// The same where only nodes are answered.
async fn own_card(State(cluster): State<Arc<Cluster>>) -> Json<NodeCard> {
    Json(cluster.card())
}

async fn check_secret(State(cluster): State<Arc<Cluster>>, request: Request, next: Next) -> Response {
    // Where there is no secret a page in a browser on this machine must not pass for a node.
    let is_of_page = request.headers().contains_key(http::header::ORIGIN);
    if cluster.secret().is_shown_by(request.headers()) && !is_of_page {
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
        LightRequest::Append(head) => group.answer_append(head.into_heartbeat()).await,
        LightRequest::Vote { vote, last } => {
            group.answer_vote(VoteRequest::new(vote.into(), last.map(Into::into))).await
        }
    }
}

/// A leader that goes asks whether this replica could follow it.
async fn heir(
    State(cluster): State<Arc<Cluster>>,
    Query(Of { partition }): Query<Of>,
    body: Bytes,
) -> Result<Json<Answer>, StatusCode> {
    let leader: SavedVote = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(Json(match cluster.group(partition) {
        Some(group) => group.answer_heir(leader),
        None => not_here(partition),
    }))
}

/// A leader that has given up its lead has this replica stand for election.
async fn candidacy(
    State(cluster): State<Arc<Cluster>>,
    Query(Of { partition }): Query<Of>,
    body: Bytes,
) -> Result<Json<Answer>, StatusCode> {
    let leader: SavedVote = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(Json(match cluster.group(partition) {
        Some(group) => group.answer_call_up(leader).await,
        None => not_here(partition),
    }))
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
    Json(group.answer_entries(body).await)
}

/// A leader has a snapshot: it is copied, which takes as long as it takes.
async fn snapshot(
    State(cluster): State<Arc<Cluster>>,
    Query(Of { partition }): Query<Of>,
    body: Bytes,
) -> Result<Json<Answer>, StatusCode> {
    let Some(group) = cluster.group(partition) else { return Ok(Json(not_here(partition))) };
    let offer: Offer = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(Json(match group.receive(cluster.client(), offer).await {
        Ok(vote) => Answer::HigherVote(vote.into()),
        Err(why) => {
            tracing::warn!(%partition, %why, "the leader's segments were not copied; it is tried again");
            Answer::Failed(why)
        }
    }))
}

/// The segments of this node's log up to an entry.
async fn manifest(
    State(cluster): State<Arc<Cluster>>,
    Query(UpTo { partition, index }): Query<UpTo>,
) -> Result<Json<Manifest>, StatusCode> {
    let group = cluster.group(partition).ok_or(StatusCode::NOT_FOUND)?;
    let manifest = group.store().shared().manifest(index).await;
    manifest.map(Json).map_err(|error| failed(partition, &error))
}

/// A piece of a segment.
async fn segment(
    State(cluster): State<Arc<Cluster>>,
    Query(of): Query<PieceOf>,
) -> Result<Bytes, StatusCode> {
    let group = cluster.group(of.partition).ok_or(StatusCode::NOT_FOUND)?;
    let piece = group.store().shared().piece(of).await;
    piece.map_err(|error| failed(of.partition, &error))?.ok_or(StatusCode::NOT_FOUND)
}

/// Another node says whom it knows, and hears whom this one does.
async fn introduce(
    State(cluster): State<Arc<Cluster>>,
    body: Bytes,
) -> Result<Json<Introduction>, StatusCode> {
    if body.len() > limits::NODE_ANSWER_BYTES_MAX {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let told: Introduction = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    cluster.hear_of(&told);
    Ok(Json(cluster.introduction()))
}

fn failed(partition: Partition, error: &LogError) -> StatusCode {
    tracing::warn!(%partition, %error, "another replica's copy cannot go on");
    StatusCode::INTERNAL_SERVER_ERROR
}

fn not_here(partition: Partition) -> Answer {
    Answer::Failed(format!("partition {partition} is not named by this node's --partitions"))
}
