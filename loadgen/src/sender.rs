//! Sends batches over one connection, each until it is settled or its attempts are used up.
//!
//! Invariant: every batch that is taken from the queue and tried gives exactly one [`Outcome`]; every attempt of a
//! batch carries the same idempotency key. This module must not know what the other connections do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::Full;
use model::wire;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::answer::{self, Taken, Verdict};
use crate::client::{Client, Target};
use crate::corpus::{Batch, BodyFormat};
use crate::ledger::Fate;
use crate::limits::{ANSWER_BYTES_MAX, BACKOFF_MAX, BACKOFF_MIN, STOP_GRACE};
use crate::report::shorten;

/// RFC 7240; not among the header names that `http` knows.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The batches of a run: each connection takes the next one.
pub(crate) type BatchQueue = Arc<Mutex<mpsc::Receiver<Batch>>>;

/// What all connections of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct SendPlan {
    /// Where the batches go.
    pub(crate) target: Target,
    /// How a body is made up.
    pub(crate) format: BodyFormat,
    /// Whether answers shall come without a body.
    pub(crate) minimal: bool,
    /// How long one attempt may take.
    pub(crate) timeout: Duration,
    /// Attempts of a batch beyond the first.
    pub(crate) retries_max: u32,
    /// The pause between two batches of one connection.
    pub(crate) delay: Duration,
    /// The batches' idempotency keys.
    pub(crate) keys: BatchKeys,
}

/// The idempotency keys of a run's batches: a function of the seed, the run and the batch's number.
///
/// The run is part of it because a second run with the same seed is not a retry of the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchKeys {
    /// The corpus's seed.
    pub(crate) seed: u64,
    /// A random number that tells this run from others.
    pub(crate) run: u64,
    /// When the run started, Unix milliseconds.
    pub(crate) started_ms: u64,
}

impl BatchKeys {
    /// The key of batch `number`: a UUIDv7.
    pub(crate) fn key(&self, number: u64) -> Uuid {
        let mut name = [0; 24];
        let parts = [self.seed, self.run, number].into_iter().flat_map(u64::to_le_bytes);
        for (to, from) in name.iter_mut().zip(parts) {
            *to = from;
        }
        let mut random = [0; 10];
        for (to, from) in random.iter_mut().zip(xxh3_128(&name).to_le_bytes()) {
            *to = from;
        }
        uuid::Builder::from_unix_timestamp_millis(self.started_ms, &random).into_uuid()
    }
}

/// What became of one batch.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The batch's number.
    pub(crate) batch_number: u64,
    /// Its records.
    pub(crate) record_count: u32,
    /// The bytes of its body.
    pub(crate) body_bytes: usize,
    /// How it ended.
    pub(crate) ending: Ending,
    /// From the first attempt to the end, waits between attempts included.
    pub(crate) latency: Duration,
    /// The attempts, in order.
    pub(crate) attempts: Vec<Attempt>,
}

/// How a batch ended.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// The server answers for some or all of its records.
    Taken(Taken),
    /// The server took none of its records and will not.
    Refused(String),
    /// Nothing certain is known.
    Failed(String),
}

