//! `loadgen`: makes log records, sends them to an edgelog ingest, and verifies that every acknowledged one is stored
//! once.
//!
//! Dependencies point one way: `main → run → {sender → client, verify → client, compare} → {corpus, ledger, stats}`.
//! What decides right and wrong (`answer`, `ledger`, `compare`) is pure; sockets are known to `client` alone.

mod answer;
mod args;
mod client;
mod compare;
mod corpus;
mod ledger;
mod limits;
mod messages;
mod pacer;
mod report;
mod run;
mod sender;
mod stats;
mod verify;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use rand::TryRng;
use rand::rngs::SysRng;

use crate::args::Args;
use crate::sender::BatchKeys;

/// Something failed: a record was not acknowledged, or storage does not hold it once.
const EXIT_FAILED: u8 = 1;
/// The run could not be tried. The same as `clap` ends with when the flags make no sense.
const EXIT_NOT_TRIED: u8 = 2;
/// Stopped by Ctrl-C, as shells say it.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::from(EXIT_NOT_TRIED)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let now_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_millis();
    let now_ms = u64::try_from(now_ms).context("the clock is beyond reason")?;
    let mut random = SysRng;
    // 32 bits: short enough to type again, and all that a seed needs to differ in.
    let seed = random.try_next_u32().context("no random seed")?;
    let spec = args.check(u64::from(seed), now_ms)?;

    if let Some(path) = &args.out {
        let records = run::write_corpus(spec, path)?;
        eprintln!("loadgen: {records} records written, seed {}", spec.seed);
        return Ok(ExitCode::SUCCESS);
    }

    eprintln!("loadgen: {} records to {}, seed {}", spec.record_count, args.url, spec.seed);
    let keys = BatchKeys {
        seed: spec.seed,
        run: random.try_next_u64().context("no random run id")?,
        started_ms: now_ms,
    };
    // One thread: a load generator that leaves the other cores to what it measures.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")?;
    let report = runtime.block_on(run::run(args, spec, keys))?;
    if args.json {
        println!("{}", serde_json::to_string(&report).context("the report")?);
    } else {
        println!("{report}");
    }
    Ok(match (report.interrupted, report.ok) {
        (true, _) => ExitCode::from(EXIT_INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(EXIT_FAILED),
    })
}
