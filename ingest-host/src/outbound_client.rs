//! The client behind the component's outbound requests: pooled, bounded, plain HTTP, allowed hosts only.
//!
//! Invariant: no request leaves for a host that [`AllowedHosts`] denies, and every wait ends: connect, first byte
//! and between bytes have limits whether the guest sets them or not. It must not know of WIT or instances.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::outbound::default_port;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use crate::limits;
use crate::metrics::{Forward, Metrics};
use crate::outbound::AllowedHosts;

tokio::task_local! {
    /// The connect time-out of the request that is being sent. The pool calls the connector without telling it
    /// on whose behalf, but does so inside the request's own future.
    static CONNECT_TIMEOUT: Duration;
}

/// A handle to the client. Clones share the pool.
#[derive(Clone)]
pub(crate) struct OutboundClient {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client<TimedConnector, WasiBody>,
    allowed: Arc<AllowedHosts>,
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl OutboundClient {
    /// A client for these hosts. `nagle` leaves Nagle's algorithm on, as Spin does.
    pub(crate) fn new(allowed: Arc<AllowedHosts>, nagle: bool, metrics: Arc<Metrics>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(!nagle);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits::OUTBOUND_IDLE)
            .pool_max_idle_per_host(limits::OUTBOUND_IDLE_PER_HOST_MAX)
            .http1_max_buf_size(limits::CONNECTION_BUFFER_BYTES_MAX)
            .build(TimedConnector { connector });
        let permits = Arc::new(Semaphore::new(limits::OUTBOUND_REQUESTS_MAX));
        Self { shared: Arc::new(Shared { client, allowed, permits, metrics }) }
    }

    /// Sends a request and returns once the response's head is there; its body keeps its own time limit.
    ///
    /// # Errors
    /// [`Error::HttpRequestDenied`] for a host that is not allowed; else what went wrong on the way.
    pub(crate) async fn send(
        &self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, Error> {
        let (started, forward) = (Instant::now(), Forward::of(request.headers()));
        let response = self.send_allowed(request, options).await;
        let status = response.as_ref().ok().map(|response| response.status().as_u16());
        if let Some(forward) = forward {
            self.shared.metrics.note_forward(forward, status, started.elapsed());
        }
        response
    }

    async fn send_allowed(
        &self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, Error> {
        self.check_allowed(request.uri())?;
        let timeouts = Timeouts::new(options);
        let sent = CONNECT_TIMEOUT.scope(timeouts.connect, async {
            let permit = Arc::clone(&self.shared.permits)
                .acquire_owned()
                .await
                .map_err(|_| Error::ConnectionLimitReached)?;
            let response = self.shared.client.request(request).await;
            Ok::<_, Error>((response.map_err(classify)?, permit))
        });
        // The guest's limit covers all that it waits for: a place in the pool, the connection, the head.
        let (response, permit) =
            timeout(timeouts.first_byte, sent).await.map_err(|_| Error::ConnectionReadTimeout)??;
        Ok(response.map(|incoming| {
            ResponseBody { incoming, between_bytes: timeouts.between_bytes, pause: None, _permit: permit }
                .boxed_unsync()
        }))
    }

    fn check_allowed(&self, uri: &Uri) -> Result<(), Error> {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(Error::HttpRequestUriInvalid);
        };
        let Some(port) = uri.port_u16().or_else(|| default_port(scheme)) else {
            return Err(Error::HttpRequestUriInvalid);
        };
        if !self.shared.allowed.allow(scheme, host, port) {
            tracing::warn!(
                "the component may not call {scheme}://{host}:{port}: it is not in `allowed_outbound_hosts`"
            );
            return Err(Error::HttpRequestDenied);
        }
        if scheme != "http" {
            return Err(Error::HttpProtocolError);
        }
        Ok(())
    }
}

/// The limits of one request.
struct Timeouts {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Timeouts {
    fn new(options: RequestOptions) -> Self {
        let bounded = |asked: Option<Duration>, default: Duration| {
            asked.unwrap_or(default).min(limits::OUTBOUND_TIMEOUT_MAX)
        };
        Self {
            connect: bounded(options.connect_timeout, limits::OUTBOUND_CONNECT),
            first_byte: bounded(options.first_byte_timeout, limits::OUTBOUND_FIRST_BYTE),
            between_bytes: bounded(options.between_bytes_timeout, limits::OUTBOUND_BETWEEN_BYTES),
        }
    }
}

/// hyper's connector with the time-out of the request at hand.
#[derive(Clone)]
struct TimedConnector {
    connector: HttpConnector,
}

impl tower::Service<Uri> for TimedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower::Service::poll_ready(&mut self.connector, cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = CONNECT_TIMEOUT.try_with(|limit| *limit).unwrap_or(limits::OUTBOUND_CONNECT);
        let connecting = tower::Service::call(&mut self.connector, uri);
        Box::pin(async move {
            match timeout(limit, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

/// A response's body that ends with an error when it pauses for too long.
struct ResponseBody {
    incoming: Incoming,
    between_bytes: Duration,
    /// Armed while the body is waited for. Most bodies never wait: they came with the head.
    pause: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.pause = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let limit = self.between_bytes;
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        pause.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What a guest is told of a failed request.
fn classify(error: hyper_util::client::legacy::Error) -> Error {
    tracing::debug!(error = %Chain(&error), "an outbound request failed");
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io_error) = inner.downcast_ref::<io::Error>() {
            return of_io_error(io_error, error.is_connect());
        }
        if let Some(hyper_error) = inner.downcast_ref::<hyper::Error>()
            && (hyper_error.is_canceled() || hyper_error.is_closed() || hyper_error.is_incomplete_message())
        {
            return Error::ConnectionTerminated;
        }
        cause = inner.source();
    }
    if error.is_connect() { Error::DestinationUnavailable } else { Error::HttpProtocolError }
}

fn of_io_error(error: &io::Error, connecting: bool) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut if connecting => Error::ConnectionTimeout,
        io::ErrorKind::TimedOut => Error::ConnectionReadTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationIpUnroutable,
        _ if connecting => Error::DestinationUnavailable,
        _ => Error::ConnectionTerminated,
    }
}

/// An error with its causes, for the log.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(inner) = cause {
            write!(formatter, ": {inner}")?;
            cause = inner.source();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "outbound_client_tests.rs"]
mod tests;
