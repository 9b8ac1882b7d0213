//! The `storage` program: arguments and the log; the rest is [`storage::node`] and [`storage::cli`].

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use rustix::process::{Resource, Rlimit};
use storage::cli::{DoctorArgs, Tool, doctor};
use storage::config::{Settings, file};
use storage::node;

/// edgelog's storage daemon: keeps partitions of plain JSONL on this machine's disk, and searches them.
///
/// Without a subcommand it serves. The subcommands look at a data directory on which no daemon runs, or at the
/// configuration.
#[derive(Debug, Parser)]
#[command(name = "storage", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,

    #[command(flatten)]
    settings: Settings,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
enum Task {
    #[command(flatten)]
    Tool(Tool),
    /// Look at ports, clocks, disk and limits, and say what to do before a node can serve
    Doctor(DoctorArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigTask),
}

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
enum ConfigTask {
    /// Check the file, the environment and the flags, and show what is in force and where it comes from
    Check(Settings),
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            // Its causes are in it already.
            eprintln!("storage: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let (command, matches) = parse()?;
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let file_limit = raise_file_limit();
    match &arguments.task {
        Some(Task::Tool(tool)) => return Ok(tool.run(&mut io::stdout().lock())?.into()),
        Some(Task::Doctor(args)) => return Ok(doctor(args, &mut io::stdout().lock())?.into()),
        Some(Task::Config(ConfigTask::Check(settings))) => {
            let path = ["config", "check"];
            if let (Some(check), Some(given)) = (command_at(&command, &path), matches_at(&matches, &path)) {
                file::show(check, given, settings.file.as_deref(), &mut io::stdout().lock())?;
            }
            node::check_files(&settings.config)?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    let Settings { config, log, .. } = &arguments.settings;
    telemetry::log::start(&log.filter, log.format)?;
    if let Err(error) = file_limit {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    node::run(config)?;
    Ok(ExitCode::SUCCESS)
}

/// The subcommands that take the daemon's settings; without one the daemon itself does.
const WITH_SETTINGS: [&[&str]; 3] = [&["config", "check"], &["doctor"], &[]];

/// Reads the command line, with the configuration's file beneath it if there is one.
fn parse() -> anyhow::Result<(Command, ArgMatches)> {
    let command = Arguments::command();
    let matches = command.clone().get_matches();
    let path =
        WITH_SETTINGS.into_iter().find(|path| matches_at(&matches, path).is_some()).unwrap_or_default();
    let (Some(of_settings), Some(given)) = (command_at(&command, path), matches_at(&matches, path)) else {
        return Ok((command, matches));
    };
    let Some(file) = given.get_one::<PathBuf>("config_file") else {
        return Ok((command, matches));
    };
    let with_file = file::beneath(of_settings.clone(), file)?;
    let command = replaced_at(command, path, with_file);
    let matches = command.clone().get_matches();
    Ok((command, matches))
}

fn command_at<'c>(command: &'c Command, path: &[&str]) -> Option<&'c Command> {
    path.iter().try_fold(command, |command, name| command.find_subcommand(name))
}

/// What was given of the subcommand at `path`, if that is the one which was given.
fn matches_at<'m>(matches: &'m ArgMatches, path: &[&str]) -> Option<&'m ArgMatches> {
    let matches = path.iter().try_fold(matches, |matches, name| matches.subcommand_matches(name))?;
    matches.subcommand_name().is_none().then_some(matches)
}

fn replaced_at(command: Command, path: &[&str], with: Command) -> Command {
    match path {
        [] => with,
        [name, rest @ ..] => command.mut_subcommand(name, |inner| replaced_at(inner, rest, with)),
    }
}

/// Raises the limit of open files as far as the system allows: a connection is one, and so are the three files of each
/// segment. The usual 1,024 are for programs that still use select(2).
fn raise_file_limit() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(rustix::process::setrlimit(Resource::Nofile, raised)?)
}
