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
use http::{Method, Request};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::timeout;

use super::secret::Secret;
use crate::limits;
use crate::outbound::{self, CallError, NodeConnector, NodeHttpClient, Scheme};
use crate::tls::NodeTls;

/// Asks other nodes.
#[derive(Clone, Debug)]
pub struct NodeClient {
    client: NodeHttpClient<Pieces>,
    secret: Secret,
    scheme: Scheme,
}

/// A body of pieces that are sent one after another, of a length that is known.
#[derive(Debug, Default)]
pub(super) struct Pieces(VecDeque<Bytes>);

impl NodeClient {
    /// A client that shows `secret`, and talks by `tls` alone where there is one.
    pub fn new(secret: Secret, tls: Option<&NodeTls>) -> Self {
        let connector = NodeConnector::new(tls, limits::NODE_CONNECT_TIME_MAX);
        let scheme = connector.scheme();
        Self { client: outbound::builder().build(connector), secret, scheme }
    }

    /// How nodes are called.
    pub fn scheme(&self) -> Scheme {
        self.scheme
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
        outbound::body_of(response, answer_max).await
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
