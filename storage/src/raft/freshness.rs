//! How old may be what a replica knows: the time since its leader told it of nothing that it had not.
//!
//! A leader says with each heartbeat up to where the log is agreed on. A replica that has applied that much knew then of
//! all that its leader knew. Pure but for the clock that is passed in.

use std::time::Duration;

use tokio::time::Instant;

use super::types::LogId;

/// How fresh a replica is.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    /// When it last had all that its leader told it of; never, before the first time.
    fresh_at: Option<Instant>,
    /// What it was told of first that it had not yet, and when.
    behind: Option<(Instant, LogId)>,
}

impl Freshness {
    /// A leader said that the log is agreed on up to `committed`, at a time at which `applied` was applied.
    pub(super) fn note(&mut self, at: Instant, committed: Option<LogId>, applied: Option<LogId>) {
        self.catch_up(applied);
        match committed {
            Some(committed) if Some(committed) > applied => {
                self.behind.get_or_insert((at, committed));
            }
            _ => {
                self.fresh_at = self.fresh_at.max(Some(at));
                self.behind = None;
            }
        }
    }

    /// How old what the replica knows may be; `None` if it never knew all.
    pub(super) fn age(&mut self, now: Instant, applied: Option<LogId>) -> Option<Duration> {
        self.catch_up(applied);
        self.fresh_at.map(|at| now.saturating_duration_since(at))
    }

    fn catch_up(&mut self, applied: Option<LogId>) {
        if let Some((at, committed)) = self.behind
            && applied >= Some(committed)
        {
            self.fresh_at = self.fresh_at.max(Some(at));
            self.behind = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    #[test]
    fn a_replica_is_as_old_as_the_last_word_of_which_it_has_all() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let id = |index: u64| Some(log_id(1, index));
        let seconds = |freshness: &mut Freshness, now: u64, applied: u64| {
            freshness.age(at(now), id(applied)).map(|age| age.as_secs())
        };
        let mut freshness = Freshness::default();
        assert_eq!(freshness.age(at(0), None), None);
        // Nothing is agreed on, and it has all of that.
        freshness.note(at(1), None, None);
        assert_eq!(freshness.age(at(3), None), Some(Duration::from_secs(2)));
        freshness.note(at(4), id(7), id(5));
        freshness.note(at(5), id(9), id(6));
        assert_eq!(seconds(&mut freshness, 6, 6), Some(5));
        // It has now what it was told at 4, and that was not all.
        assert_eq!(seconds(&mut freshness, 6, 7), Some(2));
        freshness.note(at(8), id(9), id(8));
        assert_eq!(seconds(&mut freshness, 9, 8), Some(5));
        assert_eq!(seconds(&mut freshness, 9, 9), Some(1));
        freshness.note(at(10), id(9), id(9));
        assert_eq!(seconds(&mut freshness, 10, 9), Some(0));
    }
}
