//! Building the other members.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{toolchain, workspace};

/// The setting with which cargo compiles the workspace's crates by clippy, which is the compiler and its own lints.
pub(crate) const LINTED: (&str, &str) = ("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");

/// How programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Fast to build.
    Dev,
    /// Fast to run.
    Release,
}

/// The cargo that runs this.
pub(crate) fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// `cargo ARGUMENTS` in the checkout's directory.
pub(crate) fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(workspace::root()).stdin(Stdio::null());
    command
}

/// What the component is built with, after `cargo build` or `cargo clippy`.
pub(crate) fn component_arguments() -> Vec<String> {
    let target_dir = workspace::component_target_dir().display().to_string();
    let flags = ["-p", "ingest-wasm", "--profile", "release-wasm", "--target", toolchain::WASM_TARGET];
    let flags = flags.into_iter().map(str::to_owned);
    flags.chain(["--target-dir".to_owned(), target_dir]).collect()
}

/// Compiles the ingest component, and answers where it is.
///
/// # Errors
/// The target is missing, or it does not compile.
pub(crate) fn build_component() -> anyhow::Result<PathBuf> {
    toolchain::ensure_wasm_target()?;
    let status = command(["build"]).args(component_arguments()).status().context("could not run cargo")?;
    ensure!(status.success(), "the ingest component does not compile");
    let component = workspace::component();
    ensure!(component.is_file(), "the component was compiled, but {} is not there", component.display());
    Ok(component)
}

/// Programs that were compiled.
pub(crate) struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Compiles the programs of these packages.
    ///
    /// # Errors
    /// They do not compile.
    pub(crate) fn build(packages: &[&str], profile: Profile) -> anyhow::Result<Self> {
        let mut build = command(["build", "--bins"]);
        for package in packages {
            build.args(["-p", package]);
        }
        if profile == Profile::Release {
            build.arg("--release");
        }
        Self::built_by(build)
    }

    /// Compiles everything that a test run needs, at once, with the lints: every program, and the tests, which so
    /// share each dependency, and have it compiled once. `cargo clippy` would look through all of them anew.
    ///
    /// # Errors
    /// Something does not compile, or has a lint's warning.
    pub(crate) fn build_with_tests_and_lints() -> anyhow::Result<Self> {
        let mut build = command(["build", "--workspace", "--all-targets", "--message-format=json"]);
        let output = build.env(LINTED.0, LINTED.1).stderr(Stdio::inherit()).output();
        let output = output.context("could not run cargo")?;
        let messages = String::from_utf8_lossy(&output.stdout);
        let diagnostics: Vec<String> = messages.lines().filter_map(diagnostic_of).collect();
        diagnostics.iter().for_each(|diagnostic| eprint!("{diagnostic}"));
        ensure!(output.status.success(), "the programs do not compile");
        ensure!(diagnostics.is_empty(), "the lints must be clean");
        Ok(Self(messages.lines().filter_map(program_of).collect()))
    }

    /// Where this program is.
    ///
    /// # Errors
    /// It was none of those that were built.
    pub(crate) fn path(&self, name: &str) -> anyhow::Result<&PathBuf> {
        self.0.get(name).with_context(|| format!("cargo built no program named {name}"))
    }

    fn built_by(mut build: Command) -> anyhow::Result<Self> {
        let build = build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
        let output = build.output().context("could not run cargo")?;
        ensure!(output.status.success(), "the programs do not compile");
        Ok(Self(String::from_utf8_lossy(&output.stdout).lines().filter_map(program_of).collect()))
    }
}

/// The program that one of cargo's messages reports, by name. The tests of a program are none.
fn program_of(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let executable = message.get("executable")?.as_str()?;
    let name = message.pointer("/target/name")?.as_str()?;
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    (!is_test).then(|| (name.to_owned(), PathBuf::from(executable)))
}

/// What the compiler has to say in one of cargo's messages, as it would print it. It is heard of the workspace's own
/// crates only.
fn diagnostic_of(message: &str) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_diagnostic = message.get("reason")? == "compiler-message";
    is_diagnostic.then(|| message.pointer("/message/rendered")?.as_str().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(executable: &str, is_test: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","target":{{"name":"storage"}},"profile":{{"test":{is_test}}},"executable":{executable}}}"#
        )
    }

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let program = program_of(&artifact(r#""/t/storage""#, false));
        assert_eq!(program, Some(("storage".to_owned(), PathBuf::from("/t/storage"))));
        assert_eq!(program_of(&artifact(r#""/t/deps/storage-1""#, true)), None);
        assert_eq!(program_of(&artifact("null", false)), None);
        assert_eq!(program_of("not JSON"), None);
    }

    #[test]
    fn warnings_are_found_in_cargos_messages() {
        let warning =
            r#"{"reason":"compiler-message","message":{"level":"warning","rendered":"warning: it\n"}}"#;
        assert_eq!(diagnostic_of(warning), Some("warning: it\n".to_owned()));
        assert_eq!(diagnostic_of(&artifact("null", false)), None);
    }
}
