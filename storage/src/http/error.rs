//! Every way a request can fail, and the one place that says which status that is.
//!
//! Answers are problem JSON (RFC 9457).

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use model::batches::{BATCHES, BatchesError};
use model::limits::APPEND_BODY_BYTES_MAX;
use model::problem::{self, Problem};
use model::{BatchError, Offset, Partition, wire};

use crate::limits;
use crate::offsets::OffsetsError;
use crate::partition::AppendError;
use crate::query::{ParameterError, PoolError};
use crate::raft::{CommitError, ReadError};

/// Why a request is not answered as it wishes.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("there is nothing at {path}")]
    UnknownPath { path: String },
    #[error("{path} does not take {method}")]
    MethodNotAllowed { path: String, method: String, allow: &'static str },
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error("{detail}")]
    Header { name: &'static str, detail: String },
    #[error("partition {partition} is not held by this node, which holds {held}")]
    PartitionElsewhere { partition: Partition, held: String, leader: Option<HeaderValue> },
    #[error("partition {partition} is not held by this node, which holds {held}")]
    PartitionUnknown { partition: Partition, held: String },
    #[error("partition {partition} has no record at offset {offset}, or has none any more")]
    RecordUnknown { partition: Partition, offset: Offset },
    #[error("as many live tails are followed already as this node serves")]
    TailsFull,
    #[error("{detail}")]
    PeerSilent { detail: String },
    #[error("the body is neither application/json nor application/x-ndjson")]
    MediaType,
    #[error("the body is not {BATCHES}")]
    MediaTypeBatches,
    #[error(transparent)]
    Batches(#[from] BatchesError),
    #[error("the body is larger than {APPEND_BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("the body did not arrive in time")]
    BodyTimeout,
    #[error("the body broke off: {reason}")]
    BodyBrokeOff { reason: Arc<str> },
    #[error("the body is empty")]
    BodyEmpty,
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("as many bytes as this node takes at once are being received already")]
    BodyBudget,
    #[error("this address has sent more than its share of bytes a second")]
    PeerRate { retry_after: Duration },
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the partition takes too long; the batch may come to be stored")]
    AppendSlow,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("the node is not ready: {}", .reasons.join("; "))]
    NotReady { reasons: Vec<String> },
}

