//! Records as Rust values, for programs that make or compare them: the load generator and the tests.
//!
//! The ingest and storage paths do not use these: they work on the records' texts (see [`crate::line`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A record as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it happened, Unix milliseconds.
    pub timestamp: u64,
    /// What logged it. Its hash decides the partition.
    pub service: String,
    /// Its severity, in the client's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The text.
    pub message: String,
    /// Further fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A record as it is stored: the client's, and what the ingest adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrichedRecord {
    /// When it happened, Unix milliseconds.
    pub timestamp: u64,
    /// What logged it.
    pub service: String,
    /// Its severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The text.
    pub message: String,
    /// Further fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When the ingest took it, Unix milliseconds.
    pub received_at: u64,
    /// The ingest node that took it.
    pub ingested_node_id: String,
    /// The address it came from, or `unknown`.
    pub client_ip: String,
}

impl EnrichedRecord {
    /// The record as its client sent it.
    pub fn into_record(self) -> Record {
        let Self { timestamp, service, level, message, labels, .. } = self;
        Record { timestamp, service, level, message, labels }
    }
}
