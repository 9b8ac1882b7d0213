//! Which address a request came from.
//!
//! The runtime tells the peer's address in `spin-client-addr`; only the last value is its own. What a request says of
//! clients before that peer (`X-Forwarded-For`, `Forwarded`) counts only if the peer is a trusted proxy, and is then
//! read from the end, as far as the chain of trusted proxies goes: what stands before it may be made up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use model::outbound::Network;

use crate::message::Headers;

/// The header in which the runtime appends the peer's address and port.
const PEER: &str = "spin-client-addr";

/// The address that a request came from, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientIp {
    /// This one.
    Known(IpAddr),
    /// Nobody that can be believed says.
    Unknown,
}

impl fmt::Display for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(address) => address.fmt(f),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The proxies whose word on the client's address is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

impl ClientIp {
    /// The client's address by these headers.
    pub fn of(headers: &Headers, trusted: &TrustedProxies) -> Self {
        let Some(peer) = headers.all(PEER).next_back().and_then(parse_address) else {
            return Self::Unknown;
        };
        if !trusted.contain(peer) {
            return Self::Known(peer);
        }
        let x_forwarded_for: Vec<&str> = headers.list("x-forwarded-for").collect();
        let forwarded = forwarded_for(headers);
        match (x_forwarded_for.is_empty(), forwarded.is_empty()) {
            (true, true) => Self::Known(peer),
            (false, true) => trusted.client_of(&x_forwarded_for),
            (true, false) => trusted.client_of(&forwarded),
            (false, false) => {
                // A proxy that writes one of them passes the other on as the client made it up: if they differ,
                // neither is believed.
                let client = trusted.client_of(&x_forwarded_for);
                if client == trusted.client_of(&forwarded) { client } else { Self::Known(peer) }
            }
        }
    }
}

