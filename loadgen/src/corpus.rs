//! The corpus: which records a run sends, as JSON text.
//!
//! Invariant: record `n` of a corpus depends on its [`CorpusSpec`] and on `n` alone; the rich profile has the records
//! of the plain one, half of them with fields appended to the message. This module must not know how the records
//! travel. Every text is what `serde_json` writes for the [`model::Record`], so that a stored record can be compared
//! by the digest of its text. All text that can be rendered once is: making a record is copying six pieces.

use std::iter;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::messages::{Level, SERVICES, Service};

/// The shortest and the longest time between a record and the next.
const STEP_MS: (u32, u32) = (50, 500);

/// How many of 100 records have each level.
const LEVEL_PERCENT: [(Level, u32); 4] =
    [(Level::Debug, 10), (Level::Info, 70), (Level::Warn, 12), (Level::Error, 8)];

/// How many of 100 records have labels.
const LABELLED_PERCENT: u32 = 30;

/// How much a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// The services' messages as they are.
    Plain,
    /// Half of the messages carry `user`, `request_id` (16 hexadecimal digits) and `duration_ms`.
    Rich,
}

/// What decides a corpus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CorpusSpec {
    /// The seed of every choice.
    pub(crate) seed: u64,
    /// How much a message carries.
    pub(crate) profile: Profile,
    /// How many services log, at least one. Those beyond the four are of the same kinds, by other names.
    pub(crate) services: u32,
    /// The first record's timestamp, Unix milliseconds.
    pub(crate) start_timestamp_ms: u64,
    /// How many records there are.
    pub(crate) record_count: u64,
}

impl CorpusSpec {
    /// A bound of the last record's timestamp, Unix milliseconds.
    pub(crate) fn timestamp_ms_max(&self) -> u64 {
        self.start_timestamp_ms.saturating_add(self.record_count.saturating_mul(u64::from(STEP_MS.1)))
    }
}

/// How the records of a batch make one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFormat {
    /// A JSON array.
    Array,
    /// One record a line.
    Ndjson,
}

/// Records that travel together.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Its place in the run, from zero.
    pub(crate) number: u64,
    /// How many records it has, at least one.
    pub(crate) record_count: u32,
    /// The records.
    pub(crate) body: Bytes,
}

/// The records of one corpus, one after another.
pub(crate) struct Corpus {
    spec: CorpusSpec,
    remaining: u64,
    clock_ms: u64,
    /// Chooses what both profiles share.
    base: ChaCha8Rng,
    /// Chooses what the rich profile appends: a stream of its own, so that the profiles share the rest.
    rich: ChaCha8Rng,
    voices: Vec<Voice>,
}

impl Corpus {
    /// The corpus of this specification, at its first record.
    pub(crate) fn new(spec: CorpusSpec) -> Self {
        // The seed is laid out here and not by `seed_from_u64`, whose expansion belongs to the crate.
        let mut seed = [0; 32];
        for (to, from) in seed.iter_mut().zip(spec.seed.to_le_bytes()) {
            *to = from;
        }
        let base = ChaCha8Rng::from_seed(seed);
        let mut rich = base.clone();
        rich.set_stream(1);
        let kinds = SERVICES.iter().cycle().zip(0..spec.services);
        let voices = kinds.map(|(service, number)| Voice::new(service, number)).collect();
        Self { spec, remaining: spec.record_count, clock_ms: spec.start_timestamp_ms, base, rich, voices }
    }

    /// Appends the next record's JSON text to `out`. After the last record it appends nothing and answers `false`.
    pub(crate) fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        if self.remaining == 0 {
            return false;
        }
        self.remaining -= 1;

        let mut draw = Draw(self.base.next_u64());
        let step_ms = STEP_MS.0 + draw.below(STEP_MS.1 - STEP_MS.0 + 1);
        let Some(voice) = draw.pick(&self.voices) else { return false };

        out.extend_from_slice(b"{\"timestamp\":");
        write_decimal(out, self.clock_ms);
        out.extend_from_slice(voice.line(&mut draw).as_bytes());
        if self.spec.profile == Profile::Rich {
            write_rich_fields(out, &mut self.rich);
        }
        out.push(b'"');
        if draw.below(100) < LABELLED_PERCENT {
            out.extend_from_slice(draw.pick(&voice.labels).map_or(&[], |labels| labels.as_bytes()));
        }
        out.push(b'}');

