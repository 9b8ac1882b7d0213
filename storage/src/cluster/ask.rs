//! Asks another node what it knows.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use model::wire::{self, ClusterAnswer};
use tokio::time::timeout;

use crate::limits;

/// Connections to the others.
pub(super) type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// Why another node told nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("it is not a URL that can be called: {0}")]
    Url(#[from] http::Error),
    #[error("it did not answer in time")]
    TimedOut,
    #[error("it could not be reached: {0}")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("its answer broke off: {0}")]
    BrokeOff(Box<dyn std::error::Error + Send + Sync>),
    #[error("it does not answer as a storage node does: {0}")]
    Garbled(#[from] serde_json::Error),
}

/// A client with connections of its own.
pub(super) fn client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(limits::CLUSTER_ASK_TIME_MAX));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}

/// Asks the node at this URL.
pub(super) async fn ask(client: &HttpClient, url: &str) -> Result<ClusterAnswer, AskError> {
    timeout(limits::CLUSTER_ASK_TIME_MAX, exchange(client, url)).await.unwrap_or(Err(AskError::TimedOut))
}

async fn exchange(client: &HttpClient, url: &str) -> Result<ClusterAnswer, AskError> {
    let request =
        Request::get(format!("{url}/v1/cluster")).header(wire::SCOPE, wire::SCOPE_NODE).body(Empty::new())?;
    let response = client.request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(AskError::Refused(response.status()));
    }
    let body = Limited::new(response.into_body(), limits::CLUSTER_ANSWER_BYTES_MAX);
    let bytes = body.collect().await.map_err(AskError::BrokeOff)?.to_bytes();
    Ok(serde_json::from_slice(&bytes)?)
}