impl TrustedProxies {
    fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client at the end of a chain of hops, of which the last is the nearest.
    fn client_of(&self, hops: &[&str]) -> ClientIp {
        let mut client = ClientIp::Unknown;
        for hop in hops.iter().rev() {
            // A hop that is no address was hidden on purpose, or is nonsense: nothing before it can be followed.
            let Some(address) = parse_address(hop) else { return ClientIp::Unknown };
            client = ClientIp::Known(address);
            if !self.contain(address) {
                break;
            }
        }
        client
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Addresses and networks, separated by commas: `10.0.0.0/8, ::1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let network = |entry: &str| {
            Network::parse(entry).ok_or_else(|| {
                format!("has the entry {entry:?}, which is no address and no network like 10.0.0.0/8")
            })
        };
        entries.map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// An address with or without a port, an IPv6 one with or without brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address =
        bare.parse::<IpAddr>().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip())).ok()?;
    // An IPv4 client of a socket for both families.
    Some(address.to_canonical())
}

/// The `for` of each element of `Forwarded` (RFC 7239), in order; an element without one counts as hidden.
fn forwarded_for(headers: &Headers) -> Vec<&str> {
    let elements = headers.all("forwarded").flat_map(|value| split_unquoted(value, ','));
    let elements = elements.filter(|element| !element.trim().is_empty());
    elements
        .map(|element| split_unquoted(element, ';').find_map(for_parameter).unwrap_or("unknown"))
        .collect()
}

fn for_parameter(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=')?;
    name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
}

/// Splits at a separator, but not within quotes. Addresses hold no quotes and no backslashes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |c| {
        is_quoted ^= c == '"';
        !is_quoted && c == separator
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(trusted: &str, headers: &[(&'static str, &str)], expected: &str) {
        let trusted = trusted.parse().unwrap();
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        assert_eq!(ClientIp::of(&headers, &trusted).to_string(), expected, "{headers:?}");
    }

    #[test]
    fn the_last_peer_address_is_the_runtimes_own() {
        check("", &[(PEER, "127.0.0.1:4711")], "127.0.0.1");
        check("", &[(PEER, "6.6.6.6:1"), (PEER, "[2001:db8::1]:80")], "2001:db8::1");
        check("", &[(PEER, "[::ffff:10.0.0.1]:80")], "10.0.0.1");
        check("", &[(PEER, "10.0.0.1")], "10.0.0.1");
    }

    #[test]
    fn without_a_peer_nothing_is_known() {
        check("0.0.0.0/0", &[], "unknown");
        check("0.0.0.0/0", &[("x-forwarded-for", "1.2.3.4")], "unknown");
        check("", &[(PEER, "6.6.6.6:1"), (PEER, "nonsense")], "unknown");
    }

    #[test]
    fn forwarding_headers_of_strangers_do_not_count() {
        let made_up = [(PEER, "9.9.9.9:1"), ("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4")];
        check("", &made_up, "9.9.9.9");
        check("10.0.0.0/8", &made_up, "9.9.9.9");
    }

    #[test]
    fn a_trusted_proxy_tells_the_client_and_what_stands_before_may_be_made_up() {
        let peer = (PEER, "10.0.0.1:1");
        check("10.0.0.0/8", &[peer, ("x-forwarded-for", "1.2.3.4")], "1.2.3.4");
        check("10.0.0.0/8", &[peer, ("x-forwarded-for", "6.6.6.6, 1.2.3.4")], "1.2.3.4");
        check("10.0.0.0/8", &[peer, ("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.9.9.9")], "1.2.3.4");
        check(
            "10.0.0.0/8",
            &[peer, ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")],
            "1.2.3.4",
        );
        check("10.0.0.0/8", &[peer, ("x-forwarded-for", "10.1.1.1, 10.2.2.2")], "10.1.1.1");
        check("10.0.0.0/8", &[peer, ("x-forwarded-for", "1.2.3.4, garbage")], "unknown");
        check("10.0.0.0/8", &[peer, ("x-forwarded-for", "[2001:db8::1]:443")], "2001:db8::1");
        check("10.0.0.1", &[peer, ("x-forwarded-for", "10.0.0.2")], "10.0.0.2");
        check("10.0.0.0/8", &[peer], "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        let peer = (PEER, "[::1]:1");
        check("::1", &[peer, ("forwarded", "for=1.2.3.4;proto=https;by=10.0.0.1")], "1.2.3.4");
        check("::1", &[peer, ("forwarded", r#"For="[2001:db8:cafe::17]:4711""#)], "2001:db8:cafe::17");
        check("::1", &[peer, ("forwarded", r#"for=6.6.6.6, by="a,b;for=7.7.7.7";for=1.2.3.4"#)], "1.2.3.4");
        check("::1", &[peer, ("forwarded", "for=_hidden")], "unknown");
        check("::1", &[peer, ("forwarded", "for=1.2.3.4, proto=http")], "unknown");
    }

    #[test]
    fn two_headers_that_disagree_are_not_believed() {
        let peer = (PEER, "10.0.0.1:1");
        check("10.0.0.1", &[peer, ("forwarded", "for=1.2.3.4"), ("x-forwarded-for", "1.2.3.4")], "1.2.3.4");
        check("10.0.0.1", &[peer, ("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "1.2.3.4")], "10.0.0.1");
    }

    #[test]
    fn networks_contain_what_their_prefix_says() {
        let trusted: TrustedProxies = "192.168.4.0/22, 2001:db8::/33, 0.0.0.0/32".parse().unwrap();
        for (address, inside) in [
            ("192.168.4.0", true),
            ("192.168.7.255", true),
            ("192.168.8.0", false),
            ("2001:db8:7fff::1", true),
            ("2001:db8:8000::1", false),
            ("0.0.0.0", true),
            ("0.0.0.1", false),
        ] {
            assert_eq!(trusted.contain(address.parse().unwrap()), inside, "{address}");
        }
        assert!("::/0".parse::<TrustedProxies>().unwrap().contain("::1".parse().unwrap()));
    }
}
