//! The processes that are measured, each on a free port and with data of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::disk_usage::DiskUsage;
use crate::cargo::Programs;
use crate::process::Process;
use crate::{cluster, probe, proc_stats, workspace};

/// How long a part may take to start: ingest-host compiles the component at its first start.
const START_MAX: Duration = Duration::from_secs(120);
/// How long a part may take to stop.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How long it is looked whether a process is at rest, and how much CPU time it may use meanwhile. An indexer that had nothing
/// to do looks for it after 0.8 s at the latest.
const REST_LOOK: Duration = Duration::from_secs(1);
const REST_CPU_MAX: Duration = Duration::from_millis(20);
/// How long that may take.
const REST_MAX: Duration = Duration::from_secs(120);

/// A process that listens.
pub(crate) struct Part {
    process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// When it said that it listens.
    pub(crate) ready_at: Instant,
    cpu_at_start: Duration,
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// CPU time since it was ready.
    pub(crate) cpu: Duration,
    /// The most memory it has had at once.
    pub(crate) peak_bytes: u64,
}

impl Part {
    /// A storage node which syncs before each answer, with its data in `dir/NAME`.
    ///
    /// # Errors
    /// It did not come up.
    pub(crate) fn storage(
        programs: &Programs,
        dir: &Path,
        name: &str,
        partitions: &[u16],
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut arguments = cluster::lone_storage_arguments(any_port, &dir.join(name), partitions);
        arguments.extend(["--fsync", "always"].iter().chain(more).map(OsString::from));
        Self::start(Process::start(name, programs.path("storage")?, &arguments, &dir.join("log"))?)
    }

    /// One of the nodes of a cluster whose partitions have a copy on each, with its data in `dir/NAME`.
    ///
    /// # Errors
    /// It did not come up.
    pub(crate) fn replica(
        programs: &Programs,
        dir: &Path,
        name: &str,
        nodes: &[SocketAddr],
        place: usize,
        partitions: &[u16],
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let listen = *nodes.get(place).context("there is no such node")?;
        let copies = u16::try_from(nodes.len())?;
        let mut arguments = cluster::storage_arguments(listen, &dir.join(name), partitions, nodes, copies);
        arguments.extend(["--fsync", "always"].iter().chain(more).map(OsString::from));
        Self::start(Process::start(name, programs.path("storage")?, &arguments, &dir.join("log"))?)
    }

    /// The ingest in front of these nodes.
    ///
    /// # Errors
    /// It did not come up.
    pub(crate) fn ingest(
        programs: &Programs,
        component: &Path,
        dir: &Path,
        nodes: &[SocketAddr],
        partitions: u16,
    ) -> anyhow::Result<Self> {
        let mut arguments: Vec<OsString> = vec!["--listen".into(), "127.0.0.1:0".into()];
        arguments.extend(["--from".into(), workspace::manifest().into()]);
        arguments.extend(["--component".into(), component.into()]);
        arguments.extend(["--key-value".into(), dir.join("key_value.db").into()]);
        arguments.extend(["--cache-dir".into(), workspace::bench_dir().join("cache").into()]);
        let variables = cluster::ingest_variables(nodes, partitions)?;
        arguments.extend(variables.into_iter().flat_map(|variable| ["--variable".into(), variable.into()]));
        Self::start(Process::start("ingest", programs.path("ingest-host")?, &arguments, &dir.join("log"))?)
    }

    fn start(mut process: Process) -> anyhow::Result<Self> {
        let address = process.announced_address(START_MAX)?;
        let ready_at = Instant::now();
        probe::wait_until_healthy(&mut process, address, "/healthz", START_MAX, &mut || false)?;
        let cpu_at_start = proc_stats::cpu_time(process.id())?;
        Ok(Self { process, address, ready_at, cpu_at_start })
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn usage(&mut self) -> anyhow::Result<Usage> {
        self.process.check_runs()?;
        let cpu = proc_stats::cpu_time(self.process.id())?.saturating_sub(self.cpu_at_start);
        Ok(Usage { cpu, peak_bytes: proc_stats::peak_memory_bytes(self.process.id())? })
    }

    /// What it has used once it is at rest: the indexing of records that are acknowledged already belongs to their cost.
    ///
    /// # Errors
    /// It has ended, or does not come to rest.
    pub(crate) fn usage_at_rest(&mut self) -> anyhow::Result<Usage> {
        let deadline = Instant::now() + REST_MAX;
        let mut before = self.usage()?;
        loop {
            std::thread::sleep(REST_LOOK);
            let now = self.usage()?;
            if now.cpu.saturating_sub(before.cpu) <= REST_CPU_MAX {
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "a process does not come to rest; {}", self.log_tail());
            before = now;
        }
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.process.stop(STOP_MAX, &mut || false)?;
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        Ok(())
    }
}

/// An empty directory for a benchmark.
///
/// # Errors
/// The system's.
pub(crate) fn empty_dir(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let dir = workspace::bench_dir().join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("could not empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("could not make {}", dir.display()))?;
    Ok(dir)
}

/// Stops the storage nodes that were started with their data below `dir`, which have to hold what was acknowledged;
/// answers what they have on the disk.
///
/// # Errors
/// One does not stop, or records are missing.
pub(crate) fn stop_storage(storage: Vec<Part>, dir: &Path, acked: u64) -> anyhow::Result<DiskUsage> {
    let mut disk = DiskUsage::default();
    for (number, part) in (1..).zip(storage) {
        part.stop()?;
        disk += DiskUsage::of(&dir.join(format!("storage-{number}")))?;
    }
    ensure!(
        disk.records == acked,
        "{acked} records were acknowledged, but {} lie on the disks",
        disk.records
    );
    Ok(disk)
}
