//! What a run counted: records, batches, answers, latencies.
//!
//! Pure: outcomes go in, figures come out. Latencies are of acknowledged batches, from the first attempt to the
//! acknowledgement, so that a retry counts as what it costs the client.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;

use crate::limits::{DURABILITY_KINDS_MAX, EXAMPLES_MAX};
use crate::report::shorten;
use crate::sender::{Attempt, Ending, Outcome};

/// The longest latency that is told apart: an hour, more than all retries of a batch take.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// The counts of a run so far.
pub(crate) struct Stats {
    /// Records that were tried to send.
    pub(crate) records_sent: u64,
    /// Records that the server answers for.
    pub(crate) records_acked: u64,
    /// Records that the server said it did not take.
    pub(crate) records_rejected: u64,
    /// Records of which nothing certain is known.
    pub(crate) records_failed: u64,
    /// Batches that were tried to send.
    pub(crate) batches_sent: u64,
    /// Batches that were taken wholly or in part.
    pub(crate) batches_acked: u64,
    /// Bytes of the bodies of the batches that were acknowledged.
    pub(crate) body_bytes_acked: u64,
    /// Attempts beyond each batch's first.
    pub(crate) retries: u64,
    /// Answers by status.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// Acknowledgements by their `Durability` header; `none` where there is no such header.
    pub(crate) durability: BTreeMap<String, u64>,
    /// Attempts that were not answered, by the kind of error.
    pub(crate) unanswered: BTreeMap<&'static str, u64>,
    /// The first things that went wrong, in words.
    pub(crate) failures: Vec<String>,
    latency_us: Histogram<u64>,
}

/// The distribution of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Latencies {
    /// The median.
    pub(crate) p50: f64,
    /// Nine of ten batches were no slower.
    pub(crate) p90: f64,
    /// 99 of 100 were no slower.
    pub(crate) p99: f64,
    /// 999 of 1,000 were no slower.
    #[serde(rename = "p99.9")]
    pub(crate) p99_9: f64,
    /// The slowest.
    pub(crate) max: f64,
}

impl Stats {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// None in practice: the histogram's bounds are constants.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            records_sent: 0,
            records_acked: 0,
            records_rejected: 0,
            records_failed: 0,
            batches_sent: 0,
            batches_acked: 0,
            body_bytes_acked: 0,
            retries: 0,
            answers: BTreeMap::new(),
            durability: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            failures: Vec::new(),
            latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).context("the latency histogram")?,
        })
    }

    /// Counts one batch.
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let records = u64::from(outcome.record_count);
        self.batches_sent += 1;
        self.records_sent += records;
        self.retries += (outcome.attempts.len() as u64).saturating_sub(1);
        for attempt in &outcome.attempts {
            match attempt {
                Attempt::Answered { status, .. } => *self.answers.entry(*status).or_default() += 1,
                Attempt::Unanswered(kind) => *self.unanswered.entry(kind).or_default() += 1,
            }
        }
        match &outcome.ending {
            Ending::Taken(taken) => {
                self.batches_acked += 1;
                self.records_acked += u64::from(taken.received);
                self.records_rejected += u64::from(taken.rejected);
                self.body_bytes_acked += outcome.body_bytes as u64;
                self.latency_us
                    .saturating_record(outcome.latency.as_micros().try_into().unwrap_or(LATENCY_US_MAX));
                self.count_durability(outcome);
                if let Some(error) = &taken.first_error {
                    self.note_failure(outcome.batch_number, error);
                }
            }
            Ending::Refused(reason) => {
                self.records_rejected += records;
                self.note_failure(outcome.batch_number, reason);
            }
            Ending::Failed(reason) => {
                self.records_failed += records;
                self.note_failure(outcome.batch_number, reason);
            }
        }
    }

    /// The latencies so far.
    pub(crate) fn latencies(&self) -> Latencies {
        let at = |quantile| self.latency_us.value_at_quantile(quantile) as f64 / 1e3;
        if self.latency_us.is_empty() {
            return Latencies::default();
        }
        let max = self.latency_us.max() as f64 / 1e3;
        Latencies { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max }
    }

    fn count_durability(&mut self, outcome: &Outcome) {
        let Some(Attempt::Answered { durability, .. }) = outcome.attempts.last() else { return };
        let text = durability.as_deref().unwrap_or("none");
        // One allocation a kind, not one a batch; and a server that says something new each time fills no memory.
        if let Some(count) = self.durability.get_mut(text) {
            *count += 1;
        } else {
            let text = if self.durability.len() < DURABILITY_KINDS_MAX { text } else { "other" };
            *self.durability.entry(text.to_owned()).or_default() += 1;
        }
    }

    fn note_failure(&mut self, batch_number: u64, reason: &str) {
        if self.failures.len() < EXAMPLES_MAX {
            self.failures.push(format!("batch {batch_number}: {}", shorten(reason)));
        }
    }
}

