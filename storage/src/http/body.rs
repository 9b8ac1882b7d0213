//! A request's body in one buffer: bounded in bytes and time, under the process's byte budget.
//!
//! Invariant: the bytes of all bodies that are being received, checked or queued never exceed the budget.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use model::limits::APPEND_BODY_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::ApiError;
use crate::limits;

/// The process's bytes for bodies.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget {
    bytes: Arc<Semaphore>,
}

/// A body that has arrived, and its share of the budget.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) bytes: Bytes,
    pub(super) share: OwnedSemaphorePermit,
}

impl BodyBudget {
    /// A budget of so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes_max.min(Semaphore::MAX_PERMITS))) }
    }

    /// Takes a share of the budget, waiting for it for a moment.
    async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let bytes = u32::try_from(bytes).map_err(|_too_large| ApiError::BodyTooLarge)?;
        if let Ok(share) = Arc::clone(&self.bytes).try_acquire_many_owned(bytes) {
            return Ok(share);
        }
        let share = Arc::clone(&self.bytes).acquire_many_owned(bytes);
        match timeout(limits::BODY_BUDGET_WAIT_MAX, share).await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_closed)) => Err(ApiError::BodyBudget),
            Err(_elapsed) => Err(ApiError::BodyBudget),
        }
    }

    /// Receives a body of at most [`APPEND_BODY_BYTES_MAX`] bytes within `time_max`.
    ///
    /// # Errors
    /// When it is too large, too slow, breaks off, or there is no room for it; what the client still sends is thrown
    /// away then, so that it gets to read the answer.
    pub(super) async fn collect(&self, mut body: Body, time_max: Duration) -> Result<Collected, ApiError> {
        let deadline = Instant::now() + time_max;
        match self.receive(&mut body, deadline).await {
            Ok(collected) => Ok(collected),
            Err(error) => {
                if matches!(error, ApiError::BodyTooLarge | ApiError::BodyBudget) {
                    discard(body).await;
                }
                Err(error)
            }
        }
    }

    async fn receive(&self, body: &mut Body, deadline: Instant) -> Result<Collected, ApiError> {
        let announced = body.size_hint().exact();
        let capacity = match announced {
            Some(length) => usize::try_from(length).ok().filter(|length| *length <= APPEND_BODY_BYTES_MAX),
            None => Some(limits::BODY_BYTES_UNANNOUNCED),
        };
        let capacity = capacity.ok_or(ApiError::BodyTooLarge)?;
        let mut share = self.take(capacity).await?;
        let mut buffer: Vec<u8> = Vec::with_capacity(capacity);
        while let Some(data) = next_data(body, deadline).await? {
            if buffer.is_empty() && announced == Some(data.len() as u64) {
                // All of it came in one read: it need not be copied.
                return Ok(Collected { bytes: data, share });
            }
            let length = buffer.len() + data.len();
            if length > APPEND_BODY_BYTES_MAX {
                return Err(ApiError::BodyTooLarge);
            }
            if length > buffer.capacity() {
                // Only a body of unannounced length comes here.
                let grown = length.next_power_of_two().min(APPEND_BODY_BYTES_MAX);
                share.merge(self.take(grown - buffer.capacity()).await?);
                buffer.reserve_exact(grown - buffer.len());
            }
            buffer.extend_from_slice(&data);
        }
        Ok(Collected { bytes: buffer.into(), share })
    }
}

/// Reads and throws away what a client still sends, within bounds. A client that sends everything before it looks
/// for an answer would else meet a reset instead of it.
pub(super) async fn discard(mut body: Body) {
    let deadline = Instant::now() + limits::DISCARD_TIME_MAX;
    let mut left = limits::DISCARD_BYTES_MAX;
    while let Ok(Some(data)) = next_data(&mut body, deadline).await {
        left = left.saturating_sub(data.len() as u64);
        if left == 0 {
            return;
        }
    }
}

/// Whether the client waits to be asked for its body: then a refusal need not read it.
pub(super) fn is_held_back(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

async fn next_data(body: &mut Body, deadline: Instant) -> Result<Option<Bytes>, ApiError> {
    loop {
        match timeout_at(deadline, body.frame()).await {
            Err(_elapsed) => return Err(ApiError::BodyTimeout),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                return Err(ApiError::BodyBrokeOff { reason: Arc::from(error.to_string()) });
            }
            // Trailers say nothing to us.
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
