//! The summary of a run, as JSON and as text.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::compare::Verification;
use crate::corpus::Profile;
use crate::limits::EXAMPLE_CHARS_MAX;
use crate::stats::Latencies;

/// What a run was, what it measured, and whether it went well.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Nothing failed, everything was sent, and storage holds it if that was asked.
    pub(crate) ok: bool,
    /// The run was stopped before its end.
    pub(crate) interrupted: bool,
    /// The corpus's seed.
    pub(crate) seed: u64,
    /// The first record's timestamp, Unix milliseconds.
    pub(crate) start_timestamp_ms: u64,
    /// What the messages carried.
    pub(crate) profile: Profile,
    /// Services that logged.
    pub(crate) services: u32,
    /// Connections that sent.
    pub(crate) connections: u16,
    /// Records of a batch.
    pub(crate) batch_records: u32,
    /// The records by what became of them.
    pub(crate) records: RecordCounts,
    /// Batches that were sent.
    pub(crate) batches: u64,
    /// Attempts beyond each batch's first.
    pub(crate) retries: u64,
    /// From the first batch to the last answer.
    pub(crate) seconds: f64,
    /// Acknowledged records per second.
    pub(crate) records_per_second: f64,
    /// Megabytes (10⁶ bytes) of acknowledged bodies per second.
    pub(crate) megabytes_per_second: f64,
    /// Latencies of acknowledged batches, milliseconds.
    pub(crate) latency_ms: Latencies,
    /// Answers by status.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// Acknowledged batches by their `Durability` header.
    pub(crate) durability: BTreeMap<String, u64>,
    /// Attempts without an answer, by the kind of error.
    pub(crate) unanswered: BTreeMap<&'static str, u64>,
    /// The first things that went wrong while sending.
    pub(crate) failures: Vec<String>,
    /// What `--verify` found; absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verify: Option<Verified>,
}

/// A run's records by what became of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct RecordCounts {
    /// All that the run was to send.
    pub(crate) total: u64,
    /// Tried to send.
    pub(crate) sent: u64,
    /// The server answers for them.
    pub(crate) acked: u64,
    /// The server did not take them.
    pub(crate) rejected: u64,
    /// Nothing certain is known.
    pub(crate) failed: u64,
}

/// What became of the verification.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(crate) enum Verified {
    /// Storage was read to the end.
    Compared(Verification),
    /// Storage could not be read.
    Unreadable {
        /// Why.
        error: String,
    },
    /// It was interrupted.
    Interrupted,
}

impl Verified {
    /// Whether storage holds what it should, as far as is known.
    pub(crate) fn is_ok(&self) -> bool {
        matches!(self, Self::Compared(verification) if verification.is_ok())
    }
}

/// `text` cut to the length of an example.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(EXAMPLE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, latency_ms, .. } = self;
        let profile = format!("{:?}", self.profile).to_lowercase();
        let Self { seed, services, start_timestamp_ms, .. } = self;
        writeln!(f, "corpus      seed {seed}, {profile}, {services} services, from {start_timestamp_ms}")?;
        let (sent, batches, total) = (grouped(records.sent), grouped(self.batches), grouped(records.total));
        writeln!(f, "sent        {sent} of {total} records in {batches} batches, {:.2} s", self.seconds)?;
        let (per_second, megabytes) = (grouped(self.records_per_second as u64), self.megabytes_per_second);
        writeln!(f, "acked       {}: {per_second} records/s, {megabytes:.1} MB/s", grouped(records.acked))?;
        writeln!(f, "rejected    {}", grouped(records.rejected))?;
        writeln!(f, "failed      {}", grouped(records.failed))?;
        let Latencies { p50, p90, p99, p99_9, max } = latency_ms;
        writeln!(
            f,
            "latency     ms: p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p99_9:.2}, max {max:.2}"
        )?;
        writeln!(f, "answers     {}", listed(&self.answers))?;
        writeln!(f, "durability  {}", listed(&self.durability))?;
        if !self.unanswered.is_empty() {
            writeln!(f, "unanswered  {}", listed(&self.unanswered))?;
        }
        writeln!(f, "retries     {}", grouped(self.retries))?;
        for failure in &self.failures {
            writeln!(f, "  {failure}")?;
        }
        if let Some(verified) = &self.verify {
            writeln!(f, "{verified}")?;
        }
        f.write_str(match (self.interrupted, self.ok) {
            (true, _) => "interrupted",
            (false, true) => "ok",
            (false, false) => "FAILED",
        })
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verification = match self {
            Self::Compared(verification) => verification,
            Self::Unreadable { error } => return write!(f, "verify      not done: {error}"),
            Self::Interrupted => return f.write_str("verify      interrupted"),
        };
        let Verification { acked, in_doubt_stored, foreign, .. } = verification;
        if verification.is_ok() {
            write!(f, "verify      all {} acked records are stored, each once", grouped(*acked))?;
        } else {
            let Verification { missing, doubled, unexpected, out_of_order, unenriched, malformed, .. } =
                verification;
            write!(f, "verify      WRONG: of {} acked records {missing} missing; ", grouped(*acked))?;
            write!(f, "{doubled} doubled, {unexpected} stored although rejected, ")?;
            write!(f, "{out_of_order} out of order, {unenriched} not enriched, {malformed} malformed")?;
        }
        if *in_doubt_stored > 0 {
            write!(f, "; {} in doubt are stored", grouped(*in_doubt_stored))?;
        }
        if *foreign > 0 {
            write!(f, "; {} of other writers", grouped(*foreign))?;
        }
        for example in &verification.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

