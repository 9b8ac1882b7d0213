//! `cargo xtask bench storage`: one node as a whole process, then the log engine's own benchmarks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use super::disk_usage::DiskUsage;
use super::figures::{Figure, megabytes, per_million, two_decimals, whole};
use super::floor::{self, Floor};
use super::parts::{self, Part, Usage};
use super::post::{self, Posted, Posts};
use super::{bodies, figures};
use crate::cargo::{self, Profile, Programs};
use crate::table::{Table, grouped};

/// Records of a large batch.
const BATCH_RECORDS: u64 = 1000;
/// Different bodies, which are sent in turn.
const BODIES: u64 = 50;
/// How the large batches are sent.
const RUNS: [Run; 3] = [
    Run { connections: 1, flags: &[], what: "" },
    Run { connections: 8, flags: &[], what: "" },
    Run { connections: 8, flags: &["--index-memory", "1", "--segment-bytes", "1TiB"], what: ", not indexed" },
];
/// Small batches under way at once.
const SMALL_AT_ONCE: usize = 256;
/// Small batches one at a time, and in all when many are under way.
const SMALL_BATCHES: [u64; 2] = [2_000, 50_000];
/// What a segment holds that has to be recovered.
const RECOVERY_BYTES: u64 = 256 << 20;
/// A segment that is never sealed for its size.
const ONE_SEGMENT: [&str; 2] = ["--segment-bytes", "1TiB"];

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct StorageArguments {
    /// Records of each run of large batches
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    records: u64,
    /// Runs of each, taking turns; shown are the median and the best
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print the result as JSON; leaves out the log engine's own benchmarks
    #[arg(long)]
    json: bool,
    /// Leave out the log engine's own benchmarks (`cargo bench -p storage`)
    #[arg(long)]
    no_parts: bool,
}

/// Measures, and prints tables or JSON.
///
/// # Errors
/// Something does not compile, a node died, or records were lost.
pub(crate) fn run(arguments: &StorageArguments) -> anyhow::Result<()> {
    let programs = Programs::build(&["storage", "loadgen"], Profile::Release)?;
    let dir = parts::empty_dir("storage")?;
    let loadgen = programs.path("loadgen")?;
    let large = bodies::make(loadgen, &dir, BATCH_RECORDS, BODIES)?;
    let small = bodies::make(loadgen, &dir, 1, BODIES)?;
    let rig = Rig { programs: &programs, dir: &dir, large: &large, small: &small };
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        eprintln!("Round {number}");
        rounds.push(rig.round(arguments.records / BATCH_RECORDS)?);
    }
    std::fs::remove_dir_all(&dir)?;
    if arguments.json {
        println!("{:#}", to_json(&rounds));
        return Ok(());
    }
    print(&rounds);
    if arguments.no_parts {
        return Ok(());
    }
    println!("The log engine's own benchmarks (`cargo bench -p storage`):\n");
    let dir = parts::empty_dir("log")?;
    let status = cargo::command(["bench", "-p", "storage", "--bench", "log", "--"]).arg(&dir).status()?;
    ensure!(status.success(), "`cargo bench -p storage` failed");
    Ok(())
}

/// How large batches are sent, and to what node.
struct Run {
    connections: usize,
    /// The node's flags: without memory for it, nothing is indexed until a segment is sealed.
    flags: &'static [&'static str],
    what: &'static str,
}

/// What one round has shown.
struct Round {
    floor: Floor,
    records: u64,
    /// As many as [`RUNS`].
    large: Vec<Measured>,
    /// Acknowledgements a second, one at a time and many at once.
    acks_per_second: [f64; 2],
    small_peak_bytes: u64,
    recovery: Recovery,
}

/// What a node did.
struct Measured {
    posted: Posted,
    usage: Usage,
}

/// How long a node took from its start to its first accept, and what it had to look at.
#[derive(Clone, Copy)]
struct Recovery {
    took: Duration,
    bytes: u64,
    peak_bytes: u64,
}

impl Round {
    /// The speed with this many connections, of the bare loop's.
    fn of_floor(&self, place: usize) -> f64 {
        let speed = |bytes: u64, wall: Duration| bytes as f64 / wall.as_secs_f64();
        let node = self.large.get(place).map_or(f64::NAN, |m| speed(m.posted.bytes, m.posted.wall));
        node / speed(self.floor.bytes, self.floor.wall)
    }

    fn acks_ratio(&self) -> f64 {
        let [single, together] = self.acks_per_second;
        together / single
    }
}

/// What is run, and what is sent.
struct Rig<'a> {
    programs: &'a Programs,
    dir: &'a Path,
    large: &'a [Vec<u8>],
    small: &'a [Vec<u8>],
}

