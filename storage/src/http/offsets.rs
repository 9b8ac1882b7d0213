//! `GET`, `PUT` and `DELETE /v1/offsets/{consumer}`: how far a consumer has read each partition of this node.
//!
//! The body is an object of offsets by partition: `{"0":1234,"1":88}`. A `PUT` leaves the partitions that it does not
//! name, and stores nothing if one of them is at fault; a disk that fails midway may leave some of them. Where partitions have several copies there is nothing of it yet:
//! an offset that only one copy knows would be lost with that.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use model::{Offset, Partition};

use super::Shared;
use super::body::Collected;
use super::error::ApiError;
use crate::limits;
use crate::offsets::Consumer;
use crate::query::{ParameterError, PoolError};

type Offsets = BTreeMap<Partition, Offset>;

/// Where the consumer is in the partitions of this node; `{}` for one that is not known.
pub(super) async fn get(
    State(shared): State<Shared>,
    Path(consumer): Path<String>,
) -> Result<Json<Offsets>, ApiError> {
    let consumer = parse(&consumer)?;
    refuse_replicated(&shared)?;
    let mut known = Offsets::new();
    for (partition, offsets) in &shared.app.offsets {
        let offsets = offsets.as_ref().map_err(Clone::clone)?;
        known.extend(offsets.get(&consumer).map(|offset| (*partition, offset)));
    }
    Ok(Json(known))
}

/// Writes down where the consumer is.
pub(super) async fn put(
    State(shared): State<Shared>,
    Path(consumer): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let consumer = parse(&consumer)?;
    refuse_replicated(&shared)?;
    let Collected { bytes, .. } = shared.budget.collect(request.into_body(), shared.app.body_timeout).await?;
    if bytes.len() > limits::OFFSETS_BODY_BYTES_MAX {
        return Err(bad_body("it is too large"));
    }
    let wanted: Offsets = serde_json::from_slice(&bytes).map_err(|error| bad_body(&error.to_string()))?;
    for (partition, offset) in &wanted {
        check(&shared, *partition, *offset)?;
    }
    set(shared, consumer, wanted.into_iter().map(|(partition, offset)| (partition, Some(offset))).collect())
        .await
}

/// Forgets the consumer.
pub(super) async fn delete(
    State(shared): State<Shared>,
    Path(consumer): Path<String>,
) -> Result<Response, ApiError> {
    let consumer = parse(&consumer)?;
    refuse_replicated(&shared)?;
    let all = shared.app.offsets.keys().map(|partition| (*partition, None)).collect();
    set(shared, consumer, all).await
}

/// A consumer is within what may be read of a partition that this node leads.
fn check(shared: &Shared, partition: Partition, offset: Offset) -> Result<(), ApiError> {
    let Some(held) = shared.app.partition(partition) else {
        let leader = shared.app.cluster.leader_of(partition).and_then(|url| url.try_into().ok());
        return Err(ApiError::PartitionElsewhere { partition, held: shared.app.held(), leader });
    };
    let end = held.reader().high_watermark();
    if offset > end {
        let detail = format!("partition {partition} ends at {end}, and {offset} is behind that");
        return Err(ParameterError::new(&partition.to_string(), detail).into());
    }
    Ok(())
}

async fn set(
    shared: Shared,
    consumer: Consumer,
    wanted: BTreeMap<Partition, Option<Offset>>,
) -> Result<Response, ApiError> {
    let write = move || {
        for partition in wanted.keys() {
            if let Some(Err(error)) = shared.app.offsets.get(partition) {
                return Err(error.clone().into());
            }
        }
        for (partition, offset) in wanted {
            if let Some(offsets) = shared.app.offsets.get(&partition) {
                offsets.as_ref().map_err(Clone::clone)?.set(&consumer, offset)?;
            }
        }
        Ok::<_, ApiError>(StatusCode::NO_CONTENT.into_response())
    };
    tokio::task::spawn_blocking(write).await.map_err(|_panicked| PoolError::BrokenOff)?
}

fn refuse_replicated(shared: &Shared) -> Result<(), ApiError> {
    if shared.app.replication.is_some() { Err(ApiError::OffsetsReplicated) } else { Ok(()) }
}

fn parse(consumer: &str) -> Result<Consumer, ApiError> {
    consumer.parse().map_err(|error: crate::offsets::InvalidConsumer| {
        ParameterError::new("consumer", error.to_string()).into()
    })
}

fn bad_body(detail: &str) -> ApiError {
    let detail = format!("the body has to be offsets by partition, as in {{\"0\":1234}}: {detail}");
    ParameterError::new("body", detail).into()
}
