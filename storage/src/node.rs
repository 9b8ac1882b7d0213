//! The composition root: opens the partitions' logs, starts their actors, serves, and stops all of it in order.
//!
//! Invariant: what can fail for a reason that an operator can mend fails before the node says that it listens. On the
//! way down the listener goes first, the requests under way are answered, and the logs are closed last.

mod replicated;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use model::Partition;
use model::wire::Durability;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock::unix_now_ms;
use crate::cluster::{self, ClusterView};
use crate::config::{ClusterConfig, Config, Fsync};
use crate::http::{self as api, App, ListeningServer, Readiness, Server, ServerOptions, Tails};
use crate::index::{Indexer, Indexes, PartitionIndex};
use crate::limits;
use crate::log::{self, LogError, LogOptions, PartitionLog, RealDisk, RecoveryReport};
use crate::metrics::Metrics;
use crate::notify;
use crate::offsets::{ConsumerOffsets, OffsetsError};
use crate::partition::{self, PartitionEndError, PartitionHandle, PartitionThread};
use crate::query::{Peers, Pool, Queries, TailBounds};
use crate::raft::{Cluster, FoundLog, SecretError};
use crate::tls::{NodeTls, TlsError};
use replicated::Replication;

/// Why a node could not start, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Threads or signals could not be had.
    #[error("the runtime could not be started: {0}")]
    Runtime(io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A partition's log could not be opened.
    #[error("partition {partition} in {}: {source}", dir.display())]
    Open {
        /// The partition.
        partition: Partition,
        /// Its directory.
        dir: PathBuf,
        /// What happened.
        source: LogError,
    },
    /// More other nodes are named than one node asks.
    #[error("{count} peers are named; a node asks at most {}", limits::OTHER_NODES_MAX)]
    Peers {
        /// How many.
        count: usize,
    },
    /// There is nothing to join where partitions have one copy.
    #[error("--join needs the cluster's --replicas, above 1")]
    JoinWithoutReplicas,
    /// Replicas count on each other's disks.
    #[error("--replicas above 1 needs --fsync always: a majority that has not synced is none")]
    FsyncWithReplicas,
    /// Nodes that meet on a network have to know one another.
    #[error(
        "nodes that meet at {address} need --cluster-secret-file; without it --internal-listen has to be a loopback address"
    )]
    NoSecret {
        /// The address.
        address: SocketAddr,
    },
    /// The cluster's secret cannot be had.
    #[error(transparent)]
    Secret(SecretError),
    /// The files for TLS between nodes are of no use.
    #[error("TLS between nodes: {0}")]
    Tls(TlsError),
    /// The other nodes that it knew cannot be had.
    #[error(
        "the nodes that it knew: {0} (bring the file back, or name all nodes by --peers and move it away)"
    )]
    Known(LogError),
    /// The node's identity cannot be had.
    #[error("the node's identity: {0}")]
    Identity(LogError),
    /// A replica could not be started.
    #[error("partition {partition}: {reason}")]
    Replica {
        /// The partition.
        partition: Partition,
        /// What happened.
        reason: String,
    },
    /// The data is that of a replica, and the node was started without replication.
    #[error("partition {partition} in {} is a replica of a cluster; start it with the cluster's --replicas and --peers", dir.display())]
    IsReplica {
        /// The partition.
        partition: Partition,
        /// Its directory.
        dir: PathBuf,
    },
    /// Standard output is gone.
    #[error("could not say where the node listens: {0}")]
    Announce(io::Error),
    /// Logs were not closed cleanly. Nothing acknowledged is lost; the next start has to recover.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    End(Vec<PartitionEndError>),
}

/// Whether the files that the settings name can be used, as far as that can be told before a start.
///
/// # Errors
/// As [`run`] would end.
pub fn check_files(config: &Config) -> Result<(), NodeError> {
    NodeTls::of(&config.cluster.tls).map(drop).map_err(NodeError::Tls)
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// See [`NodeError`].
pub fn run(config: &Config) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(config.http.threads())
        // Checks of large bodies share these threads with the queries, which bound themselves.
        .max_blocking_threads(usize::from(config.load.blocking_threads) * 2 + limits::TAIL_THREADS)
        .build()
        .map_err(NodeError::Runtime)?;
    let ended = runtime.block_on(serve(config));
    // Queries that still run are of no use to anybody any more.
    runtime.shutdown_background();
    ended
}

