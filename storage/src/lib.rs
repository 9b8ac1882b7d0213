//! edgelog's storage daemon: partitions of plain JSONL, made durable, read back and searched.
//!
//! Dependencies point one way: `main → node → http → {query, partition} → log → model`. [`log`] is synchronous and
//! knows neither tokio nor HTTP; [`partition`] owns one log each; [`node`] puts the parts together.

pub mod cli;
pub mod log;
