//! One record: from the text that a client sent to the line that storage keeps.
//!
//! [`scan`] walks the text once and notes its fields; [`Scanned::check`] applies the rules; [`write_line`] writes the
//! line. A record that needs no change is copied with the three enrichment fields spliced in before its closing
//! brace; others are written anew from slices of their text. Numbers keep their digits and strings their escapes in
//! either case. Most records are not even scanned: [`model::usual`] tells that they need no change.
//!
//! The rules, of which the tests hold a naive twin:
//! - `timestamp`: whole Unix milliseconds, or RFC 3339 text; without one (or with `null`) the time of receipt. Any
//!   other number, and digits in quotes, are refused: their unit would be a guess.
//! - `service`: text; absent, `null` or empty it is `unknown_service`.
//! - `level`: text or `null`; a number becomes text.
//! - `message`: text, and needed.
//! - `labels`: an object or `null`. Its members and all other top-level fields become labels: strings as they are,
//!   other scalars as text (`null` too), objects flattened with dots, empty objects and arrays as compact JSON text.
//! - `received_at`, `ingested_node_id` and `client_ip` are the ingest's own: a client's become labels of that name.
//! - Labels that want the same name: the first keeps it, members of `labels` before other fields; the others get
//!   `_2`, `_3`, `_4`.
//! - One of the five known fields twice is refused.
//!
//! Invariant: nothing that was sent is dropped silently. This module must not know of batches, partitions or HTTP.

mod check;
mod labels;
mod scan;
mod write;

use std::borrow::Cow;

pub use check::{Checked, Service};
pub use scan::{Scanned, scan};
pub use write::{Enrichment, write_line, write_usual_line};

/// The service of records that name none.
pub const UNKNOWN_SERVICE: &str = "unknown_service";

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {error}")]
pub struct Fault {
    /// The field at fault; empty when it is the record as a whole.
    pub field: &'static str,
    /// What is wrong with it.
    pub error: Cow<'static, str>,
}

impl Fault {
    /// This field has this fault.
    pub fn new(field: &'static str, error: impl Into<Cow<'static, str>>) -> Self {
        Self { field, error: error.into() }
    }
}

#[cfg(test)]
mod tests;
