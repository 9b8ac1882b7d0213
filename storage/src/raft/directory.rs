//! Where the nodes are that this node was told of: each is asked who it is, now and then.
//!
//! Invariants: only hosts that the operator named are called, whatever a node says of itself: it names the port for
//! other nodes, and no more. A node of another cluster is none. What is known ages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use url::Url;

use super::group::GroupStatus;
use super::identity::HexId;
use super::types::{Member, NodeId};
use crate::limits;

/// What a node says of itself: `GET /v1/node`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCard {
    /// Its cluster, if it has met one.
    pub cluster: Option<HexId>,
    /// Its number.
    pub id: HexId,
    /// Its name in answers.
    pub name: String,
    /// Where clients reach it.
    pub url: String,
    /// Where other nodes reach it.
    pub internal: String,
    /// Where it stands.
    #[serde(default)]
    pub zone: Option<String>,
    /// Whether its operator wants it to hold nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Its replicas.
    #[serde(default)]
    pub groups: Vec<GroupStatus>,
}

/// The other nodes.
#[derive(Debug)]
pub struct Directory {
    /// By the URL that the operator gave.
    peers: BTreeMap<String, Mutex<Option<Seen>>>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    card: NodeCard,
}

impl Directory {
    /// Nodes of whom nothing is known but their URLs.
    pub fn new(urls: impl IntoIterator<Item = String>) -> Self {
        Self { peers: urls.into_iter().map(|url| (url, Mutex::new(None))).collect() }
    }

    /// The URLs.
    pub fn urls(&self) -> impl Iterator<Item = &String> {
        self.peers.keys()
    }

    /// The node under this URL said this; whether it is of use.
    pub fn note(&self, url: &str, card: NodeCard) -> bool {
        let Some((peer, internal)) = self.peers.get(url).zip(internal_at(url, &card.internal)) else {
            return false;
        };
        // Others know it by the URL that they were given.
        let card = NodeCard { url: url.to_owned(), internal, ..card };
        *peer.lock() = Some(Seen { at: Instant::now(), card });
        true
    }

    /// What every node said last, and whether that is recent; `None` for one that never answered.
    pub fn cards(&self) -> Vec<(String, Option<(NodeCard, bool)>)> {
        let card = |seen: &Seen| (seen.card.clone(), seen.at.elapsed() < limits::NODE_SEEN_MAX);
        self.peers.iter().map(|(url, peer)| (url.clone(), peer.lock().as_ref().map(card))).collect()
    }

    /// Where a node is reached by others.
    pub fn internal_url(&self, node: NodeId) -> Option<String> {
        self.find(|card| card.id.0 == node, |card| card.internal.clone())
    }

    /// Where a node is reached by clients, as far as it has answered lately.
    pub fn url_of(&self, node: NodeId) -> Option<String> {
        self.find(|card| card.id.0 == node, |card| card.url.clone())
    }

    /// How long ago a node was heard, if it ever was.
    pub fn silence_of(&self, node: NodeId) -> Option<Duration> {
        let silence = |peer: &Mutex<Option<Seen>>| {
            let seen = peer.lock();
            seen.as_ref().filter(|seen| seen.card.id.0 == node).map(|seen| seen.at.elapsed())
        };
        self.peers.values().find_map(silence)
    }

    /// The node that answers under this URL now.
    pub fn node_at(&self, url: &str) -> Option<NodeId> {
        self.find(|card| card.url == url, |card| card.id.0)
    }

    fn find<T>(&self, is_it: impl Fn(&NodeCard) -> bool, get: impl Fn(&NodeCard) -> T) -> Option<T> {
        self.peers.values().find_map(|peer| {
            let seen = peer.lock();
            seen.as_ref().filter(|seen| is_it(&seen.card)).map(|seen| get(&seen.card))
        })
    }
}

/// Where other nodes reach one that is known under `url`: at that host, and the port that it says.
pub fn internal_at(url: &str, said: &str) -> Option<String> {
    let (known, said) = (Url::parse(url).ok()?, Url::parse(said).ok()?);
    Some(format!("http://{}:{}", known.host_str()?, said.port_or_known_default()?))
}

impl NodeCard {
    /// The node as a member of a group.
    pub fn member(&self) -> Member {
        Member { name: self.name.clone(), url: self.url.clone(), zone: self.zone.clone(), placed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(internal: &str) -> NodeCard {
        NodeCard {
            cluster: None,
            id: HexId(7),
            name: "n7".to_owned(),
            url: "http://elsewhere:1".to_owned(),
            internal: internal.to_owned(),
            zone: None,
            draining: false,
            groups: Vec::new(),
        }
    }

    #[test]
    fn a_node_is_called_at_the_host_that_the_operator_named_whatever_it_says() {
        for (url, internal) in [("http://b:8081", "http://b:9"), ("http://[::1]:8081", "http://[::1]:9")] {
            let directory = Directory::new([url.to_owned()]);
            assert!(directory.note(url, card("http://elsewhere:9")));
            assert_eq!(directory.internal_url(7).as_deref(), Some(internal));
            assert_eq!((directory.url_of(7).as_deref(), directory.node_at(url)), (Some(url), Some(7)));
        }
        let directory = Directory::new(["http://b:8081".to_owned()]);
        assert!(!directory.note("http://b:8081", card("nowhere")) && directory.internal_url(7).is_none());
        assert!(!directory.note("http://c:8081", card("http://c:9")));
    }
}
