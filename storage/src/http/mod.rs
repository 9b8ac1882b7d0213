//! The daemon's HTTP interface: one file a route, one mapping from errors to statuses, one accept loop.
//!
//! Handlers translate and delegate: appends go to [`crate::partition`], everything that reads to [`crate::query`].
//! They must not touch the log themselves, nor decide what is durable.

mod append;
mod batches;
mod body;
mod cluster;
mod context;
mod error;
mod health;
mod histogram;
mod internal;
mod labels;
mod metrics;
mod observe;
mod offsets;
mod operator;
mod parameters;
mod peer_limit;
mod peer_stream;
mod peer_tail;
mod read;
mod scope;
mod search;
mod server;
mod services;
mod tail;
mod tls_server;
mod touch;
mod viewer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use http::HeaderValue;
use model::Partition;

pub use health::Readiness;
pub use internal::internal_router;
pub use server::{ListeningServer, Server, ServerOptions};
pub use tail::Tails;

use crate::cluster::ClusterView;
use crate::limits;
use crate::metrics::Metrics;
use crate::offsets::{ConsumerOffsets, OffsetsError};
use crate::partition::PartitionHandle;
use crate::query::{Peers, Queries};
use crate::raft::Cluster;
use body::BodyBudget;
use error::ApiError;
use peer_limit::PeerLimit;

/// What the handlers share.
#[derive(Debug)]
pub struct App {
    /// This node, and what it knows of the others.
    pub cluster: Arc<ClusterView>,
    /// The partitions this node holds, in order.
    pub partitions: Vec<PartitionHandle>,
    /// Reads and searches over them.
    pub queries: Queries,
    /// The other nodes.
    pub peers: Peers,
    /// The replicas of this node; `None` where partitions have one copy.
    pub replication: Option<Arc<Cluster>>,
    /// How far consumers have read each partition that this node holds alone, or why that is not known.
    pub offsets: BTreeMap<Partition, Result<ConsumerOffsets, OffsetsError>>,
    /// This process among all there ever were: two URLs of one node are told by it.
    pub instance: HeaderValue,
    /// The tails that are followed.
    pub tails: Tails,
    /// What is counted.
    pub metrics: Metrics,
    /// The `Durability` header of answers to appends.
    pub durability: HeaderValue,
    /// Time for a request's whole body.
    pub body_timeout: Duration,
    /// Bytes of bodies in the process.
    pub body_bytes_max: usize,
    /// Bytes of appends that one peer address may send in a second; `None`: any.
    pub peer_bytes_per_second: Option<u64>,
}

/// The routes' state: the app, and what only the routes need.
#[derive(Clone, Debug)]
struct Shared {
    app: Arc<App>,
    budget: BodyBudget,
    peer_limit: Arc<PeerLimit>,
    readiness: Readiness,
}

/// The daemon's routes, of a node that does not leave.
pub fn router(app: Arc<App>) -> Router {
    router_of(app, Readiness::default())
}

/// The daemon's routes.
pub fn router_of(app: Arc<App>, readiness: Readiness) -> Router {
    let budget = BodyBudget::new(app.body_bytes_max);
    let peer_limit = Arc::new(PeerLimit::new(app.peer_bytes_per_second));
    let shared = Shared { app, budget, peer_limit, readiness };
    let get_only = |request| method_not_allowed(request, "GET, HEAD");
    let reads = Router::new()
        .route("/v1/search", get(search::search).fallback(get_only))
        .route("/v1/histogram", get(histogram::histogram).fallback(get_only))
        .route("/v1/extent", get(histogram::extent).fallback(get_only))
        .route("/v1/services", get(services::services).fallback(get_only))
        .route("/v1/labels", get(labels::names).fallback(get_only))
        .route("/v1/labels/{name}/values", get(labels::values).fallback(get_only))
        .route("/v1/tail", get(tail::tail).fallback(get_only))
        .route("/v1/context", get(context::context).fallback(get_only));
    let reads = reads.layer(axum::middleware::from_fn_with_state(shared.clone(), scope::sign));
    Router::new()
        .merge(reads)
        .route("/v1/storage", post(append::append).fallback(|request| method_not_allowed(request, "POST")))
        .route(
            "/v1/storage/batches",
            post(batches::append).fallback(|request| method_not_allowed(request, "POST")),
        )
        .route("/v1/read", get(read::read).fallback(get_only))
        .route("/v1/cluster", get(cluster::cluster).fallback(get_only))
        .route(
            "/v1/offsets/{consumer}",
            get(offsets::get)
                .put(offsets::put)
                .delete(offsets::delete)
                .fallback(|request| method_not_allowed(request, "GET, HEAD, PUT, DELETE")),
        )
        .route("/v1/node", get(internal::node).fallback(get_only))
        .route("/", get(viewer::page).fallback(get_only))
        .route("/viewer/{*path}", get(viewer::asset).fallback(get_only))
        .route("/metrics", get(metrics::metrics).fallback(get_only))
        .route("/healthz", get(health::live).fallback(get_only))
        .route("/readyz", get(health::ready).fallback(get_only))
        .fallback(unknown_path)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), observe::observe))
        .with_state(shared)
}

impl App {
    /// The partition of this number, if this node holds it.
    fn partition(&self, partition: Partition) -> Option<&PartitionHandle> {
        let place = self.partitions.binary_search_by_key(&partition, PartitionHandle::partition).ok()?;
        self.partitions.get(place)
    }

    /// Whether what this node has of a partition can be read: with replication every node knows all partitions, but has
    /// copies of some, and one that is being filled has not all of it.
    fn has_copy(&self, partition: Partition) -> bool {
        let Some(cluster) = &self.replication else { return self.partition(partition).is_some() };
        cluster.has_copy(partition)
    }

    /// Refuses a query of a partition that this node does not hold.
    fn check_partition(&self, partition: Option<Partition>) -> Result<(), ApiError> {
        match partition {
            Some(partition) if !self.has_copy(partition) => {
                Err(ApiError::PartitionUnknown { partition, held: self.held() })
            }
            _ => Ok(()),
        }
    }

    /// The partitions this node holds, in words.
    fn held(&self) -> String {
        let held = self.partitions.iter().map(PartitionHandle::partition);
        let mut numbers =
            held.filter(|partition| self.has_copy(*partition)).map(|partition| partition.to_string());
        let named: Vec<String> = numbers.by_ref().take(limits::PARTITIONS_NAMED_MAX).collect();
        match numbers.count() {
            0 if named.is_empty() => "none".to_owned(),
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}

async fn unknown_path(request: Request) -> ApiError {
    let path = request.uri().path().to_owned();
    refuse(request, ApiError::UnknownPath { path }).await
}

async fn method_not_allowed(request: Request, allow: &'static str) -> ApiError {
    let (path, method) = (request.uri().path().to_owned(), request.method().to_string());
    refuse(request, ApiError::MethodNotAllowed { path, method, allow }).await
}

/// Refuses a request whose body is not wanted, in a way that its client gets to read.
async fn refuse(request: Request, error: ApiError) -> ApiError {
    if !body::is_held_back(request.headers()) {
        body::discard(request.into_body()).await;
    }
    error
}

#[cfg(test)]
mod tests;
