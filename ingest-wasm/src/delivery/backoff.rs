//! How long to wait before an attempt is repeated: exponentially longer, with full jitter.
//!
//! Pure. The crate `backon`, which the daemon uses, adds its jitter to a pause that stays; here many requests that
//! failed at once must not come back at once, so the pause as a whole is drawn.

use std::time::Duration;

use crate::limits;

/// The pauses of one forward.
#[derive(Debug)]
pub(super) struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { ceiling: limits::RETRY_PAUSE_FIRST_MAX }
    }

    /// The next pause, drawn by 64 random bits from zero to a ceiling that doubles.
    pub(super) fn next(&mut self, chance: u64) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(limits::RETRY_PAUSE_MAX);
        // 32 bits of chance are as fine as need be.
        ceiling.mul_f64((chance >> 32) as f64 / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_drawn_from_zero_to_a_ceiling_that_doubles_up_to_a_bound() {
        let mut longest = Backoff::new();
        let ceilings: Vec<_> = (0..8).map(|_| longest.next(u64::MAX)).collect();
        assert_eq!(ceilings[..3], [50, 100, 200].map(Duration::from_millis));
        assert_eq!(ceilings[7], limits::RETRY_PAUSE_MAX);
        let mut backoff = Backoff::new();
        assert_eq!(backoff.next(0), Duration::ZERO);
        let half = backoff.next(u64::MAX / 2);
        assert!(half.abs_diff(Duration::from_millis(50)) < Duration::from_millis(1), "{half:?}");
    }
}
