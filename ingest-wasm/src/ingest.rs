//! `POST /v1/logs`: takes records, enriches them and delivers them to storage.
//!
//! The body is decompressed ([`crate::decode`]), cut into records ([`crate::split`]), each of which is checked and
//! enriched ([`crate::record`]) and put into its partition's batch ([`crate::batch`]); the batches are settled
//! ([`crate::settle`]); what became of them makes the answer ([`crate::answer`]).
//!
//! `Idempotency-Key` makes a repetition of the same request safe: it decides the batches' ids. Without one the
//! request gets a key of its own, which the answer names.

use bytes::Bytes;
use model::limits::{IDEMPOTENCY_KEY_BYTES_MAX, INGEST_BODY_BYTES_MAX};
use model::wire::{ACKS, Durability, IDEMPOTENCY_KEY};
use model::{BatchId, Problem, Tenant};
use uuid::Builder;

use crate::answer::{self, Taken};
use crate::batch::{GroupError, Grouped, Grouping};
use crate::body::{self, ByteSource, ReceiveError, SourceError};
use crate::budget::{Busy, Share};
use crate::client_ip::ClientIp;
use crate::context::Context;
use crate::decode::{self, BodyFormat, ContentEncoding, DecodeError, Unsupported};
use crate::delivery::Delivery;
use crate::limits;
use crate::message::{Afterwards, Answer, Headers, RequestHead, Response};
use crate::record::Enrichment;
use crate::runtime::Runtime;
use crate::settle::settle_all;
use crate::split::{self, SplitError};

/// Why nothing of a request is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error(
        "{IDEMPOTENCY_KEY} has to be one value of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"
    )]
    Key,
    #[error("{ACKS} has to be leader, quorum or all")]
    Acks,
    #[error("the body is larger than {INGEST_BODY_BYTES_MAX} bytes: send it in several requests")]
    TooLarge,
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Split(#[from] SplitError),
    #[error(transparent)]
    Busy(#[from] Busy),
}

/// Takes records.
pub async fn ingest<S: Runtime>(
    context: &Context<'_, S>,
    head: &RequestHead,
    body: &mut impl ByteSource,
) -> Response {
    let key = match idempotency_key(&head.headers, context) {
        Ok(key) => key,
        Err(refusal) => return refusal.answer().into(),
    };
    let response = take(context, head, body, &key).await.unwrap_or_else(|refusal| refusal.answer().into());
    Response { answer: response.answer.with(IDEMPOTENCY_KEY, key), ..response }
}

async fn take<S: Runtime>(
    context: &Context<'_, S>,
    head: &RequestHead,
    body: &mut impl ByteSource,
    key: &str,
) -> Result<Response, Refusal> {
    let acks = acks(&head.headers)?;
    let grouped = group(context, head, body).await?;
    Ok(deliver(context, head, grouped, key, acks).await?)
}

/// The request's records by partition. The body itself is let go of when they are there.
async fn group<'c, S: Runtime>(
    context: &Context<'c, S>,
    head: &RequestHead,
    body: &mut impl ByteSource,
) -> Result<Grouped<'c>, Refusal> {
    let format = BodyFormat::of(&head.headers)?;
    let encoding = ContentEncoding::of(&head.headers)?;
    let announced = head.headers.content_length();
    if announced.is_some_and(|length| length > INGEST_BODY_BYTES_MAX as u64) {
        return Err(Refusal::TooLarge);
    }
    let received = body::receive(body, announced, INGEST_BODY_BYTES_MAX, context.budget).await?;
    if !received.is_whole {
        return Err(Refusal::TooLarge);
    }
    if received.bytes.bytes().is_empty() {
        return Err(SplitError::Empty.into());
    }
    let text = decode::decode(encoding, received.bytes, INGEST_BODY_BYTES_MAX, context.budget)?;
    let client_ip = ClientIp::of(&head.headers, &context.config.trusted_proxies).to_string();
    let enrichment = Enrichment::new(context.now_ms, &context.config.node_id_json(), &client_ip);
    let grouping = Grouping::new(&enrichment, context.config.partitions, context.budget);
    Ok(split::group(format, text.bytes(), grouping)?)
}

