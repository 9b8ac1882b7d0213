//! The log that a replica finds at its start: what of it is kept, and whether the replica has lost some of it.
//!
//! Invariant: before anything is cut off it is on the disk that the replica has lost entries, and which it had: from then
//! on it neither votes nor leads until it has them again. Must not know how entries travel.

use model::Offset;

use super::state::GroupState;
use super::store::raft_id;
use super::types::{LogId, log_id};
use crate::log::{
    AlteredEnd, EntryExtent, EntryReader, LogError, LogReader, PartitionLog, Publisher, RecoveryReport,
    Staging,
};

/// What is taken from a log before its actor has it.
#[derive(Debug)]
pub struct FoundLog {
    pub(super) entries: EntryReader,
    pub(super) reader: LogReader,
    pub(super) publisher: Publisher,
    pub(super) staging: Staging,
    pub(super) state: GroupState,
}

/// Why a log cannot be that of a replica.
#[derive(Debug, thiserror::Error)]
pub enum FoundLogError {
    /// The log's own reasons.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state is of another version.
    #[error("the replica's state cannot be read: {0}")]
    State(serde_json::Error),
    /// There are records that no group has agreed on, or the replica's state is gone.
    #[error(
        "it holds records that no group has agreed on: they were stored without replication (then start with --replicas 1), or the file `raft` beside them is gone (then move the data directory away: the node is filled anew)"
    )]
    NotReplicated,
}

impl FoundLog {
    /// Deletes the records of a replica that was let go. What it has promised stays, and that it had records which are
    /// gone: should it be given a replica again, it neither votes nor leads before it is filled.
    ///
    /// A crash in the midst of it leaves what the next start finishes.
    ///
    /// # Errors
    /// When the log is not that of a replica, or the disk refuses.
    pub fn forget(log: &mut PartitionLog, report: &RecoveryReport) -> Result<(), FoundLogError> {
        let found = log.read_group_state()?.ok_or(FoundLogError::NotReplicated)?;
        let mut state = GroupState::decode(&found).map_err(FoundLogError::State)?;
        state.set_lost(last_there_was(log.entry_reader().last_readable().ok().flatten(), report.altered));
        state.set_installing(true);
        log.write_group_state(&state.encode())?;
        log.wipe()?;
        state.set_installing(false);
        state.set_refilling(None);
        Ok(log.write_group_state(&state.encode())?)
    }

    /// Looks at a log that was just opened: cuts off what a crash left of an entry, and publishes what is known to be
    /// committed.
    ///
    /// What is damaged is cut off, with all that follows: it is had again from the others, and until then the replica
    /// neither votes nor leads.
    ///
    /// # Errors
    /// When the log cannot be that of a replica, or not be read.
    pub fn prepare(log: &mut PartitionLog, report: &RecoveryReport) -> Result<Self, FoundLogError> {
        let found = log.read_group_state()?;
        let is_new = found.is_none();
        let mut state = match found {
            Some(bytes) => GroupState::decode(&bytes).map_err(FoundLogError::State)?,
            None => GroupState::default(),
        };
        let entries = log.entry_reader();
        if is_new && (log.written_end() > Offset::ZERO || log.last_index().is_some()) {
            return Err(FoundLogError::NotReplicated);
        }
        // Before anything is written: what a later version wrote is left as it is.
        let has_bad_entry = log.has_bad_entry()?;
        let is_damaged =
            has_bad_entry || report.lost_records > 0 || report.altered.cut > 0 || report.rebuilt_indexes > 0;
        let has_lost = is_damaged || state.is_installing();
        if has_lost {
            // Before anything is cut off: a crash in between would leave a shorter log that looks whole.
            // What cannot be told of a damaged log was not its end, or a leader tells of it.
            state.set_lost(last_there_was(entries.last_readable().ok().flatten(), report.altered));
        }
        if has_lost || is_new {
            // From now on the directory is a replica's, which must not come back without what it has promised.
            log.write_group_state(&state.encode())?;
        }
        if state.is_installing() {
            log.wipe()?;
            state.set_installing(false);
        } else {
            log.cut_damage()?;
            log.cut_partial_entry()?;
        }
        let kept = entries.last()?.map(|extent| raft_id(&extent));
        if has_lost || !state.is_held_by(kept) {
            tracing::error!(kept = ?kept.map(|kept| kept.index), "the replica has lost entries; it is filled anew by the others, and does not vote until then");
            state.set_refilling(kept);
            log.write_group_state(&state.encode())?;
        }
        if kept.is_none() && state.purged().is_none() && log.written_end() > Offset::ZERO {
            // What it is filled with begins with the first record.
            log.wipe()?;
        }
        log.purge_upto(state.purged().map_or(0, |purged| purged.index + 1));
        if let Some(applied) = state.applied() {
            let found = entries.extents(applied.index + 1, 1)?;
            let end = match found.first().filter(|extent| extent.log_index == applied.index + 1) {
                Some(extent) => Some(extent.end_offset),
                // All that was purged may be deleted; what is left begins after it.
                None => found.first().map(|extent| extent.base_offset),
            };
            log.publish(end.unwrap_or_else(|| log.flushed_end()));
        }
        Ok(Self { entries, reader: log.reader(), publisher: log.publisher(), staging: log.staging(), state })
    }
}

/// The last entry that the log may have had: behind the last that can be read each altered header may have been one's.
/// It may have been of a later term, and is at the least of this one.
fn last_there_was(readable: Option<(EntryExtent, bool)>, altered: AlteredEnd) -> Option<LogId> {
    let goes_on = readable.as_ref().is_some_and(|(_, goes_on)| *goes_on);
    let more = u64::from(altered.headers).saturating_sub(u64::from(goes_on));
    match readable.map(|(extent, _)| raft_id(&extent)) {
        Some(last) => Some(LogId { index: last.index + more, ..last }),
        None => more.checked_sub(1).map(|index| log_id(0, index)),
    }
}
