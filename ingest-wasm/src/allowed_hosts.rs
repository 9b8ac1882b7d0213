//! The hosts that the operator lets the component call: what `storage_hosts` and its sisters say, as Spin reads them.
//!
//! The runtime enforces the same; here it keeps a node's word about other nodes from becoming a call at all. Pure.

use std::net::IpAddr;
use std::ops::Range;

use crate::client_ip::Network;
use crate::config::StorageNode;

/// Hosts, each with its scheme and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Whether it is for TLS; `None`: for both.
    is_tls: Option<bool>,
    host: Host,
    ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// With the dot in front.
    Below(String),
    Named(String),
    In(Network),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ports {
    Any,
    /// That of the scheme.
    Default,
    /// The end does not belong to it.
    In(Range<u16>),
    One(u16),
}

impl AllowedHosts {
    /// Adds an entry such as `http://10.0.0.0/8:8081` or `http://*.storage:8081..8083`; an empty one adds nothing.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn add(&mut self, entry: &str) -> Result<(), &'static str> {
        let entry = entry.trim();
        if !entry.is_empty() {
            self.0.push(Entry::parse(entry)?);
        }
        Ok(())
    }

    /// Whether this node may be called.
    pub fn allow(&self, node: &StorageNode) -> bool {
        self.0.iter().any(|entry| entry.allows(node))
    }
}

impl Entry {
    fn parse(entry: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = entry.split_once("://").ok_or("has to begin with http://, https:// or *://")?;
        let is_tls = match scheme {
            "http" => Some(false),
            "https" => Some(true),
            "*" => None,
            _ => return Err("has to begin with http://, https:// or *://"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
        // An address of version 6 has colons of its own, and stands in brackets.
        let (host, ports) = match rest.rfind(':').filter(|colon| !rest[*colon..].contains(']')) {
            Some(colon) => (&rest[..colon], Ports::parse(&rest[colon + 1..])?),
            None => (rest.as_str(), Ports::Default),
        };
        Ok(Self { is_tls, host: Host::parse(host)?, ports })
    }

    fn allows(&self, node: &StorageNode) -> bool {
        let Some((host, port)) = node.authority.rsplit_once(':') else { return false };
        let port = port.parse().unwrap_or_default();
        self.is_tls.is_none_or(|is_tls| is_tls == node.is_tls)
            && self.ports.allow(port, node.is_tls)
            && self.host.allows(host)
    }
}

impl Host {
    fn parse(host: &str) -> Result<Self, &'static str> {
        if host.is_empty() {
            return Err("has no host");
        }
        if host == "*" {
            return Ok(Self::Any);
        }
        if let Some(domain) = host.strip_prefix('*') {
            let is_domain = domain.starts_with('.') && !domain.contains('*');
            return if is_domain {
                Ok(Self::Below(domain.to_owned()))
            } else {
                Err("has a * that is not in front of a dot")
            };
        }
        if host.contains('/') {
            return Network::parse(host).map(Self::In).ok_or("has a path, or a network that is none");
        }
        Ok(Self::Named(host.to_owned()))
    }

    fn allows(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Below(domain) => host.len() > domain.len() && host.ends_with(domain.as_str()),
            Self::Named(name) => host == name,
            Self::In(network) => {
                let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
                address.is_some_and(|address| network.contains(address))
            }
        }
    }
}

impl Ports {
    fn parse(ports: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "has ports that are no number, no range like 8081..8083 and no *";
        if ports == "*" {
            return Ok(Self::Any);
        }
        let number = |text: &str| text.parse::<u16>().map_err(|_| WRONG);
        match ports.split_once("..") {
            Some((first, end)) => Ok(Self::In(number(first)?..number(end)?)),
            None => number(ports).map(Self::One),
        }
    }

    fn allow(&self, port: u16, is_tls: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Default => port == if is_tls { 443 } else { 80 },
            Self::In(range) => range.contains(&port),
            Self::One(one) => port == *one,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, node: &str) -> bool {
        let mut hosts = AllowedHosts::default();
        hosts.add(entry).unwrap();
        hosts.allow(&StorageNode::parse(node).unwrap())
    }

    #[test]
    fn an_entry_allows_its_scheme_its_host_and_its_ports() {
        for (entry, allowed, denied) in [
            (
                "http://a:8081",
                &["http://a:8081", "http://A:8081"][..],
                &["https://a:8081", "http://a:8082", "http://b:8081"][..],
            ),
            ("http://a", &["http://a", "http://a:80"], &["http://a:8081", "https://a:443"]),
            ("*://a", &["http://a", "https://a"], &["http://a:443"]),
            (
                "http://127.0.0.1:8081..8083",
                &["http://127.0.0.1:8081", "http://127.0.0.1:8082"],
                &["http://127.0.0.1:8083"],
            ),
            ("http://*:*", &["http://x:1", "http://[::1]:2"], &["https://x:1"]),
            ("https://*.b:1", &["https://a.b:1"], &["https://b:1", "https://ab:1", "https://a.c:1"]),
            ("http://10.0.0.0/8:1", &["http://10.9.9.9:1"], &["http://11.0.0.1:1", "http://a:1"]),
            ("http://[::1]:1", &["http://[::1]:1"], &["http://[::2]:1"]),
        ] {
            for node in allowed {
                assert!(allows(entry, node), "{entry} and {node}");
            }
            for node in denied {
                assert!(!allows(entry, node), "{entry} and {node}");
            }
        }
    }

    #[test]
    fn nothing_is_allowed_by_nothing_and_nonsense_is_named() {
        assert!(!allows(" ", "http://a:1"));
        for entry in ["a:1", "ftp://a", "http://", "http://a/b", "http://a:x", "http://a:1..x", "http://a*b"]
        {
            // A star within a name is a name that no host has.
            let is_name = entry == "http://a*b";
            assert_eq!(AllowedHosts::default().add(entry).is_err(), !is_name, "{entry}");
        }
    }
}
