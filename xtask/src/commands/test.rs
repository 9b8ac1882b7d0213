//! `cargo xtask test` and `ci`: every check there is, in the order in which they fail fastest.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::test_counts::TestCounts;
use crate::cargo::{self, Programs};
use crate::table::Table;
use crate::{toolchain, workspace};

/// Which checks to run.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArguments {
    /// Leave out what takes longest: the component, the end-to-end scenarios and the documentation
    #[arg(long)]
    fast: bool,
}

/// Runs the checks; on a build machine (`CI` is set) as [`run_for_ci`] does.
///
/// # Errors
/// The first check that failed.
pub(crate) fn run(arguments: &TestArguments) -> anyhow::Result<()> {
    let on_build_machine = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    Checks { fast: arguments.fast, ci: on_build_machine, ..Checks::default() }.run()
}

/// Runs all checks for a log that is read afterwards: no colours, and all failures at once.
///
/// # Errors
/// The first check that failed.
pub(crate) fn run_for_ci() -> anyhow::Result<()> {
    Checks { ci: true, ..Checks::default() }.run()
}

/// The checks, and what they have found so far.
#[derive(Default)]
struct Checks {
    fast: bool,
    ci: bool,
    /// What the scenarios run.
    programs: Option<Programs>,
    counts: TestCounts,
    times: Vec<(&'static str, Duration)>,
    left_out: Vec<&'static str>,
}

/// What a script of tests exits with that cannot run on this machine.
const CANNOT_BE_RUN: i32 = 77;

impl Checks {
    fn run(mut self) -> anyhow::Result<()> {
        let outcome = self.run_steps();
        println!();
        let mut table = Table::new(["step", "seconds"]);
        for (name, took) in &self.times {
            table.row([(*name).to_owned(), format!("{:.1}", took.as_secs_f64())]);
        }
        let total: Duration = self.times.iter().map(|(_, took)| *took).sum();
        table.row(["all".to_owned(), format!("{:.1}", total.as_secs_f64())]);
        println!("{table}");
        println!("Tests: {}", self.counts);
        if outcome.is_ok() {
            let left_out =
                if self.fast { " (--fast: without the component, end to end and documentation)" } else { "" };
            println!("All checks passed{left_out}.");
            for what in &self.left_out {
                println!("LEFT OUT: {what}.");
            }
        }
        outcome
    }

