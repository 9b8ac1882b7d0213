//! Batches of several partitions in one request to the node that takes them all, and what became of each: the bodies of
//! `POST /v1/storage/batches` and of its answer.
//!
//! A body has for each batch a head, one line of JSON, and then the batch's records, one a line, as many bytes as its head
//! says:
//!
//! ```text
//! {"partition":3,"batch_id":"0197…","batch_digest":"9f86d081884c7d65","bytes":61234}
//! {"timestamp":…}
//! …
//! {"partition":7,…}
//! ```
//!
//! Invariant: a body names no partition twice, so that nothing depends on the order of its batches. This module must not
//! know what is in a record.

use ::bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{BatchDigest, BatchId, InvalidId, Partition};
use crate::limits::BATCHES_AT_ONCE_MAX;

/// The media type of such a body.
pub const BATCHES: &str = "application/vnd.edgelog.batches";

/// Bytes of a head at most: far above what one has.
const HEAD_BYTES_MAX: usize = 512;

/// What a body says of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The partition.
    pub partition: Partition,
    /// The batch's identity.
    pub id: BatchId,
    /// Tells a repetition from other content under the same id.
    pub digest: BatchDigest,
    /// Bytes of its records' lines.
    pub bytes: usize,
}

/// The same as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadText {
    partition: Partition,
    batch_id: String,
    batch_digest: String,
    bytes: usize,
}

/// Why a body is not one of batches. Nothing of it is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchesError {
    /// There is nothing in it.
    #[error("the body is empty")]
    Empty,
    /// There are more batches than one request may have.
    #[error("the body has more than {BATCHES_AT_ONCE_MAX} batches")]
    TooMany,
    /// A head is not one.
    #[error("batch {index}: {reason}")]
    Head {
        /// The batch's place in the body, from zero.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// Less follows a head than it says.
    #[error("batch {index}: fewer than {bytes} bytes follow its head")]
    Short {
        /// The batch's place in the body, from zero.
        index: usize,
        /// How many it says.
        bytes: usize,
    },
    /// A partition has two batches.
    #[error("batch {index}: partition {partition} has a batch before it already")]
    Twice {
        /// The batch's place in the body, from zero.
        index: usize,
        /// The partition.
        partition: Partition,
    },
}

/// What became of the batches of a request: the answer's body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchesAnswer {
    /// One for each batch, in order.
    pub batches: Vec<BatchAnswer>,
}

/// What `POST /v1/storage` would have answered to one batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// The partition.
    pub partition: Partition,
    /// The status.
    pub status: u16,
    /// The header `Durability`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// The header `Leader`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The header `Retry-After`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The body: an [`AppendAnswer`](crate::wire::AppendAnswer), or a [`Problem`](crate::Problem).
    pub body: Box<RawValue>,
}

impl BatchHead {
    /// The head as it stands in a body, with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        let text = HeadText {
            partition: self.partition,
            batch_id: self.id.to_string(),
            batch_digest: self.digest.to_string(),
            bytes: self.bytes,
        };
        // Plain values: there is nothing in it that JSON cannot say.
        let mut line = serde_json::to_vec(&text).unwrap_or_default();
        line.push(b'\n');
        line
    }

    fn parse(line: &[u8]) -> Result<Self, String> {
        let text: HeadText = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let invalid = |error: InvalidId| error.to_string();
        Ok(Self {
            partition: text.partition,
            id: text.batch_id.parse().map_err(invalid)?,
            digest: text.batch_digest.parse().map_err(invalid)?,
            bytes: text.bytes,
        })
    }
}

