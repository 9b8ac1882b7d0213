//! Replication: one consensus group for each partition, with the partition's log as its log.
//!
//! The consensus itself is a library's ([openraft](https://docs.rs/openraft)); here is what it stands on: [`store`] and
//! [`machine`] over a partition's log.
//!
//! Invariants: what is acknowledged at `quorum` is on the disks of a majority; nothing is read that is not committed;
//! a replica that lost its disk comes back under another name. Depends on [`crate::partition`] and [`crate::log`];
//! must not know of the routes for clients.

mod recent;
mod state;
mod types;

mod machine;
mod snapshot;
mod store;

#[cfg(test)]
mod tests;

pub use machine::StateMachine;
pub use store::{FoundLog, FoundLogError, LogStore};
pub use types::{Member, NodeId, TypeConfig};
