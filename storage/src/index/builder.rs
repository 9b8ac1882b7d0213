//! Lines to blocks.
//!
//! Invariant: every record that is added is in exactly one block, in order; a block is closed when it is long enough,
//! and before records that do not follow those it has.

use std::collections::HashMap;

use model::Offset;

use super::block::{Block, Columns, Group, UNLISTED};
use super::fields::{FieldReader, Fields, Text};
use super::filter::{BlockFilter, FilterBuilder};
use super::names::Names;
use super::token;
use crate::log::StoredBatch;

/// Bytes of lines at which a block is closed, or a quarter less at the end of a batch. Smaller blocks tell more exactly where something is, larger ones share
/// more words; at a quarter of a MiB a part of a random id is told to be in one block of 300.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// Services with their levels that one block lists: what its columns can tell apart.
pub(crate) const GROUPS_MAX: usize = 256;

/// Builds the blocks of one segment.
#[derive(Debug)]
pub(super) struct BlockBuilder {
    block_bytes: usize,
    base_offset: Offset,
    position: u64,
    length: u64,
    columns: Columns,
    groups: Vec<Group>,
    group_finder: GroupFinder,
    filter: FilterBuilder,
    reader: FieldReader,
}

/// A block and its filter.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) block: Block,
    pub(super) filter: BlockFilter,
}

/// A line that is no record: nothing can be said of a block that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotARecord;

impl BlockBuilder {
    /// A builder at its first block, of blocks of so many bytes.
    pub(super) fn new(block_bytes: usize) -> Self {
        Self {
            block_bytes,
            base_offset: Offset::ZERO,
            position: 0,
            length: 0,
            columns: Columns::default(),
            groups: vec![Group::default()],
            group_finder: GroupFinder::default(),
            filter: FilterBuilder::new(block_bytes),
            reader: FieldReader::default(),
        }
    }

    /// Adds the records of a batch from `from` on; blocks that became full are appended to `built`.
    pub(super) fn add(
        &mut self,
        batch: &StoredBatch,
        from: Offset,
        names: &mut Names,
        built: &mut Vec<Built>,
    ) -> Result<(), NotARecord> {
        let (mut at, mut offset) = (0, batch.base_offset);
        let bytes = &batch.bytes[..];
        let mut reader = std::mem::take(&mut self.reader);
        let mut added = Ok(());
        while let Some((fields, end)) = reader.read(bytes, at) {
            if offset >= from {
                let Some(fields) = fields else {
                    added = Err(NotARecord);
                    break;
                };
                self.begin_at(offset, batch.position + at as u64, built);
                self.add_line(bytes, at, &fields, end, names);
                if self.length >= (self.block_bytes + self.block_bytes / 4) as u64 {
                    built.extend(self.finish());
                }
            }
            at = end + 1;
            offset = offset.plus(1);
        }
        self.reader = reader;
        // Better a little early than in the midst of the next batch, which is read as a whole.
        if self.length >= (self.block_bytes - self.block_bytes / 4) as u64 {
            built.extend(self.finish());
        }
        added
    }

    /// The block of what was added since the last, if anything was; the next begins after it.
    pub(super) fn finish(&mut self) -> Option<Built> {
        let built = self.block_so_far()?;
        self.columns.clear();
        self.groups.clear();
        self.groups.push(Group::default());
        self.group_finder.clear();
        self.filter.clear();
        self.length = 0;
        Some(built)
    }

    /// What [`Self::finish`] would return now; it can still grow.
    pub(super) fn block_so_far(&mut self) -> Option<Built> {
        let records = self.columns.timestamps_ms.len() as u64;
        let timestamps_ms = &self.columns.timestamps_ms;
        let (min, max) = (timestamps_ms.iter().min().copied()?, timestamps_ms.iter().max().copied()?);
        let is_in_time_order = timestamps_ms.is_sorted();
        self.columns.positions.push(self.length);
        let columns = self.columns.encode(min);
        self.columns.positions.pop();
        let block = Block {
            base_offset: self.base_offset,
            end_offset: self.base_offset.plus(records),
            position: self.position,
            length: self.length,
            timestamp_min_ms: min,
            timestamp_max_ms: max,
            is_in_time_order,
            groups: self.groups.as_slice().into(),
            columns,
        };
        Some(Built { block, filter: self.filter.filter(self.length as usize) })
    }

    /// Closes the block if what comes next does not follow what it has.
    fn begin_at(&mut self, offset: Offset, position: u64, built: &mut Vec<Built>) {
        let end = self.base_offset.plus(self.columns.timestamps_ms.len() as u64);
        if end != offset || self.position + self.length != position {
            built.extend(self.finish());
        }
        if self.columns.timestamps_ms.is_empty() {
            self.base_offset = offset;
            self.position = position;
        }
    }

