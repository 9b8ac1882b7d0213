//! `GET /v1/search`: the first records, newest first unless asked otherwise, that pass every filter.
//!
//! Newline-delimited JSON, or a JSON array for `Accept: application/json`; each record byte for byte as stored, or
//! with its place for `fields=meta`. `Next-Cursor` says where to go on, `Query-Stats` what the answer took, `Partial`
//! what it lacks, `Edgelog-Staleness` how old may be what it was made of.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::wire;

use super::error::ApiError;
use super::scope::{self, PeerAnswers, Scope};
use super::{Shared, parameters};
use crate::clock::unix_now_ms;
use crate::query::{
    Format, Lack, Part, PeerAnswer, PeerError, Plan, PoolError, Query, RecordsAnswer, Staleness, Stats,
};

const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");
pub(super) const QUERY_STATS: HeaderName = HeaderName::from_static("query-stats");

/// Searches.
pub(super) async fn search(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let query = Query::parse(parameters::pairs(&parameters), unix_now_ms())?;
    let format = parameters::format(request.headers(), Format::Ndjson);
    let scope = scope::of(&shared, request.headers(), query.filter.partition)?;
    let staleness = scope.staleness(&shared, query.filter.partition);
    let answer = match scope {
        Scope::Cluster(plan) => search_all(&shared, &plan, &parameters, query, format).await?,
        Scope::Node(share) => {
            shared.app.check_partition(query.filter.partition)?;
            let filter = query.filter.within(share);
            shared.app.queries.search(Query { filter, ..query }, format).await
        }
    };
    note(&shared, answer.as_ref().map(|answer| answer.lacks.is_empty()));
    let mut answer = answer?;
    answer.stats.note_staleness(staleness);
    Ok(records_response(answer, format))
}

/// Searches on all nodes at once.
async fn search_all(
    shared: &Shared,
    plan: &Plan,
    parameters: &[(String, String)],
    query: Query,
    format: Format,
) -> Result<Result<RecordsAnswer, PoolError>, ApiError> {
    let (from, to) = (query.filter.from_ms.to_string(), query.filter.to_ms.to_string());
    let asked = scope::with_times(parameters, &from, &to).filter(|(name, _)| *name != "fields");
    let path_and_query = scope::path_and_query("/v1/search", asked.chain([("fields", "meta")]));
    let filter = query.filter.clone().within(plan.own.clone());
    let own = Query { with_places: true, filter, ..query.clone() };
    let (own, peers) = tokio::join!(
        shared.app.queries.search(own, Format::Ndjson),
        scope::ask_peers(shared, plan, &path_and_query)
    );
    let RecordsAnswer { body, next, lacks, stats, .. } = match own {
        Ok(own) => own,
        Err(error) => return Ok(Err(error)),
    };
    peers.check_partition(shared, query.filter.partition)?;
    let PeerAnswers { useful, lacks: peers_lacks } = peers;
    let mut parts = vec![Part { body, next, lacks: lacks.into_iter().chain(peers_lacks).collect(), stats }];
    parts.extend(useful.iter().map(part_of));
    Ok(shared.app.queries.merge(parts, useful, query, format).await)
}

/// Another node's answer as a part of the whole.
fn part_of(answer: &PeerAnswer) -> Part {
    let cursor = answer.header(NEXT_CURSOR.as_str());
    let next = cursor.parse().ok();
    // Without its cursor it would not be known how far it goes.
    let lacks = if next.is_none() && !cursor.is_empty() {
        vec![answer.lack(&PeerError::NotUnderstood)]
    } else {
        Vec::new()
    };
    let stats = stats_of(answer);
    Part { body: answer.body.clone(), next, lacks, stats }
}

/// What another node's answer took, and how old it may be.
pub(super) fn stats_of(answer: &PeerAnswer) -> Stats {
    let mut stats = Stats::parse(answer.header(QUERY_STATS.as_str()));
    stats.note_staleness(answer.header(wire::STALENESS).parse().ok());
    stats
}

/// An answer of records.
pub(super) fn records_response(answer: RecordsAnswer, format: Format) -> Response {
    let content_type = HeaderValue::from_static(format.content_type());
    let mut response = ([(CONTENT_TYPE, content_type)], Body::from(answer.body)).into_response();
    if let Some(next) = answer.next.and_then(|next| HeaderValue::from_str(&next.to_string()).ok()) {
        response.headers_mut().insert(NEXT_CURSOR, next);
    }
    describe(response.headers_mut(), &answer.lacks, &answer.stats);
    response
}

/// Says in headers what an answer lacks, if anything, and what it took.
pub(super) fn describe(headers: &mut HeaderMap, lacks: &[Lack], stats: &Stats) {
    if let Ok(stats) = HeaderValue::from_str(&stats.to_string()) {
        headers.insert(QUERY_STATS, stats);
    }
    say_staleness(headers, stats.staleness);
    if !lacks.is_empty() {
        let lacks: Vec<String> = lacks.iter().map(ToString::to_string).collect();
        let value = HeaderValue::from_str(&lacks.join(", ")).unwrap_or(HeaderValue::from_static("yes"));
        headers.insert(HeaderName::from_static(wire::PARTIAL), value);
    }
}

/// Says how old an answer may be, where that is a question.
pub(super) fn say_staleness(headers: &mut HeaderMap, staleness: Option<Staleness>) {
    if let Some(staleness) = staleness
        && let Ok(value) = HeaderValue::from_str(&staleness.to_string())
    {
        headers.insert(HeaderName::from_static(wire::STALENESS), value);
    }
}

/// Counts a query by its outcome.
pub(super) fn note(shared: &Shared, is_whole: Result<bool, &PoolError>) {
    shared.app.metrics.note_query(match is_whole {
        Ok(true) => "whole",
        Ok(false) => "partial",
        Err(_) => "refused",
    });
}