/// `count` per second.
pub(crate) fn per_second(count: f64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count / elapsed.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::answer::Taken;

    fn outcome(ending: Ending, latency_ms: u64, statuses: &[u16]) -> Outcome {
        let answered =
            |status: &u16| Attempt::Answered { status: *status, durability: Some("leader".to_owned()) };
        Outcome {
            batch_number: 7,
            record_count: 10,
            body_bytes: 1_000,
            ending,
            latency: Duration::from_millis(latency_ms),
            attempts: statuses.iter().map(answered).collect(),
        }
    }

    fn taken(rejected: u32) -> Ending {
        let first_error = (rejected > 0).then(|| "record 0 rejected".to_owned());
        let rejected_places = BTreeSet::new();
        Ending::Taken(Taken {
            received: 10 - rejected,
            rejected,
            rejected_places,
            queued: false,
            first_error,
        })
    }

    #[test]
    fn every_record_is_counted_as_acked_rejected_or_failed() {
        let mut stats = Stats::new().unwrap();
        stats.add(&outcome(taken(0), 1, &[200]));
        stats.add(&outcome(taken(3), 1, &[200]));
        stats.add(&outcome(Ending::Refused("400".to_owned()), 1, &[400]));
        stats.add(&outcome(Ending::Failed("503".to_owned()), 1, &[503, 503, 503]));
        assert_eq!(stats.records_sent, 40);
        assert_eq!((stats.records_acked, stats.records_rejected, stats.records_failed), (17, 13, 10));
        assert_eq!((stats.batches_sent, stats.batches_acked, stats.retries), (4, 2, 2));
        assert_eq!(stats.body_bytes_acked, 2_000);
        assert_eq!(stats.answers, BTreeMap::from([(200, 2), (400, 1), (503, 3)]));
        assert_eq!(stats.durability, BTreeMap::from([("leader".to_owned(), 2)]));
        assert_eq!(stats.failures, ["batch 7: record 0 rejected", "batch 7: 400", "batch 7: 503"]);
    }

    #[test]
    fn a_server_that_names_ever_new_levels_fills_no_memory() {
        let mut stats = Stats::new().unwrap();
        for level in 0..100 {
            let durability = Some(format!("level-{level}"));
            let attempts = vec![Attempt::Answered { status: 200, durability }];
            stats.add(&Outcome { attempts, ..outcome(taken(0), 1, &[]) });
        }
        assert_eq!(stats.durability.len(), DURABILITY_KINDS_MAX + 1);
        assert_eq!(stats.durability.values().sum::<u64>(), 100);
    }

    #[test]
    fn latencies_are_of_acknowledged_batches_only() {
        let mut stats = Stats::new().unwrap();
        assert_eq!(stats.latencies(), Latencies::default());
        for latency_ms in 1..=100 {
            stats.add(&outcome(taken(0), latency_ms, &[200]));
        }
        stats.add(&outcome(Ending::Failed(String::new()), 60_000, &[]));
        let latencies = stats.latencies();
        let close_to = |got: f64, ms: f64| (got / ms - 1.0).abs() < 0.01;
        assert!(close_to(latencies.p50, 50.0) && close_to(latencies.p99, 99.0), "{latencies:?}");
        assert!(close_to(latencies.max, 100.0), "{latencies:?}");
    }
}
