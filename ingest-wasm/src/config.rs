//! The configuration: the application's variables, checked once.
//!
//! Invariant: a [`Config`] can be worked with; every error names the variable at fault. This module must not know
//! where the variables' values come from.

use std::fmt;
use std::num::NonZeroU16;

use http::Uri;
use http::uri::Scheme;
use model::{Partition, PartitionCount, json, route};

use crate::allowed_hosts::AllowedHosts;
use crate::client_ip::TrustedProxies;
use crate::limits;

/// The names of the variables, as in `spin.toml`.
pub const VARIABLES: [&str; 11] = [
    NODE_ID,
    STORAGE_NODES,
    PARTITIONS,
    TRUSTED_PROXIES,
    WAL,
    WAL_BYTES_MAX,
    WAL_ENTRIES_MAX,
    STORAGE_HOSTS[0],
    STORAGE_HOSTS[1],
    STORAGE_HOSTS[2],
    STORAGE_HOSTS[3],
];

const NODE_ID: &str = "node_id";
const STORAGE_NODES: &str = "storage_nodes";
const PARTITIONS: &str = "partitions";
const TRUSTED_PROXIES: &str = "trusted_proxies";
const WAL: &str = "wal";
const WAL_BYTES_MAX: &str = "wal_bytes_max";
const WAL_ENTRIES_MAX: &str = "wal_entries_max";
const STORAGE_HOSTS: [&str; 4] = ["storage_hosts", "storage_hosts_2", "storage_hosts_3", "storage_hosts_4"];

/// What the component works with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name, which every record gets.
    pub node_id: String,
    /// The storage nodes that are known from the start, in the order that decides which partitions each holds as long as
    /// nothing else is known.
    pub storage_nodes: Vec<StorageNode>,
    /// The hosts that may be called.
    pub allowed_hosts: AllowedHosts,
    /// How many partitions there are.
    pub partitions: PartitionCount,
    /// The proxies whose word on the client's address is taken.
    pub trusted_proxies: TrustedProxies,
    /// The bounds of the edge WAL; `None` where it is off.
    pub wal: Option<WalBounds>,
}

/// How much the edge WAL may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalBounds {
    /// Bytes of all values.
    pub bytes_max: u64,
    /// Batches.
    pub entries_max: u64,
}

/// A storage node: a scheme, a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageNode {
    /// Whether it is spoken to over TLS.
    pub is_tls: bool,
    /// Its host and port, as in a URL.
    pub authority: String,
}

/// A variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variable `{variable}` {reason}")]
pub struct ConfigError {
    /// The variable's name.
    pub variable: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl ConfigError {
    /// This variable has this fault.
    pub fn new(variable: &'static str, reason: impl Into<String>) -> Self {
        Self { variable, reason: reason.into() }
    }
}

impl Config {
    /// Checks the values of [`VARIABLES`], in that order.
    ///
    /// # Errors
    /// Names the variable at fault.
    pub fn new(values: &[String; VARIABLES.len()]) -> Result<Self, ConfigError> {
        let [
            node_id,
            storage_nodes,
            partitions,
            trusted_proxies,
            wal,
            wal_bytes_max,
            wal_entries_max,
            hosts @ ..,
        ] = values;
        let partitions: Option<u16> = partitions.trim().parse().ok();
        let partitions = partitions.and_then(PartitionCount::new).ok_or_else(|| {
            let reason = format!("has to be a whole number from 1 to {}", model::limits::PARTITIONS_MAX);
            ConfigError::new(PARTITIONS, reason)
        })?;
        Ok(Self {
            node_id: parse_node_id(node_id.trim())?,
            storage_nodes: parse_storage_nodes(storage_nodes)?,
            allowed_hosts: parse_allowed_hosts(hosts)?,
            partitions,
            trusted_proxies: trusted_proxies
                .parse()
                .map_err(|reason: String| ConfigError::new(TRUSTED_PROXIES, reason))?,
            wal: parse_wal(wal.trim(), wal_bytes_max.trim(), wal_entries_max.trim())?,
        })
    }