        self.clock_ms += u64::from(step_ms);
        true
    }

    /// Cuts the corpus into batches of `batch_records` records; the last may be shorter.
    pub(crate) fn into_batches(
        mut self,
        batch_records: u32,
        format: BodyFormat,
    ) -> impl Iterator<Item = Batch> {
        let mut number = 0;
        let mut body_bytes = 0;
        iter::from_fn(move || {
            // Batches are much alike in size: an eighth more than the last one seldom has to grow.
            let mut body = Vec::with_capacity(body_bytes + body_bytes / 8);
            let record_count = self.write_batch(&mut body, batch_records, format);
            if record_count == 0 {
                return None;
            }
            body_bytes = body.len();
            let batch = Batch { number, record_count, body: body.into() };
            number += 1;
            Some(batch)
        })
    }

    /// Appends the next records, at most `batch_records`; how many there were.
    fn write_batch(&mut self, body: &mut Vec<u8>, batch_records: u32, format: BodyFormat) -> u32 {
        let (open, separator, close): (&[u8], u8, &[u8]) = match format {
            BodyFormat::Array => (b"[", b',', b"]"),
            BodyFormat::Ndjson => (b"", b'\n', b"\n"),
        };
        body.extend_from_slice(open);
        let mut record_count = 0;
        while record_count < batch_records && self.write_next(body) {
            body.push(separator);
            record_count += 1;
        }
        if record_count > 0 {
            body.pop();
        }
        body.extend_from_slice(close);
        record_count
    }
}

/// What one service says, rendered.
struct Voice {
    /// For each level, in the order of [`LEVEL_PERCENT`]: the text from the service to the message's last character.
    lines: Vec<Vec<String>>,
    /// Every combination of the labels' values, as the record's member.
    labels: Vec<String>,
}

impl Voice {
    /// What service `number` of all says, which is of this kind.
    fn new(service: &Service, number: u32) -> Self {
        let name = match number / SERVICES.len() as u32 {
            0 => service.name.to_owned(),
            round => format!("{}_{}", service.name, round + 1),
        };
        let lines = LEVEL_PERCENT.iter().map(|(level, _)| render_lines(service, &name, *level)).collect();
        Self { lines, labels: render_labels(service) }
    }

    /// A text of a level drawn by weight.
    fn line(&self, draw: &mut Draw) -> &str {
        let mut percent = draw.below(100);
        for (texts, (_, weight)) in self.lines.iter().zip(LEVEL_PERCENT) {
            if percent < weight {
                return draw.pick(texts).map_or("", String::as_str);
            }
            percent -= weight;
        }
        ""
    }
}

