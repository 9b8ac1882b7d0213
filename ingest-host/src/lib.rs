//! A small Wasmtime host for edgelog's ingest component (spin-sdk 7, `wasi:http/handler@0.3.0`).
//!
//! It is not a replacement for Spin, but what it does, it does as Spin does: the manifest, variables, the key-value
//! store, the reuse of instances, `spin-client-addr`. Unlike Spin it bounds everything (`limits`).
//!
//! Dependencies point one way: `main → host → server → shard → service → instance → worker → engine → guest →
//! {key_value, outbound_client} → {variables, outbound, manifest}`; the last three are pure.

pub mod arguments;
pub mod host;

mod bindings;
mod body;
mod engine;
mod guest;
mod guest_log;
mod instance;
mod key_value;
mod limits;
mod manifest;
mod metrics;
mod outbound;
mod outbound_client;
mod own_routes;
mod problem;
mod server;
mod service;
mod shard;
mod variables;
mod worker;
