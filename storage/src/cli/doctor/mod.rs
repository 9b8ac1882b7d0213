//! `storage doctor`: looks at what a node needs of its machine before it serves, and says what to do.
//!
//! Invariant: nothing of a data directory is changed, but for a file of the doctor's own that is removed again. It may
//! run beside the daemon. Each check stands for itself: one that fails keeps none from being made.

mod disk;
mod limits;
mod network;

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use url::Url;

use super::{Outcome, ToolError, write_json};
use crate::config::{Config, Settings, parse_node_url};
use crate::tls::NodeTls;

/// What the doctor looks at.
#[derive(clap::Args, Clone, Debug)]
pub struct DoctorArgs {
    /// The node's settings, as it would be started.
    #[command(flatten)]
    pub settings: Settings,

    /// Further nodes (storage or ingest) whose clocks are compared with this one's
    #[arg(long, value_delimiter = ',', value_parser = parse_node_url, value_name = "URL,URL")]
    pub peer: Vec<Url>,

    /// Answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// It works, and may not for long, or not well.
    Warning,
    /// A node cannot serve like that.
    Failure,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    state: State,
    /// What was looked at.
    check: &'static str,
    /// What was seen.
    seen: String,
    /// What to do about it; empty when nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self { state: State::Ok, check, seen: seen.into(), advice: String::new() }
    }

    fn warning(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Warning, check, seen: seen.into(), advice: advice.into() }
    }

    fn failure(check: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Failure, check, seen: seen.into(), advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok     ",
            State::Warning => "warning",
            State::Failure => "FAILURE",
        };
        write!(f, "{state}  {:<12} {}", self.check, self.seen)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "\n{:22}→ {}", "", self.advice) }
    }
}

/// Makes all checks and writes what they found.
///
/// # Errors
/// When the answer cannot be written.
pub fn doctor(args: &DoctorArgs, out: &mut dyn Write) -> Result<Outcome, ToolError> {
    let config = &args.settings.config;
    let named = config.cluster.named();
    let peers: Vec<&Url> = args.peer.iter().chain(&named).chain(&config.notify_ingest).collect();
    let mut findings = vec![of_settings(config)];
    findings.extend(of_certificate(config));
    findings.extend(network::look(config.listen, &peers));
    findings.extend(disk::look(config));
    findings.extend(limits::look(config));
    if args.json {
        write_json(out, &findings)?;
    } else {
        write_lines(out, &findings).map_err(ToolError::Output)?;
    }
    let worst = findings.iter().map(|finding| finding.state).max();
    Ok(if worst == Some(State::Failure) { Outcome::Damaged } else { Outcome::Sound })
}

fn write_lines(out: &mut dyn Write, findings: &[Finding]) -> io::Result<()> {
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (warnings, failures) = (count(State::Warning), count(State::Failure));
    writeln!(out, "{} checks, {warnings} warnings, {failures} failures", findings.len())
}

/// What the settings themselves say.
fn of_settings(config: &Config) -> Finding {
    let partitions = config.partitions_sorted().len();
    let seen = format!("node {}, {partitions} partitions, {}", config.node_name(), config.data.display());
    match config.log.fsync {
        crate::config::Fsync::Always => Finding::ok("settings", seen),
        weaker => Finding::warning(
            "settings",
            format!("{seen}; fsync is {weaker:?}"),
            "a power cut can cost what was acknowledged; leave --fsync at always unless that is wanted",
        ),
    }
}

/// What the files for TLS between nodes hold, if any are named.
fn of_certificate(config: &Config) -> Option<Finding> {
    let check = "certificate";
    match NodeTls::of(&config.cluster.tls).transpose()? {
        Ok(_) => Some(Finding::ok(check, "of an authority that is trusted, and goes with its key")),
        Err(error) => {
            let advice =
                "the node does not start like that; `openssl verify -CAfile` looks closer at a certificate";
            Some(Finding::failure(check, error.to_string(), advice))
        }
    }
}

/// A time for people.
fn in_ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests;
