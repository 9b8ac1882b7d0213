//! Clients that send without a pause until they are told to stop, and note what became of each batch.
//!
//! Invariant: a connection sends a batch only when the one before has its fate, and repeats one under its own
//! `Idempotency-Key`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use model::Record;
use model::wire::IDEMPOTENCY_KEY;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;

use crate::client::{Client, answer};
use crate::oracle::{Fate, Ledger};
use crate::random::nonce;
use crate::records::{self, RecordSource};

/// How long a batch is repeated before the test fails: a node's recovery and the ingest's own time-outs.
const BATCH_TIME_MAX: Duration = Duration::from_secs(40);
/// The pause before a repetition. `Retry-After` says a second; a test has no time for that.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// What a load does.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// The ingests' `/v1/logs`; a connection goes to the next with each attempt.
    pub urls: Vec<String>,
    /// How many send at once.
    pub connections: u32,
    /// The most records of a batch; small ones spare some partitions.
    pub batch_records_max: usize,
    /// The share of batches that are given up when their first attempt fails.
    pub given_up: f64,
    /// Decides the records and which batches are given up.
    pub seed: u64,
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    connections: Vec<JoinHandle<Ledger>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    batches_acked: AtomicUsize,
    attempts_failed: AtomicUsize,
}

impl Load {
    /// Begins to send.
    pub fn start(spec: &LoadSpec) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |number| tokio::spawn(Connection::new(number, spec.clone(), Arc::clone(&shared)).run());
        Self { connections: (0..spec.connections).map(start).collect(), shared }
    }

    /// Batches that were acknowledged so far.
    pub fn batches_acked(&self) -> usize {
        self.shared.batches_acked.load(Relaxed)
    }

    /// Waits until `batches` more are acknowledged.
    ///
    /// # Panics
    /// When they are not.
    pub async fn progress(&self, batches: usize) {
        let wanted = self.batches_acked() + batches;
        let is_there = async || (self.batches_acked() >= wanted).then_some(());
        crate::eventually("batches are acknowledged", BATCH_TIME_MAX, is_there).await;
    }

    /// Waits until `attempts` more have failed.
    ///
    /// # Panics
    /// When they do not fail.
    pub async fn trouble(&self, attempts: usize) {
        let failed = || self.shared.attempts_failed.load(Relaxed);
        let wanted = failed() + attempts;
        let is_there = async || (failed() >= wanted).then_some(());
        crate::eventually("attempts fail", BATCH_TIME_MAX, is_there).await;
    }

    /// Lets each connection come to an end with its batch; returns what they sent.
    ///
    /// # Panics
    /// When a batch was refused, or was not taken however often it was repeated.
    pub async fn finish(self) -> Vec<Ledger> {
        self.shared.is_over.store(true, Relaxed);
        let mut ledgers = Vec::new();
        for connection in self.connections {
            ledgers.push(connection.await.unwrap());
        }
        ledgers
    }
}

struct Connection {
    number: u32,
    spec: LoadSpec,
    shared: Arc<Shared>,
    client: Client,
    chance: ChaCha8Rng,
    attempts: usize,
}

impl Connection {
    fn new(number: u32, spec: LoadSpec, shared: Arc<Shared>) -> Self {
        let mut chance = ChaCha8Rng::seed_from_u64(spec.seed);
        // The records have the streams from zero on.
        chance.set_stream(u64::MAX - u64::from(number));
        Self { number, spec, shared, client: Client::new(), chance, attempts: 0 }
    }

    async fn run(mut self) -> Ledger {
        let mut source = RecordSource::new(self.number, self.spec.seed);
        let mut ledger = Ledger::default();
        while !self.shared.is_over.load(Relaxed) {
            let records = source.batch(self.chance.random_range(1..=self.spec.batch_records_max));
            let is_impatient = self.chance.random_bool(self.spec.given_up);
            let fate = self.send(&records, is_impatient).await;
            if fate == Fate::Acked {
                self.shared.batches_acked.fetch_add(1, Relaxed);
            }
            ledger.note(records, fate);
        }
        ledger
    }

    async fn send(&mut self, records: &[Record], is_impatient: bool) -> Fate {
        let key = format!("load-{:x}", nonce());
        let body = records::json_array(records);
        let deadline = Instant::now() + BATCH_TIME_MAX;
        loop {
            let url = &self.spec.urls[(self.number as usize + self.attempts) % self.spec.urls.len()];
            self.attempts += 1;
            let request = self.client.post(url).header("content-type", model::wire::JSON);
            let told = match answer(request.header(IDEMPOTENCY_KEY, &key).body(body.clone())).await {
                Ok(answer) => match answer.status {
                    200 | 202 => return Fate::Acked,
                    429 | 500.. => format!("{} {}", answer.status, answer.text()),
                    refused => panic!("a good batch was refused: {refused} {}", answer.text()),
                },
                Err(error) => format!("{error:?}"),
            };
            self.shared.attempts_failed.fetch_add(1, Relaxed);
            if is_impatient {
                return Fate::InDoubt;
            }
            assert!(Instant::now() < deadline, "a batch was not taken within {BATCH_TIME_MAX:?}: {told}");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}
