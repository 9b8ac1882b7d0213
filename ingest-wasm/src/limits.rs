//! The component's own bounds, each with its reason. What clients must agree on is in [`model::limits`].

use std::time::Duration;

/// Bytes of bodies that all requests of one instance hold together: as received, decompressed, enriched and on their
/// way out. An instance has 128 MiB (hosted Spin gives no more); the rest is for the code, the stack, the heap's
/// slack and what is on its way out. A request of the largest size needs up to 90 MiB at its peak.
pub const BODIES_BYTES_MAX: usize = 96 << 20;

/// Bytes of one request's enriched records: the largest body, and 230 bytes of enrichment for each of the largest
/// number of records. Flattening repeats names, so it could else make far more of a body than was sent.
pub const ENRICHED_BYTES_MAX: usize = 40 << 20;

/// The first allocation for a body whose length is not announced; it doubles from there.
pub const BODY_BYTES_UNANNOUNCED: usize = 64 << 10;

/// How long a request's body may take to arrive. Spin has no limit of its own, and a slow client holds memory.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Bytes of a refused request's body that are read and thrown away before the answer, so that a client which sends
/// everything before it looks for an answer gets one, not a reset. Above the 100 MB of the largest sane mistake.
pub const DISCARD_BYTES_MAX: u64 = 128 << 20;

/// How long a refused body is read and thrown away.
pub const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes of a piece in which a refused body is thrown away.
pub const DISCARD_PIECE_BYTES: usize = 64 << 10;

/// Bytes that a zstd frame's window may have: as many as the content. A larger one only costs memory.
pub const ZSTD_WINDOW_BYTES_MAX: usize = model::limits::INGEST_BODY_BYTES_MAX;

/// Storage nodes in the configuration. A read asks each of them.
pub const STORAGE_NODES_MAX: usize = 64;

/// Bytes of a node's id. It is repeated in every record.
pub const NODE_ID_BYTES_MAX: usize = 64;

/// Forwards that one request has in flight. Each holds a connection of the runtime's pool.
pub const FORWARDS_AT_ONCE: usize = 64;

/// How long connecting to a storage node may take. They are near one another, or a retry is better than to wait.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// How long storage may take to answer an append: a sync of a busy disk, many times over. With the retry it stays
/// below the 10 s after which clients commonly give up.
pub const APPEND_TIME_MAX: Duration = Duration::from_secs(4);

/// How long storage may take to answer a read: a little more than it lets itself search.
pub const READ_TIME_MAX: Duration = Duration::from_secs(12);

/// How long an answer may pause once it has begun.
pub const BETWEEN_BYTES_TIME_MAX: Duration = Duration::from_secs(4);

/// Bytes of storage's answer to an append: a small object, or a problem.
pub const APPEND_ANSWER_BYTES_MAX: usize = 64 << 10;

/// Bytes of all nodes' answers to one read, shared equally between them.
pub const READ_ANSWERS_BYTES_MAX: usize = 48 << 20;

/// Attempts of one forward. A second one meets a restarted node or a fresh connection; more is the client's to decide.
pub const FORWARD_ATTEMPTS: u32 = 2;

/// The shortest pause before a forward is tried again, and how much chance adds to it at most: the retries of many
/// requests that failed at once must not come back at once.
pub const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(100));

/// How often one forward follows a `421` to the node that it names. Two nodes that name each other end there.
pub const LEADER_HOPS_MAX: u32 = 2;

/// When a client is told to come back, in seconds, where storage does not say.
pub const RETRY_AFTER_S: u64 = 1;

/// The longest that a client is told to stay away, in seconds.
pub const RETRY_AFTER_S_MAX: u64 = 60;

/// When a client is told to come back if a disk is full, in seconds: somebody has to make room.
pub const RETRY_AFTER_DISK_FULL_S: u64 = 10;

/// Labels of one record that want the same name: the first keeps it, the others get `_2`, `_3`, `_4`. Each one costs
/// a search through all names.
pub const LABELS_OF_ONE_NAME_MAX: usize = 4;

/// Labels that are compared each with each for equal names; with more, a sorted set is cheaper.
pub const LABELS_COMPARED_MAX: usize = 16;

/// The first allocation for a partition's records is no larger than this: what the others of a request turn out not
/// to need is then not much.
pub const FIRST_LINES_BYTES_MAX: usize = 4 << 20;

/// Bytes of a forward's body that are handed to the runtime at a time. Each piece is copied, because the body has to
/// stay for a retry; most batches are one piece.
pub const SEND_PIECE_BYTES: usize = 256 << 10;

/// Services whose partition is remembered within a request. Most requests have fewer; to look further than this
/// costs as much as the hash.
pub const RECENT_SERVICES: usize = 8;

/// Bytes of what an answer's header tells of other parties, such as the nodes that it lacks.
pub const HEADER_VALUE_BYTES_MAX: usize = 1024;
