//! Requests from node to node: kept-alive connections, bounded answers, a time-out for each.
//!
//! Must not know what is said.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::secret::Secret;
use crate::limits;

/// Asks other nodes.
#[derive(Clone, Debug)]
pub struct NodeClient {
    client: Client<HttpConnector, Pieces>,
    secret: Secret,
}

/// Why another node's answer was not had.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The URL cannot be called.
    #[error("it is not a URL that can be called: {0}")]
    Url(#[from] http::Error),
    /// It was too slow.
    #[error("it did not answer in time")]
    TimedOut,
    /// There is no connection.
    #[error("it could not be reached: {0}")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    /// It said no.
    #[error("it answered {0}")]
    Refused(StatusCode),
    /// The answer broke off, or was too large.
    #[error("its answer broke off: {0}")]
    BrokeOff(Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not what was asked for.
    #[error("its answer cannot be read: {0}")]
    Garbled(#[from] serde_json::Error),
}

/// A body of pieces that are sent one after another, of a length that is known.
#[derive(Debug, Default)]
pub(super) struct Pieces(VecDeque<Bytes>);

impl NodeClient {
    /// A client that shows `secret`.
    pub fn new(secret: Secret) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(limits::NODE_CONNECT_TIME_MAX));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { client, secret }
    }

    /// Asks and reads an answer of at most `answer_max` bytes.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        method: Method,
        url: &str,
        body: Vec<Bytes>,
        time_max: Duration,
        answer_max: usize,
    ) -> Result<Bytes, CallError> {
        timeout(time_max, self.exchange(method, url, body, answer_max))
            .await
            .unwrap_or(Err(CallError::TimedOut))
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Vec<Bytes>,
        answer_max: usize,
    ) -> Result<Bytes, CallError> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(secret) = self.secret.header() {
            request = request.header(AUTHORIZATION, secret);
        }
        let response = self.client.request(request.body(Pieces(body.into()))?).await?;
        if !response.status().is_success() {
            return Err(CallError::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), answer_max);
        Ok(body.collect().await.map_err(CallError::BrokeOff)?.to_bytes())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}
