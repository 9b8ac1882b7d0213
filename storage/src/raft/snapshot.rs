//! A snapshot is the log: whole segments, copied by the replica that lacks them from the one that leads.
//!
//! The leader says that it has one, and up to which entry; the other then asks for the segments, piece by piece, beside
//! what it has. A copy that broke off is gone on with. When all checksums are right the copy takes the log's place.
//!
//! Invariant: between the old log and the new one the replica's state says that there is neither.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Method;
use openraft::SnapshotMeta;
use serde::{Deserialize, Serialize};

use super::client::NodeClient;
use super::store::{StoreShared, blocking, write_failed};
use super::types::{LogId, Member, NodeId, SavedLogId, SavedMembership, SavedVote, StorageError, Vote};
use crate::limits;
use crate::log::{LogError, Manifest, PIECE_BYTES_MAX, Piece, SegmentManifest};
use crate::outbound::CallError;

/// What a snapshot holds.
#[derive(Clone, Debug)]
pub enum SnapshotData {
    /// Nothing: the log of this replica has all of it.
    Own,
    /// Segments that are staged beside the log of this replica.
    Staged(Manifest),
}

/// What a leader tells of its snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offer {
    vote: SavedVote,
    last: SavedLogId,
    members: SavedMembership,
}

/// What is asked of a leader for its snapshot.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PieceOf {
    /// The partition.
    pub partition: model::Partition,
    /// The segment.
    pub segment: u64,
    /// Which of its files.
    pub piece: Piece,
    /// From where on.
    pub position: u64,
    /// How much.
    pub length: usize,
}

/// Why a snapshot was not copied. What was copied is there at the next try.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// The leader did not answer as it should.
    #[error("the leader: {0}")]
    Call(#[from] CallError),
    /// The disk, or a checksum.
    #[error("{0}")]
    Log(#[from] LogError),
    /// A piece has another length than was asked for.
    #[error("the leader sent a piece of another length")]
    Length,
}

impl Offer {
    /// The offer of a leader.
    pub(super) fn new(vote: Vote, meta: &SnapshotMeta<NodeId, Member>) -> Option<Self> {
        let last = meta.last_log_id?.into();
        Some(Self { vote: vote.into(), last, members: (&meta.last_membership).into() })
    }

    /// The leader's vote.
    pub fn vote(&self) -> Vote {
        self.vote.into()
    }

    /// The last entry that the snapshot has.
    pub(super) fn last(&self) -> LogId {
        self.last.into()
    }

    /// What the library is to know of it.
    pub fn meta(&self) -> SnapshotMeta<NodeId, Member> {
        let last = self.last();
        SnapshotMeta {
            last_log_id: Some(last),
            last_membership: self.members.stored(),
            snapshot_id: last.to_string(),
        }
    }
}

impl StoreShared {
    /// The segments up to an entry, as the library counts.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub async fn manifest(&self, index: u64) -> Result<Manifest, LogError> {
        let entries = self.entries.clone();
        blocking(move || entries.manifest(index + 1)).await
    }

    /// Bytes of one of this log's files; `None` when the segment is gone.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn piece(&self, of: PieceOf) -> Result<Option<Bytes>, LogError> {
        let entries = self.entries.clone();
        let length = of.length.min(PIECE_BYTES_MAX);
        blocking(move || entries.read_piece(of.segment, of.piece, of.position, length)).await
    }

    /// Copies the leader's segments beside this log.
    pub(super) async fn copy(
        self: &Arc<Self>,
        client: &NodeClient,
        leader: &str,
        offer: &Offer,
    ) -> Result<Manifest, CopyError> {
        let partition = self.partition;
        let url = format!("{leader}/raft/manifest?partition={partition}&index={}", offer.last().index);
        let time_max = limits::COPY_PIECE_TIME_MAX;
        let answer =
            client.call(Method::GET, &url, Vec::new(), time_max, limits::NODE_ANSWER_BYTES_MAX).await?;
        let manifest: Manifest = serde_json::from_slice(&answer).map_err(CallError::from)?;
        let (staging, kept) = (self.staging.clone(), manifest.clone());
        blocking(move || staging.keep_only(&kept)).await?;
        for segment in &manifest.segments {
            self.copy_file(client, leader, segment, Piece::Data, segment.data_bytes).await?;
            self.copy_file(client, leader, segment, Piece::Index, segment.index_bytes).await?;
        }
        let (staging, checked) = (self.staging.clone(), manifest.clone());
        blocking(move || staging.check(&checked)).await?;
        Ok(manifest)
    }

    async fn copy_file(
        &self,
        client: &NodeClient,
        leader: &str,
        segment: &SegmentManifest,
        piece: Piece,
        bytes: u64,
    ) -> Result<(), CopyError> {
        let (partition, base_offset) = (self.partition, segment.base_offset);
        let mut position = self.staging.length(base_offset, piece);
        while position < bytes || (position == 0 && bytes == 0) {
            let length = usize::try_from(bytes - position).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
            let name = match piece {
                Piece::Data => "data",
                Piece::Index => "index",
            };
            let url = format!(
                "{leader}/raft/segment?partition={partition}&segment={base_offset}&piece={name}&position={position}&length={length}"
            );
            let got = client
                .call(Method::GET, &url, Vec::new(), limits::COPY_PIECE_TIME_MAX, PIECE_BYTES_MAX)
                .await?;
            if got.len() != length {
                return Err(CopyError::Length);
            }
            let staging = self.staging.clone();
            blocking(move || staging.add(base_offset, piece, position, &got)).await?;
            position += length as u64;
            if bytes == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Puts a snapshot in the place of what this replica has.
pub(super) async fn install(
    shared: &StoreShared,
    meta: &SnapshotMeta<NodeId, Member>,
    snapshot: SnapshotData,
) -> Result<(), StorageError> {
    let installed = match snapshot {
        SnapshotData::Own => shared.save(|state| note_installed(state, meta)).await,
        SnapshotData::Staged(manifest) => {
            let (before, after) = {
                let mut state = shared.state.lock();
                state.set_installing(true);
                let before = state.encode();
                state.set_installing(false);
                note_installed(&mut state, meta);
                (before, state.encode())
            };
            shared.recent.lock().clear();
            let end_offset = model::Offset::new(manifest.end_offset);
            let installed = shared.access.install(manifest, before, after).await;
            if installed.is_ok() {
                shared.publisher.publish(end_offset);
            }
            installed
        }
    };
    shared.has_snapshot.store(true, Ordering::Release);
    installed.map_err(|error| write_failed(&error))
}

fn note_installed(state: &mut super::state::GroupState, meta: &SnapshotMeta<NodeId, Member>) {
    if let Some(last) = meta.last_log_id {
        state.set_applied(last);
        state.set_purged(last);
    }
    state.set_members(&meta.last_membership);
}
