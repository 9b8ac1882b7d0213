//! The harness of the end-to-end tests: real `storage` and `ingest-host` processes on free ports, faults, and an
//! oracle that compares what was acknowledged with what is stored.
//!
//! Dependencies point one way: `cluster → {node, ingest} → process → programs`; `load → {client, oracle} → records`.
//! Invariant: what a test started ends with it, its logs are printed when it fails, and nothing here sleeps where an
//! event can be awaited. The harness must know edgelog by what it promises to clients and operators alone: its
//! HTTP interface, its command lines and its files.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness that fails fails its test, at the place where it failed"
)]

pub mod certificates;
pub mod client;
pub mod cluster;
pub mod files;
pub mod history;
pub mod ingest;
pub mod isolated;
pub mod load;
pub mod node;
pub mod oracle;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod random;
pub mod recorder;
pub mod records;
mod replicas;
pub mod stand_in;
pub mod tail;
pub mod tools;
pub mod wait;

pub use client::{Answer, Client};
pub use cluster::{Cluster, ClusterSpec};
pub use ingest::Ingest;
pub use node::Node;
pub use oracle::Oracle;
pub use proxy::{Fault, Proxy};
pub use stand_in::StandIns;
pub use wait::eventually;
