//! Running the load generator.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use serde_json::Value;

use crate::proc_stats;

/// The corpus of every benchmark: the rich profile, and the same bytes each time.
const CORPUS: [&str; 6] = ["--profile", "rich", "--seed", "1", "--start-timestamp", "1700000000000"];

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    /// Records in all.
    pub(crate) records: u64,
    /// Records of a batch.
    pub(crate) batch: u32,
    /// Connections at once.
    pub(crate) connections: u16,
    /// Read everything back and compare.
    pub(crate) verify: bool,
    /// Further flags for loadgen.
    pub(crate) more: &'a [String],
}

/// What the load generator saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Records that were acknowledged.
    pub(crate) acked: u64,
    /// Of these, a second.
    pub(crate) records_per_second: f64,
    /// The median latency of a batch, milliseconds.
    pub(crate) p50_ms: f64,
    /// 99 of 100 batches were no slower.
    pub(crate) p99_ms: f64,
    /// The load generator's own CPU time.
    pub(crate) cpu: Duration,
}

/// Sends records to `ingest`.
///
/// # Errors
/// Not every record was acknowledged (or, with `verify`, stored once).
pub(crate) fn send(
    loadgen: &Path,
    ingest: SocketAddr,
    storage: &[SocketAddr],
    load: Load<'_>,
    log_dir: &Path,
) -> anyhow::Result<Seen> {
    let mut command = Command::new(loadgen);
    let Load { records, batch, connections, verify, more } = load;
    command.args(["--url", &format!("http://{ingest}/v1/logs"), "--delay", "0", "--json"]).args(CORPUS);
    command.args(["--total", &records.to_string(), "--batch", &batch.to_string()]);
    command.args(["--connections", &connections.to_string()]);
    let storage: Vec<String> = storage.iter().map(|node| format!("http://{node}")).collect();
    command.args(["--storage", &storage.join(",")]).args(verify.then_some("--verify")).args(more);
    let (report, cpu) = run(command, &log_dir.join("loadgen.log"))?;
    let number = |pointer: &str| {
        report
            .pointer(pointer)
            .and_then(Value::as_f64)
            .with_context(|| format!("loadgen's report lacks {pointer}"))
    };
    let acked = report.pointer("/records/acked").and_then(Value::as_u64).unwrap_or_default();
    if acked != records {
        bail!("loadgen got {acked} of {records} records acknowledged: {report}");
    }
    Ok(Seen {
        acked,
        records_per_second: number("/records_per_second")?,
        p50_ms: number("/latency_ms/p50")?,
        p99_ms: number("/latency_ms/p99")?,
        cpu,
    })
}

/// Writes the corpus of `records` records to `path`, a line each.
///
/// # Errors
/// loadgen failed.
pub(crate) fn write_corpus(loadgen: &Path, records: u64, path: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(loadgen);
    command.args(CORPUS).args(["--total", &records.to_string(), "--out"]).arg(path);
    let output = command.stdin(Stdio::null()).output().context("could not run loadgen")?;
    if !output.status.success() {
        bail!("loadgen could not write the corpus: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Runs it to its end; answers with its report and its CPU time.
fn run(mut command: Command, log: &Path) -> anyhow::Result<(Value, Duration)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(log)?);
    let mut child = command.spawn().context("could not start loadgen")?;
    let mut printed = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut printed)?;
    }
    // Ended but not reaped yet, it can still be asked for its CPU time.
    rustix::process::waitid(
        WaitId::Pid(Pid::from_child(&child)),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )?;
    let cpu = proc_stats::cpu_time(child.id())?;
    let status = child.wait()?;
    if !status.success() {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        bail!("loadgen failed ({status}): {}\n{}", said.trim(), printed.trim());
    }
    let report =
        serde_json::from_str(&printed).with_context(|| format!("loadgen's report is no JSON: {printed}"))?;
    Ok((report, cpu))
}
