//! A run from its first batch to its report: puts the parts together.
//!
//! One task makes the batches in order and paces them, a bounded queue hands them to the connections, and this
//! module collects the outcomes: nothing is shared between tasks but the two queues and the stop signal.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::ctrl_c;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::compare::Comparison;
use crate::corpus::{Batch, Corpus, CorpusSpec};
use crate::ledger::Ledger;
use crate::pacer::Pacer;
use crate::report::{RecordCounts, Report, Verified};
use crate::sender::{BatchKeys, Outcome, SendPlan, run_connection};
use crate::stats::{Stats, per_second};
use crate::verify::StorageReader;

/// The bytes after which a corpus file is written to.
const OUT_CHUNK_BYTES: usize = 1 << 18;

/// Sends the corpus of `spec` as `args` say, verifies it if they do, and reports.
///
/// # Errors
/// The run could not be tried: with `--verify`, a storage node did not answer before it.
pub(crate) async fn run(args: &Args, spec: CorpusSpec, keys: BatchKeys) -> anyhow::Result<Report> {
    let storage = match args.verify {
        true => Some(StorageReader::open(&args.storage, args.timeout()).await.context("before the run")?),
        false => None,
    };
    let sent = send(args, spec, keys).await?;
    let verified = match (storage, &sent.ledger) {
        (Some(storage), Some(ledger)) => Some(verify(args, spec, storage, ledger).await),
        _ => None,
    };
    Ok(report(args, spec, sent, verified))
}

/// Writes the corpus of `spec` as NDJSON to the file at `path`, or to standard output for `-`; how many records.
///
/// # Errors
/// The file cannot be written. A reader of standard output that has read enough is none.
pub(crate) fn write_corpus(spec: CorpusSpec, path: &Path) -> anyhow::Result<u64> {
    let written = if path == Path::new("-") {
        write_lines(spec, io::stdout().lock())
    } else {
        std::fs::File::create(path).and_then(|file| write_lines(spec, file))
    };
    written.with_context(|| format!("writing {}", path.display()))
}

fn write_lines(spec: CorpusSpec, mut out: impl Write) -> io::Result<u64> {
    let mut corpus = Corpus::new(spec);
    let mut chunk = Vec::with_capacity(OUT_CHUNK_BYTES + 4096);
    let (mut written, mut in_chunk) = (0, 0);
    loop {
        let has_more = corpus.write_next(&mut chunk);
        if has_more {
            chunk.push(b'\n');
            in_chunk += 1;
        }
        if !has_more || chunk.len() >= OUT_CHUNK_BYTES {
            match out.write_all(&chunk).and_then(|()| out.flush()) {
                Ok(()) => written += in_chunk,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(written),
                Err(error) => return Err(error),
            }
            chunk.clear();
            in_chunk = 0;
        }
        if !has_more {
            return Ok(written);
        }
    }
}

/// What sending came to.
struct Sent {
    stats: Stats,
    /// Only kept for `--verify`.
    ledger: Option<Ledger>,
    elapsed: Duration,
    is_interrupted: bool,
}

async fn send(args: &Args, spec: CorpusSpec, keys: BatchKeys) -> anyhow::Result<Sent> {
    let mut stats = Stats::new()?;
    let mut ledger = args.verify.then(|| Ledger::new(spec.record_count, args.batch));
    let progress = progress_bar(spec.record_count);
    let stop = CancellationToken::new();
    let started = Instant::now();
    let (mut tasks, mut outcomes) = start(args, spec, keys, &stop);

    let mut interrupt = pin!(ctrl_c());
    loop {
        tokio::select! {
            outcome = outcomes.recv() => {
                let Some(outcome) = outcome else { break };
                progress.inc(u64::from(outcome.record_count));
                if let Some(ledger) = &mut ledger {
                    ledger.enter(&outcome);
                }
                stats.add(&outcome);
            }
            interrupted = &mut interrupt, if !stop.is_cancelled() => {
                interrupted.context("listening for Ctrl-C")?;
                stop.cancel();
            }
        }
    }
    let elapsed = started.elapsed();
    progress.finish_and_clear();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the run")?;
    }
    if stats.records_sent != spec.record_count && !stop.is_cancelled() {
        bail!("only {} of {} records were tried", stats.records_sent, spec.record_count);
    }
    Ok(Sent { stats, ledger, elapsed, is_interrupted: stop.is_cancelled() })
}

