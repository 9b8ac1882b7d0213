//! A cluster with several copies of each partition: who leads, and whether the copies are the same.

use std::collections::BTreeMap;
use std::time::Duration;

use model::EnrichedRecord;
use model::wire::{ClusterAnswer, PartitionState, ReplicaRole};

use crate::cluster::{Cluster, Stored};
use crate::files;
use crate::wait::eventually;

/// How long the nodes may take to agree on leaders: several elections on a busy machine.
const ELECTED_MAX: Duration = Duration::from_secs(30);
/// How long copies may take to become the same, once nobody sends: a node that was away is filled.
const SAME_MAX: Duration = Duration::from_secs(60);

impl Cluster {
    /// Waits until each partition has a leader of which all running nodes know; returns its place in [`Cluster::nodes`].
    ///
    /// # Panics
    /// When they do not agree in time.
    pub async fn leaders(&self) -> BTreeMap<u16, usize> {
        eventually("all partitions have a leader", ELECTED_MAX, async || self.leaders_now().await).await
    }

    /// As [`Self::leaders`], of one partition.
    ///
    /// # Panics
    /// When they do not agree in time.
    pub async fn leader_of(&self, partition: u16) -> usize {
        self.leaders().await[&partition]
    }

    /// The leaders, if all running nodes agree on one for each partition.
    async fn leaders_now(&self) -> Option<BTreeMap<u16, usize>> {
        let mut agreed: Option<BTreeMap<u16, usize>> = None;
        for answer in self.descriptions().await? {
            let leaders: Option<BTreeMap<u16, usize>> = answer
                .partitions
                .iter()
                .map(|state| Some((state.partition.get(), self.place_of(state.leader.as_deref()?)?)))
                .collect();
            let leaders = leaders.filter(|leaders| leaders.len() == usize::from(self.partitions()))?;
            if agreed.get_or_insert_with(|| leaders.clone()) != &leaders {
                return None;
            }
        }
        agreed.filter(|leaders| leaders.values().all(|place| self.nodes[*place].is_running()))
    }

    /// What each running node that is not stopped says; `None` when one does not answer.
    async fn descriptions(&self) -> Option<Vec<ClusterAnswer>> {
        let mut answers = Vec::new();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            let answer = self.client.get(&node.url("/v1/cluster")).await.ok()?;
            answers.push((answer.status == 200).then(|| answer.json())?);
        }
        Some(answers)
    }

    fn place_of(&self, url: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.url("") == url.trim_end_matches('/'))
    }

    /// Waits until all copies of each partition are complete, and compares them byte by byte; returns what they hold.
    /// All nodes have to run, and nobody may send any more.
    ///
    /// # Panics
    /// When they do not become complete, or differ.
    pub async fn same_everywhere(&self) -> Stored {
        let states =
            eventually("all copies are complete", SAME_MAX, async || self.complete_states().await).await;
        states.iter().map(|state| (state.partition.get(), self.compare(state))).collect()
    }

    /// The partitions, if every copy of each is complete, as their leaders say.
    async fn complete_states(&self) -> Option<Vec<PartitionState>> {
        let leaders = self.leaders_now().await?;
        let answers = self.descriptions().await?;
        let mut states = Vec::new();
        for (partition, place) in leaders {
            let name = self.nodes[place].name();
            let answer = answers.iter().find(|answer| answer.node == name)?;
            let state = answer.partitions.iter().find(|state| state.partition.get() == partition)?;
            let end = state.high_watermark;
            let is_complete = |copy: &model::wire::Replica| {
                copy.lag == 0 && copy.flushed == end && copy.role != ReplicaRole::Learner
            };
            if state.replicas.len() != self.replicas() || !state.replicas.iter().all(is_complete) {
                return None;
            }
            // And the followers know that it is committed.
            let knows = |answer: &ClusterAnswer| {
                let known = answer.partitions.iter().find(|state| state.partition.get() == partition);
                known
                    .is_some_and(|known| known.role_of(&answer.node).is_none() || known.high_watermark == end)
            };
            if !answers.iter().all(knows) {
                return None;
            }
            states.push(state.clone());
        }
        Some(states)
    }

    /// The records of a partition, which all its copies have byte for byte.
    fn compare(&self, state: &PartitionState) -> Vec<EnrichedRecord> {
        let partition = state.partition.get();
        let mut copies = state.replicas.iter().map(|copy| {
            let node = self.nodes.iter().find(|node| node.name() == copy.node).unwrap();
            (node.name(), node.partition_dir(partition))
        });
        let (first_name, first_dir) = copies.next().unwrap();
        let first = files::lines(&first_dir);
        assert_eq!(first.len() as u64, state.high_watermark.get(), "partition {partition} on {first_name}");
        for (name, dir) in copies {
            let other = files::lines(&dir);
            let differing = first.iter().zip(&other).position(|(a, b)| a != b);
            assert!(
                differing.is_none() && first.len() == other.len(),
                "partition {partition} has {} records on {first_name} and {} on {name}; they differ from {differing:?}",
                first.len(),
                other.len()
            );
        }
        files::records(&first_dir)
    }
}
