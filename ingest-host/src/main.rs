//! The `ingest-host` program: arguments and the log; the rest is [`ingest_host::host`].

use std::process::ExitCode;

use clap::Parser as _;
use ingest_host::arguments::Arguments;
use ingest_host::host;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = telemetry::log::start(&arguments.log, arguments.log_format);
    let started = log.map_err(Into::into).and_then(|()| host::run(&arguments));
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ingest-host: {error:#}");
            ExitCode::FAILURE
        }
    }
}
