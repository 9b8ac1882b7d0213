//! Where the nodes are that this node was told of: each is asked who it is, now and then.
//!
//! Invariants: only hosts are called that the operator named, or that a node vouches for which knows the cluster's secret
//! (and so could be one that the operator named). What a node says of itself names the port for other nodes, and no
//! more. A node of another cluster is none. What is known is bounded, and ages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::Partition;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use url::Url;

use super::group::GroupStatus;
use super::identity::HexId;
use super::types::{Member, NodeId};
use crate::config::parse_node_url;
use crate::limits;
use crate::outbound::Scheme;

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
    /// Copies that each partition is to have, as it was told.
    #[serde(default)]
    pub copies: Option<usize>,
    /// How many nodes it knows of, itself among them, whether they were ever heard or not.
    #[serde(default)]
    pub known: Option<usize>,
    /// Its replicas.
    #[serde(default)]
    pub groups: Vec<GroupStatus>,
}

/// The other nodes.
#[derive(Debug)]
pub struct Directory {
    /// By their URLs.
    peers: Mutex<BTreeMap<String, Peer>>,
    /// How their own addresses are called.
    scheme: Scheme,
}

#[derive(Clone, Debug)]
struct Peer {
    /// Whether the operator named it to this node; another node did otherwise.
    is_named: bool,
    seen: Option<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    card: NodeCard,
}

impl Directory {
    /// Nodes of whom nothing is known but their URLs: those that the operator named to this node, and those that others
    /// have vouched for before.
    pub fn new(
        named: impl IntoIterator<Item = String>,
        vouched: impl IntoIterator<Item = String>,
        scheme: Scheme,
    ) -> Self {
        let peer = |is_named| Peer { is_named, seen: None };
        let mut peers: BTreeMap<String, Peer> = vouched.into_iter().map(|url| (url, peer(false))).collect();
        peers.extend(named.into_iter().map(|url| (url, peer(true))));
        Self { peers: Mutex::new(peers), scheme }
    }

    /// Where the node that is known under `url` is reached by others, if what it says of that is of use.
    pub fn internal_at(&self, url: &str, said: &str) -> Option<String> {
        internal_at(self.scheme, url, said)
    }

    /// The node that answered under `url` when it was heard last, and where it was reached by others then.
    pub fn seen_at(&self, url: &str) -> Option<(HexId, String)> {
        self.peers.lock().get(url)?.seen.as_ref().map(|seen| (seen.card.id, seen.card.internal.clone()))
    }

    /// The URLs.
    pub fn urls(&self) -> Vec<String> {
        self.peers.lock().keys().cloned().collect()
    }

    /// The URLs of those that the operator did not name to this node.
    pub fn vouched(&self) -> Vec<String> {
        let peers = self.peers.lock();
        peers.iter().filter(|(_, peer)| !peer.is_named).map(|(url, _)| url.clone()).collect()
    }

    /// A node that knows the cluster's secret says that another of this number is at this URL; whether that is news.
    pub fn vouch(&self, node: NodeId, url: &str) -> bool {
        let parsed = parse_node_url(url).ok().filter(|_| url.len() <= limits::NODE_NAME_BYTES_MAX);
        let Some(url) = parsed else { return false };
        let url = url.as_str().trim_end_matches('/').to_owned();
        let mut peers = self.peers.lock();
        // It may be known by another spelling of its URL.
        let is_known =
            |peer: &Peer| peer.seen.as_ref().is_some_and(|seen| seen.card.id.0 == node && seen.is_recent());
        if peers.len() >= limits::OTHER_NODES_MAX || peers.contains_key(&url) || peers.values().any(is_known)
        {
            return false;
        }
        peers.insert(url, Peer { is_named: false, seen: None });
        true
    }

    /// Forgets nodes that the operator did not name to this node, were not heard for so long, and that nobody needs;
    /// their URLs.
    pub fn forget(&self, silence: Duration, is_needless: impl Fn(NodeId) -> bool) -> Vec<String> {
        let is_over = |peer: &Peer| match &peer.seen {
            Some(seen) => seen.at.elapsed() >= silence && is_needless(seen.card.id.0),
            // Nobody knows its number: it may be a member of a group that would be founded a second time without it.
            None => false,
        };
        let mut peers = self.peers.lock();
        let gone: Vec<String> = peers
            .iter()
            .filter(|(_, peer)| !peer.is_named && is_over(peer))
            .map(|(url, _)| url.clone())
            .collect();
        peers.retain(|url, _| !gone.contains(url));
        gone
    }

