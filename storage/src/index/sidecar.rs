//! The two files of a sealed segment's index: `.columns` with the blocks, their groups and columns, and `.filter` with
//! their filters. `docs/data-format.md` has every byte.
//!
//! Invariant: what is decoded was encoded for this very segment, and nothing of it was changed since. Anything else
//! is no index, and no error: it is made again.

use std::sync::Arc;

use bytes::Bytes;
use model::Offset;

use super::block::{Block, Group, SegmentIndex};
use super::builder::GROUPS_MAX;
use super::filter::BlockFilter;
use super::names::Names;
use super::varint;
use crate::log::SegmentExtent;

/// Bytes of either file's header.
pub(super) const HEADER_BYTES: usize = 128;

/// The first had no words' beginnings among its keys: such files are made again.
const VERSION: u16 = 2;
const COLUMNS_MAGIC: &[u8; 8] = b"edgelogK";
const FILTER_MAGIC: &[u8; 8] = b"edgelogF";

/// Blocks of one segment: far more than the largest has.
const BLOCKS_MAX: u64 = 1 << 24;

const IN_TIME_ORDER: u64 = 1;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    base_offset: u64,
    end_offset: u64,
    data_bytes: u64,
    batch_count: u32,
    block_count: u32,
    body_bytes: u64,
    body_crc: u32,
    /// In a filter's file the checksum of the columns' body that it belongs to.
    columns_crc: u32,
}

/// A segment's `.columns`, decoded: all but the filters.
#[derive(Clone, Debug)]
pub(super) struct StoredColumns {
    pub(super) index: SegmentIndex,
    body_crc: u32,
}

/// The two files of a segment.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) columns: Vec<u8>,
    pub(super) filter: Vec<u8>,
}

/// Encodes the index of `segment`, filters and all.
pub(super) fn encode(segment: &SegmentExtent, index: &SegmentIndex) -> Encoded {
    let mut body = Vec::new();
    index.names.write(&mut body);
    for block in index.blocks.iter() {
        write_block(&mut body, block);
    }
    for block in index.blocks.iter() {
        body.extend_from_slice(&block.columns);
    }
    let columns_crc = crc32fast::hash(&body);
    let columns = whole_file(COLUMNS_MAGIC, segment, index.blocks.len(), columns_crc, &body);
    body.clear();
    let filters = || index.filters.iter().flat_map(|filters| filters.iter()).map(BlockFilter::bytes);
    for filter in filters() {
        varint::write(&mut body, filter.len() as u64);
    }
    for filter in filters() {
        body.extend_from_slice(filter);
    }
    let filter = whole_file(FILTER_MAGIC, segment, index.blocks.len(), columns_crc, &body);
    Encoded { columns, filter }
}

/// Whether a file that begins with these bytes, of either kind, was written for `segment`. Its body is not looked at.
pub(super) fn is_of(head: &[u8], segment: &SegmentExtent) -> bool {
    [COLUMNS_MAGIC, FILTER_MAGIC].into_iter().any(|magic| Header::decode(head, magic, segment).is_some())
}

/// Decodes a `.columns` file of `segment`.
pub(super) fn decode_columns(file: &Bytes, segment: &SegmentExtent) -> Option<StoredColumns> {
    let (header, body) = Header::split(file, COLUMNS_MAGIC, segment)?;
    let mut rest = &body[..];
    let names = Arc::new(Names::read(&mut rest)?);
    let mut blocks = Vec::new();
    let (mut offset, mut position) = (segment.base_offset, 0);
    for _ in 0..header.block_count {
        let (block, columns_length) = read_block(&mut rest, offset, position)?;
        (offset, position) = (block.end_offset, block.position + block.length);
        blocks.push((block, columns_length));
    }
    if offset > segment.end_offset || position > segment.data_bytes {
        return None;
    }
    let mut at = body.len() - rest.len();
    let mut whole = Vec::with_capacity(blocks.len());
    for (mut block, length) in blocks {
        let end = at.checked_add(length).filter(|end| *end <= body.len())?;
        block.columns = body.slice(at..end);
        at = end;
        whole.push(Arc::new(block));
    }
    (at == body.len()).then_some(StoredColumns {
        index: SegmentIndex { names, blocks: whole.into(), filters: None },
        body_crc: header.body_crc,
    })
}

/// Adds the filters of a `.filter` file to the index that it was written with.
pub(super) fn decode_filter(
    file: &Bytes,
    segment: &SegmentExtent,
    columns: &StoredColumns,
) -> Option<SegmentIndex> {
    let (header, body) = Header::split(file, FILTER_MAGIC, segment)?;
    if header.columns_crc != columns.body_crc || header.block_count as usize != columns.index.blocks.len() {
        return None;
    }
    let mut rest = &body[..];
    let lengths: Vec<usize> = columns
        .index
        .blocks
        .iter()
        .map(|_| varint::read(&mut rest).and_then(|length| usize::try_from(length).ok()))
        .collect::<Option<_>>()?;
    let mut at = body.len() - rest.len();
    let mut filters = Vec::with_capacity(lengths.len());
    for length in lengths {
        let end = at.checked_add(length).filter(|end| *end <= body.len())?;
        filters.push(BlockFilter::from_bytes(body.slice(at..end))?);
        at = end;
    }
    (at == body.len()).then(|| SegmentIndex { filters: Some(filters.into()), ..columns.index.clone() })
}

fn whole_file(
    magic: &[u8; 8],
    segment: &SegmentExtent,
    blocks: usize,
    columns_crc: u32,
    body: &[u8],
) -> Vec<u8> {
    let header = Header {
        base_offset: segment.base_offset.get(),
        end_offset: segment.end_offset.get(),
        data_bytes: segment.data_bytes,
        batch_count: segment.batch_count,
        block_count: blocks as u32,
        body_bytes: body.len() as u64,
        body_crc: crc32fast::hash(body),
        columns_crc,
    };
    let mut file = Vec::with_capacity(HEADER_BYTES + body.len());
    file.extend_from_slice(&header.encode(magic));
    file.extend_from_slice(body);
    file
}