impl Rig<'_> {
    fn round(&self, batches: u64) -> anyhow::Result<Round> {
        let floor = floor::append_and_sync(self.dir, self.large, batches)?;
        let large = RUNS.iter().map(|run| self.large_batches(batches, run));
        let large = large.collect::<anyhow::Result<Vec<_>>>()?;
        let (acks_per_second, small_peak_bytes) = self.group_commit()?;
        let recovery = self.recovery()?;
        Ok(Round {
            floor,
            records: batches * BATCH_RECORDS,
            large,
            acks_per_second,
            small_peak_bytes,
            recovery,
        })
    }

    fn node(&self, more: &[&str]) -> anyhow::Result<Part> {
        Part::storage(self.programs, self.dir, "node", &[0], more)
    }

    fn remove_data(&self) -> std::io::Result<()> {
        std::fs::remove_dir_all(self.dir.join("node"))
    }

    fn large_batches(&self, batches: u64, run: &Run) -> anyhow::Result<Measured> {
        let mut node = self.node(run.flags)?;
        let connections = run.connections;
        let posts = Posts { node: node.address, bodies: self.large, batches, first_batch: 0, connections };
        let posted = post::large(posts).map_err(|error| error.context(node.log_tail()))?;
        let usage = node.usage_at_rest()?;
        node.stop()?;
        let disk = DiskUsage::of(&self.dir.join("node"))?;
        let (expected, records) = (batches * BATCH_RECORDS, disk.records);
        ensure!(records == expected, "{expected} records were acknowledged, but {records} lie on the disk");
        self.remove_data()?;
        Ok(Measured { posted, usage })
    }

    fn group_commit(&self) -> anyhow::Result<([f64; 2], u64)> {
        let mut node = self.node(&[])?;
        let mut first_batch = 0;
        let mut measure = |connections: usize, batches: u64| -> anyhow::Result<f64> {
            let posts = Posts { node: node.address, bodies: self.small, batches, first_batch, connections };
            first_batch += batches;
            let posted = post::small(posts).map_err(|error| error.context(node.log_tail()))?;
            Ok(batches as f64 / posted.wall.as_secs_f64())
        };
        let [single, together] = SMALL_BATCHES;
        let acks_per_second = [measure(1, single)?, measure(SMALL_AT_ONCE, together)?];
        let usage = node.usage()?;
        node.stop()?;
        let records = DiskUsage::of(&self.dir.join("node"))?.records;
        ensure!(
            records == first_batch,
            "{first_batch} records were acknowledged, but {records} lie on the disk"
        );
        self.remove_data()?;
        Ok((acks_per_second, usage.peak_bytes))
    }

    /// Fills a segment, kills the node, and starts it again.
    fn recovery(&self) -> anyhow::Result<Recovery> {
        let body_bytes = self.large.first().map_or(1, Vec::len) as u64;
        let node = self.node(&ONE_SEGMENT)?;
        let batches = RECOVERY_BYTES.div_ceil(body_bytes);
        let posts = Posts { node: node.address, bodies: self.large, batches, first_batch: 0, connections: 8 };
        let posted = post::large(posts).map_err(|error| error.context(node.log_tail()))?;
        node.kill()?;
        let started = Instant::now();
        let mut node = self.node(&ONE_SEGMENT)?;
        let took = node.ready_at.duration_since(started);
        let usage = node.usage()?;
        node.stop()?;
        let records = DiskUsage::of(&self.dir.join("node"))?.records;
        ensure!(records == batches * BATCH_RECORDS, "records were lost with the kill: {records} are left");
        self.remove_data()?;
        Ok(Recovery { took, bytes: posted.bytes, peak_bytes: usage.peak_bytes })
    }
}

/// The figures of the large batches, of one number of connections.
struct LargeFigures {
    records_per_second: Figure,
    bytes_per_second: Figure,
    of_floor: Figure,
    cpu: Figure,
    peak_bytes: Figure,
}

impl LargeFigures {
    fn of(rounds: &[Round], place: usize) -> Self {
        let figure = |part: &dyn Fn(&Round, &Measured) -> f64| {
            Figure::of(rounds, |round| {
                round.large.get(place).map_or(f64::NAN, |measured| part(round, measured))
            })
        };
        Self {
            records_per_second: figure(&|r, m| r.records as f64 / m.posted.wall.as_secs_f64()),
            bytes_per_second: figure(&|_, m| m.posted.bytes as f64 / m.posted.wall.as_secs_f64()),
            of_floor: figure(&|r, _| r.of_floor(place)),
            cpu: figure(&|r, m| per_million(m.usage.cpu, r.records)),
            peak_bytes: figure(&|_, m| m.usage.peak_bytes as f64),
        }
    }

