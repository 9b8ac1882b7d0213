//! `cargo xtask bench component`: the record path in wasm against native, and against other parsers.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};

use super::figures::whole;
use crate::cargo::{self, Profile, Programs};
use crate::table::Table;
use crate::{toolchain, workspace};

/// How to show the result.
#[derive(Debug, clap::Args)]
pub(crate) struct ComponentArguments {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Measures, and prints a table or JSON.
///
/// # Errors
/// Something does not compile, or a contender failed.
pub(crate) fn run(arguments: &ComponentArguments) -> anyhow::Result<()> {
    toolchain::ensure_wasm_target()?;
    // A directory of its own: here the ingest component is a mere library, and would take the real one's place.
    let target_dir = workspace::root().join("target/record-bench");
    let wasm =
        ["build", "-p", "record-bench", "--profile", "release-wasm", "--target", toolchain::WASM_TARGET];
    let built = cargo::command(wasm).arg("--target-dir").arg(&target_dir).status();
    ensure!(built.context("could not run cargo")?.success(), "the benchmark does not compile for wasm");
    let host = ["build", "--release", "-p", "ingest-host", "--example", "command"];
    let built = cargo::command(host).status().context("could not run cargo")?;
    ensure!(built.success(), "the host of the benchmark does not compile");
    let programs = Programs::build(&["record-bench"], Profile::Release)?;
    let native = programs.path("record-bench")?;
    let host = native.with_file_name("examples").join("command");
    let component = target_dir.join(toolchain::WASM_TARGET).join("release-wasm/record-bench.wasm");

    let in_wasm = measure(Command::new(host).arg(component))?;
    let native = measure(&mut Command::new(native))?;
    if arguments.json {
        println!("{:#}", json!({ "megabytes_per_second": { "wasm": in_wasm, "native": native } }));
        return Ok(());
    }
    let mut table = Table::new(["MB of body a second", "wasm", "native", "wasm/native"]);
    for (contender, speed) in &in_wasm {
        let (wasm, native) = (number(Some(speed)), number(native.get(contender)));
        table.row([contender.clone(), whole(wasm), whole(native), format!("{:.0} %", 100.0 * wasm / native)]);
    }
    println!("{table}");
    Ok(())
}

fn measure(command: &mut Command) -> anyhow::Result<Map<String, Value>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("could not run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed");
    serde_json::from_slice(&output.stdout).context("the benchmark printed no JSON")
}

fn number(value: Option<&Value>) -> f64 {
    value.and_then(Value::as_f64).unwrap_or(f64::NAN)
}
