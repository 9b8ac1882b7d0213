//! Takes one partition's entries to storage, in order.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use model::Partition;

use super::append::remove;
use super::key::PieceKey;
use super::list;
use super::listing::{Entry, Listing};
use super::note_error;
use super::piece::{PieceError, unpack};
use crate::budget::{Busy, Share};
use crate::context::Context;
use crate::delivery::{Delivery, Outcome, Patience, deliver, node_of};
use crate::key_value::KeyValueError;
use crate::limits;
use crate::runtime::Runtime;

/// How much a drain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DrainBudget {
    pub(super) entries: usize,
    pub(super) bytes: u64,
    /// By the runtime's clock.
    pub(super) deadline: Duration,
}

/// What a drain has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Drained {
    /// Entries that storage has acknowledged.
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) records: u64,
    /// Entries that were set aside.
    pub(super) set_aside: u64,
    /// Whether none of the entries is left.
    pub(super) is_done: bool,
    /// Why it stopped, if storage or the store was the reason.
    pub(super) error: Option<String>,
}

/// Waits until no entry of `listing` is left before a new batch of `partition`, and helps with that. `false` if there
/// are still some: the batch has to join them.
pub async fn clear_the_way<R: Runtime>(
    context: &Context<'_, R>,
    listing: &Listing,
    partition: Partition,
    deadline: Duration,
) -> bool {
    let is_reachable =
        node_of(context, partition).is_some_and(|node| context.instance.circuits.is_closed(&node));
    if !is_reachable {
        return false;
    }
    let deadline = deadline.min(context.storage.elapsed() + limits::WAL_WAIT_MAX);
    let mut entries = listing.of_partition(partition).to_vec();
    let mut has_waited = false;
    while context.storage.elapsed() < deadline {
        if let Some(_draining) = context.instance.drain(partition) {
            if has_waited {
                // Only what was there when the request came has to be before it.
                let Ok(Some(now)) = list(context).await else { return false };
                entries.retain(|entry| now.of_partition(partition).contains(entry));
            }
            let budget = DrainBudget { entries: usize::MAX, bytes: u64::MAX, deadline };
            return drain(context, &entries, budget).await.is_done;
        }
        has_waited = true;
        let chance = (context.chance() >> 32) as f64 / f64::from(u32::MAX);
        context.storage.pause(limits::WAL_WAIT_PAUSE.mul_f64(1.0 + chance)).await;
    }
    false
}

/// Takes these entries of one partition to storage, in this order, until the first one that it does not take.
pub(super) async fn drain<R: Runtime>(
    context: &Context<'_, R>,
    entries: &[Entry],
    budget: DrainBudget,
) -> Drained {
    let mut drained = Drained::default();
    let mut stored: Vec<&Entry> = Vec::new();
    drained.is_done = true;
    for (count, entry) in entries.iter().enumerate() {
        let is_late = context.storage.elapsed() + limits::ATTEMPT_TIME_MIN > budget.deadline;
        if is_late || count >= budget.entries || drained.bytes >= budget.bytes {
            drained.is_done = false;
            break;
        }
        match take(context, entry, budget.deadline).await {
            Taken::Stored => {
                drained.entries += 1;
                drained.bytes += entry.bytes();
                drained.records += entry.records();
                stored.push(entry);
            }
            Taken::Gone => {}
            Taken::SetAside(reason) => {
                drained.set_aside += 1;
                drained.error = Some(reason);
            }
            Taken::Left(reason) => {
                drained.error = Some(reason);
                drained.is_done = false;
                break;
            }
        }
        if stored.len() >= limits::WAL_DELETIONS_PUT_OFF_MAX {
            delete(context, &mut stored).await;
        }
    }
    delete(context, &mut stored).await;
    if let Some(error) = &drained.error {
        note_error(context, error).await;
    }
    drained
}

/// What became of an entry.
enum Taken {
    /// Storage has acknowledged it.
    Stored,
    /// Somebody else has taken it to storage, and is deleting it.
    Gone,
    /// It can never be stored: it is kept apart.
    SetAside(String),
    /// Storage does not take it now.
    Left(String),
}

async fn take<R: Runtime>(context: &Context<'_, R>, entry: &Entry, deadline: Duration) -> Taken {
    let delivery = match read(context, entry).await {
        Ok(Some((delivery, _share))) => delivery,
        Ok(None) => return Taken::Gone,
        Err(ReadError::Piece(PieceError::Damaged)) => {
            return set_aside(context, entry, PieceError::Damaged.to_string()).await;
        }
        // Of a newer version: its place is kept until a component comes that reads it.
        Err(error) => return Taken::Left(error.to_string()),
    };
    // Once: what fails now is tried again by the next replay, and live requests have their own attempts.
    match deliver(context, &delivery, Patience { deadline, attempts_max: 1 }).await {
        Outcome::Stored { .. } => Taken::Stored,
        Outcome::Failed(failure) if failure.kind.is_final() => {
            set_aside(context, entry, failure.detail).await
        }
        Outcome::Failed(failure) => Taken::Left(failure.detail),
        // Nothing that goes to storage ends there.
        Outcome::Queued => Taken::Left("it was queued again".to_owned()),
    }
}

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Piece(#[from] PieceError),
    #[error(transparent)]
    KeyValue(#[from] KeyValueError),
    #[error(transparent)]
    Busy(#[from] Busy),
}

/// The batch of an entry; `None` if a piece of it is gone.
async fn read<'c, R: Runtime>(
    context: &Context<'c, R>,
    entry: &Entry,
) -> Result<Option<(Delivery, Share<'c>)>, ReadError> {
    let bytes = usize::try_from(entry.bytes()).map_err(|_| Busy)?;
    let mut share = context.budget.share();
    // The lines, a piece on its way into them, and the copy that is being sent.
    share.take(bytes + 2 * limits::WAL_PIECE_BYTES_MAX.min(bytes))?;
    let mut lines = Vec::with_capacity(bytes);
    let mut acks = None;
    for key in entry.pieces() {
        let Some(value) = context.storage.get(key.to_string()).await? else { return Ok(None) };
        let (header, piece) = unpack(&value)?;
        let of_header =
            (header.partition, header.id, header.digest, header.piece, header.pieces, header.records);
        if of_header != (key.partition, key.id, key.digest, key.piece, key.pieces, key.records) {
            return Err(PieceError::Damaged.into());
        }
        acks = header.acks;
        lines.extend_from_slice(piece);
    }
    let Some(PieceKey { partition, id, digest, records, .. }) = entry.pieces().first().copied() else {
        return Ok(None);
    };
    let record_count = records as usize;
    let lines = Bytes::from(lines);
    Ok(Some((Delivery { partition, id, digest, record_count, lines, acks }, share)))
}

async fn delete<R: Runtime>(context: &Context<'_, R>, entries: &mut Vec<&Entry>) {
    // What stays because the store fails is sent once more another time, and known to storage.
    join_all(entries.drain(..).map(|entry| remove(context, entry.pieces()))).await;
}

/// Keeps an entry apart, first under its other keys, then no more under its own: a crash between leaves it in both
/// places, and the next replay comes here again.
async fn set_aside<R: Runtime>(context: &Context<'_, R>, entry: &Entry, reason: String) -> Taken {
    for key in entry.pieces() {
        let copied = match context.storage.get(key.to_string()).await {
            Ok(Some(value)) => context.storage.set(key.set_aside(), value).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = copied {
            return Taken::Left(format!("{reason}; and it cannot be set aside: {error}"));
        }
    }
    remove(context, entry.pieces()).await;
    Taken::SetAside(format!("set aside: {reason}"))
}
