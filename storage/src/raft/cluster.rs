//! This node among the others: who they are, which groups there are to be, and what the groups need from time to time.
//!
//! Invariant: who does something with a group's members claims it first. How nodes meet is in `meeting`, what becomes of
//! replicas in `moving`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use model::Partition;
use model::wire::{ClusterNode, PartitionState};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::client::NodeClient;
use super::directory::{Directory, NodeCard};
use super::group::{Group, GroupStatus};
use super::identity::{HexId, Identity};
use super::known;
use super::overview::{self, Heard};
use super::secret::Secret;
use super::timing::Timing;
use super::types::{Member, NodeId};
use crate::limits;
use crate::log::{Disk, LogError};
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
    /// Shows no secret, and knows no TLS.
    open_client: NodeClient,
    secret: Secret,
    directory: Arc<Directory>,
    is_joining: bool,
    /// In order of their partitions.
    groups: Vec<Group>,
    /// How long a node may be away before others take its place.
    gone_after: Duration,
    started: Instant,
    /// Whether the members of a group are being changed.
    changing: Vec<AtomicBool>,
    /// Whether this node's replica was let go, as the group's leader says.
    outside: Vec<AtomicBool>,
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
    /// How long a node may be away before others take its place.
    pub gone_after: Duration,
    /// The groups' times.
    pub timing: Timing,
    /// Asks other nodes.
    pub client: NodeClient,
    /// What they have to know.
    pub secret: Secret,
    /// The other nodes.
    pub directory: Arc<Directory>,
    /// Whether the node joins a cluster that there is, and founds none.
    pub is_joining: bool,
    /// The replicas, in order of their partitions.
    pub groups: Vec<Group>,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(parts: ClusterParts) -> Self {
        let ClusterParts { own, identity, disk, data, copies, gone_after, timing, .. } = parts;
        let ClusterParts { client, secret, directory, is_joining, groups, .. } = parts;
        let flags = || groups.iter().map(|_| AtomicBool::new(false)).collect();
        let (changing, outside) = (flags(), flags());
        let (stop, _) = watch::channel(false);
        let identity = Mutex::new(identity);
        let open_client = NodeClient::new(Secret::none(), None);
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
            is_joining,
            groups,
            gone_after,
            started: Instant::now(),
            changing,
            outside,
            stop,
        }
    }

    /// What nodes have to know that want something of this one.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// For how long a replica that is in touch with the others may not have heard from them.
    pub fn silence_max(&self) -> Duration {
        self.timing.quorum_silence_max()
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

    /// The cluster's number, once the node has met one.
    pub(super) fn cluster_id(&self) -> Option<HexId> {
        self.identity.lock().cluster
    }

    /// Whether the node joins a cluster that there is, and founds none.
    pub(super) fn is_joining(&self) -> bool {
        self.is_joining
    }

    /// Asks other nodes, and shows no secret.
    pub(super) fn open_client(&self) -> &NodeClient {
        &self.open_client
    }

    /// The node is in this cluster from now on.
    pub(super) fn join(&self, cluster: HexId) {
        let mut identity = self.identity.lock();
        match identity.join(cluster, &*self.disk, &self.data) {
            Ok(()) => tracing::info!(%cluster, node = %identity.node, "in a cluster"),
            Err(error) => tracing::error!(%error, "the cluster cannot be remembered; it is tried again"),
        }
    }

    /// Writes down whom others have vouched for: who named them may be gone at the next start.
    pub(super) fn remember_others(&self) {
        if let Err(error) = known::write(&*self.disk, &self.data, self.directory.vouched()) {
            tracing::error!(%error, "the other nodes cannot be remembered");
        }
    }

    /// What this node says of itself.
    pub fn card(&self) -> NodeCard {
        let identity = *self.identity.lock();
        let Member { name, url, zone, .. } = self.own.member.clone();
        NodeCard {
            cluster: identity.cluster,
            id: identity.node,
            name,
            url,
            internal: self.own.internal.clone(),
            zone,
            draining: identity.draining,
            copies: Some(self.copies),
            known: Some(self.directory.cards().len() + 1),
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

    /// The groups' times.
    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    /// Copies that each partition is to have.
    pub(super) fn copies(&self) -> usize {
        self.copies
    }

    /// How long a node may be away before others take its place.
    pub(super) fn gone_after(&self) -> Duration {
        self.gone_after
    }

    /// How long this node has been running.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether this node has all there is of a partition: one that is being filled has not, nor one that was let go.
    pub fn has_copy(&self, partition: Partition) -> bool {
        let own = HexId(self.node());
        let place = self.groups.binary_search_by_key(&partition, Group::partition).ok();
        let replica = place.and_then(|place| self.groups.get(place).zip(self.outside.get(place)));
        replica.is_some_and(|(group, outside)| {
            !outside.load(Ordering::Acquire)
                && group.status().members.iter().any(|member| member.id == own && member.votes)
        })
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
            group.store().shared().close();
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
            for (group, outside) in self.groups.iter().zip(&self.outside) {
                if !group.note_leader() {
                    if !outside.load(Ordering::Acquire) {
                        group.elect_if_due().await;
                    }
                } else if is_heartbeat_due {
                    // One that has ended is told of elsewhere.
                    group.raft().trigger().heartbeat().await.ok();
                }
            }
        }
    }

    async fn care(self: &Arc<Self>) {
        let mut told = vec![None; self.groups.len()];
        let mut was_drained = false;
        let mut save_at = tokio::time::Instant::now() + limits::APPLIED_SAVE_INTERVAL;
        loop {
            tokio::time::sleep(limits::NODE_ASK_INTERVAL).await;
            let is_time_to_save = tokio::time::Instant::now() >= save_at;
            for (group, told) in self.groups.iter().zip(&mut told) {
                tell_changes(group, told);
            }
            self.tend_members();
            let is_drained = self.card().draining && self.holds_nothing();
            if is_drained && !was_drained {
                tracing::info!("this node is drained: it holds nothing, and can be stopped for good");
            }
            was_drained = is_drained;
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

    /// Claims a group for a change of its members; `None` while there is one.
    pub(super) fn claim(self: &Arc<Self>, place: usize) -> Option<Claim> {
        let is_taken = self.changing.get(place)?.swap(true, Ordering::AcqRel);
        (!is_taken).then(|| Claim { cluster: Arc::clone(self), place })
    }

    /// Notes whether this node's replica at this place was let go.
    pub(super) fn set_outside(&self, place: usize, is_outside: bool) {
        if let Some(outside) = self.outside.get(place) {
            outside.store(is_outside, Ordering::Release);
        }
    }

    /// Remembers whether this node is to hold nothing; whether that is new.
    pub(super) fn remember_draining(&self, draining: bool) -> Result<bool, LogError> {
        let mut identity = self.identity.lock();
        if identity.draining == draining {
            return Ok(false);
        }
        identity.set_draining(draining, &*self.disk, &self.data).map(|()| true)
    }
}

/// That a group's members are being changed, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    cluster: Arc<Cluster>,
    place: usize,
}

impl Claim {
    /// The group's place.
    pub(super) fn place(&self) -> usize {
        self.place
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(changing) = self.cluster.changing.get(self.place) {
            changing.store(false, Ordering::Release);
        }
    }
}

/// Says in the log who leads, when that has changed, and when a replica has ended.
fn tell_changes(group: &Group, told: &mut Option<(Option<HexId>, u64, Option<String>)>) {
    let (leader, term, leads) = group.lead();
    let now = (leader, term, group.failure());
    if told.as_ref() == Some(&now) {
        return;
    }
    let partition = group.partition();
    match (&now, leads) {
        ((.., Some(failure)), _) => {
            tracing::error!(%partition, %failure, "the replica works no more until the node is restarted");
        }
        ((_, term, _), true) => tracing::info!(%partition, term, "this node leads"),
        ((Some(leader), term, _), _) => tracing::info!(%partition, term, %leader, "another node leads"),
        ((None, term, _), _) => tracing::info!(%partition, term, "no leader is known"),
    }
    *told = Some(now);
}

/// Lets retention delete what it wants to: the library first has to agree not to need it.
async fn purge_if_wanted(group: &Group) {
    let Some(wanted) = group.store().shared().reader.purge_wanted() else { return };
    let Some(upto) = wanted.checked_sub(1) else { return };
    // The first is what the second needs; it takes effect by the next time at the latest.
    group.raft().trigger().snapshot().await.ok();
    group.raft().trigger().purge_log(upto).await.ok();
}
