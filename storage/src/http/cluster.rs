//! `GET /v1/cluster`: the nodes and the partitions that this node knows, who leads them, and how far their copies are.

use axum::Json;
use axum::extract::State;
use model::wire::{ClusterAnswer, PartitionState, Replica, ReplicaRole};

use super::Shared;
use crate::partition::PartitionHandle;

/// Describes the cluster; without replication this node, which leads every partition it holds.
pub(super) async fn cluster(State(shared): State<Shared>) -> Json<ClusterAnswer> {
    let view = &shared.app.cluster;
    if let Some(cluster) = &shared.app.replication {
        let (nodes, partitions) = cluster.overview();
        return Json(ClusterAnswer { node: view.name().to_owned(), nodes, partitions });
    }
    let partitions = shared.app.partitions.iter().map(|held| single_copy(held, view.name(), view.url()));
    Json(ClusterAnswer {
        node: view.name().to_owned(),
        nodes: view.nodes(),
        partitions: partitions.collect(),
    })
}

/// A partition of which the node of this name and URL has the only copy.
fn single_copy(held: &PartitionHandle, node: &str, url: &str) -> PartitionState {
    let high_watermark = held.reader().high_watermark();
    PartitionState {
        partition: held.partition(),
        leader: Some(url.to_owned()),
        term: 0,
        first_offset: held.reader().first_offset(),
        high_watermark,
        replicas: vec![Replica {
            node: node.to_owned(),
            url: url.to_owned(),
            role: ReplicaRole::Leader,
            // Nothing is read before its sync, unless the operator chose not to wait for syncs.
            flushed: high_watermark,
            lag: 0,
        }],
    }
}