/// Starts the task that makes the batches, and the connections; what becomes of each batch comes by the queue.
fn start(
    args: &Args,
    spec: CorpusSpec,
    keys: BatchKeys,
    stop: &CancellationToken,
) -> (JoinSet<()>, mpsc::Receiver<Outcome>) {
    let plan = Arc::new(SendPlan {
        target: args.url.clone(),
        format: args.body_format(),
        minimal: args.minimal,
        timeout: args.timeout(),
        retries_max: args.retries,
        delay: args.delay(),
        keys,
    });
    let connections = usize::from(args.connections);
    // One batch ahead for every connection: none waits for its next one to be made.
    let (batch_sender, batches) = mpsc::channel(connections);
    let (outcome_sender, outcomes) = mpsc::channel(connections);
    let queue = Arc::new(Mutex::new(batches));

    let mut tasks = JoinSet::new();
    let all = Corpus::new(spec).into_batches(args.batch, plan.format);
    let pacer = args.rate.map(|rate| Pacer::new(rate, Instant::now()));
    tasks.spawn(make_batches(all, pacer, batch_sender, stop.clone()));
    for _ in 0..connections {
        let (queue, outcomes) = (Arc::clone(&queue), outcome_sender.clone());
        tasks.spawn(run_connection(Arc::clone(&plan), queue, outcomes, stop.clone()));
    }
    (tasks, outcomes)
}

async fn make_batches(
    batches: impl Iterator<Item = Batch>,
    mut pacer: Option<Pacer>,
    queue: mpsc::Sender<Batch>,
    stop: CancellationToken,
) {
    for batch in batches {
        if let Some(pacer) = &mut pacer {
            let due = pacer.schedule(batch.record_count, Instant::now());
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = stop.cancelled() => return,
            }
        }
        tokio::select! {
            sent = queue.send(batch) => if sent.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

async fn verify(args: &Args, spec: CorpusSpec, mut storage: StorageReader, ledger: &Ledger) -> Verified {
    let record_count = usize::try_from(spec.record_count).unwrap_or(usize::MAX);
    // Only one connection sends one batch after another.
    let mut comparison = Comparison::new(record_count, args.connections == 1);
    let mut corpus = Corpus::new(spec);
    let mut text = Vec::new();
    for fate in ledger.fates() {
        if corpus.write_next(&mut text) {
            comparison.expect(&text, fate);
        }
        text.clear();
    }
    let read = tokio::select! {
        read = storage.read_all(&mut comparison, args.settle()) => read,
        // Whether a signal came or cannot be waited for, the comparison is not whole.
        _ = ctrl_c() => return Verified::Interrupted,
    };
    match read {
        Ok(()) => {
            let mut again = Corpus::new(spec);
            Verified::Compared(comparison.finish(|text| again.write_next(text)))
        }
        Err(error) => Verified::Unreadable { error: error.to_string() },
    }
}

fn report(args: &Args, spec: CorpusSpec, sent: Sent, verify: Option<Verified>) -> Report {
    let Sent { stats, elapsed, is_interrupted, .. } = sent;
    let interrupted = is_interrupted || matches!(verify, Some(Verified::Interrupted));
    let all_acked = stats.records_acked == spec.record_count;
    Report {
        ok: all_acked && !interrupted && verify.as_ref().is_none_or(Verified::is_ok),
        interrupted,
        seed: spec.seed,
        start_timestamp_ms: spec.start_timestamp_ms,
        profile: spec.profile,
        services: spec.services,
        connections: args.connections,
        batch_records: args.batch,
        records: RecordCounts {
            total: spec.record_count,
            sent: stats.records_sent,
            acked: stats.records_acked,
            rejected: stats.records_rejected,
            failed: stats.records_failed,
        },
        batches: stats.batches_sent,
        retries: stats.retries,
        seconds: elapsed.as_secs_f64(),
        records_per_second: per_second(stats.records_acked as f64, elapsed),
        megabytes_per_second: per_second(stats.body_bytes_acked as f64 / 1e6, elapsed),
        latency_ms: stats.latencies(),
        answers: stats.answers,
        durability: stats.durability,
        unanswered: stats.unanswered,
        failures: stats.failures,
        verify,
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(record_count: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:40} {human_pos}/{human_len} records, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(record_count).with_style(style)
}
