//! What this node knows of the others: who they are, whether they answer, and which partitions each leads.
//!
//! Invariants: only URLs that the operator gave are called or handed on, whatever another node says; what is known is
//! bounded by the number of those; all of it is a hint, which ages. Must not know what a partition holds.

mod ask;
mod watch;

use std::time::Instant;

use model::Partition;
use model::wire::{ClusterAnswer, ClusterNode};
use parking_lot::Mutex;
use tokio::sync::Notify;
use url::Url;

use crate::limits;
pub(crate) use watch::watch;

/// This node and the others.
#[derive(Debug)]
pub struct ClusterView {
    name: String,
    url: String,
    peers: Vec<Peer>,
    /// A client was sent away without a hint: the others are to be asked before their time.
    is_wanted: Notify,
}

/// Another node.
#[derive(Debug)]
struct Peer {
    /// Where it is called, without a slash at the end.
    url: String,
    seen: Mutex<Option<Seen>>,
}

/// What another node said.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    name: String,
    /// Each partition that it named a leader of, and where that is called; in order.
    leaders: Vec<(Partition, String)>,
}

impl ClusterView {
    /// A node of this name at this URL, and the others, of whom nothing is known yet.
    pub fn new(name: String, url: &Url, peers: &[Url]) -> Self {
        let url = base(url);
        let mut others: Vec<String> = peers.iter().map(base).filter(|peer| *peer != url).collect();
        others.sort();
        others.dedup();
        let peers = others.into_iter().map(|url| Peer { url, seen: Mutex::new(None) }).collect();
        Self { name, url, peers, is_wanted: Notify::new() }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL at which others reach this node.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URLs of the other nodes.
    pub fn peer_urls(&self) -> impl Iterator<Item = String> {
        self.peers.iter().map(|peer| peer.url.clone())
    }

    /// Where a partition's leader is, if one of the others that answers knows it. Where none does they are asked soon.
    pub fn leader_of(&self, partition: Partition) -> Option<String> {
        let now = Instant::now();
        let leader = self.peers.iter().find_map(|peer| {
            let seen = peer.seen.lock();
            let seen = seen.as_ref().filter(|seen| seen.is_recent(now))?;
            let place = seen.leaders.binary_search_by_key(&partition, |(known, _)| *known).ok()?;
            seen.leaders.get(place).map(|(_, url)| url.clone())
        });
        if leader.is_none() {
            self.is_wanted.notify_one();
        }
        leader
    }

    /// The nodes, this one first.
    pub fn nodes(&self) -> Vec<ClusterNode> {
        let now = Instant::now();
        let node = |name: &str, url: &str, alive| ClusterNode {
            id: None,
            name: name.to_owned(),
            url: url.to_owned(),
            zone: None,
            alive,
            draining: false,
        };
        let others = self.peers.iter().map(|peer| match &*peer.seen.lock() {
            Some(seen) => node(&seen.name, &peer.url, seen.is_recent(now)),
            None => node(&peer.url, &peer.url, false),
        });
        [node(&self.name, &self.url, true)].into_iter().chain(others).collect()
    }

    /// Notes what the peer at this place answered.
    fn note(&self, place: usize, answer: ClusterAnswer) {
        let Some(peer) = self.peers.get(place) else { return };
        let own_url = answer.own_url().map(str::to_owned);
        let leaders = answer.partitions.iter().take(model::limits::PARTITIONS_MAX.into());
        let mut leaders: Vec<(Partition, String)> = leaders
            .filter_map(|state| {
                let leader = state.leader.as_deref()?;
                // It may know itself by another URL than the one that the operator gave for it.
                let url = if own_url.as_deref() == Some(leader) { &peer.url } else { self.known(leader)? };
                Some((state.partition, url.clone()))
            })
            .collect();
        leaders.sort_unstable();
        leaders.dedup_by_key(|(partition, _)| *partition);
        let mut name = answer.node;
        name.truncate(name.floor_char_boundary(limits::NODE_NAME_BYTES_MAX));
        *peer.seen.lock() = Some(Seen { at: Instant::now(), name, leaders });
    }

    /// The URL of the configured peer that this means.
    fn known(&self, url: &str) -> Option<&String> {
        let url = base(&Url::parse(url).ok()?);
        self.peers.iter().map(|peer| &peer.url).find(|known| **known == url)
    }
}

impl Seen {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < limits::PEER_SEEN_MAX
    }
}

/// A node's URL without the slash at the end.
fn base(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests;
