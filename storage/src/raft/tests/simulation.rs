//! Three replicas on simulated disks and a simulated network, with faults that a seed chooses: cut and slow lines in
//! either direction, crashes that lose what was not synced, the whole cluster at once, damage of one replica's log;
//! leaders that hand over in the midst of it; and clients that retry. In half of the runs each replica purges nearly all that is agreed on, so that one that was away
//! for a while gets whole segments; in a third one replica moves to a fourth node meanwhile.
//!
//! In a world ([`crate::simulated`]) there are slow disks too, wall clocks that jump, nodes that stand still and go on, and
//! elections before their time; and the seed decides all of it: the same seed gives the same run, which is seen by its
//! trace. With threads and the real clock it decides the faults and their times, not how threads interleave: such a
//! run is of the same kind each time, and sees what a world has no room for, reads in the midst of a write. What is
//! checked holds for every interleaving (DESIGN, invariants).

mod clients;
mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::select_all;
use model::Offset;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::types::{Member, NodeId};
use super::net::{Net, Running};
use crate::log::ConsumerKey;
use crate::log::tests::random::Random;
use crate::log::tests::sim_disk::SimDisk;
use crate::simulated::{self, Trace};
use clients::Run;
use faults::fault;

const NODES: u64 = 3;
/// The node to which a replica moves.
const FOURTH: NodeId = NODES + 1;
/// How many faults a run has.
const FAULTS: usize = 8;
/// How long a healed cluster may take, on a machine that does much else.
const CONVERGED_MAX: Duration = Duration::from_secs(60);
/// The consumer whose offset is kept.
const CONSUMER: &str = "consumer";
/// Seeds of a plain test run, and of one on a build machine; in worlds `EDGELOG_SIM_SEEDS` names how many else,
/// `EDGELOG_SIM_SEED` one alone.
const SEEDS: u64 = 24;
const SEEDS_CI: u64 = 200;
/// Runs at once where time is real: they mostly wait.
const AT_ONCE: usize = 16;

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
    /// Replicas that have moved.
    moves: u64,
    /// Times that a leader handed over to another.
    handed_over: u64,
}

/// One run: faults, then healing, then the invariants.
async fn run(seed: u64) -> Counts {
    let mut random = Random::new(seed);
    let run = Arc::new(Run {
        seed,
        net: Net::default(),
        handles: Arc::default(),
        seen: Arc::default(),
        is_over: AtomicBool::new(false),
    });
    run.net.0.lock().purge_after = seed.is_multiple_of(2).then(|| random.below(6));
    let mut running = BTreeMap::new();
    for node in 1..=NODES {
        start(&run, &mut running, node, SimDisk::new(), false).await;
    }
    let members: BTreeMap<NodeId, Member> = (1..=NODES).map(|node| (node, Member::default())).collect();
    running[&1].group.raft().initialize(members).await.unwrap();
    let clients: Vec<_> = (0..4).map(|number| tokio::spawn(Arc::clone(&run).client(number))).collect();
    let reads: Vec<_> = (0..2).map(|_| tokio::spawn(Arc::clone(&run).read())).collect();
    let consumer = tokio::spawn(Arc::clone(&run).consume());
    let changes = tokio::spawn(Arc::clone(&run).change_leaders());
    let watch = tokio::spawn(Arc::clone(&run).watch());
    let moves_at = seed.is_multiple_of(3).then(|| random.below(FAULTS as u64 - 1) as usize);
    let mut moving = None;
    let (mut damages, mut moves) = (0, 0);
    for number in 0..FAULTS {
        if moves_at == Some(number) {
            start(&run, &mut running, FOURTH, SimDisk::new(), false).await;
            let old = random.below(NODES) + 1;
            moving = Some((old, tokio::spawn(Arc::clone(&run).move_replica(old))));
        }
        damages += fault(&run, &mut running, &mut random).await;
    }
    run.is_over.store(true, Ordering::Release);
    run.net.heal();
    for task in clients.into_iter().chain(reads).chain([consumer]) {
        task.await.unwrap();
    }
    let handed_over = changes.await.unwrap();
    if let Some((old, moved)) = moving {
        end_move(&run, &mut running, old, moved, &mut random).await;
        moves += 1;
    }
    converge(&run, &running).await;
    check(&run, &running);
    watch.abort();
    assert!(watch.await.unwrap_err().is_cancelled(), "seed {seed}: what was seen is not as it has to be");
    for (node, running) in running {
        running.crash(&run.net, node, &mut random).await;
    }
    run.net.join_actors().await;
    let (acknowledged, reads, commits) = {
        let seen = run.seen.lock();
        (seen.acknowledged.len(), seen.reads, seen.consumer_at.get())
    };
    Counts { acknowledged, reads, commits, copies: run.net.0.lock().copies, damages, moves, handed_over }
}

