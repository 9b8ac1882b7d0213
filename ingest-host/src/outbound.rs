//! Which hosts the component may call: `allowed_outbound_hosts` after template expansion.
//!
//! Invariant: what no entry allows is denied; an entry that cannot be understood stops the start and allows
//! nothing. It must not know of sockets: it judges a scheme, a host and a port.

use std::ops::Range;

use crate::variables::{ApplicationVariables, VariableError};

/// The hosts that a component may call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AllowedHosts {
    entries: Vec<Entry>,
}

/// Why an entry cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AllowedHostsError {
    /// The entry's template cannot be expanded.
    #[error("`allowed_outbound_hosts`: {0}")]
    Template(#[from] VariableError),
    /// The entry is not `scheme://host[:port]`.
    #[error("`allowed_outbound_hosts` entry {entry:?} {reason}")]
    Entry {
        /// The entry, expanded.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl AllowedHosts {
    /// Expands and parses the entries of a component. An entry that expands to nothing is skipped.
    ///
    /// # Errors
    /// [`AllowedHostsError`], naming the entry.
    pub(crate) fn new(
        templates: &[String],
        variables: &ApplicationVariables,
    ) -> Result<Self, AllowedHostsError> {
        let mut entries = Vec::with_capacity(templates.len());
        for template in templates {
            let expanded = variables.expand(template)?;
            let entry = expanded.trim();
            if entry.is_empty() {
                continue;
            }
            entries.push(
                Entry::parse(entry)
                    .map_err(|reason| AllowedHostsError::Entry { entry: entry.to_owned(), reason })?,
            );
        }
        Ok(Self { entries })
    }

    /// Whether a request may go to this address. Scheme and host are compared without regard to case.
    pub(crate) fn allow(&self, scheme: &str, host: &str, port: u16) -> bool {
        self.entries.iter().any(|entry| entry.allows(scheme, host, port))
    }
}

/// The port that a scheme implies.
pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// `None`: any.
    scheme: Option<String>,
    host: Host,
    port: Port,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// With its leading dot.
    Subdomains(String),
    Exact(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Port {
    Any,
    Exact(u16),
    /// The end is exclusive, as in Spin.
    Range(Range<u16>),
}

impl Entry {
    fn parse(entry: &str) -> Result<Self, &'static str> {
        let Some((scheme, rest)) = entry.split_once("://") else {
            return Err("has no scheme (as in 'http://' or '*://')");
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err("has a path or is a network: only a host and a port are supported");
        }
        if rest.contains(',') || rest.contains('{') {
            return Err("is a list: write one entry per host");
        }
        if scheme != "*" && !scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err("has a scheme that is not a word");
        }
        let (host, port) = split_port(rest);
        Ok(Self {
            scheme: (scheme != "*").then(|| scheme.to_ascii_lowercase()),
            host: Host::parse(host)?,
            port: Port::parse(port, scheme)?,
        })
    }

    fn allows(&self, scheme: &str, host: &str, port: u16) -> bool {
        let scheme_fits = self.scheme.as_ref().is_none_or(|allowed| allowed.eq_ignore_ascii_case(scheme));
        scheme_fits && self.port.allows(port) && self.host.allows(host)
    }
}

impl Host {
    fn parse(host: &str) -> Result<Self, &'static str> {
        let lower = host.to_ascii_lowercase();
        match lower.as_str() {
            "" => Err("has no host"),
            "*" => Ok(Self::Any),
            "self" | "self.alt" => Err("names the application itself: this host does not route to itself"),
            _ => match lower.strip_prefix('*') {
                Some(suffix) if suffix.starts_with('.') && !suffix.contains('*') => {
                    Ok(Self::Subdomains(suffix.to_owned()))
                }
                _ if lower.contains('*') => Err("has a wildcard that is not a leading '*.'"),
                _ => Ok(Self::Exact(lower)),
            },
        }
    }

    fn allows(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact.eq_ignore_ascii_case(host),
            Self::Subdomains(suffix) => {
                let bytes = host.as_bytes();
                bytes
                    .len()
                    .checked_sub(suffix.len())
                    .and_then(|start| bytes.get(start..))
                    .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
            }
        }
    }
}

