//! `GET`, `PUT` and `DELETE /v1/offsets/{consumer}`: how far a consumer has read each partition of this node.
//!
//! The body is an object of offsets by partition: `{"0":1234,"1":88}`. A `PUT` leaves the partitions that it does not
//! name, and stores nothing if one of them is at fault; a disk that fails midway may leave some of them. Where partitions
//! have several copies a node answers for those that it leads, and the others keep the offsets too.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use futures::future::{join_all, try_join_all};
use http::StatusCode;
use model::{Offset, Partition};

use super::body::Collected;
use super::error::ApiError;
use super::read::make_current;
use super::{Shared, parameters};
use crate::limits;
use crate::log::ConsumerCommit;
use crate::offsets::Consumer;
use crate::partition::PartitionHandle;
use crate::query::{ParameterError, PoolError, parse_partition};
use crate::raft::{Cluster, Group, ReadError};

type Offsets = BTreeMap<Partition, Offset>;

/// Where the consumer is in the partitions of this node, or in one of them; `{}` for one that is not known.
pub(super) async fn get(
    State(shared): State<Shared>,
    Path(consumer): Path<String>,
    request: Request,
) -> Result<Json<Offsets>, ApiError> {
    let consumer = parse(&consumer)?;
    let asked = asked_partition(&request)?;
    let mut known = Offsets::new();
    if shared.app.replication.is_some() {
        for group in current_groups(&shared, asked).await? {
            known.extend(group.offset_of(consumer.key()).map(|offset| (group.partition(), offset)));
        }
        return Ok(Json(known));
    }
    if let Some(partition) = asked {
        check_held(&shared, partition)?;
    }
    for (partition, offsets) in &shared.app.offsets {
        if asked.is_none_or(|asked| asked == *partition) {
            let offsets = offsets.as_ref().map_err(Clone::clone)?;
            known.extend(offsets.get(&consumer).map(|offset| (*partition, offset)));
        }
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
    let Collected { bytes, .. } = shared.budget.collect(request.into_body(), shared.app.body_timeout).await?;
    if bytes.len() > limits::OFFSETS_BODY_BYTES_MAX {
        return Err(bad_body("it is too large"));
    }
    let wanted: Offsets = serde_json::from_slice(&bytes).map_err(|error| bad_body(&error.to_string()))?;
    if shared.app.replication.is_some() {
        let current = wanted.keys().map(|partition| make_current(&shared, *partition));
        try_join_all(current).await?;
    }
    for (partition, offset) in &wanted {
        check(&shared, *partition, *offset)?;
    }
    set(shared, consumer, wanted.into_iter().map(|(partition, offset)| (partition, Some(offset))).collect())
        .await
}

/// Forgets the consumer in the partitions of this node, or in one of them.
pub(super) async fn delete(
    State(shared): State<Shared>,
    Path(consumer): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let consumer = parse(&consumer)?;
    let asked = asked_partition(&request)?;
    let all: Vec<Partition> = if shared.app.replication.is_some() {
        current_groups(&shared, asked).await?.into_iter().map(Group::partition).collect()
    } else if let Some(partition) = asked {
        check_held(&shared, partition)?;
        vec![partition]
    } else {
        shared.app.offsets.keys().copied().collect()
    };
    let all = all.into_iter().map(|partition| (partition, None)).collect();
    set(shared, consumer, all).await
}

/// The partition that a request is about, if it is about one alone.
fn asked_partition(request: &Request) -> Result<Option<Partition>, ApiError> {
    let [partition] = parameters::take(request.uri(), ["partition"])?;
    Ok(partition.map(|partition| parse_partition(&partition)).transpose()?)
}

/// The replicas of this node that know of all that was agreed on: that of the partition that is asked for, or those that
/// lead.
async fn current_groups(shared: &Shared, asked: Option<Partition>) -> Result<Vec<&Group>, ApiError> {
    let Some(cluster) = &shared.app.replication else { return Ok(Vec::new()) };
    if let Some(partition) = asked {
        make_current(shared, partition).await?;
        return Ok(cluster.group(partition).into_iter().collect());
    }
    let groups = cluster.groups().iter().filter(|group| group.leads());
    let confirmed = join_all(groups.map(async |group| (group, group.confirm_leadership().await))).await;
    let mut current = Vec::new();
    for (group, confirmed) in confirmed {
        match confirmed {
            Ok(()) => current.push(group),
            // It is another's by now, and that one tells of it.
            Err(ReadError::NotLeader { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(current)
}

/// A consumer is within what may be read of a partition that this node leads.
fn check(shared: &Shared, partition: Partition, offset: Offset) -> Result<(), ApiError> {
    let held = check_held(shared, partition)?;
    let end = held.reader().high_watermark();
    if offset > end {
        let detail = format!("partition {partition} ends at {end}, and {offset} is behind that");
        return Err(ParameterError::new(&partition.to_string(), detail).into());
    }
    Ok(())
}

/// The partition, if this node holds it.
fn check_held(shared: &Shared, partition: Partition) -> Result<&PartitionHandle, ApiError> {
    shared.app.partition(partition).ok_or_else(|| {
        let leader = shared.app.cluster.leader_of(partition).and_then(|url| url.try_into().ok());
        ApiError::PartitionElsewhere { partition, held: shared.app.held(), leader }
    })
}

/// Has all replicas know where the consumer is.
async fn commit(
    cluster: &Cluster,
    consumer: &Consumer,
    wanted: &BTreeMap<Partition, Option<Offset>>,
) -> Result<Response, ApiError> {
    let commits = wanted.iter().filter_map(|(partition, offset)| {
        let commit = ConsumerCommit { consumer: consumer.key(), offset: *offset };
        cluster.group(*partition).map(|group| group.commit_offset(commit))
    });
    // One that fails does not keep the others from being kept.
    join_all(commits).await.into_iter().collect::<Result<(), _>>()?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn set(
    shared: Shared,
    consumer: Consumer,
    wanted: BTreeMap<Partition, Option<Offset>>,
) -> Result<Response, ApiError> {
    if let Some(cluster) = &shared.app.replication {
        return commit(cluster, &consumer, &wanted).await;
    }
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

fn parse(consumer: &str) -> Result<Consumer, ApiError> {
    consumer.parse().map_err(|error: crate::offsets::InvalidConsumer| {
        ParameterError::new("consumer", error.to_string()).into()
    })
}

fn bad_body(detail: &str) -> ApiError {
    let detail = format!("the body has to be offsets by partition, as in {{\"0\":1234}}: {detail}");
    ParameterError::new("body", detail).into()
}
