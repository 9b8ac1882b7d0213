//! The identities that cross a process border, each a type of its own.
//!
//! Invariant: a value of these types is valid. They know nothing of how they are stored or sent.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use crate::limits;

/// A partition's number, from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(u16);

impl Partition {
    /// The partition of this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number, from zero.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Partition {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let number: u16 =
            text.parse().map_err(|_| InvalidId("a partition is a whole number from 0 to 1023"))?;
        if number < limits::PARTITIONS_MAX {
            Ok(Self(number))
        } else {
            Err(InvalidId("a partition is a whole number from 0 to 1023"))
        }
    }
}

/// How many partitions a cluster has, 1 to [`limits::PARTITIONS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PartitionCount(NonZeroU16);

impl PartitionCount {
    /// `None` unless `count` is within 1 to [`limits::PARTITIONS_MAX`].
    pub const fn new(count: u16) -> Option<Self> {
        match NonZeroU16::new(count) {
            Some(nonzero) if count <= limits::PARTITIONS_MAX => Some(Self(nonzero)),
            _ => None,
        }
    }

    /// The count, at least one.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// All partitions, in order.
    pub fn partitions(self) -> impl Iterator<Item = Partition> {
        (0..self.get()).map(Partition)
    }
}

/// A record's place in its partition: the count of records before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// The offset after `count` records.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The count of records before this one.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `count` records further on. Saturates: no log reaches 2⁶⁴ records.
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The offset `count` records earlier, or zero.
    pub const fn minus(self, count: u64) -> Self {
        Self(self.0.saturating_sub(count))
    }

    /// How many records lie between `earlier` and this one; zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The idempotency key of one partition's batch: storage takes each id once. 128 bits, written as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId([u8; 16]);

/// The UUIDv5 name space of edgelog's batch ids (RFC 9562 §5.5), itself a random UUID drawn once.
const BATCH_NAMESPACE: Uuid = Uuid::from_u128(0x6f5d_1d3c_94b2_4f0e_8c51_7f2a_0be4_93d7);

impl BatchId {
    /// The id of `partition`'s part of the request that `tenant` sent under `key`.
    ///
    /// It is a UUIDv5 of the three, so every ingest node derives the same id from a retried request.
    pub fn derive(tenant: &Tenant, key: &str, partition: Partition) -> Self {
        let mut name = Vec::with_capacity(tenant.as_str().len() + key.len() + 4);
        name.extend_from_slice(tenant.as_str().as_bytes());
        name.push(0);
        name.extend_from_slice(key.as_bytes());
        name.push(0);
        name.extend_from_slice(&partition.get().to_be_bytes());
        Self(Uuid::new_v5(&BATCH_NAMESPACE, &name).into_bytes())
    }

    /// The id of these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's 16 bytes, big-endian as in the UUID's text.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchId({self})")
    }
}

impl FromStr for BatchId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let uuid = Uuid::try_parse(text).map_err(|_| InvalidId("a batch id is a UUID"))?;
        Ok(Self(uuid.into_bytes()))
    }
}

/// A digest of what a client sent for one batch, before enrichment: XXH3-64 of the records' texts.
///
/// A retry through another ingest node is enriched with another time and node, so the stored bytes differ although
/// the client repeated itself. This digest tells a repetition from other content under the same batch id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchDigest(u64);

impl BatchDigest {
    /// The digest of one whole text, for batches that come without one.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(bytes))
    }

    /// The digest of this number.
    pub const fn from_u64(digest: u64) -> Self {
        Self(digest)
    }

    /// The digest as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for BatchDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for BatchDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchDigest({self})")
    }
}

impl FromStr for BatchDigest {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId("a batch digest is 16 hexadecimal digits");
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| invalid)
    }
}

/// Builds a [`BatchDigest`] from the records' texts, one after another.
#[derive(Clone, Default)]
pub struct BatchDigester(Xxh3);

impl BatchDigester {
    /// Adds one record's text. Its length is not mixed in: a record's JSON text delimits itself.
    pub fn update(&mut self, record: &[u8]) {
        self.0.update(record);
    }

    /// The digest of all that was added.
    pub fn finish(&self) -> BatchDigest {
        BatchDigest(self.0.digest())
    }
}

/// Whose records these are: 1 to 64 characters of `a-z`, `0-9`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// The tenant of requests that name none.
    pub const DEFAULT: &'static str = "default";

    /// The tenant's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the tenant of requests that name none.
    pub fn is_default(&self) -> bool {
        self.0 == Self::DEFAULT
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl FromStr for Tenant {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId("a tenant is 1 to 64 characters of a-z, 0-9, _ and -"))
        }
    }
}

/// A text that is not a valid id; the message says what one looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(&'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_has_the_same_batch_id_and_another_partition_or_key_has_another() {
        let tenant = Tenant::default();
        let id = BatchId::derive(&tenant, "k", Partition::new(1));
        assert_eq!(id, BatchId::derive(&tenant, "k", Partition::new(1)));
        assert_ne!(id, BatchId::derive(&tenant, "k", Partition::new(2)));
        assert_ne!(id, BatchId::derive(&tenant, "k2", Partition::new(1)));
        assert_ne!(id, BatchId::derive(&"other".parse().unwrap(), "k", Partition::new(1)));
    }

    #[test]
    fn a_batch_id_keeps_its_text() {
        let id = BatchId::derive(&Tenant::default(), "k", Partition::new(1));
        assert_eq!(id.to_string().parse::<BatchId>().unwrap(), id);
        assert!("k".parse::<BatchId>().is_err());
    }

    #[test]
    fn a_digest_does_not_depend_on_how_the_text_was_cut() {
        let mut digester = BatchDigester::default();
        digester.update(b"{\"a\":1}");
        digester.update(b"{\"b\":2}");
        assert_eq!(digester.finish(), BatchDigest::of(b"{\"a\":1}{\"b\":2}"));
        let text = digester.finish().to_string();
        assert_eq!(text.parse::<BatchDigest>().unwrap(), digester.finish());
        assert!("+00000000000000f".parse::<BatchDigest>().is_err());
    }

    #[test]
    fn ids_that_could_name_something_else_are_refused() {
        for bad in ["", "..", "a/b", "A", "a b", "é"] {
            assert!(bad.parse::<Tenant>().is_err(), "{bad:?}");
        }
        for bad in ["", "-1", "1024", "70000", "1.0", "x"] {
            assert!(bad.parse::<Partition>().is_err(), "{bad:?}");
        }
        assert_eq!("1023".parse::<Partition>().unwrap().get(), 1023);
    }

    #[test]
    fn a_partition_count_is_at_least_one_and_bounded() {
        assert!(PartitionCount::new(0).is_none());
        assert!(PartitionCount::new(limits::PARTITIONS_MAX + 1).is_none());
        assert_eq!(PartitionCount::new(3).unwrap().partitions().count(), 3);
    }
}
