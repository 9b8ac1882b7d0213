//! How a node knows the others, and how they know it.

use clap::Args;
use url::Url;

/// How a node knows the others.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterConfig {
    /// The other storage nodes, by the URLs at which their clients reach them. This node's own among them does no harm
    #[arg(long, env = "EDGELOG_STORAGE_PEERS", value_delimiter = ',', value_parser = parse_node_url, value_name = "URL,URL")]
    pub peers: Vec<Url>,

    /// The URL at which the others reach this node; by default the address it listens on
    #[arg(long, env = "EDGELOG_STORAGE_ADVERTISE", value_parser = parse_node_url, value_name = "URL")]
    pub advertise: Option<Url>,
}

/// Parses a node's base URL: `http://HOST[:PORT]`.
pub(super) fn parse_node_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() != "http"
        || url.host().is_none()
        || !matches!(url.path(), "" | "/")
        || url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
    {
        return Err("a node is written as http://HOST:PORT".to_owned());
    }
    Ok(url)
}
