//! Replicas over disks that fail as told.

mod found_log;
mod net;
mod replica;
mod simulation;
mod suite;
