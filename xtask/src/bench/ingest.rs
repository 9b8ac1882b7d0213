//! `cargo xtask bench ingest`: the whole path.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::disk_usage::DiskUsage;
use super::figures::{Figure, megabytes, per_million, two_decimals, whole};
use super::floor::{self, Floor};
use super::load::{self, Load, Seen};
use super::parts::{self, Part, Usage};
use crate::cargo::{self, Profile, Programs};
use crate::cluster;
use crate::table::{Table, grouped};

const NODES: u16 = 2;
/// Records of the run that only proves that what is measured is right.
const PROOF_RECORDS_MAX: u64 = 100_000;

/// What to send.
#[derive(Debug, clap::Args)]
pub(crate) struct IngestArguments {
    /// Records of each run
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Records of a batch; each with each number of connections
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "100,1000")]
    batch: Vec<u32>,
    /// Connections at once
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,8")]
    connections: Vec<u16>,
    /// Runs of each, taking turns; shown are the median and the best
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Partitions of the two nodes; to fill many, let as many services log: `-- --services 200`
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=1024))]
    partitions: u16,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Further flags for loadgen, after `--`
    #[arg(last = true, value_name = "LOADGEN FLAGS")]
    loadgen: Vec<String>,
}

/// Measures, and prints a table or JSON.
///
/// # Errors
/// Something does not compile, a part died, or records were lost.
pub(crate) fn run(arguments: &IngestArguments) -> anyhow::Result<()> {
    let rig = Rig {
        component: &cargo::build_component()?,
        programs: &Programs::build(&["storage", "ingest-host", "loadgen"], Profile::Release)?,
        partitions: arguments.partitions,
        more: &arguments.loadgen,
    };
    let mut configurations = Vec::new();
    for &batch in &arguments.batch {
        for &connections in &arguments.connections {
            configurations.push(Configuration { batch, connections, rounds: Vec::new() });
        }
    }
    if let Some(first) = configurations.last() {
        let records = arguments.records.min(PROOF_RECORDS_MAX);
        eprintln!("Verifying: {} records, each read back and compared", grouped(records));
        rig.measure(first, records, true)?;
    }
    for round in 1..=arguments.rounds {
        for configuration in &mut configurations {
            let Configuration { batch, connections, .. } = configuration;
            eprintln!("Round {round}: batches of {batch}, {connections} connections");
            let measured = rig.measure(configuration, arguments.records, false)?;
            configuration.rounds.push(measured);
        }
    }
    if arguments.json {
        println!("{:#}", to_json(arguments, &configurations));
    } else {
        print_table(arguments, &configurations);
    }
    Ok(())
}

struct Configuration {
    batch: u32,
    connections: u16,
    rounds: Vec<Round>,
}

/// What one run has shown.
struct Round {
    seen: Seen,
    storage: Vec<Usage>,
    ingest: Usage,
    disk: DiskUsage,
    floor: Floor,
}

impl Round {
    fn cpu_of_node(&self, place: usize) -> Duration {
        self.storage.get(place).map(|usage| usage.cpu).unwrap_or_default()
    }

    fn cpu(&self) -> Duration {
        self.ingest.cpu + self.storage.iter().map(|usage| usage.cpu).sum::<Duration>()
    }

    fn storage_peak_bytes(&self) -> u64 {
        self.storage.iter().map(|usage| usage.peak_bytes).max().unwrap_or_default()
    }
}

/// What is run.
struct Rig<'a> {
    component: &'a Path,
    programs: &'a Programs,
    partitions: u16,
    more: &'a [String],
}

impl Rig<'_> {
    fn measure(&self, configuration: &Configuration, records: u64, verify: bool) -> anyhow::Result<Round> {
        let dir = parts::empty_dir("ingest")?;
        let mut storage = Vec::new();
        for (number, partitions) in (1..).zip(cluster::deal(self.partitions, NODES)?) {
            storage.push(Part::storage(self.programs, &dir, &format!("storage-{number}"), &partitions, &[])?);
        }
        let nodes: Vec<SocketAddr> = storage.iter().map(|part| part.address).collect();
        let mut ingest = Part::ingest(self.programs, self.component, &dir, &nodes, self.partitions)?;
        let Configuration { batch, connections, .. } = *configuration;
        let load = Load { records, batch, connections, verify, more: self.more };
        let loadgen = self.programs.path("loadgen")?;
        let seen = load::send(loadgen, ingest.address, &nodes, load, &dir.join("log")).map_err(|error| {
            let logs = storage.iter().chain([&ingest]).map(Part::log_tail);
            error.context(logs.collect::<Vec<_>>().join("\n"))
        })?;
        let ingest_usage = ingest.usage()?;
        let storage_usage =
            storage.iter_mut().map(Part::usage_at_rest).collect::<anyhow::Result<Vec<_>>>()?;
        ingest.stop()?;
        let disk = parts::stop_storage(storage, &dir, seen.acked)?;
        std::fs::remove_dir_all(&dir)?;
        let floor = bare_loop(&dir, disk.jsonl_bytes, records.div_ceil(batch.into()))?;
        Ok(Round { seen, storage: storage_usage, ingest: ingest_usage, disk, floor })
    }
}

