//! The bytes of the batch index, the id list's header and the clean-close marker, little-endian. `docs/data-format.md` has them in full.
//!
//! Invariant: what is decoded had a matching checksum. Pure: bytes in, values out. A change of these bytes is a new
//! [`FORMAT_VERSION`]; the fixtures hold the old ones readable.

use model::{BatchDigest, BatchId, Offset, Partition};

use super::codec::{Reader, Writer};
use super::consumer::{ConsumerCommit, ConsumerKey};

/// The version that is written, in every file's header.
pub(super) const FORMAT_VERSION: u16 = 1;

/// Bytes of the index file's header and of each of its entries. A divisor of a disk's sector: no entry is torn.
pub(super) const ENTRY_BYTES: usize = 128;

/// [`ENTRY_BYTES`], for positions.
pub(super) const ENTRY_BYTES_U64: u64 = ENTRY_BYTES as u64;

const INDEX_MAGIC: &[u8; 8] = b"edgelogB";
const IDS_MAGIC: &[u8; 8] = b"edgelogI";
const CLOSED_MAGIC: &[u8; 8] = b"edgelogC";
const GROUP_MAGIC: &[u8; 8] = b"edgelogR";
const KIND_SEAL: u8 = 3;
const KIND_CONSUMER: u8 = 4;
const FLAG_NO_ID: u8 = 1;
const FLAG_UNREADABLE: u8 = 2;
const FLAG_CONTINUES: u8 = 4;
const FLAGS: u8 = FLAG_NO_ID | FLAG_UNREADABLE | FLAG_CONTINUES;
/// The consumer is forgotten.
const FLAG_FORGOTTEN: u8 = 8;

/// The header of an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexFileHeader {
    pub(super) partition: Partition,
    pub(super) base_offset: Offset,
}

/// What an entry of an index file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Batch(BatchHeader),
    Seal(Seal),
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undecodable {
    /// All zeros, or cut short: never written.
    Absent,
    /// The checksum does not match.
    Checksum,
    /// The checksum matches, but this version does not know what it is.
    Unknown,
}

/// What a batch is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchKind {
    /// Records.
    Records,
    /// An entry without bytes that a new leader writes.
    Blank,
    /// A change of the replicas, without bytes.
    Membership,
    /// How far a consumer has read, without bytes.
    Consumer(ConsumerCommit),
}

/// One batch's entry in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// What it is.
    pub(super) kind: BatchKind,
    /// The batch's id; `None` when the batch was made from bare lines.
    pub(super) id: Option<BatchId>,
    /// Whether the lines are no records, as found when the index was rebuilt.
    pub(super) unreadable: bool,
    /// Whether the next batch belongs to the same entry of the replicated log.
    pub(super) continues: bool,
    /// The offset of its first record.
    pub(super) base_offset: Offset,
    /// Its records.
    pub(super) record_count: u32,
    /// Where its bytes begin in the segment, before compression.
    pub(super) position: u64,
    /// Its bytes, before compression.
    pub(super) length: u32,
    /// CRC-32 of its bytes.
    pub(super) crc: u32,
    /// The earliest record's timestamp, Unix milliseconds.
    pub(super) timestamp_min_ms: u64,
    /// The latest record's timestamp, Unix milliseconds.
    pub(super) timestamp_max_ms: u64,
    /// The digest of what the client sent.
    pub(super) digest: BatchDigest,
    /// The leader's term; 0 without replication.
    pub(super) term: u64,
    /// The place in the replicated log; 0 without replication.
    pub(super) log_index: u64,
    /// A hash of the tenant's name; 0 for the default tenant.
    pub(super) tenant_hash: u64,
    /// When it was appended, Unix milliseconds.
    pub(super) appended_at_ms: u64,
    /// Batches of this segment that were flushed before this one was written: below it nothing can be torn.
    pub(super) flushed_batches: u32,
}

