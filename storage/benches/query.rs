//! Searches of a corpus, with indexes and without, in one run: `cargo bench -p storage --bench query -- CORPUS [DIR]`.
//!
//! `cargo xtask bench query` makes the corpus by the load generator (`--out CORPUS --seed 1 --profile rich`). What the
//! ingest adds is spliced in here, and the records are stored as the ingest would: batches of 1,000, each cut by
//! partition. Files are made below DIR, by default in the system's directory for temporary files.
//!
//! CPU time is the whole process's. A figure is the median of the runs, and the 99th percentile beside it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{BatchDigest, BatchId, EnrichedLine, Partition, PartitionCount, Tenant, ValidBatch, route};
use storage::index::{Indexer, Indexes, PartitionIndex};
use storage::log::{FsyncPolicy, LogOptions, NewBatch, PartitionLog, RealDisk};
use storage::query::{Filter, Format, HistogramQuery, Pool, Queries, Query};

const PARTITIONS: u16 = 4;
const BATCH_RECORDS: usize = 1000;
const TAIL: &str =
    ",\"received_at\":1700000000000,\"ingested_node_id\":\"ingest-1\",\"client_ip\":\"127.0.0.1\"}\n";

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(corpus) = arguments.next() else {
        println!("no corpus: see the head of storage/benches/query.rs");
        return Ok(());
    };
    let dir = match arguments.next() {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut logs = open_logs(dir.path())?;
    let sample = load(&mut logs, &corpus)?;
    let raw_bytes: u64 =
        logs.iter().flat_map(|log| log.reader().segment_extents()).map(|extent| extent.data_bytes).sum();
    println!("{} records, {} bytes in {PARTITIONS} partitions", sample.records, raw_bytes);

    println!(
        "floor, bytes read and a text looked for in them, without anything else: {:.1} CPU-ms",
        floor(dir.path())?
    );

    let bare = Bench::new(&runtime, &logs);
    let indexed = Bench::new(&runtime, &logs);
    let mut indexer = Indexer::new(indexed.indexes_of_partitions.iter().cloned(), usize::MAX);
    let (cpu, wall) = (cpu_time(), Instant::now());
    indexer.catch_up();
    println!(
        "index build: {:.3} CPU-s, {:.3} s; {} bytes in memory, {:.2} % of the records'",
        (cpu_time() - cpu).as_secs_f64(),
        wall.elapsed().as_secs_f64(),
        indexed.indexes.memory_bytes(),
        indexed.indexes.memory_bytes() as f64 * 100.0 / raw_bytes as f64,
    );
    let asked = questions(&sample);
    println!("\nactive segments, index in memory:");
    compare(&asked, &bare, &indexed, |_| {})?;

    for log in &mut logs {
        while log.maintain(u64::MAX / 2)?.more {}
    }
    let (cpu, wall) = (cpu_time(), Instant::now());
    indexer.catch_up();
    let sidecar_bytes = sidecar_bytes(dir.path())?;
    println!(
        "\nsealed: sidecars written in {:.3} CPU-s, {:.3} s; {sidecar_bytes} bytes, {:.2} % of the records'",
        (cpu_time() - cpu).as_secs_f64(),
        wall.elapsed().as_secs_f64(),
        sidecar_bytes as f64 * 100.0 / raw_bytes as f64,
    );
    println!("sealed segments, sidecars in memory:");
    compare(&asked, &bare, &indexed, |_| {})?;
    println!("\nsealed segments, sidecars read anew for each query:");
    compare(&asked, &bare, &indexed, |bench| bench.indexes.drop_cache())?;
    println!("\npeak memory: {}", peak_memory()?);
    Ok(())
}

/// What is known of the corpus, to ask for.
struct Sample {
    records: u64,
    request_id: String,
    user: String,
}

/// One node's partitions, as queries see them.
struct Bench<'r> {
    runtime: &'r tokio::runtime::Runtime,
    indexes: Indexes,
    indexes_of_partitions: Vec<Arc<PartitionIndex>>,
    queries: Queries,
}

impl<'r> Bench<'r> {
    fn new(runtime: &'r tokio::runtime::Runtime, logs: &[PartitionLog]) -> Self {
        let indexes = Indexes::new(64 << 20);
        let indexes_of_partitions: Vec<Arc<PartitionIndex>> =
            logs.iter().map(|log| indexes.partition(log.reader(), log.sidecars())).collect();
        let queries = Queries::new(indexes_of_partitions.iter().cloned(), Pool::new(4));
        Self { runtime, indexes, indexes_of_partitions, queries }
    }

    /// Asks, and tells how much was found and what had to be read.
    fn ask(&self, question: &Question) -> Result<(u64, u64), Failure> {
        let answer = match &question.asked {
            Asked::Records(query) => {
                let answer = self.runtime.block_on(self.queries.search(query.clone(), Format::Ndjson))?;
                (answer.records as u64, answer.stats.scanned_bytes)
            }
            Asked::Services => {
                let answer = self.runtime.block_on(self.queries.services(Filter::default()))?;
                let errors = answer.counts.iter().filter_map(|service| service.levels.get("ERROR"));
                (errors.sum(), answer.stats.scanned_bytes)
            }
            Asked::Histogram(query) => {
                let buckets = query.buckets(self.queries.extent(&query.filter))?;
                let answer = self.runtime.block_on(self.queries.histogram(query.filter.clone(), buckets))?;
                (answer.counts.total, answer.stats.scanned_bytes)
            }
        };
        Ok(answer)
    }
}

