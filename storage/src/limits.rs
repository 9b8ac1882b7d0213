//! The daemon's own bounds, each with its reason. What clients must agree on is in [`model::limits`].

use std::time::Duration;

/// Bytes of a request's head (request line and headers). Our longest are a search's parameters; 64 KiB leaves room
/// for a needle of many escaped bytes, and is what an idle connection can make us hold.
pub const REQUEST_HEAD_BYTES_MAX: usize = 64 << 10;

/// Headers of one request.
pub const REQUEST_HEADERS_MAX: usize = 64;

/// Bytes that one read from a socket may take. A batch of 1,000 records is some 250 KB: it should arrive in few
/// reads, each of which costs a system call and a wake-up.
pub const READ_BUFFER_BYTES_MAX: usize = 1 << 20;

/// Bytes of a refused request's body that are read and thrown away before the answer, so that a client which sends
/// everything before it looks for an answer gets one, not a reset. Above the 100 MB of the largest sane mistake.
pub const DISCARD_BYTES_MAX: u64 = 128 << 20;

/// How long a refused body is read and thrown away.
pub const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a request waits for room in the byte budget before it is told to come back. Waiting is back-pressure
/// that costs nothing; a client should still hear from us before its own time-out.
pub const BODY_BUDGET_WAIT_MAX: Duration = Duration::from_secs(2);

/// The first allocation for a body whose length is not announced; it doubles from there.
pub const BODY_BYTES_UNANNOUNCED: usize = 64 << 10;

/// Bodies above this are checked on a blocking thread: at 1.7 GB/s a smaller one keeps an async worker for less than
/// a millisecond, which is cheaper than handing it over.
pub const CHECK_INLINE_BYTES_MAX: usize = 1 << 20;

/// Partitions that an error names.
pub const PARTITIONS_NAMED_MAX: usize = 16;

/// How often a replica that cannot write its vote looks whether there is room by now.
pub const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

/// Bytes that one group commit appends. More would only make the first waiter wait longer for the sync of the rest.
pub const ROUND_BYTES_MAX: usize = 8 << 20;

/// Bytes of entries that one request between replicas carries, beyond the first: a lagging replica catches up in few
/// requests, and none of them takes longer than its time-out.
pub const REPLICATE_BYTES_MAX: u64 = 4 << 20;

/// Bytes of one request with records between replicas: a whole round, of which the last batch may be one of the largest.
pub const REPLICATE_BODY_BYTES_MAX: usize =
    REPLICATE_BYTES_MAX as usize + ROUND_BYTES_MAX + 2 * model::limits::APPEND_BODY_BYTES_MAX;

/// Bytes that stay free on a replica's disk: its votes, its segments' headers and what deletes them need some.
pub const REPLICA_FREE_BYTES_MIN: u64 = 8 << 20;

/// Heartbeats and votes that travel to a node in one request: those of all partitions there may sensibly be.
pub const LIGHT_REQUESTS_MAX: usize = 1024;

/// How long a heartbeat waits for those of other partitions: far less than anybody waits for it.
pub const LIGHT_REQUESTS_WAIT: Duration = Duration::from_millis(2);

/// Bytes of an answer between nodes: a card with all of a node's partitions is the largest.
pub const NODE_ANSWER_BYTES_MAX: usize = 4 << 20;

/// How long a connection to another node may take.
pub const NODE_CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// The pause before a replica that was not reached is tried again.
pub const NODE_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How often a node asks the others who they are, once all are known.
pub const NODE_ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The same while some are not known yet: the cluster waits for it.
pub const NODE_ASK_INTERVAL_FIRST: Duration = Duration::from_millis(100);

/// How long another node may take to say who it is.
pub const NODE_ASK_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a node counts as alive after it was heard.
pub const NODE_SEEN_MAX: Duration = Duration::from_secs(5);

/// How often a replica writes down how far its log is known to be committed: what a start after a crash need not find
/// out again.
pub const APPLIED_SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long one piece of a copy between replicas may take: 4 MiB over a slow line.
pub const COPY_PIECE_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a whole copy may take before the leader asks again; what was copied by then stays.
pub const COPY_TIME_MAX: Duration = Duration::from_secs(3600);

/// How long a node that takes the place of a lost one may take to be filled, before it is looked again who is there: a
/// copy, and what was written meanwhile.
pub const REPLACE_TIME_MAX: Duration = Duration::from_secs(2 * 3600);

/// How long a group's members may take to agree to others.
pub const MEMBERS_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a node may take to hear that it votes no more: then it is let go without.
pub const LET_GO_TIME_MAX: Duration = Duration::from_secs(10);

/// Partitions of a cluster that are moved at once: each is a copy that takes disks and network from all the rest.
pub const MOVES_MAX: usize = 2;

/// Batch ids of each partition that are kept in memory: at 1,000 batches a second what the last quarter of a minute
/// wrote, where nearly all retries fall. Older ids are looked up in the log's id lists.
pub const HOT_BATCH_IDS_MAX: usize = 16_384;

