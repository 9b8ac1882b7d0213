//! This node among the others: who they are, which groups there are to be, and what the groups need from time to time.
//!
//! Invariants: a group is founded once, by one node, when all nodes are known and none of them knows of it; a node of
//! another cluster is not heard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use http::Method;
use model::Partition;
use model::wire::{ClusterNode, PartitionState};
use openraft::ChangeMembers;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::client::NodeClient;
use super::directory::{Directory, NodeCard};
use super::group::{Group, GroupStatus};
use super::identity::{HexId, Identity};
use super::overview::{self, Heard};
use super::placement::{self, Candidate};
use super::secret::Secret;
use super::timing::Timing;
use super::types::{Member, NodeId};
use crate::limits;
use crate::log::Disk;
use crate::metrics::ReplicationReading;

/// This node and its replicas.
#[derive(Debug)]
pub struct Cluster {
    own: Own,
    identity: Mutex<Identity>,
    disk: Arc<dyn Disk>,
    data: PathBuf,
    copies: usize,
    timing: Timing,
    client: NodeClient,
    /// Shows no secret.
    open_client: NodeClient,
    secret: Secret,
    directory: Arc<Directory>,
    /// In order of their partitions.
    groups: Vec<Group>,
    /// Whether the members of a group are being changed.
    changing: Vec<AtomicBool>,
    stop: watch::Sender<bool>,
}

/// What a node is known by.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its name, its URL and its zone.
    pub member: Member,
    /// Where other nodes reach it.
    pub internal: String,
}

/// What a cluster is made of.
#[derive(Debug)]
pub struct ClusterParts {
    /// This node.
    pub own: Own,
    /// Its numbers.
    pub identity: Identity,
    /// Its disk and its data directory.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub data: PathBuf,
    /// Copies of each partition.
    pub copies: usize,
    /// The groups' times.
    pub timing: Timing,
    /// Asks other nodes.
    pub client: NodeClient,
    /// What they have to know.
    pub secret: Secret,
    /// The other nodes.
    pub directory: Arc<Directory>,
    /// The replicas, in order of their partitions.
    pub groups: Vec<Group>,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(parts: ClusterParts) -> Self {
        let ClusterParts { own, identity, disk, data, copies, timing, client, secret, directory, groups } =
            parts;
        let changing = groups.iter().map(|_| AtomicBool::new(false)).collect();
        let (stop, _) = watch::channel(false);
        let identity = Mutex::new(identity);
        let open_client = NodeClient::new(Secret::none());
        Self {
            own,
            identity,
            disk,
            data,
            copies,
            timing,
            client,
            open_client,
            secret,
            directory,
            groups,
            changing,
            stop,
        }
    }

    /// What nodes have to know that want something of this one.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Asks other nodes.
    pub fn client(&self) -> &NodeClient {
        &self.client
    }

    /// The replica of a partition.
    pub fn group(&self, partition: Partition) -> Option<&Group> {
        let place = self.groups.binary_search_by_key(&partition, Group::partition).ok()?;
        self.groups.get(place)
    }

    /// The replicas.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// How this node's replica of a partition stands among the others.
    pub fn reading(&self, partition: Partition) -> Option<ReplicationReading> {
        let group = self.group(partition)?;
        let own = group.status();
        let cards = self.directory.cards().into_iter().filter_map(|(_, card)| card);
        let statuses = cards.flat_map(|(card, _)| card.groups);
        let leads = |status: &GroupStatus| {
            status.partition == partition && status.leads && status.term >= own.term && !own.leads
        };
        let leader_flushed = statuses.filter(leads).map(|status| status.flushed.get()).max();
        Some(ReplicationReading {
            term: own.term,
            leader_changes: group.leader_changes(),
            lag_records: leader_flushed.unwrap_or_default().saturating_sub(own.flushed.get()),
        })
    }

    /// The other nodes.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// This node's number.
    pub fn node(&self) -> NodeId {
        self.identity.lock().node.0
    }

    /// What this node says of itself.
    pub fn card(&self) -> NodeCard {
        let identity = *self.identity.lock();
        let Member { name, url, zone } = self.own.member.clone();
        NodeCard {
            cluster: identity.cluster,
            id: identity.node,
            name,
            url,
            internal: self.own.internal.clone(),
            zone,
            groups: self.groups.iter().map(Group::status).collect(),
        }
    }

    /// This node first, and all others that ever answered.
    pub fn heard(&self) -> Vec<Heard> {
        let own = Heard { card: self.card(), alive: true };
        let others = self.directory.cards().into_iter().filter_map(|(_, card)| card);
        let others = others.map(|(card, alive)| Heard { card, alive });
        std::iter::once(own).chain(others).collect()
    }

    /// The cluster's nodes and partitions, as far as this node knows them.
    pub fn overview(&self) -> (Vec<ClusterNode>, Vec<PartitionState>) {
        let heard = self.heard();
        (overview::nodes(&heard), overview::partitions(&heard))
    }

