//! What a partition's directory holds, and what has to be put right before the next append.
//!
//! Invariant: nothing is written here, so that tools may look at a directory, and a node with a full disk can start.
//! Sealed segments cost one small read each; only the last segment is read, and only if it was not closed cleanly.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use model::{BatchId, Offset, Partition};

use super::batch_index::{BatchIndex, FileHeaderSlot};
use super::disk::{self, Disk, DiskFile, OpenMode};
use super::error::{Damage, DamageKind, LogError};
use super::format::{ClosedMarker, ENTRY_BYTES, Undecodable};
use super::frames::FrameTable;
use super::layout::{self, Listing, Part, SegmentFiles};
use super::rebuild;
use super::recovery::{self, AlteredEnd, KnownEnd, RecoveryError};
use super::segment::{Segment, Summary};
use super::segment_data::{DataError, SegmentData};

/// A partition's directory, read.
#[derive(Debug)]
pub(super) struct Opened {
    /// In order of their offsets.
    pub(super) segments: Vec<Arc<Segment>>,
    /// What is to be known of the last segment if it takes appends.
    pub(super) active: Option<ActiveTail>,
    /// The offset that the next record gets.
    pub(super) next_offset: Offset,
    /// What to do before the first write, in this order.
    pub(super) fixes: Vec<Fix>,
    /// Indexes that were rebuilt of segments that something had been written to.
    pub(super) rebuilt_indexes: usize,
    /// Segments that are missing between others.
    pub(super) missing: Vec<Damage>,
}

/// The last segment's end.
#[derive(Debug)]
pub(super) struct ActiveTail {
    pub(super) batch_by_id: HashMap<BatchId, u32>,
    /// Whether the clean-close marker vouched for it.
    pub(super) was_closed: bool,
    /// Bytes of records that are not whole batches.
    pub(super) torn_bytes: u64,
    /// Records of flushed batches at the end of which the bytes are gone.
    pub(super) lost_records: u64,
    /// Headers at the very end that are not what was written.
    pub(super) altered: AlteredEnd,
    /// The first batch of which no later one says that it was flushed, and where its bytes begin.
    pub(super) unsure_batch: u32,
    pub(super) unsure_position: u64,
}

/// Something that a crash left undone.
#[derive(Clone, Debug)]
pub(super) enum Fix {
    /// A file that is not needed.
    Remove(String),
    /// An index that was rebuilt.
    WriteIndex { base_offset: Offset, bytes: Vec<u8> },
    /// The last segment's torn tail.
    Cut { base_offset: Offset, data_bytes: u64, index_bytes: u64 },
}

/// Reads a partition's directory; one that is not there is empty.
pub(super) fn open(disk: &dyn Disk, dir: &Path, partition: Partition) -> Result<Opened, LogError> {
    let listing = match disk.list(dir) {
        Ok(entries) => layout::read_listing(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Listing::default(),
        Err(error) => return Err(LogError::io("list", dir, error)),
    };
    let marker = if listing.has_closed_marker { read_marker(disk, dir) } else { None };
    let mut opener = Opener {
        disk,
        dir,
        partition,
        marker,
        opened: Opened {
            segments: Vec::new(),
            active: None,
            next_offset: Offset::ZERO,
            fixes: leftovers(&listing),
            rebuilt_indexes: 0,
            missing: Vec::new(),
        },
    };
    let segments = opener.without_orphans(listing.segments);
    let next_bases = segments.keys().skip(1).copied().map(Some).chain([None]);
    for ((base_offset, files), next_base) in segments.iter().zip(next_bases) {
        opener.add_segment(*base_offset, *files, next_base)?;
    }
    Ok(opener.opened)
}

impl Fix {
    /// Puts it right, durably but for the names of removed files.
    pub(super) fn apply(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        match self {
            Self::Remove(name) => match disk.remove(&dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(LogError::io("remove", &dir.join(name), error))
                }
                _ => Ok(()),
            },
            Self::WriteIndex { base_offset, bytes } => {
                let name = layout::file_name(*base_offset, Part::Index);
                disk::write_atomically(disk, dir, &name, bytes)
                    .map_err(|error| LogError::io("write", &dir.join(&name), error))
            }
            Self::Cut { base_offset, data_bytes, index_bytes } => {
                // Headers before bytes: a header without its bytes would look like a loss.
                cut(disk, &dir.join(layout::file_name(*base_offset, Part::Index)), *index_bytes)?;
                cut(disk, &dir.join(layout::file_name(*base_offset, Part::Data)), *data_bytes)
            }
        }
    }
}

