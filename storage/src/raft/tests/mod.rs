//! Replicas over disks that fail as told.

mod found_log;
mod simulation;
mod suite;
