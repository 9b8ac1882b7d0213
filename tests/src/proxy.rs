//! A proxy between an ingest and a storage node that does what networks and broken nodes do.
//!
//! Invariant: a fault concerns appends alone, each as a whole; everything else passes untouched. It must know of HTTP
//! no more than where a message ends, so that it can break one anywhere.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::process::Port;

/// What happens to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// The connection is closed instead of an answer; the node never sees the request.
    Refuse,
    /// The node's answer comes this late.
    Slow(Duration),
    /// The node never sees it; the answer is an error of the server's.
    ServerError,
    /// The node never sees it; what comes is no HTTP.
    Garbage,
    /// The node never sees it; the answer is one that storage never gives.
    StrangeSuccess,
    /// The node gets half of the body, then both connections are reset.
    ResetInBody,
    /// The node takes it, and the connection is reset instead of its answer.
    LoseReply,
    /// The node takes it, and half of its answer arrives.
    HalfReply,
}

/// All faults but slowness, which costs a test its time.
pub const FAULTS: [Fault; 7] = [
    Fault::Refuse,
    Fault::ServerError,
    Fault::Garbage,
    Fault::StrangeSuccess,
    Fault::ResetInBody,
    Fault::LoseReply,
    Fault::HalfReply,
];

#[derive(Debug)]
enum Plan {
    Always(Fault),
    /// One of these at a time, by chance.
    Mixed(Vec<Fault>, Box<ChaCha8Rng>),
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    accepting: JoinHandle<()>,
    _port: Port,
}

impl Proxy {
    /// A proxy before the server at `upstream`, whether that runs or not.
    ///
    /// # Panics
    /// When there is no port for it.
    pub async fn start(upstream: SocketAddr) -> Self {
        let port = Port::free();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(port.address()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let plan = Arc::new(Mutex::new(Plan::Always(Fault::Pass)));
        let accepting = tokio::spawn(accept(listener, upstream, Arc::clone(&plan)));
        Self { address: port.address(), plan, accepting, _port: port }
    }

    /// Its URL, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this happens to every append.
    pub fn set(&self, fault: Fault) {
        *self.plan.lock().unwrap() = Plan::Always(fault);
    }

    /// From now on one of these happens to each append.
    pub fn mix(&self, faults: Vec<Fault>, random: ChaCha8Rng) {
        *self.plan.lock().unwrap() = Plan::Mixed(faults, Box::new(random));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Plan {
    fn next(&mut self) -> Fault {
        match self {
            Self::Always(fault) => *fault,
            Self::Mixed(faults, random) => *faults.choose(random).unwrap(),
        }
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, plan: Arc<Mutex<Plan>>) {
    // Ends with the proxy: what it still has in hand is dropped with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        connections.spawn(serve(client, upstream, Arc::clone(&plan)));
    }
}

async fn serve(mut client: TcpStream, upstream: SocketAddr, plan: Arc<Mutex<Plan>>) {
    client.set_nodelay(true).unwrap();
    let mut left_over = Vec::new();
    while let Some(request) = read_message(&mut client, &mut left_over).await {
        let is_append = request.starts_with(b"POST /v1/storage");
        let fault = if is_append { plan.lock().unwrap().next() } else { Fault::Pass };
        if !exchange(&mut client, upstream, &request, fault).await {
            reset(client);
            return;
        }
    }
}

/// Handles one request; `false` when the client's connection is to be reset.
async fn exchange(client: &mut TcpStream, upstream: SocketAddr, request: &[u8], fault: Fault) -> bool {
    let canned: Option<&[u8]> = match fault {
        Fault::Refuse => return false,
        Fault::ServerError => Some(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\noh"),
        Fault::Garbage => Some(b"\x16\x03\x01 no HTTP at all \r\n\r\n"),
        Fault::StrangeSuccess => Some(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"),
        _ => None,
    };
    if let Some(answer) = canned {
        return client.write_all(answer).await.is_ok() && fault != Fault::Garbage;
    }
    let Ok(mut node) = TcpStream::connect(upstream).await else { return false };
    if fault == Fault::ResetInBody {
        // Half of it is on its way: nothing can be known of what the node makes of that.
        node.write_all(&request[..request.len() / 2]).await.ok();
        reset(node);
        return false;
    }
    if node.write_all(request).await.is_err() {
        return false;
    }
    let Some(answer) = read_message(&mut node, &mut Vec::new()).await else { return false };
    match fault {
        Fault::LoseReply => return false,
        Fault::HalfReply => {
            client.write_all(&answer[..answer.len() - 5]).await.ok();
            return false;
        }
        Fault::Slow(pause) => tokio::time::sleep(pause).await,
        _ => {}
    }
    client.write_all(&answer).await.is_ok()
}

/// A request or an answer with its body, if it has one of a given length.
async fn read_message(stream: &mut TcpStream, left_over: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut message = std::mem::take(left_over);
    loop {
        if let Some(length) = message_length(&message)
            && message.len() >= length
        {
            *left_over = message.split_off(length);
            return Some(message);
        }
        if stream.read_buf(&mut message).await.ok()? == 0 {
            return None;
        }
    }
}

/// The bytes of the message that these begin with, once its head is there.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end]).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    Some(head_end + length.map_or(0, |length| length.trim().parse().unwrap()))
}

/// Closes a connection with a reset.
fn reset(stream: TcpStream) {
    // What is not sent yet is thrown away; on a connection that is gone already it changes nothing.
    stream.set_zero_linger().ok();
}