fn render_lines(service: &Service, name: &str, level: Level) -> Vec<String> {
    let of_level = service.messages.iter().filter(|message| message.level == level);
    of_level
        .map(|message| {
            let level = level.as_str();
            let text = json_inner(message.text);
            format!(r#","service":"{}","level":"{level}","message":"{text}"#, json_inner(name))
        })
        .collect()
}

fn render_labels(service: &Service) -> Vec<String> {
    let mut combinations = vec![String::new()];
    for label in service.labels {
        combinations = combinations
            .iter()
            .flat_map(|before| label.values.iter().map(move |value| (before, value)))
            .map(|(before, value)| {
                let comma = if before.is_empty() { "" } else { "," };
                format!(r#"{before}{comma}"{}":"{}""#, json_inner(label.name), json_inner(value))
            })
            .collect();
    }
    combinations.into_iter().map(|members| format!(r#","labels":{{{members}}}"#)).collect()
}

/// The text as it stands between the quotes of a JSON string.
fn json_inner(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// Appends the rich profile's fields to every other message, by chance.
fn write_rich_fields(out: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let mut draw = Draw(rng.next_u64());
    if draw.below(2) == 0 {
        return;
    }
    let request_id = rng.next_u64();
    out.extend_from_slice(b" user=");
    write_decimal(out, u64::from(1 + draw.below(100_000)));
    out.extend_from_slice(b" request_id=");
    write_hex(out, request_id);
    out.extend_from_slice(b" duration_ms=");
    // Most calls are short: each doubling of the bound from 16 ms to 4 s is equally frequent.
    let bound_ms = 16 << draw.below(9);
    write_decimal(out, u64::from(1 + draw.below(bound_ms)));
}

/// A random number that is spent choice by choice, the way arithmetic decoding does: a record's choices take some
/// 35 of its 64 bits.
struct Draw(u64);

impl Draw {
    /// A number below `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        let product = u128::from(self.0) * u128::from(bound);
        self.0 = product as u64;
        (product >> 64) as u32
    }

    /// One of `choices`; `None` only when there are none.
    fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len() as u32) as usize)
    }
}

fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

fn write_hex(out: &mut Vec<u8>, number: u64) {
    let digits: [u8; 16] = std::array::from_fn(|place| {
        let nibble = (number >> (60 - 4 * place)) as u8 & 0xf;
        if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
    });
    out.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use expect_test::expect;
    use model::Record;

    use super::*;

    fn spec(profile: Profile, record_count: u64) -> CorpusSpec {
        CorpusSpec { seed: 1, profile, services: 4, start_timestamp_ms: 1_700_000_000_000, record_count }
    }

    fn texts(spec: CorpusSpec) -> Vec<String> {
        let mut corpus = Corpus::new(spec);
        let mut texts = Vec::new();
        let mut text = Vec::new();
        while corpus.write_next(&mut text) {
            texts.push(String::from_utf8(std::mem::take(&mut text)).unwrap());
        }
        texts
    }

    fn records(spec: CorpusSpec) -> Vec<Record> {
        texts(spec).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    /// Asserts that `count` is within 5 % of `percent` of `total`.
    fn assert_share(count: usize, total: usize, percent: f64, what: &str) {
        let share = count as f64 * 100.0 / total as f64;
        assert!((share / percent - 1.0).abs() < 0.05, "{what}: {share} % instead of {percent} %");
    }

    #[test]
    fn the_first_records_of_seed_one_never_change() {
        expect![[r#"
            {"timestamp":1700000000000,"service":"focus_allocator","level":"INFO","message":"working hours updated, replanning the affected days"}
            {"timestamp":1700000000222,"service":"focus_allocator","level":"DEBUG","message":"preference vector loaded from the snapshot store"}
            {"timestamp":1700000000405,"service":"focus_allocator","level":"DEBUG","message":"scoring candidate slots for the next planning window","labels":{"host":"focus-1","queue":"interactive","region":"us-east-1","version":"2.14.1"}}"#]].assert_eq(&texts(spec(Profile::Plain, 3)).join("\n"));
        expect![[r#"
            {"timestamp":1700000000000,"service":"focus_allocator","level":"INFO","message":"working hours updated, replanning the affected days"}
            {"timestamp":1700000000222,"service":"focus_allocator","level":"DEBUG","message":"preference vector loaded from the snapshot store user=63599 request_id=a35d1d16a09a4bb5 duration_ms=61"}
            {"timestamp":1700000000405,"service":"focus_allocator","level":"DEBUG","message":"scoring candidate slots for the next planning window","labels":{"host":"focus-1","queue":"interactive","region":"us-east-1","version":"2.14.1"}}"#]].assert_eq(&texts(spec(Profile::Rich, 3)).join("\n"));
    }

    #[test]
    fn the_same_specification_gives_the_same_bytes_and_another_seed_gives_others() {
        let one = spec(Profile::Rich, 2_000);
        assert_eq!(texts(one), texts(one));
        assert_ne!(texts(one), texts(CorpusSpec { seed: 2, ..one }));
    }

    #[test]
    fn a_record_does_not_depend_on_how_many_follow_or_how_they_are_batched() {
        let all = texts(spec(Profile::Rich, 100));
        assert_eq!(texts(spec(Profile::Rich, 40)), all[..40]);
        for batch_records in [1, 7, 100, 1_000] {
            let batches: Vec<_> = Corpus::new(spec(Profile::Rich, 100))
                .into_batches(batch_records, BodyFormat::Ndjson)
                .collect();
            let lines: Vec<_> =
                batches.iter().flat_map(|b| std::str::from_utf8(&b.body).unwrap().lines()).collect();
            assert_eq!(lines, all, "batches of {batch_records}");
            let numbers: Vec<_> = batches.iter().map(|b| b.number).collect();
            assert_eq!(numbers, (0..100u64.div_ceil(u64::from(batch_records))).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_array_body_holds_the_records_of_its_batch() {
        let all = records(spec(Profile::Plain, 25));
        let mut got = Vec::new();
        for batch in Corpus::new(spec(Profile::Plain, 25)).into_batches(10, BodyFormat::Array) {
            let records: Vec<Record> = serde_json::from_slice(&batch.body).unwrap();
            assert_eq!(records.len(), batch.record_count as usize);
            got.extend(records);
        }
        assert_eq!(got, all);
    }

    #[test]
    fn every_text_is_the_canonical_json_of_its_record() {
        for profile in [Profile::Plain, Profile::Rich] {
            for text in texts(spec(profile, 5_000)) {
                let record: Record = serde_json::from_str(&text).unwrap();
                assert_eq!(serde_json::to_string(&record).unwrap(), text);
            }
        }
    }

    #[test]
    fn timestamps_start_at_the_start_and_advance_by_50_to_500_ms() {
        let spec = spec(Profile::Plain, 20_000);
        let records = records(spec);
        assert_eq!(records[0].timestamp, spec.start_timestamp_ms);
        let steps: BTreeSet<_> =
            records.windows(2).map(|pair| pair[1].timestamp - pair[0].timestamp).collect();
        assert_eq!(steps.first(), Some(&50));
        assert_eq!(steps.last(), Some(&500));
        assert!(records.last().unwrap().timestamp <= spec.timestamp_ms_max());
    }

    #[test]
    fn services_levels_and_labels_occur_as_often_as_stated() {
        let records = records(spec(Profile::Plain, 100_000));
        let mut services = BTreeMap::<_, usize>::new();
        let mut levels = BTreeMap::<_, usize>::new();
        for record in &records {
            *services.entry(record.service.as_str()).or_default() += 1;
            *levels.entry(record.level.as_deref().unwrap()).or_default() += 1;
        }
        for service in ["focus_allocator", "event_creator", "auth_service", "notification_service"] {
            assert_share(services[service], records.len(), 25.0, service);
        }
        for (level, percent) in [("DEBUG", 10.0), ("INFO", 70.0), ("WARN", 12.0), ("ERROR", 8.0)] {
            assert_share(levels[level], records.len(), percent, level);
        }
        let labelled = records.iter().filter(|r| !r.labels.is_empty()).count();
        assert_share(labelled, records.len(), 30.0, "labels");
        assert!(records.iter().any(|r| r.labels.get("auth_method").is_some_and(|method| method == "saml")));
    }

    #[test]
    fn every_service_says_all_of_its_24_messages_at_their_levels() {
        let mut said = BTreeMap::<String, BTreeSet<(String, String)>>::new();
        for record in records(spec(Profile::Plain, 20_000)) {
            said.entry(record.service).or_default().insert((record.level.unwrap(), record.message));
        }
        for service in &SERVICES {
            let listed = service.messages.iter().map(|m| (m.level.as_str().to_owned(), m.text.to_owned()));
            assert_eq!(said[service.name], listed.collect(), "{}", service.name);
        }
    }

    #[test]
    fn further_services_are_of_the_same_kinds_and_have_names_of_their_own() {
        let spec = CorpusSpec { services: 10, ..spec(Profile::Rich, 2_000) };
        let mut names = BTreeMap::<String, usize>::new();
        for record in records(spec) {
            *names.entry(record.service).or_default() += 1;
        }
        assert_eq!(names.len(), 10);
        for kind in &SERVICES {
            let of_kind = names.keys().filter(|name| name.starts_with(kind.name)).count();
            assert!((2..=3).contains(&of_kind), "{names:?}");
        }
        assert!(names.contains_key(&format!("{}_2", SERVICES[0].name)), "{names:?}");
        assert!(texts(CorpusSpec { services: 1, ..spec }).iter().all(|text| text.contains(SERVICES[0].name)));
    }

    #[test]
    fn the_rich_profile_appends_three_fields_to_half_of_the_plain_messages() {
        let plain = records(spec(Profile::Plain, 20_000));
        let rich = records(spec(Profile::Rich, 20_000));
        let mut appended = 0;
        for (plain, rich) in plain.iter().zip(&rich) {
            let fields = rich.message.strip_prefix(&plain.message).unwrap();
            assert_eq!(Record { message: plain.message.clone(), ..rich.clone() }, *plain);
            if fields.is_empty() {
                continue;
            }
            appended += 1;
            let values: Vec<_> =
                fields.split(' ').skip(1).map(|field| field.split_once('=').unwrap()).collect();
            assert_eq!(values.iter().map(|v| v.0).collect::<Vec<_>>(), ["user", "request_id", "duration_ms"]);
            assert!(values[0].1.parse::<u32>().is_ok_and(|user| (1..=100_000).contains(&user)));
            assert!(values[1].1.len() == 16 && u64::from_str_radix(values[1].1, 16).is_ok());
            assert!(values[2].1.parse::<u32>().is_ok_and(|ms| (1..=4_096).contains(&ms)));
        }
        assert_share(appended, rich.len(), 50.0, "rich");
    }

    #[test]
    fn numbers_are_written_as_rust_writes_them() {
        for number in [0, 1, 9, 10, 1_700_000_000_000, u64::MAX] {
            let (mut decimal, mut hex) = (Vec::new(), Vec::new());
            write_decimal(&mut decimal, number);
            write_hex(&mut hex, number);
            assert_eq!(String::from_utf8(decimal).unwrap(), number.to_string());
            assert_eq!(String::from_utf8(hex).unwrap(), format!("{number:016x}"));
        }
    }
}
