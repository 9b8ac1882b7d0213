//! What travels between edgelog's processes: records, batches, ids, routing, wire structs, limits, problem JSON.
//!
//! Invariant: everything here is a function of its arguments. This crate must not know of clocks, sockets, files
//! or an async runtime, so that it builds for wasm and native alike and cannot fail for reasons of its own.

pub mod batch;
pub mod batches;
pub mod bytes;
pub mod cluster;
pub mod ids;
pub mod json;
pub mod limits;
pub mod line;
pub mod outbound;
pub mod problem;
pub mod record;
pub mod route;
pub mod trace;
pub mod usual;
pub mod wire;

pub use batch::{BatchError, ValidBatch};
pub use ids::{BatchDigest, BatchId, Offset, Partition, PartitionCount, Tenant};
pub use line::{EnrichedLine, LineError};
pub use problem::Problem;
pub use record::{EnrichedRecord, Record};
