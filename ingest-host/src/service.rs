//! One request: from hyper's hands through the limits to the pool of instances, and its answer back.
//!
//! Invariant: every request is answered, by the component or by a [`Refusal`], within its deadline. It must not know
//! of listeners, threads or Wasmtime's stores.

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{EXPECT, HOST, HeaderName};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body as _, Incoming};
use hyper::service::Service;
use model::trace::{TRACEPARENT, TraceParent};
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::WasiBody;

use crate::body::{Accepted, Intake};
use crate::instance::{HandleError, InstancePool};
use crate::manifest::Route;
use crate::metrics::RequestNote;
use crate::own_routes::{OwnRoute, OwnRoutes};
use crate::problem::Refusal;

/// Spin's name for the client's address.
const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("spin-client-addr");

/// What answers requests; the connections of a shard share it.
pub(crate) struct RequestService {
    /// The paths that are served.
    pub(crate) route: Route,
    /// Longest time from a request's head to its response's head.
    pub(crate) request_max: Duration,
    /// Takes in bodies.
    pub(crate) intake: Intake,
    /// What the host answers itself.
    pub(crate) own: OwnRoutes,
    /// Has the component answer.
    pub(crate) pool: InstancePool,
}

/// Answers the requests of one connection.
pub(crate) struct PeerService {
    requests: Arc<RequestService>,
    /// The client's address. (That it is `None` cannot happen: an address has only characters that a header may have.)
    peer: Option<HeaderValue>,
}

impl PeerService {
    pub(crate) fn new(requests: &Arc<RequestService>, peer: SocketAddr) -> Self {
        Self { requests: Arc::clone(requests), peer: HeaderValue::try_from(peer.to_string()).ok() }
    }
}

impl Service<Request<Incoming>> for PeerService {
    type Response = Response<WasiBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let requests = Arc::clone(&self.requests);
        let peer = self.peer.clone();
        Box::pin(async move { Ok(requests.respond(request, peer).await) })
    }
}

impl RequestService {
    async fn respond(&self, mut request: Request<Incoming>, peer: Option<HeaderValue>) -> Response<WasiBody> {
        let start = Instant::now();
        let method = request.method().clone();
        let uri = request.uri().clone();
        let body_bytes = request.body().size_hint().exact().unwrap_or_default();
        let trace = trace_of(request.headers_mut());
        let answer = match OwnRoute::of(uri.path()) {
            Some(route) => Ok(self.own.respond(route, &method, &self.pool).await),
            None => self.answer(request, peer, start + self.request_max).await,
        };
        let (response, refusal) = match answer {
            Ok(response) => (response, None),
            Err(refusal) => (refusal.into_response(), Some(refusal)),
        };
        let note = RequestNote::new(&method, uri.path(), body_bytes, start.elapsed());
        self.own.metrics.note_request(&note, response.status().as_u16(), response.headers());
        log_request(&Logged { trace, method: &method, path: uri.path(), refusal, start }, response.status());
        response
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: Option<HeaderValue>,
        deadline: Instant,
    ) -> Result<Response<WasiBody>, Refusal> {
        if !self.route.matches(request.uri().path()) {
            return Err(Refusal::NoRoute);
        }
        complete_uri(&mut request)?;
        // After any that the client sent: the last one is the host's.
        if let Some(peer) = peer {
            request.headers_mut().append(CLIENT_ADDRESS, peer);
        }
        let client_waits = request.headers().contains_key(EXPECT);
        let (head, incoming) = request.into_parts();
        let accepting = timeout_at(deadline, self.intake.accept(incoming, client_waits));
        let Accepted { body, verdict } = accepting.await.map_err(|_| Refusal::BodyTooSlow)??;
        let handling = timeout_at(deadline, self.pool.handle(Request::from_parts(head, body)));
        let handled = handling.await.unwrap_or(Err(HandleError::TimedOut));
        match (verdict.refusal(), handled) {
            (Some(refusal), _) => Err(refusal),
            (None, Ok(response)) => Ok(response),
            (None, Err(error)) => Err(refuse(&error, deadline)),
        }
    }
}

fn refuse(error: &HandleError, deadline: Instant) -> Refusal {
    match error {
        HandleError::Overloaded => Refusal::Overloaded,
        HandleError::TimedOut => Refusal::TimedOut,
        // An instance that computes past the deadline is ended for it.
        HandleError::InstanceEnded if Instant::now() >= deadline => Refusal::TimedOut,
        HandleError::InstanceEnded => Refusal::ComponentFailed,
        HandleError::Guest(reason) => {
            tracing::warn!(reason, "the component failed");
            Refusal::ComponentFailed
        }
    }
}

/// Gives the request's target the scheme and authority that the component expects to find there.
fn complete_uri(request: &mut Request<Incoming>) -> Result<(), Refusal> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_none() {
        let host = request.headers().get(HOST).ok_or(Refusal::BadHost)?;
        let authority = Authority::try_from(host.as_bytes()).map_err(|_| Refusal::BadHost)?;
        parts.authority = Some(authority);
    }
    parts.scheme = Some(Scheme::HTTP);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::BadHost)?;
    Ok(())
}

/// The trace that a request belongs to: the client's, or one of its own, which the component then finds there.
fn trace_of(headers: &mut HeaderMap) -> TraceParent {
    let given = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(TraceParent::parse);
    given.unwrap_or_else(|| {
        let own = TraceParent::unsampled(chance());
        // It is visible ASCII.
        if let Ok(value) = HeaderValue::from_str(own.as_str()) {
            headers.insert(TRACEPARENT, value);
        }
        own
    })
}

/// Random bits, good enough to tell requests apart: what the standard library seeds its hash maps with.
fn chance() -> u128 {
    let draw = || u128::from(RandomState::new().build_hasher().finish());
    draw() << 64 | draw()
}

/// What is logged of a request. Its query is not: what somebody searches for may be a secret.
struct Logged<'r> {
    trace: TraceParent,
    method: &'r Method,
    path: &'r str,
    refusal: Option<Refusal>,
    start: Instant,
}

fn log_request(request: &Logged<'_>, status: StatusCode) {
    let Logged { trace, method, path, refusal, start } = request;
    let (code, us) = (status.as_u16(), start.elapsed().as_micros());
    let (trace_id, refusal) = (trace.trace_id(), refusal.map(tracing::field::debug));
    // What a client did wrong is its own concern; what went wrong here is the operator's. A client that records the
    // trace wants to find it here.
    if status.is_server_error() {
        tracing::warn!(trace_id, %method, path, status = code, us, refusal, "answered");
    } else if trace.is_sampled() {
        tracing::info!(trace_id, %method, path, status = code, us, refusal, "answered");
    } else {
        tracing::debug!(trace_id, %method, path, status = code, us, refusal, "answered");
    }
}
