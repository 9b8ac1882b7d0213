//! The answer to `POST /v1/logs`, from what became of each partition's batch.
//!
//! Pure. All batches stored: 200, some of them in the edge WAL: 202; or 204 for a client that wants no body. Otherwise a
//! problem that names the partitions without their records; the status is that of the failure which another try can
//! mend least.

use model::Problem;
use model::wire::{self, Durability, IngestAnswer};

use crate::batch::Rejections;
use crate::delivery::{Delivery, Failure, FailureKind, Outcome};
use crate::limits;
use crate::message::Answer;

/// What was taken of a request.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// Records that are in the batches.
    pub received: usize,
    /// Records that are not.
    pub rejections: &'a Rejections,
    /// The client would rather have no body.
    pub is_minimal: bool,
}

/// Partitions that a problem names one by one.
const PARTITIONS_NAMED_MAX: usize = 16;

/// The answer when the batches have these outcomes.
pub fn of_outcomes<'a>(taken: &Taken<'_>, outcomes: impl Iterator<Item = (&'a Delivery, Outcome)>) -> Answer {
    let mut failures = Vec::new();
    let mut durabilities = Vec::new();
    let (mut batches, mut queued) = (0, 0);
    for (delivery, outcome) in outcomes {
        batches += 1;
        match outcome {
            Outcome::Stored { durability } => durabilities.push(durability),
            Outcome::Queued => queued += delivery.record_count,
            Outcome::Failed(failure) => failures.push((delivery, failure)),
        }
    }
    if !failures.is_empty() {
        return not_stored(&failures, batches);
    }
    let answer = taken_all(taken, queued);
    if queued > 0 {
        // Weaker than any level of storage.
        return answer.with(wire::DURABILITY, Durability::Edge.as_str());
    }
    match weakest(&durabilities) {
        Some(durability) => answer.with(wire::DURABILITY, durability),
        None => answer,
    }
}

/// The answer when every record was rejected: the first one stands for all.
pub fn none_valid(rejections: &Rejections) -> Answer {
    let count = rejections.count;
    let Some(first) = rejections.listed.first() else {
        // Where nothing was received something was rejected; a request without records was refused before.
        return Answer::problem(&Problem::new(400, "the body has no records"));
    };
    let what = if first.field.is_empty() { String::new() } else { format!("{}: ", first.field) };
    let detail = format!("none of {count} records is valid; record {}: {what}{}", first.index, first.error);
    let problem = Problem::new(400, detail).at_record(first.index);
    let problem = if first.field.is_empty() { problem } else { problem.in_field(&first.field) };
    with_rejections(Answer::problem(&problem), rejections)
}

fn taken_all(taken: &Taken<'_>, queued: usize) -> Answer {
    let rejected = taken.rejections.count;
    if taken.is_minimal && rejected == 0 {
        return counted(Answer::empty(204).with("preference-applied", "return=minimal"), taken, queued);
    }
    let listed = &taken.rejections.listed;
    let body = IngestAnswer {
        received: taken.received,
        queued,
        rejected_total: (rejected > listed.len()).then_some(rejected),
        rejected: listed.clone(),
    };
    // A struct of strings and numbers always encodes.
    let status = if queued > 0 { 202 } else { 200 };
    counted(Answer::new(status, wire::JSON, serde_json::to_vec(&body).unwrap_or_default()), taken, queued)
}

/// The counts in headers too: who forwards the answer, or keeps counters, need not read its body.
fn counted(answer: Answer, taken: &Taken<'_>, queued: usize) -> Answer {
    let answer = with_rejections(answer.with("received", taken.received.to_string()), taken.rejections);
    if queued > 0 { answer.with("queued", queued.to_string()) } else { answer }
}

fn with_rejections(answer: Answer, rejections: &Rejections) -> Answer {
    let answer = answer.with("rejected", rejections.count.to_string());
    if rejections.by_field.is_empty() {
        return answer;
    }
    let of_field = |(field, count): (&&str, &usize)| {
        format!("{}={count}", if field.is_empty() { wire::REJECTED_WHOLE } else { field })
    };
    let fields: Vec<_> = rejections.by_field.iter().map(of_field).collect();
    answer.with(wire::REJECTED_FIELDS, fields.join(", "))
}