/// The longest that a client is told to stay away.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How long a query waits for a free thread before it is told to come back.
pub const QUERY_WAIT_MAX: Duration = Duration::from_millis(500);

/// Threads of one query that has to look at most lines, if so many are free.
pub const QUERY_THREADS_MAX: usize = 4;

/// How long one query may scan. It then answers with what it found, and says so.
pub const QUERY_TIME_MAX: Duration = Duration::from_secs(10);

/// Values of `service`, and of `level`, in one search: each is compared with every name there is.
pub const QUERY_NAMES_MAX: usize = 64;

/// Filters on labels and messages in one search: each may be tried on every record.
pub const QUERY_FILTERS_MAX: usize = 32;

/// Bytes of a text to find, and of a label's value.
pub const QUERY_TEXT_BYTES_MAX: usize = 4096;

/// Buckets of a histogram when the request does not say: about one for each dozen pixels.
pub const HISTOGRAM_BUCKETS_DEFAULT: u64 = 60;

/// Buckets of a histogram.
pub const HISTOGRAM_BUCKETS_MAX: usize = 1000;

/// Levels that a histogram tells apart; what others there are is counted together.
pub const HISTOGRAM_LEVELS_MAX: usize = 64;

/// Records on each side in the context of a record, when the request does not say.
pub const CONTEXT_DEFAULT: usize = 10;

/// Records on each side in the context of a record.
pub const CONTEXT_MAX: usize = 1000;

/// Bytes on each side that are read for the context of a record, in search of records of its service.
pub const CONTEXT_SCAN_BYTES_MAX: u64 = 64 << 20;

/// Records that a tail begins with, when the request does not say.
pub const TAIL_LAST_DEFAULT: usize = 10;

/// Records that a tail begins with.
pub const TAIL_LAST_MAX: usize = 1000;

/// Bytes of the records that a tail begins with.
pub const TAIL_BEGIN_BYTES_MAX: usize = 4 << 20;

/// Tails that a node serves at once, those for other nodes included. Each may hold some pieces.
pub const TAILS_MAX: usize = 64;

/// When to come back for a tail when there are that many: some people stop looking every minute.
pub const TAILS_RETRY_AFTER: Duration = Duration::from_secs(10);

/// Records of a partition that may wait for a tail's reader; whoever is further behind misses some. It is what ten
/// seconds of a busy partition bring: more would not be "now" any more.
pub const TAIL_BEHIND_MAX: u64 = 100_000;

/// Bytes of records in one piece of a tail: of each tail one is made, one waits, and one is being sent.
pub const TAIL_PIECE_BYTES: usize = 128 << 10;

/// Bytes that are looked at for one piece, where batches are smaller than that.
pub const TAIL_PIECE_SCAN_BYTES_MAX: usize = 8 << 20;

/// How long one piece may take.
pub const TAIL_PIECE_TIME_MAX: Duration = Duration::from_secs(2);

/// The shortest time between two looks at what is new: eyes do not see more, and each look takes a thread.
pub const TAIL_PAUSE_MIN: Duration = Duration::from_millis(50);

/// Threads for tails: they do not take those of searches.
pub const TAIL_THREADS: usize = 2;

/// After how much silence a tail says that it is alive.
pub const TAIL_HEARTBEAT: Duration = Duration::from_secs(15);

/// The pause between two looks of a tail whether the replicas that it reads are in touch with the others.
pub const TAIL_TOUCH_PAUSE: Duration = Duration::from_millis(500);

/// After how much silence another node's tail is given up: three heartbeats.
pub const PEER_TAIL_SILENCE_MAX: Duration = Duration::from_secs(45);

/// How long a tail waits for other nodes before it begins without them. They join it when they come.
pub const PEER_TAIL_BEGIN_MAX: Duration = Duration::from_secs(2);

/// Pause before another node's tail is tried again; it doubles from there.
pub const PEER_TAIL_PAUSE_MIN: Duration = Duration::from_millis(250);

/// The longest such pause.
pub const PEER_TAIL_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Bytes of one line of another node's tail: the largest record, its place, and the positions of all partitions.
pub const PEER_TAIL_LINE_BYTES_MAX: usize = model::limits::RECORD_BYTES_MAX + (64 << 10);

/// Bytes of records that are read for the names and values of labels, the newest first: some tenth of a second.
pub const LABELS_SCAN_BYTES_MAX: u64 = 64 << 20;

/// Names or values of labels that are counted apart.
pub const LABELS_COUNTED_MAX: usize = 100_000;

/// Names or values of labels in an answer, when the request does not say.
pub const LABELS_LISTED_DEFAULT: usize = 100;

/// Other storage nodes that one node asks.
pub const OTHER_NODES_MAX: usize = 64;

/// How long a connection to another node may take to come about.
pub const PEER_CONNECT_MAX: Duration = Duration::from_secs(1);

/// How long another node's answer may take: as long as a query, and its way. Whoever asked this node, as an ingest
/// does, waits a second longer, and gets what there is.
pub const PEER_TIME_MAX: Duration = Duration::from_secs(11);