    /// Which node answers for which partition; `None` for one of which nobody is there.
    pub fn readers(&self) -> Vec<(Partition, Option<String>)> {
        let named: Vec<Partition> = self.groups.iter().map(Group::partition).collect();
        overview::readers(HexId(self.node()), &self.heard(), &named)
    }

    /// This node's URL.
    pub fn url(&self) -> &str {
        &self.own.member.url
    }

    /// Does what the groups need, until it is stopped.
    pub async fn run(self: Arc<Self>) {
        let mut stopped = self.stop.subscribe();
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => {}
            ((), (), ()) = async { tokio::join!(self.keep_time(), self.know_others(), self.care()) } => {}
        }
    }

    /// Ends the replicas and writes down what they know, so that the next start has little to find out.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let ended = self.groups.iter().map(async |group| {
            if let Err(error) = group.raft().shutdown().await {
                tracing::warn!(partition = %group.partition(), %error, "the replica did not end as it should");
            }
            if let Err(error) = group.store().shared().save_applied().await {
                tracing::warn!(partition = %group.partition(), %error, "the replica's state was not written");
            }
        });
        join_all(ended).await;
    }

    /// Heartbeats are sent all at the same moment, so that those to the same node travel together.
    async fn keep_time(&self) {
        let mut ticks = tokio::time::interval(self.timing.tick());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heartbeat_at = tokio::time::Instant::now();
        loop {
            let now = ticks.tick().await;
            let is_heartbeat_due = now >= heartbeat_at;
            if is_heartbeat_due {
                heartbeat_at = now + self.timing.heartbeat();
            }
            for group in &self.groups {
                group.note_leader();
                if !group.leads() {
                    group.elect_if_due().await;
                } else if is_heartbeat_due {
                    // One that has ended is told of elsewhere.
                    group.raft().trigger().heartbeat().await.ok();
                }
            }
        }
    }

    async fn know_others(&self) {
        loop {
            let asked = self.directory.urls().map(|url| self.ask(url));
            join_all(asked).await;
            let everybody = self.everybody();
            self.settle_cluster(everybody.as_deref());
            if let Some(everybody) = everybody {
                self.found_groups(&everybody).await;
            }
            let is_young = self.groups.iter().any(|group| !group.status().founded);
            let pause = if is_young { limits::NODE_ASK_INTERVAL_FIRST } else { limits::NODE_ASK_INTERVAL };
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) async fn ask(&self, url: &str) {
        let (time_max, answer_max) = (limits::NODE_ASK_TIME_MAX, limits::NODE_ANSWER_BYTES_MAX);
        let own_card = format!("{url}/v1/node");
        // It is asked where clients reach it, perhaps past others: the secret is for the nodes' own addresses alone.
        let asked = self.open_client.call(Method::GET, &own_card, Vec::new(), time_max, answer_max).await;
        let card: NodeCard = match asked.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
            Ok(card) => card,
            Err(error) => {
                tracing::debug!(%url, %error, "the other node does not say who it is");
                return;
            }
        };
        let own = *self.identity.lock();
        if card.id == own.node {
            tracing::error!(%url, "a peer is this node itself, or was started on a copy of its data directory");
        } else if card.cluster.is_some() && own.cluster.is_some() && card.cluster != own.cluster {
            tracing::error!(%url, "the node is of another cluster, and is not heard");
        } else if !self.directory.note(url, card) {
            tracing::error!(%url, "the node does not say where other nodes reach it, and is not heard");
        }
    }

    /// This node and all others, in the same order on each of them; `None` while one of them is not there.
    fn everybody(&self) -> Option<Vec<NodeCard>> {
        let others = self.directory.cards().into_iter();
        let mut all: Vec<NodeCard> = others
            .map(|(_, card)| card.and_then(|(card, is_recent)| is_recent.then_some(card)))
            .collect::<Option<_>>()?;
        all.push(self.card());
        // Not by their URLs, of which each node may have another spelling.
        all.sort_by_key(|card| card.id);
        Some(all)
    }

    /// Joins the cluster that another node is in; where there is none yet, the node with the least number founds it.
    fn settle_cluster(&self, everybody: Option<&[NodeCard]>) {
        let mut identity = self.identity.lock();
        if identity.cluster.is_some() {
            return;
        }
        let known = self.directory.cards().into_iter().find_map(|(_, card)| card?.0.cluster);
        let is_first = || everybody.is_some_and(|all| all.iter().all(|card| identity.node <= card.id));
        let Some(cluster) = known.or_else(|| is_first().then(HexId::random)) else { return };
        match identity.join(cluster, &*self.disk, &self.data) {
            Ok(()) => tracing::info!(%cluster, node = %identity.node, "in a cluster"),
            Err(error) => tracing::error!(%error, "the cluster cannot be remembered; it is tried again"),
        }
    }

    /// Founds the groups that are to be founded by this node.
    async fn found_groups(&self, everybody: &[NodeCard]) {
        let own = *self.identity.lock();
        if own.cluster.is_none() || everybody.iter().any(|card| card.cluster != own.cluster) {
            return;
        }
        let candidates: Vec<Candidate> =
            everybody.iter().map(|card| Candidate { id: card.id, zone: card.zone.clone() }).collect();
        for group in &self.groups {
            let partition = group.partition();
            let is_founded = |card: &NodeCard| {
                card.groups.iter().any(|status| status.partition == partition && status.founded)
            };
            if everybody.iter().any(is_founded) {
                continue;
            }
            let chosen = placement::choose(partition, &candidates, self.copies);
            let members: Vec<&NodeCard> = chosen.iter().filter_map(|place| everybody.get(*place)).collect();
            if members.first().is_none_or(|founder| founder.id != own.node) {
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

    async fn care(self: &Arc<Self>) {
        let mut told = vec![None; self.groups.len()];
        let mut save_at = tokio::time::Instant::now() + limits::APPLIED_SAVE_INTERVAL;
        loop {
            tokio::time::sleep(limits::NODE_ASK_INTERVAL).await;
            let is_time_to_save = tokio::time::Instant::now() >= save_at;
            for (place, (group, told)) in self.groups.iter().zip(&mut told).enumerate() {
                tell_changes(group, told);
                self.replace_lost_members(place);
            }
            for group in &self.groups {
                purge_if_wanted(group).await;
                // A disk that refuses is told of where records are written.
                group.end_refill_if_done().await.ok();
                if is_time_to_save && group.failure().is_none() {
                    // A disk that refuses says so to whoever writes records.
                    group.store().shared().save_applied_if_changed().await.ok();
                }
            }
            if is_time_to_save {
                save_at = tokio::time::Instant::now() + limits::APPLIED_SAVE_INTERVAL;
            }
        }
    }

    /// Where another node answers under a member's URL, the member's disk is gone: the other takes its place.
    fn replace_lost_members(self: &Arc<Self>, place: usize) {
        let (Some(group), Some(changing)) = (self.groups.get(place), self.changing.get(place)) else {
            return;
        };
        if !group.leads() {
            return;
        }
        let members = group.status().members;
        let lost = members.iter().find_map(|member| {
            let now = self.directory.node_at(&member.member.url)?;
            (now != member.id.0 && member.id.0 != self.node()).then_some((member.id.0, now, &member.member))
        });
        let Some((old, new, member)) = lost else { return };
        if changing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (cluster, member) = (Arc::clone(self), member.clone());
        tokio::spawn(async move {
            let Some(group) = cluster.groups.get(place) else { return };
            let partition = group.partition();
            tracing::info!(%partition, url = %member.url, "the replica comes back without its disk; it is filled anew");
            match replace(group, old, new, member).await {
                Ok(()) => tracing::info!(%partition, "the replica is filled, and votes"),
                Err(error) => {
                    tracing::warn!(%partition, %error, "the replica is not filled yet; it is tried again")
                }
            }
            if let Some(changing) = cluster.changing.get(place) {
                changing.store(false, Ordering::Release);
            }
        });
    }
}

/// Says in the log who leads, when that has changed, and when a replica has ended.
fn tell_changes(group: &Group, told: &mut Option<(Option<HexId>, u64, Option<String>)>) {
    let status = group.status();
    let now = (status.leader, status.term, group.failure());
    if told.as_ref() == Some(&now) {
        return;
    }
    let partition = status.partition;
    match (&now, status.leads) {
        ((.., Some(failure)), _) => {
            tracing::error!(%partition, %failure, "the replica works no more until the node is restarted");
        }
        ((_, term, _), true) => tracing::info!(%partition, term, "this node leads"),
        ((Some(leader), term, _), _) => tracing::info!(%partition, term, %leader, "another node leads"),
        ((None, term, _), _) => tracing::info!(%partition, term, "no leader is known"),
    }
    *told = Some(now);
}

/// Puts one node in the place of another. Errors in words: there is nobody who would tell them apart.
pub(super) async fn replace(group: &Group, old: NodeId, new: NodeId, member: Member) -> Result<(), String> {
    let raft = group.raft();
    // Returns once the node is filled; the node may be gone again before that.
    let added = timeout(limits::REPLACE_TIME_MAX, raft.add_learner(new, member, true)).await;
    added.map_err(|_| "it took too long to fill it".to_owned())?.map_err(|error| error.to_string())?;
    let mut voters: BTreeSet<NodeId> =
        raft.metrics().borrow().membership_config.membership().voter_ids().collect();
    voters.remove(&old);
    voters.insert(new);
    raft.change_membership(voters, false).await.map_err(|error| error.to_string())?;
    let is_left = raft.metrics().borrow().membership_config.membership().get_node(&old).is_some();
    if is_left {
        // It did not vote, as one that was lost before it was filled: with the voters it does not go.
        let gone = ChangeMembers::RemoveNodes(BTreeSet::from([old]));
        raft.change_membership(gone, false).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Lets retention delete what it wants to: the library first has to agree not to need it.
async fn purge_if_wanted(group: &Group) {
    let Some(wanted) = group.store().shared().access.purge_wanted().await else { return };
    let Some(upto) = wanted.checked_sub(1) else { return };
    // The first is what the second needs; it takes effect by the next time at the latest.
    group.raft().trigger().snapshot().await.ok();
    group.raft().trigger().purge_log(upto).await.ok();
}
