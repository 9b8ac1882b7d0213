//! What the Rust installation must have: the component's target, rustfmt, clippy. What is missing is installed with
//! rustup; where that cannot be, the error says what to do.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// What the component is compiled for.
pub(crate) const WASM_TARGET: &str = "wasm32-wasip2";

/// Installs the component's target where it is missing.
///
/// # Errors
/// It is missing and could not be installed; says what to do.
pub(crate) fn ensure_wasm_target() -> anyhow::Result<()> {
    let library = sysroot()?.join("lib/rustlib").join(WASM_TARGET).join("lib");
    if library.is_dir() {
        return Ok(());
    }
    eprintln!("The ingest component needs the target {WASM_TARGET}, which is not installed yet.");
    let what_else = format!(
        "Without rustup, take the package of your Rust installation that has the standard library for {WASM_TARGET}; \
         it belongs into {}.",
        library.display()
    );
    rustup(&["target", "add", WASM_TARGET], &what_else)
}

/// Installs a part of the toolchain, such as `clippy`, where `cargo SUBCOMMAND` is missing.
///
/// # Errors
/// It is missing and could not be installed; says what to do.
pub(crate) fn ensure_component(subcommand: &str, component: &str) -> anyhow::Result<()> {
    let version = Command::new(crate::cargo::program()).args([subcommand, "--version"]).output();
    if version.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    eprintln!("`cargo {subcommand}` needs {component}, which is not installed yet.");
    let what_else =
        format!("Without rustup, take the package of your Rust installation that has {component}.");
    rustup(&["component", "add", component], &what_else)
}

/// Whether `cargo nextest` is installed.
pub(crate) fn has_nextest() -> bool {
    let version = Command::new(crate::cargo::program()).args(["nextest", "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}

fn rustup(arguments: &[&str], what_else: &str) -> anyhow::Result<()> {
    let command = format!("rustup {}", arguments.join(" "));
    eprintln!("> {command}");
    // cargo was started by rustup with RUSTUP_TOOLCHAIN set: it is that toolchain which is added to.
    match Command::new("rustup").args(arguments).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!(
            "`{command}` failed ({status}). It downloads from static.rust-lang.org: check the network (and HTTPS_PROXY, \
             or RUSTUP_DIST_SERVER for a mirror), then run it again. {what_else}"
        ),
        Err(error) => {
            bail!("`{command}` could not be run: {error}. rustup comes from https://rustup.rs. {what_else}")
        }
    }
}

fn sysroot() -> anyhow::Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc).args(["--print", "sysroot"]).output().context("could not run rustc")?;
    if !output.status.success() {
        bail!("`rustc --print sysroot` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
