//! How far each consumer of a partition has read: what a tail or an exporter writes down, to go on there.
//!
//! One small file in the partition's directory, replaced whole; with several copies of the partition it is
//! [`crate::raft`] that keeps them. Invariant: what was acknowledged is on the disk; what is
//! answered was. Must not know what a consumer does, nor of HTTP.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use model::Offset;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::log::{self, ConsumerKey, Disk};

/// The file's name in the partition's directory.
const FILE: &str = "consumers.json";
/// The version of its format.
const VERSION: u32 = 1;

/// A consumer's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Consumer(String);

/// A text that is no consumer's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a consumer's name is 1 to {} letters, digits, dots, dashes and underscores",
    limits::CONSUMER_BYTES_MAX
)]
pub struct InvalidConsumer;

/// Why an offset is not kept, or not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OffsetsError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: Arc<io::Error>,
    },
    /// There are as many consumers as there may be.
    #[error("the partition has {} consumers already; delete those that are no more", limits::CONSUMERS_MAX)]
    TooMany,
    /// They have moved too often since the partition's last record.
    #[error(
        "consumers have moved {} times since the partition's last record; the next one makes room",
        limits::IDLE_ENTRIES_MAX
    )]
    Idle,
}

/// The consumers of one partition.
#[derive(Debug)]
pub struct ConsumerOffsets {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// What is on the disk. Held while that changes: the file is small.
    offsets: Mutex<BTreeMap<Consumer, Offset>>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    offsets: BTreeMap<Consumer, Offset>,
}

impl ConsumerOffsets {
    /// Those that are written down in a partition's directory.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or is of another version.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, OffsetsError> {
        let path = dir.join(FILE);
        let offsets =
            read(&*disk, &path).map_err(|source| OffsetsError::Io { path, source: Arc::new(source) })?;
        Ok(Self { disk, dir: dir.to_owned(), offsets: Mutex::new(offsets) })
    }

    /// Where a consumer is.
    pub fn get(&self, consumer: &Consumer) -> Option<Offset> {
        self.offsets.lock().get(consumer).copied()
    }

    /// Writes down where a consumer is; `None` forgets it. It is on the disk then. Blocks for that long.
    ///
    /// # Errors
    /// Nothing has changed then, but that a later start may know better.
    pub fn set(&self, consumer: &Consumer, offset: Option<Offset>) -> Result<(), OffsetsError> {
        let mut offsets = self.offsets.lock();
        if offsets.get(consumer).copied() == offset {
            return Ok(());
        }
        let mut changed = offsets.clone();
        match offset {
            Some(offset) => changed.insert(consumer.clone(), offset),
            None => changed.remove(consumer),
        };
        if changed.len() > limits::CONSUMERS_MAX {
            return Err(OffsetsError::TooMany);
        }
        let content = Content { version: VERSION, offsets: changed };
        // A partition without records may have no directory yet.
        let made = self.disk.create_dir(&self.dir);
        let written = made
            .and_then(|()| serde_json::to_vec(&content).map_err(io::Error::other))
            .and_then(|bytes| log::write_file(&*self.disk, &self.dir, FILE, &bytes));
        written.map_err(|source| OffsetsError::Io { path: self.dir.join(FILE), source: Arc::new(source) })?;
        *offsets = content.offsets;
        Ok(())
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<BTreeMap<Consumer, Offset>> {
    let Some(bytes) = log::read_file(disk, path, limits::CONSUMERS_FILE_BYTES_MAX)? else {
        return Ok(BTreeMap::new());
    };
    let content: Content = serde_json::from_slice(&bytes)?;
    if content.version == VERSION {
        Ok(content.offsets)
    } else {
        Err(io::Error::other(format!(
            "it is of version {}, and was written by a newer program",
            content.version
        )))
    }
}

impl Consumer {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// By what the replicated log knows it.
    pub fn key(&self) -> ConsumerKey {
        ConsumerKey::of(&self.0)
    }
}

impl FromStr for Consumer {
    type Err = InvalidConsumer;

    fn from_str(text: &str) -> Result<Self, InvalidConsumer> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Consumer {
    type Error = InvalidConsumer;

    fn try_from(text: String) -> Result<Self, InvalidConsumer> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let fits = (1..=limits::CONSUMER_BYTES_MAX).contains(&text.len());
        if is_plain && fits { Ok(Self(text)) } else { Err(InvalidConsumer) }
    }
}

impl From<Consumer> for String {
    fn from(consumer: Consumer) -> Self {
        consumer.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealDisk;

    fn consumer(name: &str) -> Consumer {
        name.parse().unwrap()
    }

    fn open(dir: &Path) -> Result<ConsumerOffsets, OffsetsError> {
        ConsumerOffsets::open(Arc::new(RealDisk), dir)
    }

    #[test]
    fn what_was_written_down_is_there_after_a_restart_until_it_is_forgotten() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("partition-0");
        let offsets = open(&dir).unwrap();
        let (a, b) = (consumer("a"), consumer("exporter-1.eu_west"));
        assert_eq!(offsets.get(&a), None);
        offsets.set(&a, Some(Offset::new(7))).unwrap();
        offsets.set(&b, Some(Offset::new(u64::MAX))).unwrap();
        // A consumer may go back.
        offsets.set(&a, Some(Offset::new(3))).unwrap();
        let again = open(&dir).unwrap();
        assert_eq!((again.get(&a), again.get(&b)), (Some(Offset::new(3)), Some(Offset::new(u64::MAX))));
        again.set(&a, None).unwrap();
        assert_eq!((open(&dir).unwrap().get(&a), again.get(&b).is_some()), (None, true));
    }

    #[test]
    fn names_are_plain_and_consumers_few() {
        for name in ["", "a/b", "a b", "é", &"x".repeat(limits::CONSUMER_BYTES_MAX + 1), "a\n"] {
            assert_eq!(name.parse::<Consumer>(), Err(InvalidConsumer), "{name:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let full = Content {
            version: VERSION,
            offsets: (0..limits::CONSUMERS_MAX)
                .map(|number| (consumer(&format!("{number:0>128}")), Offset::new(u64::MAX)))
                .collect(),
        };
        std::fs::write(dir.path().join(FILE), serde_json::to_vec(&full).unwrap()).unwrap();
        let offsets = open(dir.path()).unwrap();
        assert!(matches!(offsets.set(&consumer("one-more"), Some(Offset::ZERO)), Err(OffsetsError::TooMany)));
        let first = full.offsets.keys().next().unwrap();
        offsets.set(first, None).unwrap();
        offsets.set(&consumer("one-more"), Some(Offset::ZERO)).unwrap();
    }

    #[test]
    fn a_file_that_is_not_understood_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{", r#"{"version":2,"offsets":{}}"#, r#"{"version":1,"offsets":{"a/b":1}}"#] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert!(matches!(open(dir.path()), Err(OffsetsError::Io { .. })), "{text}");
            assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), text);
        }
    }
}
