//! Who a node is: a number that is drawn once for each data directory, and the cluster that it belongs to.
//!
//! Invariant: a directory that was lost takes its number along. A node that forgot what it voted for and stored must
//! not come back as the one that knew.

use std::fmt;
use std::path::Path;

use model::BatchDigest;
use serde::{Deserialize, Serialize};

use super::types::NodeId;
use crate::log::{self, Disk, LogError};

/// The file's name in the data directory.
const FILE: &str = "node.json";
/// It holds two numbers.
const BYTES_MAX: u64 = 4096;

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node's number.
    pub node: HexId,
    /// The cluster's; `None` until the node has met one.
    pub cluster: Option<HexId>,
    /// Whether its operator wants it to hold nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// A number that is written as 16 hexadecimal digits: JSON's own numbers are not exact that far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HexId(pub NodeId);

impl Identity {
    /// What the data directory says; a new identity, written there, if it says nothing.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or cannot be written.
    pub fn of_directory(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        if let Some(found) = Self::found_in(disk, dir)? {
            return Ok(found);
        }
        let drawn = Self { node: HexId::random(), cluster: None, draining: false };
        drawn.write(disk, dir)?;
        Ok(drawn)
    }

    /// What the data directory says, if it does.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn found_in(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, LogError> {
        let path = dir.join(FILE);
        let failed =
            |error| LogError::Io { action: "read", path: path.clone(), source: std::sync::Arc::new(error) };
        let Some(bytes) = log::read_file(disk, &path, BYTES_MAX).map_err(failed)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(std::io::Error::other(error)))
    }

    /// Remembers the cluster.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn join(&mut self, cluster: HexId, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        self.replace(Self { cluster: Some(cluster), ..*self }, disk, dir)
    }

    /// Remembers whether the node is to hold nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_draining(&mut self, draining: bool, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        self.replace(Self { draining, ..*self }, disk, dir)
    }

    fn replace(&mut self, with: Self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        with.write(disk, dir)?;
        *self = with;
        Ok(())
    }

    fn write(self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let failed = |error| LogError::Io {
            action: "write",
            path: dir.join(FILE),
            source: std::sync::Arc::new(error),
        };
        disk.create_dir(dir).map_err(failed)?;
        let mut bytes = serde_json::to_vec(&self).map_err(|error| failed(std::io::Error::other(error)))?;
        bytes.push(b'\n');
        log::write_file(disk, dir, FILE, &bytes).map_err(failed)
    }
}

impl HexId {
    /// A number that nobody else has.
    pub fn random() -> Self {
        #[cfg(test)]
        if let Some(drawn) = crate::simulated::draw() {
            return Self(drawn);
        }
        Self(BatchDigest::of(uuid::Uuid::now_v7().as_bytes()).get())
    }
}

impl fmt::Display for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<HexId> for String {
    fn from(id: HexId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for HexId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        NodeId::from_str_radix(&text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealDisk;

    #[test]
    fn an_identity_stays_with_its_directory_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Identity::of_directory(&RealDisk, dir.path()).unwrap();
        first.join(HexId(7), &RealDisk, dir.path()).unwrap();
        assert_eq!(Identity::of_directory(&RealDisk, dir.path()).unwrap(), first);
        assert_eq!(first.cluster, Some(HexId(7)));
        first.set_draining(true, &RealDisk, dir.path()).unwrap();
        assert!(Identity::of_directory(&RealDisk, dir.path()).unwrap().draining && first.cluster.is_some());
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Identity::of_directory(&RealDisk, other.path()).unwrap().node, first.node);
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        assert!(Identity::of_directory(&RealDisk, dir.path()).is_err());
    }
}
