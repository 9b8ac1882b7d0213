//! Replicas on the move: the steps of the plan that are this node's to take, and what its operator asks for.
//!
//! Invariants: a partition is changed by its leader alone, one change at a time; what is to be done follows from what
//! the nodes say at the moment, so that whoever leads next goes on with it. That a node is to hold nothing is remembered
//! by that node.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use model::Partition;

use super::cluster::{Claim, Cluster};
use super::group::{Group, GroupStatus};
use super::identity::HexId;
use super::members;
use super::overview::{self, Heard};
use super::plan::{NodeView, PartitionView, Presence, Step, View};
use super::types::{Member, NodeId};
use crate::limits;
use crate::log::LogError;

/// Why a replica is not moved, or a node not drained.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no such partition.
    #[error("there is no partition {0}")]
    NoPartition(Partition),
    /// Another node leads the partition.
    #[error("another node leads partition {partition}")]
    NotLeader {
        /// The partition.
        partition: Partition,
        /// The leader's URL, if it is known.
        leader: Option<Arc<str>>,
    },
    /// No node goes by that name, or more than one.
    #[error("{count} nodes are known by {name:?}: say a node's name or its URL, as GET /v1/cluster does")]
    Unknown {
        /// What was said.
        name: String,
        /// How many nodes that is.
        count: usize,
    },
    /// The node has no replica to give away.
    #[error("{0} has no replica of the partition")]
    NotThere(String),
    /// The node has a replica already.
    #[error("{0} has a replica of the partition already")]
    ThereAlready(String),
    /// The node is not to get one.
    #[error("{0} does not answer, is being drained, or does not name the partition in its --partitions")]
    Unfit(String),
    /// A replica is away: what there is might be too little.
    #[error("not all replicas of the partition answer: nothing is moved until they do")]
    Unsettled,
    /// Enough is being moved.
    #[error("{0} partitions are being moved already")]
    Busy(usize),
    /// There would be too few nodes.
    #[error(
        "{there} other nodes could hold replicas, and each partition is to have {copies}: add a node first"
    )]
    TooFew {
        /// The nodes that there are.
        there: usize,
        /// The copies that there are to be.
        copies: usize,
    },
    /// It cannot be remembered.
    #[error("it cannot be remembered: {0}")]
    Disk(#[from] LogError),
}

/// What became of a wish to move a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The partition's members are being changed.
    UnderWay,
    /// The replica is where it was to be.
    Done,
}

impl Cluster {
    /// Says whether this node is to hold nothing; where it is to, its replicas move to others from now on.
    ///
    /// # Errors
    /// See [`MoveError`].
    pub fn set_draining(&self, draining: bool) -> Result<(), MoveError> {
        if draining {
            let view = self.view();
            let fits = |node: &&NodeView| {
                node.presence == Presence::Alive && !node.is_draining && node.id.0 != self.node()
            };
            let there = view.nodes.iter().filter(fits).count();
            if there < view.copies {
                return Err(MoveError::TooFew { there, copies: view.copies });
            }
        }
        let changed = self.remember_draining(draining)?;
        if changed {
            tracing::info!(draining, "whether this node is to hold replicas was changed by its operator");
        }
        Ok(())
    }

    /// Whether this node is to hold nothing.
    pub fn is_draining(&self) -> bool {
        self.card().draining
    }

