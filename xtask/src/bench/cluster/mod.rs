//! `cargo xtask bench cluster`: three storage nodes on this machine, each with a copy of every partition.
//!
//! Invariant: every acknowledged record lies on every node's disk before a figure is shown.

mod measures;
mod replicas;

use std::time::Duration;

use serde_json::{Value, json};

use super::figures::{Figure, megabytes, per_million, two_decimals, whole};
use super::parts;
use crate::cargo::{Profile, Programs};
use crate::table::{Table, grouped};
use measures::{BATCH_RECORDS, Cost, IDLE_PARTITIONS, Refill, Rig};
use replicas::NODES;

/// What a quorum may cost at most, of what as many single copies cost.
const QUORUM_COST_TARGET: f64 = 1.2;
/// How long it may take after a leader's end until a batch is acknowledged again.
const FAILOVER_P99_TARGET_MS: f64 = 3000.0;
/// How fast a copy is made anew, bytes a second.
const REFILL_TARGET: f64 = 200e6;
/// What a node that has nothing to do may use of a core.
const IDLE_TARGET: f64 = 0.03;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArguments {
    /// Records of each run of batches
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    records: u64,
    /// Runs with one copy and with a quorum, taking turns, and refills; shown are the median and the best
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Leaders that are killed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    failovers: u32,
    /// What is kept of a log when a copy of it is made anew, MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(128..=16_384))]
    refill_mib: u64,
    /// How long nodes are looked at that have nothing to do, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    idle_seconds: u64,
    /// Measure these alone
    #[arg(
        long,
        value_name = "WHAT,WHAT",
        value_delimiter = ',',
        default_value = "cost,failover,refill,idle"
    )]
    only: Vec<What>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Take the programs of a debug build: to try the benchmark, not to measure
    #[arg(long)]
    debug: bool,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The CPU time of a quorum, against one copy
    Cost,
    /// How long nothing is acknowledged after a leader's end
    Failover,
    /// How fast a copy is made anew
    Refill,
    /// What nodes use that have nothing to do
    Idle,
}

/// All that was measured.
#[derive(Default)]
struct Measured {
    /// One copy, and a quorum.
    costs: Vec<[Cost; 2]>,
    failovers: Vec<Duration>,
    refills: Vec<Refill>,
    /// Of a core, each node's.
    idle: Vec<f64>,
}

/// Measures, and prints a table or JSON.
///
/// # Errors
/// Something does not compile, a node died that was not killed, or records were lost.
pub(crate) fn run(arguments: &ClusterArguments) -> anyhow::Result<()> {
    let profile = if arguments.debug { Profile::Dev } else { Profile::Release };
    let programs = Programs::build(&["storage", "loadgen"], profile)?;
    let dir = parts::empty_dir("cluster")?;
    let rig = Rig::new(&programs, &dir)?;
    let is_wanted = |what| arguments.only.contains(&what);
    let batches = arguments.records / BATCH_RECORDS;
    let mut measured = Measured::default();
    for number in 1..=arguments.rounds {
        if is_wanted(What::Cost) {
            eprintln!("Round {number}: one copy, then {NODES}");
            measured.costs.push([rig.one_copy(batches)?, rig.quorum(batches)?]);
        }
        if is_wanted(What::Refill) {
            eprintln!("Round {number}: refilling a node");
            measured.refills.push(rig.refill(arguments.refill_mib)?);
        }
    }
    if is_wanted(What::Failover) {
        eprintln!("Killing {} leaders", arguments.failovers);
        measured.failovers = rig.failovers(arguments.failovers)?;
    }
    if is_wanted(What::Idle) {
        eprintln!("Looking at idle nodes for {} s", arguments.idle_seconds);
        measured.idle = rig.idle(Duration::from_secs(arguments.idle_seconds))?;
    }
    std::fs::remove_dir_all(&dir)?;
    let figures = Figures::of(arguments, &measured);
    if arguments.json {
        println!("{:#}", figures.to_json(arguments));
    } else {
        figures.print(arguments);
    }
    Ok(())
}

/// The figures.
struct Figures {
    single_cpu: Figure,
    quorum_cpu: Figure,
    /// A quorum's CPU time, of as many single copies'.
    cost: Figure,
    single_speed: Figure,
    quorum_speed: Figure,
    peak_bytes: Figure,
    failover_ms: Figure,
    refill_speed: Figure,
    refill_all_ms: Figure,
    refill_bare_loop: Figure,
    refills_are_of_segments: bool,
    idle: Figure,
}

