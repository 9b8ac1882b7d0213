//! What an operator can set, as flags and as `EDGELOG_STORAGE_*` variables, with defaults for one small node.
//!
//! Invariant: a [`Config`] holds values that were checked one by one; what depends on the machine (a free port, a
//! writable directory) is checked by [`crate::node`].

pub mod cluster;
pub mod file;
mod settings;
pub mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use model::Partition;
use url::Url;

pub use settings::{LogArguments, Settings};

use crate::log::{FsyncPolicy, LogOptions};
use crate::partition::QueueLimits;
pub(crate) use cluster::parse_node_url;
pub use cluster::{ClusterConfig, TlsFlags};
use units::{Age, parse_age, parse_bytes, parse_duration, parse_memory_bytes};

/// All settings of the daemon.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// The address to serve on; port 0 takes a free one
    #[arg(long, env = "EDGELOG_STORAGE_LISTEN", default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// The directory of this node's data; created if there is none
    #[arg(long, env = "EDGELOG_STORAGE_DATA", default_value = "data/node-1", value_name = "DIR")]
    pub data: PathBuf,

    /// The partitions this node holds, as the first of two nodes does by default (the second holds 2,3)
    #[arg(
        long,
        env = "EDGELOG_STORAGE_PARTITIONS",
        default_value = "0,1",
        value_delimiter = ',',
        value_name = "N,N"
    )]
    pub partitions: Vec<Partition>,

    /// The node's name in answers; by default the data directory's
    #[arg(long, env = "EDGELOG_STORAGE_NODE_ID", value_name = "NAME")]
    pub node_id: Option<String>,

    /// Ingest nodes that are told, once this node is ready, to replay what they hold for it
    #[arg(long, env = "EDGELOG_STORAGE_NOTIFY_INGEST", value_delimiter = ',', value_parser = parse_node_url, value_name = "URL,URL")]
    pub notify_ingest: Vec<Url>,

    /// How the node knows the others.
    #[command(flatten)]
    pub cluster: ClusterConfig,

    /// How the log is kept.
    #[command(flatten)]
    pub log: LogConfig,

    /// How much work is taken on at once.
    #[command(flatten)]
    pub load: LoadConfig,

    /// How records are searched.
    #[command(flatten)]
    pub query: QueryConfig,

    /// How connections are served.
    #[command(flatten)]
    pub http: HttpConfig,
}

/// How the log is kept.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogConfig {
    /// A segment is sealed at this size
    #[arg(long, env = "EDGELOG_STORAGE_SEGMENT_BYTES", default_value = "256MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub segment_bytes: u64,

    /// A segment is sealed at this age
    #[arg(long, env = "EDGELOG_STORAGE_SEGMENT_AGE", default_value = "1d", value_parser = parse_duration, value_name = "TIME")]
    pub segment_age: Duration,

    /// The oldest segments of a partition are deleted above this size; without it, never for their size
    #[arg(long, env = "EDGELOG_STORAGE_RETENTION_BYTES", value_parser = parse_bytes, value_name = "SIZE")]
    pub retention_bytes: Option<u64>,

    /// Segments are deleted at this age; without it, never for their age
    #[arg(long, env = "EDGELOG_STORAGE_RETENTION_AGE", value_parser = parse_duration, value_name = "TIME")]
    pub retention_age: Option<Duration>,

    /// Sealed segments are compressed at this age, or `never`: until then grep reads them as they are
    #[arg(long, env = "EDGELOG_STORAGE_COMPRESS_AGE", default_value = "1d", value_parser = parse_age, value_name = "TIME")]
    pub compress_age: Age,

    /// When records are forced to the disk: before they are acknowledged, at intervals, or whenever the system does
    #[arg(long, env = "EDGELOG_STORAGE_FSYNC", default_value = "always", value_name = "POLICY")]
    pub fsync: Fsync,

    /// The interval of `--fsync interval`: what a power cut can lose
    #[arg(long, env = "EDGELOG_STORAGE_FSYNC_INTERVAL", default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    pub fsync_interval: Duration,
}

/// When records are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    /// Before they are acknowledged.
    Always,
    /// At intervals: a crash of the machine loses acknowledged records of the last one.
    Interval,
    /// When the operating system does.
    Never,
}

/// How much work is taken on at once.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub struct LoadConfig {
    /// Bytes of batches that may wait for one partition's disk
    #[arg(long, env = "EDGELOG_STORAGE_QUEUE_BYTES", default_value = "32MiB", value_parser = parse_memory_bytes, value_name = "SIZE")]
    pub queue_bytes: usize,

    /// Batches that may wait for one partition's disk
    #[arg(long, env = "EDGELOG_STORAGE_QUEUE_REQUESTS", default_value_t = 1024, value_name = "N")]
    pub queue_requests: usize,

    /// Bytes of bodies that may be received, checked and waiting in the whole process; at least one largest body
    #[arg(long, env = "EDGELOG_STORAGE_BODY_BYTES", default_value = "64MiB", value_parser = parse_memory_bytes, value_name = "SIZE")]
    pub body_bytes: usize,

    /// Bytes of appends that one peer address may send in a second, a burst of one largest body aside; without it, any
    #[arg(long, env = "EDGELOG_STORAGE_PEER_RATE", value_parser = parse_bytes, value_name = "SIZE")]
    pub peer_rate: Option<u64>,

    /// Threads for reads and searches: so many run at once
    #[arg(long, env = "EDGELOG_STORAGE_BLOCKING_THREADS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=512), value_name = "N")]
    pub blocking_threads: u16,
}

