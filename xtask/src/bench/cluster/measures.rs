//! What is measured of replicas, one thing at a time.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::super::disk_usage::DiskUsage;
use super::super::parts::{Part, Usage};
use super::super::post::{self, Posts};
use super::super::{bodies, floor};
use super::replicas::{NODES, Replicas};
use crate::cargo::Programs;

/// Records of a batch.
pub(super) const BATCH_RECORDS: u64 = 1000;
/// Different bodies, which are sent in turn.
const BODIES: u64 = 50;
/// Batches that are sent at once.
const CONNECTIONS: usize = 8;
/// How long a client waits for one answer before it asks the next node.
const TRY_MAX: Duration = Duration::from_secs(1);
/// After all nodes were asked in vain.
const PAUSE: Duration = Duration::from_millis(2);
/// How long it may take until a batch is acknowledged again, or a copy is whole.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Partitions of idle nodes.
pub(super) const IDLE_PARTITIONS: u16 = 64;
/// What goes on for a while after a start: nodes ask one another, leaders are elected.
const IDLE_SETTLE: Duration = Duration::from_secs(5);
/// Retention deletes what is older than so much: a copy that is made anew has to be of whole segments.
const REFILL_SEGMENT: &str = "64MiB";

/// What is run, and what is sent.
pub(super) struct Rig<'a> {
    programs: &'a Programs,
    dir: &'a Path,
    large: Vec<Vec<u8>>,
    small: Vec<Vec<u8>>,
}

/// What batches cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// CPU time of all nodes.
    pub(super) cpu: Duration,
    /// From the first request to the last answer.
    pub(super) wall: Duration,
    /// Of the node that had most.
    pub(super) peak_bytes: u64,
}

/// How a copy was made anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refill {
    /// Bytes of records and of batch indexes.
    pub(super) bytes: u64,
    /// From the first byte on the new disk until all of it is in place.
    pub(super) copied: Duration,
    /// From the node's start until then.
    pub(super) all: Duration,
    /// Whether whole segments were copied; else entry after entry.
    pub(super) is_of_segments: bool,
    /// The same bytes, written and synced by a bare loop in pieces of a MiB.
    pub(super) bare_loop: Duration,
}

impl<'a> Rig<'a> {
    pub(super) fn new(programs: &'a Programs, dir: &'a Path) -> anyhow::Result<Self> {
        let loadgen = programs.path("loadgen")?;
        let large = bodies::make(loadgen, dir, BATCH_RECORDS, BODIES)?;
        let small = bodies::make(loadgen, dir, 1, BODIES)?;
        Ok(Self { programs, dir, large, small })
    }

    /// One node with one copy.
    pub(super) fn one_copy(&self, batches: u64) -> anyhow::Result<Cost> {
        let mut node = Part::storage(self.programs, self.dir, "single", &[0], &[])?;
        let posts = self.posts(node.address, batches);
        let posted = post::large(posts).map_err(|error| error.context(node.log_tail()))?;
        let cost = cost(posted.wall, &[node.usage_at_rest()?]);
        node.stop()?;
        ensure_records(&self.dir.join("single"), batches * BATCH_RECORDS)?;
        std::fs::remove_dir_all(self.dir.join("single"))?;
        Ok(cost)
    }

    /// As many nodes as copies, each batch acknowledged by most of them.
    pub(super) fn quorum(&self, batches: u64) -> anyhow::Result<Cost> {
        let mut replicas = Replicas::start(self.programs, self.dir, 1, &[])?;
        let leader = address(&replicas, replicas.leader()?)?;
        let posted = post::large(self.posts(leader, batches));
        let posted = posted.map_err(|error| error.context(replicas.log_tails()))?;
        // What was acknowledged by most is on its way to the others: that belongs to the cost.
        replicas.wait_until_settled()?;
        let cost = cost(posted.wall, &replicas.usage_at_rest()?);
        self.end(replicas, Some(batches * BATCH_RECORDS))?;
        Ok(cost)
    }

