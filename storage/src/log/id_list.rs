//! The sorted batch ids of a sealed segment: was this id stored here?
//!
//! A Bloom filter answers nearly every "no", from memory or by reading one block; a "yes" costs a few reads of one page.
//! The file is derived from the batch index: whatever is wrong with it, it is made again.
//!
//! Invariant: an answer is checked against the batch's own header. Memory is bounded by the filters' budget.

use std::io;
use std::path::Path;
use std::sync::Arc;

use model::BatchId;

use super::disk::{self, Disk, DiskFile, OpenMode};
use super::error::LogError;
use super::format::{ENTRY_BYTES as HEADER_BYTES, IdListHeader};
use super::layout::{self, Part};
use super::segment::Segment;

const PAGE_BYTES: usize = 4096;
const PAGE_HEADER_BYTES: usize = 6;
const ID_BYTES: usize = 16;
const ENTRY_BYTES: usize = ID_BYTES + 4;
const ENTRIES_PER_PAGE: usize = (PAGE_BYTES - PAGE_HEADER_BYTES) / ENTRY_BYTES;
/// 12 bits an id in blocks of one cache line: one "no" in some 200 is a needless search.
const FILTER_BITS_PER_ID: usize = 12;
const FILTER_BLOCK_WORDS: usize = 8;
const FILTER_BLOCK_BYTES: usize = FILTER_BLOCK_WORDS * 8;
const FILTER_PROBES: u32 = 6;

/// A segment's id list, once it was asked for.
#[derive(Clone, Debug, Default)]
pub(super) enum IdListSlot {
    #[default]
    NotAsked,
    Open(Arc<IdList>),
}

/// An open id list.
#[derive(Debug)]
pub(super) struct IdList {
    file: Arc<dyn DiskFile>,
    page_count: u32,
    pages_position: u64,
    filter: Filter,
}

/// The Bloom filter of an id list: which ids it has, and a few others.
#[derive(Debug)]
enum Filter {
    Memory(Vec<Block>),
    /// The partition's filters have no room for it: it is read block by block.
    File {
        blocks: usize,
    },
}

/// One cache line of a filter: all bits of an id are in one.
type Block = [u64; FILTER_BLOCK_WORDS];

impl IdListSlot {
    /// Bytes of memory that the list's filter takes.
    pub(super) fn filter_bytes(&self) -> usize {
        match self {
            Self::Open(list) => match &list.filter {
                Filter::Memory(blocks) => blocks.len() * FILTER_BLOCK_BYTES,
                Filter::File { .. } => 0,
            },
            Self::NotAsked => 0,
        }
    }
}

/// The place of `id`'s batch in a sealed segment, if it is there. `filter_room` tells how many bytes
/// its filter may take, when it has to be loaded.
pub(super) fn find(
    disk: &dyn Disk,
    dir: &Path,
    segment: &Segment,
    id: BatchId,
    filter_room: impl Fn() -> usize,
) -> Result<Option<u32>, LogError> {
    let mut slot = segment.ids.lock();
    if let IdListSlot::Open(list) = &*slot
        && let Ok(found) = list.find(id)
    {
        return Ok(found);
    }
    let path = dir.join(layout::file_name(segment.base_offset, Part::Ids));
    if matches!(*slot, IdListSlot::NotAsked)
        && let Ok(list) = IdList::open(disk, &path, segment, filter_room())
        && let Ok(found) = list.find(id)
    {
        *slot = IdListSlot::Open(Arc::new(list));
        return Ok(found);
    }
    let ids = ids_of(segment)?;
    let found = ids.iter().find(|(candidate, _)| *candidate == id).map(|(_, batch)| *batch);
    *slot = write(disk, dir, segment, ids, filter_room());
    Ok(found)
}