/// One attempt to send a batch.
#[derive(Clone, Debug)]
pub(crate) enum Attempt {
    /// It was answered.
    Answered {
        /// The status.
        status: u16,
        /// The `Durability` header.
        durability: Option<String>,
    },
    /// It was not: the kind of error.
    Unanswered(&'static str),
}

impl Outcome {
    /// What may be expected of the batch's records in storage, but for those that the answer names as rejected.
    pub(crate) fn fate(&self) -> Fate {
        match &self.ending {
            // Which records were rejected is not known when the answer does not list them all.
            Ending::Taken(taken) if taken.rejected_places.len() != taken.rejected as usize => Fate::InDoubt,
            Ending::Taken(taken) if taken.queued => Fate::Queued,
            Ending::Taken(_) => Fate::Acked,
            // An attempt before the refusal may have been taken.
            Ending::Refused(_) if self.attempts.len() > 1 => Fate::InDoubt,
            Ending::Refused(_) => Fate::Rejected,
            Ending::Failed(_) => Fate::InDoubt,
        }
    }
}

/// Sends batches of `queue` until it is empty and closed, or `stop` is cancelled.
pub(crate) async fn run_connection(
    plan: Arc<SendPlan>,
    queue: BatchQueue,
    outcomes: mpsc::Sender<Outcome>,
    stop: CancellationToken,
) {
    let client = Client::new(plan.target.clone(), plan.timeout);
    let mut sender = Sender { plan, client, stop: stop.clone() };
    let mut is_first = true;
    while !stop.is_cancelled() {
        let Some(batch) = queue.lock().await.recv().await else { return };
        // The pause stands before a batch and not after one, so that the run ends with its last answer.
        let pause = if is_first { Duration::ZERO } else { sender.plan.delay };
        is_first = false;
        if !sender.pause(pause).await {
            return;
        }
        let outcome = sender.send(batch).await;
        if outcomes.send(outcome).await.is_err() {
            return;
        }
    }
}

struct Sender {
    plan: Arc<SendPlan>,
    client: Client,
    stop: CancellationToken,
}

/// One attempt's result.
enum Step {
    End(Ending),
    Again { after: Option<Duration>, reason: String },
}

impl Sender {
    /// Sends `batch`, again if need be.
    async fn send(&mut self, batch: Batch) -> Outcome {
        let started = Instant::now();
        let mut attempts = Vec::with_capacity(1);
        let mut backoff = BACKOFF_MIN;
        let ending = loop {
            let (attempt, step) = self.attempt(&batch).await;
            attempts.push(attempt);
            let (after, reason) = match step {
                Step::End(ending) => break ending,
                Step::Again { after, reason } => (after, reason),
            };
            if attempts.len() > self.plan.retries_max as usize {
                break Ending::Failed(reason);
            }
            if !self.pause(after.unwrap_or(backoff)).await {
                break Ending::Failed(format!("interrupted after: {reason}"));
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        };
        Outcome {
            batch_number: batch.number,
            record_count: batch.record_count,
            body_bytes: batch.body.len(),
            ending,
            latency: started.elapsed(),
            attempts,
        }
    }

    async fn attempt(&mut self, batch: &Batch) -> (Attempt, Step) {
        let request = self.request(batch);
        let exchanged = tokio::select! {
            exchanged = self.client.exchange_whole(request, ANSWER_BYTES_MAX) => exchanged,
            () = grace_after(&self.stop) => {
                let reason = "interrupted before an answer".to_owned();
                return (Attempt::Unanswered("interrupted"), Step::End(Ending::Failed(reason)));
            }
        };
        match exchanged {
            Ok((head, body)) => {
                let durability = answer::durability(&head).map(shorten);
                let attempt = Attempt::Answered { status: head.status.as_u16(), durability };
                let step = match answer::judge(&head, &body, batch.record_count) {
                    Verdict::Taken(taken) => Step::End(Ending::Taken(taken)),
                    Verdict::Refused(reason) => Step::End(Ending::Refused(reason)),
                    Verdict::Unclear(reason) => Step::End(Ending::Failed(reason)),
                    Verdict::Again { after, reason } => Step::Again { after, reason },
                };
                (attempt, step)
            }
            Err(error) => {
                (Attempt::Unanswered(error.kind()), Step::Again { after: None, reason: error.to_string() })
            }
        }
    }

    fn request(&self, batch: &Batch) -> Request<Full<bytes::Bytes>> {
        // Cloning the body shares its bytes: every attempt sends the same.
        let mut request = self.plan.target.request(None, Full::new(batch.body.clone()));
        *request.method_mut() = http::Method::POST;
        let headers = request.headers_mut();
        let content_type = match self.plan.format {
            BodyFormat::Array => wire::JSON,
            BodyFormat::Ndjson => wire::NDJSON,
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let mut key_text = Uuid::encode_buffer();
        let key = self.plan.keys.key(batch.number).hyphenated().encode_lower(&mut key_text);
        // A UUID's text is always a valid header value.
        if let Ok(key) = HeaderValue::from_str(key) {
            headers.insert(wire::IDEMPOTENCY_KEY, key);
        }
        if self.plan.minimal {
            headers.insert(PREFER, HeaderValue::from_static("return=minimal"));
        }
        request
    }

    /// Waits; `false` when the run was stopped meanwhile.
    async fn pause(&self, duration: Duration) -> bool {
        if duration.is_zero() {
            return !self.stop.is_cancelled();
        }
        tokio::select! {
            () = tokio::time::sleep(duration) => true,
            () = self.stop.cancelled() => false,
        }
    }
}

/// Ends a while after the run was stopped.
async fn grace_after(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_GRACE).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KEYS: BatchKeys = BatchKeys { seed: 1, run: 2, started_ms: 1_700_000_000_000 };

    fn outcome(ending: Ending, attempts: usize) -> Outcome {
        let attempts = vec![Attempt::Unanswered("timeout"); attempts];
        Outcome {
            batch_number: 0,
            record_count: 10,
            body_bytes: 0,
            ending,
            latency: Duration::ZERO,
            attempts,
        }
    }

    fn taken(rejected: u32, places: &[u32], queued: bool) -> Ending {
        let rejected_places = places.iter().copied().collect();
        Ending::Taken(Taken { received: 10 - rejected, rejected, rejected_places, queued, first_error: None })
    }

    #[test]
    fn a_batch_keeps_its_key_and_another_batch_seed_or_run_has_another() {
        let key = KEYS.key(3);
        assert_eq!(key, KEYS.key(3));
        assert_eq!(key.get_version_num(), 7);
        let others = [KEYS.key(4), BatchKeys { seed: 9, ..KEYS }.key(3), BatchKeys { run: 9, ..KEYS }.key(3)];
        let all: BTreeSet<_> = others.into_iter().chain([key]).collect();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn a_batch_is_in_doubt_wherever_its_records_may_or_may_not_be_stored() {
        assert_eq!(outcome(taken(0, &[], false), 1).fate(), Fate::Acked);
        assert_eq!(outcome(taken(1, &[4], false), 1).fate(), Fate::Acked);
        assert_eq!(outcome(taken(0, &[], true), 1).fate(), Fate::Queued);
        assert_eq!(outcome(taken(2, &[4], false), 1).fate(), Fate::InDoubt);
        assert_eq!(outcome(Ending::Refused(String::new()), 1).fate(), Fate::Rejected);
        assert_eq!(outcome(Ending::Refused(String::new()), 2).fate(), Fate::InDoubt);
        assert_eq!(outcome(Ending::Failed(String::new()), 1).fate(), Fate::InDoubt);
    }
}
