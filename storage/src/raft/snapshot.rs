//! A snapshot is the log, and the consumers' offsets beside it: whole segments, copied by the replica that lacks them from the one that leads.
//!
//! The leader says that it has one, and up to which entry; the other then asks for the segments, piece by piece, beside
//! what it has. A copy that broke off is gone on with. When all checksums are right the copy takes the log's place.
//!
//! Invariant: between the old log and the new one the replica's state says that there is neither.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Method;
use model::{Offset, Partition};
use openraft::{Snapshot, SnapshotMeta};
use serde::{Deserialize, Serialize};

use super::client::NodeClient;
use super::room::Room;
use super::state::{Consumers, GroupState};
use super::store::{StoreShared, blocking, write_failed};
use super::types::{
    LogId, Member, NodeId, SavedLogId, SavedMembership, SavedVote, StorageError, TypeConfig, Vote,
};
use crate::limits;
use crate::log::{LogError, Manifest, PIECE_BYTES_MAX, Piece, SegmentManifest};
use crate::outbound::CallError;

/// What a snapshot holds.
#[derive(Clone, Debug)]
pub enum SnapshotData {
    /// No segments: the log of this replica has all of it.
    Own {
        /// How far consumers have read.
        consumers: Consumers,
    },
    /// Segments that are staged beside the log of this replica.
    Staged {
        /// The segments.
        manifest: Manifest,
        /// How far consumers have read.
        consumers: Consumers,
    },
}

/// What a leader tells of its snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offer {
    vote: SavedVote,
    last: SavedLogId,
    members: SavedMembership,
    #[serde(default)]
    consumers: Consumers,
}

/// What is asked of a leader for its snapshot.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PieceOf {
    /// The partition.
    pub partition: Partition,
    /// The segment.
    pub segment: u64,
    /// Which of its files.
    pub piece: Piece,
    /// From where on.
    pub position: u64,
    /// How much.
    pub length: usize,
}

/// Where a leader's segments come from.
pub(super) trait SegmentSource: Send + Sync + 'static {
    /// The segments up to an entry, as the library counts.
    fn manifest(
        &self,
        partition: Partition,
        index: u64,
    ) -> impl Future<Output = Result<Manifest, CallError>> + Send;

    /// Bytes of one of their files.
    fn piece(&self, of: PieceOf) -> impl Future<Output = Result<Bytes, CallError>> + Send;
}

/// The segments of a leader on another node.
#[derive(Debug)]
pub(super) struct LeaderSegments {
    client: NodeClient,
    leader: String,
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
    pub(super) fn new(vote: Vote, snapshot: &Snapshot<TypeConfig>) -> Option<Self> {
        let meta = &snapshot.meta;
        let (SnapshotData::Own { consumers } | SnapshotData::Staged { consumers, .. }) = &*snapshot.snapshot;
        let (last, members) = (meta.last_log_id?.into(), (&meta.last_membership).into());
        Some(Self { vote: vote.into(), last, members, consumers: consumers.clone() })
    }