impl ApiError {
    /// The status of each error.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::UnknownPath { .. } | Self::PartitionUnknown { .. } | Self::RecordUnknown { .. } => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Parameter(_) | Self::Header { .. } => StatusCode::BAD_REQUEST,
            Self::BodyBrokeOff { .. } | Self::BodyEmpty | Self::Batch(_) | Self::Batches(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::PartitionElsewhere { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::Offsets(OffsetsError::TooMany) => StatusCode::CONFLICT,
            Self::Offsets(OffsetsError::Io { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Offsets(OffsetsError::Idle) => StatusCode::TOO_MANY_REQUESTS,
            Self::TailsFull => StatusCode::TOO_MANY_REQUESTS,
            Self::PeerSilent { .. } => StatusCode::BAD_GATEWAY,
            Self::MediaType | Self::MediaTypeBatches => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBudget | Self::PeerRate { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Append(error) => match error {
                AppendError::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
                AppendError::Conflict => StatusCode::CONFLICT,
                AppendError::NotLeader { .. } => StatusCode::MISDIRECTED_REQUEST,
                AppendError::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
                AppendError::Stopped { .. }
                | AppendError::Failed { .. }
                | AppendError::NoQuorum
                | AppendError::Closing => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Read(ReadError::NotLeader { .. }) => StatusCode::MISDIRECTED_REQUEST,
            Self::Read(ReadError::NoQuorum | ReadError::Stopped { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Pool(PoolError::Busy { .. }) => StatusCode::TOO_MANY_REQUESTS,
            Self::Pool(PoolError::BrokenOff) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotReady { .. } | Self::AppendSlow => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// When the same request may succeed, where waiting helps.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::PeerRate { retry_after }
            | Self::Append(AppendError::QueueFull { retry_after })
            | Self::Pool(PoolError::Busy { retry_after }) => Some(*retry_after),
            Self::TailsFull => Some(limits::TAILS_RETRY_AFTER),
            Self::BodyBudget
            | Self::AppendSlow
            | Self::Read(ReadError::NoQuorum)
            | Self::Append(AppendError::Failed { .. } | AppendError::NoQuorum | AppendError::Closing) => {
                Some(Duration::from_secs(1))
            }
            Self::Offsets(OffsetsError::Io { .. } | OffsetsError::Idle) => Some(Duration::from_secs(10)),
            // Somebody has to make room, or to restart the node.
            Self::Append(AppendError::DiskFull | AppendError::Stopped { .. })
            | Self::Read(ReadError::Stopped { .. }) => Some(Duration::from_secs(10)),
            _ => None,
        }
    }

    /// The same in seconds, as it is answered.
    pub(super) fn retry_after_s(&self) -> Option<u64> {
        self.retry_after().map(seconds_rounded_up)
    }

    /// A short name for metrics, one of a fixed set.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::UnknownPath { .. } => "unknown_path",
            Self::MethodNotAllowed { .. } => "method",
            Self::Parameter(_) => "parameter",
            Self::Header { .. } => "header",
            Self::PartitionElsewhere { .. } | Self::PartitionUnknown { .. } => "partition_not_here",
            Self::RecordUnknown { .. } => "record_unknown",
            Self::TailsFull => "tails_full",
            Self::PeerSilent { .. } => "peer_silent",
            Self::MediaType | Self::MediaTypeBatches => "media_type",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyBrokeOff { .. } => "body_broke_off",
            Self::BodyEmpty => "body_empty",
            Self::Offsets(_) => "offsets",
            Self::Batch(_) | Self::Batches(_) => "invalid_batch",
            Self::BodyBudget => "body_budget",
            Self::PeerRate { .. } => "peer_rate",
            Self::AppendSlow => "slow",
            Self::Append(error) => match error {
                AppendError::QueueFull { .. } => "queue_full",
                AppendError::Conflict => "conflict",
                AppendError::DiskFull => "disk_full",
                AppendError::Stopped { .. } => "stopped",
                AppendError::Failed { .. } => "failed",
                AppendError::NotLeader { .. } => "not_leader",
                AppendError::NoQuorum => "no_quorum",
                AppendError::Closing => "closing",
            },
            Self::Read(ReadError::NotLeader { .. }) => "not_leader",
            Self::Read(ReadError::NoQuorum) => "no_quorum",
            Self::Read(ReadError::Stopped { .. }) => "stopped",
            Self::Pool(PoolError::Busy { .. }) => "busy",
            Self::Pool(PoolError::BrokenOff) => "broken_off",
            Self::NotReady { .. } => "not_ready",
        }
    }

    /// Where the request belongs, if that is known.
    pub(super) fn leader(&self) -> Option<HeaderValue> {
        match self {
            Self::PartitionElsewhere { leader, .. } => leader.clone(),
            Self::Append(AppendError::NotLeader { leader }) | Self::Read(ReadError::NotLeader { leader }) => {
                HeaderValue::from_str(leader.as_deref()?).ok()
            }
            _ => None,
        }
    }

    pub(super) fn problem(&self) -> Problem {
        if let Self::Batch(error) = self {
            return error.problem();
        }
        let problem = Problem::new(self.status().as_u16(), self.to_string());
        match self {
            Self::Parameter(error) => problem.in_field(&error.name),
            Self::Header { name, .. } => problem.in_field(*name),
            Self::PartitionElsewhere { .. } | Self::PartitionUnknown { .. } => problem.in_field("partition"),
            Self::RecordUnknown { .. } => problem.in_field("offset"),
            _ => problem,
        }
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::NotAgreed(error) => error.into(),
            CommitError::TooMany => OffsetsError::TooMany.into(),
            CommitError::Idle => OffsetsError::Idle.into(),
            CommitError::DiskFull => AppendError::DiskFull.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = HeaderValue::from_static(problem::CONTENT_TYPE);
        let mut response = (status, [(CONTENT_TYPE, content_type)], problem.to_json()).into_response();
        if let Some(retry_after_s) = self.retry_after_s() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
        }
        if let Some(leader) = self.leader() {
            response.headers_mut().insert(HeaderName::from_static(wire::LEADER), leader);
        }
        if let Self::MethodNotAllowed { allow, .. } = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// Whole seconds, at least one: a client that comes back too early comes back twice.
fn seconds_rounded_up(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}
