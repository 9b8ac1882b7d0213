//! One node's answer to a search.

use model::trace::TRACEPARENT;
use model::wire;

use crate::budget::Metered;
use crate::config::StorageNode;
use crate::context::Context;
use crate::limits;
use crate::message::Answer;
use crate::storage::{Call, ExchangeError, SendError, Storage, exchange};

/// What a node answered.
pub(super) enum Fetched<'b> {
    /// Records, the newest first.
    Records(Records<'b>),
    /// The request is at fault; storage's own answer.
    Refused(Answer),
    /// Nothing that could be used.
    Failed(String),
}

/// A node's records.
pub(super) struct Records<'b> {
    /// One a line.
    pub(super) lines: Metered<'b>,
    /// Whether older ones were cut off on the way.
    pub(super) is_cut: bool,
    /// What the node itself says that it lacks.
    pub(super) lacks: Option<String>,
    /// Whether it asked the other nodes too: then these are the records of all.
    pub(super) are_of_all: bool,
}

/// Whose records a node is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Its own.
    Node,
    /// Those of all nodes, if it knows the others.
    Cluster,
}

/// Asks a node for `path_and_query`, and keeps at most `bytes_max` of its answer.
pub(super) async fn fetch<'c, S: Storage>(
    context: &Context<'c, S>,
    node: &StorageNode,
    scope: Scope,
    path_and_query: &str,
    bytes_max: usize,
) -> Fetched<'c> {
    let mut headers = vec![("accept", wire::NDJSON.to_owned()), (TRACEPARENT, context.trace.to_string())];
    if scope == Scope::Node {
        headers.push((wire::SCOPE, wire::SCOPE_NODE.to_owned()));
    }
    let call = || Call {
        path_and_query: path_and_query.to_owned(),
        headers: headers.clone(),
        body: None,
        time_max: limits::READ_TIME_MAX,
        rest_time_max: limits::READ_TIME_MAX,
    };
    let mut reply = exchange(context.storage, node, call(), bytes_max, context.budget).await;
    if matches!(reply, Err(ExchangeError::Send(SendError::Failed(_)))) {
        // Most likely a connection that was kept too long, or a node that is just coming back.
        reply = exchange(context.storage, node, call(), bytes_max, context.budget).await;
    }
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return Fetched::Failed(format!("{node}: {error}")),
    };
    match reply.status {
        200 => {
            let are_of_all = reply.headers.first(wire::SCOPE) == Some(wire::SCOPE_CLUSTER);
            let lacks = reply.headers.first(wire::PARTIAL).map(|lacks| format!("{node}: {lacks}"));
            let mut lines = reply.body;
            if !reply.is_whole {
                let end =
                    lines.bytes().iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
                lines.bytes_mut().truncate(end);
            }
            Fetched::Records(Records { lines, is_cut: !reply.is_whole, lacks, are_of_all })
        }
        400 => {
            let content_type = model::problem::CONTENT_TYPE;
            Fetched::Refused(Answer::new(400, content_type, reply.body.bytes().to_vec()))
        }
        _ => Fetched::Failed(format!("{node}: {}", reply.reason())),
    }
}
