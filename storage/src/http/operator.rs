//! What an operator asks of a running cluster: that a node is drained, that a replica is moved. On the address for other
//! nodes, behind the cluster's secret: who may change the cluster is who may be part of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use model::problem::{self, Problem};
use model::{Partition, wire};
use serde::Deserialize;
use serde_json::json;

use crate::raft::{Cluster, Move, MoveError};

/// When a move that others are in the way of is worth another try.
const RETRY_AFTER_BUSY: Duration = Duration::from_secs(1);

/// The replica to move, and where to: nodes by their names or URLs.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Wish {
    partition: Partition,
    from: String,
    to: String,
}

/// Why an operator's wish is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Move(#[from] MoveError),
    #[error("{0}")]
    Query(#[from] QueryRejection),
}

/// `PUT /cluster/drain`: this node is to hold nothing.
pub(super) async fn drain(State(cluster): State<Arc<Cluster>>) -> Result<Response, Refusal> {
    set_draining(&cluster, true)
}

/// `DELETE /cluster/drain`: it may hold replicas again.
pub(super) async fn undrain(State(cluster): State<Arc<Cluster>>) -> Result<Response, Refusal> {
    set_draining(&cluster, false)
}

fn set_draining(cluster: &Cluster, draining: bool) -> Result<Response, Refusal> {
    cluster.set_draining(draining)?;
    Ok(Json(json!({ "draining": draining })).into_response())
}

/// `POST /cluster/move`: a replica is to be on another node. Asked again it tells how that stands.
pub(super) async fn move_replica(
    State(cluster): State<Arc<Cluster>>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Wish { partition, from, to }) = wish?;
    Ok(match cluster.move_replica(partition, &from, &to)? {
        Move::Done => (StatusCode::OK, Json(json!({ "state": "done" }))),
        Move::UnderWay => (StatusCode::ACCEPTED, Json(json!({ "state": "moving" }))),
    }
    .into_response())
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Query(_) => StatusCode::BAD_REQUEST,
            Self::Move(error) => match error {
                MoveError::NoPartition(_) | MoveError::Unknown { .. } => StatusCode::NOT_FOUND,
                MoveError::NotLeader { .. } => StatusCode::MISDIRECTED_REQUEST,
                MoveError::NotThere(_)
                | MoveError::ThereAlready(_)
                | MoveError::Unfit(_)
                | MoveError::TooFew { .. } => StatusCode::CONFLICT,
                MoveError::Unsettled | MoveError::Busy(_) | MoveError::Disk(_) => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            },
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let problem = Problem::new(status.as_u16(), self.to_string());
        let content_type = HeaderValue::from_static(problem::CONTENT_TYPE);
        let mut response = (status, [(CONTENT_TYPE, content_type)], problem.to_json()).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_BUSY.as_secs()));
        }
        if let Self::Move(MoveError::NotLeader { leader: Some(leader), .. }) = &self
            && let Ok(leader) = HeaderValue::from_str(leader)
        {
            response.headers_mut().insert(HeaderName::from_static(wire::LEADER), leader);
        }
        response
    }
}
