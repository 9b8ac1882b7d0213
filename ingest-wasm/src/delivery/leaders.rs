//! Who leads which partition, as far as this instance has found out.
//!
//! Pure but for the lock. Until something else is known a partition's node is the one that the configuration deals it to,
//! so that a cluster without replicas costs nothing. Invariants: what is known is bounded by the partitions and nodes
//! there may be; it ages; what the cluster tells of an older term never replaces what it told of a newer (a hint is tried
//! whatever its term); only a node that the configuration allows gets in.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Partition;
use model::wire::{ClusterAnswer, PartitionState};

use crate::config::{Config, StorageNode};
use crate::limits;

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    partitions: BTreeMap<Partition, Leadership>,
    /// Nodes beyond those of the configuration, which others named.
    nodes: Vec<StorageNode>,
    /// Whether there are several copies of a partition, and when that was told.
    is_replicated: Option<(bool, Duration)>,
    is_looking: bool,
    looked_at: Option<Duration>,
    /// Where the next look begins among the nodes.
    next_asked: usize,
}

/// What is known of one partition.
#[derive(Debug, Default)]
struct Leadership {
    /// Its leader, and when that was learned.
    leader: Option<(StorageNode, Duration)>,
    /// The newest term that was heard of; 0 where none was told.
    term: u64,
    /// The node that did not take its records, and the term in which that was.
    failed: Option<(StorageNode, u64)>,
    /// Since when nobody takes them.
    is_stuck_since: Option<Duration>,
}

/// The right to look who leads; it ends when dropped.
#[derive(Debug)]
pub(super) struct Looking<'l> {
    leaders: &'l Leaders,
    /// Whom to ask, in this order.
    pub(super) nodes: Vec<StorageNode>,
}

impl Leaders {
    pub(crate) const fn new() -> Self {
        Self {
            known: Mutex::new(Known {
                partitions: BTreeMap::new(),
                nodes: Vec::new(),
                is_replicated: None,
                is_looking: false,
                looked_at: None,
                next_asked: 0,
            }),
        }
    }

