//! An HTTP client whose answers are whole and easy to look into.

use std::time::Duration;

use bytes::Bytes;
use model::Problem;
use reqwest::RequestBuilder;
use reqwest::header::{HeaderMap, HeaderName};
use serde::de::DeserializeOwned;

/// How long an answer may take: beyond what any part of edgelog lets a client wait.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(40);

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A header's value; an empty text where there is none.
    pub fn header(&self, name: impl AsRef<str>) -> &str {
        let name: HeaderName = name.as_ref().parse().unwrap();
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The body as one JSON value a line.
    ///
    /// # Panics
    /// When it is something else.
    pub fn ndjson<T: DeserializeOwned>(&self) -> Vec<T> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        self.text().lines().map(parse).collect()
    }

    /// The problem that an error's body is.
    ///
    /// # Panics
    /// When it is none, or names another status.
    pub fn problem(&self) -> Problem {
        let content_type = self.header("content-type");
        assert_eq!(content_type, model::problem::CONTENT_TYPE, "{} {}", self.status, self.text());
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status, "{}", self.text());
        assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{}", self.text());
        problem
    }

    /// The answer, if it has this status.
    ///
    /// # Panics
    /// When it has another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{}", text.chars().take(2_000).collect::<String>());
        self
    }
}

/// A client with connections of its own.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client without connections yet.
    pub fn new() -> Self {
        // A proxy of the machine's is not for what runs on it.
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIME_MAX).build().unwrap();
        Self { http }
    }

    /// A request to be completed.
    pub fn request(&self, method: &str, url: &str) -> RequestBuilder {
        self.http.request(method.parse().unwrap(), url)
    }

    /// A `POST` to be completed.
    pub fn post(&self, url: &str) -> RequestBuilder {
        self.request("POST", url)
    }

    /// The answer to a `GET`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get(&self, url: &str) -> reqwest::Result<Answer> {
        answer(self.request("GET", url)).await
    }

    /// The answer to a `POST` of JSON.
    ///
    /// # Errors
    /// When there is none.
    pub async fn post_json(&self, url: &str, body: impl Into<reqwest::Body>) -> reqwest::Result<Answer> {
        answer(self.post(url).header("content-type", model::wire::JSON).body(body)).await
    }
}

/// Sends a request and waits for the whole answer.
///
/// # Errors
/// When there is none, or it breaks off.
pub async fn answer(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.bytes().await? })
}
