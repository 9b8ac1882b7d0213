//! Three replicas on simulated disks and a simulated network, with faults that a seed chooses: cut and slow lines in
//! either direction, crashes that lose what was not synced, the whole cluster at once, damage of one replica's log;
//! leaders that hand over in the midst of it; and clients that retry. In half of the runs each replica purges nearly all that is agreed on, so that one that was away
//! for a while gets whole segments.
//!
//! The seed decides the faults and their times, not how threads and tasks interleave: a run is not exactly repeated by it,
//! but is of the same kind. What is checked holds for every interleaving (DESIGN, invariants).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::select_all;
use model::wire::Durability;
use model::{BatchDigest, BatchId, Offset, Tenant, ValidBatch};
use parking_lot::Mutex;
use tokio::time::timeout_at;

use super::super::types::{Member, NodeId};
use super::net::{Net, NetHeralds, PARTITION, Running, damage};
use crate::log::tests::random::Random;
use crate::log::tests::sim_disk::SimDisk;
use crate::log::{ConsumerCommit, ConsumerKey, LogReader};
use crate::partition::{Append, PartitionHandle};

const NODES: u64 = 3;
/// How many faults a run has, and how long one lasts at most.
const FAULTS: usize = 8;
const FAULT_MS_MAX: u64 = 250;
/// How long a healed cluster may take, on a machine that does much else.
const CONVERGED_MAX: Duration = Duration::from_secs(60);
/// The consumer whose offset is kept.
const CONSUMER: &str = "consumer";
/// What a disk says whose power was cut.
const DEAD: &str = "the machine is dead";
/// Seeds of a plain test run, and of one on a build machine; `EDGELOG_SIM_SEEDS` names how many else, `EDGELOG_SIM_SEED`
/// one alone.
const SEEDS: u64 = 24;
const SEEDS_CI: u64 = 200;
/// Runs at once: they mostly wait.
const AT_ONCE: usize = 16;

/// What clients were told, and what was ever read.
#[derive(Default)]
struct Seen {
    /// Where each acknowledged batch is.
    acknowledged: BTreeMap<u64, Bytes>,
    /// The committed batches that any node ever served, by offset.
    committed: BTreeMap<u64, Bytes>,
    /// How far anybody has read who may miss nothing, and how often that was.
    read_end: Offset,
    reads: u64,
    /// Where the consumer is, as it was told that this is kept.
    consumer_at: Offset,
}

impl Seen {
    /// What is acknowledged or read ends here, or behind it: whoever reads from now on, and may miss nothing, sees that.
    fn known_end(&self) -> Offset {
        let acknowledged = self.acknowledged.keys().next_back().map_or(0, |last| last + 1);
        self.read_end.max(Offset::new(acknowledged))
    }
}

/// The cluster of one run.
struct Run {
    seed: u64,
    net: Net,
    handles: Arc<Mutex<BTreeMap<NodeId, (PartitionHandle, LogReader)>>>,
    seen: Arc<Mutex<Seen>>,
}

impl Run {
    /// Takes what can be read on every node, and compares it with what was read before.
    fn look(&self) {
        let readers: Vec<LogReader> =
            self.handles.lock().values().map(|(_, reader)| reader.clone()).collect();
        for reader in readers {
            let (high_watermark, status) = (reader.high_watermark(), reader.status());
            assert!(high_watermark <= status.flushed_end, "seed {}", self.seed);
            for batch in reader.batches_from(Offset::ZERO) {
                let batch = match batch {
                    Ok(batch) => batch,
                    // Its power was cut meanwhile.
                    Err(error) if error.to_string().contains(DEAD) => break,
                    Err(error) => panic!("seed {}: {error}", self.seed),
                };
                let mut seen = self.seen.lock();
                let known =
                    seen.committed.entry(batch.base_offset.get()).or_insert_with(|| batch.bytes.clone());
                assert_eq!(
                    *known, batch.bytes,
                    "seed {}: an offset names other bytes than before",
                    self.seed
                );
            }
        }
    }

