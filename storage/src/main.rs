//! The `storage` program: arguments and the log; the rest is [`storage::node`] and [`storage::cli`].

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};
use rustix::process::{Resource, Rlimit};
use storage::cli::Tool;
use storage::config::Config;
use storage::node;
use tracing_subscriber::EnvFilter;

/// edgelog's storage daemon: keeps partitions of plain JSONL on this machine's disk, and searches them.
///
/// Without a subcommand it serves. The subcommands look at a data directory on which no daemon runs.
#[derive(Debug, Parser)]
#[command(name = "storage", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    tool: Option<Tool>,

    #[command(flatten)]
    config: Config,

    #[command(flatten)]
    log: LogArguments,
}

/// What the daemon says about itself.
#[derive(Args, Debug)]
#[command(next_help_heading = "Messages")]
struct LogArguments {
    /// What to log, as in `info` or `warn,storage::partition=debug`
    #[arg(
        long = "log",
        env = "EDGELOG_STORAGE_LOG",
        default_value = "info,openraft=off",
        value_name = "FILTER"
    )]
    filter: String,

    /// How to log
    #[arg(long = "log-format", env = "EDGELOG_STORAGE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            // Its causes are in it already.
            eprintln!("storage: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let file_limit = raise_file_limit();
    if let Some(tool) = &arguments.tool {
        return Ok(tool.run(&mut io::stdout().lock())?.into());
    }
    start_log(&arguments.log)?;
    if let Err(error) = file_limit {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    node::run(&arguments.config)?;
    Ok(ExitCode::SUCCESS)
}

/// Raises the limit of open files as far as the system allows: a connection is one, and so are the three files of each
/// segment. The usual 1,024 are for programs that still use select(2).
fn raise_file_limit() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(rustix::process::setrlimit(Resource::Nofile, raised)?)
}

/// Logs to standard error: standard output carries the address alone.
fn start_log(arguments: &LogArguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.filter)
        .map_err(|error| anyhow::anyhow!("`--log {}`: {error}", arguments.filter))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match arguments.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