    /// The node under this URL said this; whether it is of use.
    pub fn note(&self, url: &str, card: NodeCard) -> bool {
        let Some(internal) = self.internal_at(url, &card.internal) else { return false };
        let mut peers = self.peers.lock();
        let Some(peer) = peers.get_mut(url) else { return false };
        // Others know it by the URL that they were given.
        let card = NodeCard { url: url.to_owned(), internal, ..card };
        let (id, is_named) = (card.id, peer.is_named);
        peer.seen = Some(Seen { at: Instant::now(), card });
        // One spelling of its URL is enough: the operator's, or else the first that answers. What it answered at long ago
        // it may have left.
        let is_it = |peer: &Peer| peer.seen.as_ref().is_some_and(|seen| seen.card.id == id);
        if is_named {
            peers.retain(|_, peer| peer.is_named || !is_it(peer));
        } else if peers.iter().any(|(other, peer)| other != url && is_it(peer) && peer.is_recent()) {
            peers.remove(url);
        }
        true
    }

    /// What every node said last, and whether that is recent; `None` for one that never answered. Of a node that is known
    /// by two URLs the one that it answered at last counts.
    pub fn cards(&self) -> Vec<(String, Option<(NodeCard, bool)>)> {
        let peers = self.peers.lock();
        let is_latest = |peer: &Peer| match &peer.seen {
            Some(seen) => peers
                .values()
                .filter_map(|other| other.seen.as_ref())
                .all(|other| other.card.id != seen.card.id || other.at <= seen.at),
            None => true,
        };
        let card = |seen: &Seen| (seen.card.clone(), seen.is_recent());
        let latest = peers.iter().filter(|(_, peer)| is_latest(peer));
        latest.map(|(url, peer)| (url.clone(), peer.seen.as_ref().map(card))).collect()
    }

    /// Where a node is reached by others.
    pub fn internal_url(&self, node: NodeId) -> Option<String> {
        self.find(|card| card.id.0 == node, |seen| seen.card.internal.clone())
    }

    /// Where a node is reached by clients, as far as it has answered lately.
    pub fn url_of(&self, node: NodeId) -> Option<String> {
        self.find(|card| card.id.0 == node, |seen| seen.card.url.clone())
    }

    /// Where the node is that says, lately, that it leads a partition in a term after this one.
    pub fn leader_after(&self, partition: Partition, term: u64) -> Option<String> {
        let peers = self.peers.lock();
        let seen = peers.values().filter_map(|peer| peer.seen.as_ref()).filter(|seen| seen.is_recent());
        let led = seen.filter_map(|seen| {
            let leads =
                |status: &&GroupStatus| status.partition == partition && status.leads && status.term > term;
            seen.card.groups.iter().find(leads).map(|status| (status.term, &seen.card.url))
        });
        led.max().map(|(_, url)| url.clone())
    }

    /// How long ago a node was heard, if it ever was.
    pub fn silence_of(&self, node: NodeId) -> Option<Duration> {
        self.find(|card| card.id.0 == node, |seen| seen.at.elapsed())
    }

    /// The node that answers under this URL now.
    pub fn node_at(&self, url: &str) -> Option<NodeId> {
        self.find(|card| card.url == url, |seen| seen.card.id.0)
    }

    fn find<T>(&self, is_it: impl Fn(&NodeCard) -> bool, get: impl Fn(&Seen) -> T) -> Option<T> {
        let peers = self.peers.lock();
        let seen = peers.values().filter_map(|peer| peer.seen.as_ref()).filter(|seen| is_it(&seen.card));
        seen.max_by_key(|seen| seen.at).map(get)
    }
}

impl Peer {
    fn is_recent(&self) -> bool {
        self.seen.as_ref().is_some_and(Seen::is_recent)
    }
}

impl Seen {
    fn is_recent(&self) -> bool {
        self.at.elapsed() < limits::NODE_SEEN_MAX
    }
}

/// Where other nodes reach one that is known under `url`: at that host, and the port that it says. It has to mean to be
/// called as it will be.
pub fn internal_at(scheme: Scheme, url: &str, said: &str) -> Option<String> {
    let (known, said) = (Url::parse(url).ok()?, Url::parse(said).ok()?);
    let port = said.port_or_known_default().filter(|_| said.scheme() == scheme.as_str())?;
    Some(format!("{}://{}:{port}", scheme.as_str(), known.host_str()?))
}

impl NodeCard {
    /// The node as a member of a group.
    pub fn member(&self) -> Member {
        Member { name: self.name.clone(), url: self.url.clone(), zone: self.zone.clone(), placed: false }
    }
}

