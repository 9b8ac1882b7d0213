//! A snapshot is the log: whole segments, copied from a replica that has them.

use std::sync::atomic::Ordering;

use openraft::SnapshotMeta;

use super::store::{StoreShared, write_failed};
use super::types::{Member, NodeId, StorageError};

/// What a snapshot holds.
#[derive(Clone, Debug)]
pub enum SnapshotData {
    /// Nothing: the log of this replica has all of it.
    Own,
}

/// Puts a snapshot in the place of what this replica has.
pub(super) async fn install(
    shared: &StoreShared,
    meta: &SnapshotMeta<NodeId, Member>,
    snapshot: SnapshotData,
) -> Result<(), StorageError> {
    match snapshot {
        SnapshotData::Own => {}
    }
    shared.recent.lock().clear();
    shared.has_snapshot.store(true, Ordering::Release);
    let saved = shared.save(|state| {
        if let Some(last) = meta.last_log_id {
            state.set_applied(last);
        }
        state.set_members(&meta.last_membership);
    });
    saved.await.map_err(|error| write_failed(&error))
}
