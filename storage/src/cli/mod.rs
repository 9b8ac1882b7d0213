//! The subcommands that look at a data directory, or put something into it, while no daemon runs on it; and those that
//! ask something of a running cluster.
//!
//! They write to what they are given and return what the exit code has to say; they depend on [`crate::log`] alone, but
//! for the doctor, who looks at the settings too, `operate`, which knows nodes by their HTTP interfaces alone, and
//! `forget`, which does both.

mod doctor;
mod forget;
mod import;
mod inspect;
mod operate;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use model::Partition;

use crate::log::{self, LogError};

pub use doctor::{DoctorArgs, doctor};
pub use forget::ForgetArgs;
pub use import::ImportArgs;
pub use operate::{DrainArgs, MoveArgs, OperateError};

/// A subcommand.
#[derive(Clone, Debug, Subcommand)]
pub enum Tool {
    /// Show a data directory's partitions and segments: offsets, times, sizes, health
    Inspect(DirArgs),
    /// Read everything and check every checksum; exit code 1 and the exact place if anything is damaged
    Verify(DirArgs),
    /// Append the records of a plain JSONL file, such as the Go service's partition-0.log
    Import(ImportArgs),
    /// Move every replica off a node of a running cluster, so that it can be stopped for good
    Drain(DrainArgs),
    /// Move one replica of a partition from a node of a running cluster to another
    Move(MoveArgs),
    /// Delete the files of replicas that a node of a cluster let go, while its daemon is stopped
    Forget(ForgetArgs),
}

/// What to look at.
#[derive(Args, Clone, Debug)]
pub struct DirArgs {
    /// A node's data directory, or one partition's
    pub dir: PathBuf,
    /// Answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a subcommand found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Sound,
    /// There is damage, which was named.
    Damaged,
}

/// Why a subcommand could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The log's error.
    #[error("{}{}", .0, advice(.0))]
    Log(LogError),
    /// The answer could not be written.
    #[error("could not write the answer: {0}")]
    Output(io::Error),
    /// The directory or file could not be read.
    #[error("could not read {}: {source}", path.display())]
    Read {
        /// What could not be read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There are no partitions there.
    #[error("{} holds no partitions: no directory named partition-N; say a node's data directory, such as data/node-1", .0.display())]
    NoPartitions(PathBuf),
    /// The partition to import into is not known.
    #[error("which partition is {} of? Its name does not begin with partition-N; say --partition N", .0.display())]
    NoPartitionNumber(PathBuf),
    /// A line of the file to import is no record. Nothing was imported.
    #[error("{} line {line} (byte {position}): {reason}; nothing was imported", path.display())]
    InvalidLine {
        /// The file.
        path: PathBuf,
        /// The line, from one.
        line: u64,
        /// Where it begins.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster did not do what it was asked.
    #[error(transparent)]
    Operate(OperateError),
}

impl From<LogError> for ToolError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// What to do about it, where that is not in the message.
fn advice(error: &LogError) -> &'static str {
    match error {
        LogError::Locked { .. } => "; stop the storage daemon that runs on this directory, and try again",
        LogError::UnknownFormat { .. } => "; use the newer edgelog that wrote it, nothing was changed",
        LogError::DiskFull => "; make room, and try again: what was imported already is not imported twice",
        LogError::GroupState { .. } => {
            "; a replica that forgot its vote must not vote: move its directory away, and it is filled anew"
        }
        LogError::Stopped { .. }
        | LogError::Damaged(_)
        | LogError::Committed { .. }
        | LogError::NoEntry { .. }
        | LogError::OtherOffset { .. }
        | LogError::Io { .. } => "",
    }
}

impl Tool {
    /// Does what was asked, and writes the answer to `out`.
    ///
    /// # Errors
    /// See [`ToolError`].
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome, ToolError> {
        match self {
            Self::Inspect(args) => inspect::inspect(args, out),
            Self::Verify(args) => verify::verify(args, out),
            Self::Import(args) => import::import(args, out),
            Self::Drain(args) => operate::drain(args, out),
            Self::Move(args) => operate::move_replica(args, out),
            Self::Forget(args) => forget::forget(args, out),
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Sound => Self::SUCCESS,
            Outcome::Damaged => Self::from(1),
        }
    }
}

/// Writes an answer as JSON.
fn write_json(out: &mut dyn Write, answer: &impl serde::Serialize) -> Result<(), ToolError> {
    serde_json::to_writer_pretty(&mut *out, answer).map_err(io::Error::from).map_err(ToolError::Output)?;
    writeln!(out).map_err(ToolError::Output)
}

/// The partitions below a node's data directory, in order; or the one, when it is a partition's own directory.
fn partitions_in(dir: &Path) -> Result<Vec<(Partition, PathBuf)>, ToolError> {
    let name_of =
        |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(log::partition_of_dir);
    if let Some(partition) = name_of(dir) {
        return Ok(vec![(partition, dir.to_owned())]);
    }
    let unreadable = |source| ToolError::Read { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if let Some(partition) = name_of(&path)
            && path.is_dir()
        {
            found.push((partition, path));
        }
    }
    found.sort_unstable();
    if found.is_empty() { Err(ToolError::NoPartitions(dir.to_owned())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{BatchDigest, BatchId, Tenant, ValidBatch};

    use super::*;
    use crate::log::{LogOptions, NewBatch, PartitionLog, RealDisk, partition_dir};

    /// A record's line, `number` seconds into 1970.
    pub(super) fn line(number: u64) -> String {
        let timestamp = number * 1000;
        format!(
            "{{\"timestamp\":{timestamp},\"service\":\"s\",\"message\":\"{number}\",\"received_at\":{timestamp},\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
        )
    }

    /// A data directory whose partitions hold as many batches, of one record each.
    pub(super) fn data_dir(batches: &[u64]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for (partition, batches) in (0..).map(Partition::new).zip(batches) {
            let dir = partition_dir(temp.path(), partition);
            let (mut log, _) =
                PartitionLog::open(Arc::new(RealDisk), &dir, partition, LogOptions::default(), 0).unwrap();
            let batches: Vec<NewBatch> = (1..=*batches)
                .map(|number| NewBatch {
                    batch: ValidBatch::from_ndjson(line(number).into()).unwrap(),
                    id: BatchId::derive(&Tenant::default(), &number.to_string(), partition),
                    digest: BatchDigest::from_u64(number),
                    appended_at_ms: 0,
                    term: 0,
                    log_index: 0,
                })
                .collect();
            log.append(&batches).unwrap();
            log.close().unwrap();
        }
        temp
    }

    pub(super) fn run_tool(tool: &Tool) -> (Result<Outcome, ToolError>, String) {
        let mut out = Vec::new();
        let outcome = tool.run(&mut out);
        (outcome, String::from_utf8(out).unwrap())
    }
}