struct Question {
    name: &'static str,
    target_ms: f64,
    asked: Asked,
}

enum Asked {
    Records(Query),
    Services,
    Histogram(HistogramQuery),
}

#[expect(clippy::panic, reason = "the bench's own questions are well formed, or it is of no use")]
fn questions(sample: &Sample) -> Vec<Question> {
    let records = |name, target_ms, parameters: &[(&str, &str)]| Question {
        name,
        target_ms,
        asked: Asked::Records(
            Query::parse(parameters.iter().copied(), 0).unwrap_or_else(|error| panic!("{error}")),
        ),
    };
    let histogram = |name, target_ms, parameters: &[(&str, &str)]| Question {
        name,
        target_ms,
        asked: Asked::Histogram(
            HistogramQuery::parse(parameters.iter().copied(), 0).unwrap_or_else(|error| panic!("{error}")),
        ),
    };
    let id = &sample.request_id;
    let user = &sample.user;
    let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default();
    vec![
        records("rare word", 0.5, &[("word", id)]),
        records("rare word, as a substring", 0.5, &[("contains", id)]),
        records("rare substring, 10 within an id", 15.0, &[("contains", part(3, 13))]),
        records("rare substring, 6 within an id", 15.0, &[("contains", part(5, 11))]),
        records("rare substring, any case", 15.0, &[("icontains", &part(3, 13).to_uppercase())]),
        records(
            "beginning of an id: request_id=xxxxxx",
            15.0,
            &[("contains", &format!("request_id={}", part(0, 6)))],
        ),
        records(
            "beginning of a number: user=dddd",
            15.0,
            &[("contains", &format!("user={}", user.get(..4).unwrap_or(user)))],
        ),
        records("word user=ddddd, newest 100", 15.0, &[("word", &format!("user={user}"))]),
        records("common word, newest 100", 2.0, &[("contains", "user")]),
        records("newest 100", 1.0, &[]),
        records("newest 100 of a service", 1.0, &[("service", "auth_service")]),
        records("newest 100 errors of a service", 1.0, &[("service", "auth_service"), ("level", "error")]),
        records("newest 100 without a word", 2.0, &[("not_contains", "user")]),
        records("label, newest 100", 2.0, &[("label.auth_method", "oauth")]),
        Question { name: "count per service of one level", target_ms: 5.0, asked: Asked::Services },
        histogram("histogram of all", 10.0, &[]),
        histogram("histogram of a rare word", 10.0, &[("word", id)]),
        records(
            "regex with a literal",
            15.0,
            &[("regex", &format!(r"request_id={}[0-9a-f]+ duration_ms=\d+$", part(0, 6)))],
        ),
        records(
            "regex with a short literal",
            15.0,
            &[(
                "regex",
                &format!(r"user={}\d request_id=[0-9a-f]{{4}}[a-f]{{8}}", user.get(..4).unwrap_or(user)),
            )],
        ),
        records("regex without a literal", 150.0, &[("regex", "[a-f]{13}")]),
    ]
}