/// Waits until a replica has moved, and takes the node away from which it has.
async fn end_move(
    run: &Run,
    running: &mut BTreeMap<NodeId, Running>,
    old: NodeId,
    moved: JoinHandle<()>,
    random: &mut Random,
) {
    let moved = timeout(CONVERGED_MAX, moved).await;
    let state = |node: &Running| {
        let metrics = node.group.raft().metrics().borrow().clone();
        format!("{:?}, refilling: {}, {metrics:?}", node.group.status(), node.group.is_refilling())
    };
    let states = || running.values().map(state).collect::<Vec<_>>();
    assert!(moved.is_ok(), "seed {}: the replica of node {old} does not move: {:#?}", run.seed, states());
    moved.unwrap().unwrap();
    run.handles.lock().remove(&old);
    running.remove(&old).unwrap().crash(&run.net, old, random).await;
    for node in running.values() {
        let metrics = node.group.raft().wait(Some(CONVERGED_MAX));
        let is_told = metrics.metrics(
            |metrics| {
                let voters: BTreeSet<NodeId> = metrics.membership_config.membership().voter_ids().collect();
                voters == running.keys().copied().collect()
            },
            "it knows who votes",
        );
        is_told.await.unwrap_or_else(|error| panic!("seed {}: {error}", run.seed));
    }
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
        if let Ok((changed, ..)) = timeout_at(deadline, select_all(changes)).await {
            assert!(changed.is_ok(), "seed {}: a replica has ended: {}", run.seed, states.join("\n"));
        }
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

/// Seeds, as the environment names them.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("EDGELOG_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("EDGELOG_SIM_SEEDS").unwrap_or_else(seeds_usual)).collect(),
    }
}

fn seeds_usual() -> u64 {
    if std::env::var_os("CI").is_some() { SEEDS_CI } else { SEEDS }
}

/// Sums up, and makes sure that it was worth the while.
fn check_worth(total: Counts, runs: u64) {
    // Most runs have a leader for some of the time. A consumer commits one offset after another, each agreed on by itself.
    let is_served = total.acknowledged as u64 >= 5 * runs && total.reads >= 5 * runs && total.commits >= runs;
    assert!(is_served, "{total:?} in {runs} runs");
    let is_telling =
        runs < SEEDS || (total.copies > 0 && total.damages > 0 && total.moves > 0 && total.handed_over > 0);
    assert!(is_telling, "nothing was copied, damaged, moved, or handed over: {total:?}");
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.commits += other.commits;
        self.copies += other.copies;
        self.damages += other.damages;
        self.moves += other.moves;
        self.handed_over += other.handed_over;
    }
}

fn run_in_world(seed: u64) -> (Counts, Trace) {
    simulated::in_world(seed, run(seed))
}

#[test]
fn whatever_fails_what_was_acknowledged_at_a_quorum_is_there_once_on_every_replica() {
    let seeds = seeds();
    let (next, total, failed) = (AtomicU64::new(0), Mutex::new(Counts::default()), Mutex::new(Vec::new()));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            match std::panic::catch_unwind(AssertUnwindSafe(|| run_in_world(*seed))) {
                Ok((counts, trace)) => {
                    println!("seed {seed}: {counts:?}, {} events, trace {:016x}", trace.events, trace.hash);
                    *total.lock() += counts;
                }
                Err(_) => {
                    println!("seed {seed} FAILED; again: cargo xtask sim --seed {seed}");
                    failed.lock().push(*seed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{} of {} runs failed, with the seeds {failed:?}", failed.len(), seeds.len());
    let total = total.into_inner();
    println!("{} runs: {total:?}", seeds.len());
    check_worth(total, seeds.len() as u64);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let traces: Vec<Trace> = (0..6).map(|seed| run_in_world(seed).1).collect();
    for (seed, trace) in (0..).zip(&traces) {
        assert_eq!(run_in_world(seed).1, *trace, "seed {seed}");
    }
    let others: BTreeSet<u64> = traces.iter().map(|trace| trace.hash).collect();
    assert_eq!(others.len(), traces.len(), "other seeds give other runs");
}

#[test]
fn the_same_holds_with_threads_and_the_real_clock() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let seeds: Vec<u64> = (0..seeds_usual()).collect();
    let total = runtime.block_on(async {
        let mut total = Counts::default();
        for together in seeds.chunks(AT_ONCE) {
            let runs: Vec<_> = together.iter().map(|seed| (*seed, tokio::spawn(run(*seed)))).collect();
            for (seed, run) in runs {
                let counts = run.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                println!("seed {seed}: {counts:?}");
                total += counts;
            }
        }
        total
    });
    check_worth(total, seeds.len() as u64);
    runtime.shutdown_background();
}