/// How long an unused connection to another node is kept.
pub const PEER_IDLE_MAX: Duration = Duration::from_secs(60);

/// Unused connections that are kept to each other node.
pub const PEER_IDLE_CONNECTIONS_MAX: usize = 8;

/// Bytes of another node's answer: those of a whole one, and its records' places.
pub const PEER_ANSWER_BYTES_MAX: usize = model::limits::QUERY_ANSWER_BYTES_MAX + (1 << 20);

/// Bytes of other nodes' answers in the whole process.
pub const PEER_ANSWERS_BYTES_MAX: usize = 2 * PEER_ANSWER_BYTES_MAX;

/// How long another node's answer waits for room.
pub const PEER_ROOM_WAIT_MAX: Duration = Duration::from_secs(1);

/// Bytes of finished answers that wait for slow readers, in the whole process.
pub const ANSWER_BYTES_WAITING_MAX: usize = 2 * model::limits::QUERY_ANSWER_BYTES_MAX;

/// Bytes that `GET /v1/read` fetches at a time, where batches are smaller than that.
pub const READ_CHUNK_BYTES: usize = 256 << 10;

/// How long a peer may leave our answer unread before its connection is closed: it holds the answer's memory.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// Services that are counted apart. 50,000 with names of 30 bytes are 5 MB.
pub const SERVICES_COUNTED_MAX: usize = 50_000;

/// Bytes of records without an index that are read at a time, unless one batch is larger.
pub const UNINDEXED_UNIT_BYTES: u64 = 1 << 20;

/// Length of the listener's backlog: connections that wait to be accepted.
pub const LISTEN_BACKLOG: u32 = 1024;

/// How long another node may take to agree on TLS: two ways there and back, and a signature on each side.
pub const TLS_HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// Lines a minute that the log has of connections which did not agree on TLS: anybody can make some.
pub const TLS_FAILURES_TOLD_MAX: u32 = 12;

/// Pause after a failed accept.
pub const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Peer addresses whose rate is remembered at once; those that have been quiet are forgotten first.
pub const PEERS_MAX: usize = 4096;

/// Bytes of another node's name that are kept.
pub const NODE_NAME_BYTES_MAX: usize = 256;

/// How often the other nodes are asked what they lead: a request of some hundred bytes on a connection that stays.
pub const CLUSTER_ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The least pause between two such rounds, when clients want to know.
pub const CLUSTER_ASK_PAUSE_MIN: Duration = Duration::from_millis(100);

/// How long another node may take to answer. It has the answer in memory.
pub const CLUSTER_ASK_TIME_MAX: Duration = Duration::from_secs(1);

/// Bytes of that answer: as many partitions as there may be, five copies each.
pub const CLUSTER_ANSWER_BYTES_MAX: usize = 2 << 20;

/// How long another node's word is taken: an answer may be lost.
pub const PEER_SEEN_MAX: Duration = Duration::from_secs(4);

/// Entries without records, as of consumers that move, since the last record came: a segment cannot be ended before it has
/// records, and so many take 8 MiB.
pub const IDLE_ENTRIES_MAX: u32 = 65_536;

/// Bytes of a consumer's name.
pub const CONSUMER_BYTES_MAX: usize = 128;

/// Consumers of one partition whose offsets are kept: the file is written whole at each change.
pub const CONSUMERS_MAX: usize = 1000;

/// Bytes of that file: so many names and offsets of the longest kind, with room.
pub const CONSUMERS_FILE_BYTES_MAX: u64 = 256 << 10;

/// Bytes of a request that sets a consumer's offsets: of as many partitions as there may be.
pub const OFFSETS_BODY_BYTES_MAX: usize = 64 << 10;

/// Ingest nodes that are told when this node becomes ready.
pub const NOTIFIED_INGESTS_MAX: usize = 64;

/// Attempts to tell one ingest node. It replays by itself too, after its next successful forward.
pub const NOTIFY_ATTEMPTS: usize = 6;

/// The pause before the second attempt; it doubles from there, with jitter.
pub const NOTIFY_PAUSE_MIN: Duration = Duration::from_millis(250);

/// How long one attempt may take: a replay answers once its budget is used.
pub const NOTIFY_TIME_MAX: Duration = Duration::from_secs(30);

/// How often a partition's log is maintained: rolled by age, retained, compressed. An age is told in hours; a second
/// is exact enough and costs nothing.
pub const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// How much longer than a step of compression the pause after it is: appends keep four fifths of the actor's time, and
/// a core that compresses 250 MB/s still keeps up with 50 MB/s of records.
pub const MAINTENANCE_PAUSES: u32 = 4;

/// Ingest nodes that have counters of their own: more than anybody runs, and few enough for any Prometheus.
pub const INGEST_NODES_COUNTED_MAX: usize = 64;

/// Bytes of an ingest node's name that may be a label's value.
pub const INGEST_NODE_NAME_BYTES_MAX: usize = 64;
