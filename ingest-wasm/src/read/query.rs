//! `GET /v1/query?service=S&limit=N`: the last N records of a service, oldest first, as a JSON array.
//!
//! Further parameters are storage's to judge, as in `/v1/search`.

use model::limits::{QUERY_ANSWER_BYTES_MAX, QUERY_LIMIT_MAX};
use model::{Tenant, route};

use super::fetch::{Fetched, Records, Scope, fetch};
use super::writer::{Format, lines};
use super::{BadParameter, format, found, single, unavailable};
use crate::clock::Clock;
use crate::context::Context;
use crate::delivery::{another, node_of};
use crate::message::{Answer, RequestHead};
use crate::query_string;
use crate::storage::Storage;

/// Answers with a service's last records.
pub async fn query<S: Storage + Clock>(context: &Context<'_, S>, head: &RequestHead) -> Answer {
    let parameters = query_string::parse(&head.query);
    let (service, limit) = match service_and_limit(&parameters) {
        Ok(both) => both,
        Err(bad) => return bad.answer(),
    };
    let partition = route::partition_of(&Tenant::default(), service.as_bytes(), context.config.partitions);
    let Some(node) = node_of(context, partition) else {
        // The partition was computed by the same count: it exists.
        return unavailable(format!("no node holds partition {partition}"));
    };
    // The Go service answered in the order in which it had stored them, whatever their timestamps.
    let wanted = within_limit(&head.query, limit);
    let path_and_query = format!("/v1/search?{wanted}&order=arrival&partition={partition}");
    let mut fetched = fetch(context, &node, Scope::Node, &path_and_query, QUERY_ANSWER_BYTES_MAX).await;
    if matches!(fetched, Fetched::Failed(_))
        && let Some(other) = another(context, partition, &node).await
    {
        fetched = fetch(context, &other, Scope::Node, &path_and_query, QUERY_ANSWER_BYTES_MAX).await;
    }
    match fetched {
        Fetched::Records(records) => {
            oldest_first(context, format(&head.headers, Format::JsonArray), records, limit)
        }
        Fetched::Refused(answer) => answer,
        Fetched::Failed(reason) => {
            unavailable(format!("the node of partition {partition} does not answer: {reason}"))
        }
    }
}

/// The service that is asked for, once it is known that the request can be understood.
fn service_and_limit(parameters: &[(String, String)]) -> Result<(&str, u64), BadParameter> {
    let service = single(parameters, "service")?.filter(|service| !service.is_empty());
    let service = service.ok_or_else(|| BadParameter::new("service", "service is needed"))?;
    let limit = single(parameters, "limit")?.and_then(|limit| limit.parse::<u64>().ok());
    let limit = limit.ok_or_else(|| BadParameter::new("limit", "limit is needed, a whole number from 0"))?;
    if single(parameters, "partition")?.is_some() {
        return Err(BadParameter::new("partition", "the partition follows from the service"));
    }
    Ok((service, limit))
}

/// The parameters with the most that storage answers with in place of a larger limit: clients of the Go service may
/// ask for any, and get the newest of what they asked for.
fn within_limit(query: &str, limit: u64) -> String {
    if limit <= QUERY_LIMIT_MAX as u64 {
        return query.to_owned();
    }
    let others = query.split('&').filter(|parameter| !parameter.starts_with("limit="));
    let limit = format!("limit={QUERY_LIMIT_MAX}");
    others.chain([limit.as_str()]).collect::<Vec<_>>().join("&")
}

fn oldest_first<S>(context: &Context<'_, S>, format: Format, records: Records<'_>, limit: u64) -> Answer {
    let Records { lines: newest_first, is_cut, lacks, .. } = records;
    let mut lacks: Vec<String> = lacks.into_iter().collect();
    if limit > QUERY_LIMIT_MAX as u64 && lines(newest_first.bytes()).count() >= QUERY_LIMIT_MAX {
        lacks
            .push(format!("limit: an answer has at most {QUERY_LIMIT_MAX} records; older ones are left out"));
    }
    if is_cut {
        lacks.push("bytes: the answer would be too large; older records are left out".to_owned());
    }
    let bytes = Format::bytes_max(newest_first.bytes().len());
    // The answer is held beside storage's until that is let go of.
    let mut share = context.budget.share();
    if let Err(busy) = share.take(bytes) {
        return unavailable(busy.to_string());
    }
    let mut body = Vec::with_capacity(bytes);
    format.write(&mut body, lines(newest_first.bytes()).rev());
    found(format, body, &lacks)
}
