//! The bounds that both ends of a connection must agree on, each with its reason.

use core::time::Duration;

/// Partitions of a cluster. A partition costs a directory, an actor and a share of every query.
pub const PARTITIONS_MAX: u16 = 1024;

/// Bytes of one ingest request's body, as sent and as decompressed. Hosted Spin takes 10 MiB; 16 MiB lets a record
/// of 1 MiB that is all control characters (six bytes each in JSON) through, and keeps an instance small.
pub const INGEST_BODY_BYTES_MAX: usize = 16 << 20;

/// Records of one ingest request: bounds what enrichment adds to a body of very small records.
pub const INGEST_RECORDS_MAX: usize = 100_000;

/// Bytes of one record's JSON text, enriched: room for a message of 1 MiB that is all escapes.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// Bytes of one append to storage: a full ingest body of one partition, plus what enrichment adds.
pub const APPEND_BODY_BYTES_MAX: usize = 48 << 20;

/// Batches of one request to storage. What they have in common is paid once; beyond this there is next to nothing left of it.
pub const BATCHES_AT_ONCE_MAX: usize = 64;

/// How long the ingest waits for storage's answer to an append: a sync of a busy disk, many times over.
pub const APPEND_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a node lets an append wait for its replicas, from when it has all of it. The rest of [`APPEND_TIME_MAX`] is for
/// the way there and back: an answer that comes later is heard by nobody, and a node that only lacks a majority would be
/// taken for one that is gone.
pub const APPEND_AGREED_TIME_MAX: Duration = Duration::from_millis(2_500);

const _: () = assert!(
    APPEND_AGREED_TIME_MAX.as_millis() + 500 <= APPEND_TIME_MAX.as_millis(),
    "an ingest leaves before it is answered"
);

/// Bytes of a service's name. It is repeated in every record, index entry and drop-down.
pub const SERVICE_BYTES_MAX: usize = 256;

/// Bytes of a level's name.
pub const LEVEL_BYTES_MAX: usize = 64;

/// Labels of one record, after flattening.
pub const LABELS_MAX: usize = 256;

/// Bytes of one label's name, after flattening.
pub const LABEL_NAME_BYTES_MAX: usize = 512;

/// Arrays and objects within one another in a request's JSON. The parser recurses once for each.
pub const JSON_DEPTH_MAX: usize = 64;

/// Bytes of a client's `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// Records that one search or query may ask for.
pub const QUERY_LIMIT_MAX: usize = 10_000;

/// Records that a search answers with when the request does not say.
pub const QUERY_LIMIT_DEFAULT: usize = 100;

/// Bytes of one search's answer: what the ingest component has to hold to merge the answers of several nodes.
pub const QUERY_ANSWER_BYTES_MAX: usize = 16 << 20;

/// Rejected records that an answer names one by one; the rest it only counts.
pub const REJECTED_LISTED_MAX: usize = 100;

/// The latest timestamp that is taken, in Unix milliseconds: the last of the year 9999, which is the last that
/// RFC 3339 can write.
pub const TIMESTAMP_MS_MAX: u64 = 253_402_300_799_999;
