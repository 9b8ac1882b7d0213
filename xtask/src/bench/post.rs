//! A client that posts ready bodies to a storage node, over HTTP/1.1 connections that stay open.
//!
//! Invariant: every answer is looked at; one that is not 200 ends the measurement. Each batch has an id of its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::event::{PollFd, PollFlags};

/// An answer to an append is short.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// No answer after this time: the node hangs.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// What one measurement sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posts<'a> {
    /// Where to.
    pub(crate) node: SocketAddr,
    /// The bodies, taken in turn.
    pub(crate) bodies: &'a [Vec<u8>],
    /// Batches in all.
    pub(crate) batches: u64,
    /// The first batch's number: no two batches of one node may share theirs.
    pub(crate) first_batch: u64,
    /// Connections, each with one batch under way.
    pub(crate) connections: usize,
}

/// What a node said to one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The answer's status.
    pub(crate) status: u16,
    /// How far the batch has got, if it was taken.
    pub(crate) durability: Option<String>,
}

/// Sends one batch over a connection of its own, to be answered when it has got as far as `acks` says. No answer within
/// `longest` is an error, as is no connection.
///
/// # Errors
/// The connection's.
pub(crate) fn once(
    node: SocketAddr,
    batch: u64,
    body: &[u8],
    acks: &str,
    longest: Duration,
) -> anyhow::Result<Said> {
    let stream = TcpStream::connect_timeout(&node, longest)?;
    let mut connection = Connection::over(stream, node, longest)?;
    let head = head(node, batch, body.len()).replace("\r\n\r\n", &format!("\r\nacks: {acks}\r\n\r\n"));
    connection.stream.write_all(&[head.as_bytes(), body].concat())?;
    loop {
        connection.read()?;
        if let Some((status, length)) = answer_in(&connection.received) {
            let text = String::from_utf8_lossy(connection.received.get(..length).unwrap_or_default());
            return Ok(Said { status, durability: header_in(&text, "durability").map(str::to_owned) });
        }
    }
}

/// What was sent, and how long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posted {
    /// From the first request to the last answer.
    pub(crate) wall: Duration,
    /// Bytes of all bodies.
    pub(crate) bytes: u64,
}

/// Sends large batches: a thread for each connection.
///
/// # Errors
/// A batch was not taken.
pub(crate) fn large(posts: Posts<'_>) -> anyhow::Result<Posted> {
    let connections = connect(&posts)?;
    let (next, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = |mut connection: Connection| -> anyhow::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= posts.batches {
                return Ok(());
            }
            let body = body_of(&posts, number)?;
            connection.send(posts.first_batch + number, body)?;
            while !connection.receive()? {}
            bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        }
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let start = |connection| scope.spawn(|| work(connection));
        let threads: Vec<_> = connections.into_iter().map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<()>>| {
            thread.join().map_err(|_panic| anyhow::anyhow!("a sending thread panicked"))?
        };
        threads.into_iter().try_for_each(join)
    })?;
    Ok(Posted { wall: started.elapsed(), bytes: bytes.into_inner() })
}

/// Sends small batches, which fit into a socket's buffer: one thread for all connections, so that the client does not
/// take the processor from the node.
///
/// # Errors
/// A batch was not taken.
pub(crate) fn small(posts: Posts<'_>) -> anyhow::Result<Posted> {
    let mut connections = connect(&posts)?;
    let started = Instant::now();
    let (mut sent, mut answered, mut bytes) = (0, 0, 0);
    let mut send_next = |connection: &mut Connection| -> anyhow::Result<()> {
        if sent < posts.batches {
            let body = body_of(&posts, sent)?;
            connection.send(posts.first_batch + sent, body)?;
            sent += 1;
            bytes += body.len() as u64;
        }
        Ok(())
    };
    for connection in &mut connections {
        send_next(connection)?;
    }
    let longest = rustix::time::Timespec { tv_sec: ANSWER_WAIT_MAX.as_secs().try_into()?, tv_nsec: 0 };
    while answered < posts.batches {
        let mut polled: Vec<PollFd<'_>> =
            connections.iter().map(|c| PollFd::new(&c.stream, PollFlags::IN)).collect();
        ensure!(rustix::event::poll(&mut polled, Some(&longest))? > 0, "the node does not answer any more");
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (connection, _) in connections.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            if connection.receive()? {
                answered += 1;
                send_next(connection)?;
            }
        }
    }
    Ok(Posted { wall: started.elapsed(), bytes })
}

fn connect(posts: &Posts<'_>) -> anyhow::Result<Vec<Connection>> {
    (0..posts.connections).map(|_| Connection::open(posts.node)).collect()
}

fn body_of<'a>(posts: &Posts<'a>, number: u64) -> anyhow::Result<&'a [u8]> {
    let place = usize::try_from(number)?.checked_rem(posts.bodies.len());
    place.and_then(|place| posts.bodies.get(place)).map(Vec::as_slice).context("there are no bodies to send")
}

