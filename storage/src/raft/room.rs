//! Whether a disk has room for more entries.
//!
//! A replica whose log cannot be written ends until it is started again; so what would not fit is refused before it
//! comes to the log. Invariant: what is left for votes and for deleting is never given to records.

use std::path::PathBuf;
use std::sync::Arc;

use crate::limits;
use crate::log::Disk;

/// The room in a partition's directory.
#[derive(Clone, Debug)]
pub struct Room {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Room {
    /// The room in `dir`.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    /// Whether so many bytes fit. A disk that does not say is tried.
    pub fn has(&self, bytes: usize) -> bool {
        let wanted = (bytes as u64).saturating_add(limits::REPLICA_FREE_BYTES_MIN);
        self.disk.free_bytes(&self.dir).map_or(true, |free| free >= wanted)
    }
}