impl Header {
    fn encode(&self, magic: &[u8; 8]) -> [u8; HEADER_BYTES] {
        let mut fields = Vec::with_capacity(HEADER_BYTES);
        fields.extend_from_slice(magic);
        fields.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.base_offset, self.end_offset, self.data_bytes, self.body_bytes] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.batch_count, self.block_count, self.body_crc, self.columns_crc] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        fields.resize(HEADER_BYTES - 4, 0);
        let mut header = [0; HEADER_BYTES];
        let crc = crc32fast::hash(&fields).to_le_bytes();
        header.iter_mut().zip(crc.iter().chain(&fields)).for_each(|(to, from)| *to = *from);
        header
    }

    /// The header, if it is sound, of this version and kind, and of this segment.
    fn decode(bytes: &[u8], magic: &[u8; 8], segment: &SegmentExtent) -> Option<Self> {
        let (crc, mut rest) = bytes.get(..HEADER_BYTES)?.split_first_chunk()?;
        if u32::from_le_bytes(*crc) != crc32fast::hash(rest) {
            return None;
        }
        rest = rest.strip_prefix(magic)?.strip_prefix(&VERSION.to_le_bytes())?;
        let mut long = || {
            let (number, behind) = rest.split_first_chunk()?;
            rest = behind;
            Some(u64::from_le_bytes(*number))
        };
        let (base_offset, end_offset, data_bytes, body_bytes) = (long()?, long()?, long()?, long()?);
        let (counts, crcs) = (long()?, long()?);
        let (batch_count, block_count) = (counts as u32, (counts >> 32) as u32);
        let (body_crc, columns_crc) = (crcs as u32, (crcs >> 32) as u32);
        let header = Self {
            base_offset,
            end_offset,
            data_bytes,
            batch_count,
            block_count,
            body_bytes,
            body_crc,
            columns_crc,
        };
        let is_of_segment = base_offset == segment.base_offset.get()
            && end_offset == segment.end_offset.get()
            && data_bytes == segment.data_bytes
            && batch_count == segment.batch_count
            && u64::from(block_count) <= BLOCKS_MAX;
        is_of_segment.then_some(header)
    }

    /// The header and the body of a whole file.
    fn split(file: &Bytes, magic: &[u8; 8], segment: &SegmentExtent) -> Option<(Self, Bytes)> {
        let header = Self::decode(file, magic, segment)?;
        let body = file.slice(HEADER_BYTES..);
        let is_whole = body.len() as u64 == header.body_bytes && crc32fast::hash(&body) == header.body_crc;
        is_whole.then_some((header, body))
    }
}

fn write_block(out: &mut Vec<u8>, block: &Block) {
    // Blocks lie one behind another, but for damage between: then both numbers say how much is passed over.
    let number = |out: &mut Vec<u8>, number: u64| varint::write(out, number);
    number(out, block.base_offset.get());
    number(out, block.records());
    number(out, block.position);
    number(out, block.length);
    number(out, block.timestamp_min_ms);
    number(out, block.timestamp_max_ms - block.timestamp_min_ms);
    number(out, if block.is_in_time_order { IN_TIME_ORDER } else { 0 });
    number(out, block.columns.len() as u64);
    number(out, block.groups.len() as u64);
    for group in &block.groups {
        number(out, group.records.into());
        if group.records > 0 {
            number(out, group.service.into());
            number(out, group.level.into());
            number(out, group.timestamp_min_ms - block.timestamp_min_ms);
            number(out, group.timestamp_max_ms - group.timestamp_min_ms);
        }
    }
}

/// The next block and the length of its columns. It has to begin at or behind `offset` and `position`.
fn read_block(bytes: &mut &[u8], offset: Offset, position: u64) -> Option<(Block, usize)> {
    let base_offset = Offset::new(varint::read(bytes)?);
    let end_offset = base_offset.plus(varint::read(bytes)?);
    let begins_at = varint::read(bytes)?;
    let length = varint::read(bytes)?;
    let timestamp_min_ms = varint::read(bytes)?;
    let timestamp_max_ms = timestamp_min_ms.checked_add(varint::read(bytes)?)?;
    let flags = varint::read(bytes)?;
    let columns_length = usize::try_from(varint::read(bytes)?).ok()?;
    let group_count = varint::read(bytes)?;
    if base_offset < offset
        || begins_at < position
        || begins_at.checked_add(length).is_none()
        || flags > IN_TIME_ORDER
        || group_count > GROUPS_MAX as u64
    {
        return None;
    }
    let mut groups = Vec::new();
    for _ in 0..group_count {
        let mut group = Group { records: u32::try_from(varint::read(bytes)?).ok()?, ..Group::default() };
        if group.records > 0 {
            group.service = u32::try_from(varint::read(bytes)?).ok()?;
            group.level = u32::try_from(varint::read(bytes)?).ok()?;
            group.timestamp_min_ms = timestamp_min_ms.checked_add(varint::read(bytes)?)?;
            group.timestamp_max_ms = group.timestamp_min_ms.checked_add(varint::read(bytes)?)?;
        }
        groups.push(group);
    }
    let block = Block {
        base_offset,
        end_offset,
        position: begins_at,
        length,
        timestamp_min_ms,
        timestamp_max_ms,
        is_in_time_order: flags & IN_TIME_ORDER != 0,
        groups: groups.into(),
        columns: Bytes::new(),
    };
    Some((block, columns_length))
}
