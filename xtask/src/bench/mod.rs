//! Measurements of whole processes, on this machine, against the floor of its disk in the same run.
//!
//! Invariant: what a figure is of was checked (every record is on the disk) before the figure is shown. Rounds of
//! what is compared take turns: a machine's speed swings more than what is measured.

mod bodies;
pub(crate) mod cluster;
pub(crate) mod component;
mod disk_usage;
mod figures;
mod floor;
pub(crate) mod ingest;
mod load;
mod parts;
mod post;
pub(crate) mod query;
pub(crate) mod scale;
pub(crate) mod storage;