    /// Moves a replica of a partition that this node leads from one node to another, each known by its name or URL. It
    /// goes on by itself; asked again, it says how that stands.
    ///
    /// # Errors
    /// See [`MoveError`].
    pub fn move_replica(
        self: &Arc<Self>,
        partition: Partition,
        from: &str,
        to: &str,
    ) -> Result<Move, MoveError> {
        let heard = self.heard();
        let (from, to) = (find(&heard, from)?, find(&heard, to)?);
        let place = self.groups().iter().position(|group| group.partition() == partition);
        let (place, group) = place
            .and_then(|place| Some((place, self.groups().get(place)?)))
            .ok_or(MoveError::NoPartition(partition))?;
        if !group.leads() {
            return Err(MoveError::NotLeader { partition, leader: group.leader_url() });
        }
        let view = self.view_of(&heard);
        let Some(now) = view.partition(partition) else {
            return Err(MoveError::NotLeader { partition, leader: None });
        };
        let (from_id, to_id) = (from.card.id, to.card.id);
        let is_member = now.voters.contains(&from_id) || now.learners.contains(&from_id);
        if now.voters.contains(&to_id) && !is_member {
            return Ok(Move::Done);
        }
        let Some(claim) = self.claim(place) else { return Ok(Move::UnderWay) };
        if !now.voters.contains(&from_id) {
            return Err(MoveError::NotThere(from.card.name.clone()));
        }
        if now.voters.contains(&to_id) {
            return Err(MoveError::ThereAlready(to.card.name.clone()));
        }
        let target = view.nodes.iter().find(|node| node.id == to_id);
        if target.is_none_or(|node| {
            node.presence != Presence::Alive || node.is_draining || !node.partitions.contains(&partition)
        }) {
            return Err(MoveError::Unfit(to.card.name.clone()));
        }
        if !view.is_settled(now) {
            return Err(MoveError::Unsettled);
        }
        if view.under_way() >= limits::MOVES_MAX && !now.learners.contains(&to_id) {
            return Err(MoveError::Busy(view.under_way()));
        }
        let mut after = now.voters.clone();
        after.remove(&from_id);
        after.insert(to_id);
        let chosen: BTreeSet<HexId> =
            view.wanted(&PartitionView { is_placed: false, ..now.clone() }).into_iter().collect();
        let member = Member { placed: after != chosen, ..to.card.member() };
        let is_there = view.presence(from_id) != Presence::Gone;
        let change = Change::Swap { add: Some((to_id.0, member)), drop: Some((from_id.0, is_there)) };
        self.carry_out(claim, change);
        Ok(Move::UnderWay)
    }

    /// Does what is this node's to do for the members of the groups that it leads.
    pub(super) fn tend_members(self: &Arc<Self>) {
        let heard = self.heard();
        for (place, group) in self.groups().iter().enumerate() {
            self.set_outside(place, self.is_outside(group.partition(), &heard));
            if !group.leads() {
                continue;
            }
            if members::is_half_way(group) {
                self.begin(place, Change::Finish);
            } else if let Some((old, new, member)) = self.lost_member(&group.status()) {
                let (partition, url) = (group.partition(), member.url.clone());
                if self.begin(place, Change::Replace { old, new, member }) {
                    tracing::info!(%partition, %url, "the replica comes back without its disk; it is filled anew");
                }
            }
        }
        for (partition, step) in self.view_of(&heard).steps(limits::MOVES_MAX) {
            let place =
                self.groups().iter().position(|group| group.partition() == partition && group.leads());
            if let Some((place, change)) = place.zip(change_of(step, &heard)) {
                self.begin(place, change);
            }
        }
    }

    /// Changes a group's members, beside everything else; whether nothing else is being done with it.
    fn begin(self: &Arc<Self>, place: usize, change: Change) -> bool {
        let claim = self.claim(place);
        let is_free = claim.is_some();
        if let Some(claim) = claim {
            self.carry_out(claim, change);
        }
        is_free
    }

