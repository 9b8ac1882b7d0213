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

/// Requests of several batches that one request has in flight beside those.
pub const TOGETHER_AT_ONCE: usize = 32;

/// How long connecting to a storage node may take. They are near one another, or a retry is better than to wait.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// How long storage may take to answer an append.
pub const APPEND_TIME_MAX: Duration = model::limits::APPEND_TIME_MAX;

/// How long the rest of storage's answer to an append may take: it is small.
pub const APPEND_REST_TIME_MAX: Duration = Duration::from_secs(1);

/// How long all attempts of a request's forwards may take. With the last one's connecting, the rest of its answer and a
/// write to the edge WAL it stays below the 10 s after which clients commonly give up.
pub const DELIVERY_TIME_MAX: Duration = Duration::from_secs(6);

/// An attempt for which less time than this is left is not made.
pub const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(100);

/// How long storage may take to answer a read: a little more than it lets itself search.
pub const READ_TIME_MAX: Duration = Duration::from_secs(12);

/// How long an answer may pause once it has begun.
pub const BETWEEN_BYTES_TIME_MAX: Duration = Duration::from_secs(4);

/// Bytes of storage's answer to an append: a small object, or a problem.
pub const APPEND_ANSWER_BYTES_MAX: usize = 64 << 10;

/// Bytes of batches that go to a node in one request. A larger one has little left to share, and would make all wait for
/// it.
pub const TOGETHER_BYTES_MAX: usize = 512 << 10;

/// Bytes of a batch that goes with others: so many that a few fit into one request.
pub const TOGETHER_BATCH_BYTES_MAX: usize = 128 << 10;

/// Bytes that a batch among others takes beside its lines.
pub const TOGETHER_HEAD_BYTES: usize = 160;

/// Bytes of storage's answer to such a request: a small object for each batch, or a problem.
pub const TOGETHER_ANSWER_BYTES_MAX: usize = 256 << 10;

/// How long a node that does not know such requests is spared them: until it may have been replaced by a newer one.
pub const TOGETHER_UNKNOWN_AGE_MAX: Duration = Duration::from_secs(30);

/// Bytes of all nodes' answers to one read, shared equally between them.
pub const READ_ANSWERS_BYTES_MAX: usize = 48 << 20;

/// Attempts of one forward, the first included. They meet a restarted node, a fresh connection, a queue with room.
pub const FORWARD_ATTEMPTS: u32 = 4;

/// The ceiling of the first pause before a forward is tried again; it doubles from there.
pub const RETRY_PAUSE_FIRST_MAX: Duration = Duration::from_millis(50);

/// Where that ceiling stops.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// One retry is earned by so many forwards: when a node fails, its load grows by no more than a tenth.
pub const RETRY_SHARE_INVERSE: u32 = 10;

/// Retries beyond that share: a request of few batches that meets a restarted node gets its second attempt.
pub const RETRY_BURST: u32 = 8;

/// Consecutive failures to reach a node after which it is left alone.
pub const CIRCUIT_FAILURES_MAX: u32 = 3;

/// How long it is left alone first; each time it still fails, twice as long.
pub const CIRCUIT_OPEN_FIRST: Duration = Duration::from_millis(500);

/// Where that stops: also how long the return of a node may stay unnoticed.
pub const CIRCUIT_OPEN_MAX: Duration = Duration::from_secs(4);

/// When an attempt that finds out whether a node is back counts as lost: all its time limits together.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(5);

/// How often one forward goes to another node because one says that it does not lead, or is left alone. Two nodes that
/// name each other end there.
pub const LEADER_HOPS_MAX: u32 = 2;

/// How long it is taken for granted who leads a partition, or that nobody else ever will. What is wrong earlier than that
/// shows itself.
pub const LEADER_AGE_MAX: Duration = Duration::from_secs(30);

/// How long an election may take that is waited for, from when a partition was found without a leader. What takes longer
/// is no election; the edge WAL or the client takes the records then, at once.
pub const ELECTION_TIME_MAX: Duration = Duration::from_secs(4);

/// The least time between two looks for leaders by one instance, and what one batch waits at most until it looks again.
pub const LOOK_PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`LOOK_PAUSE_MIN`].
pub const LOOK_PAUSE_MAX: Duration = Duration::from_millis(150);

