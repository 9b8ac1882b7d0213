//! Requests and answers, stripped to what the component looks at.
//!
//! Invariant: an [`Answer`]'s headers are visible ASCII. This module must not know of bodies in motion, nor of routes.

use bytes::Bytes;
use model::Problem;
use model::problem;

use crate::limits;

/// A request's method, as far as routes tell them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// Any other.
    Other(String),
}

impl Method {
    /// The method's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Other(name) => name,
        }
    }
}

/// All of a request but its body.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// What is to be done.
    pub method: Method,
    /// To what, without the query.
    pub path: String,
    /// What follows the question mark, still encoded; empty when there is none.
    pub query: String,
    /// The headers.
    pub headers: Headers,
}

/// Header fields in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Headers(Vec<(String, Vec<u8>)>);

/// Stands for a header value that is not text: it is no valid value of any header that is looked at.
const NOT_TEXT: &str = "\u{fffd}";

impl Headers {
    /// The fields of these names and values. Names may have any case.
    pub fn new(fields: Vec<(String, Vec<u8>)>) -> Self {
        Self(fields)
    }

    /// All values of a header, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| std::str::from_utf8(value).map_or(NOT_TEXT, str::trim))
    }

    /// The first value of a header.
    pub fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// The elements of a header that is a list, over all of its values, without empty ones.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
    }

    /// The announced length of the body.
    pub fn content_length(&self) -> Option<u64> {
        self.first("content-length")?.parse().ok()
    }
}

impl FromIterator<(&'static str, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'static str, String)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect())
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers, without `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// What is to be done when the answer has gone out. Nothing that was promised may be among it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Nothing.
    Nothing,
    /// Some of the edge WAL is taken to storage.
    Replay,
    /// More of it is: somebody asked for all.
    ReplayAll,
}

/// An answer, and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The answer.
    pub answer: Answer,
    /// What is done then.
    pub afterwards: Afterwards,
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        Self { answer, afterwards: Afterwards::Nothing }
    }
}

impl Answer {
    /// An answer with a body of this type.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// A problem as an answer.
    pub fn problem(problem: &Problem) -> Self {
        Self::new(problem.status, problem::CONTENT_TYPE, problem.to_json())
    }

    /// The same answer with one more header. What cannot stand in a header becomes a question mark.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, header_value(value.into())));
        self
    }

    /// Whether the request was done.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Makes a text fit for a header: visible ASCII and spaces, of bounded length.
fn header_value(mut text: String) -> String {
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        text = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
    }
    text.truncate(limits::HEADER_VALUE_BYTES_MAX);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &[u8])]) -> Headers {
        Headers::new(fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect())
    }

    #[test]
    fn values_come_in_order_whatever_the_case_of_the_name() {
        let headers = headers(&[("A", b" 1 "), ("b", b"x"), ("a", b"2, 3,,")]);
        assert_eq!(headers.all("a").collect::<Vec<_>>(), ["1", "2, 3,,"]);
        assert_eq!(headers.all("a").next_back(), Some("2, 3,,"));
        assert_eq!(headers.list("A").collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(headers.first("c"), None);
    }

    #[test]
    fn a_value_that_is_not_text_is_no_valid_value() {
        let headers = headers(&[("content-type", b"\xff"), ("content-length", b"\xff")]);
        assert_eq!(headers.first("content-type"), Some(NOT_TEXT));
        assert_eq!(headers.content_length(), None);
    }

    #[test]
    fn an_answers_headers_are_visible_ascii_of_bounded_length() {
        let answer = Answer::empty(200).with("partial", "a\r\nb: é").with("x", "y".repeat(5000));
        assert_eq!(answer.headers[0].1, "a??b: ?");
        assert_eq!(answer.headers[1].1.len(), limits::HEADER_VALUE_BYTES_MAX);
    }
}