async fn serve(config: &Config) -> Result<(), NodeError> {
    // Signals are awaited before anything slow starts, so that one that comes early is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(NodeError::Runtime)?;
    let count = config.cluster.named().len();
    if count > limits::OTHER_NODES_MAX {
        return Err(NodeError::Peers { count });
    }
    // Before the logs: a second node on the same address is told so before it waits for their locks.
    let server = Server::bind(config.listen, server_options(config))
        .map_err(|source| NodeError::Listen { address: config.listen, source })?;
    let replication = Replication::of(config)?;
    let metrics = Metrics::of_node(&config.data, &config.partitions_sorted());
    let is_replicated = replication.is_some();
    let Started { mut partitions, threads, indexes, found } =
        start_partitions(config, &metrics, is_replicated)?;
    let indexer = Indexer::new(indexes.iter().cloned(), config.query.index_memory);
    let cluster = Arc::new(cluster_view(config, &server)?);
    let replicas = match replication {
        Some(replication) => Some(replication.start(config, &cluster, found, &mut partitions).await?),
        None => None,
    };
    let groups = replicas.as_ref().map(|running| Arc::clone(&running.cluster));
    let app = Arc::new(app(config, Arc::clone(&cluster), groups, partitions, indexes, metrics));
    let indexer = indexer.start().map_err(NodeError::Runtime)?;
    let server = server.listen().map_err(|source| NodeError::Listen { address: config.listen, source })?;
    announce(&server, config, &app)?;
    let watching = tokio::spawn(cluster::watch(cluster));
    let notifying = tokio::spawn(notify::notify_all(config.notify_ingest.clone()));
    let readiness = Readiness::default();
    let stop = async {
        stop_signal(&mut terminate, &mut interrupt).await;
        readiness.leave();
        tokio::time::sleep(config.http.drain).await;
        // While requests are still taken: they are told who leads now.
        if let Some(cluster) = &app.replication {
            cluster.hand_over_all().await;
        }
        // They would never end by themselves.
        app.tails.close();
    };
    server.serve(api::router_of(Arc::clone(&app), readiness.clone()), stop).await;
    notifying.abort();
    watching.abort();
    if let Some(replicas) = replicas {
        replicas.stop().await;
    }
    tokio::task::spawn_blocking(|| indexer.stop())
        .await
        .map_err(io::Error::other)
        .map_err(NodeError::Runtime)?;
    close_partitions(&app, threads).await
}

async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn server_options(config: &Config) -> ServerOptions {
    ServerOptions {
        connections_max: usize::try_from(config.http.connections).unwrap_or(usize::MAX),
        header_timeout: config.http.header_timeout,
        shutdown_grace: config.http.shutdown_grace,
    }
}

/// This node as the others know it, and the others.
fn cluster_view(config: &Config, server: &Server) -> Result<ClusterView, NodeError> {
    let address = server.local_address().map_err(NodeError::Announce)?;
    let (peers, ClusterConfig { advertise, .. }) = (config.cluster.named(), &config.cluster);
    if advertise.is_none() && address.ip().is_unspecified() && !peers.is_empty() {
        tracing::warn!(%address, "nobody else reaches this node at that address: tell the others another by --advertise");
    }
    let url = match advertise {
        Some(url) => url.clone(),
        None => format!("http://{address}").parse().map_err(io::Error::other).map_err(NodeError::Announce)?,
    };
    Ok(ClusterView::new(config.node_name(), &url, &peers))
}

fn app(
    config: &Config,
    cluster: Arc<ClusterView>,
    replication: Option<Arc<Cluster>>,
    partitions: Vec<PartitionHandle>,
    indexes: Vec<Arc<PartitionIndex>>,
    metrics: Metrics,
) -> App {
    let queries = Queries::new(indexes, Pool::new(config.load.blocking_threads.into()));
    App {
        cluster,
        queries,
        peers: Peers::new(&config.cluster.named()),
        offsets: if replication.is_none() { consumer_offsets(config) } else { BTreeMap::new() },
        replication,
        instance: HeaderValue::from_str(&uuid::Uuid::now_v7().to_string())
            .unwrap_or(HeaderValue::from_static("unknown")),
        tails: Tails::new(
            limits::TAILS_MAX,
            TailBounds { may_lag: config.cluster.replicas > 1, ..TailBounds::default() },
        ),
        metrics,
        durability: durability(config.log.fsync),
        body_timeout: config.http.body_timeout,
        body_bytes_max: config.load.body_bytes_max(),
        peer_bytes_per_second: config.load.peer_rate,
        partitions,
    }
}

/// What is written down of each partition's consumers. Where that cannot be read, records are served all the same.
fn consumer_offsets(config: &Config) -> BTreeMap<Partition, Result<ConsumerOffsets, OffsetsError>> {
    let open = |partition| {
        let offsets = ConsumerOffsets::open(Arc::new(RealDisk), &log::partition_dir(&config.data, partition));
        if let Err(error) = &offsets {
            tracing::error!(%partition, %error, "the offsets of consumers cannot be read");
        }
        (partition, offsets)
    };
    config.partitions_sorted().into_iter().map(open).collect()
}

/// What an answer's `Durability` header says: the level, and how it is weakened where the operator chose to.
fn durability(fsync: Fsync) -> HeaderValue {
    HeaderValue::from_static(match fsync {
        Fsync::Always => Durability::Leader.as_str(),
        Fsync::Interval => "leader; fsync=interval",
        Fsync::Never => "leader; fsync=never",
    })
}