/// Nodes that one look asks at most, one after another. The next look begins with others.
pub const LOOK_NODES_MAX: usize = 4;

/// How long a node may take to say who leads. It has the answer in memory.
pub const LOOK_TIME_MAX: Duration = Duration::from_millis(500);

/// How long a read that was not answered looks for another node.
pub const READ_LOOK_TIME_MAX: Duration = Duration::from_secs(1);

/// Bytes of that answer: as many partitions as there may be, five copies each.
pub const CLUSTER_ANSWER_BYTES_MAX: usize = 2 << 20;

/// Bytes of what is repeated of a node's reason for a refusal.
pub const REASON_BYTES_MAX: usize = 512;

/// When a client is told to come back, in seconds, where storage does not say.
pub const RETRY_AFTER_S: u64 = 1;

/// The longest that a client is told to stay away, in seconds.
pub const RETRY_AFTER_S_MAX: u64 = 60;

/// When a client is told to come back if a disk is full, in seconds: somebody has to make room.
pub const RETRY_AFTER_DISK_FULL_S: u64 = 10;

/// When a client is told to come back if the edge WAL is full, in seconds: a node has to come back and take some of it.
pub const RETRY_AFTER_WAL_FULL_S: u64 = 2;

/// Bytes of lines in one value of the edge WAL. Hosted Spin takes values below 1 MB. (In the tests small batches have
/// several pieces too.)
pub const WAL_PIECE_BYTES_MAX: usize = if cfg!(test) { 500 } else { 960_000 };

/// Pieces of one batch that are written or deleted at once: they share a sync where the store groups them.
pub const WAL_PIECES_AT_ONCE: usize = 4;

/// Entries whose deletion may be put off until they are deleted together. A crash before that costs as many
/// repetitions, which storage knows.
pub const WAL_DELETIONS_PUT_OFF_MAX: usize = 16;

/// How long a request waits for its partition's older entries to reach storage, so that it can follow them there,
/// before it joins them in the WAL. This is what slows clients down until the WAL is empty.
pub const WAL_WAIT_MAX: Duration = Duration::from_secs(1);

/// The pause of a request that waits while another one replays, and how much chance adds to it.
pub const WAL_WAIT_PAUSE: Duration = Duration::from_millis(5);

/// How long the pieces of an entry may be incomplete before they are dropped: far beyond the time of any write. It was
/// never acknowledged, or is stored.
pub const WAL_TORN_AGE_MS_MAX: u64 = 10 * 60 * 1_000;

/// Keys that are taken from a listing at a time.
pub const KEYS_AT_ONCE: usize = 256;

/// The least time between two notes of an error in the store by one instance: each costs a sync.
pub const ERROR_NOTE_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of an error's text that are kept.
pub const ERROR_BYTES_MAX: usize = 512;

/// A replay after a response: entries and bytes of each partition, time, partitions at once. Small, for it runs beside
/// live requests.
pub const REPLAY_AFTER_RESPONSE: (usize, u64, Duration, usize) = (256, 32 << 20, Duration::from_secs(2), 2);

/// A replay on demand: as much as fits into the time.
pub const REPLAY_ON_DEMAND: (usize, u64, Duration, usize) = (usize::MAX, u64::MAX, Duration::from_secs(8), 4);

/// What goes on after the answer to a replay on demand that left something: a node that is back is told of everything
/// though nobody asks again. Below the minute that an instance has after its last response.
pub const REPLAY_AFTER_DEMAND: (usize, u64, Duration, usize) =
    (usize::MAX, u64::MAX, Duration::from_secs(30), 4);

/// The pause between the rounds of such a replay.
pub const REPLAY_PAUSE: Duration = Duration::from_millis(500);

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

/// Bytes of the copies that one request has in flight.
pub const SENDING_BYTES_MAX: usize =
    FORWARDS_AT_ONCE * SEND_PIECE_BYTES + TOGETHER_AT_ONCE * TOGETHER_BYTES_MAX;

/// Services whose partition is remembered within a request. Most requests have fewer; to look further than this
/// costs as much as the hash.
pub const RECENT_SERVICES: usize = 8;

/// Bytes of what an answer's header tells of other parties, such as the nodes that it lacks.
pub const HEADER_VALUE_BYTES_MAX: usize = 1024;
