//! Calls to other processes over HTTP: how they are connected to, and why no answer was had.
//!
//! Invariant: connecting takes a bounded time, and of an answer no more is read than was said. Must not know whom it
//! calls for what.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// A client whose requests have bodies of this type.
pub(crate) type HttpClient<B> = Client<HttpConnector, B>;

/// Why another process's answer was not had.
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

/// What connects, within this time.
pub(crate) fn connector(time_max: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(time_max));
    connector.set_nodelay(true);
    connector
}

/// What makes clients that keep connections for further requests.
pub(crate) fn builder() -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new());
    builder
}

/// The body of an answer of success, of at most so many bytes.
///
/// # Errors
/// When it is no success, breaks off or is longer.
pub(crate) async fn body_of(response: Response<Incoming>, bytes_max: usize) -> Result<Bytes, CallError> {
    if !response.status().is_success() {
        return Err(CallError::Refused(response.status()));
    }
    let body = Limited::new(response.into_body(), bytes_max);
    Ok(body.collect().await.map_err(CallError::BrokeOff)?.to_bytes())
}
