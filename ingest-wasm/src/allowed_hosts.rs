//! The hosts that the operator lets the component call: what `storage_hosts` and its sisters say.
//!
//! The runtime enforces the same; here it keeps a node's word about other nodes from becoming a call at all. Pure.

use model::outbound::OutboundHost;

use crate::config::StorageNode;

/// Hosts, each with its scheme and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<OutboundHost>);

impl AllowedHosts {
    /// Adds an entry such as `http://10.0.0.0/8:8081` or `http://*.storage:8081..8083`; an empty one adds nothing.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn add(&mut self, entry: &str) -> Result<(), &'static str> {
        let entry = entry.trim();
        if entry.is_empty() {
            return Ok(());
        }
        let host = OutboundHost::parse(entry)?;
        if !matches!(host.scheme(), None | Some("http" | "https")) {
            return Err("has to begin with http://, https:// or *://");
        }
        self.0.push(host);
        Ok(())
    }

    /// Whether this node may be called.
    pub fn allow(&self, node: &StorageNode) -> bool {
        let Some((host, port)) = node.authority.rsplit_once(':') else { return false };
        let (scheme, port) = (if node.is_tls { "https" } else { "http" }, port.parse().unwrap_or_default());
        self.0.iter().any(|entry| entry.allows(scheme, host, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_allows_its_scheme_its_host_and_its_ports() {
        for (entry, allowed, denied) in [
            (
                "http://a:8081",
                &["http://a:8081", "http://A:8081"][..],
                &["https://a:8081", "http://a:8082", "http://b:8081"][..],
            ),
            ("http://a", &["http://a", "http://a:80"], &["http://a:8081", "https://a:443"]),
            ("*://*:*", &["http://a", "https://[::1]:2"], &[]),
            ("https://*.b:1", &["https://a.b:1"], &["https://b:1", "https://ab:1", "https://a.c:1"]),
            ("http://10.0.0.0/8:1", &["http://10.9.9.9:1"], &["http://11.0.0.1:1", "http://a:1"]),
        ] {
            let mut hosts = AllowedHosts::default();
            hosts.add(entry).unwrap();
            let allows = |node: &&&str| hosts.allow(&StorageNode::parse(node).unwrap());
            assert_eq!(allowed.iter().filter(|node| !allows(node)).collect::<Vec<_>>(), [&""; 0], "{entry}");
            assert_eq!(denied.iter().filter(allows).collect::<Vec<_>>(), [&""; 0], "{entry}");
        }
    }

    #[test]
    fn nothing_is_allowed_by_nothing_and_nonsense_is_named() {
        let mut hosts = AllowedHosts::default();
        hosts.add(" ").unwrap();
        assert!(!hosts.allow(&StorageNode::parse("http://a:1").unwrap()));
        for entry in ["a:1", "ftp://a:1", "http://", "http://a/b", "http://a*b"] {
            assert!(hosts.add(entry).is_err(), "{entry}");
        }
    }
}
