//! `GET /v1/cluster`: the partitions there are, who leads them, and which of their records can be read.

use axum::Json;
use axum::extract::State;
use model::wire::{ClusterAnswer, PartitionState};

use super::Shared;

/// Describes this node. It leads every partition it holds: there is one copy of each.
pub(super) async fn cluster(State(shared): State<Shared>) -> Json<ClusterAnswer> {
    let node = &shared.app.node;
    let partitions = shared.app.partitions.iter().map(|held| PartitionState {
        partition: held.partition(),
        leader: node.clone(),
        first_offset: held.reader().first_offset(),
        high_watermark: held.reader().high_watermark(),
    });
    Json(ClusterAnswer { node: node.clone(), partitions: partitions.collect() })
}
