//! The values of the edge WAL: one piece of a batch each, below the largest value that hosted Spin takes.
//!
//! Frozen format, version 1; numbers are little-endian. `edgelogW` · version u16 · CRC-32 of all that follows u32 ·
//! batch id 16 · digest u64 · partition count u16 · partition u16 · records u32 · piece u16 · pieces u16 · length of the
//! tenant u16 · tenant · lines. Invariant: what was unpacked is what was packed, or an error.

use model::{BatchDigest, BatchId, Partition, PartitionCount, Tenant};

const MAGIC: &[u8; 8] = b"edgelogW";
const VERSION: u16 = 1;

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
    pub(super) tenant: Tenant,
}

/// Why a value is no piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PieceError {
    #[error("a piece is not one of this version")]
    Version,
    #[error("a piece is damaged")]
    Damaged,
}

/// The bytes of a piece's header.
pub(super) fn header_bytes(tenant: &Tenant) -> usize {
    52 + tenant.as_str().len()
}

/// A piece of a batch's lines as a value.
pub(super) fn pack(header: &Header, lines: &[u8]) -> Vec<u8> {
    let tenant = header.tenant.as_str().as_bytes();
    let mut value = Vec::with_capacity(header_bytes(&header.tenant) + lines.len());
    value.extend_from_slice(MAGIC);
    value.extend_from_slice(&VERSION.to_le_bytes());
    value.extend_from_slice(&[0; 4]);
    value.extend_from_slice(&header.id.to_bytes());
    value.extend_from_slice(&header.digest.get().to_le_bytes());
    value.extend_from_slice(&header.partition_count.get().to_le_bytes());
    value.extend_from_slice(&header.partition.get().to_le_bytes());
    value.extend_from_slice(&header.records.to_le_bytes());
    value.extend_from_slice(&header.piece.to_le_bytes());
    value.extend_from_slice(&header.pieces.to_le_bytes());
    // A tenant's name has 64 bytes at most.
    value.extend_from_slice(&(tenant.len() as u16).to_le_bytes());
    value.extend_from_slice(tenant);
    value.extend_from_slice(lines);
    if let Some((head, rest)) = value.split_at_mut_checked(14)
        && let Some(place) = head.get_mut(10..14)
    {
        place.copy_from_slice(&crc32fast::hash(rest).to_le_bytes());
    }
    value
}

/// The header of a piece, and its lines.
///
/// # Errors
/// When it is of another version, or damaged.
pub(super) fn unpack(value: &[u8]) -> Result<(Header, &[u8]), PieceError> {
    let mut reader = Reader(value);
    if reader.take::<8>()? != *MAGIC || reader.u16()? != VERSION {
        return Err(PieceError::Version);
    }
    if reader.u32()? != crc32fast::hash(reader.0) {
        return Err(PieceError::Damaged);
    }
    let header = Header {
        id: BatchId::from_bytes(reader.take()?),
        digest: BatchDigest::from_u64(u64::from_le_bytes(reader.take()?)),
        partition_count: PartitionCount::new(reader.u16()?).ok_or(PieceError::Damaged)?,
        partition: Partition::new(reader.u16()?),
        records: reader.u32()?,
        piece: reader.u16()?,
        pieces: reader.u16()?,
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
            tenant: Tenant::default(),
        }
    }

    #[test]
    fn a_piece_is_read_back_as_it_was_and_the_format_is_frozen() {
        let value = pack(&header(), b"{}\n{}\n");
        assert_eq!(unpack(&value), Ok((header(), &b"{}\n{}\n"[..])));
        assert_eq!(value.len(), header_bytes(&Tenant::default()) + 6);
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect!["656467656c6f67570100a3b892eb6ff331d588b7562e87ea8ccccdea817b19eb832264db4f0d040002000200000000000100070064656661756c747b7d0a7b7d0a"].assert_eq(&hex);
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_found() {
        let value = pack(&header(), b"{\"a\":1}\n");
        for place in 0..value.len() {
            for bit in 0..8 {
                let mut flipped = value.clone();
                flipped[place] ^= 1 << bit;
                assert!(unpack(&flipped).is_err(), "bit {bit} of byte {place}");
            }
            assert!(unpack(&value[..place]).is_err(), "cut at {place}");
        }
    }
}
