//! `cargo xtask bench query`: searches of a corpus, with indexes and without, in one run.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::parts;
use crate::cargo::{self, Profile, Programs};

/// How much to search.
#[derive(Debug, clap::Args)]
pub(crate) struct QueryArguments {
    /// How many records are searched
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    records: u64,
    /// Search ten million
    #[arg(long, conflicts_with = "records")]
    large: bool,
}

/// Makes the corpus, and searches it by `storage/benches/query.rs`, which prints the figures.
///
/// # Errors
/// Something does not compile, or an answer with an index was another than without.
pub(crate) fn run(arguments: &QueryArguments) -> anyhow::Result<()> {
    let records = if arguments.large { 10_000_000 } else { arguments.records };
    let programs = Programs::build(&["loadgen"], Profile::Release)?;
    let dir = parts::empty_dir("query")?;
    let corpus = dir.join("corpus.ndjson");
    let mut make = Command::new(programs.path("loadgen")?);
    make.arg("--out").arg(&corpus).args(["--seed", "1", "--profile", "rich", "--total"]);
    let made = make.arg(records.to_string()).status().context("could not run the load generator")?;
    ensure!(made.success(), "the load generator failed");
    let mut bench = cargo::command(["bench", "-p", "storage", "--bench", "query", "--"]);
    let searched = bench.arg(&corpus).arg(&dir).status().context("could not run cargo")?;
    ensure!(searched.success(), "`cargo bench -p storage --bench query` failed");
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