    /// Kills the leader again and again; how long it took each time until a batch was acknowledged by a quorum.
    pub(super) fn failovers(&self, times: u32) -> anyhow::Result<Vec<Duration>> {
        let mut replicas = Replicas::start(self.programs, self.dir, 1, &[])?;
        let mut batches = 0..;
        let mut took = Vec::new();
        for number in 1..=times {
            self.send(&replicas, batches.next().unwrap_or_default(), "all")?;
            let leader = replicas.leader()?;
            let batch = batches.next().unwrap_or_default();
            let killed = Instant::now();
            replicas.kill(leader)?;
            self.send(&replicas, batch, "quorum")?;
            took.push(killed.elapsed());
            eprintln!("  failover {number} of {times}: {:.0} ms", killed.elapsed().as_secs_f64() * 1e3);
            replicas.start_one(leader)?;
            replicas.wait_until_settled()?;
        }
        self.send(&replicas, batches.next().unwrap_or_default(), "all")?;
        self.end(replicas, Some(batches.start))?;
        Ok(took)
    }

    /// Sends one batch to one node after another until it has got as far as `acks` says.
    fn send(&self, replicas: &Replicas<'_>, batch: u64, acks: &str) -> anyhow::Result<()> {
        send(replicas, 0, (batch, body_of(&self.small, batch)?), acks)
    }

    /// Takes a follower's disk away, and looks how fast it has its copy again.
    pub(super) fn refill(&self, mebibytes: u64) -> anyhow::Result<Refill> {
        let kept = format!("{mebibytes}MiB");
        let more = ["--segment-bytes", REFILL_SEGMENT, "--retention-bytes", &kept];
        let mut replicas = Replicas::start(self.programs, self.dir, 1, &more)?;
        let leader = replicas.leader()?;
        let body_bytes = self.large.first().map_or(1, Vec::len) as u64;
        // A quarter more than is kept: the beginning of the log is not there for whoever comes new.
        let batches = ((mebibytes << 20) * 5 / 4).div_ceil(body_bytes);
        // Whoever leads meanwhile: here nothing is measured yet.
        for batch in 0..batches {
            send(&replicas, leader, (batch, body_of(&self.large, batch)?), "quorum")?;
        }
        replicas.wait_until_settled()?;
        let leader = replicas.leader()?;
        let leaders = wait_for_retention(&replicas.data(leader), mebibytes << 20)?;
        let victim = (leader + 1) % NODES;
        replicas.wipe(victim)?;
        let started = Instant::now();
        replicas.start_one(victim)?;
        let (first, is_of_segments) =
            watch(&replicas.data(victim), leaders).map_err(|error| error.context(replicas.log_tails()))?;
        let (copied, all) = (first.elapsed(), started.elapsed());
        replicas.wait_until_settled()?;
        self.end(replicas, None)?;
        let bytes = leaders.data + leaders.index;
        let pieces = [vec![b'x'; 1 << 20]];
        let bare_loop = floor::append_and_sync(self.dir, &pieces, bytes >> 20)?.wall;
        Ok(Refill { bytes, copied, all, is_of_segments, bare_loop })
    }

    /// What each node uses of a core when nothing is to be done.
    pub(super) fn idle(&self, time: Duration) -> anyhow::Result<Vec<f64>> {
        let mut replicas = Replicas::start(self.programs, self.dir, IDLE_PARTITIONS, &[])?;
        std::thread::sleep(IDLE_SETTLE);
        let (before, started) = (replicas.usage()?, Instant::now());
        std::thread::sleep(time);
        let (after, passed) = (replicas.usage()?, started.elapsed());
        let share = |(before, after): (&Usage, &Usage)| (after.cpu - before.cpu).div_duration_f64(passed);
        let shares = before.iter().zip(&after).map(share).collect();
        self.end(replicas, None)?;
        Ok(shares)
    }

    /// Stops the nodes; each has to hold so many records, or as many as the others, and all of them the same.
    fn end(&self, replicas: Replicas<'_>, expected: Option<u64>) -> anyhow::Result<()> {
        let dirs: Vec<_> = (0..NODES).map(|place| replicas.data(place)).collect();
        replicas.stop()?;
        let mut held = Vec::new();
        for dir in &dirs {
            held.push(DiskUsage::of(dir)?.records);
        }
        let expected = expected.or_else(|| held.first().copied()).unwrap_or_default();
        ensure!(
            held.iter().all(|records| *records == expected),
            "each node is to hold {expected} records, and they hold {held:?}"
        );
        dirs.iter().try_for_each(std::fs::remove_dir_all)?;
        Ok(())
    }

    fn posts(&self, node: std::net::SocketAddr, batches: u64) -> Posts<'_> {
        Posts { node, bodies: &self.large, batches, first_batch: 0, connections: CONNECTIONS }
    }
}

