//! The listener: accepts connections within their bound and spreads them over the shards.
//!
//! Invariant: at most `connections_max` connections exist, and after the shutdown signal none is accepted. It must
//! not know of requests.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::limits;
use crate::shard::{Handover, Shard};

/// Binds the listening socket.
///
/// # Errors
/// The operating system's.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::LISTEN_BACKLOG)
}

/// How connections are accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AcceptSettings {
    /// Connections at once; more wait in the listener's backlog.
    pub(crate) connections_max: usize,
    /// Whether Nagle's algorithm stays on, as in Spin.
    pub(crate) nagle: bool,
}

/// Accepts until `shutdown` resolves; then the listener is closed and the shards begin their own shutdown.
pub(crate) async fn accept_until(
    shutdown: impl Future<Output = ()>,
    listener: TcpListener,
    shards: Vec<Shard>,
    settings: AcceptSettings,
) {
    let permits = Arc::new(Semaphore::new(settings.connections_max));
    let accepting = async {
        // The semaphore is never closed: the loop ends with `shutdown`.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let (stream, peer) = accept(&listener, settings.nagle).await;
            // Clients keep their connections: the fairest start is the shard that has the fewest.
            let Some(shard) = shards.iter().min_by_key(|shard| shard.connections()) else {
                return;
            };
            let handover = Handover { stream, peer, permit };
            shard.give(handover).await;
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    let connections: usize = shards.iter().map(Shard::connections).sum();
    tracing::info!(connections, "shutting down");
}

/// The next connection that could be set up.
async fn accept(listener: &TcpListener, nagle: bool) -> (std::net::TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match set_up(stream, nagle) {
                Ok(stream) => return (stream, peer),
                Err(error) => tracing::debug!(%peer, %error, "a connection was gone at once"),
            },
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(limits::ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
}

fn set_up(stream: TcpStream, nagle: bool) -> io::Result<std::net::TcpStream> {
    if !nagle {
        stream.set_nodelay(true)?;
    }
    // A client that reads nothing would otherwise hold its connection for ever.
    let stall_ms = u32::try_from(limits::CLIENT_STALL_MAX.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, stall_ms)?;
    // It leaves this thread's event queue for that of its shard.
    stream.into_std()
}
