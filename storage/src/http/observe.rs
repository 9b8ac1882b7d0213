//! What is noted of every request: counts, and a line in the log that carries its trace.
//!
//! Invariant: neither bodies nor headers get into the log, but for the trace's id and the ingest's name, each of which
//! is checked. Must not know what the routes do.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use model::trace::{self, TraceParent};
use model::wire;

use super::Shared;
use crate::query::Stats;

/// The route of what matches none.
const NO_ROUTE: &str = "none";

/// Notes a request and its answer.
pub(super) async fn observe(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let trace = trace_of(request.headers());
    let response = next.run(request).await;
    let time = started.elapsed();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let status = response.status();
    let requests = &shared.app.metrics.requests;
    requests.note(route, status.as_u16(), time);
    if let Some(stats) = text(response.headers(), super::search::QUERY_STATS.as_str()) {
        requests.note_stats(&Stats::parse(stats));
    }
    let (code, us) = (status.as_u16(), time.as_micros());
    let trace_id = trace.as_ref().map(|trace| tracing::field::display(trace.trace_id()));
    // A client that records the trace wants to find it here; what goes wrong here is the operator's to know.
    if status.is_server_error() {
        tracing::warn!(trace_id, %method, route, status = code, us, "answered");
    } else if trace.as_ref().is_some_and(TraceParent::is_sampled) {
        tracing::info!(trace_id, %method, route, status = code, us, "answered");
    } else {
        tracing::debug!(trace_id, %method, route, status = code, us, "answered");
    }
    response
}

/// The trace that a request belongs to, if it says so.
pub(super) fn trace_of(headers: &HeaderMap) -> Option<TraceParent> {
    text(headers, trace::TRACEPARENT).and_then(TraceParent::parse)
}

/// A header's value, if it is text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The name of the ingest node that sent a request, if it says one.
pub(super) fn ingest_node(headers: &HeaderMap) -> Option<&str> {
    text(headers, wire::INGEST_NODE)
}
