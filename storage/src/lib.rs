//! edgelog's storage daemon: partitions of plain JSONL, made durable, read back and searched.
//!
//! Dependencies point one way: `main → node → http → {query, partition} → log → model`. [`log`] is synchronous and
//! knows neither tokio nor HTTP; [`partition`] owns one log each; [`node`] puts the parts together.

pub mod cli;
mod clock;
pub mod cluster;
pub mod config;
pub mod http;
pub mod index;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod node;
mod notify;
pub mod offsets;
pub mod outbound;
pub mod partition;
pub mod query;
pub mod raft;
#[cfg(test)]
mod simulated;
pub mod tls;
