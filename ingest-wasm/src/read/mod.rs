//! Reading through the ingest: `GET /v1/query` from the node that holds a service's partition, `GET /v1/logs` from
//! any node, which asks the others; from all, merged by time, where the nodes do not know each other.
//!
//! Invariant: an answer that lacks something says so in `Partial`; a node that does not answer is never passed over
//! in silence. What storage refuses with 400, it refuses in its own words.

mod fetch;
mod logs;
mod merge;
mod query;
mod writer;

pub use logs::logs;
pub use query::query;

use model::{Problem, wire};

use crate::limits;
use crate::message::{Answer, Headers};

/// A parameter that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BadParameter {
    name: &'static str,
    detail: String,
}

impl BadParameter {
    fn new(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, detail: detail.into() }
    }

    fn answer(self) -> Answer {
        Answer::problem(&Problem::new(400, self.detail).in_field(self.name))
    }
}

/// The value of a parameter that may be given once.
fn single<'a>(
    parameters: &'a [(String, String)],
    name: &'static str,
) -> Result<Option<&'a str>, BadParameter> {
    let mut values = parameters.iter().filter(|(given, _)| given == name);
    let value = values.next().map(|(_, value)| value.as_str());
    if values.next().is_some() {
        return Err(BadParameter::new(name, format!("{name} is given twice")));
    }
    Ok(value)
}

/// The format that the client would rather have, of the two there are; the route's own when it does not say.
fn format(headers: &Headers, own: writer::Format) -> writer::Format {
    let accepts = |media_type: &str| {
        let mut ranges = headers.list("accept").filter_map(|range| range.split(';').next());
        ranges.any(|range| range.trim().eq_ignore_ascii_case(media_type))
    };
    match (accepts(wire::JSON), accepts(wire::NDJSON)) {
        (true, false) => writer::Format::JsonArray,
        (false, true) => writer::Format::Ndjson,
        _ => own,
    }
}

/// The answer with these records, and what it lacks.
fn found(format: writer::Format, body: Vec<u8>, lacks: &[String]) -> Answer {
    let answer = Answer::new(200, format.content_type(), body);
    if lacks.is_empty() { answer } else { answer.with(wire::PARTIAL, lacks.join(", ")) }
}

/// The answer when nobody could be asked.
fn unavailable(detail: impl Into<String>) -> Answer {
    Answer::problem(&Problem::new(503, detail)).with("retry-after", limits::RETRY_AFTER_S.to_string())
}

#[cfg(test)]
mod tests;
