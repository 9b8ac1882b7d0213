//! What a node's reply to an append means. Pure. When in doubt the batch is not stored.

use model::wire::{self, AppendAnswer};

use super::{Delivery, Failure, FailureKind, Outcome};
use crate::config::{Config, StorageNode};
use crate::storage::{ExchangeError, SendError, WholeReply};

/// What follows from a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// That was it.
    Done(Outcome),
    /// The node is not the partition's leader. This one is.
    Follow(StorageNode),
    /// The node is not the partition's leader, and names none that may be called.
    Astray(Failure),
    /// The node does not serve. Another one may, or the same another time.
    Unserved(Failure),
    /// The same may succeed at the same node another time.
    Again(Failure),
}

pub(super) fn judge(
    config: &Config,
    node: &StorageNode,
    delivery: &Delivery,
    reply: Result<WholeReply<'_>, ExchangeError>,
) -> Step {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => {
            let failure = failure(FailureKind::Unavailable, format!("{node}: {error}"), None);
            return match error {
                ExchangeError::Send(SendError::Denied) => Step::Done(Outcome::Failed(failure)),
                _ => Step::Unserved(failure),
            };
        }
    };
    let failed = |kind| failure(kind, format!("{node}: {}", reply.reason()), reply.retry_after_s());
    match reply.status {
        200 => judge_success(node, delivery, &reply),
        409 => Step::Done(Outcome::Failed(failed(FailureKind::Conflict))),
        413 => Step::Done(Outcome::Failed(failed(FailureKind::TooLarge))),
        // Only a node that the configuration allows is ever called, whatever a node says.
        421 => match reply.headers.first(wire::LEADER).and_then(|url| config.node_at(url)) {
            Some(leader) => Step::Follow(leader),
            None => Step::Astray(failed(FailureKind::Unavailable)),
        },
        507 => Step::Done(Outcome::Failed(failed(FailureKind::DiskFull))),
        429 => Step::Again(failed(FailureKind::Overloaded)),
        408 => Step::Again(failed(FailureKind::Unavailable)),
        // The node's own, as when it has lost its quorum, and those of a gateway before it.
        502..=504 => Step::Unserved(failed(FailureKind::Unavailable)),
        // It broke on what it was sent, or has stopped: the same again at once would meet the same.
        500..=599 => Step::Done(Outcome::Failed(failed(FailureKind::Unavailable))),
        400 => Step::Done(Outcome::Failed(failed(FailureKind::Invalid))),
        _ => Step::Done(Outcome::Failed(failed(FailureKind::Refused))),
    }
}

/// Believes a success only if it is one for this batch.
fn judge_success(node: &StorageNode, delivery: &Delivery, reply: &WholeReply<'_>) -> Step {
    match serde_json::from_slice::<AppendAnswer>(reply.body.bytes()) {
        Ok(answer) if answer.stored == delivery.record_count as u64 => {
            let durability = reply.headers.first(wire::DURABILITY).map(str::to_owned);
            Step::Done(Outcome::Stored { durability })
        }
        Ok(answer) => {
            let detail = format!("{node}: it stored {} of {} records", answer.stored, delivery.record_count);
            Step::Done(Outcome::Failed(failure(FailureKind::Unavailable, detail, None)))
        }
        Err(_) => {
            let detail = format!("{node}: it answers 200, but not as storage does");
            Step::Done(Outcome::Failed(failure(FailureKind::Unavailable, detail, None)))
        }
    }
}

fn failure(kind: FailureKind, detail: String, retry_after_s: Option<u64>) -> Failure {
    Failure { kind, detail, retry_after_s }
}
