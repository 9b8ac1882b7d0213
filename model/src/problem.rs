//! Errors over HTTP as problem JSON (RFC 9457).

use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error as a body. `type` is left out, which means `about:blank`: the status says what kind of error it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status, repeated for readers that see only the body.
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// What was wrong with this request, and what to do.
    pub detail: String,
    /// The record at fault: its place in the request, from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The record's field, the query parameter or the header at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Problem {
    /// A problem of this status with this explanation.
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, title: title(status).to_owned(), detail: detail.into(), index: None, field: None }
    }

    /// Names the record at fault by its place in the request, from zero.
    #[must_use]
    pub fn at_record(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// Names the field, parameter or header at fault.
    #[must_use]
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The problem as a JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of strings and numbers always encodes; an empty body would still carry the status.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The reason phrase of the statuses that edgelog answers with (RFC 9110 §15).
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        507 => "Insufficient Storage",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_problem_names_the_record_and_the_field() {
        let problem = Problem::new(400, "a timestamp is needed").at_record(17).in_field("timestamp");
        expect![[r#"{"status":400,"title":"Bad Request","detail":"a timestamp is needed","index":17,"field":"timestamp"}"#]]
            .assert_eq(&String::from_utf8(problem.to_json()).unwrap());
    }
}
