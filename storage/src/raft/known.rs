//! The nodes that others have vouched for, on the disk: the node that told of them may be gone at the next start.
//!
//! Invariant: a node that does not know whom it knew founds nothing: a file that cannot be read ends its start.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::log::{self, Disk, LogError};

/// The file's name in the data directory.
const FILE: &str = "nodes.json";
/// It holds some URLs.
const BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    nodes: Vec<String>,
}

/// What the data directory says.
///
/// # Errors
/// When the file is there and cannot be read, or is not what was written.
pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, LogError> {
    let path = dir.join(FILE);
    let parse = |bytes: Vec<u8>| serde_json::from_slice::<Known>(&bytes).map_err(std::io::Error::other);
    let known = log::read_file(disk, &path, BYTES_MAX).and_then(|bytes| bytes.map(parse).transpose());
    let known = known.map_err(|error| LogError::Io { action: "read", path, source: Arc::new(error) })?;
    Ok(known.unwrap_or_default().nodes.into_iter().take(limits::OTHER_NODES_MAX).collect())
}

/// Writes it anew.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(disk: &dyn Disk, dir: &Path, nodes: Vec<String>) -> Result<(), LogError> {
    let failed = |error| LogError::Io { action: "write", path: dir.join(FILE), source: Arc::new(error) };
    let mut bytes = serde_json::to_vec(&Known { nodes }).map_err(|error| failed(error.into()))?;
    bytes.push(b'\n');
    log::write_file(disk, dir, FILE, &bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealDisk;

    #[test]
    fn what_was_known_is_known_again_and_what_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&RealDisk, dir.path()).unwrap().is_empty());
        write(&RealDisk, dir.path(), vec!["http://d:1".to_owned()]).unwrap();
        assert_eq!(read(&RealDisk, dir.path()).unwrap(), ["http://d:1"]);
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(read(&RealDisk, dir.path()).is_err());
    }
}