    /// The node that holds a partition, as the configuration deals them. `None` for a partition that does not exist.
    pub fn node_of(&self, partition: Partition) -> Option<&StorageNode> {
        let place = route::default_node(partition, self.partitions, self.storage_nodes.len())?;
        self.storage_nodes.get(place)
    }

    /// The node that this URL means, if it may be called: it is one of the configuration, or its host is allowed.
    pub fn node_at(&self, url: &str) -> Option<StorageNode> {
        let node = StorageNode::parse(url.trim()).ok()?;
        (self.storage_nodes.contains(&node) || self.allowed_hosts.allow(&node)).then_some(node)
    }

    /// The node's name as JSON.
    pub fn node_id_json(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.node_id.len() + 2);
        json::append_string(&mut text, &self.node_id);
        text
    }
}

impl StorageNode {
    /// The node of a URL such as `http://10.0.0.1:8081`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "is not a URL")?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err("has to begin with http:// or https://"),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("has no host")?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("has a path: only a host and a port are needed");
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let port = match authority.strip_prefix(host) {
            None => return Err("has a user name: only a host and a port are needed"),
            Some("") if is_tls => 443,
            Some("") => 80,
            Some(port) => {
                let number = port.strip_prefix(':').and_then(|digits| digits.parse().ok());
                number.map(NonZeroU16::get).ok_or("has a port that is not a number from 1 to 65535")?
            }
        };
        Ok(Self { is_tls, authority: format!("{}:{port}", host.to_ascii_lowercase()) })
    }
}

impl fmt::Display for StorageNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.is_tls { "s" } else { "" }, self.authority)
    }
}

fn parse_node_id(text: &str) -> Result<String, ConfigError> {
    let length_fits = (1..=limits::NODE_ID_BYTES_MAX).contains(&text.len());
    if !length_fits || text.chars().any(char::is_control) {
        let reason = format!("has to be 1 to {} bytes without control characters", limits::NODE_ID_BYTES_MAX);
        return Err(ConfigError::new(NODE_ID, reason));
    }
    Ok(text.to_owned())
}

fn parse_allowed_hosts(values: &[String; STORAGE_HOSTS.len()]) -> Result<AllowedHosts, ConfigError> {
    let mut hosts = AllowedHosts::default();
    for (name, value) in STORAGE_HOSTS.into_iter().zip(values) {
        hosts.add(value).map_err(|reason| ConfigError::new(name, reason))?;
    }
    Ok(hosts)
}

fn parse_storage_nodes(text: &str) -> Result<Vec<StorageNode>, ConfigError> {
    let mut nodes = Vec::new();
    for url in text.split(',').map(str::trim).filter(|url| !url.is_empty()) {
        let node = StorageNode::parse(url).map_err(|reason| {
            ConfigError::new(STORAGE_NODES, format!("has the entry {url:?}, which {reason}"))
        })?;
        if nodes.contains(&node) {
            return Err(ConfigError::new(STORAGE_NODES, format!("names {node} twice")));
        }
        nodes.push(node);
    }
    if !(1..=limits::STORAGE_NODES_MAX).contains(&nodes.len()) {
        let reason = format!(
            "has to name 1 to {} nodes, as in \"http://127.0.0.1:8081,http://127.0.0.1:8082\"",
            limits::STORAGE_NODES_MAX
        );
        return Err(ConfigError::new(STORAGE_NODES, reason));
    }
    Ok(nodes)
}

