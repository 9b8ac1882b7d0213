//! How a node knows the others, and how they know it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use model::wire::Durability;
use url::Url;

use super::units::parse_duration;
use crate::limits;

/// How a node knows the others.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterConfig {
    /// The other storage nodes, by the URLs at which their clients reach them. This node's own among them does no harm
    #[arg(long, env = "EDGELOG_STORAGE_PEERS", value_delimiter = ',', value_parser = parse_node_url, value_name = "URL,URL")]
    pub peers: Vec<Url>,

    /// Nodes of a running cluster that this node joins, in the place of --peers: it hears of the others there, and they of
    /// it
    #[arg(long, env = "EDGELOG_STORAGE_JOIN", value_delimiter = ',', value_parser = parse_node_url, value_name = "URL,URL")]
    pub join: Vec<Url>,

    /// The URL at which the others reach this node; by default the address it listens on
    #[arg(long, env = "EDGELOG_STORAGE_ADVERTISE", value_parser = parse_node_url, value_name = "URL")]
    pub advertise: Option<Url>,

    /// Copies of each partition. With more than one, --partitions names those of the whole cluster, the same on all
    /// nodes, and the nodes agree on which of them hold each
    #[arg(long, env = "EDGELOG_STORAGE_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7), value_name = "N")]
    pub replicas: u16,

    /// How far a batch has got when its client is answered, where the client does not say: stored on its leader, on most
    /// replicas, or on all
    #[arg(long, env = "EDGELOG_STORAGE_ACKS", default_value = "quorum", value_name = "LEVEL")]
    pub acks: Acks,

    /// The address for what nodes say to one another; by default a free port of the address that clients use
    #[arg(long, env = "EDGELOG_STORAGE_INTERNAL_LISTEN", value_name = "ADDRESS")]
    pub internal_listen: Option<SocketAddr>,

    /// A file with the secret that the nodes of a cluster share; needed unless they meet on this machine alone
    #[arg(long, env = "EDGELOG_STORAGE_CLUSTER_SECRET_FILE", value_name = "FILE")]
    pub cluster_secret_file: Option<PathBuf>,

    /// The files for TLS between nodes.
    #[command(flatten)]
    pub tls: TlsFlags,

    /// Where the node stands: a partition's copies are spread over as many zones as there are
    #[arg(long, env = "EDGELOG_STORAGE_ZONE", value_name = "NAME")]
    pub zone: Option<String>,

    /// How long a node may be away before its replicas are filled anew on others, if there are others. All nodes should
    /// say the same
    #[arg(long, env = "EDGELOG_STORAGE_REPLACE_AFTER", default_value = "10m", value_parser = parse_replace_after, value_name = "TIME")]
    pub replace_after: Duration,

    /// How long a leader may be silent before another is elected, at most; all other times follow from it
    #[arg(long, env = "EDGELOG_STORAGE_ELECTION_TIMEOUT", default_value = "1s", value_parser = parse_election_timeout, value_name = "TIME")]
    pub election_timeout: Duration,
}

/// The files for TLS between nodes: all three, or none.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsFlags {
    /// A PEM file with this node's certificate and those between it and the authority's: nodes then talk by TLS alone,
    /// and each shows its own. Together with --cluster-key and --cluster-ca, on all nodes or on none
    #[arg(long, env = "EDGELOG_STORAGE_CLUSTER_CERT", value_name = "FILE")]
    pub cluster_cert: Option<PathBuf>,

    /// A PEM file with that certificate's private key
    #[arg(long, env = "EDGELOG_STORAGE_CLUSTER_KEY", value_name = "FILE")]
    pub cluster_key: Option<PathBuf>,

    /// A PEM file with the certificates of the authorities that the nodes' own are signed by; no others are trusted
    #[arg(long, env = "EDGELOG_STORAGE_CLUSTER_CA", value_name = "FILE")]
    pub cluster_ca: Option<PathBuf>,
}

impl ClusterConfig {
    /// The other nodes that the operator has named.
    pub fn named(&self) -> Vec<Url> {
        self.peers.iter().chain(&self.join).cloned().collect()
    }
}

/// How far a batch has got when its client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acks {
    /// Synced on the partition's leader.
    Leader,
    /// Synced on most replicas.
    Quorum,
    /// Synced on all replicas.
    All,
}

impl From<Acks> for Durability {
    fn from(acks: Acks) -> Self {
        match acks {
            Acks::Leader => Self::Leader,
            Acks::Quorum => Self::Quorum,
            Acks::All => Self::All,
        }
    }
}

/// Parses an election timeout: less than 200 ms is less than a disk's slow sync, a minute is no failover.
fn parse_election_timeout(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if (Duration::from_millis(200)..=Duration::from_secs(60)).contains(&time) {
        Ok(time)
    } else {
        Err("an election timeout is between 200ms and 60s".to_owned())
    }
}

/// Parses the time after which a node is replaced: a restart is no reason.
fn parse_replace_after(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time >= limits::NODE_SEEN_MAX * 2 {
        Ok(time)
    } else {
        Err(format!(
            "nodes are missed after {:?}; replace them after twice that, or later",
            limits::NODE_SEEN_MAX
        ))
    }
}

/// Parses a node's base URL: `http://HOST[:PORT]`.
pub(crate) fn parse_node_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() != "http"
        || url.host().is_none()
        || !matches!(url.path(), "" | "/")
        || url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err("a node is written as http://HOST:PORT".to_owned());
    }
    Ok(url)
}