/// Appends and syncs as many bytes as were stored, in as many pieces as there were batches.
fn bare_loop(dir: &Path, bytes: u64, batches: u64) -> anyhow::Result<Floor> {
    let piece = vec![b'x'; usize::try_from(bytes / batches.max(1))?];
    floor::append_and_sync(dir, &[piece], batches)
}

/// The figures of one configuration.
struct Figures {
    records_per_second: Figure,
    p50_ms: Figure,
    p99_ms: Figure,
    storage_cpu: [Figure; NODES as usize],
    ingest_cpu: Figure,
    all_cpu: Figure,
    loadgen_cpu: Figure,
    floor_cpu: Figure,
    storage_peak: Figure,
    ingest_peak: Figure,
    disk_bytes: Figure,
}

impl Figures {
    fn of(rounds: &[Round]) -> Self {
        let cpu =
            |part: &dyn Fn(&Round) -> Duration| Figure::of(rounds, |r| per_million(part(r), r.seen.acked));
        Self {
            records_per_second: Figure::of(rounds, |r| r.seen.records_per_second),
            p50_ms: Figure::of(rounds, |r| r.seen.p50_ms),
            p99_ms: Figure::of(rounds, |r| r.seen.p99_ms),
            storage_cpu: std::array::from_fn(|place| cpu(&|r| r.cpu_of_node(place))),
            ingest_cpu: cpu(&|r| r.ingest.cpu),
            all_cpu: cpu(&Round::cpu),
            loadgen_cpu: cpu(&|r| r.seen.cpu),
            floor_cpu: cpu(&|r| r.floor.cpu),
            storage_peak: Figure::of(rounds, |r| r.storage_peak_bytes() as f64),
            ingest_peak: Figure::of(rounds, |r| r.ingest.peak_bytes as f64),
            disk_bytes: Figure::of(rounds, |r| r.disk.disk_bytes as f64),
        }
    }
}

fn print_table(arguments: &IngestArguments, configurations: &[Configuration]) {
    let IngestArguments { records, rounds, partitions, .. } = arguments;
    println!(
        "{} records of the rich profile, {partitions} partitions on {NODES} storage nodes with fsync, ingest-host",
        grouped(*records)
    );
    if *rounds > 1 {
        println!("{rounds} rounds: the median, and the best in parentheses");
    }
    println!("\nSpeed; latency of a batch; size on the disk\n");
    let mut speed =
        Table::new(["batch", "connections", "records/s", "p50 ms", "p99 ms", "disk MB", "bytes/record"]);
    let mut cost = Table::new([
        "batch",
        "connections",
        "storage 1",
        "storage 2",
        "ingest",
        "all",
        "bare loop",
        "loadgen",
        "storage MB",
        "ingest MB",
    ]);
    for configuration in configurations {
        let figures = Figures::of(&configuration.rounds);
        let (batch, connections) =
            (grouped(configuration.batch.into()), configuration.connections.to_string());
        let [first, second] = &figures.storage_cpu;
        speed.row([
            batch.clone(),
            connections.clone(),
            figures.records_per_second.speed(whole),
            figures.p50_ms.cost(two_decimals),
            figures.p99_ms.cost(two_decimals),
            figures.disk_bytes.cost(megabytes),
            figures.disk_bytes.cost(|bytes| format!("{:.0}", bytes / *records as f64)),
        ]);
        cost.row([
            batch,
            connections,
            first.cost(two_decimals),
            second.cost(two_decimals),
            figures.ingest_cpu.cost(two_decimals),
            figures.all_cpu.cost(two_decimals),
            figures.floor_cpu.cost(two_decimals),
            figures.loadgen_cpu.cost(two_decimals),
            figures.storage_peak.cost(megabytes),
            figures.ingest_peak.cost(megabytes),
        ]);
    }
    println!("{speed}");
    println!(
        "CPU-seconds per million records (all: storage nodes and ingest; bare loop: append and fdatasync the same"
    );
    println!("bytes, a batch each; loadgen is not in the sum); peak memory (storage: of the larger node)\n");
    println!("{cost}");
}

fn to_json(arguments: &IngestArguments, configurations: &[Configuration]) -> Value {
    let one = |configuration: &Configuration| {
        let figures = Figures::of(&configuration.rounds);
        let disk = configuration.rounds.last().map(|round| round.disk).unwrap_or_default();
        json!({
            "batch": configuration.batch,
            "connections": configuration.connections,
            "records_per_second": figures.records_per_second.to_json(),
            "latency_ms": { "p50": figures.p50_ms.to_json(), "p99": figures.p99_ms.to_json() },
            "cpu_seconds_per_million": {
                "storage": figures.storage_cpu.each_ref().map(Figure::to_json),
                "ingest": figures.ingest_cpu.to_json(),
                "all": figures.all_cpu.to_json(),
                "bare_loop": figures.floor_cpu.to_json(),
                "loadgen": figures.loadgen_cpu.to_json(),
            },
            "peak_bytes": { "storage": figures.storage_peak.to_json(), "ingest": figures.ingest_peak.to_json() },
            "disk_bytes": figures.disk_bytes.to_json(),
            "jsonl_bytes": disk.jsonl_bytes,
        })
    };
    json!({
        "benchmark": "ingest",
        "records": arguments.records,
        "rounds": arguments.rounds,
        "storage_nodes": NODES,
        "partitions": arguments.partitions,
        "configurations": configurations.iter().map(one).collect::<Vec<_>>(),
    })
}