/// Writes a sealed segment's id list, and opens it. Not synced: a list that a crash spoils is made again. Without room
/// for it there is no list, and every question is a scan of the index.
pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    segment: &Segment,
    ids: Vec<(BatchId, u32)>,
    filter_room: usize,
) -> IdListSlot {
    let path = dir.join(layout::file_name(segment.base_offset, Part::Ids));
    let bytes = encode(segment, ids);
    let written = disk.open(&path, OpenMode::Create).and_then(|file| {
        disk::write_all(&*file, &mut [io::IoSlice::new(&bytes)], 0)?;
        IdList::open(disk, &path, segment, filter_room)
    });
    match written {
        Ok(list) => IdListSlot::Open(Arc::new(list)),
        Err(_) => {
            // A part of a list has a wrong checksum, and is passed over if it cannot be removed.
            disk.remove(&path).ok();
            IdListSlot::NotAsked
        }
    }
}

/// Whether a segment's id list matches its checksums; one that is not there does.
pub(super) fn is_sound(disk: &dyn Disk, dir: &Path, segment: &Segment) -> bool {
    let path = dir.join(layout::file_name(segment.base_offset, Part::Ids));
    match IdList::open(disk, &path, segment, usize::MAX) {
        Ok(list) => (0..list.page_count).all(|page| list.page(page).is_ok()),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn ids_of(segment: &Segment) -> Result<Vec<(BatchId, u32)>, LogError> {
    let mut ids = Vec::new();
    segment.scan_headers(|batch, header| {
        if let Ok(header) = header
            && let Some(id) = header.id
        {
            ids.push((id, batch));
        }
    })?;
    Ok(ids)
}

impl IdList {
    fn open(disk: &dyn Disk, path: &Path, segment: &Segment, filter_room: usize) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::Read)?;
        let mut header = [0; HEADER_BYTES];
        disk::read_full(&*file, &mut header, 0)?;
        let header = IdListHeader::decode(&header).map_err(|_| io::ErrorKind::InvalidData)?;
        if header.base_offset != segment.base_offset || header.batch_count != segment.summary().batch_count {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let filter_bytes = header.filter_blocks as usize * FILTER_BLOCK_BYTES;
        // Checked even if it is not kept: its blocks have no checksums of their own.
        let mut bytes = vec![0; filter_bytes];
        disk::read_full(&*file, &mut bytes, HEADER_BYTES as u64)?;
        if crc32fast::hash(&bytes) != header.filter_crc {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let filter = if filter_bytes <= filter_room {
            Filter::Memory(bytes.as_chunks().0.iter().map(decode_block).collect())
        } else {
            Filter::File { blocks: header.filter_blocks as usize }
        };
        let pages_position = (HEADER_BYTES + filter_bytes) as u64;
        Ok(Self { file, page_count: header.page_count, pages_position, filter })
    }

    fn find(&self, id: BatchId) -> io::Result<Option<u32>> {
        if !self.may_have(id)? {
            return Ok(None);
        }
        let (mut low, mut high) = (0, self.page_count);
        while low < high {
            let middle = low + (high - low) / 2;
            let page = self.page(middle)?;
            match (page.first(), page.last()) {
                (Some((first, _)), _) if id < *first => high = middle,
                (_, Some((last, _))) if id > *last => low = middle + 1,
                _ => {
                    let place = page.binary_search_by(|(candidate, _)| candidate.cmp(&id)).ok();
                    return Ok(place.and_then(|place| page.get(place)).map(|(_, batch)| *batch));
                }
            }
        }
        Ok(None)
    }

    /// What the filter says.
    fn may_have(&self, id: BatchId) -> io::Result<bool> {
        match &self.filter {
            Filter::Memory(blocks) => Ok(filter_has(blocks, id)),
            Filter::File { blocks } => {
                let (number, mask) = filter_place(*blocks, id);
                let mut bytes = [0; FILTER_BLOCK_BYTES];
                let position = HEADER_BYTES + number * FILTER_BLOCK_BYTES;
                disk::read_full(&*self.file, &mut bytes, position as u64)?;
                Ok(has_all(&decode_block(&bytes), &mask))
            }
        }
    }

    fn page(&self, number: u32) -> io::Result<Vec<(BatchId, u32)>> {
        let mut bytes = [0; PAGE_BYTES];
        disk::read_full(
            &*self.file,
            &mut bytes,
            self.pages_position + u64::from(number) * PAGE_BYTES as u64,
        )?;
        let (crc, covered) = bytes.split_at(4);
        if crc != crc32fast::hash(covered).to_le_bytes() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let [c0, c1, entries @ ..] = covered else { return Err(io::ErrorKind::InvalidData.into()) };
        let count = usize::from(u16::from_le_bytes([*c0, *c1]));
        Ok(entries.as_chunks::<ENTRY_BYTES>().0.iter().take(count).map(decode_entry).collect())
    }
}

fn encode(segment: &Segment, mut ids: Vec<(BatchId, u32)>) -> Vec<u8> {
    ids.sort_unstable();
    let filter = make_filter(&ids);
    let filter_bytes: Vec<u8> = filter.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    let header = IdListHeader {
        base_offset: segment.base_offset,
        batch_count: segment.summary().batch_count,
        page_count: ids.len().div_ceil(ENTRIES_PER_PAGE) as u32,
        filter_blocks: filter.len() as u32,
        filter_crc: crc32fast::hash(&filter_bytes),
    };
    let mut out = header.encode();
    out.extend_from_slice(&filter_bytes);
    for entries in ids.chunks(ENTRIES_PER_PAGE) {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        page.extend_from_slice(&(entries.len() as u16).to_le_bytes());
        for (id, batch) in entries {
            page.extend_from_slice(&id.to_bytes());
            page.extend_from_slice(&batch.to_le_bytes());
        }
        page.resize(PAGE_BYTES - 4, 0);
        out.extend_from_slice(&crc32fast::hash(&page).to_le_bytes());
        out.extend_from_slice(&page);
    }
    out
}

fn decode_entry(entry: &[u8; ENTRY_BYTES]) -> (BatchId, u32) {
    let id = entry.first_chunk::<ID_BYTES>().copied().unwrap_or_default();
    let batch = entry.last_chunk::<4>().copied().unwrap_or_default();
    (BatchId::from_bytes(id), u32::from_le_bytes(batch))
}

fn decode_block(bytes: &[u8; FILTER_BLOCK_BYTES]) -> Block {
    let mut block = Block::default();
    for (word, bytes) in block.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    block
}

fn make_filter(ids: &[(BatchId, u32)]) -> Vec<Block> {
    let blocks = (ids.len() * FILTER_BITS_PER_ID).div_ceil(FILTER_BLOCK_BYTES * 8).max(1);
    let mut filter = vec![Block::default(); blocks];
    for (id, _) in ids {
        let (number, mask) = filter_place(blocks, *id);
        if let Some(block) = filter.get_mut(number) {
            block.iter_mut().zip(mask).for_each(|(word, mask)| *word |= mask);
        }
    }
    filter
}

fn filter_has(filter: &[Block], id: BatchId) -> bool {
    let (number, mask) = filter_place(filter.len(), id);
    filter.get(number).is_none_or(|block| has_all(block, &mask))
}

fn has_all(block: &Block, mask: &Block) -> bool {
    block.iter().zip(mask).all(|(word, mask)| word & mask == *mask)
}

/// The block of an id, and its bits there.
fn filter_place(blocks: usize, id: BatchId) -> (usize, Block) {
    let number = u128::from_le_bytes(id.to_bytes());
    // Ids are random in most of their bits, but not in all: both halves count, and the product spreads them.
    let mixed = (number as u64 ^ ((number >> 64) as u64).rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let block = ((u128::from(mixed) * blocks as u128) >> 64) as usize;
    let bits = mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 8;
    let mut mask = Block::default();
    for probe in 0..FILTER_PROBES {
        let bit = (bits >> (probe * 9)) as usize & (FILTER_BLOCK_BYTES * 8 - 1);
        if let Some(word) = mask.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }
    (block, mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> BatchId {
        BatchId::derive(&model::Tenant::default(), &number.to_string(), model::Partition::new(0))
    }

    #[test]
    fn the_filter_knows_every_id_and_few_others() {
        let ids: Vec<(BatchId, u32)> = (0..10_000).map(|number| (id(number), 0)).collect();
        let filter = make_filter(&ids);
        assert!(ids.iter().all(|(id, _)| filter_has(&filter, *id)));
        let wrong = (10_000..30_000).filter(|number| filter_has(&filter, id(*number))).count();
        assert!(wrong < 400, "{wrong} of 20,000 strangers passed");
    }
}