#[cfg(test)]
mod tests {
    use model::Offset;

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
            copies: None,
            known: None,
            groups: Vec::new(),
        }
    }

    #[test]
    fn a_node_is_called_at_the_host_that_the_operator_named_whatever_it_says() {
        for (url, internal) in [("http://b:8081", "http://b:9"), ("http://[::1]:8081", "http://[::1]:9")] {
            let directory = Directory::new([url.to_owned()], [], Scheme::Http);
            assert!(directory.note(url, card("http://elsewhere:9")));
            assert_eq!(directory.internal_url(7).as_deref(), Some(internal));
            assert_eq!((directory.url_of(7).as_deref(), directory.node_at(url)), (Some(url), Some(7)));
        }
        let directory = Directory::new(["http://b:8081".to_owned()], [], Scheme::Https);
        assert!(!directory.note("http://b:8081", card("http://b:9")), "in the open, where nobody else is");
        assert!(directory.note("http://b:8081", card("https://elsewhere:9")));
        assert_eq!(directory.internal_url(7).as_deref(), Some("https://b:9"));
        let directory = Directory::new(["http://b:8081".to_owned()], [], Scheme::Http);
        assert!(!directory.note("http://b:8081", card("https://b:9")), "and the other way round");
        assert!(!directory.note("http://b:8081", card("nowhere")) && directory.internal_url(7).is_none());
        assert!(!directory.note("http://c:8081", card("http://c:9")));
    }

    #[test]
    fn a_node_that_two_others_spell_differently_is_one_node() {
        let directory = Directory::new([], [], Scheme::Http);
        // Heard of by both before it was heard by either.
        assert!(directory.vouch(7, "http://b:8081") && directory.vouch(7, "http://b.local:8081"));
        for url in ["http://b.local:8081", "http://b:8081"] {
            assert!(directory.note(url, card("http://elsewhere:9")));
        }
        assert_eq!(directory.urls(), ["http://b.local:8081"]);
        // Two spellings of the operator's count as one.
        let named = ["http://b:8081", "http://b.local:8081"].map(str::to_owned);
        let directory = Directory::new(named.clone(), [], Scheme::Http);
        assert_eq!(directory.cards().len(), 2, "nobody knows yet");
        named.iter().for_each(|url| assert!(directory.note(url, card("http://elsewhere:9"))));
        assert_eq!((directory.urls().len(), directory.cards().len()), (2, 1));
    }

    #[test]
    fn whom_another_vouches_for_is_called_by_one_url_until_it_is_gone_for_long() {
        let directory =
            Directory::new(["http://b:8081".to_owned()], ["http://old:8081".to_owned()], Scheme::Http);
        assert!(directory.vouch(7, "http://b2:8081/"));
        for wrong in ["http://b2:8081", "http://b:8081", "https://c:1", "http://c:1/v1", "http://u@c:1", "c"]
        {
            assert!(!directory.vouch(8, wrong), "{wrong}");
        }
        assert_eq!(directory.vouched(), ["http://b2:8081", "http://old:8081"]);
        // The operator's spelling is the one that stays.
        assert!(directory.note("http://b2:8081", card("http://b2:9")));
        assert!(directory.note("http://b:8081", card("http://b:9")));
        assert_eq!(directory.internal_url(7).as_deref(), Some("http://b:9"));
        assert!(!directory.vouch(7, "http://b3:8081"));
        assert_eq!(directory.vouched(), ["http://old:8081"]);
        assert!(directory.forget(Duration::from_secs(60), |_| true).is_empty());
        // What was never heard may be what holds all there is.
        assert!(directory.forget(Duration::ZERO, |_| true).is_empty());
        assert_eq!(directory.urls(), ["http://b:8081", "http://old:8081"]);
        assert!(
            directory.vouch(8, "http://d:1")
                && directory.note("http://d:1", NodeCard { id: HexId(8), ..card("http://d:9") })
        );
        assert!(directory.forget(Duration::ZERO, |node| node != 8).is_empty(), "it is a member");
    }

    #[test]
    fn no_more_nodes_are_vouched_for_than_one_asks() {
        let directory = Directory::new([], [], Scheme::Http);
        let vouched =
            (0..1000).filter(|number| directory.vouch(*number, &format!("http://n{number}:1"))).count();
        assert_eq!(vouched, limits::OTHER_NODES_MAX);
    }

    #[test]
    fn of_leaders_the_one_of_the_latest_term_counts_and_none_that_is_not_later() {
        let directory = Directory::new(["http://b:1".to_owned(), "http://c:1".to_owned()], [], Scheme::Http);
        let partition = Partition::new(0);
        let status = |term, leads| GroupStatus {
            partition,
            founded: true,
            leads,
            term,
            leader: None,
            members: Vec::new(),
            first_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
            flushed: Offset::ZERO,
        };
        for (url, id, term, leads) in [("http://b:1", 2, 4, true), ("http://c:1", 3, 6, false)] {
            let groups = vec![status(term, leads)];
            assert!(directory.note(url, NodeCard { id: HexId(id), groups, ..card("http://x:9") }));
        }
        assert_eq!(directory.leader_after(partition, 3).as_deref(), Some("http://b:1"));
        assert_eq!(directory.leader_after(partition, 4), None);
        let groups = vec![status(6, true)];
        assert!(directory.note("http://c:1", NodeCard { id: HexId(3), groups, ..card("http://x:9") }));
        assert_eq!(directory.leader_after(partition, 3).as_deref(), Some("http://c:1"));
    }
}
