//! A peer's connection: bytes in and out, with acknowledgements that are not delayed.
//!
//! Spin leaves Nagle's algorithm on for what it sends: its second small write of a request waits until we have
//! acknowledged the first, and Linux delays an acknowledgement by some 40 ms where it sees a dialogue.
//! `TCP_QUICKACK` stops that, but does not stick: it is set again after each read (tcp(7)).
//!
//! Invariant: bytes pass unchanged. Must not know of HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A peer's connection.
#[derive(Debug)]
pub(super) struct PeerStream(TcpStream);

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
        Ok(Self(stream))
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled_before = buffer.filled().len();
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        if read.is_ready() && buffer.filled().len() > filled_before {
            // A socket that refuses this still works, only slower.
            rustix::net::sockopt::set_tcp_quickack(&self.0, true).ok();
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
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
