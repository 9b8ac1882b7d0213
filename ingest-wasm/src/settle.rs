//! Settles each batch of a request: storage takes it, or else the edge WAL, or else the client keeps it.
//!
//! Invariants: a batch never overtakes an older one of its partition that waits in this ingest's WAL and that was
//! acknowledged before the request began; a batch whose outcome at storage is unknown keeps its id in the WAL.

use std::time::Duration;

use futures::{StreamExt, stream};

use crate::config::WalBounds;
use crate::context::Context;
use crate::delivery::{
    Delivery, Failure, FailureKind, First, Outcome, Patience, attempt_together, deliver_after, node_of, plan,
};
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
    let outcomes = settle_planned(context, wal.as_ref(), deliveries, deadline).await;
    let is_replay_due = wal.is_some_and(|(listing, _)| is_replay_due(context, &listing));
    Settled { outcomes, is_replay_due }
}

/// Settles each batch, those together that can go together.
async fn settle_planned<R: Runtime>(
    context: &Context<'_, R>,
    wal: Option<&(Listing, WalBounds)>,
    deliveries: &[Delivery],
    deadline: Duration,
) -> Vec<Outcome> {
    let waits = |delivery: &Delivery| {
        wal.is_some_and(|(listing, _)| !listing.of_partition(delivery.partition).is_empty())
    };
    let (behind, free): (Vec<_>, Vec<_>) =
        deliveries.iter().enumerate().partition(|(_, delivery)| waits(delivery));
    let (together, alone): (Vec<_>, Vec<_>) =
        plan(context, free).into_iter().partition(|request| request.len() > 1);
    let patience = Patience { deadline, attempts_max: limits::FORWARD_ATTEMPTS };
    let attempted = stream::iter(together)
        .map(|request| attempt_request(context, request, patience))
        .buffer_unordered(limits::TOGETHER_AT_ONCE)
        .flat_map(stream::iter);
    let alone = behind.into_iter().chain(alone.into_iter().flatten());
    let settled =
        stream::select(stream::iter(alone.map(|(place, delivery)| (place, delivery, None))), attempted)
            .map(async |(place, delivery, first)| {
                (place, settle(context, wal, delivery, patience, first).await)
            })
            .buffer_unordered(limits::FORWARDS_AT_ONCE);
    let mut outcomes: Vec<_> = settled.collect().await;
    outcomes.sort_unstable_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Makes the first attempt of batches that go to a node in one request, and tells of each, by its place, what came of it.
async fn attempt_request<'c, 'd, R: Runtime>(
    context: &Context<'c, R>,
    request: Vec<(usize, &'d Delivery)>,
    patience: Patience,
) -> Vec<(usize, &'d Delivery, Option<First<'c>>)> {
    let deliveries: Vec<&Delivery> = request.iter().map(|(_, delivery)| *delivery).collect();
    let firsts = attempt_together(context, &deliveries, patience).await;
    request.into_iter().zip(firsts).map(|((place, delivery), first)| (place, delivery, first)).collect()
}

/// Whether something waits for a node that is worth an attempt.
fn is_replay_due<R: Runtime>(context: &Context<'_, R>, listing: &Listing) -> bool {
    let circuits = &context.instance.circuits;
    let mut nodes = listing.partitions().filter_map(|(partition, _)| node_of(context, partition));
    nodes.any(|node| circuits.would_admit(&node, context.storage.elapsed()))
}

/// Settles one batch, whose first attempt may have been made with others.
async fn settle<'c, R: Runtime>(
    context: &Context<'c, R>,
    wal: Option<&(Listing, WalBounds)>,
    delivery: &Delivery,
    patience: Patience,
    first: Option<First<'c>>,
) -> Outcome {
    let Some((listing, bounds)) = wal else {
        return deliver_after(context, delivery, patience, first).await;
    };
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
        if !wal::clear_the_way(context, listing, delivery.partition, patience.deadline).await {
            return queue(context, listing, *bounds, delivery, None).await;
        }
    }
    match deliver_after(context, delivery, patience, first).await {
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
