//! `GET /v1/read?partition=N&limit=L`: the last L records of a partition, oldest first; with `offset=O`, L records
//! from that offset on.
//!
//! A JSON array, or newline-delimited JSON for `Accept: application/x-ndjson`. Sent piece by piece, whatever L is.
//! `Next-Offset` is the `offset` with which to go on.
//!
//! Of a partition with several copies the leader answers, after it has made sure that it leads still, so that nothing is
//! missed that was acknowledged before; with `consistency=stale` any copy does, with what it knows to be committed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use model::{Offset, Partition};

use super::error::ApiError;
use super::search::say_staleness;
use super::{Shared, parameters, scope};
use crate::limits;
use crate::log::LogReader;
use crate::query::{Format, ParameterError, PoolError, Queries, ReadRange, RecordWriter, parse_partition};
use crate::raft::ReadError;

/// The offset after the last record of an answer.
const NEXT_OFFSET: HeaderName = HeaderName::from_static("next-offset");

/// Reads records by offset.
pub(super) async fn read(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let [partition, limit, offset, consistency] =
        parameters::take(request.uri(), ["partition", "limit", "offset", "consistency"])?;
    let partition = partition.ok_or_else(|| ParameterError::new("partition", "partition is needed"))?;
    let partition = parse_partition(&partition)?;
    let limit = parameters::whole_number("limit", limit.as_deref())?;
    let offset = match offset {
        Some(offset) => Some(Offset::new(parameters::whole_number("offset", Some(&offset))?)),
        None => None,
    };
    let group = shared.app.replication.as_ref().and_then(|cluster| cluster.group(partition));
    let staleness = match Consistency::parse(consistency.as_deref())? {
        Consistency::Linearizable => make_current(&shared, partition).await.map(|()| None)?,
        Consistency::Stale => {
            shared.app.check_partition(Some(partition))?;
            group.map(scope::staleness_of)
        }
    };
    let Some(handle) = shared.app.partition(partition) else {
        return Err(ApiError::PartitionUnknown { partition, held: shared.app.held() });
    };
    let reader = handle.reader().clone();
    let range = match offset {
        Some(offset) => ReadRange::from(&reader, offset, limit),
        None => ReadRange::last(&reader, limit),
    };
    let format = parameters::format(request.headers(), Format::JsonArray);
    let next_offset = HeaderValue::from(range.end.get());
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static(format.content_type())), (NEXT_OFFSET, next_offset)];
    let body = body(shared.app.queries.clone(), reader, range, RecordWriter::new(format)).await?;
    let mut response = (headers, body).into_response();
    say_staleness(response.headers_mut(), staleness);
    Ok(response)
}

/// What a read may miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consistency {
    /// Nothing that was acknowledged, or read by anybody, before it was asked for.
    Linearizable,
    /// What a copy does not know of yet.
    Stale,
}

impl Consistency {
    fn parse(text: Option<&str>) -> Result<Self, ParameterError> {
        match text {
            None | Some("linearizable") => Ok(Self::Linearizable),
            Some("stale") => Ok(Self::Stale),
            Some(_) => Err(ParameterError::new("consistency", "consistency is linearizable or stale")),
        }
    }
}

/// Waits until this node may answer for all that is committed in the partition. The only copy always may.
///
/// # Errors
/// When it is not the one to ask, or cannot know.
pub(super) async fn make_current(shared: &Shared, partition: Partition) -> Result<(), ApiError> {
    let Some(cluster) = &shared.app.replication else {
        return shared.app.check_partition(Some(partition));
    };
    let Some(group) = cluster.group(partition) else {
        return Err(ApiError::PartitionUnknown { partition, held: shared.app.held() });
    };
    group.confirm_leadership().await.map_err(|error| match error {
        // A node without a copy hears no leader; of others it hears now and then.
        ReadError::NotLeader { leader: None } => {
            let known = cluster.overview().1.into_iter().find(|state| state.partition == partition);
            ReadError::NotLeader { leader: known.and_then(|state| state.leader).map(Arc::from) }.into()
        }
        other => other.into(),
    })
}

/// The records of `range`. The first piece is read before the answer begins, so that a busy node can still say so;
/// an answer of one piece has a length.
async fn body(
    queries: Queries,
    reader: LogReader,
    range: ReadRange,
    writer: RecordWriter,
) -> Result<Body, PoolError> {
    let first = queries.read_piece(reader.clone(), range, writer, limits::QUERY_WAIT_MAX).await?;
    let (piece, left, writer) = first;
    if left.is_empty() {
        return Ok(Body::from(piece));
    }
    let rest =
        stream::try_unfold((queries, reader, left, writer), |(queries, reader, left, writer)| async move {
            if left.is_empty() {
                return Ok::<_, PoolError>(None);
            }
            // The answer has begun: it waits its turn as long as a stalled connection may, rather than break off.
            let next = queries.read_piece(reader.clone(), left, writer, limits::WRITE_STALL_MAX).await?;
            let (piece, left, writer) = next;
            Ok(Some((piece, (queries, reader, left, writer))))
        });
    let pieces = futures::StreamExt::chain(stream::once(async { Ok(piece) }), rest);
    Ok(Body::from_stream(pieces))
}
