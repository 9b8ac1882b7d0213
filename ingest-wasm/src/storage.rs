//! The seam to storage: what the component asks of its runtime. The glue implements it with the runtime's HTTP
//! client, the tests with a fake.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use model::Problem;

use crate::body::{self, ByteSource, ReceiveError};
use crate::budget::{Budget, Metered};
use crate::config::StorageNode;
use crate::limits;
use crate::message::Headers;

/// The way to the storage nodes.
pub trait Storage {
    /// A reply's body as it arrives.
    type Body: ByteSource;

    /// Sends a request to a node and waits for the reply's head.
    fn send(
        &self,
        node: &StorageNode,
        call: Call,
    ) -> impl Future<Output = Result<Reply<Self::Body>, SendError>>;
}

/// A request to a node.
#[derive(Clone, Debug)]
pub struct Call {
    /// The path and the query.
    pub path_and_query: String,
    /// Headers, without `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// The body of a `POST`; without one it is a `GET`.
    pub body: Option<Bytes>,
    /// How long the reply's head may take.
    pub time_max: Duration,
    /// How long the rest of the reply may take.
    pub rest_time_max: Duration,
}

/// The reply of a node.
#[derive(Debug)]
pub struct Reply<B> {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The body.
    pub body: B,
}

/// A node that gave no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The runtime does not let the component call it.
    #[error("the runtime may not call it: add it to the application's storage_hosts")]
    Denied,
    /// It took too long. It may have done what it was asked.
    #[error("no answer in time")]
    TimedOut,
    /// The connection did not come about, or broke.
    #[error("{0}")]
    Failed(String),
}

/// Why there is no whole reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// There is none.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Its body did not arrive.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
}

/// A reply with its body.
#[derive(Debug)]
pub struct WholeReply<'b> {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The body, or its beginning.
    pub body: Metered<'b>,
    /// Whether the body is all there.
    pub is_whole: bool,
}

/// Sends a request to a node and receives its reply, of which at most `bytes_max` are kept.
///
/// # Errors
/// When there is no reply, or its body breaks off.
pub async fn exchange<'b, S: Storage>(
    storage: &S,
    node: &StorageNode,
    call: Call,
    bytes_max: usize,
    budget: &'b Budget,
) -> Result<WholeReply<'b>, ExchangeError> {
    let Reply { status, headers, mut body } = storage.send(node, call).await?;
    let received = body::receive(&mut body, headers.content_length(), bytes_max, budget).await?;
    Ok(WholeReply { status, headers, body: received.bytes, is_whole: received.is_whole })
}

/// What a reply of this status and body that is no success says, in words.
pub fn reason(status: u16, body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(mut problem) => {
            let end = problem.detail.floor_char_boundary(limits::REASON_BYTES_MAX);
            problem.detail.truncate(end);
            format!("{status}: {}", problem.detail)
        }
        Err(_) => format!("it answers {status}"),
    }
}

impl WholeReply<'_> {
    /// What a reply that is no success says, in words.
    pub fn reason(&self) -> String {
        reason(self.status, self.body.bytes())
    }

    /// When to come back, in seconds, if it says so.
    pub fn retry_after_s(&self) -> Option<u64> {
        self.headers.first("retry-after")?.parse().ok()
    }
}
