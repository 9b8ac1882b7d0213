//! `GET /v1/logs?service=&level=&contains=&limit=`: the newest records of all nodes, newest first, one a line.
//!
//! The parameters are those of storage's `/v1/search`, and go there as they are.

use futures::future::join_all;
use model::limits::{QUERY_ANSWER_BYTES_MAX, QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX};
use model::{Partition, Problem};

use super::fetch::{Fetched, Records, Scope, fetch};
use super::merge::{Merged, Source, merge};
use super::writer::Format;
use super::{BadParameter, format, found, single, unavailable};
use crate::clock::Clock;
use crate::config::StorageNode;
use crate::context::Context;
use crate::limits;
use crate::message::{Answer, RequestHead};
use crate::query_string;
use crate::storage::Storage;

/// Answers with the newest records that pass the filters.
pub async fn logs<S: Storage + Clock>(context: &Context<'_, S>, head: &RequestHead) -> Answer {
    let parameters = query_string::parse(&head.query);
    let nodes = match nodes(context, &parameters) {
        Ok(nodes) => nodes,
        Err(answer) => return answer,
    };
    let path_and_query =
        if head.query.is_empty() { "/v1/search".to_owned() } else { format!("/v1/search?{}", head.query) };
    match gather(context, &nodes, &path_and_query).await {
        Ok(Gathered { answers, failed }) if answers.is_empty() => {
            unavailable(format!("no storage node answers: {}", failed.join("; ")))
        }
        Ok(Gathered { answers, failed }) => newest_first(context, head, limit(&parameters), &answers, failed),
        Err(refusal) => refusal,
    }
}

/// What the nodes answered.
#[derive(Default)]
struct Gathered<'c> {
    /// Of one node for all, or of each for itself.
    answers: Vec<(&'c StorageNode, Records<'c>)>,
    /// Those that lack, and why.
    failed: Vec<String>,
}

/// Asks one node after another until one answers, those last that were not reached lately. Storage nodes that know each
/// other answer for all; of those that do not, the others are asked too, all at once.
///
/// # Errors
/// Storage's own words, when the request is at fault.
async fn gather<'c, S: Storage + Clock>(
    context: &Context<'c, S>,
    nodes: &[&'c StorageNode],
    path_and_query: &str,
) -> Result<Gathered<'c>, Answer> {
    let mut gathered = Gathered::default();
    let (circuits, now) = (&context.instance.circuits, context.storage.elapsed());
    let (admitted, left_alone): (Vec<_>, Vec<_>) =
        nodes.iter().copied().partition(|node| circuits.would_admit(node, now));
    let mut rest = admitted.into_iter().chain(left_alone);
    for node in rest.by_ref() {
        match fetch(context, node, Scope::Cluster, path_and_query, QUERY_ANSWER_BYTES_MAX).await {
            Fetched::Records(records) if records.are_of_all => {
                // It names the nodes that do not answer itself.
                return Ok(Gathered { answers: vec![(node, records)], failed: Vec::new() });
            }
            Fetched::Records(records) => {
                gathered.answers.push((node, records));
                break;
            }
            Fetched::Failed(reason) => gathered.failed.push(reason),
            Fetched::Refused(answer) => return Err(answer),
        }
    }
    let rest: Vec<&StorageNode> = rest.collect();
    let left = limits::READ_ANSWERS_BYTES_MAX - QUERY_ANSWER_BYTES_MAX;
    let bytes_max = (left / rest.len().max(1)).min(QUERY_ANSWER_BYTES_MAX);
    let fetches = rest.iter().map(|node| fetch(context, node, Scope::Node, path_and_query, bytes_max));
    for (node, fetched) in rest.iter().zip(join_all(fetches).await) {
        match fetched {
            Fetched::Records(records) => gathered.answers.push((node, records)),
            Fetched::Failed(reason) => gathered.failed.push(reason),
            Fetched::Refused(answer) => return Err(answer),
        }
    }
    Ok(gathered)
}

/// The nodes to ask: all of them, or the one that a partition was dealt to, if one is asked for.
fn nodes<'c, S: Storage>(
    context: &Context<'c, S>,
    parameters: &[(String, String)],
) -> Result<Vec<&'c StorageNode>, Answer> {
    let partition = single(parameters, "partition").map_err(BadParameter::answer)?;
    let Some(partition) = partition.filter(|partition| !partition.is_empty()) else {
        return Ok(context.config.storage_nodes.iter().collect());
    };
    let partition: Partition = partition
        .parse()
        .map_err(|error: model::ids::InvalidId| BadParameter::new("partition", error.to_string()).answer())?;
    let node = context.config.node_of(partition).ok_or_else(|| {
        let detail = format!("there are {} partitions, numbered from 0", context.config.partitions.get());
        Answer::problem(&Problem::new(404, detail).in_field("partition"))
    })?;
    Ok(vec![node])
}

/// How many records are asked for. A limit that storage does not take never comes to the merge.
fn limit(parameters: &[(String, String)]) -> usize {
    let limit = parameters.iter().find(|(name, _)| name == "limit");
    limit
        .map_or(QUERY_LIMIT_DEFAULT, |(_, limit)| limit.parse().unwrap_or(QUERY_LIMIT_DEFAULT))
        .min(QUERY_LIMIT_MAX)
}

fn newest_first<S: Storage>(
    context: &Context<'_, S>,
    head: &RequestHead,
    limit: usize,
    answers: &[(&StorageNode, Records<'_>)],
    failed: Vec<String>,
) -> Answer {
    let sources: Vec<_> = answers
        .iter()
        .map(|(_, records)| Source { lines: records.lines.bytes(), is_cut: records.is_cut })
        .collect();
    let Merged { lines, is_cut, garbled } = merge(&sources, limit, QUERY_ANSWER_BYTES_MAX);
    let mut lacks = failed;
    lacks.extend(answers.iter().filter_map(|(_, records)| records.lacks.clone()));
    let garbled = garbled.iter().filter_map(|place| answers.get(*place));
    lacks.extend(garbled.map(|(node, _)| format!("{node}: what it answers are not records")));
    if is_cut {
        lacks.push("bytes: the answer would be too large; older records are left out".to_owned());
    }
    let format = format(&head.headers, Format::Ndjson);
    let bytes = Format::bytes_max(lines.iter().map(|line| line.len() + 1).sum());
    // The merged records are held beside the nodes' answers until these are let go of.
    let mut share = context.budget.share();
    if let Err(busy) = share.take(bytes) {
        return unavailable(busy.to_string());
    }
    let mut body = Vec::with_capacity(bytes);
    format.write(&mut body, lines);
    found(format, body, &lacks)
}
