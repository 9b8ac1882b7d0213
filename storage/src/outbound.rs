//! Calls to other processes over HTTP: how they are connected to, and why no answer was had.
//!
//! Invariant: connecting takes a bounded time, and of an answer no more is read than was said. Must not know whom it
//! calls for what.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::Service;

use crate::tls::{self, NodeTls};

/// A client whose requests have bodies of this type.
pub(crate) type HttpClient<B> = Client<HttpConnector, B>;

/// The same of other nodes' own addresses.
pub(crate) type NodeHttpClient<B> = Client<NodeConnector, B>;

/// How other nodes' own addresses are called: a setting of the whole cluster, never what a node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the open.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// As URLs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

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
    #[error("it could not be reached: {}", with_causes(.0))]
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

impl CallError {
    /// Whether there was a connection, and no agreement on TLS over it.
    pub(crate) fn is_of_tls(&self) -> bool {
        match self {
            Self::Unreachable(error) => tls::cause_of(error).is_some(),
            Self::BrokeOff(error) => tls::cause_of(&**error).is_some(),
            Self::Url(_) | Self::TimedOut | Self::Refused(_) | Self::Garbled(_) => false,
        }
    }
}

/// An error and what it comes from: the library's own say no more than where it happened.
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What connects to other nodes' own addresses.
#[derive(Clone, Debug)]
pub(crate) enum NodeConnector {
    Open(HttpConnector),
    /// Nobody is called in the open.
    Tls {
        inner: HttpsConnector<HttpConnector>,
        time_max: Duration,
    },
}

impl NodeConnector {
    /// By TLS, where there is one; within this time, the handshake included.
    pub(crate) fn new(tls: Option<&NodeTls>, time_max: Duration) -> Self {
        let mut http = connector(time_max);
        let Some(tls) = tls else { return Self::Open(http) };
        http.enforce_http(false);
        let client = tls.client().as_ref().clone();
        let builder = HttpsConnectorBuilder::new().with_tls_config(client).https_only().enable_http1();
        Self::Tls { inner: builder.wrap_connector(http), time_max }
    }

    /// How it is called.
    pub(crate) fn scheme(&self) -> Scheme {
        match self {
            Self::Open(_) => Scheme::Http,
            Self::Tls { .. } => Scheme::Https,
        }
    }
}

type Connected = Result<MaybeHttpsStream<TokioIo<TcpStream>>, Box<dyn Error + Send + Sync>>;

impl Service<Uri> for NodeConnector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Connected> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::Open(http) => http.poll_ready(context).map_err(Into::into),
            Self::Tls { inner, .. } => inner.poll_ready(context),
        }
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        match self {
            Self::Open(http) => {
                let connecting = http.call(url);
                Box::pin(async move { Ok(connecting.await?.into()) })
            }
            Self::Tls { inner, time_max } => {
                // A node that is frozen takes connections, and says nothing.
                let connecting = timeout(*time_max, inner.call(url));
                Box::pin(async move { connecting.await? })
            }
        }
    }
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
