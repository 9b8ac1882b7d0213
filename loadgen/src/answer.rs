//! What an answer of the ingest means for the batch that it answers.
//!
//! Pure: an answer in, a [`Verdict`] out. When in doubt the verdict is the one that claims less.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{StatusCode, header, response};
use model::Problem;
use model::wire::{self, Durability, IngestAnswer};

use crate::limits::RETRY_AFTER_MAX;

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server answers for the records that it received.
    Taken(Taken),
    /// No record was taken, and none would be another time.
    Refused(String),
    /// Not now: to be tried again, after this time if the server named one.
    Again {
        /// The server's wish.
        after: Option<Duration>,
        /// What it said.
        reason: String,
    },
    /// The answer is not one that can be relied on.
    Unclear(String),
}

/// A batch that was taken, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Records that the server answers for.
    pub(crate) received: u32,
    /// Records that it did not take.
    pub(crate) rejected: u32,
    /// Which ones, by their place in the batch. Fewer than `rejected` when the answer does not list all.
    pub(crate) rejected_places: BTreeSet<u32>,
    /// Some of the records are still on their way to storage.
    pub(crate) queued: bool,
    /// The first rejection, in words.
    pub(crate) first_error: Option<String>,
}

/// The answer's `Durability` header as it stands: the level, and what else is said of it.
pub(crate) fn durability(head: &response::Parts) -> Option<&str> {
    head.headers.get(wire::DURABILITY)?.to_str().ok()
}

/// What this answer means for a batch of `record_count` records.
pub(crate) fn judge(head: &response::Parts, body: &[u8], record_count: u32) -> Verdict {
    match head.status.as_u16() {
        200 | 202 => judge_counts(head, body, record_count),
        204 => Verdict::Taken(Taken {
            received: record_count,
            rejected: 0,
            rejected_places: BTreeSet::new(),
            queued: is_queued(head),
            first_error: None,
        }),
        // Request time-out, too early, too many requests, and the server's own errors: they may pass.
        408 | 425 | 429 | 500..=599 => {
            Verdict::Again { after: retry_after(head), reason: reason(head, body) }
        }
        400..=499 => Verdict::Refused(reason(head, body)),
        _ => Verdict::Unclear(reason(head, body)),
    }
}

/// Reads the counts of a `200` or `202`, and accepts them only if they add up to the batch.
fn judge_counts(head: &response::Parts, body: &[u8], record_count: u32) -> Verdict {
    let answer: IngestAnswer = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => return Verdict::Unclear(format!("{}: unreadable answer: {error}", head.status)),
    };
    let rejected = answer.rejected_total.unwrap_or(answer.rejected.len());
    if answer.received.checked_add(rejected) != Some(record_count as usize) {
        let received = answer.received;
        let detail =
            format!("answered {received} received and {rejected} rejected of {record_count} records");
        return Verdict::Unclear(format!("{}: {detail}", head.status));
    }
    let first_error = answer.rejected.first().map(|rejected| {
        let (index, field, error) = (rejected.index, &rejected.field, &rejected.error);
        format!("record {index} rejected: {field}: {error}")
    });
    Verdict::Taken(Taken {
        // Both are parts of `record_count`.
        received: answer.received as u32,
        rejected: rejected as u32,
        rejected_places: answer.rejected.iter().filter_map(|r| u32::try_from(r.index).ok()).collect(),
        queued: is_queued(head),
        first_error,
    })
}

fn is_queued(head: &response::Parts) -> bool {
    let level = durability(head).and_then(|text| text.split(';').next()).map(str::trim_ascii_end);
    head.status == StatusCode::ACCEPTED || level.and_then(Durability::parse) == Some(Durability::Edge)
}

/// The `Retry-After` in seconds (RFC 9110 §10.2.3). A date is not understood: the sender's own wait takes its place.
fn retry_after(head: &response::Parts) -> Option<Duration> {
    let seconds = head.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The status, and the detail of a problem or else the body's own words.
fn reason(head: &response::Parts, body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => format!("{}: {}", head.status, problem.detail),
        Err(_) => format!("{}: {}", head.status, String::from_utf8_lossy(body).trim()),
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn judged(status: u16, headers: &[(&str, &str)], body: &str) -> Verdict {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        judge(&response.body(()).unwrap().into_parts().0, body.as_bytes(), 10)
    }

    fn taken(received: u32, rejected: u32, places: &[u32], queued: bool) -> Taken {
        let rejected_places = places.iter().copied().collect();
        Taken { received, rejected, rejected_places, queued, first_error: None }
    }

    #[test]
    fn a_whole_answer_takes_the_batch() {
        assert_eq!(judged(200, &[], r#"{"received":10}"#), Verdict::Taken(taken(10, 0, &[], false)));
        assert_eq!(judged(204, &[], ""), Verdict::Taken(taken(10, 0, &[], false)));
    }

    #[test]
    fn a_batch_at_the_edge_is_taken_and_queued() {
        let queued = Verdict::Taken(taken(10, 0, &[], true));
        assert_eq!(judged(202, &[], r#"{"received":10,"queued":4}"#), queued);
        for durability in ["edge", "edge; fsync=never", "edge ;x"] {
            assert_eq!(judged(204, &[("durability", durability)], ""), queued, "{durability}");
        }
    }

    #[test]
    fn rejected_records_are_named() {
        let body = r#"{"received":9,"rejected":[{"index":3,"field":"timestamp","error":"too late"}]}"#;
        let Verdict::Taken(got) = judged(200, &[], body) else { panic!("not taken") };
        assert_eq!(got.first_error.as_deref(), Some("record 3 rejected: timestamp: too late"));
        assert_eq!(Taken { first_error: None, ..got }, taken(9, 1, &[3], false));
    }

    #[test]
    fn an_answer_whose_counts_do_not_add_up_is_unclear() {
        for body in
            ["", "[]", r#"{"received":9}"#, r#"{"received":11}"#, r#"{"received":9,"rejected_total":2}"#]
        {
            assert!(matches!(judged(200, &[], body), Verdict::Unclear(_)), "{body}");
        }
        assert!(matches!(judged(302, &[], ""), Verdict::Unclear(_)));
    }

    #[test]
    fn what_may_pass_is_tried_again_when_the_server_says() {
        for (value, after) in
            [("2", Some(2)), ("0", Some(0)), ("86400", Some(30)), ("-1", None), ("Wed, 21 Oct 2026", None)]
        {
            let reason = "503 Service Unavailable: busy".to_owned();
            let after = after.map(Duration::from_secs);
            assert_eq!(judged(503, &[("retry-after", value)], "busy\n"), Verdict::Again { after, reason });
        }
        for status in [408, 429, 500, 502, 504] {
            assert!(matches!(judged(status, &[], ""), Verdict::Again { after: None, .. }), "{status}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_request_is_not_tried_again() {
        let body = r#"{"status":400,"title":"Bad Request","detail":"the body is empty"}"#;
        assert_eq!(judged(400, &[], body), Verdict::Refused("400 Bad Request: the body is empty".to_owned()));
        for status in [404, 405, 409, 413, 415] {
            assert!(matches!(judged(status, &[], ""), Verdict::Refused(_)), "{status}");
        }
    }
}
