//! The listener and its connections: accepts within the bound, serves the router, and ends when told.
//!
//! Invariants: at most `connections_max` connections exist, those that have not agreed on TLS yet among them; after the
//! shutdown began none is accepted, and requests under way get the grace. Must not know what the routes do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::{HeaderName, HeaderValue};
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use super::peer_limit::Peer;
use super::peer_stream::{Exchange, PeerStream};
use super::tls_server::TlsServer;
use crate::limits;
use crate::tls::NodeTls;

/// How connections are served.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Connections at once; more wait in the listener's backlog.
    pub connections_max: usize,
    /// Time for a request's head, counted from the answer before.
    pub header_timeout: Duration,
    /// Time for requests under way once the shutdown began.
    pub shutdown_grace: Duration,
}

/// A socket that is bound and does not listen yet.
#[derive(Debug)]
pub struct Server {
    socket: TcpSocket,
    options: ServerOptions,
}

/// A socket that listens.
#[derive(Debug)]
pub struct ListeningServer {
    listener: TcpListener,
    options: ServerOptions,
    tls: Option<TlsServer>,
}

impl Server {
    /// Binds the listening socket; port 0 takes a free one. Clients are refused until [`Self::listen`]: one that is not
    /// ready must not have them wait.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(address: SocketAddr, options: ServerOptions) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the connections of the process before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { socket, options })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Begins to listen: from here on clients are taken, or wait for a moment.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen(self) -> io::Result<ListeningServer> {
        let Self { socket, options } = self;
        Ok(ListeningServer { listener: socket.listen(limits::LISTEN_BACKLOG)?, options, tls: None })
    }
}

impl ListeningServer {
    /// Takes connections by TLS alone, where there is one.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<&NodeTls>) -> Self {
        self.tls = tls.map(TlsServer::new);
        self
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` resolves; then accepts no more, and returns once the requests under way are answered
    /// or the grace is over.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        let Self { listener, options, tls } = self;
        let graceful = GracefulShutdown::new();
        tokio::select! {
            () = accept_all(&listener, options, tls.as_ref(), &router, &graceful) => {}
            () = shutdown => {}
        }
        drop(listener);
        tracing::info!(connections = graceful.count(), "shutting down");
        if timeout(options.shutdown_grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests under way were given up after the grace");
        }
    }
}

async fn accept_all(
    listener: &TcpListener,
    options: ServerOptions,
    tls: Option<&TlsServer>,
    router: &Router,
    graceful: &GracefulShutdown,
) {
    let http = http_settings(options.header_timeout);
    let permits = Arc::new(Semaphore::new(options.connections_max));
    // The semaphore is never closed: the loop ends with the caller's patience.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let (stream, peer) = accept(listener).await;
        let connection =
            Connection { http: http.clone(), router: router.clone(), peer, watcher: graceful.watcher() };
        // Two tasks rather than one that can be either: those of clients, which are many, stay as small as they can be.
        let Some(tls) = tls.cloned() else {
            let exchange = Some(stream.exchange());
            tokio::spawn(async move {
                connection.serve(stream, exchange).await;
                drop(permit);
            });
            continue;
        };
        tokio::spawn(async move {
            if let Some(stream) = tls.shake_hands(stream, peer).await {
                connection.serve(stream, None).await;
            }
            drop(permit);
        });
    }
}

/// What a connection is served by.
struct Connection {
    http: http1::Builder,
    router: Router,
    peer: SocketAddr,
    watcher: Watcher,
}

impl Connection {
    /// `exchange` is told how long requests are, where their bytes are those of the stream.
    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        exchange: Option<Arc<Exchange>>,
    ) {
        let Self { http, router, peer, watcher } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            if let Some((exchange, length)) = exchange.as_ref().zip(bytes_of(&request)) {
                exchange.expect(length);
            }
            request.extensions_mut().insert(Peer(peer.ip()));
            router.clone().oneshot(request)
        });
        if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await {
            tracing::debug!(%peer, %error, "a connection ended with an error");
        }
    }
}

/// How many bytes a request has, head and body, if it says how long its body is. White space that a client puts around
/// header values, and nobody does, is not counted.
fn bytes_of(request: &Request<impl Body>) -> Option<u64> {
    let body = request.body().size_hint().exact()?;
    // `METHOD target HTTP/1.1`, a line for each header, and an empty one.
    let target = match request.uri().path_and_query() {
        Some(target) if request.uri().authority().is_none() => target.as_str().len(),
        _ => return None,
    };
    let line = request.method().as_str().len() + 1 + target + " HTTP/1.1\r\n".len();
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + ": ".len() + value.len() + "\r\n".len()
    };
    let headers: usize = request.headers().iter().map(header).sum();
    Some((line + headers + "\r\n".len()) as u64 + body)
}

/// The next connection that could be set up.
async fn accept(listener: &TcpListener) -> (PeerStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match set_up(stream) {
                Ok(stream) => return (stream, peer),
                Err(error) => tracing::debug!(%peer, %error, "a connection was gone at once"),
            },
            Err(error) => {
                // Usually no file descriptors are left: the pause keeps the loop from spinning.
                tracing::warn!(%error, "no connection could be accepted");
                sleep(limits::ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
}

fn set_up(stream: TcpStream) -> io::Result<PeerStream> {
    PeerStream::new(stream, limits::WRITE_STALL_MAX)
}

fn http_settings(header_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(limits::READ_BUFFER_BYTES_MAX)
        .max_header_size(limits::REQUEST_HEAD_BYTES_MAX)
        .max_headers(limits::REQUEST_HEADERS_MAX);
    http
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requests_length_is_that_on_the_wire() {
        let head =
            "POST /v1/storage?partition=3 HTTP/1.1\r\nhost: a:1\r\ncontent-length: 5\r\nbatch-id: 7\r\n\r\n";
        let body = http_body_util::Full::new(bytes::Bytes::from_static(b"hello"));
        let request = Request::post("/v1/storage?partition=3")
            .header("host", "a:1")
            .header("content-length", "5")
            .header("batch-id", "7")
            .body(body)
            .unwrap();
        assert_eq!(bytes_of(&request), Some(head.len() as u64 + 5));
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_has_no_client_wait() {
        let options = ServerOptions {
            connections_max: 1,
            header_timeout: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(1),
        };
        let server = Server::bind(([127, 0, 0, 1], 0).into(), options).unwrap();
        let address = server.local_address().unwrap();
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let server = server.listen().unwrap();
        assert_eq!(server.local_address().unwrap(), address);
        TcpStream::connect(address).await.unwrap();
    }
}
