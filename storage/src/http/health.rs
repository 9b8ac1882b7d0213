//! `GET /healthz`: the process serves. `GET /readyz`: every partition takes writes and is whole, and its replica votes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Shared;
use super::error::ApiError;

/// Whether the node wants to be asked for more. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    is_leaving: Arc<AtomicBool>,
}

impl Readiness {
    /// From here on `/readyz` says no: a shutdown has begun.
    pub fn leave(&self) {
        self.is_leaving.store(true, Relaxed);
    }
}

/// What a healthy node says.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    version: &'static str,
}

impl Health {
    const OK: Self = Self { status: "ok", version: env!("CARGO_PKG_VERSION") };
}

/// Says that the process serves.
pub(super) async fn live() -> Json<Health> {
    Json(Health::OK)
}

/// Says whether every partition takes writes and is whole; names those that do not or are not.
pub(super) async fn ready(State(shared): State<Shared>) -> Result<Json<Health>, ApiError> {
    let mut reasons = Vec::new();
    if shared.readiness.is_leaving.load(Relaxed) {
        reasons.push("it is shutting down".to_owned());
    }
    for held in &shared.app.partitions {
        let partition = held.partition();
        if let Some(reason) = held.stopped() {
            reasons.push(format!("partition {partition} takes no writes: {reason}"));
        }
        let status = held.reader().status();
        if let Some(first) = status.damage().next() {
            let count = status.damage_count();
            reasons.push(format!("partition {partition} has {count} damaged places, the first: {first}"));
        }
    }
    if let Some(cluster) = &shared.app.replication {
        reasons.extend(cluster.lacks());
    }
    if reasons.is_empty() { Ok(Json(Health::OK)) } else { Err(ApiError::NotReady { reasons }) }
}
