//! The `ingest-host` program: arguments and the log; the rest is [`ingest_host::host`].

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use ingest_host::arguments::{Arguments, LogFormat};
use ingest_host::host;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let started = start_log(&arguments).and_then(|()| host::run(&arguments));
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ingest-host: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error: standard output carries the address alone.
fn start_log(arguments: &Arguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log)
        .map_err(|error| anyhow::anyhow!("`--log {}`: {error}", arguments.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
