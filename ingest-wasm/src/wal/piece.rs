//! The values of the edge WAL: one piece of a batch each, below the largest value that hosted Spin takes.
//!
//! Frozen formats; numbers are little-endian. `edgelogW` · version u16 · CRC-32 u32 · batch id 16 · digest u64 · partition
//! count u16 · partition u16 · records u32 · piece u16 · pieces u16 · *acks u8, from version 2 on* · length of the tenant
//! u16 · tenant · lines. The checksum is that of all that follows it; from version 2 on, of the version and of that: so a
//! version that is not known is told from one that is damaged. A batch whose client asks for no level is written as
//! version 1, which older components read too.
//!
//! Invariant: what was unpacked is what was packed, or an error.

use model::wire::Durability;
use model::{BatchDigest, BatchId, Partition, PartitionCount, Tenant};

const MAGIC: &[u8; 8] = b"edgelogW";
/// The version of a piece whose batch is to be stored as is usual.
const USUAL_ACKS: u16 = 1;
/// The version of a piece that tells how durable its batch is to be.
const OWN_ACKS: u16 = 2;
/// Where the checksum lies.
const CRC_AT: std::ops::Range<usize> = 10..14;

/// What every piece of an entry says of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: BatchId,
    pub(super) digest: BatchDigest,
    /// The partitions that there were when the batch was routed.
    pub(super) partition_count: PartitionCount,
    pub(super) partition: Partition,
    pub(super) records: u32,
    pub(super) piece: u16,
    pub(super) pieces: u16,
    /// How durable the client wants it, if it said.
    pub(super) acks: Option<Durability>,
    pub(super) tenant: Tenant,
}

/// Why a value is no piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PieceError {
    #[error("a piece is of version {0}, which a newer component wrote and will read")]
    Newer(u16),
    #[error("a piece is damaged")]
    Damaged,
}

/// The bytes of a piece's header.
pub(super) fn header_bytes(tenant: &Tenant, acks: Option<Durability>) -> usize {
    52 + usize::from(acks.is_some()) + tenant.as_str().len()
}

/// The number of a level that may be asked for.
fn number_of(acks: Durability) -> u8 {
    match acks {
        Durability::Edge => 0,
        Durability::Leader => 1,
        Durability::Quorum => 2,
        Durability::All => 3,
    }
}

/// The checksum of a piece of this version, of which `rest` follows the checksum.
fn checksum(version: u16, rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    if version > USUAL_ACKS {
        crc.update(&version.to_le_bytes());
    }
    crc.update(rest);
    crc.finalize()
}

/// A piece of a batch's lines as a value.
pub(super) fn pack(header: &Header, lines: &[u8]) -> Vec<u8> {
    let tenant = header.tenant.as_str().as_bytes();
    let version = if header.acks.is_some() { OWN_ACKS } else { USUAL_ACKS };
    let mut value = Vec::with_capacity(header_bytes(&header.tenant, header.acks) + lines.len());
    value.extend_from_slice(MAGIC);
    value.extend_from_slice(&version.to_le_bytes());
    value.extend_from_slice(&[0; 4]);
    value.extend_from_slice(&header.id.to_bytes());
    value.extend_from_slice(&header.digest.get().to_le_bytes());
    value.extend_from_slice(&header.partition_count.get().to_le_bytes());
    value.extend_from_slice(&header.partition.get().to_le_bytes());
    value.extend_from_slice(&header.records.to_le_bytes());
    value.extend_from_slice(&header.piece.to_le_bytes());
    value.extend_from_slice(&header.pieces.to_le_bytes());
    value.extend(header.acks.map(number_of));
    // A tenant's name has 64 bytes at most.
    value.extend_from_slice(&(tenant.len() as u16).to_le_bytes());
    value.extend_from_slice(tenant);
    value.extend_from_slice(lines);
    if let Some((head, rest)) = value.split_at_mut_checked(CRC_AT.end)
        && let Some(place) = head.get_mut(CRC_AT)
    {
        place.copy_from_slice(&checksum(version, rest).to_le_bytes());
    }
    value
}