/// Sends one batch to one node after another, the one at `first` before the others, until it has got as far as `acks`
/// says.
fn send(
    replicas: &Replicas<'_>,
    first: usize,
    (batch, body): (u64, &[u8]),
    acks: &str,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    let mut last = None;
    while Instant::now() < deadline {
        for node in replicas.addresses.iter().cycle().skip(first).take(NODES) {
            let said = post::once(*node, batch, body, acks, TRY_MAX);
            if said.as_ref().is_ok_and(|said| said.status == 200 && said.durability.as_deref() == Some(acks))
            {
                return Ok(());
            }
            last = Some(said);
        }
        std::thread::sleep(PAUSE);
    }
    bail!("a batch was not acknowledged within {WAIT_MAX:?} (last: {last:?}); {}", replicas.log_tails())
}

fn body_of(bodies: &[Vec<u8>], batch: u64) -> anyhow::Result<&[u8]> {
    bodies.get(usize::try_from(batch % BODIES)?).map(Vec::as_slice).context("there is nothing to send")
}

fn address(replicas: &Replicas<'_>, place: usize) -> anyhow::Result<std::net::SocketAddr> {
    replicas.addresses.get(place).copied().context("there is no such node")
}

fn cost(wall: Duration, usage: &[Usage]) -> Cost {
    let peak_bytes = usage.iter().map(|usage| usage.peak_bytes).max().unwrap_or_default();
    Cost { cpu: usage.iter().map(|usage| usage.cpu).sum(), wall, peak_bytes }
}

fn ensure_records(dir: &Path, expected: u64) -> anyhow::Result<()> {
    let records = DiskUsage::of(dir)?.records;
    ensure!(records == expected, "{expected} records were acknowledged, but {records} lie on the disk");
    Ok(())
}

/// Bytes of a partition's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    data: u64,
    index: u64,
    /// Of segments that are not in place yet.
    staged: u64,
}

impl Held {
    /// What lies in a node's only partition.
    fn of(node: &Path) -> std::io::Result<Self> {
        let mut held = Self::default();
        let entries = match std::fs::read_dir(node.join("partition-0")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(held),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // It may have been renamed or removed meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            match name.split_once('.').map(|(_, kind)| kind) {
                Some("jsonl") => held.data += metadata.len(),
                Some("batches") => held.index += metadata.len(),
                Some(kind) if kind.starts_with("jsonl.") || kind.starts_with("batches.") => {
                    held.staged += metadata.len();
                }
                _ => {}
            }
        }
        Ok(held)
    }
}

/// Waits until no more is kept than is to be.
fn wait_for_retention(leader: &Path, bytes: u64) -> anyhow::Result<Held> {
    let deadline = Instant::now() + WAIT_MAX;
    let mut last = Held::of(leader)?;
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let held = Held::of(leader)?;
        if held == last && held.data <= bytes + (64 << 20) {
            return Ok(held);
        }
        ensure!(Instant::now() < deadline, "the leader keeps more than it was told: {held:?}");
        last = held;
    }
}

/// Waits until a new copy is whole; when its first byte was there, and whether it was staged.
fn watch(node: &Path, whole: Held) -> anyhow::Result<(Instant, bool)> {
    let deadline = Instant::now() + WAIT_MAX;
    let (mut first, mut is_staged) = (None, false);
    loop {
        let held = Held::of(node)?;
        is_staged |= held.staged > 0;
        if held.staged + held.data > 0 {
            first.get_or_insert_with(Instant::now);
        }
        if let Some(first) = first
            && held.data >= whole.data
        {
            return Ok((first, is_staged));
        }
        ensure!(Instant::now() < deadline, "the copy is not whole after {WAIT_MAX:?}: {held:?} of {whole:?}");
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_copy_holds_is_told_apart_by_its_files_names() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Held::of(dir.path()).unwrap(), Held::default());
        let partition = dir.path().join("partition-0");
        std::fs::create_dir(&partition).unwrap();
        for (name, bytes) in [
            ("0.jsonl", 1),
            ("0.batches", 2),
            ("7.jsonl.staged", 4),
            ("7.batches.staged", 8),
            ("0.filter", 16),
            ("raft", 32),
        ] {
            std::fs::write(partition.join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(Held::of(dir.path()).unwrap(), Held { data: 1, index: 2, staged: 12 });
    }
}
