//! `GET /metrics`: what is counted, for Prometheus.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::Shared;
use crate::metrics::{self, PartitionReading};
use crate::partition::PartitionHandle;

/// Shows all metrics.
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let readings = shared.app.partitions.iter().map(|held| {
        let replicas = shared.app.replication.as_deref();
        let replication = replicas.and_then(|cluster| cluster.reading(held.partition()));
        (held.partition(), PartitionReading { replication: replication.unwrap_or_default(), ..reading(held) })
    });
    let text = shared.app.metrics.encode(readings, shared.app.tails.open());
    ([(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))], text).into_response()
}

fn reading(held: &PartitionHandle) -> PartitionReading {
    let depth = held.queue_depth();
    let status = held.reader().status();
    let damaged = status.segments.iter().filter(|segment| segment.damage_count > 0).count();
    PartitionReading {
        queue_bytes: depth.bytes as u64,
        queue_requests: depth.requests as u64,
        disk_bytes: status.segments.iter().map(|segment| segment.stored_bytes + segment.index_bytes).sum(),
        segments: status.segments.len() as u64,
        damaged_segments: (damaged + status.missing.len()) as u64,
        lost_records: status.lost_records,
        high_watermark: status.high_watermark.get(),
        stopped: held.stopped().is_some(),
        ..PartitionReading::default()
    }
}
