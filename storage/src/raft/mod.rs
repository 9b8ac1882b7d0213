//! Replication: one consensus group for each partition, with the partition's log as its log.
//!
//! The consensus itself is a library's ([openraft](https://docs.rs/openraft)); here is what it stands on: `store` and
//! `machine` over a partition's log.
//!
//! Invariants: what is acknowledged at `quorum` is on the disks of a majority; nothing is read that is not committed;
//! a replica that lost its disk comes back under another name. Depends on [`crate::partition`] and [`crate::log`];
//! must not know of the routes for clients.

mod identity;
mod recent;
mod secret;
mod state;
mod timing;
mod types;

mod machine;
mod snapshot;
#[expect(clippy::result_large_err, reason = "the library's errors are of a size that it chose")]
mod store;

mod client;
mod codec;
mod directory;
mod network;

mod cluster;
mod commits;
mod found_log;
mod freshness;
mod group;
mod handover;
mod known;
mod meeting;
mod members;
mod moving;
mod overview;
mod patience;
mod placement;
mod plan;
mod proposals;
mod reads;
mod refusals;
mod room;
mod succession;

#[cfg(test)]
mod tests;

pub use client::NodeClient;
pub use cluster::{Cluster, ClusterParts, Own};
pub use codec::{Addressed, Answer, LightRequest};
pub use commits::CommitError;
pub use directory::{Directory, NodeCard, internal_at};
pub use found_log::{FoundLog, FoundLogError};
pub use group::{Group, GroupParts, GroupStatus, MemberStatus};
pub use identity::{HexId, Identity};
pub use known::read as read_known;
pub use machine::StateMachine;
pub use meeting::{Introduced, Introduction};
pub use moving::{Move, MoveError};
pub use network::Network;
pub use overview::Heard;
pub use reads::ReadError;
pub use room::Room;
pub use secret::{Secret, SecretError};
pub use snapshot::{Offer, PieceOf};
pub use store::LogStore;
pub use timing::Timing;
pub use types::{Member, NodeId, SavedVote, TypeConfig};
