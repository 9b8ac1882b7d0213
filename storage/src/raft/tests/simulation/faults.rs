//! What goes wrong in the simulated cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::ServerState;

use super::super::super::types::NodeId;
use super::super::net::{Running, damage};
use super::clients::Run;
use super::start;
use crate::log::tests::random::Random;
use crate::simulated;

/// How long a fault lasts at most.
const FAULT_MS_MAX: u64 = 250;
/// How long a disk takes at most that is slow, how long that lasts, and how long a node stands still.
const SLOW_MS_MAX: u64 = 2000;
const SLOW_LASTS_MS_MAX: u64 = 1500;
const FROZEN_MS_MAX: u64 = 900;
/// How far a wall clock jumps.
const CLOCK_JUMP_MS_MAX: u64 = 3 * 3_600_000;
/// Kinds of faults where time is real, and in a world.
const KINDS: u64 = 7;
const KINDS_IN_WORLD: u64 = 12;

/// Something goes wrong for a while. How many replicas are damaged by it.
pub(super) async fn fault(run: &Run, running: &mut BTreeMap<NodeId, Running>, random: &mut Random) -> u64 {
    let nodes: Vec<NodeId> = running.keys().copied().collect();
    let victim = nodes[random.below(nodes.len() as u64) as usize];
    let lasts = Duration::from_millis(20 + random.below(FAULT_MS_MAX - 20));
    let is_in_world = simulated::is_entered();
    let kind = random.below(if is_in_world { KINDS_IN_WORLD } else { KINDS });
    simulated::note(|| format!("fault {kind} at {victim}"));
    match kind {
        // One node hears nobody, is heard by nobody, or both.
        0..=2 => {
            let mut state = run.net.0.lock();
            for other in nodes.iter().filter(|other| **other != victim) {
                if kind != 1 {
                    state.cut.insert((victim, *other));
                }
                if kind != 2 {
                    state.cut.insert((*other, victim));
                }
            }
        }
        3 => run.net.0.lock().delay = Duration::from_millis(random.below(60)),
        // The power of one node, or of all; or one comes back with a part of its log damaged.
        4..=6 => {
            let victims = if kind == 5 { nodes } else { vec![victim] };
            return power_cut(run, running, random, victims, kind == 6, lasts).await;
        }
        7.. => return fault_in_world(run, running, random, victim, kind).await,
    }
    tokio::time::sleep(lasts).await;
    run.net.heal();
    0
}

/// The power of these nodes fails, in a world in the midst of what their disks do. How many are damaged by it.
async fn power_cut(
    run: &Run,
    running: &mut BTreeMap<NodeId, Running>,
    random: &mut Random,
    mut victims: Vec<NodeId>,
    may_damage: bool,
    lasts: Duration,
) -> u64 {
    // What only one has that is damaged already nobody could give it again, nor what its founder alone has yet. One
    // whose log was just being replaced has lost it like one that is damaged: no majority outlives two of them.
    let is_founded = running.values().filter(|node| node.group.status().founded).count() > 1;
    let is_copying = |node: &Running| node.group.is_copying();
    let without_log = running.values().filter(|node| node.group.is_refilling() || is_copying(node)).count();
    let may_damage = may_damage && is_founded && without_log == 0;
    victims.retain(|node| without_log < 2 || !is_copying(&running[node]));
    if simulated::is_entered() {
        for node in &victims {
            let disk = &running[node].disk;
            disk.crash_at(disk.calls() + 1 + random.below(12));
        }
        tokio::time::sleep(Duration::from_millis(random.below(30))).await;
    }
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
    damages
}

/// What can go wrong in a world alone. None of it damages anything.
async fn fault_in_world(
    run: &Run,
    running: &BTreeMap<NodeId, Running>,
    random: &mut Random,
    victim: NodeId,
    kind: u64,
) -> u64 {
    let leader = running.iter().find(|(_, node)| node.group.leads()).map(|(node, _)| *node);
    let lasts_ms = match kind {
        // The disk of one node is slow, or those of all.
        7 => {
            let nodes = if random.below(3) == 0 { running.keys().copied().collect() } else { vec![victim] };
            let slow_ms = 1 + random.below(SLOW_MS_MAX);
            run.net.0.lock().slow_ms_max.extend(nodes.into_iter().map(|node| (node, slow_ms)));
            random.below(SLOW_LASTS_MS_MAX)
        }
        // A node stands still, whichever it is or the one that leads, past an election or not.
        8 | 9 => {
            let node = leader.filter(|_| kind == 9).unwrap_or(victim);
            run.net.0.lock().frozen.insert(node);
            random.below(FROZEN_MS_MAX)
        }
        // A wall clock jumps, forward or back.
        10 => {
            let by_ms = i64::try_from(random.below(2 * CLOCK_JUMP_MS_MAX)).unwrap();
            simulated::move_clock(victim, by_ms - i64::try_from(CLOCK_JUMP_MS_MAX).unwrap());
            random.below(FAULT_MS_MAX)
        }
        // A node's clock runs ahead: it stands for election before its time.
        _ => {
            let group = &running[&victim].group;
            let state = group.raft().metrics().borrow().state;
            let may_stand = matches!(state, ServerState::Follower | ServerState::Candidate);
            if may_stand && !group.is_refilling() {
                // One that has ended stands for nothing.
                group.raft().trigger().elect().await.ok();
            }
            random.below(FAULT_MS_MAX)
        }
    };
    tokio::time::sleep(Duration::from_millis(lasts_ms)).await;
    run.net.heal();
    0
}
