//! Tells ingest nodes that this node takes appends again, so that they replay what they hold for it at once.
//!
//! It is a courtesy: an ingest that was not reached replays after its next successful forward. Invariant: only the
//! URLs that the operator gave are called. Must not know what a replay is.

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request};
use http_body_util::Empty;
use tokio::time::timeout;
use url::Url;

use crate::limits;
use crate::outbound::{self, CallError};

type HttpClient = outbound::HttpClient<Empty<Bytes>>;

/// Tells all of `ingests`, each with some attempts, and returns when all were told or given up.
pub(crate) async fn notify_all(ingests: Vec<Url>) {
    let client: HttpClient = outbound::builder().build(outbound::connector(limits::NOTIFY_TIME_MAX));
    join_all(ingests.iter().take(limits::NOTIFIED_INGESTS_MAX).map(|ingest| notify(&client, ingest))).await;
}

async fn notify(client: &HttpClient, ingest: &Url) {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(limits::NOTIFY_PAUSE_MIN)
        .with_max_times(limits::NOTIFY_ATTEMPTS)
        .with_jitter();
    match (|| ask_for_replay(client, ingest)).retry(pauses).await {
        Ok(()) => tracing::info!(%ingest, "told the ingest node that this node is ready"),
        Err(error) => tracing::warn!(%ingest, %error, "the ingest node was not told that this node is ready"),
    }
}

async fn ask_for_replay(client: &HttpClient, ingest: &Url) -> Result<(), CallError> {
    let base = ingest.as_str().trim_end_matches('/');
    let request =
        Request::builder().method(Method::POST).uri(format!("{base}/v1/wal/replay")).body(Empty::new())?;
    let response = timeout(limits::NOTIFY_TIME_MAX, client.request(request))
        .await
        .map_err(|_| CallError::TimedOut)??;
    if response.status().is_success() { Ok(()) } else { Err(CallError::Refused(response.status())) }
}
