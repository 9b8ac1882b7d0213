//! What waits for a partition's actor: bounded by bytes and by requests, and how fast it drains.
//!
//! Invariant: what is admitted is released exactly once, by dropping its [`Ticket`]. Knows nothing of batches.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::limits;

/// The bounds of one partition's queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Bytes that may wait. An empty queue takes one batch whatever its size.
    pub bytes_max: usize,
    /// Requests that may wait.
    pub requests_max: usize,
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Bytes admitted and not yet answered.
    pub bytes: usize,
    /// Requests admitted and not yet answered.
    pub requests: usize,
}

/// The account of one partition's queue.
#[derive(Debug)]
pub(super) struct Queue {
    limits: QueueLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    depth: QueueDepth,
    closed: bool,
    /// Smoothed over some rounds; zero until the first.
    drained_bytes_per_second: f64,
}

/// Why a queue takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is full; it should have drained after this time.
    Full { retry_after: Duration },
    /// The node is stopping.
    Closed,
}

/// A place in the queue, given back when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    queue: Arc<Queue>,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(limits: QueueLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Takes a place for `bytes`, if there is one.
    pub(super) fn admit(self: &Arc<Self>, bytes: usize) -> Result<Ticket, Refusal> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refusal::Closed);
        }
        let bytes_after = state.depth.bytes.saturating_add(bytes);
        let fits = bytes_after <= self.limits.bytes_max || state.depth.requests == 0;
        if !fits || state.depth.requests >= self.requests_max() {
            return Err(Refusal::Full { retry_after: state.time_to_drain() });
        }
        state.depth = QueueDepth { bytes: bytes_after, requests: state.depth.requests + 1 };
        Ok(Ticket { queue: Arc::clone(self), bytes })
    }

    /// Requests that may wait at once, at least one.
    pub(super) fn requests_max(&self) -> usize {
        self.limits.requests_max.max(1)
    }

    /// Refuses everything from now on.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
    }

    /// How full the queue is now.
    pub(super) fn depth(&self) -> QueueDepth {
        self.state.lock().depth
    }

    /// Notes that a round wrote `bytes` in `time`.
    pub(super) fn note_drained(&self, bytes: usize, time: Duration) {
        const NEW_SHARE: f64 = 0.2;
        let rate = bytes as f64 / time.as_secs_f64().max(1e-6);
        let mut state = self.state.lock();
        state.drained_bytes_per_second = if state.drained_bytes_per_second > 0.0 {
            state.drained_bytes_per_second.mul_add(1.0 - NEW_SHARE, rate * NEW_SHARE)
        } else {
            rate
        };
    }
}

impl State {
    /// When what waits now should be written, in whole seconds, at least one.
    fn time_to_drain(&self) -> Duration {
        let seconds_max = limits::RETRY_AFTER_MAX.as_secs_f64();
        if self.drained_bytes_per_second <= 0.0 {
            return Duration::from_secs(1);
        }
        let seconds = self.depth.bytes as f64 / self.drained_bytes_per_second;
        Duration::from_secs_f64(seconds.ceil().clamp(1.0, seconds_max))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.depth.bytes = state.depth.bytes.saturating_sub(self.bytes);
        state.depth.requests = state.depth.requests.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Arc<Queue> {
        Queue::new(QueueLimits { bytes_max: 100, requests_max: 3 })
    }

    #[test]
    fn a_queue_is_bounded_by_bytes_and_a_dropped_ticket_makes_room() {
        let queue = queue();
        let first = queue.admit(60).unwrap();
        assert!(matches!(queue.admit(50), Err(Refusal::Full { .. })));
        let _second = queue.admit(40).unwrap();
        drop(first);
        assert_eq!(queue.depth(), QueueDepth { bytes: 40, requests: 1 });
        assert!(queue.admit(60).is_ok());
    }

    #[test]
    fn a_queue_is_bounded_by_requests() {
        let queue = queue();
        let _tickets: Vec<_> = (0..3).map(|_| queue.admit(1).unwrap()).collect();
        assert!(matches!(queue.admit(1), Err(Refusal::Full { .. })));
    }

    #[test]
    fn an_empty_queue_takes_a_batch_larger_than_its_bound() {
        let queue = queue();
        let _large = queue.admit(1000).unwrap();
        assert!(matches!(queue.admit(1), Err(Refusal::Full { .. })));
    }

    #[test]
    fn the_time_to_stay_away_follows_from_the_rate_and_is_bounded() {
        let queue = queue();
        let _ticket = queue.admit(100).unwrap();
        queue.note_drained(10, Duration::from_secs(1));
        assert_eq!(queue.admit(1).unwrap_err(), Refusal::Full { retry_after: Duration::from_secs(10) });
        for _ in 0..100 {
            queue.note_drained(0, Duration::from_secs(1));
        }
        assert_eq!(queue.admit(1).unwrap_err(), Refusal::Full { retry_after: limits::RETRY_AFTER_MAX });
    }

    #[test]
    fn a_closed_queue_takes_nothing() {
        let queue = queue();
        queue.close();
        assert_eq!(queue.admit(1).unwrap_err(), Refusal::Closed);
    }
}
