//! The command line; every flag can also be given as `EDGELOG_INGEST_*` in the environment.
//!
//! Invariant: an argument that parses is within its bounds.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Parser};
use telemetry::log::LogFormat;

use crate::limits;

/// Serves edgelog's ingest component where Spin is not installed.
#[derive(Debug, Parser)]
#[command(name = "ingest-host", version)]
pub struct Arguments {
    /// The Spin manifest.
    #[arg(long, value_name = "FILE", default_value = "spin.toml", env = "EDGELOG_INGEST_FROM")]
    pub from: PathBuf,
    /// The compiled component, instead of the manifest's `source`.
    #[arg(long, value_name = "FILE", env = "EDGELOG_INGEST_COMPONENT")]
    pub component: Option<PathBuf>,
    /// Where to listen; with port 0 the system picks one. The address is printed once it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", env = "EDGELOG_INGEST_LISTEN")]
    pub listen: SocketAddr,
    /// Sets a variable of the application (else: SPIN_VARIABLE_NAME, then the manifest's default).
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = parse_variable, action = ArgAction::Append,
          env = "EDGELOG_INGEST_VARIABLE")]
    pub variables: Vec<(String, String)>,
    /// The key-value store's SQLite file, or `:memory:` [default: .spin/sqlite_key_value.db beside the manifest]
    #[arg(long, value_name = "FILE", env = "EDGELOG_INGEST_KEY_VALUE")]
    pub key_value: Option<String>,
    /// Directory for compiled code [default: .edgelog/cache beside the manifest]
    #[arg(long, value_name = "DIRECTORY", env = "EDGELOG_INGEST_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Bounds of the pool of instances.
    #[command(flatten)]
    pub instances: InstanceArguments,
    /// Bounds of the server.
    #[command(flatten)]
    pub server: ServerArguments,
    /// Shards: threads that each serve their connections with instances of their own [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = at_least_one(), env = "EDGELOG_INGEST_THREADS")]
    pub threads: Option<u32>,
    /// What to log, as in `info` or `info,guest=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "EDGELOG_INGEST_LOG")]
    pub log: String,
    /// How to log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "EDGELOG_INGEST_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// Bounds of the pool of instances.
#[derive(Debug, clap::Args)]
pub struct InstanceArguments {
    /// Requests that an instance answers before it is replaced.
    #[arg(long, value_name = "COUNT", default_value_t = limits::INSTANCE_REQUESTS_MAX as u32,
          value_parser = at_least_one(), env = "EDGELOG_INGEST_INSTANCE_REQUESTS_MAX")]
    pub instance_requests_max: u32,
    /// Requests that an instance has in hand at once.
    #[arg(long, value_name = "COUNT", default_value_t = limits::INSTANCE_CONCURRENCY_MAX as u32,
          value_parser = at_least_one(), env = "EDGELOG_INGEST_INSTANCE_CONCURRENCY_MAX")]
    pub instance_concurrency_max: u32,
    /// How long an instance without work is kept.
    #[arg(long, value_name = "MS", default_value_t = limits::INSTANCE_IDLE_MS,
          env = "EDGELOG_INGEST_INSTANCE_IDLE_MS")]
    pub instance_idle_ms: u64,
    /// Linear memory of an instance.
    #[arg(long, value_name = "BYTES", default_value_t = limits::INSTANCE_MEMORY_BYTES_MAX,
          env = "EDGELOG_INGEST_INSTANCE_MEMORY_BYTES_MAX")]
    pub instance_memory_bytes_max: usize,
    /// Instances at once [default: four per shard]
    #[arg(long, value_name = "COUNT", value_parser = at_least_one(),
          env = "EDGELOG_INGEST_INSTANCES_MAX")]
    pub instances_max: Option<u32>,
}

/// Bounds of the server.
#[derive(Debug, clap::Args)]
pub struct ServerArguments {
    /// Largest request body.
    #[arg(long, value_name = "BYTES", default_value_t = limits::BODY_BYTES_MAX,
          env = "EDGELOG_INGEST_BODY_BYTES_MAX")]
    pub body_bytes_max: u64,
    /// Connections at once; more wait.
    #[arg(long, value_name = "COUNT", default_value_t = limits::CONNECTIONS_MAX as u32,
          value_parser = at_least_one(), env = "EDGELOG_INGEST_CONNECTIONS_MAX")]
    pub connections_max: u32,
    /// Longest wait for a request's head, and life of a connection without requests.
    #[arg(long, value_name = "MS", default_value_t = limits::HEADER_READ_MS_MAX,
          env = "EDGELOG_INGEST_HEADER_READ_MS_MAX")]
    pub header_read_ms_max: u64,
    /// Longest time from a request's head to its response's head.
    #[arg(long, value_name = "MS", default_value_t = limits::REQUEST_MS_MAX,
          env = "EDGELOG_INGEST_REQUEST_MS_MAX")]
    pub request_ms_max: u64,
    /// How long requests in flight may go on after SIGTERM or SIGINT.
    #[arg(long, value_name = "MS", default_value_t = limits::SHUTDOWN_GRACE_MS,
          env = "EDGELOG_INGEST_SHUTDOWN_GRACE_MS")]
    pub shutdown_grace_ms: u64,
    /// How long after SIGTERM or SIGINT `/readyz` says no while requests are still taken, for a balancer to notice.
    #[arg(long, value_name = "MS", default_value_t = limits::DRAIN_MS, env = "EDGELOG_INGEST_DRAIN_MS")]
    pub drain_ms: u64,
    /// Leave Nagle's algorithm on, inbound and outbound, as Spin does.
    #[arg(long, env = "EDGELOG_INGEST_NAGLE")]
    pub nagle: bool,
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

fn parse_variable(argument: &str) -> Result<(String, String), String> {
    match argument.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_flag_and_its_default_is_documented() {
        let operations = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
        let table = telemetry::reference::settings(&Arguments::command(), false);
        telemetry::reference::check_section(&operations, "settings-ingest-host", &table).unwrap();
    }

    #[test]
    fn variables_may_repeat_and_contain_equals_signs() {
        let arguments = Arguments::try_parse_from(["x", "--variable", "a=1", "--variable", "b=c=d"]).unwrap();
        let expected = [("a", "1"), ("b", "c=d")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(arguments.variables, expected);
        assert!(Arguments::try_parse_from(["x", "--variable", "a"]).is_err());
    }

    #[test]
    fn counts_of_nothing_are_refused() {
        for flag in ["--threads", "--instances-max", "--connections-max", "--instance-requests-max"] {
            assert!(Arguments::try_parse_from(["x", flag, "0"]).is_err(), "{flag}");
        }
    }
}