fn cut(disk: &dyn Disk, path: &Path, length: u64) -> Result<(), LogError> {
    disk.open(path, OpenMode::Write)
        .and_then(|file| {
            file.set_length(length)?;
            file.sync_data()
        })
        .map_err(|error| LogError::io("cut", path, error))
}

/// The marker goes before anything is written, for from then on it is not true any more.
fn leftovers(listing: &Listing) -> Vec<Fix> {
    let marker = listing.has_closed_marker.then(|| layout::CLOSED.to_owned());
    marker.into_iter().chain(listing.temporary.iter().cloned()).map(Fix::Remove).collect()
}

fn read_marker(disk: &dyn Disk, dir: &Path) -> Option<ClosedMarker> {
    let mut bytes = [0; ENTRY_BYTES];
    let file = disk.open(&dir.join(layout::CLOSED), OpenMode::Read).ok()?;
    disk::read_full(&*file, &mut bytes, 0).ok()?;
    ClosedMarker::decode(&bytes).ok()
}

struct Opener<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    partition: Partition,
    marker: Option<ClosedMarker>,
    opened: Opened,
}

impl Opener<'_> {
    /// Leaves out what a crash left of a creation or a deletion: indexes without bytes, in front of all segments that
    /// have some, or behind them and without batches. Any other index without bytes tells of records that are lost.
    fn without_orphans(
        &mut self,
        segments: BTreeMap<Offset, SegmentFiles>,
    ) -> BTreeMap<Offset, SegmentFiles> {
        let has_data = |files: &SegmentFiles| files.data.is_some() || files.compressed.is_some();
        let first_with_data = segments.iter().find(|(_, files)| has_data(files)).map(|(base, _)| *base);
        let last = segments.keys().next_back().copied();
        let mut kept = BTreeMap::new();
        for (base_offset, files) in segments {
            let in_front = first_with_data.is_some_and(|first| base_offset < first);
            let is_empty = files.index.is_some_and(|bytes| recovery::slot_count(bytes) == 0);
            if has_data(&files) || !(in_front || (is_empty && last == Some(base_offset))) {
                kept.insert(base_offset, files);
                continue;
            }
            self.remove(base_offset, Part::Index);
            files.derived().for_each(|part| self.remove(base_offset, part));
            self.opened.next_offset = self.opened.next_offset.max(base_offset);
        }
        kept
    }

    fn add_segment(
        &mut self,
        base_offset: Offset,
        files: SegmentFiles,
        next_base: Option<Offset>,
    ) -> Result<(), LogError> {
        self.note_gap(base_offset);
        let (index_found, file_header) = match self.open_index(base_offset, files)? {
            Some((index, header)) => (Some(index), Some(header)),
            None => (None, None),
        };
        let data = self.open_data(base_offset, files, index_found.as_ref())?;
        let index = match index_found {
            Some(index) => index,
            None => self.rebuild(base_offset, &data, next_base)?,
        };
        let segment =
            match sealed_summary(&index, base_offset).map_err(|e| self.io(base_offset, Part::Index, e))? {
                Some(summary) => {
                    let segment = Segment::new(self.partition, base_offset, index, data, summary);
                    note_missing_bytes(&segment);
                    segment
                }
                None => self.open_unsealed(base_offset, index, data, next_base)?,
            };
        if let Some(header) = file_header {
            self.check_file_header(&segment, header)?;
        }
        self.opened.next_offset = self.opened.next_offset.max(segment.summary().end_offset);
        self.opened.segments.push(Arc::new(segment));
        Ok(())
    }

    fn note_gap(&mut self, base_offset: Offset) {
        let expected = self.opened.next_offset;
        if expected < base_offset && !self.opened.segments.is_empty() {
            self.opened.missing.push(Damage {
                segment: base_offset,
                position: 0,
                first_offset: expected,
                end_offset: base_offset,
                kind: DamageKind::MissingSegment,
            });
        }
    }

    /// The index, unless there is none to speak of: one that was cut within its first header, or is all zeros, says
    /// nothing, and the lines say all.
    fn open_index(
        &self,
        base_offset: Offset,
        files: SegmentFiles,
    ) -> Result<Option<(BatchIndex, FileHeaderSlot)>, LogError> {
        if files.index.is_none_or(|bytes| bytes < BatchIndex::bytes_of(0)) {
            return Ok(None);
        }
        let index = BatchIndex::File(self.open_file(base_offset, Part::Index)?);
        let header = index.file_header().map_err(|error| self.io(base_offset, Part::Index, error))?;
        Ok((header != Err(Undecodable::Absent)).then_some((index, header)))
    }

    /// The bytes; of the two forms that a crash during compression leaves, the one that is whole.
    fn open_data(
        &mut self,
        base_offset: Offset,
        files: SegmentFiles,
        index: Option<&BatchIndex>,
    ) -> Result<SegmentData, LogError> {
        let plain = files.data.map(|_| self.open_file(base_offset, Part::Data)).transpose()?;
        let compressed =
            files.compressed.map(|_| self.open_file(base_offset, Part::CompressedData)).transpose()?;
        let Some(compressed) = compressed else {
            return Ok(plain.map_or(SegmentData::Missing, SegmentData::Plain));
        };
        let table =
            FrameTable::read(&*compressed).map_err(|e| self.io(base_offset, Part::CompressedData, e))?;
        let seal = index.and_then(|index| sealed_summary(index, base_offset).ok().flatten());
        match (table, plain) {
            (Some(table), Some(_)) if seal.is_some_and(|seal| seal.data_bytes == table.data_bytes()) => {
                self.remove(base_offset, Part::Data);
                Ok(SegmentData::Frames(compressed, Arc::new(table)))
            }
            (_, Some(plain)) => {
                self.remove(base_offset, Part::CompressedData);
                Ok(SegmentData::Plain(plain))
            }
            (Some(table), None) => Ok(SegmentData::Frames(compressed, Arc::new(table))),
            (None, None) => Ok(SegmentData::Missing),
        }
    }

    fn rebuild(
        &mut self,
        base_offset: Offset,
        data: &SegmentData,
        next_base: Option<Offset>,
    ) -> Result<BatchIndex, LogError> {
        let data_bytes = match data {
            SegmentData::Plain(file) => {
                file.length().map_err(|error| self.io(base_offset, Part::Data, error))?
            }
            SegmentData::Frames(_, table) => table.data_bytes(),
            SegmentData::Missing => 0,
        };
        let may_be_torn = next_base.is_none() && !data.is_compressed();
        let rebuilt =
            rebuild::rebuild(self.partition, base_offset, data, data_bytes, (may_be_torn, next_base))
                .map_err(|error| {
                    let source = match error {
                        DataError::Io(source) => source,
                        DataError::Missing => io::ErrorKind::UnexpectedEof.into(),
                        DataError::Corrupt => io::ErrorKind::InvalidData.into(),
                    };
                    self.io(base_offset, Part::Data, source)
                })?;
        let mut bytes = rebuilt.index;
        // What has a successor, or is compressed, was sealed.
        if !may_be_torn {
            bytes.extend_from_slice(&rebuilt.summary.seal(base_offset).encode());
        }
        // An index is synced before the first byte of a line is written: without any, its creation was broken off.
        let is_new = may_be_torn && data_bytes == 0;
        self.opened.rebuilt_indexes += usize::from(!is_new);
        self.opened.fixes.push(Fix::WriteIndex { base_offset, bytes: bytes.clone() });
        Ok(BatchIndex::Memory(bytes.into()))
    }

    /// The last segment, or one whose seal is lost.
    fn open_unsealed(
        &mut self,
        base_offset: Offset,
        index: BatchIndex,
        data: SegmentData,
        next_base: Option<Offset>,
    ) -> Result<Segment, LogError> {
        let data_bytes = match &data {
            SegmentData::Plain(file) => {
                file.length().map_err(|error| self.io(base_offset, Part::Data, error))?
            }
            SegmentData::Frames(_, table) => table.data_bytes(),
            SegmentData::Missing => 0,
        };
        let is_active = next_base.is_none() && matches!(data, SegmentData::Plain(_));
        // The marker is removed before anything is written: as long as it is there, all that it counts was flushed.
        let closed = self.marker.filter(|marker| is_active && marker.segment == base_offset);
        let marker = closed.filter(|marker| {
            let index_bytes = index.length().unwrap_or_default();
            marker.data_bytes == data_bytes && BatchIndex::bytes_of(marker.batch_count) == index_bytes
        });
        let known_end = match (next_base, marker) {
            (Some(offset), _) => Some(KnownEnd { offset, data_bytes }),
            (None, Some(marker)) => Some(KnownEnd { offset: marker.end_offset, data_bytes }),
            (None, None) => None,
        };
        let plain: Option<&dyn DiskFile> = match &data {
            SegmentData::Plain(file) => Some(&**file),
            SegmentData::Frames(..) | SegmentData::Missing => None,
        };
        let flushed_batches = closed.map_or(0, |marker| marker.batch_count);
        let recovered =
            recovery::recover(base_offset, &index, plain, known_end, flushed_batches).map_err(|error| {
                match error {
                    RecoveryError::Unknown => {
                        LogError::UnknownFormat { path: self.path(base_offset, Part::Index) }
                    }
                    RecoveryError::Io(source) => self.io(base_offset, Part::Index, source),
                }
            })?;
        let mut summary = recovered.summary;
        summary.sealed = !is_active;
        if is_active {
            if recovered.torn_data_bytes > 0 || recovered.torn_index_bytes > 0 {
                self.opened.fixes.push(Fix::Cut {
                    base_offset,
                    data_bytes: summary.data_bytes,
                    index_bytes: BatchIndex::bytes_of(summary.batch_count),
                });
            }
            self.opened.active = Some(ActiveTail {
                batch_by_id: recovered.batch_by_id,
                was_closed: marker.is_some(),
                torn_bytes: recovered.torn_data_bytes,
                // An index that was cut names fewer batches than there were.
                lost_records: closed
                    .map_or(0, |marker| marker.end_offset.since(summary.end_offset))
                    .max(recovered.lost_records),
                altered: recovered.altered,
                unsure_batch: recovered.unsure_batch,
                unsure_position: recovered.unsure_position,
            });
        }
        let segment = Segment::new(self.partition, base_offset, index, data, summary);
        for damage in &recovered.damage {
            segment.note_damage(damage);
        }
        Ok(segment)
    }

    fn check_file_header(&self, segment: &Segment, header: FileHeaderSlot) -> Result<(), LogError> {
        let base_offset = segment.base_offset;
        match header {
            Ok(header) if header.base_offset == base_offset && header.partition == self.partition => {}
            Err(Undecodable::Unknown) => {
                return Err(LogError::UnknownFormat { path: self.path(base_offset, Part::Index) });
            }
            // The batches carry all that is needed to go on.
            Ok(_) | Err(_) => segment.note_damage(&Damage {
                segment: base_offset,
                position: 0,
                first_offset: base_offset,
                end_offset: base_offset,
                kind: DamageKind::IndexFileHeader,
            }),
        }
        Ok(())
    }

    fn remove(&mut self, base_offset: Offset, part: Part) {
        self.opened.fixes.push(Fix::Remove(layout::file_name(base_offset, part)));
    }

    fn path(&self, base_offset: Offset, part: Part) -> std::path::PathBuf {
        self.dir.join(layout::file_name(base_offset, part))
    }

    fn open_file(&self, base_offset: Offset, part: Part) -> Result<Arc<dyn DiskFile>, LogError> {
        let path = self.path(base_offset, part);
        self.disk.open(&path, OpenMode::Read).map_err(|error| LogError::io("open", &path, error))
    }

    fn io(&self, base_offset: Offset, part: Part, error: io::Error) -> LogError {
        LogError::io("read", &self.path(base_offset, part), error)
    }
}

