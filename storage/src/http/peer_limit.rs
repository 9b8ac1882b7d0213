//! How many bytes of appends each peer address may send in a second, where the operator asked for a limit.
//!
//! The algorithm is GCRA, by the crate `governor`. A peer may be as large as one largest batch ahead of its rate, for
//! else that batch could never be taken.
//!
//! Invariant: at most [`limits::PEERS_MAX`] addresses are remembered. Must not know what the bytes are.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use model::limits::APPEND_BODY_BYTES_MAX;

use crate::limits;

/// The limit of each peer address.
#[derive(Debug)]
pub(super) struct PeerLimit {
    limiter: Option<DefaultKeyedRateLimiter<IpAddr>>,
    clock: DefaultClock,
}

/// The peer of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

impl PeerLimit {
    /// A limit of so many bytes a second; `None` or zero: no limit.
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        let rate =
            bytes_per_second.map(|rate| u32::try_from(rate).unwrap_or(u32::MAX)).and_then(NonZeroU32::new);
        let limiter = rate.map(|rate| {
            let burst = u32::try_from(APPEND_BODY_BYTES_MAX).ok().and_then(NonZeroU32::new).unwrap_or(rate);
            RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst.max(rate)))
        });
        Self { limiter, clock: DefaultClock::default() }
    }

    /// Takes `bytes` from the peer's allowance.
    ///
    /// # Errors
    /// When it has to wait, and how long.
    pub(super) fn take(&self, peer: Option<Peer>, bytes: usize) -> Result<(), Duration> {
        let (Some(limiter), Some(Peer(address))) = (&self.limiter, peer) else { return Ok(()) };
        let Some(bytes) = u32::try_from(bytes).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        if limiter.len() >= limits::PEERS_MAX {
            // Those that are back at their full allowance need not be remembered.
            limiter.retain_recent();
        }
        match limiter.check_key_n(&address, bytes) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.clock.now())),
            // Larger than the largest body: refused elsewhere.
            Err(_insufficient_capacity) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Option<Peer> = Some(Peer(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)));

    #[test]
    fn without_a_limit_everything_passes() {
        let limit = PeerLimit::new(None);
        for _ in 0..10 {
            assert_eq!(limit.take(PEER, APPEND_BODY_BYTES_MAX), Ok(()));
        }
    }

    #[test]
    fn a_peer_that_is_ahead_of_its_rate_waits_and_others_do_not() {
        let limit = PeerLimit::new(Some(1 << 20));
        assert_eq!(limit.take(PEER, APPEND_BODY_BYTES_MAX), Ok(()));
        let wait = limit.take(PEER, 1 << 20).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        let other = Some(Peer(IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2))));
        assert_eq!(limit.take(other, 1 << 20), Ok(()));
    }

    #[test]
    fn the_addresses_that_are_remembered_are_bounded() {
        let limit = PeerLimit::new(Some(u64::MAX));
        for number in 0..2 * limits::PEERS_MAX as u32 {
            assert_eq!(limit.take(Some(Peer(IpAddr::V4(number.into()))), 1), Ok(()));
        }
        assert!(limit.limiter.is_some_and(|limiter| limiter.len() <= limits::PEERS_MAX + 1));
    }
}
