//! `cargo xtask sim`: many runs of the simulated cluster of replicas, each with faults of its own.

use anyhow::{Context as _, ensure};

use crate::cargo;

/// The simulation, among the tests of `storage`.
const TEST: &str = "raft::tests::simulation::whatever_fails_what_was_acknowledged_at_a_quorum_is_there_once_on_every_replica";

/// For the many runs; assertions stay on.
const OPTIMISED: [&str; 2] =
    ["profile.test.package.storage.opt-level=1", "profile.test.package.model.opt-level=1"];

/// How many runs.
#[derive(Debug, clap::Args)]
pub(crate) struct SimArguments {
    /// Runs with the seeds from 0 on
    #[arg(long, default_value_t = 200, value_name = "N")]
    seeds: u64,

    /// One run, with this seed
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,

    /// Print everything that happens in it
    #[arg(long, requires = "seed")]
    trace: bool,
}

/// Runs the simulation.
///
/// # Errors
/// When a run fails; its seed is in what it printed.
pub(crate) fn run(arguments: &SimArguments) -> anyhow::Result<()> {
    let mut command = cargo::command(["test", "--package", "storage", "--lib"]);
    command.args(OPTIMISED.iter().flat_map(|setting| ["--config", setting]));
    command.args([TEST, "--", "--exact", "--nocapture"]);
    command.env("EDGELOG_SIM_SEEDS", arguments.seeds.to_string());
    if let Some(seed) = arguments.seed {
        command.env("EDGELOG_SIM_SEED", seed.to_string());
    }
    if arguments.trace {
        command.env("EDGELOG_SIM_TRACE", "1");
    }
    let status = command.status().context("could not run cargo")?;
    ensure!(status.success(), "a run failed; its seed is in the message");
    Ok(())
}