    fn run_steps(&mut self) -> anyhow::Result<()> {
        self.step("format", |_| {
            toolchain::ensure_component("fmt", "rustfmt")?;
            succeed(cargo::command(["fmt", "--all", "--check"]), "`cargo fmt --all` formats the code")
        })?;
        if self.fast {
            self.step("lints", |_| {
                toolchain::ensure_component("clippy", "clippy")?;
                let clippy =
                    cargo::command(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
                succeed(clippy, "the lints must be clean")
            })?;
        } else {
            self.step("programs and lints", |checks| {
                toolchain::ensure_component("clippy", "clippy")?;
                checks.programs = Some(Programs::build_with_tests_and_lints()?);
                Ok(())
            })?;
            self.step("component", |_| cargo::build_component().map(drop))?;
            self.step("component's lints", |_| {
                let mut clippy = cargo::command(["clippy"]);
                clippy.args(cargo::component_arguments()).args(["--", "-D", "warnings"]);
                succeed(clippy, "the lints must be clean")
            })?;
        }
        if !self.fast {
            self.step("deployment tools", |checks| super::deploy::ensure_for_tests(checks.ci))?;
        }
        self.tests()?;
        if !self.fast {
            self.step("viewer", Self::viewer)?;
            self.step("documentation", |_| {
                let mut doc = cargo::command(["doc", "--workspace", "--no-deps"]);
                doc.env("RUSTDOCFLAGS", "-D warnings");
                succeed(doc, "the documentation must have no broken links")
            })?;
        }
        Ok(())
    }

    fn tests(&mut self) -> anyhow::Result<()> {
        let which: &[&str] =
            if self.fast { &["--workspace", "--exclude", "tests"] } else { &["--workspace"] };
        if !toolchain::has_nextest() {
            // It runs the documentation's examples too.
            return self.step("tests", |checks| {
                let mut test = cargo::command(["test"]);
                test.args(which).args(checks.ci.then_some("--no-fail-fast"));
                checks.count(test)
            });
        }
        self.step("tests", |checks| {
            let mut nextest = cargo::command(["nextest", "run"]);
            nextest.args(which).args(checks.ci.then_some("--profile=ci"));
            checks.count(nextest)
        })?;
        self.step("examples", |checks| {
            let mut test = cargo::command(["test", "--doc"]);
            test.args(which);
            checks.count(test)
        })
    }

    /// The viewer in a browser. Where there is none, and none can be installed, it is left out, loudly; on a build
    /// machine it never is.
    fn viewer(&mut self) -> anyhow::Result<()> {
        let programs = self.programs.as_ref().context("the programs were built")?;
        let mut run = Command::new(workspace::root().join("tests/viewer/run.sh"));
        run.env("STORAGE_BIN", programs.path("storage")?);
        let status = self.run_counted(run, "tests/viewer/run.sh")?;
        if status.code() == Some(CANNOT_BE_RUN) && !self.ci {
            self.left_out.push("the viewer's tests, for which this machine has no browser");
            return Ok(());
        }
        ensure!(status.success(), "`tests/viewer/run.sh` failed");
        Ok(())
    }

    /// Runs a step, and notes how long it took.
    fn step(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let folded = self.ci && std::env::var_os("GITHUB_ACTIONS").is_some();
        println!("{}{name}", if folded { "::group::" } else { "\n== " });
        let started = Instant::now();
        let outcome = work(self);
        let took = started.elapsed();
        self.times.push((name, took));
        if folded {
            println!("::endgroup::");
        }
        println!(
            "   {name}: {} in {:.1} s",
            if outcome.is_ok() { "ok" } else { "FAILED" },
            took.as_secs_f64()
        );
        outcome.with_context(|| format!("the check \"{name}\" failed"))
    }

    /// Runs tests, passes on what they print, and counts them.
    fn count(&mut self, mut command: Command) -> anyhow::Result<()> {
        // Through a pipe the runner would think that nobody wants colours.
        let colours = !self.ci && io::stderr().is_terminal();
        command.env("CARGO_TERM_COLOR", if colours { "always" } else { "never" });
        // What was built a step before, and need not be looked for or built by the tests.
        if let Some(programs) = &self.programs {
            let dir = programs.path("storage")?.parent().context("a program lies in a directory")?;
            command.env("EDGELOG_BIN_DIR", dir).env("EDGELOG_COMPONENT", workspace::component());
            command.env(cargo::LINTED.0, cargo::LINTED.1);
        }
        let shown = shown(&command);
        ensure!(self.run_counted(command, &shown)?.success(), "`{shown}` failed");
        Ok(())
    }

    /// Runs what prints how many tests there were, and counts them.
    fn run_counted(&mut self, mut command: Command, shown: &str) -> anyhow::Result<ExitStatus> {
        println!("> {shown}");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("could not run `{shown}`"))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (out, err) = std::thread::scope(|scope| {
            let out = scope.spawn(|| pass_on(out, io::stdout()));
            let err = pass_on(err, io::stderr());
            (out.join(), err)
        });
        let out = out.map_err(|_panic| anyhow::anyhow!("the output could not be read"))?;
        self.counts += out?;
        self.counts += err?;
        Ok(child.wait()?)
    }
}

/// Copies lines, and sums up the tests that they report.
fn pass_on(from: Option<impl Read>, mut to: impl Write) -> io::Result<TestCounts> {
    let mut counts = TestCounts::default();
    let Some(from) = from else { return Ok(counts) };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        if let Some(more) = TestCounts::in_line(&String::from_utf8_lossy(&line)) {
            counts += more;
        }
        line.clear();
    }
    Ok(counts)
}

fn succeed(mut command: Command, why: &str) -> anyhow::Result<()> {
    let shown = shown(&command);
    println!("> {shown}");
    let status = command.status().context("could not run cargo")?;
    ensure!(status.success(), "`{shown}` failed: {why}");
    Ok(())
}

/// The command as a user would type it.
fn shown(command: &Command) -> String {
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    format!("cargo {}", arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runner_prints_is_passed_on_and_counted() {
        let printed = b"running\ntest result: ok. 2 passed; 0 failed; 1 ignored\nnot UTF-8: \xff\ntest result: ok. 3 passed; 0 failed; 0 ignored";
        let mut shown = Vec::new();
        let counts = pass_on(Some(&printed[..]), &mut shown).unwrap();
        assert_eq!(counts, TestCounts { passed: 5, failed: 0, skipped: 1 });
        assert_eq!(shown, printed);
    }
}
