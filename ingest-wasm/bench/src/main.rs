//! What the record path costs, in the component's own machine code: the component's scanner against `serde_json`,
//! `sonic-rs` and `simd-json`, each on the same body, in turns. `cargo xtask bench component` runs it natively and in
//! wasm, and shows both.
//!
//! Prints one JSON object: megabytes of body a second, the best of some rounds, by contender.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ingest_wasm::batch::{Grouped, Grouping};
use ingest_wasm::budget::Budget;
use ingest_wasm::decode::BodyFormat;
use ingest_wasm::record::Enrichment;
use ingest_wasm::split;
use model::ids::BatchDigester;
use model::{PartitionCount, Tenant, route};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Records of the body: an ordinary batch, which fits into a core's cache as it does there.
const RECORDS: usize = 1_000;
/// How long one contender runs in one round.
const ROUND: Duration = Duration::from_millis(150);
const ROUNDS: usize = 7;
/// What enrichment adds, as the component writes it.
const ENRICHED: &str =
    r#","received_at":1700000000000,"ingested_node_id":"ingest-1","client_ip":"192.0.2.7"}"#;

/// The fields that decide what becomes of a record, as a parser that borrows finds them.
#[derive(Deserialize)]
struct Fields<'a> {
    timestamp: u64,
    #[serde(borrow)]
    service: Cow<'a, str>,
    #[serde(borrow)]
    level: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

type Contender = (&'static str, fn(&str) -> anyhow::Result<usize>);

const CONTENDERS: [Contender; 5] = [
    ("the component's scanner: check, route, splice, digest", scanner),
    ("serde_json, RawValue: the same", with_serde_json),
    ("sonic-rs, LazyValue: the same", with_sonic_rs),
    ("simd-json, tape alone: no text to splice", with_simd_json),
    ("serde_json, parse and encode anew", parse_and_encode),
];

fn main() -> anyhow::Result<()> {
    let body = body();
    let mut best = [Duration::MAX; CONTENDERS.len()];
    for _ in 0..ROUNDS {
        for ((name, run), best) in CONTENDERS.iter().zip(&mut best) {
            let mut runs = 0;
            let start = Instant::now();
            while start.elapsed() < ROUND {
                let written = run(&body).context(*name)?;
                ensure!(written > body.len() / 2, "{name} wrote {written} bytes");
                runs += 1;
            }
            *best = (*best).min(start.elapsed() / runs);
        }
    }
    let speeds = CONTENDERS.iter().zip(best).map(|((name, _), best)| {
        let megabytes_per_second = body.len() as f64 / best.as_secs_f64() / 1e6;
        ((*name).to_owned(), megabytes_per_second.round().into())
    });
    println!("{}", serde_json::Value::Object(speeds.collect()));
    Ok(())
}

/// A body as shippers send it: half of the messages carry fields, some are escaped, some records have labels.
fn body() -> String {
    let services = ["auth_service", "event_creator", "focus_allocator", "notification_service"];
    let record = |number: usize| {
        let service = services.get(number % services.len()).copied().unwrap_or_default();
        let more = match number % 4 {
            0 | 1 => format!(" user=u{number} request_id={number:016x} duration_ms={}", number % 977),
            2 => r#" said \"no\" at C:\\logs"#.to_owned(),
            _ => String::new(),
        };
        let labels = if number % 8 == 3 { r#","labels":{"region":"eu-1","pod":"web-7f"}"# } else { "" };
        let timestamp = 1_700_000_000_000 + number as u64;
        format!(
            r#"{{"timestamp":{timestamp},"service":"{service}","level":"INFO","message":"Handled the request of a client in time.{more}"{labels}}}"#
        )
    };
    format!("[{}]", (0..RECORDS).map(record).collect::<Vec<_>>().join(","))
}

/// What the component does.
fn scanner(body: &str) -> anyhow::Result<usize> {
    let budget = Budget::new(64 << 20);
    let enrichment = Enrichment::new(1_700_000_000_000, br#""ingest-1""#, "192.0.2.7");
    let count = PartitionCount::new(4).context("four partitions")?;
    let Grouped { batches, .. } =
        split::group(BodyFormat::Json, body.as_bytes(), Grouping::new(&enrichment, count, &budget))?;
    Ok(batches.iter().map(|batch| (batch.digest(), batch.lines.bytes().len()).1).sum())
}

/// The same, around another parser.
#[derive(Default)]
struct Lines {
    partitions: [(Vec<u8>, BatchDigester); 4],
}

impl Lines {
    fn add(&mut self, text: &str, fields: &Fields<'_>) -> anyhow::Result<()> {
        ensure!(fields.timestamp > 0 && !fields.message.is_empty());
        ensure!(fields.level.as_ref().is_none_or(|level| level.len() < 64));
        let count = PartitionCount::new(4).context("four partitions")?;
        let partition = route::partition_of(&Tenant::default(), fields.service.as_bytes(), count);
        let (lines, digester) =
            self.partitions.get_mut(usize::from(partition.get())).context("a partition of four")?;
        let open = text.strip_suffix('}').context("a record is an object")?;
        lines.extend_from_slice(open.as_bytes());
        lines.extend_from_slice(ENRICHED.as_bytes());
        lines.push(b'\n');
        digester.update(text.as_bytes());
        Ok(())
    }

    fn finish(self) -> usize {
        self.partitions.iter().map(|(lines, digester)| (digester.finish(), lines.len()).1).sum()
    }
}

fn with_serde_json(body: &str) -> anyhow::Result<usize> {
    let records: Vec<&RawValue> = serde_json::from_str(body)?;
    let mut lines = Lines::default();
    for record in records {
        lines.add(record.get(), &serde_json::from_str(record.get())?)?;
    }
    Ok(lines.finish())
}

fn with_sonic_rs(body: &str) -> anyhow::Result<usize> {
    let mut lines = Lines::default();
    for record in sonic_rs::to_array_iter(body) {
        let record = record?;
        let text = record.as_raw_str();
        lines.add(text, &sonic_rs::from_str(text)?)?;
    }
    Ok(lines.finish())
}

/// Only a lower bound of what it would take: it unescapes in place, so the texts to splice into are gone.
fn with_simd_json(body: &str) -> anyhow::Result<usize> {
    let mut copy = body.as_bytes().to_vec();
    let tape = simd_json::to_tape(&mut copy)?;
    ensure!(tape.0.len() > RECORDS);
    Ok(body.len())
}

/// What the records would cost that were parsed into structs and written anew.
fn parse_and_encode(body: &str) -> anyhow::Result<usize> {
    let records: Vec<model::Record> = serde_json::from_str(body)?;
    let mut lines = Vec::with_capacity(2 * body.len());
    for record in records {
        serde_json::to_writer(&mut lines, &record)?;
        lines.push(b'\n');
    }
    Ok(lines.len())
}