    /// Sends batches, each until it is acknowledged, or the run is over.
    async fn client(self: Arc<Self>, number: u64, until: Instant) {
        let mut random = Random::new(self.seed ^ (number << 32));
        for count in 0_u64.. {
            let line = format!(
                "{{\"timestamp\":{count},\"service\":\"s\",\"message\":\"{number}/{count}\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
            );
            let bytes = Bytes::from(line);
            let id = BatchId::derive(&Tenant::default(), &format!("{number}/{count}"), PARTITION);
            loop {
                if Instant::now() > until {
                    return;
                }
                let node = random.below(NODES) + 1;
                let handle = self.handles.lock().get(&node).map(|(handle, _)| handle.clone());
                let append = Append {
                    batch: ValidBatch::from_ndjson(bytes.clone()).unwrap(),
                    id,
                    digest: BatchDigest::of(&bytes),
                    id_is_new: false,
                    acks: Some(Durability::Quorum),
                    budget: None,
                };
                if let Some(handle) = handle
                    && let Ok(appended) = handle.append(append).await
                {
                    let offset = appended.base_offset.get();
                    let other = self.seen.lock().acknowledged.insert(offset, bytes.clone());
                    assert_eq!(other, None, "seed {}: two batches at {offset}", self.seed);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Reads where this may miss nothing, as far as a node says that it is the one to ask.
    async fn read(self: Arc<Self>, until: Instant) {
        let mut random = Random::new(!self.seed);
        while Instant::now() < until {
            let group = self.net.0.lock().groups.get(&(random.below(NODES) + 1)).cloned();
            let (known_end, consumer_at) = {
                let seen = self.seen.lock();
                (seen.known_end(), seen.consumer_at)
            };
            if let Some(group) = group
                && group.confirm_leadership().await.is_ok()
            {
                let end = group.store().shared().reader.high_watermark();
                assert!(end >= known_end, "seed {}: a read of the past: {end} < {known_end}", self.seed);
                let kept_at = group.offset_of(ConsumerKey::of(CONSUMER)).unwrap_or(Offset::ZERO);
                assert!(kept_at >= consumer_at, "seed {}: {kept_at} < {consumer_at}", self.seed);
                let mut seen = self.seen.lock();
                seen.read_end = seen.read_end.max(end);
                seen.reads += 1;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A consumer that goes on and on.
    async fn consume(self: Arc<Self>, until: Instant) {
        let mut random = Random::new(self.seed ^ 0x5555);
        let consumer = ConsumerKey::of(CONSUMER);
        let mut next = 1;
        while Instant::now() < until {
            let group = self.net.0.lock().groups.get(&(random.below(NODES) + 1)).cloned();
            let commit = ConsumerCommit { consumer, offset: Some(Offset::new(next)) };
            if let Some(group) = group
                && group.commit_offset(commit).await.is_ok()
            {
                self.seen.lock().consumer_at = Offset::new(next);
                next += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Leaders go now and then, and hand over; how often another was elected by that.
    async fn change_leaders(self: Arc<Self>, until: Instant) -> u64 {
        let mut random = Random::new(self.seed ^ 0xAAAA);
        let mut handed_over = 0;
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50 + random.below(150))).await;
            let leader = {
                let state = self.net.0.lock();
                state
                    .groups
                    .iter()
                    .find(|(_, group)| group.leads())
                    .map(|(node, group)| (*node, group.clone()))
            };
            let Some((from, group)) = leader else { continue };
            let not_to = random.below(NODES) + 1;
            let heralds = NetHeralds { net: self.net.clone(), from };
            handed_over += u64::from(group.hand_over(|node| node != not_to, &heralds).await.is_ok());
        }
        handed_over
    }

    async fn watch(self: Arc<Self>) {
        loop {
            self.look();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// What came about in a run.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Batches that were acknowledged.
    acknowledged: usize,
    /// Reads that might miss nothing.
    reads: u64,
    /// How often a consumer's offset was kept.
    commits: u64,
    /// Times that a replica got whole segments.
    copies: u64,
    /// Times that a replica came back with damage.
    damages: u64,
    /// Times that a leader handed over to another.
    handed_over: u64,
}

/// One run: faults, then healing, then the invariants.
async fn run(seed: u64) -> Counts {
    let mut random = Random::new(seed);
    let run = Arc::new(Run { seed, net: Net::default(), handles: Arc::default(), seen: Arc::default() });
    run.net.0.lock().purge_after = seed.is_multiple_of(2).then(|| random.below(6));
    let mut running = BTreeMap::new();
    for node in 1..=NODES {
        start(&run, &mut running, node, SimDisk::new(), false).await;
    }
    let members: BTreeMap<NodeId, Member> = (1..=NODES).map(|node| (node, Member::default())).collect();
    running[&1].group.raft().initialize(members).await.unwrap();
    let until = Instant::now() + Duration::from_millis(FAULTS as u64 * FAULT_MS_MAX);
    let clients: Vec<_> = (0..4).map(|number| tokio::spawn(Arc::clone(&run).client(number, until))).collect();
    let reads: Vec<_> = (0..2).map(|_| tokio::spawn(Arc::clone(&run).read(until))).collect();
    let consumer = tokio::spawn(Arc::clone(&run).consume(until));
    let changes = tokio::spawn(Arc::clone(&run).change_leaders(until));
    let watch = tokio::spawn(Arc::clone(&run).watch());
    let mut damages = 0;
    for _ in 0..FAULTS {
        damages += fault(&run, &mut running, &mut random).await;
    }
    for task in clients.into_iter().chain(reads).chain([consumer]) {
        task.await.unwrap();
    }
    let handed_over = changes.await.unwrap();
    watch.abort();
    run.net.heal();
    converge(&run, &running).await;
    check(&run, &running);
    for (node, running) in running {
        running.crash(&run.net, node, &mut random).await;
    }
    let (acknowledged, reads, commits) = {
        let seen = run.seen.lock();
        (seen.acknowledged.len(), seen.reads, seen.consumer_at.get())
    };
    Counts { acknowledged, reads, commits, copies: run.net.0.lock().copies, damages, handed_over }
}

async fn start(
    run: &Run,
    running: &mut BTreeMap<NodeId, Running>,
    node: NodeId,
    disk: SimDisk,
    is_damaged: bool,
) {
    let started = Running::start_on(&run.net, node, disk, is_damaged).await;
    run.handles.lock().insert(node, (started.handle.clone(), started.reader.clone()));
    running.insert(node, started);
}

/// Something goes wrong for a while. How many replicas are damaged by it.
async fn fault(run: &Run, running: &mut BTreeMap<NodeId, Running>, random: &mut Random) -> u64 {
    let victim = random.below(NODES) + 1;
    let lasts = Duration::from_millis(20 + random.below(FAULT_MS_MAX - 20));
    let kind = random.below(7);
    match kind {
        // One node hears nobody, is heard by nobody, or both.
        0..=2 => {
            let mut state = run.net.0.lock();
            for other in (1..=NODES).filter(|other| *other != victim) {
                if kind != 1 {
                    state.cut.insert((victim, other));
                }
                if kind != 2 {
                    state.cut.insert((other, victim));
                }
            }
        }
        3 => run.net.0.lock().delay = Duration::from_millis(random.below(60)),
        // The power of one node, or of all; or one comes back with a part of its log damaged.
        _ => {
            let victims: Vec<NodeId> = if kind == 5 { (1..=NODES).collect() } else { vec![victim] };
            // What only one has that is damaged already nobody could give it again.
            let may_damage = kind == 6 && !running.values().any(|node| node.group.is_refilling());
            let mut left = Vec::new();
            for node in victims {
                run.handles.lock().remove(&node);
                let crashed = running.remove(&node).unwrap();
                left.push((node, crashed.crash(&run.net, node, random).await));
            }
            tokio::time::sleep(lasts).await;
            let mut damages = 0;
            for (node, disk) in left {
                let is_damaged = may_damage && damage(&disk, random);
                start(run, running, node, disk, is_damaged).await;
                let is_refilling = running.get(&node).is_some_and(|node| node.group.is_refilling());
                assert!(is_refilling || !is_damaged, "seed {}: the damage is not seen", run.seed);
                damages += u64::from(is_damaged);
            }
            return damages;
        }
    }
    tokio::time::sleep(lasts).await;
    run.net.heal();
    0
}

/// Waits until all replicas have all that any of them has.
async fn converge(run: &Run, running: &BTreeMap<NodeId, Running>) {
    let deadline = Instant::now() + CONVERGED_MAX;
    let mut news: Vec<_> = running.values().map(|node| node.group.raft().metrics()).collect();
    loop {
        // What happens from here on is news.
        news.iter_mut().for_each(|metrics| metrics.mark_unchanged());
        let applied = |node: &Running| node.group.raft().metrics().borrow().last_applied.map(|at| at.index);
        let ends: BTreeSet<_> = running
            .values()
            .map(|node| (node.reader.high_watermark(), node.reader.status().written_end, applied(node)))
            .collect();
        let acknowledged_end = run.seen.lock().acknowledged.keys().next_back().map_or(0, |last| last + 1);
        if let Some((high_watermark, written, _)) = ends.first()
            && ends.len() == 1
            && high_watermark == written
            && high_watermark.get() >= acknowledged_end
        {
            return;
        }
        let states: Vec<String> = running
            .values()
            .map(|node| format!("{:?}", node.group.raft().metrics().borrow().clone()))
            .collect();
        assert!(
            Instant::now() < deadline,
            "seed {}: not converged: {ends:?}\n{}",
            run.seed,
            states.join("\n")
        );
        let changes = news.iter_mut().map(|metrics| Box::pin(metrics.changed()));
        // That it took too long is found by the next look.
        timeout_at(deadline.into(), select_all(changes)).await.ok();
    }
}

fn check(run: &Run, running: &BTreeMap<NodeId, Running>) {
    run.look();
    let all: Vec<Vec<(u64, Bytes)>> = running
        .values()
        .map(|node| {
            let batches = node.reader.batches_from(Offset::ZERO).map(Result::unwrap);
            batches.map(|batch| (batch.base_offset.get(), batch.bytes)).collect()
        })
        .collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "seed {}: the replicas differ", run.seed);
    let stored: BTreeMap<u64, Bytes> = all[0].iter().cloned().collect();
    for (offset, bytes) in &run.seen.lock().acknowledged {
        assert_eq!(stored.get(offset), Some(bytes), "seed {}: offset {offset} was acknowledged", run.seed);
    }
    let consumer = ConsumerKey::of(CONSUMER);
    let kept: BTreeSet<Option<Offset>> =
        running.values().map(|node| node.group.offset_of(consumer)).collect();
    let consumer_at = run.seen.lock().consumer_at;
    let is_kept = kept.len() == 1 && kept.first() >= Some(&Some(consumer_at).filter(|at| *at > Offset::ZERO));
    assert!(is_kept, "seed {}: the consumer was told {consumer_at}, and is at {kept:?}", run.seed);
    let once: BTreeSet<&Bytes> = stored.values().collect();
    assert_eq!(once.len(), stored.len(), "seed {}: a batch was stored twice", run.seed);
}

#[test]
fn whatever_fails_what_was_acknowledged_at_a_quorum_is_there_once_on_every_replica() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds: Vec<u64> = match number("EDGELOG_SIM_SEED") {
        Some(seed) => vec![seed],
        None => {
            let is_ci = std::env::var_os("CI").is_some();
            (0..number("EDGELOG_SIM_SEEDS").unwrap_or(if is_ci { SEEDS_CI } else { SEEDS })).collect()
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let total = runtime.block_on(async {
        let mut total = Counts::default();
        for together in seeds.chunks(AT_ONCE) {
            let runs: Vec<_> = together.iter().map(|seed| (*seed, tokio::spawn(run(*seed)))).collect();
            for (seed, run) in runs {
                let counts = run.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                println!("seed {seed}: {counts:?}");
                total.acknowledged += counts.acknowledged;
                total.reads += counts.reads;
                total.commits += counts.commits;
                total.copies += counts.copies;
                total.damages += counts.damages;
                total.handed_over += counts.handed_over;
            }
        }
        total
    });
    // Most runs have a leader for some of the time. A consumer commits one offset after another, each agreed on by itself.
    let runs = seeds.len() as u64;
    let is_served = total.acknowledged as u64 >= 5 * runs && total.reads >= 5 * runs && total.commits >= runs;
    assert!(is_served, "{total:?} in {} runs", seeds.len());
    let is_telling =
        seeds.len() < SEEDS as usize || (total.copies > 0 && total.damages > 0 && total.handed_over > 0);
    assert!(is_telling, "nothing was copied, damaged or handed over: {total:?}");
    runtime.shutdown_background();
}
