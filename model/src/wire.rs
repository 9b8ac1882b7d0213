//! The names of headers and the shapes of bodies between edgelog's processes and their clients.

use serde::{Deserialize, Serialize};

use crate::ids::Offset;

pub use crate::cluster::{ClusterAnswer, ClusterNode, PartitionState, Replica, ReplicaRole};

/// A client's key that makes a retry of the same request safe.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The id of one partition's batch, a UUID: storage takes each once.
pub const BATCH_ID: &str = "batch-id";
/// A digest of what the client sent for the batch, 16 hexadecimal digits (see [`crate::BatchDigest`]).
pub const BATCH_DIGEST: &str = "batch-digest";
/// How durable a request's records have to be before they are acknowledged: a level of [`Durability`] above
/// [`Durability::Edge`].
pub const ACKS: &str = "acks";
/// How durable an answer's records are: see [`Durability`].
pub const DURABILITY: &str = "durability";
/// The name of the ingest node that sends an append, for counts.
pub const INGEST_NODE: &str = "ingest-node";
/// Which attempt of an append it is, from 1; absent from the first.
pub const BATCH_ATTEMPT: &str = "batch-attempt";
/// The URL of the node that takes a partition's appends, in the `421` of one that does not.
pub const LEADER: &str = "leader";
/// Of a read: [`SCOPE_NODE`] asks for what this node itself holds, and not for the whole cluster's.
pub const SCOPE: &str = "edgelog-scope";
/// The value of [`SCOPE`] that asks one node for its own.
pub const SCOPE_NODE: &str = "node";
/// The value of [`SCOPE`] in the answer of a node that asked the others too; one that did not says [`SCOPE_NODE`].
pub const SCOPE_CLUSTER: &str = "cluster";
/// How many records were rejected for which of their fields, as in `message=2, labels=1`; [`REJECTED_WHOLE`] stands for
/// the record as a whole.
pub const REJECTED_FIELDS: &str = "rejected-fields";
/// See [`REJECTED_FIELDS`].
pub const REJECTED_WHOLE: &str = "record";
/// Names what an answer lacks, and why; absent from whole answers.
pub const PARTIAL: &str = "partial";

/// How many milliseconds old may be what an answer was made of, where partitions have several copies; or
/// [`STALENESS_UNKNOWN`].
pub const STALENESS: &str = "edgelog-staleness";
/// The value of [`STALENESS`] of a replica that has not heard of its leader since its start.
pub const STALENESS_UNKNOWN: &str = "unknown";

/// Newline-delimited JSON: one value a line.
pub const NDJSON: &str = "application/x-ndjson";
/// JSON.
pub const JSON: &str = "application/json";

/// How far an acknowledged record has got. Ordered: a later one survives more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// In the ingest's own log at the edge, on its way to storage.
    Edge,
    /// Synced on the leader of its partition.
    Leader,
    /// Synced on a majority of the partition's replicas.
    Quorum,
    /// Synced on every replica.
    All,
}

impl Durability {
    /// The header's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Leader => "leader",
            Self::Quorum => "quorum",
            Self::All => "all",
        }
    }

    /// The level that the value of [`ACKS`] asks for, if it is one that may be asked for.
    pub fn parse_acks(text: &str) -> Option<Self> {
        Self::parse(text).filter(|level| *level != Self::Edge)
    }

    /// The level of this header value, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Edge, Self::Leader, Self::Quorum, Self::All].into_iter().find(|level| level.as_str() == text)
    }
}

/// The ingest's answer to `POST /v1/logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestAnswer {
    /// Records that were taken.
    pub received: usize,
    /// Those of them that are in the edge WAL, on their way to storage.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub queued: usize,
    /// Records that were not taken: how many of [`Self::rejected`] there are in truth, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_total: Option<usize>,
    /// The records that were not taken, at most [`crate::limits::REJECTED_LISTED_MAX`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A record that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its place in the request, from zero.
    pub index: usize,
    /// The field at fault; empty when the record as a whole is.
    pub field: String,
    /// What is wrong with it.
    pub error: String,
}

/// Storage's answer to `POST /v1/storage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendAnswer {
    /// Records of the batch.
    pub stored: u64,
    /// The offset of the batch's first record.
    pub offset: Offset,
}

/// One service, in storage's answer to `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCount {
    /// The service's name.
    pub service: String,
    /// Its records on this node.
    pub records: u64,
}
