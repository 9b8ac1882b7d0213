//! What the edge WAL holds, for people and monitors: `GET /v1/wal`, and the answer to `POST /v1/wal/replay`.

use serde_json::{Map, Value, json};

use super::key;
use super::list;
use super::listing::{Listing, Sum};
use crate::config::{Config, WalBounds};
use crate::context::Context;
use crate::key_value::KeyValueError;
use crate::runtime::Runtime;

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalReport {
    listing: Listing,
    bounds: WalBounds,
    now_ms: u64,
    last_error: Value,
}

/// What the WAL holds; `None` where there is none.
///
/// # Errors
/// When the store does not say.
pub async fn report<R: Runtime>(context: &Context<'_, R>) -> Result<Option<WalReport>, KeyValueError> {
    let Some((listing, bounds)) = list(context).await?.zip(context.config.wal) else { return Ok(None) };
    let note = context.storage.get(key::ERROR_KEY.to_owned()).await?;
    let last_error = note.and_then(|note| serde_json::from_slice(&note).ok()).unwrap_or(Value::Null);
    Ok(Some(WalReport { listing, bounds, now_ms: context.now_ms, last_error }))
}

impl WalReport {
    /// The report as a JSON object.
    pub fn to_json(&self, config: &Config) -> Map<String, Value> {
        let partitions: Vec<Value> = self
            .listing
            .partitions()
            .map(|(partition, entries)| {
                let mut told = told(Sum::of(entries, self.now_ms));
                told.insert("partition".to_owned(), partition.get().into());
                // Of a batch that was routed when there were more partitions.
                told.insert("has_node".to_owned(), config.node_of(partition).is_some().into());
                told.into()
            })
            .collect();
        let mut report = told(Sum::of(self.listing.held(), self.now_ms));
        let (_, occupied_bytes) = self.listing.occupied();
        let more = json!({
            "wal": "on",
            "set_aside": self.listing.set_aside().len(),
            "incomplete": self.listing.torn().len(),
            "occupied_bytes": occupied_bytes,
            "bytes_max": self.bounds.bytes_max,
            "entries_max": self.bounds.entries_max,
            "last_error": self.last_error,
            "partitions": partitions,
        });
        if let Value::Object(more) = more {
            report.extend(more);
        }
        report
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.listing.is_empty()
    }
}

fn told(sum: Sum) -> Map<String, Value> {
    let Sum { entries, bytes, records, oldest_age_ms } = sum;
    let fields = [
        ("entries", json!(entries)),
        ("bytes", json!(bytes)),
        ("records", json!(records)),
        ("oldest_age_ms", json!(oldest_age_ms)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
