//! The ingest component.
pub mod batch;
pub mod body;
pub mod budget;
pub mod client_ip;
pub mod config;
pub mod decode;
pub mod limits;
pub mod message;
pub mod record;
pub mod split;
pub mod timestamp;
