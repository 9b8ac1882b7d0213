//! The scenarios: what edgelog promises, tried on real processes.
//!
//! One binary, for the time that linking takes. A module is a promise, a test a case of it; a test ends by comparing
//! what was acknowledged with what can be read.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

mod bad_input;
mod configuration;
mod crashes;
mod delivery;
mod delivery_limits;
mod delivery_wal;
mod deploy;
mod discovery;
mod enrichment;
mod failover;
mod idempotency;
mod life_cycle;
mod loadgen;
mod log_engine;
mod membership;
mod monitoring;
mod node_down;
mod observability;
mod placement;
mod reading;
mod replication;
mod round_trip;
mod scale_out;
mod storage_api;
mod tail;
mod upgrade;
