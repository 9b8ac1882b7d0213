//! Asks another node what it knows.

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use model::wire::{self, ClusterAnswer};
use tokio::time::timeout;

use crate::limits;
use crate::outbound::{self, CallError};

/// Connections to the others.
pub(super) type HttpClient = outbound::HttpClient<Empty<Bytes>>;

/// A client with connections of its own.
pub(super) fn client() -> HttpClient {
    outbound::builder().build(outbound::connector(limits::CLUSTER_ASK_TIME_MAX))
}

/// Asks the node at this URL.
pub(super) async fn ask(client: &HttpClient, url: &str) -> Result<ClusterAnswer, CallError> {
    timeout(limits::CLUSTER_ASK_TIME_MAX, exchange(client, url)).await.unwrap_or(Err(CallError::TimedOut))
}

async fn exchange(client: &HttpClient, url: &str) -> Result<ClusterAnswer, CallError> {
    let request =
        Request::get(format!("{url}/v1/cluster")).header(wire::SCOPE, wire::SCOPE_NODE).body(Empty::new())?;
    let response = client.request(request).await?;
    let body = outbound::body_of(response, limits::CLUSTER_ANSWER_BYTES_MAX).await?;
    Ok(serde_json::from_slice(&body)?)
}