/// What the seal says, if the index ends with one of this segment.
fn sealed_summary(index: &BatchIndex, base_offset: Offset) -> io::Result<Option<Summary>> {
    let slots = recovery::slot_count(index.length()?);
    let Some(batch_count) = slots.checked_sub(1) else { return Ok(None) };
    let seal = index.seal_after(batch_count)?;
    Ok(seal.filter(|seal| seal.base_offset == base_offset).map(Summary::from))
}

/// Notes the batches that a sealed segment's file is too short for; one that is longer has all it should.
fn note_missing_bytes(segment: &Segment) {
    let summary = segment.summary();
    let stored_bytes = match &segment.data {
        SegmentData::Plain(file) => file.length().unwrap_or_default(),
        SegmentData::Frames(_, table) => table.data_bytes(),
        SegmentData::Missing => 0,
    };
    if stored_bytes >= summary.data_bytes {
        return;
    }
    let mut first_offset = segment.base_offset;
    // An index that cannot be read leaves the whole segment under suspicion.
    let scanned = segment.index.scan(summary.batch_count, |_, header| {
        if let Ok(header) = header
            && header.end_position() <= stored_bytes
        {
            first_offset = header.end_offset();
        }
    });
    segment.note_damage(&Damage {
        segment: segment.base_offset,
        position: stored_bytes,
        first_offset: if scanned.is_ok() { first_offset } else { segment.base_offset },
        end_offset: summary.end_offset,
        kind: DamageKind::MissingBytes,
    });
}
