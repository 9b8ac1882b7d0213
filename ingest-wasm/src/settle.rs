//! Settles each batch of a request: storage takes it, or else the edge WAL, or else the client keeps it.
//!
//! Invariants: a batch never overtakes an older one of its partition that waits in this ingest's WAL and that was
//! acknowledged before the request began; a batch whose outcome at storage is unknown keeps its id in the WAL.

use std::time::Duration;

use futures::{StreamExt, stream};

use crate::config::WalBounds;
use crate::context::Context;
use crate::delivery::{Delivery, Failure, FailureKind, Outcome, Patience, deliver, node_of};
use crate::limits;
use crate::runtime::Runtime;
use crate::wal::{self, AppendError, Listing};

/// What became of a request's batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// One for each batch, in order.
    pub outcomes: Vec<Outcome>,
    /// Whether there is something to replay, and somebody to take it.
    pub is_replay_due: bool,
}

/// Settles all batches: all at once, within bounds.
pub async fn settle_all<R: Runtime>(context: &Context<'_, R>, deliveries: &[Delivery]) -> Settled {
    let deadline = context.storage.elapsed() + limits::DELIVERY_TIME_MAX;
    // What was acknowledged to this client before is in this listing, or in storage: it was made after the request came.
    let wal = match wal::list(context).await {
        Ok(listing) => listing.zip(context.config.wal),
        // Whether older batches wait cannot be known; in doubt nothing is claimed.
        Err(error) => {
            let failed = Outcome::Failed(Failure::new(FailureKind::Unavailable, error.to_string()));
            return Settled { outcomes: vec![failed; deliveries.len()], is_replay_due: false };
        }
    };
    let outcomes: Vec<_> = stream::iter(deliveries)
        .map(|delivery| settle(context, wal.as_ref(), delivery, deadline))
        .buffered(limits::FORWARDS_AT_ONCE)
        .collect()
        .await;
    let is_replay_due = wal.is_some_and(|(listing, _)| is_replay_due(context, &listing));
    Settled { outcomes, is_replay_due }
}

/// Whether something waits for a node that is worth an attempt.
fn is_replay_due<R: Runtime>(context: &Context<'_, R>, listing: &Listing) -> bool {
    let circuits = &context.instance.circuits;
    let mut nodes = listing.partitions().filter_map(|(partition, _)| node_of(context, partition));
    nodes.any(|node| circuits.would_admit(&node, context.storage.elapsed()))
}

async fn settle<R: Runtime>(
    context: &Context<'_, R>,
    wal: Option<&(Listing, WalBounds)>,
    delivery: &Delivery,
    deadline: Duration,
) -> Outcome {
    let patience = Patience { deadline, attempts_max: limits::FORWARD_ATTEMPTS };
    let Some((listing, bounds)) = wal else { return deliver(context, delivery, patience).await };
    if !listing.of_partition(delivery.partition).is_empty() {
        match listing.digest_of(delivery.partition, delivery.id) {
            // A retry of what is on its way already.
            Some(digest) if digest == delivery.digest => return Outcome::Queued,
            Some(_) => {
                let detail = "other records wait in the edge WAL under this key";
                return Outcome::Failed(Failure::new(FailureKind::Conflict, detail));
            }
            None => {}
        }
        if !wal::clear_the_way(context, listing, delivery.partition, deadline).await {
            return queue(context, listing, *bounds, delivery, None).await;
        }
    }
    match deliver(context, delivery, patience).await {
        Outcome::Failed(failure) if failure.kind.may_wait() => {
            queue(context, listing, *bounds, delivery, Some(failure)).await
        }
        outcome => outcome,
    }
}

/// Puts a batch into the WAL, because of this failure or because others wait there.
async fn queue<R: Runtime>(
    context: &Context<'_, R>,
    listing: &Listing,
    bounds: WalBounds,
    delivery: &Delivery,
    failure: Option<Failure>,
) -> Outcome {
    if let Some(failure) = &failure {
        wal::note_error(context, &failure.detail).await;
    }
    let Err(error) = wal::append(context, listing, bounds, delivery).await else { return Outcome::Queued };
    let first = failure
        .as_ref()
        .map_or("older records of the partition wait in the edge WAL", |failure| &failure.detail);
    let retry_after_s = match error {
        AppendError::Full => Some(limits::RETRY_AFTER_WAL_FULL_S),
        AppendError::Busy(_) | AppendError::KeyValue(_) => None,
    };
    let of_storage = failure.as_ref().and_then(|failure| failure.retry_after_s);
    Outcome::Failed(Failure {
        kind: failure.as_ref().map_or(FailureKind::Unavailable, |failure| failure.kind),
        detail: format!("{first}; {error}"),
        retry_after_s: of_storage.max(retry_after_s),
    })
}

#[cfg(test)]
mod tests;
