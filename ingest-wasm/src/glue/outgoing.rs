//! Messages that go out: bodies, and the answer to a client.

use std::task::{Context, Waker};

use bytes::Bytes;
use wasip3::http::types::{ErrorCode, Fields, Response};
use wasip3::wit_bindgen::{StreamReader, StreamWriter};
use wasip3::{wit_future, wit_stream};

use crate::budget::Budget;
use crate::limits;
use crate::message::Answer;

/// The answer, for the runtime to send.
pub(super) fn respond(answer: Answer, is_head: bool, budget: &'static Budget) -> Result<Response, ErrorCode> {
    // Whatever the answer was made from has been let go of: as a rule there is room for it.
    let mut share = budget.share();
    let answer = match share.take(answer.body.len()) {
        Ok(()) => answer,
        Err(_busy) => super::busy(),
    };
    let mut fields = fields(answer.headers);
    // RFC 9110 §8.6: none with 204.
    if answer.status != 204 {
        fields.push(("content-length".to_owned(), answer.body.len().to_string().into_bytes()));
    }
    let fields = Fields::from_list(&fields).map_err(internal)?;
    let contents =
        if is_head || answer.body.is_empty() { None } else { Some(send(answer.body, move || drop(share))) };
    let (_no_trailers, trailers) = wit_future::new(|| Ok(None));
    let (response, _transmitted) = Response::new(fields, contents, trailers);
    // It begins with 200.
    if answer.status != 200 {
        response.set_status_code(answer.status).map_err(|()| internal("a status"))?;
    }
    Ok(response)
}

/// Header fields as the runtime takes them.
pub(super) fn fields(headers: Vec<(&'static str, String)>) -> Vec<(String, Vec<u8>)> {
    headers.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect()
}

/// Begins to send a body. Its first piece is on offer before the message is handed over: where the runtime asks for
/// the body as soon as it has the head, both leave in one write.
pub(super) fn send(body: Bytes, done: impl FnOnce() + 'static) -> StreamReader<u8> {
    let (writer, contents) = wit_stream::new();
    let mut sending = Box::pin(async move {
        write(writer, body).await;
        done();
    });
    // The task polls it again with its own waker.
    if sending.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        wasip3::spawn(sending);
    }
    contents
}

/// Writes a body until it is all written, or nobody wants more of it.
async fn write(mut writer: StreamWriter<u8>, mut body: Bytes) {
    while !body.is_empty() {
        // Where nobody else holds the body it is not copied, and goes as it is.
        let length = if body.is_unique() { body.len() } else { body.len().min(limits::SEND_PIECE_BYTES) };
        let piece = body.split_to(length);
        let left = writer.write_all(piece.into()).await;
        if !left.is_empty() {
            return;
        }
    }
}

fn internal(error: impl std::fmt::Display) -> ErrorCode {
    ErrorCode::InternalError(Some(error.to_string()))
}
