//! edgelog's ingest component: takes log records over HTTP, enriches them and delivers them to the storage nodes;
//! reads them back from there.
//!
//! `glue` (wasm only) → [`app`] → [`router`] → [`ingest`] and [`read`]; [`ingest`] → [`settle`] → [`wal`] →
//! [`delivery`] → [`storage`]. What a request does is a function of the request, the [`config`], the time, and what
//! [`storage`] and the [`key_value`] store answer; so everything but the glue compiles and is tested natively.
//!
//! Invariants: nothing per request outlives it; what all requests of an instance hold is bounded ([`budget`]); no
//! host but the configured storage nodes is called; nothing here panics, for a trap would take down the other requests
//! that the instance has in hand. What the component keeps is in the key-value store alone: it may run any number of
//! times, behind anything.

mod allowed_hosts;
pub mod answer;
pub mod app;
pub mod batch;
pub mod body;
pub mod budget;
pub mod client_ip;
pub mod clock;
pub mod config;
pub mod context;
pub mod decode;
pub mod delivery;
pub mod ingest;
pub mod instance;
pub mod key_value;
pub mod limits;
pub mod message;
pub mod query_string;
pub mod read;
pub mod record;
pub mod router;
pub mod runtime;
pub mod settle;
pub mod sparing;
pub mod split;
pub mod storage;
pub mod timestamp;
pub mod wal;

#[cfg(test)]
mod fake;
#[cfg(all(target_family = "wasm", feature = "component"))]
mod glue;
