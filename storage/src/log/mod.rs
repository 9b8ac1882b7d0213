//! A partition's log: plain JSONL segments, a batch index beside each, made durable and recovered.
//!
//! The ladder, each knowing only what is below it: `partition_log → segment_writer, reader → segment → batch_index,
//! segment_data → format, disk`; a writing log has its disk through `stopping_disk`. `open`, `recovery` and `rebuild` turn files into segments; `docs/data-format.md` has
//! every byte.
//!
//! Invariants: `high watermark ≤ flushed ≤ written`; a batch is whole or absent; an offset, once published, always
//! names the same bytes; files derived from others may be deleted at any time. Synchronous: must not know of an async
//! runtime, of HTTP or of a clock (times are passed in).

mod limits;

mod codec;
mod disk;
mod error;
mod format;
mod layout;
mod options;
mod stopping_disk;

mod batch_index;
mod frames;
mod id_list;
mod segment;
mod segment_data;
mod segment_writer;

mod open;
mod rebuild;
mod recovery;

mod batches;
mod entries;
mod reader;
mod shared;
mod stored_batch;

mod compression;
mod consumer;
mod group_file;
mod known_batches;
mod maintenance;
mod partition_log;
mod reserve;
mod restart;
mod sidecars;
mod snapshot;
mod transfer;
mod truncation;

#[cfg(test)]
pub(crate) mod tests;

pub use batches::Batches;
pub use consumer::{ConsumerCommit, ConsumerKey};
pub use disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk, read_file, write_file};
pub use entries::{EntryBatch, EntryContent, EntryExtent, EntryKind, EntryReader, NewEntry, StoredEntry};
pub use error::{Damage, DamageKind, LogError};
pub use known_batches::KnownBatch;
pub use layout::{partition_dir, partition_of_dir};
pub use maintenance::MaintenanceReport;
pub use options::{FsyncPolicy, LogOptions};
pub use partition_log::{PartitionLog, RecoveryReport};
pub use reader::{BatchExtent, LogReader, PartitionStatus, SegmentExtent, SegmentStatus};
pub use recovery::AlteredEnd;
pub use segment_writer::NewBatch;
pub use shared::Publisher;
pub use sidecars::{Sidecar, Sidecars};
pub use snapshot::{LogSnapshot, Verification};
pub use stored_batch::{Lines, StoredBatch};
pub use transfer::{Manifest, PIECE_BYTES_MAX, Piece, SegmentManifest, Staging};