    /// The bare loop's, for comparison.
    fn of_floor(rounds: &[Round]) -> Self {
        Self {
            records_per_second: Figure::of(rounds, |r| r.records as f64 / r.floor.wall.as_secs_f64()),
            bytes_per_second: Figure::of(rounds, |r| r.floor.bytes as f64 / r.floor.wall.as_secs_f64()),
            of_floor: Figure::of(rounds, |_| 1.0),
            cpu: Figure::of(rounds, |r| per_million(r.floor.cpu, r.records)),
            peak_bytes: Figure::default(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "records_per_second": self.records_per_second.to_json(),
            "bytes_per_second": self.bytes_per_second.to_json(),
            "of_bare_loop": self.of_floor.to_json(),
            "cpu_seconds_per_million": self.cpu.to_json(),
            "peak_bytes": self.peak_bytes.to_json(),
        })
    }
}

fn print(rounds: &[Round]) {
    let records = rounds.first().map_or(0, |round| round.records);
    println!("One storage node, one partition, fsync before each answer");
    if rounds.len() > 1 {
        println!("{} rounds: the median, and the best in parentheses", rounds.len());
    }
    println!("\nNDJSON batches of {}, {} records\n", grouped(BATCH_RECORDS), grouped(records));
    let mut table =
        Table::new(["", "records/s", "MB/s", "of the bare loop", "CPU-s per 1M records", "peak MB"]);
    let mut row = |name: String, figures: &LargeFigures| {
        let peak = &figures.peak_bytes;
        table.row([
            name,
            figures.records_per_second.speed(whole),
            figures.bytes_per_second.speed(megabytes),
            figures.of_floor.speed(figures::percent),
            figures.cpu.cost(two_decimals),
            if peak.median().is_nan() { "-".to_owned() } else { peak.cost(megabytes) },
        ]);
    };
    row("bare loop".to_owned(), &LargeFigures::of_floor(rounds));
    for (place, Run { connections, what, .. }) in RUNS.iter().enumerate() {
        let plural = if *connections == 1 { "" } else { "s" };
        row(format!("{connections} connection{plural}{what}"), &LargeFigures::of(rounds, place));
    }
    println!("{table}");
    let [single, together] = acks(rounds);
    let mut table = Table::new(["batches of one record", "acks/s"]);
    table.row(["one at a time".to_owned(), single.speed(whole)]);
    table.row([format!("{SMALL_AT_ONCE} at once"), together.speed(whole)]);
    table.row([
        "ratio".to_owned(),
        Figure::of(rounds, Round::acks_ratio).speed(|ratio| format!("{ratio:.1}")),
    ]);
    table.row(["peak MB".to_owned(), Figure::of(rounds, |r| r.small_peak_bytes as f64).cost(megabytes)]);
    println!("{table}");
    let mut table = Table::new([format!("after kill -9, {} MiB", RECOVERY_BYTES >> 20).as_str(), ""]);
    table.row(["start to ready, ms".to_owned(), recovery_ms(rounds).cost(whole)]);
    table.row(["MB/s".to_owned(), recovery_speed(rounds).speed(megabytes)]);
    table.row(["peak MB".to_owned(), Figure::of(rounds, |r| r.recovery.peak_bytes as f64).cost(megabytes)]);
    println!("{table}");
}

fn acks(rounds: &[Round]) -> [Figure; 2] {
    let single = Figure::of(rounds, |round| round.acks_per_second[0]);
    [single, Figure::of(rounds, |round| round.acks_per_second[1])]
}

fn recovery_ms(rounds: &[Round]) -> Figure {
    Figure::of(rounds, |round| round.recovery.took.as_secs_f64() * 1e3)
}

fn recovery_speed(rounds: &[Round]) -> Figure {
    Figure::of(rounds, |round| round.recovery.bytes as f64 / round.recovery.took.as_secs_f64())
}

fn to_json(rounds: &[Round]) -> Value {
    let large = RUNS.iter().enumerate().map(|(place, Run { connections, flags, .. })| {
        let figures = LargeFigures::of(rounds, place).to_json();
        json!({ "connections": connections, "flags": flags, "figures": figures })
    });
    let [single, together] = acks(rounds);
    json!({
        "benchmark": "storage",
        "records": rounds.first().map(|round| round.records),
        "rounds": rounds.len(),
        "bare_loop": LargeFigures::of_floor(rounds).to_json(),
        "large_batches": large.collect::<Vec<_>>(),
        "small_batches": {
            "acks_per_second_one_at_a_time": single.to_json(),
            "acks_per_second_together": together.to_json(),
            "at_once": SMALL_AT_ONCE,
            "ratio": Figure::of(rounds, Round::acks_ratio).to_json(),
            "peak_bytes": Figure::of(rounds, |round| round.small_peak_bytes as f64).to_json(),
        },
        "recovery": {
            "ms": recovery_ms(rounds).to_json(),
            "bytes_per_second": recovery_speed(rounds).to_json(),
            "peak_bytes": Figure::of(rounds, |round| round.recovery.peak_bytes as f64).to_json(),
        },
    })
}
