//! How the client treats hosts that answer, answer late, or do not answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::OutboundClient;
use crate::outbound::AllowedHosts;
use crate::variables::ApplicationVariables;

fn client(entries: &[&str]) -> OutboundClient {
    let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
    let allowed = AllowedHosts::new(&entries, &ApplicationVariables::default()).unwrap();
    OutboundClient::new(Arc::new(allowed), false, Arc::new(crate::metrics::Metrics::new()))
}

fn request(uri: &str) -> Request<WasiBody> {
    let body = Full::new(Bytes::from_static(b"body")).map_err(|never| match never {});
    Request::post(uri).body(body.boxed_unsync()).unwrap()
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    (listener, uri)
}

/// Reads one request, whose body is `body`.
async fn read_request(stream: &mut TcpStream) {
    let mut received = Vec::new();
    while !received.ends_with(b"body") {
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
    }
}

fn short(first_byte_ms: u64, between_bytes_ms: u64) -> RequestOptions {
    RequestOptions {
        connect_timeout: None,
        first_byte_timeout: Some(Duration::from_millis(first_byte_ms)),
        between_bytes_timeout: Some(Duration::from_millis(between_bytes_ms)),
    }
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_never_connected_to() {
    let (listener, uri) = listen().await;
    let sent = client(&["http://127.0.0.1:1"]).send(request(&uri), RequestOptions::default()).await;
    assert!(matches!(sent, Err(Error::HttpRequestDenied)));
    let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(accepted.is_err(), "somebody connected");
}

#[tokio::test]
async fn tls_is_refused_even_where_the_host_is_allowed() {
    let sent = client(&["*://*:*"]).send(request("https://127.0.0.1/"), RequestOptions::default()).await;
    assert!(matches!(sent, Err(Error::HttpProtocolError)));
}

#[tokio::test]
async fn a_refused_connection_is_told_apart() {
    let (listener, uri) = listen().await;
    drop(listener);
    let sent = client(&["*://*:*"]).send(request(&uri), RequestOptions::default()).await;
    assert!(matches!(sent, Err(Error::ConnectionRefused)));
}

#[tokio::test]
async fn connections_are_used_again() {
    let (listener, uri) = listen().await;
    let server = tokio::spawn(async move {
        // One connection only: a second one would never be answered.
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let client = client(&["*://*:*"]);
    for _ in 0..3 {
        let response = client.send(request(&uri), RequestOptions::default()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    }
    server.await.unwrap();
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_given_up_after_the_first_byte_limit() {
    let (listener, uri) = listen().await;
    let sent = client(&["*://*:*"]).send(request(&uri), short(20, 10_000)).await;
    assert!(matches!(sent, Err(Error::ConnectionReadTimeout)));
    drop(listener);
}

#[tokio::test]
async fn an_answer_that_pauses_is_given_up_after_the_between_bytes_limit() {
    let (listener, uri) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
        stream
    });
    let response = client(&["*://*:*"]).send(request(&uri), short(10_000, 20)).await.unwrap();
    let _stays_open = server.await.unwrap();
    let body = response.into_body().collect().await;
    assert!(matches!(body, Err(Error::ConnectionReadTimeout)));
}

#[tokio::test]
async fn a_host_that_hangs_up_is_told_apart() {
    let (listener, uri) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
    });
    let sent = client(&["*://*:*"]).send(request(&uri), RequestOptions::default()).await;
    assert!(matches!(sent, Err(Error::ConnectionTerminated)));
    server.await.unwrap();
}