/// The batches of a body. Their lines are slices of it.
///
/// # Errors
/// When it is not one of batches.
pub fn split(mut body: Bytes) -> Result<Vec<(BatchHead, Bytes)>, BatchesError> {
    let mut batches: Vec<(BatchHead, Bytes)> = Vec::new();
    while !body.is_empty() {
        let index = batches.len();
        if index == BATCHES_AT_ONCE_MAX {
            return Err(BatchesError::TooMany);
        }
        let wrong = |reason: String| BatchesError::Head { index, reason };
        let start = body.get(..HEAD_BYTES_MAX).unwrap_or(&body);
        let end =
            memchr::memchr(b'\n', start).ok_or_else(|| wrong("it does not begin with a head".to_owned()))?;
        let head = BatchHead::parse(&body.split_to(end + 1)).map_err(wrong)?;
        if head.bytes > body.len() {
            return Err(BatchesError::Short { index, bytes: head.bytes });
        }
        if batches.iter().any(|(before, _)| before.partition == head.partition) {
            return Err(BatchesError::Twice { index, partition: head.partition });
        }
        batches.push((head, body.split_to(head.bytes)));
    }
    if batches.is_empty() { Err(BatchesError::Empty) } else { Ok(batches) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Tenant;

    fn head(partition: u16, bytes: usize) -> BatchHead {
        let partition = Partition::new(partition);
        let id = BatchId::derive(&Tenant::default(), "k", partition);
        BatchHead { partition, id, digest: BatchDigest::of(b"sent"), bytes }
    }

    fn body(batches: &[(u16, &[u8])]) -> Vec<u8> {
        batches
            .iter()
            .flat_map(|(partition, lines)| [&head(*partition, lines.len()).to_line(), *lines].concat())
            .collect()
    }

    fn error(body: impl Into<Bytes>) -> String {
        split(body.into()).unwrap_err().to_string()
    }

    #[test]
    fn a_head_is_one_line_of_json() {
        let line = String::from_utf8(head(3, 61_234).to_line()).unwrap();
        expect_test::expect![[r#"
            {"partition":3,"batch_id":"64649217-c49f-5cfa-a21c-5d20b6e2b021","batch_digest":"0d4fdb642283eb19","bytes":61234}
        "#]].assert_eq(&line);
    }

    #[test]
    fn what_is_no_body_of_batches_is_told_apart() {
        assert_eq!(error(""), "the body is empty");
        assert_eq!(error("{}"), "batch 0: it does not begin with a head");
        assert_eq!(error(vec![b' '; 1 << 20]), "batch 0: it does not begin with a head");
        assert!(error("{}\n").starts_with("batch 0: missing field"));
        assert!(error("[1]\n").starts_with("batch 0: "));
        let one = body(&[(1, b"a\n")]);
        assert_eq!(error(one[..one.len() - 1].to_vec()), "batch 0: fewer than 2 bytes follow its head");
        let twice = body(&[(1, b"a\n"), (2, b"b\n"), (1, b"c\n")]);
        assert_eq!(error(twice), "batch 2: partition 1 has a batch before it already");
        let bad_id = String::from_utf8(one.clone()).unwrap().replace("\"batch_id\":\"", "\"batch_id\":\"x");
        assert_eq!(error(bad_id), "batch 0: a batch id is a UUID");
        let lines: Vec<(u16, &[u8])> =
            (0..=BATCHES_AT_ONCE_MAX as u16).map(|partition| (partition, &b"a\n"[..])).collect();
        assert_eq!(error(body(&lines)), "the body has more than 64 batches");
        assert_eq!(split(body(&lines[1..]).into()).unwrap().len(), BATCHES_AT_ONCE_MAX);
        // What follows a batch is another.
        assert_eq!(error([&one[..], b"x"].concat()), "batch 1: it does not begin with a head");
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart_again(lines in prop::collection::btree_map(any::<u16>(), prop::collection::vec(any::<u8>(), 0..40), 1..20)) {
            let batches: Vec<(u16, &[u8])> = lines.iter().map(|(partition, lines)| (*partition, &lines[..])).collect();
            let found = split(body(&batches).into()).unwrap();
            let expected: Vec<_> = batches.iter().map(|(partition, lines)| (head(*partition, lines.len()), Bytes::copy_from_slice(lines))).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_body_breaks_it(damaged in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            split(damaged.into()).ok();
            let mut bytes = body(&[(1, b"a\n"), (2, b"bc\n")]);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            split(bytes.into()).ok();
        }
    }
}