impl Figures {
    fn of(arguments: &ClusterArguments, measured: &Measured) -> Self {
        let records = arguments.records / BATCH_RECORDS * BATCH_RECORDS;
        let Measured { costs, failovers, refills, idle } = measured;
        let cpu = |cost: &Cost| per_million(cost.cpu, records);
        let speed = |cost: &Cost| records as f64 / cost.wall.as_secs_f64();
        let bytes_a_second = |refill: &Refill, time: Duration| refill.bytes as f64 / time.as_secs_f64();
        Self {
            single_cpu: Figure::of(costs, |[single, _]| cpu(single)),
            quorum_cpu: Figure::of(costs, |[_, quorum]| cpu(quorum)),
            cost: Figure::of(costs, |[single, quorum]| cpu(quorum) / (NODES as f64 * cpu(single))),
            single_speed: Figure::of(costs, |[single, _]| speed(single)),
            quorum_speed: Figure::of(costs, |[_, quorum]| speed(quorum)),
            peak_bytes: Figure::of(costs, |[_, quorum]| quorum.peak_bytes as f64),
            failover_ms: Figure::of(failovers, |took| took.as_secs_f64() * 1e3),
            refill_speed: Figure::of(refills, |refill| bytes_a_second(refill, refill.copied)),
            refill_all_ms: Figure::of(refills, |refill| refill.all.as_secs_f64() * 1e3),
            refill_bare_loop: Figure::of(refills, |refill| bytes_a_second(refill, refill.bare_loop)),
            refills_are_of_segments: refills.iter().all(|refill| refill.is_of_segments),
            idle: Figure::of(idle, |share| *share),
        }
    }

    fn print(&self, arguments: &ClusterArguments) {
        println!("{NODES} storage nodes on this machine, fsync before each answer, default timeouts");
        if arguments.rounds > 1 {
            println!("{} rounds: the median, and the best in parentheses", arguments.rounds);
        }
        println!("Bold: beyond the target, by the median\n");
        let mut table = Table::new(["", "target", "measured"]);
        let mut row = |what: String, target: &str, measured: String, is_met: Option<bool>| {
            let shown = if is_met == Some(false) { format!("**{measured}**") } else { measured };
            table.row([what, target.to_owned(), shown]);
        };
        let has = |what| arguments.only.contains(&what);
        let records = grouped(arguments.records);
        if has(What::Cost) {
            let each = format!("batches of {}, {records} records", grouped(BATCH_RECORDS));
            let cpu = "CPU-s per 1M records";
            row(format!("one copy, {each}: {cpu}"), "", self.single_cpu.cost(two_decimals), None);
            row(format!("{NODES} copies at quorum: {cpu}"), "", self.quorum_cpu.cost(two_decimals), None);
            let is_met = self.cost.median() <= QUORUM_COST_TARGET;
            let what = format!("of {NODES} times one copy");
            row(what, "≤ 1.20", self.cost.cost(two_decimals), Some(is_met));
            row("one copy: records/s".to_owned(), "", self.single_speed.speed(whole), None);
            row(format!("{NODES} copies at quorum: records/s"), "", self.quorum_speed.speed(whole), None);
            row(format!("{NODES} copies: peak MB of a node"), "", self.peak_bytes.cost(megabytes), None);
        }
        if has(What::Failover) {
            let what =
                format!("kill -9 of a leader to an acknowledgement at quorum, {} times", arguments.failovers);
            row(format!("{what}: p50 ms"), "", whole(self.failover_ms.median()), None);
            let p99 = self.failover_ms.at_share(0.99);
            row("p99 ms".to_owned(), "≤ 3,000", whole(p99), Some(p99 <= FAILOVER_P99_TARGET_MS));
        }
        if has(What::Refill) {
            let how = if self.refills_are_of_segments { "whole segments" } else { "entries" };
            let what = format!("a lost copy of {} MiB, filled by {how}: MB/s", arguments.refill_mib);
            let is_met = self.refill_speed.median() >= REFILL_TARGET;
            row(what, "≥ 200", self.refill_speed.speed(megabytes), Some(is_met));
            row("from the node's start, ms".to_owned(), "", self.refill_all_ms.cost(whole), None);
            let what = "bare loop, a sync each MiB: MB/s".to_owned();
            row(what, "", self.refill_bare_loop.speed(megabytes), None);
        }
        if has(What::Idle) {
            let percent = |share: f64| format!("{:.1}", share * 100.0);
            let what = format!("{IDLE_PARTITIONS} partitions, idle: % of a core, the busiest node");
            let most = self.idle.highest();
            row(what, "< 3", percent(most), Some(most < IDLE_TARGET));
            row(format!("all {NODES} together"), "", percent(self.idle.sum()), None);
        }
        println!("{table}");
    }

    fn to_json(&self, arguments: &ClusterArguments) -> Value {
        json!({
            "benchmark": "cluster",
            "records": arguments.records,
            "rounds": arguments.rounds,
            "cpu_seconds_per_million": { "one_copy": self.single_cpu.to_json(), "quorum": self.quorum_cpu.to_json() },
            "quorum_cost_of_single_copies": self.cost.to_json(),
            "records_per_second": { "one_copy": self.single_speed.to_json(), "quorum": self.quorum_speed.to_json() },
            "peak_bytes": self.peak_bytes.to_json(),
            "failover_ms": { "times": arguments.failovers, "p50": self.failover_ms.median(), "p99": self.failover_ms.at_share(0.99) },
            "refill": {
                "mebibytes": arguments.refill_mib,
                "by_segments": self.refills_are_of_segments,
                "bytes_per_second": self.refill_speed.to_json(),
                "from_start_ms": self.refill_all_ms.to_json(),
                "bare_loop_bytes_per_second": self.refill_bare_loop.to_json(),
            },
            "idle_share_of_a_core": { "partitions": IDLE_PARTITIONS, "busiest_node": self.idle.highest(), "all_nodes": self.idle.sum() },
        })
    }
}
