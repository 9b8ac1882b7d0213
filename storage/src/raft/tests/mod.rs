//! Replicas over disks that fail as told.

mod suite;
