//! Whether a node is worth an attempt: after consecutive failures to reach it, it is left alone for a while.
//!
//! Pure but for the lock. What a circuit knows, one instance knows: instances come and go, and each finds out for
//! itself. Invariant: of a node that is left alone, at most one request at a time finds out whether it is back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::StorageNode;
use crate::limits;

/// The circuits of the nodes that had a failure since their last success.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    failing: Mutex<Vec<(StorageNode, Circuit)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circuit {
    /// Attempts are made; so many of the last ones failed.
    Closed { failures: u32 },
    /// No attempt is made until then.
    Open { until: Duration, lasts: Duration },
    /// One attempt is being made since then.
    Probing { since: Duration, lasts: Duration },
}

impl Circuits {
    pub(crate) const fn new() -> Self {
        Self { failing: Mutex::new(Vec::new()) }
    }

    /// Whether an attempt may be made now; its result has to be noted.
    pub(crate) fn admits(&self, node: &StorageNode, now: Duration) -> bool {
        let mut failing = self.lock();
        let Some((_, circuit)) = failing.iter_mut().find(|(known, _)| known == node) else { return true };
        match *circuit {
            Circuit::Closed { .. } => true,
            Circuit::Open { until, lasts } if now >= until => {
                *circuit = Circuit::Probing { since: now, lasts };
                true
            }
            // A probe whose request was dropped has no result.
            Circuit::Probing { since, lasts } if now >= since + limits::PROBE_TIME_MAX => {
                *circuit = Circuit::Probing { since: now, lasts };
                true
            }
            Circuit::Open { .. } | Circuit::Probing { .. } => false,
        }
    }

    /// Whether [`Self::admits`] would say so, without taking the attempt.
    pub(crate) fn would_admit(&self, node: &StorageNode, now: Duration) -> bool {
        let failing = self.lock();
        let circuit = failing.iter().find(|(known, _)| known == node);
        circuit.is_none_or(|(_, circuit)| match *circuit {
            Circuit::Closed { .. } => true,
            Circuit::Open { until, .. } => now >= until,
            Circuit::Probing { since, .. } => now >= since + limits::PROBE_TIME_MAX,
        })
    }

    /// Whether attempts are made as usual.
    pub(crate) fn is_closed(&self, node: &StorageNode) -> bool {
        let failing = self.lock();
        let circuit = failing.iter().find(|(known, _)| known == node);
        circuit.is_none_or(|(_, circuit)| matches!(circuit, Circuit::Closed { .. }))
    }

    /// The node was reached, whatever it said.
    pub(crate) fn note_reached(&self, node: &StorageNode) {
        self.lock().retain(|(known, _)| known != node);
    }

    /// Somebody says that it is worth trying: all nodes are attempted anew.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    /// The node was not reached.
    pub(crate) fn note_not_reached(&self, node: &StorageNode, now: Duration) {
        let mut failing = self.lock();
        match failing.iter_mut().find(|(known, _)| known == node) {
            Some((_, circuit)) => *circuit = circuit.failed(now),
            None => {
                // Those of the configuration fit in; what else nodes name must not pile up.
                if failing.len() >= 2 * limits::STORAGE_NODES_MAX {
                    failing.remove(0);
                }
                failing.push((node.clone(), Circuit::Closed { failures: 0 }.failed(now)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(StorageNode, Circuit)>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Circuit {
    fn failed(self, now: Duration) -> Self {
        let open = |lasts| Self::Open { until: now + lasts, lasts };
        match self {
            Self::Closed { failures } if failures + 1 < limits::CIRCUIT_FAILURES_MAX => {
                Self::Closed { failures: failures + 1 }
            }
            Self::Closed { .. } => open(limits::CIRCUIT_OPEN_FIRST),
            Self::Probing { lasts, .. } => open(lasts.saturating_mul(2).min(limits::CIRCUIT_OPEN_MAX)),
            // The failure of an attempt that began before.
            Self::Open { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u16) -> StorageNode {
        StorageNode::parse(&format!("http://node-{number}:8081")).unwrap()
    }

    const FIRST: Duration = limits::CIRCUIT_OPEN_FIRST;

    fn open_circuits() -> Circuits {
        let circuits = Circuits::new();
        for _ in 0..limits::CIRCUIT_FAILURES_MAX {
            assert!(circuits.admits(&node(1), Duration::ZERO) && circuits.is_closed(&node(1)));
            circuits.note_not_reached(&node(1), Duration::ZERO);
        }
        circuits
    }

    #[test]
    fn after_consecutive_failures_a_node_is_left_alone_for_a_while_and_others_are_not() {
        let circuits = open_circuits();
        assert!(!circuits.admits(&node(1), FIRST - Duration::from_nanos(1)));
        assert!(!circuits.is_closed(&node(1)) && !circuits.would_admit(&node(1), Duration::ZERO));
        assert!(circuits.would_admit(&node(1), FIRST) && circuits.would_admit(&node(2), Duration::ZERO));
        assert!(circuits.admits(&node(2), Duration::ZERO) && circuits.is_closed(&node(2)));
    }

    #[test]
    fn one_request_finds_out_whether_it_is_back() {
        let circuits = open_circuits();
        assert!(circuits.admits(&node(1), FIRST));
        assert!(!circuits.admits(&node(1), FIRST), "one probe at a time");
        circuits.note_not_reached(&node(1), FIRST);
        assert!(!circuits.admits(&node(1), FIRST * 3 - Duration::from_nanos(1)), "twice as long");
        assert!(circuits.admits(&node(1), FIRST * 3));
        circuits.note_reached(&node(1));
        assert!(circuits.is_closed(&node(1)) && circuits.admits(&node(1), FIRST * 3));
    }

    #[test]
    fn a_probe_without_a_result_is_followed_by_another() {
        let circuits = open_circuits();
        assert!(circuits.admits(&node(1), FIRST));
        assert!(circuits.admits(&node(1), FIRST + limits::PROBE_TIME_MAX));
    }

    #[test]
    fn however_many_nodes_are_named_few_are_kept() {
        let circuits = Circuits::new();
        for number in 1..=1_000 {
            circuits.note_not_reached(&node(number), Duration::ZERO);
        }
        assert_eq!(circuits.lock().len(), 2 * limits::STORAGE_NODES_MAX);
        assert!(circuits.lock().iter().any(|(known, _)| *known == node(1_000)));
    }

    #[test]
    fn what_was_found_out_can_be_forgotten() {
        let circuits = open_circuits();
        circuits.forget();
        assert!(circuits.is_closed(&node(1)) && circuits.admits(&node(1), Duration::ZERO));
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let circuits = Circuits::new();
        for _ in 0..10 {
            circuits.note_not_reached(&node(1), Duration::ZERO);
            circuits.note_reached(&node(1));
        }
        assert!(circuits.is_closed(&node(1)));
    }
}