/// The header of a piece, and its lines.
///
/// # Errors
/// When it is of a newer version, or damaged.
pub(super) fn unpack(value: &[u8]) -> Result<(Header, &[u8]), PieceError> {
    let mut reader = Reader(value);
    if reader.take::<8>()? != *MAGIC {
        return Err(PieceError::Damaged);
    }
    let version = reader.u16()?;
    if reader.u32()? != checksum(version, reader.0) {
        return Err(PieceError::Damaged);
    }
    let has_acks = match version {
        USUAL_ACKS => false,
        OWN_ACKS => true,
        0 => return Err(PieceError::Damaged),
        newer => return Err(PieceError::Newer(newer)),
    };
    let header = Header {
        id: BatchId::from_bytes(reader.take()?),
        digest: BatchDigest::from_u64(u64::from_le_bytes(reader.take()?)),
        partition_count: PartitionCount::new(reader.u16()?).ok_or(PieceError::Damaged)?,
        partition: Partition::new(reader.u16()?),
        records: reader.u32()?,
        piece: reader.u16()?,
        pieces: reader.u16()?,
        acks: if has_acks { Some(reader.acks()?) } else { None },
        tenant: reader.tenant()?,
    };
    Ok((header, reader.0))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], PieceError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(PieceError::Damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, PieceError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, PieceError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn acks(&mut self) -> Result<Durability, PieceError> {
        let [number] = self.take()?;
        let levels = [Durability::Leader, Durability::Quorum, Durability::All];
        levels.into_iter().find(|level| number_of(*level) == number).ok_or(PieceError::Damaged)
    }

    fn tenant(&mut self) -> Result<Tenant, PieceError> {
        let length = self.u16()?;
        let (name, rest) = self.0.split_at_checked(length.into()).ok_or(PieceError::Damaged)?;
        self.0 = rest;
        let name = std::str::from_utf8(name).map_err(|_| PieceError::Damaged)?;
        name.parse().map_err(|_| PieceError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let partition = Partition::new(2);
        Header {
            id: BatchId::derive(&Tenant::default(), "k", partition),
            digest: BatchDigest::of(b"sent"),
            partition_count: PartitionCount::new(4).unwrap(),
            partition,
            records: 2,
            piece: 0,
            pieces: 1,
            acks: None,
            tenant: Tenant::default(),
        }
    }

    /// Packs two lines with these acks, and reads them back.
    fn packed(acks: Option<Durability>) -> String {
        let header = Header { acks, ..header() };
        let value = pack(&header, b"{}\n{}\n");
        assert_eq!(value.len(), header_bytes(&Tenant::default(), acks) + 6);
        assert_eq!(unpack(&value), Ok((header, &b"{}\n{}\n"[..])));
        value.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_piece_is_read_back_as_it_was_and_both_formats_are_frozen() {
        expect_test::expect!["656467656c6f67570100a3b892eb6ff331d588b7562e87ea8ccccdea817b19eb832264db4f0d040002000200000000000100070064656661756c747b7d0a7b7d0a"].assert_eq(&packed(None));
        expect_test::expect!["656467656c6f67570200760eb9836ff331d588b7562e87ea8ccccdea817b19eb832264db4f0d04000200020000000000010003070064656661756c747b7d0a7b7d0a"].assert_eq(&packed(Some(Durability::All)));
        for acks in [Durability::Leader, Durability::Quorum] {
            packed(Some(acks));
        }
    }

    #[test]
    fn a_newer_version_is_told_from_a_damaged_one() {
        let mut newer = pack(&Header { acks: Some(Durability::All), ..header() }, b"{}\n");
        newer[8] = 3;
        assert_eq!(unpack(&newer), Err(PieceError::Damaged), "the version was altered alone");
        let crc = checksum(3, &newer[CRC_AT.end..]);
        newer[CRC_AT].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(unpack(&newer), Err(PieceError::Newer(3)));
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_found() {
        for acks in [None, Some(Durability::Quorum)] {
            let value = pack(&Header { acks, ..header() }, b"{\"a\":1}\n");
            for place in 0..value.len() {
                for bit in 0..8 {
                    let mut flipped = value.clone();
                    flipped[place] ^= 1 << bit;
                    assert_eq!(unpack(&flipped), Err(PieceError::Damaged), "bit {bit} of byte {place}");
                }
                assert!(unpack(&value[..place]).is_err(), "cut at {place}");
            }
        }
    }
}
