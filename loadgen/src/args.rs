//! The command line: its flags, their defaults, and which values make sense.
//!
//! Invariant: [`Args`] that came from [`Args::check`] describe a run that can be tried. Nothing here does I/O.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use model::limits::{INGEST_RECORDS_MAX, TIMESTAMP_MS_MAX};

use crate::client::Target;
use crate::corpus::{BodyFormat, CorpusSpec, Profile};
use crate::limits::{CONNECTIONS_MAX, RETRIES_MAX, SERVICES_MAX, VERIFY_RECORDS_MAX};
use crate::messages::SERVICES;

/// Makes log records, sends them to an edgelog ingest, and verifies that every acknowledged one is stored once.
///
/// Exit status: 0 all records acknowledged (and verified), 1 something failed, 2 the run could not be tried,
/// 130 interrupted.
#[derive(Clone, Debug, Parser)]
#[command(name = "loadgen", version, about, args_override_self = true)]
pub(crate) struct Args {
    /// Where to send the records
    #[arg(long, default_value = "http://localhost:8080/v1/logs")]
    pub(crate) url: Target,

    /// Records of one batch (one request)
    #[arg(long, value_name = "RECORDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=INGEST_RECORDS_MAX as i64))]
    pub(crate) batch: u32,

    /// Records of the whole run
    #[arg(long, value_name = "RECORDS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) total: u64,

    /// Pause of a connection between two batches, milliseconds; 0 for none
    #[arg(long = "delay", value_name = "MS", default_value_t = 100)]
    pub(crate) delay_ms: u64,

    /// Seed of the records; a random one unless given. It is printed
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// What the messages carry: rich appends user=, request_id= and duration_ms= to half of them
    #[arg(long, value_enum, default_value_t = Profile::Plain)]
    pub(crate) profile: Profile,

    /// Services that log; those beyond the first four are of the same kinds, by other names
    #[arg(long, default_value_t = SERVICES.len() as u32, value_parser = clap::value_parser!(u32).range(1..=SERVICES_MAX as i64))]
    pub(crate) services: u32,

    /// The first record's timestamp, Unix milliseconds; now unless given. With --seed it fixes every byte
    #[arg(long = "start-timestamp", value_name = "UNIX_MS")]
    pub(crate) start_timestamp_ms: Option<u64>,

    /// Connections that send at once, one batch at a time each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=CONNECTIONS_MAX as i64))]
    pub(crate) connections: u16,

    /// Records per second over all connections; as fast as answers come unless given
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,

    /// Send NDJSON rather than a JSON array
    #[arg(long)]
    pub(crate) ndjson: bool,

    /// Ask for answers without a body (Prefer: return=minimal)
    #[arg(long)]
    pub(crate) minimal: bool,

    /// How long one attempt may take, from connecting to the end of the answer, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout_ms: u64,

    /// Further attempts of a batch that was not answered or is to be tried again; all with one Idempotency-Key
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=RETRIES_MAX as i64))]
    pub(crate) retries: u32,

    /// Read everything back from storage afterwards and compare: every acknowledged record, once
    #[arg(long)]
    pub(crate) verify: bool,

    /// The storage nodes that --verify reads from
    #[arg(
        long,
        value_name = "URL,URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8081,http://127.0.0.1:8082"
    )]
    pub(crate) storage: Vec<Target>,

    /// How long --verify waits without progress for a storage node to come back or a record to appear, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 15_000)]
    pub(crate) settle_ms: u64,

    /// Write the records to this file as NDJSON instead of sending them; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["verify", "json"])]
    pub(crate) out: Option<PathBuf>,

    /// Print the summary as JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) json: bool,
}

/// Flags that are each valid but not together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    /// The records' timestamps would leave what edgelog takes.
    #[error(
        "--start-timestamp and --total reach beyond the year 9999: the last timestamp may be {TIMESTAMP_MS_MAX}"
    )]
    TimestampTooLate,
    /// The comparison would take too much memory.
    #[error("--verify compares at most {VERIFY_RECORDS_MAX} records")]
    TooManyToVerify,
}

impl Args {
    /// The corpus that these flags ask for: `seed` and `now_ms` (Unix milliseconds) stand in where none is given.
    ///
    /// # Errors
    /// Flags that do not go together.
    pub(crate) fn check(&self, seed: u64, now_ms: u64) -> Result<CorpusSpec, ArgsError> {
        let spec = CorpusSpec {
            seed: self.seed.unwrap_or(seed),
            profile: self.profile,
            services: self.services,
            start_timestamp_ms: self.start_timestamp_ms.unwrap_or(now_ms),
            record_count: self.total,
        };
        if spec.timestamp_ms_max() > TIMESTAMP_MS_MAX {
            return Err(ArgsError::TimestampTooLate);
        }
        if self.verify && self.total > VERIFY_RECORDS_MAX {
            return Err(ArgsError::TooManyToVerify);
        }
        Ok(spec)
    }

    /// How the records of a batch make a body.
    pub(crate) fn body_format(&self) -> BodyFormat {
        if self.ndjson { BodyFormat::Ndjson } else { BodyFormat::Array }
    }

    /// The pause of a connection between two batches.
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// How long one attempt may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How long `--verify` waits without progress.
    pub(crate) fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["loadgen"].iter().chain(flags))
    }

    #[test]
    fn the_flags_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn without_flags_a_hundred_records_go_to_the_local_ingest_in_batches_of_ten() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.url.to_string(), "http://localhost:8080/v1/logs");
        assert_eq!((args.batch, args.total, args.delay_ms, args.connections), (10, 100, 100, 1));
        assert_eq!((args.profile, args.rate, args.seed), (Profile::Plain, None, None));
        let storage: Vec<_> = args.storage.iter().map(ToString::to_string).collect();
        assert_eq!(storage, ["http://127.0.0.1:8081/", "http://127.0.0.1:8082/"]);
        assert!(!args.verify && !args.json && !args.ndjson && !args.minimal && args.out.is_none());
    }

    #[test]
    fn what_is_not_given_is_drawn_and_what_is_given_stays() {
        let drawn = parse(&[]).unwrap().check(7, 1_000).unwrap();
        assert_eq!((drawn.seed, drawn.start_timestamp_ms), (7, 1_000));
        let given = parse(&["--seed", "3", "--start-timestamp", "5"]).unwrap().check(7, 1_000).unwrap();
        assert_eq!((given.seed, given.start_timestamp_ms), (3, 5));
    }

    #[test]
    fn values_that_make_no_run_are_refused() {
        for bad in [
            &["--batch", "0"][..],
            &["--batch", "100001"],
            &["--total", "0"],
            &["--connections", "0"],
            &["--connections", "1025"],
            &["--rate", "0"],
            &["--retries", "101"],
            &["--timeout-ms", "0"],
            &["--url", "https://localhost/v1/logs"],
            &["--url", "localhost"],
            &["--profile", "poor"],
            &["--services", "0"],
            &["--services", "10001"],
            &["--out", "-", "--verify"],
            &["--out", "-", "--json"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_flag_counts() {
        assert_eq!(parse(&["--total", "5", "--total", "7"]).unwrap().total, 7);
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        let late = parse(&["--start-timestamp", "253402300799999"]).unwrap();
        assert_eq!(late.check(0, 0).unwrap_err(), ArgsError::TimestampTooLate);
        let many = parse(&["--verify", "--total", "50000001"]).unwrap();
        assert_eq!(many.check(0, 0).unwrap_err(), ArgsError::TooManyToVerify);
    }
}
