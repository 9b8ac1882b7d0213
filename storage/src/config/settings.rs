//! All that the daemon can be told: its configuration, and what to log of itself.

use std::path::PathBuf;

use clap::Args;
use telemetry::log::LogFormat;

use super::Config;

/// All settings, as flags, environment, and a file beneath both.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// A TOML file with settings, beneath the environment and the flags
    #[arg(long = "config", id = "config_file", env = "EDGELOG_STORAGE_CONFIG", value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// What the daemon does.
    #[command(flatten)]
    pub config: Config,

    /// What it says about itself.
    #[command(flatten)]
    pub log: LogArguments,
}

/// What the daemon says about itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Messages")]
pub struct LogArguments {
    /// What to log, as in `info` or `warn,storage::partition=debug`
    #[arg(long = "log", id = "log_filter", env = "EDGELOG_STORAGE_LOG", default_value = "info,openraft=off", value_name = "FILTER", value_parser = parse_filter)]
    pub filter: String,

    /// How to log
    #[arg(long = "log-format", env = "EDGELOG_STORAGE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub format: LogFormat,
}

fn parse_filter(filter: &str) -> Result<String, telemetry::log::FilterError> {
    telemetry::log::parse_filter(filter).map(|_| filter.to_owned())
}