/// One connection, with at most one request under way.
struct Connection {
    stream: TcpStream,
    node: SocketAddr,
    received: Vec<u8>,
}

impl Connection {
    fn open(node: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(node).context("could not connect to the node")?;
        Self::over(stream, node, ANSWER_WAIT_MAX)
    }

    fn over(stream: TcpStream, node: SocketAddr, longest: Duration) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(longest))?;
        stream.set_write_timeout(Some(longest))?;
        Ok(Self { stream, node, received: Vec::new() })
    }

    fn send(&mut self, batch: u64, body: &[u8]) -> anyhow::Result<()> {
        let mut request = head(self.node, batch, body.len()).into_bytes();
        if body.len() <= ANSWER_BYTES_MAX {
            request.extend_from_slice(body);
            self.stream.write_all(&request)?;
        } else {
            self.stream.write_all(&request)?;
            self.stream.write_all(body)?;
        }
        Ok(())
    }

    /// Reads once; whether the answer is there now.
    fn receive(&mut self) -> anyhow::Result<bool> {
        self.read()?;
        let Some((status, length)) = answer_in(&self.received) else { return Ok(false) };
        if status != 200 {
            bail!("a batch was not taken: {}", String::from_utf8_lossy(&self.received));
        }
        self.received.drain(..length);
        Ok(true)
    }

    /// Reads once what there is of the answer.
    fn read(&mut self) -> anyhow::Result<()> {
        ensure!(self.received.len() < ANSWER_BYTES_MAX, "the answer is too long");
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer).context("the node did not answer")?;
        ensure!(read > 0, "the node closed the connection");
        self.received.extend_from_slice(buffer.get(..read).unwrap_or_default());
        Ok(())
    }
}

/// The head of a request, as the ingest sends it.
fn head(node: SocketAddr, batch: u64, length: usize) -> String {
    // The node takes the digest as it comes; that of the ingest is of the client's bytes.
    let digest = batch.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!(
        "POST /v1/storage?partition=0 HTTP/1.1\r\nhost: {node}\r\ncontent-type: application/x-ndjson\r\n\
         batch-id: 00000000-0000-7000-8000-{batch:012x}\r\nbatch-digest: {digest:016x}\r\n\
         content-length: {length}\r\n\r\n"
    )
}

/// Status and whole length of the answer at the start of `received`, once all of it is there.
fn answer_in(received: &[u8]) -> Option<(u16, usize)> {
    let text = String::from_utf8_lossy(received);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    let length = head.len() + 4 + header_in(head, "content-length")?.parse::<usize>().ok()?;
    (received.len() >= length).then_some((status, length))
}

/// The value of a header of an answer.
fn header_in<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let lines = answer.lines().take_while(|line| !line.is_empty());
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..answer.len() {
            assert_eq!(answer_in(&answer[..end]), None, "{end}");
        }
        assert_eq!(answer_in(answer), Some((200, answer.len())));
        let two = [&answer[..], b"HTTP"].concat();
        assert_eq!(answer_in(&two), Some((200, answer.len())));
    }

    /// A node that takes `answers` requests on any number of connections; it returns the bodies' bytes.
    fn stand_in(status: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || serve(stream, status));
            }
        });
        address
    }

    fn serve(mut stream: TcpStream, status: &str) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if length == 0 || reader.read_exact(&mut body).is_err() {
                return;
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    #[test]
    fn every_batch_is_sent_once_over_any_number_of_connections() {
        let bodies = [vec![b'x'; 100], vec![b'y'; 40_000]];
        for connections in [1, 3] {
            let posts =
                Posts { node: stand_in("200 OK"), bodies: &bodies, batches: 7, first_batch: 0, connections };
            assert_eq!(large(posts).unwrap().bytes, 4 * 100 + 3 * 40_000);
            let posts = Posts { bodies: &bodies[..1], ..posts };
            assert_eq!(small(posts).unwrap().bytes, 700);
        }
    }

    #[test]
    fn one_batch_is_answered_with_whatever_the_node_says() {
        let longest = Duration::from_secs(10);
        let said = |status| once(stand_in(status), 1, b"x", "quorum", longest).unwrap();
        let durability = Some("quorum".to_owned());
        assert_eq!(said("200 OK\r\nDurability: quorum"), Said { status: 200, durability });
        assert_eq!(said("421 Misdirected Request"), Said { status: 421, durability: None });
    }

    #[test]
    fn a_batch_that_is_not_taken_is_an_error() {
        let bodies = [vec![b'x'; 100]];
        let node = stand_in("429 Too Many Requests");
        let posts = Posts { node, bodies: &bodies, batches: 3, first_batch: 0, connections: 2 };
        assert!(large(posts).unwrap_err().to_string().contains("429"));
        assert!(small(posts).unwrap_err().to_string().contains("429"));
    }
}
