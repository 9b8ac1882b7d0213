//! Clients that append to one partition and read it, straight at the storage nodes, and write down what they saw.
//!
//! Invariant: a batch is repeated under its own id until its fate is known or the recording ends; what is written down is
//! what the answers said, with times of one clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use model::wire::{self, AppendAnswer};
use model::{BatchId, EnrichedRecord, Partition, Tenant};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client, answer};
use crate::history::{Event, FOREIGN, History, Operation};
use crate::random::nonce;
use crate::wait::eventually;

/// Who the records of a recorder say that they came through.
pub const RECORDER: &str = "recorder";
/// How long one attempt may take: longer than an answer of a node that is well, shorter than a frozen one stays away.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(4);
/// How long a batch is repeated before it is left in doubt.
const BATCH_TIME_MAX: Duration = Duration::from_secs(40);
/// The pause before a repetition, and between two reads.
const PAUSE: Duration = Duration::from_millis(20);
/// Records of a batch.
const RECORDS_MAX: usize = 5;
/// Records that one read asks for, from near the end.
const READ_LIMIT: u64 = 500;

/// A recording that goes on.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Vec<Operation>>>,
}

#[derive(Debug)]
struct Shared {
    urls: Vec<String>,
    partition: u16,
    begin: Instant,
    is_over: AtomicBool,
    acked: AtomicUsize,
    /// Where the last append was taken.
    leader: AtomicUsize,
    /// One past the last record that is known.
    end: AtomicU64,
}

impl Recorder {
    /// Begins: so many clients append to a partition of the nodes at these URLs, and so many read it.
    pub fn start(urls: Vec<String>, partition: u16, writers: u32, readers: u32, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            urls,
            partition,
            begin: Instant::now(),
            is_over: AtomicBool::new(false),
            acked: AtomicUsize::new(0),
            leader: AtomicUsize::new(0),
            end: AtomicU64::new(0),
        });
        let chance = |stream: u32| {
            let mut chance = ChaCha8Rng::seed_from_u64(seed);
            chance.set_stream(stream.into());
            chance
        };
        let mut tasks: Vec<_> = (0..writers)
            .map(|number| tokio::spawn(write(number, Arc::clone(&shared), chance(number))))
            .collect();
        let reader = |number| tokio::spawn(read(Arc::clone(&shared), chance(writers + number)));
        tasks.extend((0..readers).map(reader));
        Self { shared, tasks }
    }

    /// Batches that were acknowledged so far.
    pub fn acked(&self) -> usize {
        self.shared.acked.load(Relaxed)
    }

    /// Waits until so many more batches are acknowledged; returns how long that took.
    ///
    /// # Panics
    /// When they are not.
    pub async fn progress(&self, batches: usize) -> Duration {
        let (begin, wanted) = (Instant::now(), self.acked() + batches);
        let is_there = async || (self.acked() >= wanted).then_some(());
        eventually("batches are acknowledged", BATCH_TIME_MAX, is_there).await;
        begin.elapsed()
    }

    /// Ends it, each client with what it has in hand.
    ///
    /// # Panics
    /// When a client was answered what no storage node should answer.
    pub async fn finish(self) -> History {
        self.shared.is_over.store(true, Relaxed);
        let mut history = History::default();
        for task in self.tasks {
            task.await.unwrap().into_iter().for_each(|operation| history.add(operation));
        }
        history
    }
}

async fn write(number: u32, shared: Arc<Shared>, mut chance: ChaCha8Rng) -> Vec<Operation> {
    let client = Client::new();
    let mut operations = Vec::new();
    let mut batch = 0;
    while !shared.is_over.load(Relaxed) {
        let records: Vec<String> = (0..chance.random_range(1..=RECORDS_MAX))
            .map(|place| format!("{number}-{batch}-{place}"))
            .collect();
        batch += 1;
        let began = shared.begin.elapsed();
        let offset = append(&client, &shared, &records).await;
        let event = Event::Append { records, offset };
        operations.push(Operation { began, ended: shared.begin.elapsed(), event });
    }
    operations
}