/// The last entry of a sealed segment's index: what one has to know of the segment without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) base_offset: Offset,
    pub(super) end_offset: Offset,
    pub(super) data_bytes: u64,
    pub(super) batch_count: u32,
    pub(super) timestamp_min_ms: u64,
    pub(super) timestamp_max_ms: u64,
    pub(super) appended_first_ms: u64,
    pub(super) appended_last_ms: u64,
    pub(super) last_term: u64,
    pub(super) last_log_index: u64,
}

/// The header of a sealed segment's id list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdListHeader {
    pub(super) base_offset: Offset,
    pub(super) batch_count: u32,
    pub(super) page_count: u32,
    pub(super) filter_blocks: u32,
    pub(super) filter_crc: u32,
}

/// The marker that a clean shutdown leaves: the active segment was flushed, and ended exactly here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClosedMarker {
    pub(super) segment: Offset,
    pub(super) end_offset: Offset,
    pub(super) data_bytes: u64,
    pub(super) batch_count: u32,
}

/// The header of the file that holds a replica's vote and members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupFileHeader {
    pub(super) body_crc: u32,
}

impl BatchHeader {
    /// The offset after its last record.
    pub(super) fn end_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.record_count))
    }

    /// Where the next batch's bytes begin.
    pub(super) fn end_position(&self) -> u64 {
        self.position.saturating_add(u64::from(self.length))
    }

    /// Appends the header's bytes to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        if self.id.is_none() {
            flags |= FLAG_NO_ID;
        }
        if self.unreadable {
            flags |= FLAG_UNREADABLE;
        }
        if self.continues {
            flags |= FLAG_CONTINUES;
        }
        let kind = match self.kind {
            BatchKind::Records => 0,
            BatchKind::Blank => 1,
            BatchKind::Membership => 2,
            BatchKind::Consumer(_) => KIND_CONSUMER,
        };
        let consumer = match self.kind {
            BatchKind::Consumer(commit) => {
                if commit.offset.is_none() {
                    flags |= FLAG_FORGOTTEN;
                }
                commit.consumer.to_bytes()
            }
            _ => [0; 16],
        };
        let id = self.id.map_or([0; 16], BatchId::to_bytes);
        Writer::start(out)
            .bytes(&[kind, flags, 0, 0])
            .u64(self.base_offset.get())
            .u32(self.record_count)
            .u32(self.crc)
            .u64(self.position)
            .u32(self.length)
            .u32(self.flushed_batches)
            .u64(self.timestamp_min_ms)
            .u64(self.timestamp_max_ms)
            .bytes(&id)
            .u64(self.digest.get())
            .u64(self.term)
            .u64(self.log_index)
            .u64(self.tenant_hash)
            .u64(self.appended_at_ms)
            .bytes(&consumer)
            .finish();
    }

    /// Reads what is said of a consumer; its offset stands where other batches have their digest.
    fn decode_consumer(flags: u8, reader: &mut Reader<'_>) -> Self {
        let header = Self::decode(BatchKind::Blank, flags, reader);
        let consumer = ConsumerKey::from_bytes(reader.bytes());
        let offset = (flags & FLAG_FORGOTTEN == 0).then(|| Offset::new(header.digest.get()));
        Self { kind: BatchKind::Consumer(ConsumerCommit { consumer, offset }), ..header }
    }

    fn decode(kind: BatchKind, flags: u8, reader: &mut Reader<'_>) -> Self {
        let base_offset = Offset::new(reader.u64());
        let record_count = reader.u32();
        let crc = reader.u32();
        let position = reader.u64();
        let length = reader.u32();
        let flushed_batches = reader.u32();
        let timestamp_min_ms = reader.u64();
        let timestamp_max_ms = reader.u64();
        let id = BatchId::from_bytes(reader.bytes());
        Self {
            kind,
            id: (flags & FLAG_NO_ID == 0).then_some(id),
            unreadable: flags & FLAG_UNREADABLE != 0,
            continues: flags & FLAG_CONTINUES != 0,
            base_offset,
            record_count,
            position,
            length,
            crc,
            timestamp_min_ms,
            timestamp_max_ms,
            digest: BatchDigest::from_u64(reader.u64()),
            term: reader.u64(),
            log_index: reader.u64(),
            tenant_hash: reader.u64(),
            appended_at_ms: reader.u64(),
            flushed_batches,
        }
    }
}

