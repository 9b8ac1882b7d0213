//! A shard: one thread that serves its connections, runs its instances and calls storage, all by itself.
//!
//! A request that moves between threads pays for it at every wake-up, and a request here has a dozen: bodies,
//! guests, four forwards and their answers. So nothing that happens per request crosses threads.
//! Invariant: a connection stays on the shard that it was given to. It must not know of the listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use crate::limits;
use crate::service::{PeerService, RequestService};

/// How a shard treats its connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardSettings {
    /// Longest wait for a request's head.
    pub(crate) header_read_max: Duration,
    /// How long requests in flight may go on after the shutdown began.
    pub(crate) shutdown_grace: Duration,
}

/// A connection on its way to a shard.
pub(crate) struct Handover {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    /// Its share of the connections that may exist.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// A running shard, as the acceptor sees it. Dropping it begins the shard's shutdown.
pub(crate) struct Shard {
    handovers: mpsc::Sender<Handover>,
    open: Arc<AtomicUsize>,
}

impl Shard {
    /// Starts a shard's thread. It ends once the [`Shard`] is dropped and its requests are done, or the grace is over.
    ///
    /// # Errors
    /// The operating system's, when it grants no thread or no event queue.
    pub(crate) fn start(
        name: String,
        settings: ShardSettings,
        requests: RequestService,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handovers, received) = mpsc::channel(limits::HANDOVERS_MAX);
        let open = Arc::new(AtomicUsize::new(0));
        let shard = Self { handovers, open: Arc::clone(&open) };
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(serve(received, settings, Arc::new(requests), open));
            // What guests do after their responses is dropped, as Spin drops it.
            runtime.shutdown_timeout(limits::THREADS_END_MAX);
        })?;
        Ok((shard, thread))
    }

    /// Connections that it has, with those that are on their way to it.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Gives it a connection. If the shard has ended, the connection is closed.
    pub(crate) async fn give(&self, handover: Handover) {
        self.open.fetch_add(1, Relaxed);
        if self.handovers.send(handover).await.is_err() {
            tracing::error!("a shard has ended: its connection is closed");
        }
    }
}

async fn serve(
    mut received: mpsc::Receiver<Handover>,
    settings: ShardSettings,
    requests: Arc<RequestService>,
    open: Arc<AtomicUsize>,
) {
    let http = http_settings(settings.header_read_max);
    let graceful = GracefulShutdown::new();
    while let Some(Handover { stream, peer, permit }) = received.recv().await {
        let open = Arc::clone(&open);
        let served = TcpStream::from_std(stream).map(|stream| {
            let service = PeerService::new(&requests, peer);
            graceful.watch(http.serve_connection(TokioIo::new(stream), service))
        });
        tokio::spawn(async move {
            match served {
                Ok(served) => {
                    if let Err(error) = served.await {
                        tracing::debug!(%peer, %error, "a connection ended with an error");
                    }
                }
                Err(error) => tracing::warn!(%peer, %error, "a connection could not be served"),
            }
            open.fetch_sub(1, Relaxed);
            drop(permit);
        });
    }
    if timeout(settings.shutdown_grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests in flight were given up after the grace");
    }
}

fn http_settings(header_read_max: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(header_read_max)
        .max_buf_size(limits::CONNECTION_BUFFER_BYTES_MAX)
        .max_header_size(limits::HEAD_BYTES_MAX);
    http
}