    /// What is to be put in place, once its segments are staged.
    pub(super) fn staged(&self, manifest: Manifest) -> Snapshot<TypeConfig> {
        let data = SnapshotData::Staged { manifest, consumers: self.consumers.clone() };
        Snapshot { meta: self.meta(), snapshot: Box::new(data) }
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

    /// Copies the leader's segments beside this log, as far as there is room for them.
    pub(super) async fn copy(
        &self,
        source: &impl SegmentSource,
        offer: &Offer,
        room: &Room,
    ) -> Result<Manifest, CopyError> {
        let manifest = source.manifest(self.partition, offer.last().index).await?;
        let (staging, kept) = (self.staging.clone(), manifest.clone());
        blocking(move || staging.keep_only(&kept)).await?;
        let mut copied = None;
        for segment in &manifest.segments {
            // A segment is read again and synced while the next is on its way.
            let (checked, copy) =
                tokio::join!(self.check_copy(copied), self.copy_segment(source, segment, room));
            checked?;
            copy?;
            copied = Some(segment);
        }
        self.check_copy(copied).await?;
        let staging = self.staging.clone();
        blocking(move || staging.sync()).await?;
        Ok(manifest)
    }

    async fn check_copy(&self, segment: Option<&SegmentManifest>) -> Result<(), LogError> {
        let Some(segment) = segment.copied() else { return Ok(()) };
        let staging = self.staging.clone();
        blocking(move || staging.check(&segment)).await
    }

    async fn copy_segment(
        &self,
        source: &impl SegmentSource,
        segment: &SegmentManifest,
        room: &Room,
    ) -> Result<(), CopyError> {
        for (piece, bytes) in [(Piece::Data, segment.data_bytes), (Piece::Index, segment.index_bytes)] {
            self.copy_file(source, segment.base_offset, piece, bytes, room).await?;
        }
        Ok(())
    }

    async fn copy_file(
        &self,
        source: &impl SegmentSource,
        segment: u64,
        piece: Piece,
        bytes: u64,
        room: &Room,
    ) -> Result<(), CopyError> {
        let fetch = async |position: u64, unwritten: usize| {
            let length = usize::try_from(bytes - position).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
            // What votes and deletes needs room of its own, whatever a leader has to give.
            if !room.has(unwritten + length) {
                return Err(LogError::DiskFull.into());
            }
            let got =
                source.piece(PieceOf { partition: self.partition, segment, piece, position, length }).await?;
            if got.len() == length { Ok(got) } else { Err(CopyError::Length) }
        };
        let mut position = self.staging.length(segment, piece);
        // A file without bytes is made too.
        let mut arrived = if position < bytes || bytes == 0 { Some(fetch(position, 0).await?) } else { None };
        while let Some(got) = arrived.take() {
            let (staging, at, length) = (self.staging.clone(), position, got.len());
            position += length as u64;
            let written = blocking(move || staging.add(segment, piece, at, &got));
            // The disk writes a piece while the next is on its way.
            if position < bytes {
                let (written, next) = tokio::join!(written, fetch(position, length));
                written?;
                arrived = Some(next?);
            } else {
                written.await?;
            }
        }
        Ok(())
    }
}

impl LeaderSegments {
    /// The segments of the leader whose other nodes reach it there.
    pub(super) fn new(client: NodeClient, leader: String) -> Self {
        Self { client, leader }
    }
}

impl SegmentSource for LeaderSegments {
    async fn manifest(&self, partition: Partition, index: u64) -> Result<Manifest, CallError> {
        let url = format!("{}/raft/manifest?partition={partition}&index={index}", self.leader);
        let (time_max, answer_max) = (limits::COPY_PIECE_TIME_MAX, limits::NODE_ANSWER_BYTES_MAX);
        let answer = self.client.call(Method::GET, &url, Vec::new(), time_max, answer_max).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn piece(&self, of: PieceOf) -> Result<Bytes, CallError> {
        let PieceOf { partition, segment, piece, position, length } = of;
        let name = match piece {
            Piece::Data => "data",
            Piece::Index => "index",
        };
        let url = format!(
            "{}/raft/segment?partition={partition}&segment={segment}&piece={name}&position={position}&length={length}",
            self.leader
        );
        self.client.call(Method::GET, &url, Vec::new(), limits::COPY_PIECE_TIME_MAX, PIECE_BYTES_MAX).await
    }
}

/// Puts a snapshot in the place of what this replica has.
pub(super) async fn install(
    shared: &StoreShared,
    meta: &SnapshotMeta<NodeId, Member>,
    snapshot: SnapshotData,
) -> Result<(), StorageError> {
    let installed = match snapshot {
        SnapshotData::Own { consumers } => shared.save(|state| note_installed(state, meta, consumers)).await,
        SnapshotData::Staged { manifest, consumers } => {
            let end_offset = Offset::new(manifest.end_offset);
            let upto = meta.last_log_id.map_or(0, |last| last.index + 1);
            shared.recent.lock().clear();
            let installed = {
                let mut state = shared.state.lock();
                state.set_installing(true);
                let before = state.encode();
                state.set_installing(false);
                note_installed(&mut state, meta, consumers);
                // Sent while nobody else can change the state: one that is written later has what this one has.
                shared.access.install(manifest, upto, before, state.encode())
            };
            let installed = installed.await;
            if installed.is_ok() {
                shared.publisher.publish(end_offset);
            }
            installed
        }
    };
    shared.has_snapshot.store(true, Ordering::Release);
    installed.map_err(|error| write_failed(&error))
}

fn note_installed(state: &mut GroupState, meta: &SnapshotMeta<NodeId, Member>, consumers: Consumers) {
    if let Some(last) = meta.last_log_id {
        state.set_applied(last);
        state.set_purged(last);
    }
    state.set_members(&meta.last_membership);
    state.set_consumers(consumers);
}