/// Measures each question on both, and prints a line for each.
fn compare(
    asked: &[Question],
    bare: &Bench<'_>,
    indexed: &Bench<'_>,
    before: impl Fn(&Bench<'_>),
) -> Result<(), Failure> {
    println!(
        "{:<40} {:>9} {:>8} {:>8} {:>8} {:>8} {:>10} {:>9} {:>9}",
        "", "target", "CPU ms", "p99", "ms", "p99", "read bytes", "naive CPU", "naive ms"
    );
    for question in asked {
        let fast = measure(indexed, question, 200, &before)?;
        let slow = measure(bare, question, 5, |_| {})?;
        if fast.found != slow.found {
            return Err(format!(
                "{}: {} found with an index, {} without",
                question.name, fast.found, slow.found
            )
            .into());
        }
        println!(
            "{:<40} {:>9.1} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>10} {:>9.1} {:>9.1}{}",
            question.name,
            question.target_ms,
            fast.cpu_ms.0,
            fast.cpu_ms.1,
            fast.wall_ms.0,
            fast.wall_ms.1,
            fast.scanned_bytes,
            slow.cpu_ms.0,
            slow.wall_ms.0,
            if fast.cpu_ms.0 > question.target_ms { "  MISSED" } else { "" }
        );
    }
    Ok(())
}

struct Measured {
    found: u64,
    scanned_bytes: u64,
    /// Median and 99th percentile.
    cpu_ms: (f64, f64),
    wall_ms: (f64, f64),
}

fn measure(
    bench: &Bench<'_>,
    question: &Question,
    runs: usize,
    before: impl Fn(&Bench<'_>),
) -> Result<Measured, Failure> {
    let (mut cpu, mut wall) = (Vec::new(), Vec::new());
    let (mut found, mut scanned_bytes) = (0, 0);
    let begun = Instant::now();
    for run in 0..=runs {
        before(bench);
        let (cpu_before, started) = (cpu_time(), Instant::now());
        (found, scanned_bytes) = bench.ask(question)?;
        let took = (cpu_time() - cpu_before, started.elapsed());
        // The first run warms up.
        if run > 0 {
            cpu.push(took.0);
            wall.push(took.1);
        }
        if run > 2 && begun.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    Ok(Measured { found, scanned_bytes, cpu_ms: median_and_p99(cpu), wall_ms: median_and_p99(wall) })
}

fn median_and_p99(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    (ms(at(50)), ms(at(99)))
}

fn open_logs(dir: &Path) -> Result<Vec<PartitionLog>, Failure> {
    let options = LogOptions { fsync: FsyncPolicy::Never, compress_age: None, ..LogOptions::default() };
    let open = |number: u16| {
        let partition = Partition::new(number);
        let dir = storage::log::partition_dir(dir, partition);
        Ok(PartitionLog::open(Arc::new(RealDisk), &dir, partition, options.clone(), 0)?.0)
    };
    (0..PARTITIONS).map(open).collect()
}

/// Stores the corpus.
fn load(logs: &mut [PartitionLog], corpus: &str) -> Result<Sample, Failure> {
    let count = PartitionCount::new(PARTITIONS).ok_or("no partitions")?;
    let mut pending: Vec<Vec<u8>> = vec![Vec::new(); logs.len()];
    let (mut records, mut batches) = (0_u64, 0_u64);
    let mut sample = Sample { records: 0, request_id: String::new(), user: String::new() };
    let mut lines = BufReader::with_capacity(1 << 20, File::open(corpus)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let is_end = lines.read_until(b'\n', &mut line)? == 0;
        if records.is_multiple_of(BATCH_RECORDS as u64) || is_end {
            for (log, pending) in logs.iter_mut().zip(&mut pending) {
                batches += 1;
                store(log, std::mem::take(pending), batches)?;
            }
        }
        if is_end {
            break;
        }
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'}')) {
            let is_brace = line.pop() == Some(b'}');
            // A record with labels ends with two braces, one of which is the labels'.
            if is_brace {
                break;
            }
        }
        line.extend_from_slice(TAIL.as_bytes());
        let parsed = EnrichedLine::parse(line.strip_suffix(b"\n").unwrap_or(&line))?;
        let partition = route::partition_of(&Tenant::default(), parsed.service.raw().as_bytes(), count);
        if records >= 500_000 && sample.request_id.is_empty() {
            sample_of(parsed.message.raw(), &mut sample);
        }
        if let Some(pending) = pending.get_mut(usize::from(partition.get())) {
            pending.extend_from_slice(&line);
        }
        records += 1;
    }
    sample.records = records;
    Ok(sample)
}

/// The id and the user that a message of the rich profile has.
fn sample_of(message: &str, sample: &mut Sample) {
    let field =
        |name: &str| Some(message.split_once(name)?.1.split(' ').next().unwrap_or_default().to_owned());
    if let (Some(id), Some(user)) = (field("request_id="), field("user=")) {
        (sample.request_id, sample.user) = (id, user);
    }
}

fn store(log: &mut PartitionLog, lines: Vec<u8>, number: u64) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    log.append(&[NewBatch {
        digest: BatchDigest::of(&lines),
        batch: ValidBatch::from_ndjson(Bytes::from(lines))?,
        id: BatchId::derive(&Tenant::default(), &number.to_string(), Partition::new(0)),
        appended_at_ms: 0,
        term: 0,
        log_index: 0,
    }])?;
    let end = log.sync()?;
    log.publish(end);
    Ok(())
}

/// The least that a search without an index can take: every byte copied once and looked at once.
fn floor(dir: &Path) -> Result<f64, Failure> {
    let mut buffer = vec![0; 64 << 10];
    let finder = memchr::memmem::Finder::new("not in any message");
    let (mut found, mut times) = (0, Vec::new());
    for _ in 0..5 {
        let cpu = cpu_time();
        for partition in std::fs::read_dir(dir)? {
            for file in std::fs::read_dir(partition?.path())? {
                let path = file?.path();
                if path.extension().is_some_and(|extension| extension == "jsonl") {
                    let mut file = File::open(path)?;
                    loop {
                        let count = std::io::Read::read(&mut file, &mut buffer)?;
                        found += usize::from(finder.find(buffer.get(..count).unwrap_or_default()).is_some());
                        if count == 0 {
                            break;
                        }
                    }
                }
            }
        }
        times.push(cpu_time() - cpu);
    }
    if found > 0 {
        return Err("the text is in the corpus".into());
    }
    Ok(median_and_p99(times).0)
}

fn sidecar_bytes(dir: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for partition in std::fs::read_dir(dir)? {
        for file in std::fs::read_dir(partition?.path())? {
            let file = file?;
            if file
                .path()
                .extension()
                .is_some_and(|extension| extension == "filter" || extension == "columns")
            {
                bytes += file.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn peak_memory() -> Result<String, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or("unknown").trim().to_owned())
}