/// The durability that every batch has reached. `None` if storage did not name one for each.
fn weakest(durabilities: &[Option<String>]) -> Option<&str> {
    let mut weakest: Option<((Durability, bool), &str)> = None;
    for durability in durabilities {
        let text = durability.as_deref()?;
        let (level, qualifier) = text.split_once(';').unwrap_or((text, ""));
        // `leader; fsync=never` is less than `leader`.
        let rank = (Durability::parse(level.trim())?, qualifier.is_empty());
        if weakest.is_none_or(|(least, _)| rank < least) {
            weakest = Some((rank, text));
        }
    }
    weakest.map(|(_, text)| text)
}

fn not_stored(failures: &[(&Delivery, Failure)], batches: usize) -> Answer {
    let kind = failures.iter().map(|(_, failure)| failure.kind).min().unwrap_or(FailureKind::Unavailable);
    let named = failures.iter().take(PARTITIONS_NAMED_MAX);
    let named: Vec<_> = named
        .map(|(delivery, failure)| format!("partition {}: {}", delivery.partition, failure.detail))
        .collect();
    let more = failures.len().saturating_sub(PARTITIONS_NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let (status, advice) = match kind {
        FailureKind::Conflict => (409, "this Idempotency-Key was used for other records: use another one"),
        FailureKind::TooLarge => (413, "send the records in smaller requests"),
        FailureKind::Invalid | FailureKind::Refused => {
            (502, "storage and ingest do not understand one another")
        }
        FailureKind::DiskFull => {
            (503, "a disk is full; sent again with the same Idempotency-Key, nothing is stored twice")
        }
        FailureKind::Unavailable | FailureKind::Overloaded => {
            (503, "sent again with the same Idempotency-Key, nothing is stored twice")
        }
    };
    let detail = format!(
        "{} of {batches} partitions did not take their records ({}{more}); {advice}",
        failures.len(),
        named.join("; ")
    );
    let answer = Answer::problem(&Problem::new(status, detail));
    if status != 503 {
        return answer;
    }
    let least =
        if kind == FailureKind::DiskFull { limits::RETRY_AFTER_DISK_FULL_S } else { limits::RETRY_AFTER_S };
    let retry_after_s =
        failures.iter().filter_map(|(_, failure)| failure.retry_after_s).max().unwrap_or(least);
    answer.with("retry-after", retry_after_s.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use model::wire::Rejected;
    use model::{BatchDigest, BatchId, Partition, Tenant};

    use super::*;

    fn delivery(partition: u16) -> Delivery {
        let partition = Partition::new(partition);
        Delivery {
            partition,
            id: BatchId::derive(&Tenant::default(), "k", partition),
            digest: BatchDigest::of(b""),
            record_count: 1,
            lines: Default::default(),
            acks: None,
        }
    }

    fn stored_at(durability: &str) -> Outcome {
        Outcome::Stored { durability: (!durability.is_empty()).then(|| durability.to_owned()) }
    }

    fn failed(kind: FailureKind, retry_after_s: Option<u64>) -> Outcome {
        Outcome::Failed(Failure { kind, detail: format!("http://n:1: {kind:?}"), retry_after_s })
    }

    fn rejections(count: usize) -> Rejections {
        let rejected = |index| Rejected { index, field: "message".into(), error: "is missing".into() };
        let by_field = (count > 0).then_some(("message", count)).into_iter().collect();
        Rejections { listed: (0..count.min(100)).map(rejected).collect(), count, by_field }
    }

    fn answered(rejected: usize, is_minimal: bool, outcomes: &[Outcome]) -> Answer {
        let rejections = rejections(rejected);
        let deliveries: Vec<_> = (0..outcomes.len()).map(|partition| delivery(partition as u16)).collect();
        let taken = Taken { received: 5, rejections: &rejections, is_minimal };
        of_outcomes(&taken, deliveries.iter().zip(outcomes.iter().cloned()))
    }

    #[track_caller]
    fn check(answer: &Answer, expected: Expect) {
        let headers: String =
            answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        expected.assert_eq(&format!("{}\n{headers}{}", answer.status, String::from_utf8_lossy(&answer.body)));
    }

    #[test]
    fn all_stored_is_200_with_the_weakest_level() {
        check(
            &answered(0, false, &[stored_at("all"), stored_at("leader"), stored_at("quorum")]),
            expect![[r#"
                200
                content-type: application/json
                received: 5
                rejected: 0
                durability: leader
                {"received":5}"#]],
        );
        let weakest = |levels: &[&str]| {
            let outcomes: Vec<_> = levels.iter().map(|level| stored_at(level)).collect();
            let headers = answered(0, false, &outcomes).headers;
            headers.into_iter().find(|(name, _)| *name == "durability").map(|(_, value)| value)
        };
        assert_eq!(weakest(&["leader", "leader; fsync=never"]).as_deref(), Some("leader; fsync=never"));
        assert_eq!(weakest(&["quorum; fsync=never", "leader"]).as_deref(), Some("leader"));
        assert_eq!(weakest(&["all", ""]), None);
        assert_eq!(weakest(&["all", "platinum"]), None);
    }

    #[test]
    fn rejected_records_are_listed_up_to_a_number() {
        check(
            &answered(1, true, &[stored_at("leader")]),
            expect![[r#"
                200
                content-type: application/json
                received: 5
                rejected: 1
                rejected-fields: message=1
                durability: leader
                {"received":5,"rejected":[{"index":0,"field":"message","error":"is missing"}]}"#]],
        );
        let answer = answered(101, false, &[stored_at("leader")]);
        let body: IngestAnswer = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((body.rejected.len(), body.rejected_total), (100, Some(101)));
    }

    #[test]
    fn a_client_that_wants_no_body_gets_the_counts_in_headers() {
        check(
            &answered(0, true, &[stored_at("leader")]),
            expect![[r#"
                204
                preference-applied: return=minimal
                received: 5
                rejected: 0
                durability: leader
            "#]],
        );
    }

    #[test]
    fn a_part_in_the_edge_wal_makes_it_202_at_the_edge() {
        check(
            &answered(0, false, &[stored_at("all"), Outcome::Queued, Outcome::Queued]),
            expect![[r#"
                202
                content-type: application/json
                received: 5
                rejected: 0
                queued: 2
                durability: edge
                {"received":5,"queued":2}"#]],
        );
        check(
            &answered(0, true, &[Outcome::Queued]),
            expect![[r#"
                204
                preference-applied: return=minimal
                received: 5
                rejected: 0
                queued: 1
                durability: edge
            "#]],
        );
        let failed = answered(0, false, &[Outcome::Queued, failed(FailureKind::Unavailable, None)]);
        assert_eq!(failed.status, 503);
    }

    #[test]
    fn a_part_that_is_not_stored_makes_the_whole_one_to_be_repeated() {
        check(
            &answered(1, true, &[stored_at("leader"), failed(FailureKind::Unavailable, None)]),
            expect![[r#"
                503
                content-type: application/problem+json
                retry-after: 1
                {"status":503,"title":"Service Unavailable","detail":"1 of 2 partitions did not take their records (partition 1: http://n:1: Unavailable); sent again with the same Idempotency-Key, nothing is stored twice"}"#]],
        );
    }

    #[test]
    fn the_failure_that_another_try_mends_least_decides() {
        use FailureKind::{Conflict, DiskFull, Refused, TooLarge, Unavailable};
        let of = |kinds: &[FailureKind]| {
            let outcomes: Vec<_> = kinds.iter().map(|kind| failed(*kind, Some(7))).collect();
            let answer = answered(0, false, &outcomes);
            let retry_after = answer.headers.into_iter().find(|(name, _)| *name == "retry-after");
            (answer.status, retry_after.map(|(_, value)| value))
        };
        let seven = Some("7".to_owned());
        assert_eq!(of(&[Unavailable, Conflict, TooLarge]), (409, None));
        assert_eq!(of(&[Unavailable, TooLarge, Refused]), (413, None));
        assert_eq!(of(&[Unavailable, Refused, DiskFull]), (502, None));
        assert_eq!(of(&[Unavailable, DiskFull]), (503, seven.clone()));
        assert_eq!(of(&[Unavailable]), (503, seven));
        let full = answered(0, false, &[failed(DiskFull, None)]);
        assert!(full.headers.contains(&("retry-after", "10".to_owned())));
        assert!(String::from_utf8_lossy(&full.body).contains("a disk is full"));
    }

    #[test]
    fn many_failures_are_counted_rather_than_listed() {
        let outcomes = vec![failed(FailureKind::Unavailable, None); 1024];
        let answer = answered(0, false, &outcomes);
        assert!(answer.body.len() < 2_000);
        assert!(String::from_utf8_lossy(&answer.body).contains("and 1008 more"));
    }

    #[test]
    fn when_no_record_is_valid_the_first_is_named() {
        check(
            &none_valid(&rejections(3)),
            expect![[r#"
                400
                content-type: application/problem+json
                rejected: 3
                rejected-fields: message=3
                {"status":400,"title":"Bad Request","detail":"none of 3 records is valid; record 0: message: is missing","index":0,"field":"message"}"#]],
        );
    }
}
