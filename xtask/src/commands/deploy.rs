//! `setup-deploy`: what the tests of `deploy/` run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

/// The programs, and Debian's packages that have them.
const PROGRAMS: [(&str, &str); 3] =
    [("nginx", "nginx"), ("prometheus", "prometheus"), ("promtool", "prometheus")];
/// Where Debian keeps servers, which is not on everybody's path.
const SYSTEM_DIRS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Installs what is missing, by apt.
///
/// # Errors
/// It is missing and could not be installed; says what to do.
pub(crate) fn setup() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        println!("nginx and Prometheus are installed.");
        return Ok(());
    }
    let by_hand = format!("install {} by hand, with its programs on the PATH", missing.join(" and "));
    ensure!(find("apt-get").is_some(), "there is no apt-get here: {by_hand}");
    let sudo = if rustix::process::geteuid().is_root() { None } else { find("sudo") };
    ensure!(
        rustix::process::geteuid().is_root() || sudo.is_some(),
        "apt-get needs root, and there is no sudo: {by_hand}"
    );
    apt_get(sudo.as_deref(), &["update"]).with_context(|| by_hand.clone())?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    apt_get(sudo.as_deref(), &install).with_context(|| by_hand.clone())?;
    Ok(())
}

/// On a build machine the tests must not be skipped; a developer is told what is.
///
/// # Errors
/// On a build machine: what is missing could not be installed.
pub(crate) fn ensure_for_tests(on_build_machine: bool) -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if on_build_machine {
        return setup();
    }
    println!(
        "   {} not installed: the tests that need it are skipped. `cargo xtask setup-deploy` installs it.",
        missing.join(" and ")
    );
    Ok(())
}

/// The packages whose programs are missing, each once.
fn missing() -> Vec<&'static str> {
    let absent = PROGRAMS.iter().filter(|(program, _)| find(program).is_none());
    let mut packages: Vec<_> = absent.map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.iter().map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn apt_get(sudo: Option<&Path>, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = match sudo {
        Some(sudo) => {
            let mut command = Command::new(sudo);
            command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            command
        }
        None => {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        }
    };
    println!("> apt-get {}", arguments.join(" "));
    let status = command.args(arguments).stdin(Stdio::null()).status().context("could not run apt-get")?;
    if !status.success() {
        bail!("`apt-get {}` failed ({status})", arguments.join(" "));
    }
    Ok(())
}