    fn add_line(&mut self, bytes: &[u8], start: usize, fields: &Fields<'_>, end: usize, names: &mut Names) {
        let group = self.group_of(fields, names);
        self.columns.timestamps_ms.push(fields.timestamp_ms);
        self.columns.groups.push(group as u64);
        self.columns.positions.push(self.length);
        // The newline is part of the line.
        self.length += (end + 1 - start) as u64;
        if let Some(group) = self.groups.get_mut(group) {
            group.add(fields.timestamp_ms);
        }
        self.add_message(bytes, fields.message);
        for (name, value) in fields.labels() {
            self.filter.add_key(token::label_key(&name.decode(), &value.decode()));
        }
    }

    fn add_message(&mut self, bytes: &[u8], message: Text<'_>) {
        if !message.is_escaped && message.raw.is_ascii() {
            // A message is a part of its batch's bytes: what follows it makes the loads of its end cheap.
            match place_in(bytes, message.raw) {
                Some((start, end)) => self.filter.add_words(bytes, start, end),
                None => self.filter.add_words(message.raw, 0, message.raw.len()),
            }
            return;
        }
        let decoded = message.decode();
        if decoded.is_ascii() {
            return self.filter.add_words(&decoded, 0, decoded.len());
        }
        let folded = token::fold(&String::from_utf8_lossy(&decoded)).into_owned();
        self.filter.add_words(folded.as_bytes(), 0, folded.len());
    }

    fn group_of(&mut self, fields: &Fields<'_>, names: &mut Names) -> usize {
        if let Some(group) = self.group_finder.find(fields) {
            return group;
        }
        let service = fields.service.decode();
        self.filter.add_key(token::service_key(&service));
        let level = fields.level.map(Text::decode).unwrap_or_default();
        let (service, level) = (String::from_utf8_lossy(&service), String::from_utf8_lossy(&level));
        let has_room = self.groups.len() < GROUPS_MAX || names.has(&service, &level);
        let ids = if has_room { names.list(&service, &level) } else { None };
        let Some((service, level)) = ids else { return UNLISTED };
        let known =
            self.groups.iter().skip(1).position(|group| (group.service, group.level) == (service, level));
        let group = match known {
            // The same names, written with other escapes.
            Some(place) => place + 1,
            None if self.groups.len() < GROUPS_MAX => {
                self.groups.push(Group { service, level, ..Group::default() });
                self.groups.len() - 1
            }
            None => return UNLISTED,
        };
        self.group_finder.insert(fields, group);
        group
    }
}

impl Group {
    /// Adds a record.
    pub(crate) fn add(&mut self, timestamp_ms: u64) {
        if self.records == 0 {
            (self.timestamp_min_ms, self.timestamp_max_ms) = (timestamp_ms, timestamp_ms);
        }
        self.records += 1;
        self.timestamp_min_ms = self.timestamp_min_ms.min(timestamp_ms);
        self.timestamp_max_ms = self.timestamp_max_ms.max(timestamp_ms);
    }
}

/// Where `part` lies in `whole`, if that is where it was taken from.
fn place_in(whole: &[u8], part: &[u8]) -> Option<(usize, usize)> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some((start, end))
}

/// Finds the group of a line by how its service and level are written.
#[derive(Debug, Default)]
struct GroupFinder {
    by_text: HashMap<Box<[u8]>, usize>,
    /// The groups that were found last, and how they are written.
    recent: Vec<KnownGroup>,
    key: Vec<u8>,
}

/// A group, and how its service and level are written.
#[derive(Debug)]
struct KnownGroup {
    service: Box<[u8]>,
    level: Option<Box<[u8]>>,
    group: usize,
}

/// Groups that are looked for one after another before the map is asked.
const RECENT_GROUPS: usize = 8;

impl GroupFinder {
    fn find(&mut self, fields: &Fields<'_>) -> Option<usize> {
        let level = fields.level.map(|level| level.raw);
        let is_it =
            |known: &&KnownGroup| *known.service == *fields.service.raw && known.level.as_deref() == level;
        if let Some(known) = self.recent.iter().find(is_it) {
            return Some(known.group);
        }
        if self.by_text.len() < RECENT_GROUPS {
            return None;
        }
        self.write_key(fields);
        self.by_text.get(&*self.key).copied()
    }

    fn insert(&mut self, fields: &Fields<'_>, group: usize) {
        // Other escapes of the same names would fill the map without end.
        if self.by_text.len() >= 4 * GROUPS_MAX {
            return;
        }
        self.write_key(fields);
        self.by_text.insert(self.key.as_slice().into(), group);
        if self.recent.len() < RECENT_GROUPS {
            let level = fields.level.map(|level| level.raw.into());
            self.recent.push(KnownGroup { service: fields.service.raw.into(), level, group });
        }
    }

    fn clear(&mut self) {
        self.by_text.clear();
        self.recent.clear();
    }

    /// No name holds a bare quote: the two cannot run into one another.
    fn write_key(&mut self, fields: &Fields<'_>) {
        self.key.clear();
        self.key.extend_from_slice(fields.service.raw);
        if let Some(level) = fields.level {
            self.key.push(b'"');
            self.key.extend_from_slice(level.raw);
        }
    }
}