impl Seal {
    /// The seal's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRY_BYTES);
        Writer::start(&mut out)
            .bytes(&[KIND_SEAL, 0, 0, 0])
            .u64(self.base_offset.get())
            .u64(self.end_offset.get())
            .u64(self.data_bytes)
            .u32(self.batch_count)
            .u32(0)
            .u64(self.timestamp_min_ms)
            .u64(self.timestamp_max_ms)
            .u64(self.appended_first_ms)
            .u64(self.appended_last_ms)
            .u64(self.last_term)
            .u64(self.last_log_index)
            .finish();
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Self {
        let base_offset = Offset::new(reader.u64());
        let end_offset = Offset::new(reader.u64());
        let data_bytes = reader.u64();
        let batch_count = reader.u32();
        let _reserved = reader.u32();
        Self {
            base_offset,
            end_offset,
            data_bytes,
            batch_count,
            timestamp_min_ms: reader.u64(),
            timestamp_max_ms: reader.u64(),
            appended_first_ms: reader.u64(),
            appended_last_ms: reader.u64(),
            last_term: reader.u64(),
            last_log_index: reader.u64(),
        }
    }
}

impl Entry {
    /// Decodes one entry, which has [`ENTRY_BYTES`] bytes unless the file ends before.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let mut reader = Reader::checked(bytes)?;
        let [kind, flags, _, _] = reader.bytes();
        let kind = match kind {
            0 => BatchKind::Records,
            1 => BatchKind::Blank,
            2 => BatchKind::Membership,
            KIND_CONSUMER if flags & !(FLAGS | FLAG_FORGOTTEN) == 0 => {
                return Ok(Self::Batch(BatchHeader::decode_consumer(flags, &mut reader)));
            }
            KIND_SEAL => return Ok(Self::Seal(Seal::decode(&mut reader))),
            _ => return Err(Undecodable::Unknown),
        };
        if flags & !FLAGS != 0 {
            return Err(Undecodable::Unknown);
        }
        Ok(Self::Batch(BatchHeader::decode(kind, flags, &mut reader)))
    }
}

impl IndexFileHeader {
    /// The header's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRY_BYTES);
        Writer::start(&mut out)
            .bytes(INDEX_MAGIC)
            .u16(FORMAT_VERSION)
            .u16(ENTRY_BYTES as u16)
            .u16(self.partition.get())
            .u64(self.base_offset.get())
            .finish();
        out
    }

    /// Decodes the first [`ENTRY_BYTES`] bytes of an index file.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let mut reader = Reader::checked(bytes)?;
        let known = reader.bytes::<8>() == *INDEX_MAGIC
            && reader.u16() == FORMAT_VERSION
            && usize::from(reader.u16()) == ENTRY_BYTES;
        if !known {
            return Err(Undecodable::Unknown);
        }
        Ok(Self { partition: Partition::new(reader.u16()), base_offset: Offset::new(reader.u64()) })
    }
}

impl IdListHeader {
    /// The header's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRY_BYTES);
        Writer::start(&mut out)
            .bytes(IDS_MAGIC)
            .u16(FORMAT_VERSION)
            .u64(self.base_offset.get())
            .u32(self.batch_count)
            .u32(self.page_count)
            .u32(self.filter_blocks)
            .u32(self.filter_crc)
            .finish();
        out
    }

    /// Decodes the first [`ENTRY_BYTES`] bytes of an id list. One that cannot be decoded is made again.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let mut reader = Reader::checked(bytes)?;
        if reader.bytes::<8>() != *IDS_MAGIC || reader.u16() != FORMAT_VERSION {
            return Err(Undecodable::Unknown);
        }
        Ok(Self {
            base_offset: Offset::new(reader.u64()),
            batch_count: reader.u32(),
            page_count: reader.u32(),
            filter_blocks: reader.u32(),
            filter_crc: reader.u32(),
        })
    }
}

