//! Replicas over disks that fail as told.

mod simulation;
mod suite;
