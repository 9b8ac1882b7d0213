//! Replicas over disks that fail as told.

mod cluster;
mod commits;
mod found_log;
mod handover;
mod net;
mod reads;
mod replica;
mod simulation;
mod suite;
mod wire;
