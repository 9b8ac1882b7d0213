//! The log's own bounds, each with its reason.

/// Batches of one segment. It bounds the id table of the active segment (some 6 MiB) and the index file (16 MiB),
/// however small the batches are.
pub(super) const SEGMENT_BATCHES_MAX: u32 = 131_072;

/// Headers that a reader fetches at a time: 8 KiB, two pages.
pub(super) const HEADER_RUN: u32 = 64;

/// Headers that a reader of a short range fetches at first: those of a quarter MiB of usual batches.
pub(super) const HEADER_RUN_SHORT: u32 = 8;

/// Headers that a reader fetches at a time at most, as it goes on: 128 KiB.
pub(super) const HEADER_RUN_MAX: u32 = 1024;

/// Headers that a scan of a whole index fetches at a time: 512 KiB.
pub(super) const HEADER_RUN_SCAN: u32 = 4096;

/// Bytes of whole batches that a reader fetches at first. Most reads want one batch.
pub(super) const READ_WINDOW_BYTES_FIRST: usize = 64 << 10;

/// Bytes of whole batches that a reader fetches at most, unless one batch is larger.
pub(super) const READ_WINDOW_BYTES_MAX: usize = 1 << 20;

/// Bytes that recovery, verification and import read at a time.
pub(super) const SCAN_BUFFER_BYTES: usize = 1 << 20;

/// Bytes that a disk writes whole or not at all; larger ones are multiples of it.
pub(super) const SECTOR_BYTES: usize = 512;

/// Bytes of one batch. Far above what a request may carry; a header that says more is nonsense.
pub(super) const BATCH_BYTES_MAX: u64 = 1 << 30;

/// Records of one batch when batches are made from bare lines.
pub(super) const REBUILT_BATCH_RECORDS_MAX: u32 = 1000;

/// Bytes of one batch when batches are made from bare lines, unless one line is larger.
pub(super) const REBUILT_BATCH_BYTES_MAX: usize = 1 << 20;

/// Places of damage that a segment lists one by one; the rest it only counts.
pub(super) const DAMAGE_LISTED_MAX: usize = 64;

/// Bytes of whole batches in one zstd frame: what a read of one batch has to decompress, and what one maintenance step
/// compresses, some 5 ms, for which appends wait.
pub(super) const FRAME_BYTES: u64 = 1 << 20;

/// zstd's level for cold segments: they are written once and read seldom, yet appends wait for it.
pub(super) const COMPRESSION_LEVEL: i32 = 3;

/// Bytes of Bloom filters over batch ids that one partition keeps in memory, newest segments first: those of 5.6 million
/// batches. Of older ones a block is read for each question.
pub(super) const ID_FILTER_BYTES_MAX: usize = 8 << 20;

/// Bytes that stay allocated so that a full disk has room for what frees it: directory entries and small markers.
pub(super) const RESERVE_BYTES: u64 = 256 << 10;

/// Bytes that have to be free before the reserve is taken (again): it is not to be what fills the disk.
pub(super) const RESERVE_FREE_BYTES_MIN: u64 = 64 * RESERVE_BYTES;

/// Slices of one vectored write; Linux takes 1,024.
pub(super) const WRITE_SLICES_MAX: usize = 1024;

/// Bytes of a replica's state: the members of a group, as often as they changed since what was purged. A longer file is
/// none.
pub(super) const GROUP_FILE_BYTES_MAX: u64 = 64 << 20;