impl Port {
    fn parse(port: Option<&str>, scheme: &str) -> Result<Self, &'static str> {
        const NOT_A_NUMBER: &str = "has a port that is not a number, a range `a..b` or '*'";
        let Some(port) = port else {
            let implied = default_port(&scheme.to_ascii_lowercase());
            return implied.map(Self::Exact).ok_or("has no port, and its scheme implies none");
        };
        if port == "*" {
            return Ok(Self::Any);
        }
        if let Some((start, end)) = port.split_once("..") {
            let start = start.parse().map_err(|_| NOT_A_NUMBER)?;
            let end = end.parse().map_err(|_| NOT_A_NUMBER)?;
            return Ok(Self::Range(start..end));
        }
        port.parse().map(Self::Exact).map_err(|_| NOT_A_NUMBER)
    }

    fn allows(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => *exact == port,
            Self::Range(range) => range.contains(&port),
        }
    }
}

/// Splits `host:port`; the colons of a bracketed IPv6 address belong to the host.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{AllowedHosts, AllowedHostsError};
    use crate::manifest::VariableDeclaration;
    use crate::variables::ApplicationVariables;
    use std::collections::BTreeMap;

    fn parse(entries: &[&str]) -> Result<AllowedHosts, AllowedHostsError> {
        let default = |value: &str| VariableDeclaration {
            default: Some(value.to_owned()),
            ..VariableDeclaration::default()
        };
        let declared = BTreeMap::from([
            ("storage".to_owned(), default("http://10.0.0.1:8081")),
            ("empty".to_owned(), default("")),
        ]);
        let variables = ApplicationVariables::resolve(&declared, &[], |_| None).unwrap();
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        AllowedHosts::new(&entries, &variables)
    }

    #[track_caller]
    fn check(entry: &str, allowed: &[(&str, &str, u16)], denied: &[(&str, &str, u16)]) {
        let hosts = parse(&[entry]).unwrap();
        for (scheme, host, port) in allowed {
            assert!(hosts.allow(scheme, host, *port), "{entry} should allow {scheme}://{host}:{port}");
        }
        for (scheme, host, port) in denied {
            assert!(!hosts.allow(scheme, host, *port), "{entry} should deny {scheme}://{host}:{port}");
        }
    }

    #[test]
    fn without_entries_nothing_is_allowed() {
        assert!(!parse(&[]).unwrap().allow("http", "127.0.0.1", 80));
    }

    #[test]
    fn templates_are_expanded_and_empty_ones_skipped() {
        let hosts = parse(&["{{ empty }}", "{{ storage }}"]).unwrap();
        assert!(hosts.allow("http", "10.0.0.1", 8081));
        assert!(!hosts.allow("http", "10.0.0.1", 80));
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
        check("http://a", &[("http", "a", 80)], &[("http", "a", 8080)]);
        check("https://a", &[("https", "a", 443)], &[("https", "a", 80)]);
        assert!(parse(&["*://a"]).is_err());
    }

    #[test]
    fn ports_may_be_any_or_a_half_open_range() {
        check("http://a:*", &[("http", "a", 1), ("http", "a", 65535)], &[("http", "b", 1)]);
        check(
            "http://a:8081..8083",
            &[("http", "a", 8081), ("http", "a", 8082)],
            &[("http", "a", 8080), ("http", "a", 8083)],
        );
    }

    #[test]
    fn hosts_may_be_any_or_all_subdomains() {
        check("*://*:*", &[("http", "a", 1), ("https", "b.c", 2)], &[]);
        check(
            "http://*.example.com",
            &[("http", "a.example.com", 80), ("http", "A.B.Example.com", 80)],
            &[("http", "example.com", 80), ("http", "badexample.com", 80)],
        );
    }

    #[test]
    fn ipv6_addresses_keep_their_brackets() {
        check("http://[::1]:8081", &[("http", "[::1]", 8081)], &[("http", "[::1]", 80)]);
        check("http://[::1]", &[("http", "[::1]", 80)], &[]);
    }

    #[test]
    fn entries_that_cannot_be_understood_are_named() {
        for entry in [
            "a:80",
            "http://",
            "http://a/path",
            "http://10.0.0.0/8",
            "http://a,b",
            "http://a*b",
            "http://*a",
            "http://a:x",
            "http://a:1..x",
            "ht-tp://a:1",
            "http://self",
            "http://{a}",
        ] {
            let error = parse(&[entry]).expect_err(entry).to_string();
            assert!(error.contains(&format!("{entry:?}")) || entry.contains('{'), "{error}");
        }
        assert!(matches!(parse(&["{{ nope }}"]), Err(AllowedHostsError::Template(_))));
    }
}
