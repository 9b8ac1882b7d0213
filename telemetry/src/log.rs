//! The daemon's own log: lines for people or JSON objects, on standard error.
//!
//! Invariant: standard output carries the address alone. What is logged is never a record, nor a header's value but
//! those that name a request (`traceparent`'s trace id, the ingest's name).

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A filter that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`--log {filter}`: {reason}")]
pub struct FilterError {
    filter: String,
    reason: String,
}

/// Checks a filter, as in `info` or `warn,storage::partition=debug`.
///
/// # Errors
/// It cannot be used.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(filter)
        .map_err(|error| FilterError { filter: filter.to_owned(), reason: error.to_string() })
}

/// Starts the log.
///
/// # Errors
/// The filter cannot be used.
pub fn start(filter: &str, format: LogFormat) -> Result<(), FilterError> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(filter)?)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        // A line that cannot be written, to a file on a full disk perhaps, is lost. To say so on the same standard error
        // would panic, and with it the request that was being answered.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
