//! Whole segments on their way from one replica to another: read from a log, staged beside another, put in its place.
//!
//! Staged files have names that a start leaves alone, so that a copy that broke off is gone on with. Invariants: what is
//! put in place matches its checksums, and was synced before the old log is touched; the bytes travel as they are before
//! compression.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use model::{Offset, Partition};
use serde::{Deserialize, Serialize};

use super::batch_index::BatchIndex;
use super::disk::{self, Disk, OpenMode};
use super::entries::EntryReader;
use super::error::LogError;
use super::format::{BatchHeader, ENTRY_BYTES_U64, Entry, IndexFileHeader};
use super::layout::{self, Part};
use super::limits;
use super::open::{self, Fix};
use super::partition_log::{PartitionLog, Tail};
use super::segment_data::{DataError, FrameCache};

/// What follows a staged file's name.
const STAGED: &str = ".staged";

/// The segments of a log up to an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The segments, oldest first.
    pub segments: Vec<SegmentManifest>,
    /// The offset after the last record.
    pub end_offset: u64,
}

/// One segment of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentManifest {
    /// Its base offset, and so its name.
    pub base_offset: u64,
    /// Its batches.
    pub batches: u32,
    /// Its records' bytes.
    pub data_bytes: u64,
    /// The index's bytes, with a seal if there is one.
    pub index_bytes: u64,
}

/// One of a segment's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The records.
    Data,
    /// The batch index.
    Index,
}

/// Where files are staged for a log.
#[derive(Clone, Debug)]
pub struct Staging {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    partition: Partition,
}

impl EntryReader {
    /// The segments with all entries up to `log_index`, and none after it.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub fn manifest(&self, log_index: u64) -> Result<Manifest, LogError> {
        let mut manifest = Manifest { segments: Vec::new(), end_offset: 0 };
        for segment in self.segments().iter() {
            let summary = segment.summary();
            let batches = segment.first_batch_of_entry(log_index.saturating_add(1))?;
            let is_whole = batches == summary.batch_count;
            if batches == 0 {
                manifest.end_offset = manifest.end_offset.max(segment.base_offset.get());
                break;
            }
            let (end_offset, data_bytes) = if is_whole {
                (summary.end_offset, summary.data_bytes)
            } else {
                let last = segment.headers(batches - 1, 1)?.pop().and_then(Result::ok);
                let last = last.ok_or(LogError::NoEntry { log_index })?;
                (last.end_offset(), last.end_position())
            };
            let seal_bytes = if is_whole && summary.sealed { ENTRY_BYTES_U64 } else { 0 };
            manifest.end_offset = end_offset.get();
            manifest.segments.push(SegmentManifest {
                base_offset: segment.base_offset.get(),
                batches,
                data_bytes,
                index_bytes: BatchIndex::bytes_of(batches) + seal_bytes,
            });
            if !is_whole {
                break;
            }
        }
        Ok(manifest)
    }

    /// Bytes of a segment's file from `position` on, at most `length`; `None` when the segment is gone.
    ///
    /// # Errors
    /// When they cannot be read, or are damaged.
    pub fn read_piece(
        &self,
        base_offset: u64,
        piece: Piece,
        position: u64,
        length: usize,
    ) -> Result<Option<Bytes>, LogError> {
        let segments = self.segments();
        let Some(segment) = segments.iter().find(|segment| segment.base_offset.get() == base_offset) else {
            return Ok(None);
        };
        let failed = |source: io::Error| LogError::Io {
            action: "read for another replica",
            path: format!("partition-{}/{base_offset:020}", segment.partition).into(),
            source: Arc::new(source),
        };
        let bytes = match piece {
            Piece::Index => segment.index.read_raw(position, length).map_err(failed)?,
            Piece::Data => {
                segment.data.read(position, length, &mut FrameCache::default()).map_err(|error| {
                    failed(match error {
                        DataError::Missing => io::ErrorKind::UnexpectedEof.into(),
                        DataError::Corrupt => io::ErrorKind::InvalidData.into(),
                        DataError::Io(error) => error,
                    })
                })?
            }
        };
        Ok(Some(bytes))
    }
}

impl Staging {
    /// How many bytes of a file are staged.
    pub fn length(&self, base_offset: u64, piece: Piece) -> u64 {
        let file = self.disk.open(&self.path(base_offset, piece), OpenMode::Read);
        file.and_then(|file| file.length()).unwrap_or_default()
    }

