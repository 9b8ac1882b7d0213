//! `cargo xtask bench scale`: records a second and CPU by the number of ingests behind nginx.
//!
//! On a machine that has fewer cores than ingests the speed cannot grow; the figure to look at is the CPU of a million
//! records, which stays where it is when ingests do not get in one another's way.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::figures::{Figure, per_million, two_decimals, whole};
use super::load::{self, Load, Seen};
use super::parts::{self, Part};
use crate::cargo::{self, Profile, Programs};
use crate::commands::deploy;
use crate::process::Process;
use crate::table::{Table, grouped};
use crate::{cluster, probe, proc_stats, workspace};

const NODES: u16 = 2;
const PARTITIONS: u16 = 4;
/// How long nginx may take to start.
const START_MAX: Duration = Duration::from_secs(20);

/// What to send.
#[derive(Debug, clap::Args)]
pub(crate) struct ScaleArguments {
    /// How many ingests there are
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,2,4", value_parser = clap::value_parser!(u16).range(1..=16))]
    ingests: Vec<u16>,
    /// Records of each run
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Records of a batch
    #[arg(long, default_value_t = 1000)]
    batch: u32,
    /// Connections at once
    #[arg(long, default_value_t = 8)]
    connections: u16,
    /// Runs of each, taking turns; shown are the median and the best
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Take the programs of a debug build: to try the benchmark, not to measure
    #[arg(long)]
    debug: bool,
}

/// What one run has shown.
struct Round {
    seen: Seen,
    ingest_cpu: Duration,
    storage_cpu: Duration,
    nginx_cpu: Duration,
}

/// Measures, and prints a table or JSON.
///
/// # Errors
/// Something does not compile, a part died, records were lost, or nginx is not installed.
pub(crate) fn run(arguments: &ScaleArguments) -> anyhow::Result<()> {
    let component = cargo::build_component()?;
    let profile = if arguments.debug { Profile::Dev } else { Profile::Release };
    let programs = Programs::build(&["storage", "ingest-host", "loadgen"], profile)?;
    let mut rounds: Vec<(u16, Vec<Round>)> =
        arguments.ingests.iter().map(|count| (*count, Vec::new())).collect();
    for number in 1..=arguments.rounds {
        for (ingests, measured) in &mut rounds {
            eprintln!("Round {number}: {ingests} ingests");
            measured.push(measure(&programs, &component, arguments, *ingests)?);
        }
    }
    print(arguments, &rounds);
    Ok(())
}

fn measure(
    programs: &Programs,
    component: &Path,
    arguments: &ScaleArguments,
    count: u16,
) -> anyhow::Result<Round> {
    let dir = parts::empty_dir("scale")?;
    let mut storage = Vec::new();
    for (number, partitions) in (1..).zip(cluster::deal(PARTITIONS, NODES)?) {
        storage.push(Part::storage(programs, &dir, &format!("storage-{number}"), &partitions, &[])?);
    }
    let nodes: Vec<SocketAddr> = storage.iter().map(|part| part.address).collect();
    let mut ingests = Vec::new();
    for number in 1..=count {
        let own = dir.join(format!("ingest-{number}"));
        ingests.push(Part::ingest(programs, component, &own, &nodes, PARTITIONS)?);
    }
    let addresses: Vec<SocketAddr> = ingests.iter().map(|part| part.address).collect();
    let (mut nginx, proxy) = start_nginx(&dir, &addresses)?;
    let ScaleArguments { records, batch, connections, .. } = *arguments;
    // Reading all of it back would count as the parts' CPU: what lies on the disks is counted when they have ended.
    let load = Load { records, batch, connections, verify: false, more: &[] };
    let seen = load::send(programs.path("loadgen")?, proxy, &nodes, load, &dir.join("log"))?;
    let cpu = |parts: &mut [Part]| -> anyhow::Result<Duration> {
        parts.iter_mut().map(|part| Ok(part.usage()?.cpu)).sum()
    };
    let round = Round {
        seen,
        ingest_cpu: cpu(&mut ingests)?,
        storage_cpu: cpu(&mut storage)?,
        nginx_cpu: proc_stats::cpu_time(nginx.id())?,
    };
    nginx.stop(START_MAX, &mut || false)?;
    for ingest in ingests {
        ingest.stop()?;
    }
    parts::stop_storage(storage, &dir, round.seen.acked)?;
    fs::remove_dir_all(&dir)?;
    Ok(round)
}

