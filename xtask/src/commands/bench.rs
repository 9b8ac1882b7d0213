//! `cargo xtask bench`.

use crate::bench::{cluster, component, ingest, query, scale, storage};

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Benchmark {
    /// The whole path: load generator, ingest-host with the component, two storage nodes, with fsync
    Ingest(ingest::IngestArguments),
    /// The component's record path: in wasm against native, and against other JSON parsers
    Component(component::ComponentArguments),
    /// Searches of a corpus, each with indexes and without, in one run
    Query(query::QueryArguments),
    /// Records/s and CPU by the number of ingests behind nginx
    Scale(scale::ScaleArguments),
    /// Three replicas of storage: CPU of a quorum against one copy, failover, refilling, and doing nothing
    Cluster(cluster::ClusterArguments),
    /// One storage node: appends against a bare loop, group commit, recovery; then the log engine's own benchmarks
    Storage(storage::StorageArguments),
}

/// Measures it.
///
/// # Errors
/// Something does not compile, a part died, or records were lost.
pub(crate) fn run(benchmark: &Benchmark) -> anyhow::Result<()> {
    match benchmark {
        Benchmark::Ingest(arguments) => ingest::run(arguments),
        Benchmark::Component(arguments) => component::run(arguments),
        Benchmark::Query(arguments) => query::run(arguments),
        Benchmark::Scale(arguments) => scale::run(arguments),
        Benchmark::Cluster(arguments) => cluster::run(arguments),
        Benchmark::Storage(arguments) => storage::run(arguments),
    }
}
