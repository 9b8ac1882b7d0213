//! What becomes of bodies, as a hyper server hands them over.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Semaphore;

use super::{Accepted, Intake};
use crate::problem::Refusal;

/// What the component sees of a body (its length or its error) and the verdict on it; or why it was refused.
async fn judge(intake: &Intake, incoming: Incoming) -> String {
    match intake.accept(incoming, false).await {
        Err(refusal) => format!("refused: {refusal:?}"),
        Ok(Accepted { body, verdict }) => {
            let seen = body.collect().await.map(|body| body.to_bytes().len());
            format!("seen: {:?}, verdict: {:?}", seen.ok(), verdict.refusal())
        }
    }
}

/// A client's end of a connection to a server with this intake, which answers one request with what it made of it.
fn connect(intake: Intake) -> DuplexStream {
    let (client, server) = tokio::io::duplex(1024);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let intake = intake.clone();
        async move {
            let judged = judge(&intake, request.into_body()).await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(judged))))
        }
    });
    let server = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(server), service);
    tokio::spawn(server);
    client
}

async fn read_answer(mut client: DuplexStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
}

/// Sends these pieces of a request to a server with this intake and returns what it made of the body.
async fn outcome(intake: Intake, pieces: &[&[u8]]) -> String {
    let mut client = connect(intake);
    for piece in pieces {
        client.write_all(piece).await.unwrap();
    }
    read_answer(client).await
}

#[tokio::test]
async fn a_small_body_is_gathered_from_its_pieces() {
    let intake = Intake::new(100);
    let pieces: [&[u8]; 3] =
        [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", b"01234", b"56789"];
    assert_eq!(outcome(intake.clone(), &pieces).await, "seen: Some(10), verdict: None");
    // All memory for gathering is given back.
    assert_eq!(intake.gathered.available_permits(), crate::limits::GATHERED_BYTES_MAX);
}

#[tokio::test]
async fn a_body_is_streamed_when_no_memory_is_left_to_gather_it() {
    let intake = Intake { bytes_max: 100, gathered: Arc::new(Semaphore::new(9)) };
    let pieces: [&[u8]; 2] = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234", b"56789"];
    assert_eq!(outcome(intake, &pieces).await, "seen: Some(10), verdict: None");
}

// Paused, because the connection stays open for a while to read and discard what the client sends all the same.
#[tokio::test(start_paused = true)]
async fn a_body_that_announces_too_much_is_refused_before_it_is_read() {
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n";
    let refused = format!("refused: {:?}", Refusal::BodyTooLarge);
    assert_eq!(outcome(Intake::new(100), &[request]).await, refused);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_cut_off_where_it_exceeds_the_limit() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = b"64\r\n0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    let within: [&[u8]; 3] = [head, chunk, b"0\r\n\r\n"];
    assert_eq!(outcome(Intake::new(100), &within).await, "seen: Some(100), verdict: None");
    let beyond: [&[u8]; 4] = [head, chunk, b"1\r\nx\r\n", b"0\r\n\r\n"];
    let verdict = format!("seen: None, verdict: {:?}", Some(Refusal::BodyTooLarge));
    assert_eq!(outcome(Intake::new(100), &beyond).await, verdict);
}

#[tokio::test]
async fn a_body_that_ends_early_never_reaches_the_component() {
    let mut client = connect(Intake::new(100));
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_answer(client).await, format!("refused: {:?}", Refusal::BodyIncomplete));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_pauses_for_too_long_is_given_up() {
    let streamed = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let verdict = format!("seen: None, verdict: {:?}", Some(Refusal::BodyTooSlow));
    assert_eq!(outcome(Intake::new(100), &[streamed]).await, verdict);
    let gathered = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx";
    let refused = format!("refused: {:?}", Refusal::BodyTooSlow);
    assert_eq!(outcome(Intake::new(100), &[gathered]).await, refused);
}