/// `200: 12, 503: 1`, or a dash for nothing.
fn listed<K: fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let parts: Vec<_> = counts.iter().map(|(key, count)| format!("{key}: {}", grouped(*count))).collect();
    if parts.is_empty() { "–".to_owned() } else { parts.join(", ") }
}

/// The number with commas between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn report() -> Report {
        Report {
            ok: false,
            interrupted: false,
            seed: 42,
            start_timestamp_ms: 1_700_000_000_000,
            profile: Profile::Rich,
            services: 4,
            connections: 8,
            batch_records: 1_000,
            records: RecordCounts {
                total: 1_000_000,
                sent: 1_000_000,
                acked: 998_999,
                rejected: 1,
                failed: 1_000,
            },
            batches: 1_000,
            retries: 2,
            seconds: 2.5,
            records_per_second: 399_599.6,
            megabytes_per_second: 90.04,
            latency_ms: Latencies { p50: 1.0, p90: 2.0, p99: 3.5, p99_9: 4.25, max: 100.0 },
            answers: BTreeMap::from([(200, 999), (503, 3)]),
            durability: BTreeMap::from([("leader".to_owned(), 999)]),
            unanswered: BTreeMap::from([("timeout", 1)]),
            failures: vec!["batch 3: 503 Service Unavailable: busy".to_owned()],
            verify: Some(Verified::Compared(Verification {
                acked: 998_999,
                missing: 1,
                in_doubt_stored: 1_000,
                foreign: 12,
                examples: vec!["missing: {\"timestamp\":1}".to_owned()],
                ..Verification::default()
            })),
        }
    }

    #[test]
    fn the_text_says_what_failed() {
        expect![[r#"
            corpus      seed 42, rich, 4 services, from 1700000000000
            sent        1,000,000 of 1,000,000 records in 1,000 batches, 2.50 s
            acked       998,999: 399,599 records/s, 90.0 MB/s
            rejected    1
            failed      1,000
            latency     ms: p50 1.00, p90 2.00, p99 3.50, p99.9 4.25, max 100.00
            answers     200: 999, 503: 3
            durability  leader: 999
            unanswered  timeout: 1
            retries     2
              batch 3: 503 Service Unavailable: busy
            verify      WRONG: of 998,999 acked records 1 missing; 0 doubled, 0 stored although rejected, 0 out of order, 0 not enriched, 0 malformed; 1,000 in doubt are stored; 12 of other writers
              missing: {"timestamp":1}
            FAILED"#]].assert_eq(&report().to_string());
    }

    #[test]
    fn the_json_holds_every_figure() {
        expect![[r#"{"ok":false,"interrupted":false,"seed":42,"start_timestamp_ms":1700000000000,"profile":"rich","services":4,"connections":8,"batch_records":1000,"records":{"total":1000000,"sent":1000000,"acked":998999,"rejected":1,"failed":1000},"batches":1000,"retries":2,"seconds":2.5,"records_per_second":399599.6,"megabytes_per_second":90.04,"latency_ms":{"p50":1.0,"p90":2.0,"p99":3.5,"p99.9":4.25,"max":100.0},"answers":{"200":999,"503":3},"durability":{"leader":999},"unanswered":{"timeout":1},"failures":["batch 3: 503 Service Unavailable: busy"],"verify":{"status":"compared","acked":998999,"in_doubt_stored":1000,"foreign":12,"missing":1,"doubled":0,"unexpected":0,"out_of_order":0,"unenriched":0,"malformed":0,"examples":["missing: {\"timestamp\":1}"]}}"#]].assert_eq(&serde_json::to_string(&report()).unwrap());
    }

    #[test]
    fn a_run_without_faults_says_so_in_one_line() {
        let verify = Verified::Compared(Verification { acked: 1_000, ..Verification::default() });
        assert!(verify.is_ok());
        assert_eq!(verify.to_string(), "verify      all 1,000 acked records are stored, each once");
        let unreadable = Verified::Unreadable { error: "storage node x: cannot connect".to_owned() };
        assert!(!unreadable.is_ok());
        assert_eq!(unreadable.to_string(), "verify      not done: storage node x: cannot connect");
    }

    #[test]
    fn numbers_are_grouped_by_three_digits() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn long_examples_are_cut_between_characters() {
        let text = "ä".repeat(EXAMPLE_CHARS_MAX);
        assert_eq!(shorten(&text), text);
        assert_eq!(shorten(&format!("{text}ä")), format!("{text}…"));
    }
}
