//! The way to the storage nodes: the runtime's HTTP client; and the runtime's clock.

use std::sync::OnceLock;
use std::time::Duration;

use wasip3::clocks::monotonic_clock;
use wasip3::http::client;
use wasip3::http::types::{self, ErrorCode, Fields, RequestOptions, Scheme};
use wasip3::wit_future;

use super::incoming::{Incoming, wait};
use super::outgoing::{fields, send};
use crate::clock::Clock;
use crate::config::StorageNode;
use crate::limits;
use crate::message::Headers;
use crate::storage::{Call, Reply, SendError, Storage};

/// Does through the runtime what the component asks for.
#[derive(Debug)]
pub(super) struct Transport;

/// The options of a forward that has all of its time, as nearly all have: made once, and copied by one call.
static FORWARD_OPTIONS: OnceLock<RequestOptions> = OnceLock::new();

impl Storage for Transport {
    type Body = Incoming;

    async fn send(&self, node: &StorageNode, call: Call) -> Result<Reply<Incoming>, SendError> {
        let rest_time_max = call.rest_time_max;
        let reply = client::send(request(node, call)?).await.map_err(|error| classify(&error))?;
        let (status, headers, body): (u16, Headers, Incoming) = Incoming::of_reply(reply, rest_time_max);
        Ok(Reply { status, headers, body })
    }
}

impl Clock for Transport {
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(monotonic_clock::now())
    }

    async fn pause(&self, duration: Duration) {
        wait(duration).await;
    }
}

fn request(node: &StorageNode, call: Call) -> Result<types::Request, SendError> {
    let method = if call.body.is_some() { types::Method::Post } else { types::Method::Get };
    let mut fields = fields(call.headers);
    let contents = call.body.map(|body| {
        fields.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
        send(body, || ())
    });
    let fields = Fields::from_list(&fields).map_err(|error| SendError::Failed(error.to_string()))?;
    let (_no_trailers, trailers) = wit_future::new(|| Ok(None));
    let (request, _transmitted) =
        types::Request::new(fields, contents, trailers, Some(options(call.time_max)));
    let scheme = if node.is_tls { Scheme::Https } else { Scheme::Http };
    request
        .set_method(&method)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(&node.authority)))
        .and_then(|()| request.set_path_with_query(Some(&call.path_and_query)))
        .map_err(|()| SendError::Failed("the request cannot be sent".to_owned()))?;
    Ok(request)
}

fn options(time_max: Duration) -> RequestOptions {
    if time_max == limits::APPEND_TIME_MAX {
        FORWARD_OPTIONS.get_or_init(|| new_options(time_max)).clone()
    } else {
        new_options(time_max)
    }
}

fn new_options(time_max: Duration) -> RequestOptions {
    let options = RequestOptions::new();
    let nanoseconds = |duration: Duration| Some(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    // A runtime that knows no such limit answers with an error here, and has its own.
    let _unknown = options.set_connect_timeout(nanoseconds(limits::CONNECT_TIME_MAX.min(time_max))).is_err()
        | options.set_first_byte_timeout(nanoseconds(time_max)).is_err()
        | options.set_between_bytes_timeout(nanoseconds(limits::BETWEEN_BYTES_TIME_MAX)).is_err();
    options
}

fn classify(error: &ErrorCode) -> SendError {
    match error {
        ErrorCode::HttpRequestDenied => SendError::Denied,
        ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout
        | ErrorCode::DnsTimeout => SendError::TimedOut,
        other => SendError::Failed(in_words(other)),
    }
}

/// What happened, for people.
pub(super) fn in_words(error: &ErrorCode) -> String {
    match error {
        ErrorCode::ConnectionRefused => "connection refused".to_owned(),
        ErrorCode::ConnectionTerminated => "the connection broke".to_owned(),
        ErrorCode::DestinationNotFound | ErrorCode::DnsError(_) => "the host is not known".to_owned(),
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            "the host cannot be reached".to_owned()
        }
        ErrorCode::InternalError(Some(reason)) => reason.clone(),
        other => format!("{other:?}"),
    }
}
