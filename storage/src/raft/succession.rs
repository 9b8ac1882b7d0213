//! Who takes over from a node that goes, and how the others hear of it.
//!
//! Invariant: whatever does not work costs no more than what it was to spare, an election that is waited for.

use http::Method;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::codec::{Addressed, Answer, AppendHead, LightRequest};
use super::group::Group;
use super::handover::Heralds;
use super::identity::HexId;
use super::types::{NodeId, SavedVote};
use crate::limits;

impl Cluster {
    /// Hands over the lead of all partitions that this node leads, as far as others can take it: the node is about to end.
    pub async fn hand_over_all(&self) {
        let led = self.groups().iter().filter(|group| group.leads());
        let handed = futures::future::join_all(led.map(|group| self.hand_over(group)));
        let all = timeout(self.timing().hand_over_max(), handed).await;
        match all.as_deref() {
            Ok([]) => {}
            Ok(handed) => {
                let (count, led) = (handed.iter().filter(|is_done| **is_done).count(), handed.len());
                tracing::info!(count, led, "handed over the lead of partitions");
            }
            Err(_) => {
                tracing::warn!("the lead of partitions was not handed over in time: others are elected")
            }
        }
    }

    /// Hands the lead of a group over to a replica that is there to stay; whether another leads it now.
    pub(super) async fn hand_over(&self, group: &Group) -> bool {
        let partition = group.partition();
        let fit: Vec<NodeId> = self
            .heard()
            .into_iter()
            .filter(|node| node.alive && !node.card.draining)
            .map(|node| node.card.id.0)
            .collect();
        let heralds = Posted { cluster: self, group };
        match group.hand_over(|node| fit.contains(&node), &heralds).await {
            Ok(leader) => {
                tracing::info!(%partition, leader = %HexId(leader), "handed the lead over");
                true
            }
            Err(why) => {
                tracing::info!(%partition, %why, "the lead is not handed over");
                !group.leads()
            }
        }
    }
}

/// The others, by HTTP.
struct Posted<'c> {
    cluster: &'c Cluster,
    group: &'c Group,
}

impl Posted<'_> {
    async fn post(&self, node: NodeId, path: &str, body: Vec<u8>) -> Result<bytes::Bytes, String> {
        let base = self.cluster.directory().internal_url(node).ok_or("the node is nowhere to be found")?;
        let (url, time_max) = (format!("{base}{path}"), self.cluster.timing().hand_over_step_max());
        let body = vec![body.into()];
        let answer_max = limits::NODE_ANSWER_BYTES_MAX;
        let answer = self.cluster.client().call(Method::POST, &url, body, time_max, answer_max).await;
        answer.map_err(|error| error.to_string())
    }

    /// Tells an heir of the leader that hands over.
    async fn tell(&self, heir: NodeId, what: &str, leader: SavedVote) -> Result<(), String> {
        let path = format!("/raft/{what}?partition={}", self.group.partition());
        let body = serde_json::to_vec(&leader).map_err(|error| error.to_string())?;
        let answer = self.post(heir, &path, body).await?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Stored) => Ok(()),
            Ok(Answer::Failed(why)) => Err(why),
            Ok(_) => Err("it answered another question".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Heralds for Posted<'_> {
    async fn ask_heir(&self, heir: NodeId, leader: SavedVote) -> Result<(), String> {
        self.tell(heir, "heir", leader).await
    }

    async fn release(&self, node: NodeId, vacancy: AppendHead) {
        let partition = self.group.partition();
        let message = Addressed { partition, message: LightRequest::Append(vacancy) };
        let Ok(body) = serde_json::to_vec(&[message]) else { return };
        if let Err(error) = self.post(node, "/raft/light", body).await {
            tracing::debug!(%partition, node = %HexId(node), %error, "a replica does not hear that there is no leader");
        }
    }

    async fn call_up(&self, heir: NodeId, leader: SavedVote) -> Result<(), String> {
        self.tell(heir, "candidacy", leader).await
    }
}
