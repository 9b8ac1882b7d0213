//! Messages that come in: a client's request, a storage node's reply.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures::future::{Either, select};
use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{self, ErrorCode, Fields};
use wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult};
use wasip3::wit_future;

use crate::body::{ByteSource, Progress, SourceError};
use crate::limits;
use crate::message::{Headers, Method, RequestHead};

/// A message's body.
pub(super) struct Incoming {
    /// `None` once it has ended.
    contents: Option<StreamReader<u8>>,
    end: Option<FutureReader<Result<Option<types::Trailers>, ErrorCode>>>,
    /// Tells the other side, when dropped, that the message was received.
    _received: FutureWriter<Result<(), ErrorCode>>,
    /// Runs from the first wait for the body.
    deadline: Option<Deadline>,
}

type Deadline = Pin<Box<dyn Future<Output = ()>>>;

impl Incoming {
    /// A request's head, and its body.
    pub(super) fn of_request(request: types::Request) -> (RequestHead, Self) {
        let method = match request.get_method() {
            types::Method::Get => Method::Get,
            types::Method::Head => Method::Head,
            types::Method::Post => Method::Post,
            other => Method::Other(method_name(other)),
        };
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let headers = headers(&request.get_headers());
        let (received, received_reader) = wit_future::new(|| Ok(()));
        let (contents, end) = types::Request::consume_body(request, received_reader);
        let deadline: Deadline = Box::pin(wait(limits::BODY_TIME_MAX));
        let body =
            Self { contents: Some(contents), end: Some(end), _received: received, deadline: Some(deadline) };
        (RequestHead { method, path, query, headers }, body)
    }

    /// A reply's status, headers and body, which may take so long from when it is first waited for.
    pub(super) fn of_reply(reply: types::Response, time_max: Duration) -> (u16, Headers, Self) {
        let status = reply.get_status_code();
        let headers = headers(&reply.get_headers());
        let (received, received_reader) = wit_future::new(|| Ok(()));
        let (contents, end) = types::Response::consume_body(reply, received_reader);
        let deadline: Deadline = Box::pin(wait(time_max));
        let body =
            Self { contents: Some(contents), end: Some(end), _received: received, deadline: Some(deadline) };
        (status, headers, body)
    }

    /// Reads and throws away what a client still sends, within bounds: one that sends everything before it looks for
    /// an answer would else meet a reset instead of it.
    pub(super) async fn discard(&mut self) {
        self.deadline = Some(Box::pin(wait(limits::DISCARD_TIME_MAX)));
        let mut left = limits::DISCARD_BYTES_MAX;
        let mut buffer = Vec::new();
        while left > 0 && self.contents.is_some() {
            buffer.clear();
            buffer.reserve(limits::DISCARD_PIECE_BYTES);
            let (read, progress) = self.read(buffer).await;
            buffer = read;
            if progress != Ok(Progress::More) {
                return;
            }
            left = left.saturating_sub(buffer.len() as u64);
        }
    }

    async fn end(&mut self) -> Result<Progress, SourceError> {
        self.contents = None;
        match self.end.take() {
            None => Ok(Progress::End),
            Some(end) => match end.await {
                Ok(_trailers) => Ok(Progress::End),
                Err(error) => Err(SourceError::BrokeOff(super::transport::in_words(&error))),
            },
        }
    }
}

impl ByteSource for Incoming {
    async fn read(&mut self, buffer: Vec<u8>) -> (Vec<u8>, Result<Progress, SourceError>) {
        let Some(contents) = &mut self.contents else { return (buffer, Ok(Progress::End)) };
        match read_until(contents, buffer, self.deadline.as_mut()).await {
            Some((StreamResult::Complete(_), buffer)) => (buffer, Ok(Progress::More)),
            Some((StreamResult::Dropped | StreamResult::Cancelled, buffer)) => (buffer, self.end().await),
            None => {
                self.contents = None;
                (Vec::new(), Err(SourceError::TimedOut))
            }
        }
    }
}

/// Reads once; `None` once the deadline is over.
async fn read_until(
    contents: &mut StreamReader<u8>,
    buffer: Vec<u8>,
    deadline: Option<&mut Deadline>,
) -> Option<(StreamResult, Vec<u8>)> {
    let reading = pin!(contents.read(buffer));
    let Some(deadline) = deadline else { return Some(reading.await) };
    // The read is asked first: where bytes are there already, no timer is set.
    match select(reading, deadline.as_mut()).await {
        Either::Left((read, _)) => Some(read),
        Either::Right(((), _)) => None,
    }
}

/// Waits, without setting the timer before it is first asked.
pub(super) async fn wait(duration: Duration) {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    monotonic_clock::wait_for(nanoseconds).await;
}

fn headers(fields: &Fields) -> Headers {
    Headers::new(fields.copy_all())
}

fn method_name(method: types::Method) -> String {
    match method {
        types::Method::Put => "PUT".to_owned(),
        types::Method::Delete => "DELETE".to_owned(),
        types::Method::Patch => "PATCH".to_owned(),
        types::Method::Options => "OPTIONS".to_owned(),
        types::Method::Connect => "CONNECT".to_owned(),
        types::Method::Trace => "TRACE".to_owned(),
        types::Method::Get => "GET".to_owned(),
        types::Method::Head => "HEAD".to_owned(),
        types::Method::Post => "POST".to_owned(),
        types::Method::Other(name) => name,
    }
}