/// nginx by `deploy/nginx/edgelog.conf`, as one process, before these ingests.
fn start_nginx(dir: &Path, ingests: &[SocketAddr]) -> anyhow::Result<(Process, SocketAddr)> {
    let program =
        deploy::find("nginx").context("nginx is not installed: `cargo xtask setup-deploy` does that")?;
    let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let template = fs::read_to_string(workspace::root().join("deploy/nginx/edgelog.conf"))?;
    let conf = configuration(dir, &template, address, ingests)?;
    let file = dir.join("nginx.conf");
    fs::write(&file, conf)?;
    let arguments: Vec<OsString> = vec!["-e".into(), "stderr".into(), "-c".into(), file.into()];
    let mut process = Process::start("nginx", &program, &arguments, &dir.join("log"))?;
    probe::wait_until_healthy(&mut process, address, "/healthz", START_MAX, &mut || false)?;
    Ok((process, address))
}

fn configuration(
    dir: &Path,
    template: &str,
    listen: SocketAddr,
    ingests: &[SocketAddr],
) -> anyhow::Result<String> {
    let is_server = |line: &&str| line.trim().starts_with("server ingest-");
    let first = template.lines().find(is_server).context("edgelog.conf names no ingest")?;
    let settings = first.split_once(":8080").context("edgelog.conf names no port")?.1;
    let servers: Vec<String> = ingests.iter().map(|ingest| format!("server {ingest}{settings}")).collect();
    let rest: Vec<&str> = template.lines().filter(|line| !is_server(line)).collect();
    let upstream = "upstream edgelog_ingest {";
    let conf = rest
        .join("\n")
        .replace(upstream, &format!("{upstream}\n{}", servers.join("\n")))
        .replace("listen 8080;", &format!("listen {listen};"));
    ensure!(conf.contains(&format!("listen {listen};")), "edgelog.conf does not listen on 8080");
    let temp = dir.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {temp}/nginx-{what};\n"))
        .collect();
    Ok(format!(
        "daemon off; master_process off; pid {temp}/nginx.pid;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\n{paths}{conf}\n}}\n"
    ))
}

fn print(arguments: &ScaleArguments, rounds: &[(u16, Vec<Round>)]) {
    let ScaleArguments { records, batch, connections, json, .. } = arguments;
    let mut table =
        Table::new(["ingests", "records/s", "p99 ms", "ingests CPU", "storage CPU", "nginx CPU", "all CPU"]);
    let mut values = Vec::new();
    for (count, rounds) in rounds {
        let cpu =
            |part: &dyn Fn(&Round) -> Duration| Figure::of(rounds, |r| per_million(part(r), r.seen.acked));
        let speed = Figure::of(rounds, |r| r.seen.records_per_second);
        let p99 = Figure::of(rounds, |r| r.seen.p99_ms);
        let (ingest, storage, nginx) =
            (cpu(&|r| r.ingest_cpu), cpu(&|r| r.storage_cpu), cpu(&|r| r.nginx_cpu));
        let all = cpu(&|r| r.ingest_cpu + r.storage_cpu + r.nginx_cpu);
        table.row([
            count.to_string(),
            speed.speed(whole),
            p99.cost(two_decimals),
            ingest.cost(two_decimals),
            storage.cost(two_decimals),
            nginx.cost(two_decimals),
            all.cost(two_decimals),
        ]);
        values.push(json!({
            "ingests": count,
            "records_per_second": speed.to_json(),
            "latency_ms_p99": p99.to_json(),
            "cpu_seconds_per_million": {
                "ingests": ingest.to_json(), "storage": storage.to_json(), "nginx": nginx.to_json(), "all": all.to_json(),
            },
        }));
    }
    if *json {
        let report = json!({ "benchmark": "scale", "records": records, "batch": batch, "connections": connections, "configurations": values });
        println!("{report:#}");
        return;
    }
    println!(
        "{} records of the rich profile, batches of {batch}, {connections} connections, nginx, {NODES} storage nodes with fsync",
        grouped(*records)
    );
    println!("CPU-seconds per million records\n");
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxys_configuration_names_the_ingests_that_there_are() {
        let template = fs::read_to_string(workspace::root().join("deploy/nginx/edgelog.conf")).unwrap();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let conf =
            configuration(Path::new("/t"), &template, address(9), &[address(1), address(2), address(3)])
                .unwrap();
        assert_eq!(
            conf.matches("    server 127.0.0.1:").count() + conf.matches("\nserver 127.0.0.1:").count(),
            3
        );
        assert!(conf.contains("listen 127.0.0.1:9;") && !conf.contains("ingest-1:8080"), "{conf}");
    }
}
