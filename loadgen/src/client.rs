//! One keep-alive HTTP/1.1 connection to one server.
//!
//! Invariant: a connection is only used again after an exchange that ended whole; one that failed, timed out or was
//! dropped half-way is closed. This module must not know of records, batches or retries.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri, header, response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

/// Where requests go: an `http://` URL.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    url: Url,
    host: String,
    port: u16,
    host_header: HeaderValue,
    path: Uri,
}

/// A text that is not a URL which requests can go to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// It is no URL at all.
    #[error("not a URL: {0}")]
    Url(#[from] url::ParseError),
    /// It is of another scheme, or has no host.
    #[error("only http:// URLs with a host are served; put a proxy in front for TLS")]
    NotHttp,
    /// Its host or path cannot stand in a request.
    #[error("the host or the path cannot stand in a request")]
    Unsendable,
}

impl Target {
    /// A request for this URL's own path and query, or for `path_and_query` on its server.
    pub(crate) fn request(
        &self,
        path_and_query: Option<PathAndQuery>,
        body: Full<Bytes>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(body);
        *request.uri_mut() = path_and_query.map_or_else(|| self.path.clone(), Uri::from);
        request.headers_mut().insert(header::HOST, self.host_header.clone());
        request
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let url = Url::parse(text)?;
        if url.scheme() != "http" {
            return Err(TargetError::NotHttp);
        }
        // `host_str` has brackets around an IPv6 address, as the header needs them and a socket does not.
        let bracketed = url.host_str().ok_or(TargetError::NotHttp)?;
        let host = bracketed.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = url.port().map_or_else(|| bracketed.to_owned(), |port| format!("{bracketed}:{port}"));
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        Ok(Self {
            host,
            port: url.port().unwrap_or(80),
            host_header: authority.parse().map_err(|_| TargetError::Unsendable)?,
            path: format!("{}{query}", url.path()).parse().map_err(|_| TargetError::Unsendable)?,
            url,
        })
    }
}

/// Why an exchange did not end with a whole answer. The server may have taken the request all the same, unless it
/// could not be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// No connection came about.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The connection broke, or what came is not HTTP.
    #[error("no whole answer: {0}")]
    Broken(#[from] hyper::Error),
    /// It took longer than the time-out.
    #[error("no whole answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The answer has more bytes than the caller takes.
    #[error("the answer is longer than the {0} bytes that are taken")]
    TooLong(usize),
}

impl TransportError {
    /// The kind of error in one word, for counting.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Broken(_) => "broken",
            Self::TimedOut(_) => "timeout",
            Self::TooLong(_) => "too_long",
        }
    }
}

/// A client of one server: one request at a time.
pub(crate) struct Client {
    target: Target,
    timeout: Duration,
    idle: Option<Connection>,
}

struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// Reads and writes the socket. Dropping it closes the connection.
    _driver: AbortOnDropHandle<()>,
}

impl Client {
    /// A client that is not connected yet. An exchange may take `timeout`, connecting included.
    pub(crate) fn new(target: Target, timeout: Duration) -> Self {
        Self { target, timeout, idle: None }
    }

    /// The server's URL.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Sends `request` and hands the answer's body to `on_data`, piece by piece as it comes.
    ///
    /// # Errors
    /// No whole answer, or `on_data`'s refusal to take more.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        on_data: impl FnMut(&[u8]) -> Result<(), TransportError>,
    ) -> Result<response::Parts, TransportError> {
        let timeout = self.timeout;
        tokio::time::timeout(timeout, self.exchange_untimed(request, on_data))
            .await
            .unwrap_or(Err(TransportError::TimedOut(timeout)))
    }

    /// Sends `request` and collects the answer's body, of at most `answer_bytes_max`.
    ///
    /// # Errors
    /// No whole answer, or too long a one.
    pub(crate) async fn exchange_whole(
        &mut self,
        request: Request<Full<Bytes>>,
        answer_bytes_max: usize,
    ) -> Result<(response::Parts, Vec<u8>), TransportError> {
        let mut body = Vec::new();
        let head = self
            .exchange(request, |data| {
                if body.len() + data.len() > answer_bytes_max {
                    return Err(TransportError::TooLong(answer_bytes_max));
                }
                body.extend_from_slice(data);
                Ok(())
            })
            .await?;
        Ok((head, body))
    }

    async fn exchange_untimed(
        &mut self,
        request: Request<Full<Bytes>>,
        mut on_data: impl FnMut(&[u8]) -> Result<(), TransportError>,
    ) -> Result<response::Parts, TransportError> {
        // The connection is taken out and comes back only after a whole exchange: when this future is dropped, so is
        // the connection, and no later request can read this one's answer.
        let mut connection = match self.idle.take() {
            Some(idle) => idle,
            None => self.connect().await?,
        };
        let response = match connection.requests.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => match error.take_message() {
                // The server closed the idle connection before it saw any of this request: no attempt was made.
                Some(request) => {
                    connection = self.connect().await?;
                    connection.requests.send_request(request).await?
                }
                None => return Err(error.into_error().into()),
            },
        };
        let (head, mut body) = response.into_parts();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                on_data(data)?;
            }
        }
        // Not ready means that the server closes after this answer.
        if connection.requests.ready().await.is_ok() {
            self.idle = Some(connection);
        }
        Ok(head)
    }

    async fn connect(&self) -> Result<Connection, TransportError> {
        let address = (self.target.host.as_str(), self.target.port);
        let stream = TcpStream::connect(address).await.map_err(TransportError::Connect)?;
        // Without it, the last piece of a large body would wait for the acknowledgement of the one before.
        stream.set_nodelay(true).map_err(TransportError::Connect)?;
        let (requests, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // What ends the connection also ends the request on it, and is reported there.
            drop(driver.await);
        });
        Ok(Connection { requests, _driver: AbortOnDropHandle::new(driver) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_line_and_host(url: &str) -> (String, String) {
        let target: Target = url.parse().unwrap();
        let request = target.request(None, Full::default());
        (request.uri().to_string(), request.headers()[header::HOST].to_str().unwrap().to_owned())
    }

    #[test]
    fn a_target_gives_the_path_and_the_host_of_its_url() {
        for (url, path, host) in [
            ("http://localhost:8080/v1/logs", "/v1/logs", "localhost:8080"),
            ("http://example.org", "/", "example.org"),
            ("http://[::1]:81/a?b=c", "/a?b=c", "[::1]:81"),
        ] {
            assert_eq!(request_line_and_host(url), (path.to_owned(), host.to_owned()), "{url}");
        }
        let target: Target = "http://[::1]:81/a".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 81));
    }

    #[test]
    fn only_http_urls_are_targets() {
        for bad in ["", "localhost:8080", "https://localhost/", "file:///etc", "http://"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }
}