/// How records are searched.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Search")]
pub struct QueryConfig {
    /// Memory for the indexes of active segments; what is appended beyond it is searched without one
    #[arg(long, env = "EDGELOG_STORAGE_INDEX_MEMORY", default_value = "64MiB", value_parser = parse_memory_bytes, value_name = "SIZE")]
    pub index_memory: usize,

    /// Memory for the indexes of sealed segments, which lie beside them
    #[arg(long, env = "EDGELOG_STORAGE_INDEX_CACHE", default_value = "24MiB", value_parser = parse_memory_bytes, value_name = "SIZE")]
    pub index_cache: usize,
}

/// How connections are served.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct HttpConfig {
    /// Threads that serve connections and check what they bring; by default half as many as there are cores, as the
    /// partitions, the index and the queries have threads of their own
    #[arg(long = "http-threads", env = "EDGELOG_STORAGE_HTTP_THREADS", value_parser = clap::value_parser!(u16).range(1..=512), value_name = "N")]
    pub threads: Option<u16>,

    /// Connections that are served at once; more wait to be accepted
    #[arg(long, env = "EDGELOG_STORAGE_CONNECTIONS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536), value_name = "N")]
    pub connections: u32,

    /// Time for a request's head, counted from the answer before: an idle connection is closed after it
    #[arg(long, env = "EDGELOG_STORAGE_HEADER_TIMEOUT", default_value = "75s", value_parser = parse_duration, value_name = "TIME")]
    pub header_timeout: Duration,

    /// Time for a request's whole body
    #[arg(long, env = "EDGELOG_STORAGE_BODY_TIMEOUT", default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub body_timeout: Duration,

    /// Time after SIGTERM in which `/readyz` says no while requests are still taken, for a balancer to notice
    #[arg(long, env = "EDGELOG_STORAGE_DRAIN", default_value = "0s", value_parser = parse_duration, value_name = "TIME")]
    pub drain: Duration,

    /// Time for requests under way when the daemon is told to stop
    #[arg(long, env = "EDGELOG_STORAGE_SHUTDOWN_GRACE", default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub shutdown_grace: Duration,
}

impl Config {
    /// The node's name: as set, or the data directory's, or `node`.
    pub fn node_name(&self) -> String {
        let from_data = || self.data.file_name().map(|name| name.to_string_lossy().into_owned());
        self.node_id.clone().or_else(from_data).unwrap_or_else(|| "node".to_owned())
    }

    /// The partitions in order, each once.
    pub fn partitions_sorted(&self) -> Vec<Partition> {
        let mut partitions = self.partitions.clone();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }
}

impl HttpConfig {
    /// The threads that serve connections.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.map_or_else(|| (cores() / 2).max(1), usize::from)
    }
}

impl LoadConfig {
    /// The bounds of each partition's queue.
    pub fn queue_limits(&self) -> QueueLimits {
        QueueLimits { bytes_max: self.queue_bytes, requests_max: self.queue_requests }
    }

    /// Bytes of bodies in the process: as set, and at least one largest body, which could never be taken else.
    pub fn body_bytes_max(&self) -> usize {
        self.body_bytes.max(model::limits::APPEND_BODY_BYTES_MAX)
    }
}

impl LogConfig {
    /// The log's options.
    pub fn log_options(&self) -> LogOptions {
        LogOptions {
            segment_bytes_max: self.segment_bytes,
            segment_age_max: self.segment_age,
            retention_bytes: self.retention_bytes,
            retention_age: self.retention_age,
            compress_age: self.compress_age.0,
            fsync: self.fsync_policy(),
            ..LogOptions::default()
        }
    }

    fn fsync_policy(&self) -> FsyncPolicy {
        match self.fsync {
            Fsync::Always => FsyncPolicy::Always,
            Fsync::Interval => FsyncPolicy::Interval(self.fsync_interval),
            Fsync::Never => FsyncPolicy::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn config(arguments: &[&str]) -> Config {
        let command = Config::augment_args(clap::Command::new("storage"));
        let matches = command.try_get_matches_from(["storage"].iter().chain(arguments)).unwrap();
        Config::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn the_flags_defaults_are_those_of_the_log() {
        assert_eq!(config(&[]).log.log_options(), LogOptions::default());
    }

    #[test]
    fn nodes_are_named_by_their_base_urls() {
        let named = config(&["--peers", "http://a:1,http://b:2/", "--advertise", "http://c:3"]).cluster;
        let peers: Vec<&str> = named.peers.iter().map(Url::as_str).collect();
        assert_eq!(peers, ["http://a:1/", "http://b:2/"]);
        assert_eq!(named.advertise.unwrap().as_str(), "http://c:3/");
        for wrong in [
            "a:1",
            "https://a:1",
            "http://a:1/v1",
            "http://a:1?x",
            "http://a:1#x",
            "http://u@a:1",
            "http://:p@a:1",
            "http://",
        ] {
            assert!(parse_node_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_option_of_the_log_has_a_flag() {
        let flags = "--segment-bytes 1MiB --segment-age 1h --retention-bytes 1GB --retention-age 7d \
                     --compress-age never --fsync interval --fsync-interval 200ms";
        let arguments: Vec<&str> = flags.split_whitespace().collect();
        let expected = LogOptions {
            segment_bytes_max: 1 << 20,
            segment_age_max: Duration::from_secs(3600),
            retention_bytes: Some(1_000_000_000),
            retention_age: Some(Duration::from_secs(7 * 24 * 3600)),
            compress_age: None,
            fsync: FsyncPolicy::Interval(Duration::from_millis(200)),
            ..LogOptions::default()
        };
        assert_eq!(config(&arguments).log.log_options(), expected);
    }
}
