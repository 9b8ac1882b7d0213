//! When the next batch of a run with `--rate` may leave.
//!
//! Pure: the caller passes the time and does the waiting.

use std::time::{Duration, Instant};

use crate::limits::RATE_BURST;

/// A schedule of so many records per second.
pub(crate) struct Pacer {
    records_per_second: u64,
    next_at: Instant,
}

impl Pacer {
    /// A schedule whose first record is due `now`. At least one record per second.
    pub(crate) fn new(records_per_second: u64, now: Instant) -> Self {
        Self { records_per_second: records_per_second.max(1), next_at: now }
    }

    /// When a batch of this many records may leave. One that is late leaves at once, and what was missed is caught
    /// up, but never more than [`RATE_BURST`] of it.
    pub(crate) fn schedule(&mut self, record_count: u32, now: Instant) -> Instant {
        let earliest = now.checked_sub(RATE_BURST).unwrap_or(now);
        let due = self.next_at.max(earliest);
        let nanoseconds = u64::from(record_count).saturating_mul(1_000_000_000) / self.records_per_second;
        self.next_at = due + Duration::from_nanos(nanoseconds);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_due_at_the_rate() {
        let start = Instant::now();
        let mut pacer = Pacer::new(1_000, start);
        let due: Vec<_> = (0..4).map(|_| pacer.schedule(50, start) - start).collect();
        assert_eq!(due, [0, 50, 100, 150].map(Duration::from_millis));
    }

    #[test]
    fn a_short_stall_is_caught_up_and_a_long_one_only_in_part() {
        let start = Instant::now();
        let late_by = |stall: Duration| {
            let mut pacer = Pacer::new(1_000, start);
            let now = start + stall;
            (0..10_000).take_while(|_| pacer.schedule(100, now) <= now).count()
        };
        // Ten batches of 100 ms each, and the one that is due now.
        assert_eq!(late_by(Duration::from_millis(500)), 6);
        assert_eq!(late_by(Duration::from_secs(60)), 11);
    }
}