impl GroupFileHeader {
    /// The header's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRY_BYTES);
        Writer::start(&mut out).bytes(GROUP_MAGIC).u16(FORMAT_VERSION).u32(self.body_crc).finish();
        out
    }

    /// Decodes the first [`ENTRY_BYTES`] bytes of the file.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let mut reader = Reader::checked(bytes)?;
        if reader.bytes::<8>() != *GROUP_MAGIC || reader.u16() != FORMAT_VERSION {
            return Err(Undecodable::Unknown);
        }
        Ok(Self { body_crc: reader.u32() })
    }
}

impl ClosedMarker {
    /// The marker file's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRY_BYTES);
        Writer::start(&mut out)
            .bytes(CLOSED_MAGIC)
            .u16(FORMAT_VERSION)
            .u64(self.segment.get())
            .u64(self.end_offset.get())
            .u64(self.data_bytes)
            .u32(self.batch_count)
            .finish();
        out
    }

    /// Decodes a marker file. A marker that cannot be decoded only means a longer recovery.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let mut reader = Reader::checked(bytes)?;
        if reader.bytes::<8>() != *CLOSED_MAGIC || reader.u16() != FORMAT_VERSION {
            return Err(Undecodable::Unknown);
        }
        Ok(Self {
            segment: Offset::new(reader.u64()),
            end_offset: Offset::new(reader.u64()),
            data_bytes: reader.u64(),
            batch_count: reader.u32(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            kind: BatchKind::Records,
            id: Some(BatchId::from_bytes([7; 16])),
            unreadable: false,
            continues: false,
            base_offset: Offset::new(1),
            record_count: 2,
            position: 3,
            length: 4,
            crc: 5,
            timestamp_min_ms: 6,
            timestamp_max_ms: 7,
            digest: BatchDigest::from_u64(8),
            term: 9,
            log_index: 10,
            tenant_hash: 11,
            appended_at_ms: 12,
            flushed_batches: 13,
        }
    }

    #[test]
    fn every_entry_decodes_to_what_was_encoded_and_has_the_fixed_size() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        assert_eq!(bytes.len(), ENTRY_BYTES);
        assert_eq!(Entry::decode(&bytes), Ok(Entry::Batch(header())));

        let bare =
            BatchHeader { id: None, unreadable: true, continues: true, kind: BatchKind::Blank, ..header() };
        bytes.clear();
        bare.encode(&mut bytes);
        assert_eq!(Entry::decode(&bytes), Ok(Entry::Batch(bare)));

        for offset in [Some(Offset::new(u64::MAX)), None] {
            let kind = BatchKind::Consumer(ConsumerCommit { consumer: ConsumerKey::of("c"), offset });
            let digest = BatchDigest::from_u64(offset.map_or(0, Offset::get));
            let commit = BatchHeader { kind, digest, id: None, ..header() };
            bytes.clear();
            commit.encode(&mut bytes);
            assert_eq!((bytes.len(), Entry::decode(&bytes)), (ENTRY_BYTES, Ok(Entry::Batch(commit))));
        }

        let file = IndexFileHeader { partition: Partition::new(3), base_offset: Offset::new(u64::MAX) };
        assert_eq!(file.encode().len(), ENTRY_BYTES);
        assert_eq!(IndexFileHeader::decode(&file.encode()), Ok(file));

        let ids = IdListHeader {
            base_offset: Offset::new(1),
            batch_count: 2,
            page_count: 3,
            filter_blocks: 4,
            filter_crc: 5,
        };
        assert_eq!(IdListHeader::decode(&ids.encode()), Ok(ids));
    }

    #[test]
    fn every_flipped_bit_of_an_entry_is_noticed() {
        let mut bytes = Vec::new();
        header().encode(&mut bytes);
        for bit in 0..ENTRY_BYTES * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Entry::decode(&flipped), Err(Undecodable::Checksum), "bit {bit}");
        }
    }

    #[test]
    fn zeros_and_short_entries_were_never_written() {
        assert_eq!(Entry::decode(&[0; ENTRY_BYTES]), Err(Undecodable::Absent));
        assert_eq!(Entry::decode(&[1; ENTRY_BYTES - 1]), Err(Undecodable::Absent));
    }
}