    fn carry_out(self: &Arc<Self>, claim: Claim, change: Change) {
        let Some(group) = self.groups().get(claim.place()).cloned() else { return };
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            let _until_done = claim;
            let partition = group.partition();
            match &change {
                Change::Forget { .. } | Change::Finish => {}
                Change::Swap { .. } | Change::Replace { .. } => {
                    tracing::info!(%partition, change = %change, "the partition's members are being changed");
                }
            }
            if change.lets_go(cluster.node()) && cluster.hand_over(&group).await {
                // Whoever leads now lets this replica go.
                return;
            }
            let changed = tokio::select! {
                changed = change.make(&group) => changed,
                // It is sent what it lacks all the same, and the plan may have another one by then.
                () = cluster.until_silent(change.added()) => Err("the node that was to be filled does not answer".to_owned()),
            };
            match changed {
                Ok(()) if matches!(change, Change::Replace { .. }) => {
                    tracing::info!(%partition, "the replica is filled, and votes");
                }
                Ok(()) => tracing::info!(%partition, change = %change, "the partition's members are changed"),
                Err(error) => {
                    tracing::warn!(%partition, %error, change = %change, "the partition's members are not changed yet; it is tried again");
                }
            }
        });
    }

    /// Returns when a node was not heard lately; of nobody, never.
    async fn until_silent(&self, node: Option<NodeId>) {
        let Some(node) = node else { return std::future::pending().await };
        let is_silent =
            || self.directory().silence_of(node).is_none_or(|silence| silence > limits::NODE_SEEN_MAX);
        while !is_silent() {
            tokio::time::sleep(limits::NODE_ASK_INTERVAL).await;
        }
    }

    /// A member under whose URL another node answers: its disk is gone, and the other is to take its place.
    fn lost_member(&self, status: &GroupStatus) -> Option<(NodeId, NodeId, Member)> {
        status.members.iter().find_map(|member| {
            let now = self.directory().node_at(&member.member.url)?;
            let is_member = status.members.iter().any(|member| member.id.0 == now);
            let silence = self.directory().silence_of(member.id.0);
            // Two that have changed their addresses are both there.
            let is_there = silence.is_some_and(|silence| silence <= limits::NODE_SEEN_MAX);
            let is_lost = now != member.id.0 && member.id.0 != self.node() && !is_member && !is_there;
            is_lost.then(|| (member.id.0, now, member.member.clone()))
        })
    }

    /// Why this node's replicas cannot stand in for others, in words.
    pub fn lacks(&self) -> Vec<String> {
        let (heard, own) = (self.heard(), HexId(self.node()));
        let lack = |group: &Group| {
            let (partition, status) = (group.partition(), group.status());
            if let Some(failure) = group.failure() {
                return Some(format!("partition {partition}'s replica works no more: {failure}"));
            }
            if let Some(why) = group.unreadable() {
                return Some(format!(
                    "partition {partition}'s replica cannot read what its leader sends: {why}"
                ));
            }
            // Its leader knows best whether it is a member.
            let led = overview::led(partition, &heard).map(|(_, status)| status);
            let known = led.unwrap_or(&status);
            let member = known.members.iter().find(|member| member.id == own);
            let is_led = if member.is_some() { status.leader.is_some() } else { led.is_some() };
            if !is_led {
                Some(format!("partition {partition} has no leader"))
            } else if member.is_some_and(|member| !member.votes || group.is_refilling()) {
                // Were the next node stopped now, this one could not stand in for it.
                Some(format!("partition {partition}'s replica is being filled from another one"))
            } else {
                None
            }
        };
        self.groups().iter().filter_map(lack).collect()
    }

    /// Whether this node has no replica of any partition, as far as is known.
    pub(super) fn holds_nothing(&self) -> bool {
        let (heard, own) = (self.heard(), HexId(self.node()));
        self.groups().iter().all(|group| {
            let led = overview::led(group.partition(), &heard);
            led.is_some_and(|(_, status)| !is_member(status, own))
        })
    }

    /// What the plan is made from.
    fn view(&self) -> View {
        self.view_of(&self.heard())
    }

    fn view_of(&self, heard: &[Heard]) -> View {
        let mut nodes: Vec<NodeView> = heard.iter().map(|node| self.node_view(node)).collect();
        let mut partitions = Vec::new();
        for group in self.groups() {
            let partition = group.partition();
            let Some((leader, status)) = overview::led(partition, heard) else { continue };
            let view = partition_view(leader.card.id, status);
            for id in view.voters.iter().chain(&view.learners) {
                if nodes.iter().all(|node| node.id != *id) {
                    nodes.push(self.stranger(*id));
                }
            }
            partitions.push(view);
        }
        // Where nodes were told otherwise there is nothing that all of them want.
        let disagrees =
            |node: &Heard| node.alive && node.card.copies.is_some_and(|copies| copies != self.copies());
        if heard.iter().any(disagrees) {
            tracing::warn!("nodes of the cluster differ in their --replicas: no replica is moved");
            partitions.clear();
        }
        View { nodes, partitions, copies: self.copies() }
    }

    fn node_view(&self, node: &Heard) -> NodeView {
        let card = &node.card;
        NodeView {
            id: card.id,
            zone: card.zone.clone(),
            presence: if node.alive { Presence::Alive } else { self.presence_of(card.id) },
            is_draining: card.draining,
            partitions: card.groups.iter().map(|status| status.partition).collect(),
        }
    }

    /// A member that was not heard since this node has started, or has another identity now.
    fn stranger(&self, id: HexId) -> NodeView {
        let presence = self.presence_of(id);
        NodeView { id, zone: None, presence, is_draining: false, partitions: BTreeSet::new() }
    }

    /// How a node is that was not heard lately.
    fn presence_of(&self, id: HexId) -> Presence {
        let silence = self.directory().silence_of(id.0).unwrap_or_else(|| self.age());
        if silence >= self.gone_after() { Presence::Gone } else { Presence::Away }
    }

    /// Whether this node's replica was let go, as the partition's leader says: the replica may not know of it.
    fn is_outside(&self, partition: Partition, heard: &[Heard]) -> bool {
        // A leader of before does not know what was decided on since.
        let own_term = self.group(partition).map_or(0, |group| group.status().term);
        let led = overview::led(partition, heard).filter(|(_, status)| status.term >= own_term);
        led.is_some_and(|(_, status)| !is_member(status, HexId(self.node())))
    }
}

