//! What an instance knows beyond its requests: which nodes fail, how many retries are left, who replays what.
//!
//! Invariant: all of it may be lost or unknown at any time. An instance serves a bounded number of requests, others
//! serve beside it, and none knows what the others know: this makes the work cheaper, never right.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Partition;

use crate::delivery::{Circuits, Leaders, RetryBudget, TogetherUnknown};
use crate::sparing::KnownTime;

/// The state of an instance.
#[derive(Debug, Default)]
pub struct InstanceState {
    /// The nodes that fail.
    pub(crate) circuits: Circuits,
    /// Who leads which partition.
    pub(crate) leaders: Leaders,
    /// The nodes that do not take batches together.
    pub(crate) together_unknown: TogetherUnknown,
    /// The retries that are left.
    pub(crate) retries: RetryBudget,
    /// The time, as far as it is known without asking for it.
    pub time: KnownTime,
    draining: Mutex<BTreeSet<Partition>>,
    is_replaying: AtomicBool,
    drawn: AtomicU64,
    error_noted: Mutex<Option<Duration>>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

impl InstanceState {
    /// The state of an instance that has just begun.
    pub const fn new() -> Self {
        Self {
            circuits: Circuits::new(),
            leaders: Leaders::new(),
            together_unknown: TogetherUnknown::new(),
            retries: RetryBudget::new(),
            time: KnownTime::new(),
            draining: Mutex::new(BTreeSet::new()),
            is_replaying: AtomicBool::new(false),
            drawn: AtomicU64::new(0),
            error_noted: Mutex::new(None),
        }
    }

    /// 64 bits of chance, from a request's own and from how often this was called.
    pub(crate) fn chance(&self, random: u128) -> u64 {
        let drawn = self.drawn.fetch_add(1, Relaxed);
        // SplitMix64.
        let mut mixed = (random as u64)
            .wrapping_add((random >> 64) as u64)
            .wrapping_add(drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// The right to replay a partition, unless another task of this instance has it.
    pub(crate) fn drain(&self, partition: Partition) -> Option<Draining<'_>> {
        lock(&self.draining).insert(partition).then(|| Draining { state: self, partition })
    }

    /// The right to replay in the background, unless another task of this instance has it.
    pub(crate) fn replay(&self) -> Option<Replaying<'_>> {
        (!self.is_replaying.swap(true, Relaxed)).then(|| Replaying { state: self })
    }

    /// Whether an error is to be written down: the last one was so long ago.
    pub(crate) fn is_error_due(&self, now: Duration, pause: Duration) -> bool {
        let mut noted = lock(&self.error_noted);
        let is_due = noted.is_none_or(|last| now.saturating_sub(last) >= pause);
        if is_due {
            *noted = Some(now);
        }
        is_due
    }
}

/// The right to replay one partition; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Draining<'s> {
    state: &'s InstanceState,
    partition: Partition,
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        lock(&self.state.draining).remove(&self.partition);
    }
}

/// The right to replay in the background; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Replaying<'s> {
    state: &'s InstanceState,
}

impl Drop for Replaying<'_> {
    fn drop(&mut self) {
        self.state.is_replaying.store(false, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_one_tasks_until_it_ends() {
        let state = InstanceState::new();
        let first = state.drain(Partition::new(1)).unwrap();
        assert!(state.drain(Partition::new(1)).is_none());
        assert!(state.drain(Partition::new(1)).is_none(), "asking does not end it");
        assert!(state.drain(Partition::new(2)).is_some());
        drop(first);
        assert!(state.drain(Partition::new(1)).is_some());
        let replaying = state.replay().unwrap();
        assert!(state.replay().is_none() && state.replay().is_none());
        drop(replaying);
        assert!(state.replay().is_some());
    }

    #[test]
    fn an_error_is_due_now_and_then_and_chance_differs() {
        let (state, second) = (InstanceState::new(), Duration::from_secs(1));
        assert!(state.is_error_due(Duration::ZERO, second));
        assert!(!state.is_error_due(second / 2, second));
        assert!(state.is_error_due(second, second));
        assert_ne!(state.chance(1 << 64 | 1), state.chance(1 << 64 | 1));
    }
}
