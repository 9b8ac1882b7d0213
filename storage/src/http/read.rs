//! `GET /v1/read?partition=N&limit=L`: the last L records of a partition, oldest first; with `offset=O`, L records
//! from that offset on.
//!
//! A JSON array, or newline-delimited JSON for `Accept: application/x-ndjson`. Sent piece by piece, whatever L is.
//! `Next-Offset` is the `offset` with which to go on.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use model::Offset;

use super::error::ApiError;
use super::{Shared, parameters};
use crate::limits;
use crate::log::LogReader;
use crate::query::{Format, ParameterError, PoolError, Queries, ReadRange, RecordWriter, parse_partition};

/// The offset after the last record of an answer.
const NEXT_OFFSET: HeaderName = HeaderName::from_static("next-offset");

/// Reads records by offset.
pub(super) async fn read(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let [partition, limit, offset] = parameters::take(request.uri(), ["partition", "limit", "offset"])?;
    let partition = partition.ok_or_else(|| ParameterError::new("partition", "partition is needed"))?;
    let partition = parse_partition(&partition)?;
    let limit = parameters::whole_number("limit", limit.as_deref())?;
    let offset = match offset {
        Some(offset) => Some(Offset::new(parameters::whole_number("offset", Some(&offset))?)),
        None => None,
    };
    shared.app.check_partition(Some(partition))?;
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
    Ok((headers, body).into_response())
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
