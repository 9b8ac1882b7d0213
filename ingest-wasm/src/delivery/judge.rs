//! What a node's reply to an append means. Pure. When in doubt the batch is not stored.

use model::wire::{self, AppendAnswer};

use super::{Delivery, Failure, FailureKind, Outcome};
use crate::config::{Config, StorageNode};
use crate::limits;
use crate::storage::{ExchangeError, SendError, WholeReply, reason};

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

/// What a node said to one batch: by a reply of its own, or by its part of one to several.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'r> {
    pub(super) status: u16,
    pub(super) durability: Option<&'r str>,
    pub(super) leader: Option<&'r str>,
    pub(super) retry_after_s: Option<u64>,
    pub(super) body: &'r [u8],
}

impl<'r> Said<'r> {
    pub(super) fn by(reply: &'r WholeReply<'_>) -> Self {
        Self {
            status: reply.status,
            durability: reply.headers.first(wire::DURABILITY),
            leader: reply.headers.first(wire::LEADER),
            retry_after_s: reply.retry_after_s(),
            body: reply.body.bytes(),
        }
    }
}

pub(super) fn judge(
    config: &Config,
    node: &StorageNode,
    delivery: &Delivery,
    reply: Result<Said<'_>, &ExchangeError>,
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
    let retry_after_s = reply.retry_after_s.map(|seconds| seconds.min(limits::RETRY_AFTER_S_MAX));
    let failed = |kind| failure(kind, format!("{node}: {}", reason(reply.status, reply.body)), retry_after_s);
    match reply.status {
        200 => judge_success(node, delivery, &reply),
        409 => Step::Done(Outcome::Failed(failed(FailureKind::Conflict))),
        413 => Step::Done(Outcome::Failed(failed(FailureKind::TooLarge))),
        // Only a node that the configuration allows is ever called, whatever a node says.
        421 => match reply.leader.and_then(|url| config.node_at(url)) {
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
fn judge_success(node: &StorageNode, delivery: &Delivery, reply: &Said<'_>) -> Step {
    match serde_json::from_slice::<AppendAnswer>(reply.body) {
        Ok(answer) if answer.stored == delivery.record_count as u64 => {
            Step::Done(Outcome::Stored { durability: reply.durability.map(str::to_owned) })
        }
        Ok(answer) => {
            let detail = format!("{node}: it stored {} of {} records", answer.stored, delivery.record_count);
            Step::Done(Outcome::Failed(failure(FailureKind::Unavailable, detail, None)))
        }
        Err(_) => strange(node),
    }
}

/// What follows from a success that does not say what became of the batch.
pub(super) fn strange(node: &StorageNode) -> Step {
    let detail = format!("{node}: it answers 200, but not as storage does");
    Step::Done(Outcome::Failed(failure(FailureKind::Unavailable, detail, None)))
}

fn failure(kind: FailureKind, detail: String, retry_after_s: Option<u64>) -> Failure {
    Failure { kind, detail, retry_after_s }
}