/// The offset of the batch; `None` if its fate is not known in time.
async fn append(client: &Client, shared: &Shared, records: &[String]) -> Option<u64> {
    let partition = Partition::new(shared.partition);
    let id = BatchId::derive(&Tenant::default(), &format!("{:x}", nonce()), partition);
    let lines: String = records.iter().map(|record| line(record)).collect();
    let deadline = Instant::now() + BATCH_TIME_MAX;
    let mut place = shared.leader.load(Relaxed);
    while Instant::now() < deadline {
        let url = format!("{}/v1/storage?partition={partition}", shared.urls[place]);
        let request = client
            .post(&url)
            .timeout(ATTEMPT_TIME_MAX)
            .header("content-type", wire::NDJSON)
            .header(wire::BATCH_ID, id.to_string())
            .body(lines.clone());
        match answer(request).await {
            Ok(answer) if answer.status == 200 => {
                let stored: AppendAnswer = answer.json();
                assert_eq!(stored.stored as usize, records.len());
                let end = stored.offset.get() + stored.stored;
                shared.leader.store(place, Relaxed);
                shared.end.fetch_max(end, Relaxed);
                shared.acked.fetch_add(1, Relaxed);
                return Some(stored.offset.get());
            }
            Ok(answer) => {
                assert!(
                    matches!(answer.status, 421 | 429 | 503 | 507),
                    "a good batch was refused: {} {}",
                    answer.status,
                    answer.text()
                );
                place = hinted(shared, &answer).unwrap_or((place + 1) % shared.urls.len());
            }
            // It may be stored all the same: the same id again.
            Err(_) => place = (place + 1) % shared.urls.len(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

fn hinted(shared: &Shared, answer: &Answer) -> Option<usize> {
    let leader = answer.header(wire::LEADER);
    shared.urls.iter().position(|url| url == leader.trim_end_matches('/'))
}

fn line(message: &str) -> String {
    let record = EnrichedRecord {
        timestamp: 1_700_000_000_000,
        service: "event_creator".to_owned(),
        level: None,
        message: message.to_owned(),
        labels: Default::default(),
        received_at: 1_700_000_000_000,
        ingested_node_id: RECORDER.to_owned(),
        client_ip: "127.0.0.1".to_owned(),
    };
    serde_json::to_string(&record).unwrap() + "\n"
}

/// What is stored, as it stands in the history.
pub fn as_seen(stored: &[EnrichedRecord]) -> Vec<String> {
    stored.iter().cloned().map(seen).collect()
}

fn seen(record: EnrichedRecord) -> String {
    if record.ingested_node_id == RECORDER { record.message } else { format!("{FOREIGN}{}", record.message) }
}

async fn read(shared: Arc<Shared>, mut chance: ChaCha8Rng) -> Vec<Operation> {
    let client = Client::new();
    let mut operations = Vec::new();
    while !shared.is_over.load(Relaxed) {
        let place = chance.random_range(0..shared.urls.len());
        let end = shared.end.load(Relaxed);
        let from = end.saturating_sub(chance.random_range(0..READ_LIMIT / 2));
        // Those that may not miss anything are asked of anybody too: one that should not answer must not.
        let is_current = chance.random();
        let consistency = if is_current { "linearizable" } else { "stale" };
        let url = format!(
            "{}/v1/read?partition={}&offset={from}&limit={READ_LIMIT}&consistency={consistency}",
            shared.urls[place], shared.partition
        );
        let began = shared.begin.elapsed();
        let request = client.request("GET", &url).timeout(ATTEMPT_TIME_MAX).header("accept", wire::NDJSON);
        // A node that is down, or stopped, says nothing.
        if let Ok(answer) = answer(request).await
            && answer.status == 200
        {
            let records: Vec<String> = answer.ndjson::<EnrichedRecord>().into_iter().map(seen).collect();
            let is_to_end = (records.len() as u64) < READ_LIMIT;
            let event = Event::Read { from, records, is_to_end, is_current };
            operations.push(Operation { began, ended: shared.begin.elapsed(), event });
        }
        tokio::time::sleep(PAUSE).await;
    }
    operations
}
