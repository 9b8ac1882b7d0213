//! The edge WAL: batches that storage could not take, kept in the runtime's key-value store until it can.
//!
//! `append` writes a batch before it is acknowledged; `drain` takes one partition's entries to storage, in order;
//! `replay` drains all partitions within a budget; `report` tells what there is. `key`, `piece` and `listing` are pure:
//! the names, the values, and what a set of names means.
//!
//! Invariants: an entry counts once all its pieces are durable, and is deleted only when storage has acknowledged its
//! batch, or has refused it for good and a copy is set aside; an entry is sent only when all older ones of its partition
//! that the sender could see are gone. A crash between any two operations breaks neither: what is sent twice has the
//! same batch id. Any number of instances and processes may work on one store at once.

mod append;
mod drain;
mod key;
mod listing;
mod piece;
mod replay;
mod report;

pub use append::{AppendError, append};
pub use drain::clear_the_way;
pub use listing::{Entry, Listing, Sum};
pub use replay::{ReplayBudget, Replayed, replay, replay_in_background};
pub use report::{WalReport, report};

use crate::context::Context;
use crate::key_value::KeyValueError;
use crate::limits;
use crate::runtime::Runtime;

/// What the WAL holds now; `None` where there is none: it is turned off, or the application grants no store.
///
/// # Errors
/// When the store does not say.
pub async fn list<R: Runtime>(context: &Context<'_, R>) -> Result<Option<Listing>, KeyValueError> {
    if context.config.wal.is_none() {
        return Ok(None);
    }
    match context.storage.keys().await {
        Ok(keys) => Ok(Some(Listing::of(&keys))),
        Err(KeyValueError::NotGranted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes an error down for `GET /v1/wal`, now and then.
pub(crate) async fn note_error<R: Runtime>(context: &Context<'_, R>, error: &str) {
    let now = context.storage.elapsed();
    if context.config.wal.is_none() || !context.instance.is_error_due(now, limits::ERROR_NOTE_PAUSE) {
        return;
    }
    let error: String = error.chars().take(limits::ERROR_BYTES_MAX).collect();
    let note = serde_json::json!({ "at": context.now_ms, "error": error }).to_string();
    // It is for people; that it is lost changes nothing.
    let _lost = context.storage.set(key::ERROR_KEY.to_owned(), note.into_bytes()).await.is_err();
}

#[cfg(test)]
mod tests;
