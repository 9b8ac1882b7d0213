//! `GET /v1/context?partition=&offset=&before=&after=`: the records around a record, each with its place.
//!
//! Of a partition that this node does not hold, the other nodes are asked.

use axum::extract::{Request, State};
use axum::response::Response;

use super::error::ApiError;
use super::scope::{self, PeerAnswers, Scope};
use super::search::{note, records_response, stats_of};
use super::{Shared, parameters};
use crate::query::{ContextQuery, Format, Plan, RecordWriter, RecordsAnswer};

/// Reads a record and its neighbours.
pub(super) async fn context(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let query = ContextQuery::parse(parameters::pairs(&parameters))?;
    let format = parameters::format(request.headers(), Format::Ndjson);
    let scope = scope::of(&shared, request.headers(), Some(query.partition))?;
    let staleness = scope.staleness(&shared, Some(query.partition));
    if let Scope::Cluster(plan) = scope
        && !shared.app.has_copy(query.partition)
    {
        return context_elsewhere(&shared, &plan, &parameters, query, format).await;
    }
    shared.app.check_partition(Some(query.partition))?;
    let answer = shared.app.queries.context(query, format).await;
    note(&shared, answer.as_ref().map(|answer| answer.as_ref().is_none_or(|answer| answer.lacks.is_empty())));
    let missing = ApiError::RecordUnknown { partition: query.partition, offset: query.offset };
    let mut answer = answer?.ok_or(missing)?;
    answer.stats.note_staleness(staleness);
    Ok(records_response(answer, format))
}

/// The answer of the node that holds the partition.
async fn context_elsewhere(
    shared: &Shared,
    plan: &Plan,
    parameters: &[(String, String)],
    query: ContextQuery,
    format: Format,
) -> Result<Response, ApiError> {
    let path_and_query = scope::path_and_query("/v1/context", parameters::pairs(parameters));
    let PeerAnswers { useful, lacks } = scope::ask_peers(shared, plan, &path_and_query).await;
    let Some(answer) = useful.into_iter().next() else {
        // Whether there is such a record is not known while a node is silent.
        return Err(match lacks.into_iter().next() {
            Some(lack) => ApiError::PeerSilent { detail: lack.to_string() },
            None => ApiError::RecordUnknown { partition: query.partition, offset: query.offset },
        });
    };
    let stats = stats_of(&answer);
    let lacks = answer.told_lack().into_iter().collect();
    // Nodes speak newline-delimited JSON to one another.
    let (mut body, mut writer) = (Vec::with_capacity(answer.body.len()), RecordWriter::new(format));
    let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.for_each(|line| writer.record(&mut body, line));
    writer.end(&mut body);
    Ok(records_response(
        RecordsAnswer { body: body.into(), lacks, stats, ..RecordsAnswer::default() },
        format,
    ))
}