/// The partitions of a node that has started, in order.
struct Started {
    partitions: Vec<PartitionHandle>,
    threads: Vec<PartitionThread>,
    indexes: Vec<Arc<PartitionIndex>>,
    /// With replication: what is known of each log.
    found: Vec<FoundLog>,
}

/// Opens all logs before any actor starts: a node with one bad partition leaves the others untouched.
fn start_partitions(config: &Config, metrics: &Metrics, is_replicated: bool) -> Result<Started, NodeError> {
    let wanted = config.partitions_sorted();
    warn_of_strangers(&config.data, &wanted);
    let options = config.log.log_options();
    let mut logs: Vec<(Partition, PartitionLog, RecoveryReport)> = wanted
        .into_iter()
        .map(|partition| {
            open_log(config, partition, options.clone()).map(|(log, report)| (partition, log, report))
        })
        .collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for (partition, log, report) in &mut logs {
        if is_replicated {
            found.push(replicated::prepare_log(*partition, log, report)?);
        } else {
            publish_all(config, *partition, log)?;
        }
    }
    let shared = Indexes::new(config.query.index_cache);
    let mut started = Started { partitions: Vec::new(), threads: Vec::new(), indexes: Vec::new(), found };
    for (partition, log, _) in logs {
        started.indexes.push(shared.partition(log.reader(), log.sidecars()));
        let counts = metrics.of_partition(partition);
        let (handle, thread) = partition::start(partition, log, config.load.queue_limits(), counts)
            .map_err(NodeError::Runtime)?;
        started.partitions.push(handle);
        started.threads.push(thread);
    }
    Ok(started)
}

fn open_log(
    config: &Config,
    partition: Partition,
    options: LogOptions,
) -> Result<(PartitionLog, RecoveryReport), NodeError> {
    let dir = log::partition_dir(&config.data, partition);
    let started = Instant::now();
    let (log, report) = PartitionLog::open(Arc::new(RealDisk), &dir, partition, options, unix_now_ms())
        .map_err(|source| NodeError::Open { partition, dir: dir.clone(), source })?;
    say_what_was_found(partition, &report, started);
    Ok((log, report))
}

/// One copy: what was found, and synced, is committed.
fn publish_all(config: &Config, partition: Partition, log: &mut PartitionLog) -> Result<(), NodeError> {
    let dir = log::partition_dir(&config.data, partition);
    let state =
        log.read_group_state().map_err(|source| NodeError::Open { partition, dir: dir.clone(), source })?;
    if state.is_some() {
        return Err(NodeError::IsReplica { partition, dir });
    }
    log.publish(log.written_end());
    Ok(())
}

fn say_what_was_found(partition: Partition, report: &RecoveryReport, started: Instant) {
    let ms = started.elapsed().as_millis();
    let RecoveryReport {
        segments,
        next_offset,
        was_closed,
        torn_bytes,
        lost_records,
        altered,
        rebuilt_indexes,
        damage,
    } = report;
    tracing::info!(%partition, segments, %next_offset, was_closed, torn_bytes, rebuilt_indexes, ms, "log opened");
    if *lost_records > 0 {
        tracing::error!(%partition, lost_records, "records that were synced are gone: the disk lost them, or a hand");
    }
    if altered.cut > 0 {
        tracing::error!(%partition, headers = altered.cut, "headers at the very end are not what was written, and no records are left of what they stood for");
    }
    for place in damage {
        tracing::error!(%partition, damage = %place, "damage; what surrounds it is served");
    }
}

/// A partition that lies here and is not served is most likely a mistyped flag.
fn warn_of_strangers(data: &Path, wanted: &[Partition]) {
    let Ok(entries) = std::fs::read_dir(data) else { return };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for partition in names.filter_map(|name| log::partition_of_dir(&name)) {
        if !wanted.contains(&partition) {
            tracing::warn!(%partition, data = %data.display(), "its data lies here, but this node does not serve it");
        }
    }
}

/// The one line on standard output: whoever started the node with port 0 reads the port there.
fn announce(server: &ListeningServer, config: &Config, app: &App) -> Result<(), NodeError> {
    let address = server.local_address().map_err(NodeError::Announce)?;
    let partitions = app.partitions.len();
    let (node, data) = (app.cluster.name(), config.data.display());
    tracing::info!(%node, %address, partitions, %data, version = env!("CARGO_PKG_VERSION"), "ready");
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on http://{address}")
        .and_then(|()| stdout.flush())
        .map_err(NodeError::Announce)
}

async fn close_partitions(app: &App, threads: Vec<PartitionThread>) -> Result<(), NodeError> {
    for held in &app.partitions {
        held.close();
    }
    let join_all = move || threads.into_iter().filter_map(|thread| thread.join().err()).collect::<Vec<_>>();
    let failures =
        tokio::task::spawn_blocking(join_all).await.map_err(io::Error::other).map_err(NodeError::Runtime)?;
    if failures.is_empty() { Ok(()) } else { Err(NodeError::End(failures)) }
}
