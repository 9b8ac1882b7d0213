//! A world in which a run comes again exactly: its chances follow from a seed, its time passes when all wait, and a thread
//! has it for itself. What the production code takes from the outside it takes from here while a world is entered.
//!
//! What happens in it is noted, in order: two runs are the same when their traces are.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use crate::log::tests::random::Random;

/// The wall clocks when a world begins.
const BEGINS_AT_MS: u64 = 1_700_000_000_000;
/// A run that notes more than this goes round in circles.
const EVENTS_MAX: u64 = 20_000_000;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    /// The node that is at work.
    static NODE: Cell<u64> = const { Cell::new(0) };
}

struct World {
    random: Random,
    began: Instant,
    /// How far the wall clocks of nodes are off.
    clocks_ahead_ms: BTreeMap<u64, i64>,
    trace: DefaultHasher,
    events: u64,
    is_printed: bool,
}

/// What happened in a world, in few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) events: u64,
}

/// Runs `run` in a world of its own, on this thread alone.
pub(crate) fn in_world<T>(seed: u64, run: impl Future<Output = T>) -> (T, Trace) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    let outcome = runtime.block_on(async {
        let world = World {
            random: Random::new(seed ^ 0x05EE_D0FA),
            began: Instant::now(),
            clocks_ahead_ms: BTreeMap::new(),
            trace: DefaultHasher::new(),
            events: 0,
            is_printed: std::env::var_os("EDGELOG_SIM_TRACE").is_some(),
        };
        let before = WORLD.replace(Some(world));
        assert!(before.is_none(), "a thread is in one world at a time");
        // Left also by a panic.
        let _left = Left;
        let outcome = run.await;
        let trace = with(|world| Trace { hash: world.trace.finish(), events: world.events });
        (outcome, trace.unwrap())
    });
    // Its tasks are gone with it, before the next one begins.
    drop(runtime);
    outcome
}

struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        WORLD.take();
    }
}

fn with<T>(look: impl FnOnce(&mut World) -> T) -> Option<T> {
    WORLD.with_borrow_mut(|world| world.as_mut().map(look))
}

/// Whether this thread is in a world.
pub(crate) fn is_entered() -> bool {
    with(|_| ()).is_some()
}

/// A number that follows from the seed.
pub(crate) fn draw() -> Option<u64> {
    with(|world| world.random.next())
}

/// A number below `bound` that follows from the seed.
pub(crate) fn below(bound: u64) -> u64 {
    draw().unwrap_or(0) % bound
}

/// A moment, as everything takes one.
pub(crate) async fn pause() {
    match below(4) {
        0 => tokio::time::sleep(Duration::from_millis(1)).await,
        1 => tokio::task::yield_now().await,
        _ => {}
    }
}

/// Does something as a node, with its clock.
pub(crate) fn at_node<T>(node: u64, work: impl FnOnce() -> T) -> T {
    let before = NODE.replace(node);
    let done = work();
    NODE.set(before);
    done
}

/// The time by the wall clock of the node that is at work.
pub(crate) fn unix_now_ms() -> Option<u64> {
    with(|world| {
        let passed = u64::try_from(world.began.elapsed().as_millis()).unwrap();
        let ahead = world.clocks_ahead_ms.get(&NODE.get()).copied().unwrap_or(0);
        (BEGINS_AT_MS + passed).saturating_add_signed(ahead)
    })
}

/// Moves the wall clock of a node.
pub(crate) fn move_clock(node: u64, by_ms: i64) {
    with(|world| *world.clocks_ahead_ms.entry(node).or_default() += by_ms);
}

/// Notes what happens, if this is in a world.
pub(crate) fn note(event: impl FnOnce() -> String) {
    with(|world| {
        let event = format!("{} {}", world.began.elapsed().as_millis(), event());
        if world.is_printed {
            println!("{event}");
        }
        world.trace.write(event.as_bytes());
        world.events += 1;
        assert!(world.events < EVENTS_MAX, "it goes round in circles: {event}");
    });
}
