//! Takes the entries of all partitions to storage: each partition's in order, several partitions at once, within a
//! budget.

use std::time::Duration;

use futures::{StreamExt, stream};
use model::Partition;

use super::append::remove;
use super::drain::{DrainBudget, Drained, drain};
use super::list;
use super::listing::{Entry, Listing};
use crate::context::Context;
use crate::key_value::KeyValueError;
use crate::limits;
use crate::runtime::Runtime;

/// How much a replay may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayBudget {
    /// Entries of each partition.
    pub entries: usize,
    /// Bytes of each partition.
    pub bytes: u64,
    /// How long it may begin further entries.
    pub time: Duration,
    /// Partitions at once: each has one forward in flight.
    pub partitions: usize,
}

impl From<(usize, u64, Duration, usize)> for ReplayBudget {
    fn from((entries, bytes, time, partitions): (usize, u64, Duration, usize)) -> Self {
        Self { entries, bytes, time, partitions }
    }
}

/// What a replay has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Entries that storage has acknowledged.
    pub entries: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Records of these.
    pub records: u64,
    /// Entries that were set aside.
    pub set_aside: u64,
    /// Incomplete entries that were dropped.
    pub dropped: u64,
    /// Why it stopped, if storage or the store was the reason.
    pub error: Option<String>,
    /// Whether it did not get through all that there was when it began.
    pub is_left: bool,
}

/// Replays in the background, unless this instance does so already. With `pause` it goes on until nothing is left or
/// the time is over, and waits so long between rounds that did not get everything through; else it is one round.
pub async fn replay_in_background<R: Runtime>(
    context: &Context<'_, R>,
    budget: ReplayBudget,
    pause: Option<Duration>,
) {
    let Some(_replaying) = context.instance.replay() else { return };
    let deadline = context.storage.elapsed() + budget.time;
    loop {
        let time = deadline.saturating_sub(context.storage.elapsed());
        let is_left = replay(context, ReplayBudget { time, ..budget }).await.is_ok_and(|done| match done {
            Some(replayed) => replayed.is_left,
            None => false,
        });
        let Some(pause) = pause else { return };
        if !is_left || context.storage.elapsed() + pause >= deadline {
            return;
        }
        context.storage.pause(pause).await;
    }
}

/// Replays; `None` where there is no WAL. A partition that another task of this instance replays is left to that.
///
/// # Errors
/// When the store does not say what there is.
pub async fn replay<R: Runtime>(
    context: &Context<'_, R>,
    budget: ReplayBudget,
) -> Result<Option<Replayed>, KeyValueError> {
    let Some(listing) = list(context).await? else { return Ok(None) };
    let partitions_at_once = budget.partitions;
    let budget = DrainBudget {
        entries: budget.entries,
        bytes: budget.bytes,
        deadline: context.storage.elapsed() + budget.time,
    };
    let dropped = drop_torn(context, &listing).await;
    let replayed = stream::iter(listing.partitions())
        .map(|(partition, entries)| replay_partition(context, partition, entries, budget))
        .buffer_unordered(partitions_at_once)
        .fold(Replayed { dropped, ..Replayed::default() }, |sum, drained| async { sum.with(drained) })
        .await;
    Ok(Some(replayed))
}

impl Replayed {
    fn with(self, drained: Drained) -> Self {
        Self {
            entries: self.entries + drained.entries,
            bytes: self.bytes + drained.bytes,
            records: self.records + drained.records,
            set_aside: self.set_aside + drained.set_aside,
            dropped: self.dropped,
            error: self.error.or(drained.error),
            is_left: self.is_left || !drained.is_done,
        }
    }
}

async fn replay_partition<R: Runtime>(
    context: &Context<'_, R>,
    partition: Partition,
    entries: &[Entry],
    budget: DrainBudget,
) -> Drained {
    let Some(_draining) = context.instance.drain(partition) else { return Drained::default() };
    drain(context, entries, budget).await
}

/// Drops entries that have been incomplete for long, and returns how many.
async fn drop_torn<R: Runtime>(context: &Context<'_, R>, listing: &Listing) -> u64 {
    let mut dropped = 0;
    for entry in listing.torn() {
        if entry.age_ms(context.now_ms) > limits::WAL_TORN_AGE_MS_MAX {
            remove(context, entry.pieces()).await;
            dropped += 1;
        }
    }
    dropped
}
