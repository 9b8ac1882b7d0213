//! A guest's standard output and error as lines of the host's log.
//!
//! Invariant: a write never blocks and holds at most one line of bounded length.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

use crate::limits::GUEST_LOG_LINE_BYTES_MAX;

/// Which of the guest's streams it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestLog {
    /// Logged as information.
    Stdout,
    /// Logged as a warning: a panic's message arrives here.
    Stderr,
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Lines { log: *self, pending: Vec::new() })
    }
}

/// Cuts what is written into lines.
struct Lines {
    log: GuestLog,
    /// The start of a line whose end has not come yet.
    pending: Vec<u8>,
}

impl Lines {
    fn emit(&mut self) {
        let line = String::from_utf8_lossy(&self.pending);
        match self.log {
            GuestLog::Stdout => tracing::info!(target: "guest", "{line}"),
            GuestLog::Stderr => tracing::warn!(target: "guest", "{line}"),
        }
        self.pending.clear();
    }

    fn accept(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for part in text.chunks(GUEST_LOG_LINE_BYTES_MAX) {
                if self.pending.len() + part.len() > GUEST_LOG_LINE_BYTES_MAX {
                    self.emit();
                }
                self.pending.extend_from_slice(part);
            }
            if ended && !self.pending.is_empty() {
                self.emit();
            }
        }
    }
}

impl AsyncWrite for Lines {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.accept(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.emit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestLog, Lines};
    use crate::limits::GUEST_LOG_LINE_BYTES_MAX;

    fn lines() -> Lines {
        Lines { log: GuestLog::Stdout, pending: Vec::new() }
    }

    #[test]
    fn a_line_is_kept_until_its_end_comes() {
        let mut lines = lines();
        lines.accept(b"one\ntw");
        assert_eq!(lines.pending, b"tw");
        lines.accept(b"o\n");
        assert!(lines.pending.is_empty());
    }

    #[test]
    fn a_line_without_end_never_grows_beyond_its_bound() {
        let mut lines = lines();
        for _ in 0..5 {
            lines.accept(&[b'x'; GUEST_LOG_LINE_BYTES_MAX / 2 + 7]);
            assert!(lines.pending.len() <= GUEST_LOG_LINE_BYTES_MAX);
        }
        lines.accept(&[b'x'; 3 * GUEST_LOG_LINE_BYTES_MAX]);
        assert!(lines.pending.len() <= GUEST_LOG_LINE_BYTES_MAX);
    }
}
