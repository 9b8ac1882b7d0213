//! When a query has to end before it is done: at its deadline, or when nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// When a scan has to end before it is done.
#[derive(Clone, Debug)]
pub struct Watch {
    deadline: Instant,
    abandoned: Arc<AtomicBool>,
}

/// The scan ran out of time, or nobody waits for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interrupted;

/// Tells the scans of a query, when dropped, that nobody waits for them any more.
#[derive(Debug)]
pub struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    /// A watch that ends scans at `deadline`, or when the other value is dropped.
    pub fn until(deadline: Instant) -> (Self, AbandonOnDrop) {
        let abandoned = Arc::new(AtomicBool::new(false));
        (Self { deadline, abandoned: Arc::clone(&abandoned) }, AbandonOnDrop(abandoned))
    }

    /// Fails when it is time to end.
    pub(super) fn check(&self) -> Result<(), Interrupted> {
        if self.abandoned.load(Ordering::Relaxed) || Instant::now() >= self.deadline {
            return Err(Interrupted);
        }
        Ok(())
    }
}
