//! The hosts that an operator lets the component call: an entry of `allowed_outbound_hosts`, as Spin reads it. The host of
//! the component enforces it; the component itself keeps a node's word about other nodes from becoming a call at all.
//!
//! Invariant: what an entry does not name, it does not allow. Schemes and hosts are compared without regard to case.

use std::net::IpAddr;
use std::ops::Range;

/// An address, or those that begin as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

/// An entry such as `http://10.0.0.0/8:8081`, `https://*.example.com` or `*://storage:8081..8083`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundHost {
    /// `None`: any.
    scheme: Option<String>,
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
    One(u16),
    /// The end does not belong to it.
    In(Range<u16>),
}

/// The port that a scheme implies.
pub fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl OutboundHost {
    /// Reads an entry.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(entry: &str) -> Result<Self, &'static str> {
        let entry = entry.to_ascii_lowercase();
        let Some((scheme, rest)) = entry.split_once("://") else {
            return Err("has no scheme (as in 'http://' or '*://')");
        };
        if scheme != "*" && !scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err("has a scheme that is not a word");
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(',') || rest.contains('{') {
            return Err("is a list: write one entry per host");
        }
        // An address of version 6 has colons of its own, and stands in brackets.
        let (host, ports) = match rest.rsplit_once(':') {
            Some((host, ports)) if !ports.contains(']') => (host, Some(ports)),
            _ => (rest, None),
        };
        let scheme_named = (scheme != "*").then(|| scheme.to_owned());
        Ok(Self { scheme: scheme_named, host: Host::parse(host)?, ports: Ports::parse(ports, scheme)? })
    }

    /// The scheme, if it names one.
    pub fn scheme(&self) -> Option<&str> {
        self.scheme.as_deref()
    }

    /// Whether a request may go to this address.
    pub fn allows(&self, scheme: &str, host: &str, port: u16) -> bool {
        let scheme_fits = self.scheme.as_ref().is_none_or(|allowed| allowed.eq_ignore_ascii_case(scheme));
        scheme_fits && self.ports.allow(port) && self.host.allows(host)
    }
}

impl Host {
    fn parse(host: &str) -> Result<Self, &'static str> {
        if let Some(domain) = host.strip_prefix("*.").filter(|domain| !domain.contains('*')) {
            return Ok(Self::Below(format!(".{domain}")));
        }
        match host {
            "" => Err("has no host"),
            "*" => Ok(Self::Any),
            "self" | "self.alt" => Err("names the application itself, which is not called"),
            _ if host.contains('*') => Err("has a * that is not in front of a dot"),
            _ if host.contains('/') => {
                Network::parse(host).map(Self::In).ok_or("has a path, or a network that is none")
            }
            _ => Ok(Self::Named(host.to_owned())),
        }
    }

    fn allows(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(name) => name.eq_ignore_ascii_case(host),
            Self::Below(domain) => {
                let start = host.len().checked_sub(domain.len()).filter(|start| *start > 0);
                let end = start.and_then(|start| host.as_bytes().get(start..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(domain.as_bytes()))
            }
            Self::In(network) => {
                let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
                address.is_some_and(|address| network.contains(address))
            }
        }
    }
}

impl Ports {
    fn parse(ports: Option<&str>, scheme: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "has ports that are no number, no range like 8081..8083 and no *";
        let Some(ports) = ports else {
            return default_port(scheme).map(Self::One).ok_or("has no port, and its scheme implies none");
        };
        if ports == "*" {
            return Ok(Self::Any);
        }
        let number = |text: &str| text.parse::<u16>().map_err(|_| WRONG);
        match ports.split_once("..") {
            Some((first, end)) => Ok(Self::In(number(first)?..number(end)?)),
            None => number(ports).map(Self::One),
        }
    }

    fn allow(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => *one == port,
            Self::In(range) => range.contains(&port),
        }
    }
}

impl Network {
    /// Reads an address, or a network such as `10.0.0.0/8`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits_max,
            Some(digits) => digits.parse().ok().filter(|bits| *bits <= bits_max)?,
        };
        Some(Self { address, prefix_bits })
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing_bits = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing_bits >= self.prefix_bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(entry: &str, allowed: &[(&str, &str, u16)], denied: &[(&str, &str, u16)]) {
        let host = OutboundHost::parse(entry).unwrap();
        for (scheme, name, port) in allowed {
            assert!(host.allows(scheme, name, *port), "{entry} should allow {scheme}://{name}:{port}");
        }
        for (scheme, name, port) in denied {
            assert!(!host.allows(scheme, name, *port), "{entry} should deny {scheme}://{name}:{port}");
        }
    }

    #[test]
    fn scheme_host_and_port_must_all_fit() {
        check(
            "http://Node.example:8081/",
            &[("http", "node.example", 8081), ("HTTP", "NODE.example", 8081)],
            &[
                ("https", "node.example", 8081),
                ("http", "node.example", 80),
                ("http", "a.node.example", 8081),
            ],
        );
    }

    #[test]
    fn a_missing_port_is_the_schemes_own() {
        check("http://a", &[("http", "a", 80)], &[("http", "a", 8080), ("https", "a", 80)]);
        check("https://a", &[("https", "a", 443)], &[("https", "a", 80)]);
        assert!(OutboundHost::parse("*://a").is_err());
    }

    #[test]
    fn ports_may_be_any_or_a_range_without_its_end() {
        check("http://a:*", &[("http", "a", 1), ("http", "a", 65535)], &[("http", "b", 1)]);
        check(
            "http://a:8081..8083",
            &[("http", "a", 8081), ("http", "a", 8082)],
            &[("http", "a", 8080), ("http", "a", 8083)],
        );
    }

    #[test]
    fn hosts_may_be_any_all_below_a_domain_or_a_network() {
        check("*://*:*", &[("http", "a", 1), ("https", "b.c", 2), ("http", "[::1]", 3)], &[]);
        check(
            "http://*.example.com",
            &[("http", "a.example.com", 80), ("http", "A.B.Example.com", 80)],
            &[("http", "example.com", 80), ("http", "badexample.com", 80), ("http", ".example.com", 80)],
        );
        check(
            "http://10.0.0.0/8:1",
            &[("http", "10.9.9.9", 1)],
            &[("http", "11.0.0.1", 1), ("http", "a", 1), ("http", "10.9.9.9", 2)],
        );
        check("http://2001:db8::/32:1", &[("http", "[2001:db8::7]", 1)], &[("http", "[2001:db9::7]", 1)]);
    }

    #[test]
    fn ipv6_addresses_keep_their_brackets() {
        check("http://[::1]:8081", &[("http", "[::1]", 8081)], &[("http", "[::1]", 80)]);
        check("http://[::1]", &[("http", "[::1]", 80)], &[("http", "[::2]", 80)]);
    }

    #[test]
    fn entries_that_cannot_be_understood_are_refused() {
        for entry in [
            "a:80",
            "http://",
            "http://a/path",
            "http://10.0.0.0/33",
            "http://a,b",
            "http://a*b",
            "http://*a",
            "http://*.a*",
            "http://a:x",
            "http://a:1..x",
            "ht-tp://a:1",
            "redis://a",
            "http://self",
            "http://{a}",
        ] {
            OutboundHost::parse(entry).expect_err(entry);
        }
    }
}
