//! `cargo xtask upgrade --from REV`: storage nodes of an older commit are upgraded to this one, one after another, under
//! load. What `test` runs of it begins with frozen data directories instead: it has no other commit to build.

use anyhow::{Context as _, ensure};
use std::process::Command;

use crate::{cargo, workspace};

/// Where the test is among the scenarios.
const TEST: &str = "upgrade::";

/// From which version.
#[derive(Debug, clap::Args)]
pub(crate) struct UpgradeArguments {
    /// The commit or tag of the version before
    #[arg(long, value_name = "REV")]
    from: String,
}

/// Compiles the version before, and runs the test with it.
///
/// # Errors
/// There is no such commit, it does not compile, or something was lost.
pub(crate) fn run(arguments: &UpgradeArguments) -> anyhow::Result<()> {
    let dir = workspace::upgrade_dir();
    let checkout = dir.join("checkout");
    // Named once and for all: in the checkout `HEAD` is another.
    let commit = commit_of(&arguments.from)?;
    let mut git = Command::new("git");
    if checkout.is_dir() {
        git.current_dir(&checkout).args(["checkout", "--detach", &commit]);
    } else {
        git.current_dir(workspace::root()).args(["worktree", "add", "--force", "--detach"]);
        git.arg(&checkout).arg(&commit);
    }
    ensure!(git.status().context("could not run git")?.success(), "{} cannot be checked out", arguments.from);
    let mut build = cargo::command(["build", "--locked", "--package", "storage", "--bin", "storage"]);
    build.current_dir(&checkout).arg("--target-dir").arg(dir.join("build"));
    ensure!(build.status().context("could not run cargo")?.success(), "{} does not compile", arguments.from);
    let mut test = cargo::command(["test", "--workspace", "--test", "scenarios", TEST, "--", "--nocapture"]);
    test.env("EDGELOG_TEST_STORAGE_BEFORE", dir.join("build/debug/storage"));
    let status = test.status().context("could not run cargo")?;
    ensure!(status.success(), "an upgrade from {} does not go well: see above", arguments.from);
    Ok(())
}

fn commit_of(revision: &str) -> anyhow::Result<String> {
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args(["rev-parse", "--verify", "--end-of-options"]);
    let named = git.arg(format!("{revision}^{{commit}}")).output().context("could not run git")?;
    ensure!(named.status.success(), "there is no commit {revision}");
    Ok(String::from_utf8(named.stdout)?.trim().to_owned())
}