/// What is done with a group's members.
#[derive(Clone, Debug)]
enum Change {
    /// A change that was broken off is finished.
    Finish,
    /// One node takes the place of another, which has lost its disk.
    Replace { old: NodeId, new: NodeId, member: Member },
    /// A node is filled, and another let go: one that is there, or one that is not.
    Swap { add: Option<(NodeId, Member)>, drop: Option<(NodeId, bool)> },
    /// A node that does not vote is let go.
    Forget { node: NodeId, is_there: bool },
}

impl Change {
    /// The node that is filled.
    fn added(&self) -> Option<NodeId> {
        match self {
            Self::Replace { new, .. } => Some(*new),
            Self::Swap { add, .. } => add.as_ref().map(|(node, _)| *node),
            Self::Finish | Self::Forget { .. } => None,
        }
    }

    /// Whether the change takes this node's vote.
    fn lets_go(&self, own: NodeId) -> bool {
        matches!(self, Self::Swap { drop: Some((node, _)), .. } if *node == own)
    }

    async fn make(&self, group: &Group) -> Result<(), String> {
        match self.clone() {
            Self::Finish => members::finish(group).await,
            Self::Replace { old, new, member } => members::replace(group, old, new, member).await,
            Self::Swap { add, drop } => members::change(group, add, drop).await,
            Self::Forget { node, is_there } => members::let_go(group, node, is_there).await,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finish => f.write_str("what was begun is finished"),
            Self::Replace { old, new, .. } => write!(f, "{} for {}", HexId(*new), HexId(*old)),
            Self::Swap { add, drop } => {
                let add = add.as_ref().map_or("nobody", |(_, member)| &member.name);
                write!(f, "{add} for ")?;
                match drop {
                    Some((node, _)) => HexId(*node).fmt(f),
                    None => f.write_str("nobody"),
                }
            }
            Self::Forget { node, .. } => write!(f, "nobody for {}", HexId(*node)),
        }
    }
}

/// What a step of the plan is for those who take it.
fn change_of(step: Step, heard: &[Heard]) -> Option<Change> {
    let known = |id: HexId| heard.iter().find(|node| node.card.id == id);
    let is_there = |id: HexId| known(id).is_some_and(|node| node.alive);
    Some(match step {
        Step::Forget(id) => Change::Forget { node: id.0, is_there: is_there(id) },
        Step::Change { add, drop } => {
            let add = match add {
                Some(id) => Some((id.0, known(id)?.card.member())),
                None => None,
            };
            Change::Swap { add, drop: drop.map(|id| (id.0, is_there(id))) }
        }
    })
}

fn partition_view(leader: HexId, status: &GroupStatus) -> PartitionView {
    let (voters, learners): (Vec<_>, Vec<_>) = status.members.iter().partition(|member| member.votes);
    PartitionView {
        partition: status.partition,
        leader,
        is_placed: voters.iter().any(|member| member.member.placed),
        voters: voters.iter().map(|member| member.id).collect(),
        learners: learners.iter().map(|member| member.id).collect(),
    }
}

fn is_member(status: &GroupStatus, id: HexId) -> bool {
    status.members.iter().any(|member| member.id == id)
}

/// The node of this name, or at this URL.
fn find<'h>(heard: &'h [Heard], name: &str) -> Result<&'h Heard, MoveError> {
    let url = name.trim_end_matches('/');
    let known = |node: &&Heard| node.card.name == name || node.card.url == url;
    let mut found = heard.iter().filter(known);
    match (found.next(), found.count()) {
        (Some(node), 0) => Ok(node),
        (first, more) => {
            Err(MoveError::Unknown { name: name.to_owned(), count: usize::from(first.is_some()) + more })
        }
    }
}