/// Delivers the batches.
async fn deliver<S: Runtime>(
    context: &Context<'_, S>,
    head: &RequestHead,
    grouped: Grouped<'_>,
    key: &str,
    acks: Option<Durability>,
) -> Result<Response, Busy> {
    let received = grouped.received();
    let Grouped { batches, rejections } = grouped;
    if received == 0 {
        return Ok(answer::none_valid(&rejections).into());
    }
    let tenant = Tenant::default();
    let mut shares: Vec<Share<'_>> = Vec::with_capacity(batches.len());
    let mut deliveries = Vec::with_capacity(batches.len());
    let mut sending_bytes = 0;
    for batch in batches {
        let (partition, digest, record_count) = (batch.partition, batch.digest(), batch.record_count);
        let (lines, share) = batch.lines.into_parts();
        sending_bytes += lines.len().min(limits::SEND_PIECE_BYTES) + limits::TOGETHER_HEAD_BYTES;
        shares.push(share);
        let id = BatchId::derive(&tenant, key, partition);
        deliveries.push(Delivery { partition, id, digest, record_count, lines: Bytes::from(lines), acks });
    }
    // The copies of what is just being sent.
    let mut sending = context.budget.share();
    sending.take(sending_bytes.min(limits::SENDING_BYTES_MAX))?;
    let settled = settle_all(context, &deliveries).await;
    let taken = Taken { received, rejections: &rejections, is_minimal: wants_minimal(&head.headers) };
    let answer = answer::of_outcomes(&taken, deliveries.iter().zip(settled.outcomes));
    let afterwards = if settled.is_replay_due { Afterwards::Replay } else { Afterwards::Nothing };
    Ok(Response { answer, afterwards })
}

/// How durable the client wants its records, if it says so.
fn acks(headers: &Headers) -> Result<Option<Durability>, Refusal> {
    let mut values = headers.all(ACKS);
    let Some(value) = values.next() else { return Ok(None) };
    let level = Durability::parse_acks(value).filter(|_| values.next().is_none());
    level.map(Some).ok_or(Refusal::Acks)
}

/// The client's key, or one of the request's own: a UUIDv7.
fn idempotency_key<S>(headers: &Headers, context: &Context<'_, S>) -> Result<String, Refusal> {
    let mut values = headers.all(IDEMPOTENCY_KEY);
    let Some(key) = values.next() else {
        let [random @ .., _, _, _, _, _, _] = context.random.to_be_bytes();
        return Ok(Builder::from_unix_timestamp_millis(context.now_ms, &random).into_uuid().to_string());
    };
    let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits && values.next().is_none() { Ok(key.to_owned()) } else { Err(Refusal::Key) }
}

/// Whether the client would rather have no body (RFC 7240).
fn wants_minimal(headers: &Headers) -> bool {
    let mut preferences = headers.list("prefer").filter_map(|element| element.split(';').next());
    preferences.any(|preference| {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("return") && value.eq_ignore_ascii_case("minimal")
    })
}

impl Refusal {
    fn status(&self) -> u16 {
        match self {
            Self::Unsupported(_) => 415,
            Self::Key | Self::Acks => 400,
            Self::TooLarge | Self::Decode(DecodeError::TooLarge(_)) => 413,
            Self::Split(SplitError::Group(GroupError::TooMany | GroupError::TooLarge)) => 413,
            Self::Receive(ReceiveError::Source(SourceError::TimedOut)) => 408,
            Self::Receive(ReceiveError::Source(SourceError::BrokeOff(_))) => 400,
            Self::Decode(DecodeError::Damaged { .. }) => 400,
            Self::Split(
                SplitError::Syntax(_) | SplitError::Shape | SplitError::Utf8(_) | SplitError::Empty,
            ) => 400,
            Self::Busy(_)
            | Self::Receive(ReceiveError::Busy(_))
            | Self::Decode(DecodeError::Busy(_))
            | Self::Split(SplitError::Group(GroupError::Busy(_))) => 503,
        }
    }

    fn answer(&self) -> Answer {
        let status = self.status();
        let problem = Problem::new(status, self.to_string());
        match self {
            Self::Key => Answer::problem(&problem.in_field(IDEMPOTENCY_KEY)),
            Self::Acks => Answer::problem(&problem.in_field(ACKS)),
            Self::Unsupported(Unsupported::ContentEncoding(_)) => {
                Answer::problem(&problem.in_field("content-encoding")).with("accept-encoding", "gzip, zstd")
            }
            Self::Unsupported(_) => Answer::problem(&problem.in_field("content-type"))
                .with("accept", "application/json, application/x-ndjson"),
            _ if status == 503 => {
                Answer::problem(&problem).with("retry-after", limits::RETRY_AFTER_S.to_string())
            }
            _ => Answer::problem(&problem),
        }
    }
}

#[cfg(test)]
mod tests;
