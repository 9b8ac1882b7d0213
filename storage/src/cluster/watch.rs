//! Asks the others in the background, so that no request waits for it.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::ClusterView;
use super::ask::{HttpClient, ask, client};
use crate::limits;

/// Asks all others now and then, and sooner where a client was sent away without a hint; never ends by itself.
pub(crate) async fn watch(view: Arc<ClusterView>) {
    if view.peers.is_empty() {
        return;
    }
    let client = client();
    loop {
        ask_all(&view, &client).await;
        // Whatever clients want, the others are asked so many times a second at most.
        sleep(limits::CLUSTER_ASK_PAUSE_MIN).await;
        let left = limits::CLUSTER_ASK_INTERVAL.saturating_sub(limits::CLUSTER_ASK_PAUSE_MIN);
        // Over without anybody who wants to know: it is time all the same.
        timeout(left, view.is_wanted.notified()).await.ok();
    }
}

async fn ask_all(view: &ClusterView, client: &HttpClient) {
    let asked = view.peers.iter().enumerate().map(async |(place, peer)| match ask(client, &peer.url).await {
        Ok(answer) => view.note(place, answer),
        Err(error) => tracing::debug!(peer = %peer.url, %error, "the other node told nothing"),
    });
    join_all(asked).await;
}
