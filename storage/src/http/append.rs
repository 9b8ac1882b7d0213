//! `POST /v1/storage?partition=N`: stores a batch, once for each batch id.
//!
//! The body is a JSON array of enriched records, or newline-delimited JSON, whose lines are checked and then stored
//! byte for byte. `Batch-Id` (a UUID) makes a retry safe: the first answer is given again, or 409 if the content
//! differs, which `Batch-Digest` tells (16 hexadecimal digits; without it, the digest of the body as sent). Without
//! a `Batch-Id` each request is a batch of its own.
//!
//! The answer's `Durability` is `leader`: the records are synced on the partition's leader, this node. Where the
//! operator chose not to sync before the answer, it says so: `leader; fsync=interval` or `leader; fsync=never`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::wire::{self, AppendAnswer, Durability};
use model::{BatchDigest, BatchId, Partition, ValidBatch};
use tokio::sync::OwnedSemaphorePermit;

use super::body::Collected;
use super::error::ApiError;
use super::peer_limit::Peer;
use super::{Shared, observe, parameters, refuse};
use crate::limits;
use crate::partition::{Append, Appended, PartitionHandle};
use crate::query::{ParameterError, PoolError, parse_partition};

/// Stores a batch.
pub(super) async fn append(State(shared): State<Shared>, request: Request) -> Response {
    match store(&shared, request).await {
        Ok(appended) => {
            let answer = AppendAnswer { stored: appended.record_count.into(), offset: appended.base_offset };
            let durability = reached(&shared, appended.durability);
            ([(HeaderName::from_static(wire::DURABILITY), durability)], axum::Json(answer)).into_response()
        }
        Err(error) => {
            shared.app.metrics.note_rejection(error.reason());
            error.into_response()
        }
    }
}

/// What the answer's `Durability` says: the level that was reached, and how it is weakened where the operator chose to.
pub(super) fn reached(shared: &Shared, level: Durability) -> HeaderValue {
    match level {
        Durability::Leader => shared.app.durability.clone(),
        other => HeaderValue::from_static(other.as_str()),
    }
}

async fn store(shared: &Shared, request: Request) -> Result<Appended, ApiError> {
    let (parts, body) = request.into_parts();
    let ingest = observe::ingest_node(&parts.headers);
    if parts.headers.contains_key(wire::BATCH_ATTEMPT) {
        shared.app.metrics.ingest.note_retry(ingest);
    }
    let target = match Target::of(shared, &parts) {
        Ok(target) => target,
        Err(error) => return Err(refuse(Request::from_parts(parts, body), error).await),
    };
    let (bytes, share) = receive(shared, &parts, body).await?;
    let (digest, byte_count) = (target.digest, bytes.len());
    let check = move || {
        // Without the client's own digest, the body as sent tells a repetition from other content.
        let digest = digest.unwrap_or_else(|| BatchDigest::of(&bytes));
        let batch = match target.encoding {
            Encoding::Ndjson => ValidBatch::from_ndjson(bytes),
            Encoding::JsonArray => ValidBatch::from_json_array(&bytes),
        };
        batch.map(|batch| (batch, digest))
    };
    let (batch, digest) = aside(share.num_permits(), check).await??;
    let id = target.id.unwrap_or_else(|| BatchId::from_bytes(uuid::Uuid::now_v7().into_bytes()));
    let id_is_new = target.id.is_none();
    let append = Append { batch, id, digest, id_is_new, acks: target.acks, budget: Some(Arc::new(share)) };
    let appended = target.partition.append(append).await?;
    shared.app.metrics.ingest.note_taken(ingest, appended.record_count, byte_count);
    Ok(appended)
}

/// The body of an append, and its share of the budget.
pub(super) async fn receive(
    shared: &Shared,
    parts: &Parts,
    body: Body,
) -> Result<(Bytes, OwnedSemaphorePermit), ApiError> {
    let Collected { bytes, share } = shared.budget.collect(body, shared.app.body_timeout).await?;
    if bytes.is_empty() {
        return Err(ApiError::BodyEmpty);
    }
    let peer = parts.extensions.get::<Peer>().copied();
    shared.peer_limit.take(peer, bytes.len()).map_err(|retry_after| ApiError::PeerRate { retry_after })?;
    Ok((bytes, share))
}

/// Checks a body of so many bytes where that holds up nobody else.
pub(super) async fn aside<T: Send + 'static>(
    bytes: usize,
    check: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PoolError> {
    if bytes <= limits::CHECK_INLINE_BYTES_MAX {
        return Ok(check());
    }
    tokio::task::spawn_blocking(check).await.map_err(|_panicked| PoolError::BrokenOff)
}

/// The partition, if this node holds it.
pub(super) fn held(shared: &Shared, partition: Partition) -> Result<&PartitionHandle, ApiError> {
    shared.app.partition(partition).ok_or_else(|| {
        // What cannot stand in a header is no URL of a peer.
        let leader = shared.app.cluster.leader_of(partition).and_then(|url| url.try_into().ok());
        ApiError::PartitionElsewhere { partition, held: shared.app.held(), leader }
    })
}

/// What a request's head says.
struct Target<'a> {
    partition: &'a PartitionHandle,
    encoding: Encoding,
    id: Option<BatchId>,
    digest: Option<BatchDigest>,
    acks: Option<Durability>,
}

#[derive(Clone, Copy)]
enum Encoding {
    JsonArray,
    Ndjson,
}

impl<'a> Target<'a> {
    fn of(shared: &'a Shared, parts: &Parts) -> Result<Self, ApiError> {
        let [partition] = parameters::take(&parts.uri, ["partition"])?;
        let partition = partition.ok_or_else(|| ParameterError::new("partition", "partition is needed"))?;
        Ok(Self {
            partition: held(shared, parse_partition(&partition)?)?,
            encoding: encoding(&parts.headers)?,
            id: header(&parts.headers, wire::BATCH_ID)?,
            digest: header(&parts.headers, wire::BATCH_DIGEST)?,
            acks: acks(&parts.headers)?,
        })
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if parameters::media_range_is(content_type, wire::NDJSON) {
        Ok(Encoding::Ndjson)
    } else if parameters::media_range_is(content_type, wire::JSON) {
        Ok(Encoding::JsonArray)
    } else {
        Err(ApiError::MediaType)
    }
}

/// How far the client wants its batch to have got when it is answered, if it says.
pub(super) fn acks(headers: &HeaderMap) -> Result<Option<Durability>, ApiError> {
    let Some(value) = headers.get(wire::ACKS) else { return Ok(None) };
    match value.to_str().ok().and_then(Durability::parse_acks) {
        Some(level) => Ok(Some(level)),
        None => {
            Err(ApiError::Header { name: wire::ACKS, detail: "acks is leader, quorum or all".to_owned() })
        }
    }
}

/// The value of a header that may be absent.
fn header<T: std::str::FromStr<Err = model::ids::InvalidId>>(
    headers: &HeaderMap,
    name: &'static str,
) -> Result<Option<T>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    text.parse()
        .map(Some)
        .map_err(|error: model::ids::InvalidId| ApiError::Header { name, detail: error.to_string() })
}
