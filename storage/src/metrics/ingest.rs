//! What arrives from each ingest node. The component cannot keep counters of its own where the runtime starts and
//! ends its instances; storage sees all that it delivers.
//!
//! Invariant: at most [`limits::INGEST_NODES_COUNTED_MAX`] nodes have a name here, whatever is sent.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::limits;

/// Who says no name.
const UNKNOWN: &str = "unknown";
/// Who comes when as many names are known as may be, or has a name that is none.
const OTHER: &str = "other";

/// The counters by ingest node.
#[derive(Debug)]
pub struct IngestNodes {
    known: RwLock<BTreeMap<String, Delivered>>,
    batches: Family<NodeLabel, Counter>,
    records: Family<NodeLabel, Counter>,
    bytes: Family<NodeLabel, Counter>,
    retries: Family<NodeLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    ingest_node: String,
}

/// The counters of one.
#[derive(Clone, Debug)]
struct Delivered {
    batches: Counter,
    records: Counter,
    bytes: Counter,
    retries: Counter,
}

impl IngestNodes {
    pub(super) fn registered(r: &mut Registry) -> Self {
        let nodes = Self {
            known: RwLock::default(),
            batches: Family::default(),
            records: Family::default(),
            bytes: Family::default(),
            retries: Family::default(),
        };
        let help = "Batches that this node took, by the ingest node that sent them";
        r.register("ingest_delivered_batches", help, nodes.batches.clone());
        let help = "Records of these";
        r.register("ingest_delivered_records", help, nodes.records.clone());
        let help = "Bytes of these";
        r.register_with_unit("ingest_delivered", help, Unit::Bytes, nodes.bytes.clone());
        let help = "Appends that reached this node as a repetition, by the ingest node that sent them";
        r.register("ingest_delivered_retries", help, nodes.retries.clone());
        nodes
    }

    /// Counts a batch that was taken.
    pub fn note_taken(&self, node: Option<&str>, records: u32, bytes: usize) {
        let of = self.of(node);
        of.batches.inc();
        of.records.inc_by(records.into());
        of.bytes.inc_by(bytes as u64);
    }

    /// Counts an append that is not the first attempt.
    pub fn note_retry(&self, node: Option<&str>) {
        self.of(node).retries.inc();
    }

    fn of(&self, node: Option<&str>) -> Delivered {
        let name = node.map_or(UNKNOWN, |name| if is_name(name) { name } else { OTHER });
        if let Some(known) = self.known.read().get(name) {
            return known.clone();
        }
        let mut known = self.known.write();
        let is_full = known.len() >= limits::INGEST_NODES_COUNTED_MAX;
        let name = if is_full && name != UNKNOWN { OTHER } else { name };
        known.entry(name.to_owned()).or_insert_with(|| self.counters(name)).clone()
    }

    fn counters(&self, name: &str) -> Delivered {
        let label = NodeLabel { ingest_node: name.to_owned() };
        Delivered {
            batches: self.batches.get_or_create_owned(&label),
            records: self.records.get_or_create_owned(&label),
            bytes: self.bytes.get_or_create_owned(&label),
            retries: self.retries.get_or_create_owned(&label),
        }
    }
}

/// Whether a header's value may be a label's.
fn is_name(text: &str) -> bool {
    (1..=limits::INGEST_NODE_NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}
