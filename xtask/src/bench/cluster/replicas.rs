//! A cluster of storage nodes of which each holds a copy of every partition.
//!
//! Invariant: a node that is started again has the address that it had; the others know it by that.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::super::parts::{Part, Usage};
use crate::cargo::Programs;
use crate::probe;

/// Nodes, and copies of each partition.
pub(super) const NODES: usize = 3;
/// How long the nodes may take to agree on who leads.
const AGREED_MAX: Duration = Duration::from_secs(60);
/// Between two looks at what the nodes say.
const PAUSE: Duration = Duration::from_millis(20);

/// The nodes.
pub(super) struct Replicas<'a> {
    programs: &'a Programs,
    dir: &'a Path,
    partitions: Vec<u16>,
    more: &'a [&'a str],
    /// Where each listens.
    pub(super) addresses: Vec<SocketAddr>,
    /// Each, while it runs.
    running: Vec<Option<Part>>,
}

/// What a node says of a partition.
struct Told {
    leader: Option<String>,
    /// How many records the copy lacks that lacks most; `None` unless as many copies are told of as there are nodes.
    lag: Option<u64>,
}

impl<'a> Replicas<'a> {
    /// Starts them all, and waits until every partition has a leader that all of them know.
    pub(super) fn start(
        programs: &'a Programs,
        dir: &'a Path,
        partitions: u16,
        more: &'a [&'a str],
    ) -> anyhow::Result<Self> {
        // Held until all have one: the system would give the same again.
        let listeners = (0..NODES).map(|_| TcpListener::bind(("127.0.0.1", 0)));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        drop(listeners);
        let running = addresses.iter().map(|_| None).collect();
        let mut replicas =
            Self { programs, dir, partitions: (0..partitions).collect(), more, addresses, running };
        for place in 0..NODES {
            replicas.start_one(place)?;
        }
        replicas.wait_until_settled()?;
        Ok(replicas)
    }

    /// Starts a node that does not run.
    pub(super) fn start_one(&mut self, place: usize) -> anyhow::Result<()> {
        let (name, nodes) = (name(place), &self.addresses);
        let part = Part::replica(self.programs, self.dir, &name, nodes, place, &self.partitions, self.more)?;
        *self.slot(place)? = Some(part);
        Ok(())
    }

    /// Kills a node.
    pub(super) fn kill(&mut self, place: usize) -> anyhow::Result<()> {
        self.slot(place)?.take().context("the node does not run")?.kill()
    }

    /// Kills a node, and takes its disk away.
    pub(super) fn wipe(&mut self, place: usize) -> anyhow::Result<()> {
        self.kill(place)?;
        std::fs::remove_dir_all(self.data(place)).context("could not remove a node's data")
    }

    /// Where a node keeps its data.
    pub(super) fn data(&self, place: usize) -> PathBuf {
        self.dir.join(name(place))
    }

    /// What each node has used.
    pub(super) fn usage(&mut self) -> anyhow::Result<Vec<Usage>> {
        self.running.iter_mut().flatten().map(Part::usage).collect()
    }

    /// The same once all are at rest.
    pub(super) fn usage_at_rest(&mut self) -> anyhow::Result<Vec<Usage>> {
        self.running.iter_mut().flatten().map(Part::usage_at_rest).collect()
    }

    /// Stops all of them in order.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.running.into_iter().flatten().try_for_each(Part::stop)
    }

    /// The end of each node's log.
    pub(super) fn log_tails(&self) -> String {
        let tails: Vec<String> = self.running.iter().flatten().map(Part::log_tail).collect();
        tails.join("\n")
    }

    /// The node that leads the first partition, as it says itself.
    pub(super) fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + AGREED_MAX;
        loop {
            for (place, address) in self.addresses.iter().enumerate() {
                let own = format!("http://{address}");
                if self.told(*address).is_some_and(|told| told.first().is_some_and(|one| one.leads(&own))) {
                    return Ok(place);
                }
            }
            self.pause(deadline, "no node leads")?;
        }
    }

    /// Waits until all nodes know the same leader of every partition, and all copies have all records.
    pub(super) fn wait_until_settled(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + AGREED_MAX;
        loop {
            let told: Option<Vec<_>> = self.addresses.iter().map(|address| self.told(*address)).collect();
            if told.is_some_and(|told| are_agreed(&told, self.partitions.len())) {
                return Ok(());
            }
            self.pause(deadline, "the nodes do not agree on who leads")?;
        }
    }

    fn pause(&self, deadline: Instant, what: &str) -> anyhow::Result<()> {
        if Instant::now() > deadline {
            bail!("{what}; {}", self.log_tails());
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }

    /// What a node tells of the partitions, if it answers.
    fn told(&self, node: SocketAddr) -> Option<Vec<Told>> {
        let answer = probe::get(node, "/v1/cluster").ok()?;
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        answer.get("partitions")?.as_array()?.iter().map(Told::of).collect()
    }

    fn slot(&mut self, place: usize) -> anyhow::Result<&mut Option<Part>> {
        self.running.get_mut(place).context("there is no such node")
    }
}

impl Told {
    fn of(partition: &Value) -> Option<Self> {
        let leader = partition.get("leader")?.as_str().map(str::to_owned);
        let replicas = partition.get("replicas")?.as_array()?;
        let is_voter = |replica: &&Value| replica.get("role").is_some_and(|role| role != "learner");
        let lags: Option<Vec<u64>> =
            replicas.iter().filter(is_voter).map(|replica| replica.get("lag")?.as_u64()).collect();
        let lag = lags.filter(|lags| lags.len() == NODES).and_then(|lags| lags.into_iter().max());
        Some(Self { leader, lag })
    }

    fn leads(&self, url: &str) -> bool {
        self.leader.as_deref() == Some(url)
    }
}

fn are_agreed(told: &[Vec<Told>], partitions: usize) -> bool {
    let Some((first, others)) = told.split_first() else { return false };
    let is_whole = |one: &Told| one.leader.is_some() && one.lag == Some(0);
    let is_same = |other: &Vec<Told>| {
        other.len() == first.len()
            && other.iter().zip(first).all(|(a, b)| a.leader == b.leader && is_whole(a))
    };
    first.len() == partitions && first.iter().all(is_whole) && others.iter().all(is_same)
}

fn name(place: usize) -> String {
    format!("storage-{}", place + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(leader: Option<&str>, lags: &[u64]) -> Told {
        let replicas: Vec<Value> =
            lags.iter().map(|lag| json!({ "node": "n", "role": "follower", "lag": lag })).collect();
        Told::of(&json!({ "leader": leader, "replicas": replicas })).unwrap()
    }

    #[test]
    fn nodes_are_agreed_when_all_know_the_same_leader_and_no_copy_lacks_anything() {
        let whole = || vec![told(Some("a"), &[0, 0, 0])];
        assert!(are_agreed(&[whole(), whole(), whole()], 1));
        assert!(!are_agreed(&[whole(), whole(), whole()], 2));
        for other in [told(None, &[0, 0, 0]), told(Some("b"), &[0, 0, 0]), told(Some("a"), &[0, 3, 0])] {
            assert!(!are_agreed(&[whole(), vec![other], whole()], 1));
        }
        assert!(!are_agreed(&[vec![told(Some("a"), &[0, 0])], whole()], 1), "a copy is missing");
    }
}