    /// Adds bytes to a staged file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn add(&self, base_offset: u64, piece: Piece, position: u64, bytes: &[u8]) -> Result<(), LogError> {
        let path = self.path(base_offset, piece);
        let mode = if position == 0 { OpenMode::Create } else { OpenMode::Write };
        self.disk
            .open(&path, mode)
            .and_then(|file| disk::write_all(&*file, &mut [IoSlice::new(bytes)], position))
            .map_err(|error| LogError::io("write", &path, error))
    }

    /// Compares every checksum of a staged segment, and syncs it. A file that is not what it should be is thrown away, so
    /// that the next try gets it anew.
    ///
    /// # Errors
    /// [`LogError::NoEntry`] when something is not right; or the disk's.
    pub fn check(&self, segment: &SegmentManifest) -> Result<(), LogError> {
        if !self.is_right(segment)? {
            self.remove(segment.base_offset, Piece::Data);
            self.remove(segment.base_offset, Piece::Index);
            return Err(LogError::NoEntry { log_index: segment.base_offset });
        }
        for piece in [Piece::Data, Piece::Index] {
            let path = self.path(segment.base_offset, piece);
            let synced = self.disk.open(&path, OpenMode::Write).and_then(|file| file.sync_data());
            synced.map_err(|error| LogError::io("sync", &path, error))?;
        }
        Ok(())
    }

    /// Syncs what is staged where: all that was checked is there after a crash.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> Result<(), LogError> {
        self.disk.sync_dir(&self.dir).map_err(|error| LogError::io("sync", &self.dir, error))
    }

    /// Throws away what is staged and not in `manifest`, or longer than it says.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn keep_only(&self, manifest: &Manifest) -> Result<(), LogError> {
        let entries = self.disk.list(&self.dir).map_err(|error| LogError::io("list", &self.dir, error))?;
        for entry in entries.iter().filter(|entry| entry.name.ends_with(STAGED)) {
            let is_wanted = manifest.segments.iter().any(|segment| {
                let is =
                    |piece, bytes| entry.name == name(segment.base_offset, piece) && entry.length <= bytes;
                is(Piece::Data, segment.data_bytes) || is(Piece::Index, segment.index_bytes)
            });
            if !is_wanted {
                // What cannot be removed now is in nobody's way.
                self.disk.remove(&self.dir.join(&entry.name)).ok();
            }
        }
        Ok(())
    }

    fn is_right(&self, segment: &SegmentManifest) -> Result<bool, LogError> {
        let open = |piece| {
            let path = self.path(segment.base_offset, piece);
            self.disk.open(&path, OpenMode::Read).map_err(|error| LogError::io("open", &path, error))
        };
        let index = BatchIndex::File(open(Piece::Index)?);
        let data = open(Piece::Data)?;
        let failed = |error| LogError::io("read", &self.path(segment.base_offset, Piece::Data), error);
        let head =
            IndexFileHeader { partition: self.partition, base_offset: Offset::new(segment.base_offset) };
        if index.file_header().map_err(failed)? != Ok(head)
            || data.length().map_err(failed)? != segment.data_bytes
            || index.length().map_err(failed)? != segment.index_bytes
        {
            return Ok(false);
        }
        let (mut offset, mut position) = (Offset::new(segment.base_offset), 0);
        let mut headers: Vec<BatchHeader> = Vec::new();
        let mut is_whole = true;
        index
            .scan(segment.batches, |_, header| match header {
                Ok(header) if header.base_offset == offset && header.position == position => {
                    (offset, position) = (header.end_offset(), header.end_position());
                    headers.push(header);
                }
                _ => is_whole = false,
            })
            .map_err(failed)?;
        is_whole &= position == segment.data_bytes && self.seal_is_right(&index, segment).map_err(failed)?;
        let mut buffer = Vec::new();
        if !is_whole {
            return Ok(false);
        }
        for header in &headers {
            buffer.resize(header.length as usize, 0);
            let filled = disk::read_full(&*data, &mut buffer, header.position).map_err(failed)?;
            if filled < buffer.len() || crc32fast::hash(&buffer) != header.crc {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn seal_is_right(&self, index: &BatchIndex, segment: &SegmentManifest) -> io::Result<bool> {
        let seal_position = BatchIndex::bytes_of(segment.batches);
        if segment.index_bytes == seal_position {
            return Ok(true);
        }
        let bytes = index.read_raw(seal_position, ENTRY_BYTES_U64 as usize)?;
        Ok(matches!(Entry::decode(&bytes), Ok(Entry::Seal(seal))
            if seal.batch_count == segment.batches && seal.base_offset.get() == segment.base_offset))
    }

    fn remove(&self, base_offset: u64, piece: Piece) {
        // What cannot be removed is found wrong again.
        self.disk.remove(&self.path(base_offset, piece)).ok();
    }

    fn path(&self, base_offset: u64, piece: Piece) -> PathBuf {
        self.dir.join(name(base_offset, piece))
    }
}

impl PartitionLog {
    /// Where segments are staged for this log.
    pub fn staging(&self) -> Staging {
        Staging { disk: Arc::clone(&self.disk), dir: self.dir.clone(), partition: self.shared.partition }
    }

    /// Puts staged segments in the place of the whole log. They were checked. A crash in the midst of it leaves a part
    /// of either: who calls this has to remember, before, that it is under way, and call [`Self::wipe`] after a crash.
    ///
    /// # Errors
    /// Any stops the log: what it holds is not known.
    pub fn replace_by_staged(&mut self, manifest: &Manifest) -> Result<(), LogError> {
        let replaced = self.remove_all().and_then(|()| self.move_staged(manifest));
        self.stopping(replaced)
    }

    /// Deletes all segments.
    ///
    /// # Errors
    /// As [`Self::replace_by_staged`].
    pub fn wipe(&mut self) -> Result<(), LogError> {
        let wiped = self.remove_all().and_then(|()| self.reopen(Offset::ZERO));
        self.stopping(wiped)
    }

    fn stopping(&self, outcome: Result<(), LogError>) -> Result<(), LogError> {
        if let Err(error) = &outcome {
            self.shared.stop(format!("could not replace the log: {error}").into());
        }
        self.or_stopped(outcome)
    }

    fn remove_all(&mut self) -> Result<(), LogError> {
        self.check_running()?;
        self.compression = None;
        self.tail = Tail::Sealed;
        self.fixes.clear();
        self.remove(layout::CLOSED)?;
        let entries = self.disk.list(&self.dir).map_err(|error| LogError::io("list", &self.dir, error))?;
        let listing = layout::read_listing(entries);
        for name in &listing.temporary {
            self.remove(name)?;
        }
        // The bytes of all before any index: an index without bytes is what is left of a deletion.
        for base_offset in listing.segments.keys() {
            self.remove(&layout::file_name(*base_offset, Part::Data))?;
            self.remove(&layout::file_name(*base_offset, Part::CompressedData))?;
        }
        self.sync_dir()?;
        for base_offset in listing.segments.keys() {
            for part in [Part::Index, Part::Ids].into_iter().chain(Part::SIDECARS) {
                self.remove(&layout::file_name(*base_offset, part))?;
            }
        }
        self.sync_dir()
    }

    fn move_staged(&mut self, manifest: &Manifest) -> Result<(), LogError> {
        for segment in &manifest.segments {
            for piece in [Piece::Index, Piece::Data] {
                let staged = self.dir.join(name(segment.base_offset, piece));
                let place = self.dir.join(layout::file_name(Offset::new(segment.base_offset), piece.part()));
                self.disk.rename(&staged, &place).map_err(|error| LogError::io("rename", &staged, error))?;
            }
        }
        self.sync_dir()?;
        self.reopen(Offset::new(manifest.end_offset))
    }

    /// Takes up what lies in the directory now. Without any segment the log goes on at `end`.
    fn reopen(&mut self, end: Offset) -> Result<(), LogError> {
        let opened = open::open(&*self.disk, &self.dir, self.shared.partition)?;
        let next_offset = opened.next_offset.max(end);
        self.fixes = opened.fixes;
        self.fixes.retain(|fix| !matches!(fix, Fix::Remove(name) if name == layout::CLOSED));
        self.tail = opened.active.map_or(Tail::Sealed, Tail::Found);
        self.compression_given_up.clear();
        self.shared.change_segments(|list| *list = opened.segments);
        *self.shared.missing.lock() = opened.missing;
        self.shared.set_flushed_end(next_offset);
        self.shared.set_written_end(next_offset);
        // An empty log has to remember where it goes on: a segment's name does.
        self.prepare()?;
        if self.shared.segments().is_empty() && next_offset > Offset::ZERO {
            self.writer()?;
        }
        Ok(())
    }
}

impl Piece {
    fn part(self) -> Part {
        match self {
            Self::Data => Part::Data,
            Self::Index => Part::Index,
        }
    }
}

fn name(base_offset: u64, piece: Piece) -> String {
    format!("{}{STAGED}", layout::file_name(Offset::new(base_offset), piece.part()))
}

/// Bytes of one piece of a copy.
pub const PIECE_BYTES_MAX: usize = limits::SCAN_BUFFER_BYTES * 4;
