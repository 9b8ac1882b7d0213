//! How nodes meet: each asks the others who they are, tells them whom it knows, and founds what is not there yet.
//!
//! Invariants: a group is founded once, by one node, when all nodes are known and none of them knows of it, or of a node
//! that is not here; a node of another cluster is not heard; whom a node that shows the cluster's secret vouches for is
//! believed to be one of the cluster, as who knows the secret could be one itself.

use std::collections::BTreeMap;

use futures::future::join_all;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::client::NodeClient;
use super::cluster::Cluster;
use super::directory::NodeCard;
use super::identity::HexId;
use super::placement::{self, Candidate};
use super::types::{Member, NodeId};
use crate::limits;
use crate::outbound::{CallError, Scheme};

/// Whom a node knows: what two nodes tell each other, now and then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The cluster of who speaks, if it has met one.
    pub cluster: Option<HexId>,
    /// Itself, and the nodes that it has heard lately.
    pub nodes: Vec<Introduced>,
}

/// A node that another one knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduced {
    /// Its number.
    pub id: HexId,
    /// Where clients reach it.
    pub url: String,
}

impl Cluster {
    /// Asks and tells, for ever.
    pub(super) async fn know_others(&self) {
        loop {
            let urls = self.directory().urls();
            // Beside one another: of a node that is frozen both take their whole time, and the others have to be heard
            // again before they count as silent.
            tokio::join!(join_all(urls.iter().map(|url| self.ask(url))), self.meet());
            let everybody = self.everybody();
            self.settle_cluster(everybody.as_deref());
            if let Some(everybody) = everybody {
                self.found_groups(&everybody).await;
            }
            self.forget_others();
            let pause =
                if self.is_young() { limits::NODE_ASK_INTERVAL_FIRST } else { limits::NODE_ASK_INTERVAL };
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether the node has no cluster yet, or there are partitions of which nobody is known to hold a replica.
    fn is_young(&self) -> bool {
        let heard = self.heard();
        let is_founded = |partition| {
            let mut said = heard.iter().flat_map(|node| &node.card.groups);
            said.any(|status| status.partition == partition && status.founded)
        };
        self.cluster_id().is_none() || !self.groups().iter().all(|group| is_founded(group.partition()))
    }

    pub(super) async fn ask(&self, url: &str) {
        let asked = timeout(limits::NODE_ASK_TIME_MAX, self.card_of(url)).await;
        let card = match asked.unwrap_or(Err(CallError::TimedOut)) {
            Ok(Some(card)) => card,
            Ok(None) => {
                tracing::debug!(%url, "another node answers where the node says that it is; it is asked again");
                return;
            }
            // Whatever stands before the nodes where clients reach them knows nothing of the secret.
            Err(CallError::Refused(StatusCode::UNAUTHORIZED)) if self.client().scheme() == Scheme::Https => {
                tell_of_secret(url);
                return;
            }
            Err(error) if error.is_of_tls() => {
                tracing::error!(%url, %error, "there is no TLS with the other node: one of the two does not take the other's certificate");
                return;
            }
            Err(error) => {
                tracing::debug!(%url, %error, "the other node does not say who it is");
                return;
            }
        };
        if card.id.0 == self.node() {
            tracing::error!(%url, "a peer is this node itself, or was started on a copy of its data directory");
        } else if is_foreign(card.cluster, self.cluster_id()) {
            tracing::error!(%url, "the node is of another cluster, and is not heard");
        } else if !self.directory().note(url, card) {
            tracing::error!(%url, "the node does not say where other nodes reach it, or only one of the two has --cluster-cert; it is not heard");
        }
    }

    /// What the node at this URL says of itself. Where nodes talk by TLS what is said in the open is believed of the port
    /// for other nodes alone; the rest has to be said there. `None` if another node answers at that port.
    async fn card_of(&self, url: &str) -> Result<Option<NodeCard>, CallError> {
        let in_tls = self.client().scheme() == Scheme::Https;
        if in_tls && let Some((id, internal)) = self.directory().seen_at(url) {
            // It may have another port by now, and who is there then may be silent, or be another node: nodes on one
            // machine have certificates for the same host.
            let known = self.ask_for_card(self.client(), format!("{internal}/cluster/node"));
            if let Ok(Ok(card)) = timeout(limits::NODE_ASK_TIME_MAX / 2, known).await
                && card.id == id
            {
                return Ok(Some(card));
            }
        }
        // It is asked where clients reach it, perhaps past others: the secret is for the nodes' own addresses alone.
        let said = self.ask_for_card(self.open_client(), format!("{url}/v1/node")).await?;
        match self.directory().internal_at(url, &said.internal).filter(|_| in_tls) {
            Some(internal) => {
                let card = self.ask_for_card(self.client(), format!("{internal}/cluster/node")).await?;
                Ok(Some(card).filter(|card| card.id == said.id))
            }
            None => Ok(Some(said)),
        }
    }

    async fn ask_for_card(&self, client: &NodeClient, url: String) -> Result<NodeCard, CallError> {
        let (time_max, answer_max) = (limits::NODE_ASK_TIME_MAX, limits::NODE_ANSWER_BYTES_MAX);
        let said = client.call(Method::GET, &url, Vec::new(), time_max, answer_max).await?;
        Ok(serde_json::from_slice(&said)?)
    }

    /// Tells one other node whom this one knows, and hears whom that knows: a few rounds later all know all. Who has no
    /// cluster yet tells everybody that it knows.
    async fn meet(&self) {
        let others: Vec<NodeCard> = self.recent_others().collect();
        let is_new = self.cluster_id().is_none();
        let chance = usize::try_from(HexId::random().0 % 1024).unwrap_or_default();
        let one = chance.checked_rem(others.len()).unwrap_or_default();
        let chosen = others.iter().enumerate().filter(|(place, _)| is_new || *place == one);
        let own = self.introduction();
        join_all(chosen.map(|(_, other)| self.exchange(&own, other))).await;
    }

    async fn exchange(&self, own: &Introduction, other: &NodeCard) {
        match self.call_introduce(own, other).await {
            Ok(told) => self.hear_of(&told),
            Err(CallError::Refused(StatusCode::UNAUTHORIZED)) => tell_of_secret(&other.url),
            Err(error) => {
                tracing::debug!(url = %other.url, %error, "the other node does not say whom it knows");
            }
        }
    }

    async fn call_introduce(&self, own: &Introduction, other: &NodeCard) -> Result<Introduction, CallError> {
        let (time_max, answer_max) = (limits::NODE_ASK_TIME_MAX, limits::NODE_ANSWER_BYTES_MAX);
        let url = format!("{}/cluster/nodes", other.internal);
        let body = vec![serde_json::to_vec(own)?.into()];
        let told = self.client().call(Method::POST, &url, body, time_max, answer_max).await?;
        Ok(serde_json::from_slice(&told)?)
    }

    /// Whom this node knows.
    pub fn introduction(&self) -> Introduction {
        let own = Introduced { id: HexId(self.node()), url: self.url().to_owned() };
        let others = self.recent_others().map(|card| Introduced { id: card.id, url: card.url });
        Introduction { cluster: self.cluster_id(), nodes: std::iter::once(own).chain(others).collect() }
    }

    /// Another node that knows the cluster's secret says whom it knows.
    pub fn hear_of(&self, told: &Introduction) {
        if is_foreign(told.cluster, self.cluster_id()) {
            return;
        }
        let own = self.node();
        let others = told.nodes.iter().take(limits::OTHER_NODES_MAX + 1);
        let others = others.filter(|node| node.id.0 != own && node.url != self.url());
        let mut is_news = false;
        for node in others {
            if self.directory().vouch(node.id.0, &node.url) {
                tracing::info!(url = %node.url, node = %node.id, "another node of the cluster is heard of");
                is_news = true;
            }
        }
        if is_news {
            self.remember_others();
        }
    }

    /// Forgets nodes that nobody named here, that were not heard for long and have no replica of anything.
    fn forget_others(&self) {
        let heard = self.heard();
        let members = heard.iter().flat_map(|node| &node.card.groups).flat_map(|status| &status.members);
        let members: Vec<NodeId> = members.map(|member| member.id.0).collect();
        let forgotten = self.directory().forget(self.gone_after(), |node| !members.contains(&node));
        if !forgotten.is_empty() {
            tracing::info!(?forgotten, "nodes that are gone and hold nothing are forgotten");
            self.remember_others();
        }
    }

    fn recent_others(&self) -> impl Iterator<Item = NodeCard> {
        let cards = self.directory().cards().into_iter().filter_map(|(_, card)| card);
        cards.filter_map(|(card, is_recent)| is_recent.then_some(card))
    }

    /// This node and all others, in the same order on each of them; `None` while one of them is not there, or knows of
    /// more.
    pub(super) fn everybody(&self) -> Option<Vec<NodeCard>> {
        let others = self.directory().cards().into_iter();
        let mut all: Vec<NodeCard> = others
            .map(|(_, card)| card.and_then(|(card, is_recent)| is_recent.then_some(card)))
            .collect::<Option<_>>()?;
        all.push(self.card());
        let count = all.len();
        // Not by their URLs, of which each node may have another spelling.
        all.sort_by_key(|card| card.id);
        all.iter().all(|card| card.known.is_none_or(|known| known == count)).then_some(all)
    }

    /// Joins the cluster that another node is in; where there is none yet, the node with the least number founds it. One
    /// that was told to join waits for one.
    fn settle_cluster(&self, everybody: Option<&[NodeCard]>) {
        if self.cluster_id().is_some() {
            return;
        }
        let own = HexId(self.node());
        let known = self.directory().cards().into_iter().find_map(|(_, card)| card?.0.cluster);
        let is_first = || everybody.is_some_and(|all| all.iter().all(|card| own <= card.id));
        let founds = !self.is_joining() && is_first();
        if let Some(cluster) = known.or_else(|| founds.then(HexId::random)) {
            self.join(cluster);
        }
    }

    /// Founds the groups that are to be founded by this node.
    async fn found_groups(&self, everybody: &[NodeCard]) {
        let cluster = self.cluster_id();
        if cluster.is_none() || everybody.iter().any(|card| card.cluster != cluster) {
            return;
        }
        let own = HexId(self.node());
        let candidates: Vec<Candidate> =
            everybody.iter().map(|card| Candidate { id: card.id, zone: card.zone.clone() }).collect();
        for group in self.groups() {
            let partition = group.partition();
            let is_founded = |card: &NodeCard| {
                card.groups.iter().any(|status| status.partition == partition && status.founded)
            };
            if everybody.iter().any(is_founded) {
                continue;
            }
            let chosen = placement::choose(partition, &candidates, self.copies());
            let members: Vec<&NodeCard> = chosen.iter().filter_map(|place| everybody.get(*place)).collect();
            if members.first().is_none_or(|founder| founder.id != own) {
                continue;
            }
            let members: BTreeMap<NodeId, Member> =
                members.iter().map(|card| (card.id.0, card.member())).collect();
            match group.raft().initialize(members).await {
                Ok(()) => tracing::info!(%partition, "founded the partition's group"),
                Err(error) => tracing::warn!(%partition, %error, "could not found the partition's group"),
            }
        }
    }
}

fn tell_of_secret(url: &str) {
    tracing::error!(%url, "the other node has another --cluster-secret-file, and does not let this one in");
}

fn is_foreign(one: Option<HexId>, other: Option<HexId>) -> bool {
    one.is_some() && other.is_some() && one != other
}
