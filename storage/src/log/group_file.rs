//! The small file beside the log that a replica must never forget: whom it voted for, and who the members are.
//!
//! Invariant: it is replaced whole, and durable when the write returns. What it holds is not the log's to know.

use super::disk;
use super::error::LogError;
use super::format::{ENTRY_BYTES, GroupFileHeader};
use super::layout;
use super::limits;
use super::partition_log::PartitionLog;

impl PartitionLog {
    /// What was written last; `None` when nothing ever was.
    ///
    /// # Errors
    /// [`LogError::GroupState`] when it is not as it was written; [`LogError::UnknownFormat`]; or the system's.
    pub fn read_group_state(&self) -> Result<Option<Vec<u8>>, LogError> {
        let path = self.dir.join(layout::GROUP);
        let read = disk::read_file(&*self.disk, &path, limits::GROUP_FILE_BYTES_MAX);
        let Some(bytes) = read.map_err(|error| LogError::io("read", &path, error))? else { return Ok(None) };
        let (head, body) = bytes.split_at_checked(ENTRY_BYTES).unwrap_or((&bytes, &[]));
        match GroupFileHeader::decode(head) {
            Ok(header) if header.body_crc == crc32fast::hash(body) => Ok(Some(body.to_vec())),
            Err(super::format::Undecodable::Unknown) => Err(LogError::UnknownFormat { path }),
            Ok(_) | Err(_) => Err(LogError::GroupState { path }),
        }
    }

    /// Replaces it.
    ///
    /// # Errors
    /// When the disk refuses: what was there before is there still, or this is.
    pub fn write_group_state(&mut self, body: &[u8]) -> Result<(), LogError> {
        self.check_running()?;
        let mut bytes = GroupFileHeader { body_crc: crc32fast::hash(body) }.encode();
        bytes.extend_from_slice(body);
        let (disk, dir) = (&*self.disk, &*self.dir);
        let written = self.reserve.or_give_up(disk, || {
            disk::write_atomically(disk, dir, layout::GROUP, &bytes)
                .map_err(|error| LogError::io("write", &dir.join(layout::GROUP), error))
        });
        self.or_stopped(written)
    }
}
