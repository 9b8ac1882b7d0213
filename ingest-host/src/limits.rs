//! Every bound that this host sets, each with its reason.
//!
//! What an operator may want to change is a default here and a flag in [`crate::arguments`]; the rest is fixed.
//! Invariant: no quantity that grows with requests is without a bound in this file.

use std::time::Duration;

/// Requests that one instance answers before it is replaced: Spin's default, so that a leak shows here as there.
pub(crate) const INSTANCE_REQUESTS_MAX: usize = 128;

/// Requests that one instance has in hand at once: Spin's default.
pub(crate) const INSTANCE_CONCURRENCY_MAX: usize = 16;

/// How long an instance without work is kept, in milliseconds: Spin's default.
pub(crate) const INSTANCE_IDLE_MS: u64 = 1_000;

/// Linear memory of one instance. Hosted Spin gives 128 MiB: what fits here fits there.
pub(crate) const INSTANCE_MEMORY_BYTES_MAX: usize = 128 << 20;

/// Instances per shard. A shard runs one guest at a time; the others wait for storage or finish their work after
/// the response. More would cost memory and cache without being run.
pub(crate) const INSTANCES_PER_SHARD: usize = 4;

/// How long an instance that takes no more requests may go on working after its last response (Spin sets no
/// limit). Without one, a few stuck guests would use up the pool.
pub(crate) const AFTER_RESPONSE_MAX: Duration = Duration::from_secs(60);

/// Requests that wait for an instance, as a multiple of those that all instances can have in hand. Beyond it
/// the answer is 503 at once: a queue that long would only turn overload into time-outs.
pub(crate) const QUEUE_FACTOR: usize = 8;

/// Core instances, memories and tables inside one component instance. A component of spin-sdk has one module
/// with a memory and a few shims without.
pub(crate) const CORE_INSTANCES_PER_COMPONENT: u32 = 16;

/// Elements of one table of a guest: its function pointers, a few thousand in practice.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 50_000;

/// Bytes of linear memory that keep their pages when a slot is reused: zeroing them costs less than faulting
/// them in again, and more than this would be held for nothing by slots that are not in use.
pub(crate) const SLOT_RESIDENT_BYTES: usize = 1 << 20;

/// How often the epoch advances. A guest that computes for longer than this gives its thread back once, so
/// that deadlines and other instances get their turn.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(10);

/// Largest request body, in bytes. edgelog's component accepts less; this protects the host before it is asked.
pub(crate) const BODY_BYTES_MAX: u64 = 64 << 20;

/// How much of a refused body is read and thrown away, so that the client gets to read the refusal instead of
/// a connection reset.
pub(crate) const REFUSED_BODY_DRAIN_BYTES_MAX: u64 = 256 << 20;

/// How long that may take.
pub(crate) const REFUSED_BODY_DRAIN_MAX: Duration = Duration::from_secs(10);

/// Largest body that is received whole before an instance is asked. A client that sends slowly then occupies
/// no instance, and the guest reads it in few large pieces.
pub(crate) const BODY_GATHER_BYTES_MAX: u64 = 1 << 20;

/// Bytes of bodies that are being gathered at once, over all connections. Beyond it bodies are streamed.
pub(crate) const GATHERED_BYTES_MAX: usize = 64 << 20;

/// Longest wait for the next piece of a request's body.
pub(crate) const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Size of a request's head, in bytes. What Wasmtime lets a guest see is bounded to 128 KiB, overhead included.
pub(crate) const HEAD_BYTES_MAX: usize = 32 << 10;

/// Longest wait for a request's head, which is also how long a connection may stay without requests.
pub(crate) const HEADER_READ_MS_MAX: u64 = 30_000;

/// Longest time from a request's head to its response's head, in milliseconds. Hosted Spin has the same.
pub(crate) const REQUEST_MS_MAX: u64 = 30_000;

/// How long data for a client may stay unacknowledged before its connection is given up.
pub(crate) const CLIENT_STALL_MAX: Duration = Duration::from_secs(30);

/// Connections from clients. Further ones wait in the listener's backlog.
pub(crate) const CONNECTIONS_MAX: usize = 1_024;

/// Accepted connections that wait for their shard to look.
pub(crate) const HANDOVERS_MAX: usize = 64;

/// How long a shard's helper threads (name resolution) may take to end.
pub(crate) const THREADS_END_MAX: Duration = Duration::from_secs(1);

/// Length of the listener's backlog.
pub(crate) const LISTEN_BACKLOG: u32 = 1_024;

/// Pause after a failed accept (usually: no file descriptors left), so that the loop does not spin.
pub(crate) const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// hyper's buffer for one connection: also the largest piece in which a body arrives.
pub(crate) const CONNECTION_BUFFER_BYTES_MAX: usize = 1 << 20;

/// Time that requests in flight get after SIGTERM, in milliseconds.
pub(crate) const SHUTDOWN_GRACE_MS: u64 = 10_000;

/// Requests to storage in flight at once, per shard.
pub(crate) const OUTBOUND_REQUESTS_MAX: usize = 512;

/// Idle connections kept per storage node, per shard.
pub(crate) const OUTBOUND_IDLE_PER_HOST_MAX: usize = 64;

/// How long an idle connection to storage is kept: less than storage's own idle time-out, so that a request
/// rarely meets a connection that is being closed.
pub(crate) const OUTBOUND_IDLE: Duration = Duration::from_secs(15);

/// Time-outs of an outbound request whose guest sets none. Spin's 600 s would outlive every client.
pub(crate) const OUTBOUND_CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for the response's head when the guest sets no limit.
pub(crate) const OUTBOUND_FIRST_BYTE: Duration = Duration::from_secs(30);
/// Longest wait between two pieces of the response's body when the guest sets no limit.
pub(crate) const OUTBOUND_BETWEEN_BYTES: Duration = Duration::from_secs(30);
/// No guest can wait longer than this, whatever it asks for.
pub(crate) const OUTBOUND_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Operations that wait for the key-value store's thread. Beyond it callers wait to enqueue.
pub(crate) const KEY_VALUE_QUEUE: usize = 256;

/// How long a key-value store that was found without keys is taken to be so, unless this process sets one.
pub(crate) const KEY_VALUE_EMPTY_TIME: Duration = Duration::from_millis(250);

/// Operations that share one transaction, and so one set of syncs.
pub(crate) const KEY_VALUE_GROUP_MAX: usize = 64;

/// Longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 4 << 10;

/// Largest value, in bytes. Spin takes 100 MB; the component's memory does not allow for more than this anyway.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 20;

/// Bytes of keys that one listing returns. Beyond it the listing ends with an error, never silently short.
pub(crate) const KEY_LISTING_BYTES_MAX: usize = 64 << 20;

/// Stores that one instance has open at once.
pub(crate) const OPEN_STORES_MAX: usize = 256;

/// Longest line of a guest's output that is logged in one piece.
pub(crate) const GUEST_LOG_LINE_BYTES_MAX: usize = 8 << 10;

/// Size of a manifest, in bytes: far above any real one.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Longest wait for the component when the host asks it for its health or its edge WAL on behalf of a monitor.
pub(crate) const OWN_ROUTE_MAX: Duration = Duration::from_secs(3);

/// Largest answer of the component to the host itself: a report of a thousand partitions.
pub(crate) const OWN_ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long `/readyz` says no before a shutdown begins, in milliseconds: none, unless there is a balancer that asks.
pub(crate) const DRAIN_MS: u64 = 0;
