//! Connections of other nodes by TLS, before there is anything to serve.
//!
//! Invariants: agreeing takes a bounded time; whoever fails at it, however often, costs a bounded number of lines in the
//! log. Must not know of HTTP.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::peer_stream::PeerStream;
use crate::limits;
use crate::tls::NodeTls;

/// Takes connections by TLS. Cheap to clone.
#[derive(Clone)]
pub(super) struct TlsServer {
    acceptor: TlsAcceptor,
    /// The lines in the log that may still be written.
    lines: Arc<DefaultDirectRateLimiter>,
}

impl TlsServer {
    /// That of a node with these certificates.
    pub(super) fn new(tls: &NodeTls) -> Self {
        let lines =
            Quota::per_minute(NonZeroU32::new(limits::TLS_FAILURES_TOLD_MAX).unwrap_or(NonZeroU32::MIN));
        Self { acceptor: tls.acceptor(), lines: Arc::new(RateLimiter::direct(lines)) }
    }

    /// The connection, once the peer has shown a certificate of the cluster's authority.
    pub(super) async fn shake_hands(
        &self,
        stream: PeerStream,
        peer: SocketAddr,
    ) -> Option<TlsStream<PeerStream>> {
        let agreed = timeout(limits::TLS_HANDSHAKE_TIME_MAX, self.acceptor.accept(stream)).await;
        let why = match agreed {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        if self.lines.check().is_ok() {
            tracing::warn!(%peer, %why, "a connection that is no other node's, or has no certificate that this one takes, is closed");
        } else {
            tracing::debug!(%peer, %why, "a connection without TLS is closed");
        }
        None
    }
}

impl std::fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsServer").finish_non_exhaustive()
    }
}
