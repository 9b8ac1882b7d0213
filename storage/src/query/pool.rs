//! The threads that reads and searches run on, and the memory of answers that are on their way out.
//!
//! Invariants: so many run at once and no more; the bytes of finished answers are bounded in the whole process,
//! each counted until the connection has written it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::limits;

/// A bounded pool.
#[derive(Clone, Debug)]
pub struct Pool {
    slots: Arc<Semaphore>,
    answer_bytes: Arc<Semaphore>,
}

/// Why the pool did not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Too much runs already.
    #[error("too many reads and searches run at once")]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
    /// The work panicked, or the process is stopping.
    #[error("the work was broken off")]
    BrokenOff,
}

/// An answer's bytes and their share of the bound, which goes when they go.
struct Charged {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Pool {
    /// A pool that runs `slots` pieces of work at once.
    pub fn new(slots: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            answer_bytes: Arc::new(Semaphore::new(limits::ANSWER_BYTES_WAITING_MAX)),
        }
    }

    /// Slots for so many further threads of a piece of work, as far as they are free just now and the machine has cores for
    /// them. Who is waiting comes first.
    pub fn spare_slots(&self, count: usize) -> Vec<OwnedSemaphorePermit> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = count.min(cores.saturating_sub(1));
        std::iter::from_fn(|| Arc::clone(&self.slots).try_acquire_owned().ok()).take(count).collect()
    }

    /// Runs `work` on a blocking thread, waiting for a free one for `wait_max`. The bytes that `work` returns beside
    /// its result are counted until they are dropped.
    ///
    /// # Errors
    /// See [`PoolError`].
    pub async fn run<T: Send + 'static>(
        &self,
        wait_max: Duration,
        work: impl FnOnce() -> (Vec<u8>, T) + Send + 'static,
    ) -> Result<(Bytes, T), PoolError> {
        let busy = PoolError::Busy { retry_after: Duration::from_secs(1) };
        let slot =
            timeout(wait_max, Arc::clone(&self.slots).acquire_owned()).await.map_err(|_elapsed| busy)?;
        let slot = slot.map_err(|_closed| PoolError::BrokenOff)?;
        // The slot goes with the work: should the caller stop waiting, the thread is still taken.
        let done = tokio::task::spawn_blocking(move || (work(), slot));
        let ((bytes, result), slot) = done.await.map_err(|_panicked| PoolError::BrokenOff)?;
        if bytes.is_empty() {
            return Ok((Bytes::new(), result));
        }
        let share = bytes.len().min(limits::ANSWER_BYTES_WAITING_MAX);
        let share = u32::try_from(share).map_err(|_too_large| PoolError::BrokenOff)?;
        // The slot is kept while waiting: else finished answers would pile up here.
        let share = timeout(wait_max, Arc::clone(&self.answer_bytes).acquire_many_owned(share)).await;
        let share = share.map_err(|_elapsed| busy)?.map_err(|_closed| PoolError::BrokenOff)?;
        drop(slot);
        Ok((Bytes::from_owner(Charged { bytes, _share: share }), result))
    }
}
