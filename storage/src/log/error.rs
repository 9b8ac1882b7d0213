//! What can go wrong with a log, told apart by what the caller has to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Offset;

/// Why a log could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// There is no room. The log is as it was before; reads go on, and appends work again when there is room.
    #[error("the disk is full")]
    DiskFull,
    /// A sync failed earlier: what the disk holds of the last batches is not known, so nothing more is taken until
    /// the process is restarted and the log recovered. Reads go on.
    #[error("the log takes no more writes until a restart: {cause}")]
    Stopped {
        /// The failure that stopped it.
        cause: Arc<str>,
    },
    /// Records that were stored are not there, or not as they were. What surrounds them is.
    #[error("{0}")]
    Damaged(Damage),
    /// What is committed was to be cut off. Nothing was.
    #[error("entry {log_index} of the replicated log is committed, and is not cut off")]
    Committed {
        /// The first entry that was to go.
        log_index: u64,
    },
    /// Entries of the replicated log that are not there: never written, or deleted by retention.
    #[error("entry {log_index} is not in the replicated log")]
    NoEntry {
        /// The first of them.
        log_index: u64,
    },
    /// The leader has stored an entry at another offset than it would have here: one of the two logs is not what its
    /// indexes say. Nothing was written.
    #[error(
        "entry {log_index} of the replicated log begins at offset {offset} on its leader, and would begin at {next} here"
    )]
    OtherOffset {
        /// The entry.
        log_index: u64,
        /// The offset of its first record on the leader.
        offset: Offset,
        /// The next offset here.
        next: Offset,
    },
    /// The replica's own vote and members cannot be read: it has to be filled anew, for it may have voted.
    #[error("{} is not as it was written", path.display())]
    GroupState {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the log open for writing.
    #[error("{} is held by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file was written by a newer edgelog. It is left alone.
    #[error("{} has a format that this version does not know", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

/// A place where stored records are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The base offset, and so the name, of the segment.
    pub segment: Offset,
    /// Where in the segment's bytes, counted before compression.
    pub position: u64,
    /// The first record that is lost.
    pub first_offset: Offset,
    /// The first record after those that are lost.
    pub end_offset: Offset,
    /// What is wrong.
    pub kind: DamageKind,
}

/// What is wrong with a damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The batch's bytes do not match their checksum, or cannot be decompressed.
    Bytes,
    /// The batch's bytes are not there.
    MissingBytes,
    /// The batch's header does not match its checksum, or contradicts its neighbours.
    Header,
    /// The index file's own header does not match its checksum. The batches are readable.
    IndexFileHeader,
    /// Lines that are no records, found when the index was rebuilt from the lines.
    Lines,
    /// Whole segments are missing.
    MissingSegment,
    /// The list of batch ids does not match its checksums. It is derived: it is made again when it is needed.
    IdList,
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "the bytes do not match their checksum",
            Self::MissingBytes => "the bytes are not there",
            Self::Header => "the batch header is not as it was written",
            Self::IndexFileHeader => "the index file's header is not as it was written",
            Self::Lines => "the lines are no records",
            Self::MissingSegment => "segments are missing",
            Self::IdList => "the list of batch ids is not as it was written, and will be made again",
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, position, first_offset, end_offset, kind } = self;
        write!(
            f,
            "segment {:020} at byte {position}, offsets {first_offset} to {end_offset}: {kind}",
            segment.get()
        )
    }
}

impl LogError {
    /// The system's refusal of `action`, told apart from a full disk.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if is_disk_full(&source) {
            return Self::DiskFull;
        }
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// Whether the system refused for want of room.
pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