    /// The node to send a partition's records to. `None` for a partition that does not exist.
    pub(crate) fn node_of<'c>(
        &self,
        config: &'c Config,
        partition: Partition,
        now: Duration,
    ) -> Option<Cow<'c, StorageNode>> {
        let by_default = config.node_of(partition)?;
        Some(self.learned(partition, now).map_or(Cow::Borrowed(by_default), Cow::Owned))
    }

    /// The leader that was learned of, unless that is too long ago.
    pub(super) fn learned(&self, partition: Partition, now: Duration) -> Option<StorageNode> {
        let known = self.lock();
        let (node, at) = known.partitions.get(&partition)?.leader.as_ref()?;
        (now.saturating_sub(*at) < limits::LEADER_AGE_MAX).then(|| node.clone())
    }

    /// A node that does not lead named the one that does.
    pub(super) fn note_hint(&self, partition: Partition, leader: &StorageNode, now: Duration) {
        self.lock().partitions.entry(partition).or_default().leader = Some((leader.clone(), now));
    }

    /// A node did not take a partition's records: whoever says that it leads has to know of a newer term.
    pub(super) fn note_failed(&self, partition: Partition, node: &StorageNode, now: Duration) {
        let mut known = self.lock();
        let leadership = known.partitions.entry(partition).or_default();
        leadership.leader.take_if(|(leader, _)| leader == node);
        leadership.failed = Some((node.clone(), leadership.term));
        // One that was stuck long ago may have been well since: others may have taken its records.
        let is_old = |since: Duration| now.saturating_sub(since) >= limits::LEADER_AGE_MAX;
        if leadership.is_stuck_since.is_none_or(is_old) {
            leadership.is_stuck_since = Some(now);
        }
    }

    /// The node took a partition's records.
    pub(super) fn note_stored(&self, partition: Partition) {
        if let Some(leadership) = self.lock().partitions.get_mut(&partition) {
            leadership.failed = None;
            leadership.is_stuck_since = None;
        }
    }

    /// Whether a partition without a leader is likely to get one soon: an election is under way among its copies, as far as
    /// is known.
    pub(super) fn is_worth_waiting(&self, partition: Partition, now: Duration) -> bool {
        let known = self.lock();
        let since = known.partitions.get(&partition).and_then(|leadership| leadership.is_stuck_since);
        // Somebody may just be finding out whether there are copies at all.
        let has_copies = known.is_replicated.map_or(known.is_looking, |(is_replicated, _)| is_replicated);
        has_copies && since.is_some_and(|since| now.saturating_sub(since) < limits::ELECTION_TIME_MAX)
    }

    /// The right to look who leads, unless another task of this instance has it, somebody has just looked, or there is
    /// nothing to be found out: where each partition has one copy, its node does not change.
    pub(super) fn look(&self, config: &Config, now: Duration) -> Option<Looking<'_>> {
        let mut known = self.lock();
        let is_recent = |at: Duration, age_max: Duration| now.saturating_sub(at) < age_max;
        let is_static = known
            .is_replicated
            .is_some_and(|(is_replicated, at)| !is_replicated && is_recent(at, limits::LEADER_AGE_MAX));
        let has_looked = known.looked_at.is_some_and(|at| is_recent(at, limits::LOOK_PAUSE_MIN));
        if known.is_looking || is_static || has_looked {
            return None;
        }
        known.is_looking = true;
        known.looked_at = Some(now);
        let mut nodes: Vec<StorageNode> = config.storage_nodes.iter().chain(&known.nodes).cloned().collect();
        let first = known.next_asked % nodes.len().max(1);
        known.next_asked = first + 1;
        nodes.rotate_left(first);
        Some(Looking { leaders: self, nodes })
    }

    /// Everything is to be found out anew.
    pub(crate) fn forget(&self) {
        let mut known = self.lock();
        let is_looking = known.is_looking;
        *known = Known { is_looking, ..Known::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Looking<'_> {
    /// Notes what a node answered that was called by `asked`.
    pub(super) fn note(&self, config: &Config, asked: &StorageNode, answer: &ClusterAnswer, now: Duration) {
        let mut known = self.leaders.lock();
        let own_url = answer.own_url();
        for state in answer.partitions.iter().filter(|state| config.node_of(state.partition).is_some()) {
            let Some(leader) = &state.leader else { continue };
            // A node may know itself by another URL than the one it was called by.
            let is_itself = own_url == Some(leader.as_str());
            let leader = if is_itself { Some(asked.clone()) } else { config.node_at(leader) };
            let Some(leader) = leader else { continue };
            let leadership = known.partitions.entry(state.partition).or_default();
            if is_itself {
                // It is there and should know, unless a newer term has been heard of.
                leadership.failed = None;
            }
            leadership.learn(leader, state.term, now);
        }
        for node in answer.nodes.iter().filter_map(|node| config.node_at(&node.url)) {
            let is_known = config.storage_nodes.contains(&node) || known.nodes.contains(&node);
            if !is_known && known.nodes.len() < limits::STORAGE_NODES_MAX {
                known.nodes.push(node);
            }
        }
        // A node that has just come may know of no partition yet, or of too few copies: a term says that there are more.
        let has_copies = |state: &PartitionState| state.term > 0 || state.replicas.len() > 1;
        if !answer.partitions.is_empty() {
            let is_replicated = answer.partitions.iter().any(has_copies);
            known.is_replicated = Some((is_replicated, now));
        }
    }
}

impl Leadership {
    fn learn(&mut self, leader: StorageNode, term: u64, now: Duration) {
        let has_failed = self.failed.as_ref().is_some_and(|(node, at)| *node == leader && term <= *at);
        if term >= self.term && !has_failed {
            self.leader = Some((leader, now));
        }
        self.term = self.term.max(term);
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.leaders.lock().is_looking = false;
    }
}