/// The bounds are checked also where the WAL is off: a mistake does not wait until it is turned on.
fn parse_wal(wal: &str, bytes_max: &str, entries_max: &str) -> Result<Option<WalBounds>, ConfigError> {
    let number = |variable, text: &str| {
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| ConfigError::new(variable, "has to be a whole number above zero"))
    };
    let bounds = WalBounds {
        bytes_max: number(WAL_BYTES_MAX, bytes_max)?,
        entries_max: number(WAL_ENTRIES_MAX, entries_max)?,
    };
    match wal {
        "on" => Ok(Some(bounds)),
        "off" => Ok(None),
        _ => Err(ConfigError::new(WAL, "has to be \"on\" or \"off\"")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration of two nodes and four partitions.
    pub(crate) fn two_nodes() -> Config {
        config(["ingest-1", "http://node-1:8081, http://node-2:8081", "4", "10.0.0.0/8"]).unwrap()
    }

    /// A configuration of these first variables, with the others' defaults.
    pub(crate) fn config(values: [&str; 4]) -> Result<Config, ConfigError> {
        let [node_id, storage_nodes, partitions, trusted_proxies] = values;
        let [wal, bytes, entries] = ["on", "268435456", "4096"];
        let hosts = ["http://node-4:8081", "", "", ""];
        let values = [node_id, storage_nodes, partitions, trusted_proxies, wal, bytes, entries];
        Config::new(
            &values.into_iter().chain(hosts).map(str::to_owned).collect::<Vec<_>>().try_into().unwrap(),
        )
    }

    #[test]
    fn the_wal_is_on_or_off_and_bounded() {
        let wal = |wal: &str, bytes_max: &str, entries_max: &str| {
            let values =
                ["n", "http://a:1", "4", "", wal, bytes_max, entries_max, "", "", "", ""].map(str::to_owned);
            Config::new(&values).map(|config| config.wal).map_err(|error| error.variable)
        };
        assert_eq!(wal("on", "5", " 6 "), Ok(Some(WalBounds { bytes_max: 5, entries_max: 6 })));
        assert_eq!(wal("off", "5", "6"), Ok(None));
        assert_eq!(wal("", "5", "6"), Err("wal"));
        assert_eq!(wal("off", "0", "6"), Err("wal_bytes_max"));
        assert_eq!(wal("on", "5", "-1"), Err("wal_entries_max"));
    }

    #[test]
    fn the_defaults_deal_the_partitions_out_in_runs() {
        let config = config(["ingest-1", "http://127.0.0.1:8081,http://127.0.0.1:8082", "4", ""]).unwrap();
        let nodes: Vec<_> =
            config.partitions.partitions().map(|p| config.node_of(p).unwrap().to_string()).collect();
        let [first, second] = ["http://127.0.0.1:8081", "http://127.0.0.1:8082"];
        assert_eq!(nodes, [first, first, second, second]);
        assert_eq!(config.node_of(Partition::new(4)), None);
        assert_eq!(config.node_id_json(), b"\"ingest-1\"");
    }

    #[test]
    fn only_nodes_of_the_configuration_and_allowed_hosts_are_found_by_url() {
        let config = two_nodes();
        assert_eq!(config.node_at("http://NODE-2:8081/").unwrap().to_string(), "http://node-2:8081");
        assert_eq!(config.node_at("http://node-4:8081").unwrap().to_string(), "http://node-4:8081");
        for stranger in
            ["http://node-3:8081", "https://node-2:8081", "http://node-2:8082", "http://node-2", "x", ""]
        {
            assert_eq!(config.node_at(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn hosts_and_ports_are_normal() {
        let node = |url| StorageNode::parse(url).unwrap().to_string();
        assert_eq!(node("http://Node"), "http://node:80");
        assert_eq!(node("https://node/"), "https://node:443");
        assert_eq!(node("http://[::1]:8081"), "http://[::1]:8081");
    }

    #[test]
    fn the_error_names_the_variable() {
        let good = ["n", "http://a:1", "4", ""];
        let bad = |place: usize, value: &str| {
            let mut values = good;
            values[place] = value;
            config(values).unwrap_err().to_string()
        };
        config(good).unwrap();
        for value in ["", " ", "a\nb", &"x".repeat(65)] {
            assert!(bad(0, value).contains("`node_id`"), "{value:?}");
        }
        for value in [
            "",
            ",",
            "a:1",
            "ftp://a:1",
            "http://",
            "http://a:1/v1",
            "http://a:1?x",
            "http://u@a:1",
            "http://a:x",
            "http://a:0",
            "http://a:1,http://a:1",
            "http://a:1;http://b:1",
            "http:///x",
        ] {
            assert!(bad(1, value).contains("`storage_nodes`"), "{value:?}");
        }
        for value in ["", "0", "-1", "1025", "x", "1.0"] {
            assert!(bad(2, value).contains("`partitions`"), "{value:?}");
        }
        for value in ["x", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "10.0.0.0/8/8"] {
            assert!(bad(3, value).contains("`trusted_proxies`"), "{value:?}");
        }
    }
}
