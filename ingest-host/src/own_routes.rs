//! What the host answers itself: `/metrics`, and `/readyz`, which asks the component whether it works.
//!
//! Invariant: an answer comes within [`limits::OWN_ROUTE_MAX`], whatever the component does. Spin has neither route.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use tokio::time::timeout;
use wasmtime_wasi_http::WasiBody;

use crate::instance::InstancePool;
use crate::limits;
use crate::metrics::{Metrics, WalReport};

/// Whether the host wants to be asked for more. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness {
    is_leaving: Arc<AtomicBool>,
}

impl Readiness {
    /// From here on `/readyz` says no: a shutdown has begun.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Relaxed);
    }
}

/// What the host's own routes work with.
pub(crate) struct OwnRoutes {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Readiness,
}

/// A route of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnRoute {
    Metrics,
    Ready,
}

impl OwnRoute {
    /// The route of this path, if it is one of these.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "/metrics" => Some(Self::Metrics),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }
}

impl OwnRoutes {
    /// Answers a request to one of the routes.
    pub(crate) async fn respond(
        &self,
        route: OwnRoute,
        method: &Method,
        pool: &InstancePool,
    ) -> Response<WasiBody> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match route {
            OwnRoute::Metrics => {
                let text = self.metrics.encode(wal_report(pool).await);
                answer(StatusCode::OK, telemetry::text::CONTENT_TYPE, text)
            }
            OwnRoute::Ready => self.ready(pool).await,
        }
    }

    async fn ready(&self, pool: &InstancePool) -> Response<WasiBody> {
        let problem = if self.readiness.is_leaving.load(Relaxed) {
            Some("it is shutting down".to_owned())
        } else {
            match ask(pool, "/healthz").await {
                Some((StatusCode::OK, _)) => None,
                Some((status, body)) => Some(format!("the component answers {status}: {}", lossy(&body))),
                None => Some("the component does not answer".to_owned()),
            }
        };
        self.metrics.note_ready(problem.is_none());
        match problem {
            None => answer(StatusCode::OK, "application/json", r#"{"status":"ok"}"#),
            Some(problem) => {
                let json =
                    serde_json::json!({ "status": 503, "title": "Service Unavailable", "detail": problem });
                answer(StatusCode::SERVICE_UNAVAILABLE, model::problem::CONTENT_TYPE, json.to_string())
            }
        }
    }
}

/// What the component tells of its edge WAL.
async fn wal_report(pool: &InstancePool) -> Option<WalReport> {
    let (status, body) = ask(pool, "/v1/wal").await?;
    if status == StatusCode::OK { serde_json::from_slice(&body).ok() } else { None }
}

/// The component's answer to a `GET` of the host's own; `None` when there is none in time.
async fn ask(pool: &InstancePool, path: &str) -> Option<(StatusCode, Bytes)> {
    let request = Request::get(format!("http://localhost{path}")).body(boxed(Empty::new())).ok()?;
    let asking = async {
        let (head, body) = pool.handle(request).await.ok()?.into_parts();
        let body = Limited::new(body, limits::OWN_ANSWER_BYTES_MAX).collect().await.ok()?.to_bytes();
        Some((head.status, body))
    };
    timeout(limits::OWN_ROUTE_MAX, asking).await.ok()?
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<WasiBody> {
    let mut response = Response::new(boxed(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn boxed<B>(body: B) -> WasiBody
where
    B: http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    body.map_err(|never| match never {}).boxed_unsync()
}

fn lossy(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(500).collect()
}
