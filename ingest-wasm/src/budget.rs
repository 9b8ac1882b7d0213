//! The bytes that the requests of one instance may hold together.
//!
//! Invariant: the shares taken from a [`Budget`] never exceed its bound; a share that is dropped is given back. An
//! instance that ran out of memory would trap, and take the other requests that it has in hand with it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The bytes there are. It lives as long as the instance and belongs to no request.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    in_use: AtomicUsize,
}

/// So many bytes are held by other requests that this one has to come back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this instance holds as many bytes of requests as it may")]
pub struct Busy;

/// The bytes that one request holds.
#[derive(Debug)]
pub struct Share<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, in_use: AtomicUsize::new(0) }
    }

    /// A share without bytes.
    pub fn share(&self) -> Share<'_> {
        Share { budget: self, bytes: 0 }
    }

    /// The bytes that are held.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Relaxed)
    }
}

impl<'b> Share<'b> {
    /// Takes more bytes.
    ///
    /// # Errors
    /// When others hold too many.
    pub fn take(&mut self, bytes: usize) -> Result<(), Busy> {
        let bytes_max = self.budget.bytes_max;
        let with_these = |in_use: usize| in_use.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        self.budget.in_use.fetch_update(Relaxed, Relaxed, with_these).map_err(|_full| Busy)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives bytes back, all of them at most.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.in_use.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// A buffer whose capacity is taken from a budget.
#[derive(Debug)]
pub struct Metered<'b> {
    bytes: Vec<u8>,
    share: Share<'b>,
}

impl<'b> Metered<'b> {
    /// An empty buffer.
    pub fn new(budget: &'b Budget) -> Self {
        Self { bytes: Vec::new(), share: budget.share() }
    }

    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffer itself, for writing within its capacity.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes room for `additional` bytes and, if it has to grow for them, for as much as it holds, but for no more
    /// than `bytes_max` in all unless `additional` wants it.
    ///
    /// # Errors
    /// When other requests hold too many bytes.
    pub fn reserve(&mut self, additional: usize, bytes_max: usize) -> Result<(), Busy> {
        let needed = self.bytes.len().saturating_add(additional);
        let capacity = self.bytes.capacity();
        if needed <= capacity {
            return Ok(());
        }
        let wanted = needed.max(capacity.saturating_mul(2).min(bytes_max));
        // While it moves, the old place and the new one are held.
        self.share.take(wanted)?;
        self.bytes.reserve_exact(wanted - self.bytes.len());
        self.share.give_back(capacity);
        Ok(())
    }

    /// The bytes, and the share that goes with them.
    pub fn into_parts(self) -> (Vec<u8>, Share<'b>) {
        (self.bytes, self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_together_and_come_back_when_dropped() {
        let budget = Budget::new(100);
        let mut first = budget.share();
        let mut second = budget.share();
        first.take(60).unwrap();
        assert_eq!(second.take(41), Err(Busy));
        second.take(40).unwrap();
        assert_eq!(budget.in_use(), 100);
        first.give_back(1_000);
        assert_eq!(budget.in_use(), 40);
        drop(second);
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn a_buffer_holds_its_capacity_and_no_more_once_it_has_grown() {
        let budget = Budget::new(1_000);
        let mut buffer = Metered::new(&budget);
        buffer.reserve(100, 1_000).unwrap();
        buffer.bytes_mut().extend_from_slice(&[0; 100]);
        buffer.reserve(1, 1_000).unwrap();
        assert_eq!((buffer.bytes_mut().capacity(), budget.in_use()), (200, 200));
        buffer.bytes_mut().extend_from_slice(&[0; 100]);
        buffer.reserve(1, 250).unwrap();
        assert_eq!((buffer.bytes_mut().capacity(), budget.in_use()), (250, 250));
        let (bytes, share) = buffer.into_parts();
        drop(bytes);
        drop(share);
        assert_eq!(budget.in_use(), 0);
    }
}
