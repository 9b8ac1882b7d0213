//! How many attempts an instance may repeat: a share of its forwards, and a small burst.
//!
//! Invariant: however many forwards fail, the repeated ones are at most [`limits::RETRY_SHARE_INVERSE`] times fewer
//! than the first ones, plus the burst: retries cannot multiply the load on storage that is already in trouble.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::limits;

/// The budget, counted in parts of a retry.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    parts: AtomicU32,
}

const RETRY: u32 = limits::RETRY_SHARE_INVERSE;
const FULL: u32 = limits::RETRY_BURST * RETRY;

impl RetryBudget {
    pub(crate) const fn new() -> Self {
        Self { parts: AtomicU32::new(FULL) }
    }

    /// A first attempt earns a part of a retry.
    pub(crate) fn note_forward(&self) {
        self.change(|parts| Some((parts + 1).min(FULL)));
    }

    /// Takes a retry, if one is left.
    pub(crate) fn take(&self) -> bool {
        self.change(|parts| parts.checked_sub(RETRY))
    }

    fn change(&self, change: impl FnMut(u32) -> Option<u32>) -> bool {
        self.parts.fetch_update(Relaxed, Relaxed, change).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_forwards_and_a_burst() {
        let budget = RetryBudget::new();
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.note_forward();
            retries += u32::from(budget.take());
        }
        assert!((1_000 / RETRY..=1_000 / RETRY + limits::RETRY_BURST).contains(&retries), "{retries}");
        for _ in 0..1_000 {
            budget.note_forward();
        }
        let burst = (0..1_000).filter(|_| budget.take()).count();
        assert_eq!(burst, limits::RETRY_BURST as usize, "what is not used does not pile up");
    }
}
