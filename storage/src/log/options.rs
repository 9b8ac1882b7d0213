//! What an operator may choose about a log.

use std::time::Duration;

use super::limits;

/// A log's options. The defaults are sane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment is sealed before it grows beyond this. One append is never split.
    pub segment_bytes_max: u64,
    /// A segment is sealed before it has more batches than this. It bounds the memory that the active segment's batch
    /// ids take, however small the batches are.
    pub segment_batches_max: u32,
    /// A segment is sealed when its first batch is this old, so that age limits can take hold of it.
    pub segment_age_max: Duration,
    /// Sealed segments are deleted, oldest first, while all of them take more bytes on the disk than this.
    pub retention_bytes: Option<u64>,
    /// A sealed segment is deleted when its last batch is this old.
    pub retention_age: Option<Duration>,
    /// A sealed segment is compressed when its last batch is this old.
    pub compress_age: Option<Duration>,
    /// When appended batches are synced.
    pub fsync: FsyncPolicy,
}

/// When appended batches are synced, and so what an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// Before they are acknowledged: nothing acknowledged is lost in a power cut.
    Always,
    /// At least this often: a power cut may cost what was acknowledged within it.
    Interval(Duration),
    /// When the system sees fit, and when a segment is sealed or the log is closed.
    Never,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes_max: 256 << 20,
            segment_batches_max: limits::SEGMENT_BATCHES_MAX,
            segment_age_max: Duration::from_secs(24 * 3600),
            retention_bytes: None,
            retention_age: None,
            compress_age: Some(Duration::from_secs(24 * 3600)),
            fsync: FsyncPolicy::Always,
        }
    }
}
