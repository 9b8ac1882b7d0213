//! A peer's connection: bytes in and out, with acknowledgements that are not delayed where the peer may wait for them.
//!
//! Spin leaves Nagle's algorithm on for what it sends: its second small write of a request waits until we have
//! acknowledged the first, and Linux delays an acknowledgement by some 40 ms where it sees a dialogue.
//! `TCP_QUICKACK` stops that, but does not stick (tcp(7)): it is set again whenever more of a request is waited for. A
//! request that is all there is acknowledged by its answer; small ones would else cost a tenth more.
//!
//! Invariant: bytes pass unchanged. Must not know of HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A peer's connection.
#[derive(Debug)]
pub(super) struct PeerStream {
    stream: TcpStream,
    exchange: Arc<Exchange>,
    /// Whether what was read last is acknowledged.
    is_acknowledged: bool,
}

/// How much of a request has been read. One task reads, writes and says what it expects.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Bytes that were read since the last answer began.
    read: AtomicU64,
    /// How many the request under way has; `u64::MAX` as long as nobody said.
    expected: AtomicU64,
}

impl Exchange {
    fn new() -> Self {
        Self { read: AtomicU64::new(0), expected: AtomicU64::new(u64::MAX) }
    }

    /// Says how many bytes the request that is being read has, its head included.
    pub(super) fn expect(&self, bytes: u64) {
        self.expected.store(bytes, Relaxed);
    }

    fn note_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Relaxed);
    }

    /// An answer went out. What was read beyond its request is forgotten: clients that send on before they have their answer
    /// are few, and a count that is wrong must not last.
    fn note_written(&self) {
        self.expected.store(u64::MAX, Relaxed);
        self.read.store(0, Relaxed);
    }

    /// Whether a request has begun to arrive, and is not all there.
    fn is_incomplete(&self) -> bool {
        let read = self.read.load(Relaxed);
        read > 0 && read < self.expected.load(Relaxed)
    }
}

impl PeerStream {
    /// Sets the socket's options: small answers leave at once, and a peer that leaves ours unread for `stall_max`
    /// is given up.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub(super) fn new(stream: TcpStream, stall_max: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let stall_ms = u32::try_from(stall_max.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&stream, stall_ms)?;
        rustix::net::sockopt::set_tcp_quickack(&stream, true)?;
        Ok(Self { stream, exchange: Arc::new(Exchange::new()), is_acknowledged: false })
    }

    /// Where it is said how long requests are.
    pub(super) fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange)
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled_before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.exchange.note_read(buffer.filled().len() - filled_before);
            self.is_acknowledged = false;
        } else if !self.is_acknowledged && self.exchange.is_incomplete() {
            // A socket that refuses this still works, only slower.
            rustix::net::sockopt::set_tcp_quickack(&self.stream, true).ok();
            self.is_acknowledged = true;
        }
        read
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.exchange.note_written();
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.exchange.note_written();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_request_is_waited_for_from_its_first_byte_until_all_of_it_is_there() {
        let exchange = Exchange::new();
        assert!(!exchange.is_incomplete(), "nothing came yet");
        exchange.note_read(10);
        assert!(exchange.is_incomplete(), "nobody knows how long its head is");
        exchange.expect(25);
        assert!(exchange.is_incomplete());
        exchange.note_read(15);
        assert!(!exchange.is_incomplete());
        exchange.note_written();
        assert!(!exchange.is_incomplete());
        exchange.note_read(4);
        assert!(exchange.is_incomplete(), "the next request has begun");
    }

    /// Reads until there is nothing more for now.
    async fn drain(stream: &mut PeerStream) {
        let mut bytes = [0; 64];
        let mut buffer = ReadBuf::new(&mut bytes);
        std::future::poll_fn(|context| {
            while let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                read.unwrap();
            }
            if buffer.filled().is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_waited_for_is_acknowledged_at_once_and_what_is_there_by_its_answer() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = PeerStream::new(stream, Duration::from_secs(1)).unwrap();
        let is_quick = |stream: &PeerStream| rustix::net::sockopt::tcp_quickack(&stream.stream).unwrap();
        // A dialogue: Linux delays acknowledgements from here on.
        for _ in 0..8 {
            client.write_all(b"whole").await.unwrap();
            stream.exchange().expect(5);
            drain(&mut stream).await;
            stream.write_all(b"answer").await.unwrap();
            client.read_exact(&mut [0; 6]).await.unwrap();
        }
        client.write_all(b"whole").await.unwrap();
        stream.exchange().expect(5);
        drain(&mut stream).await;
        assert!(!is_quick(&stream));
        stream.write_all(b"answer").await.unwrap();
        client.write_all(b"head").await.unwrap();
        stream.exchange().expect(9);
        drain(&mut stream).await;
        assert!(is_quick(&stream));
    }
}
