//! An actor without a thread: a task that takes one message after another, for simulations that have to come again.
//!
//! What it does with a message it does at once, in no simulated time; how long the disk takes for it passes before.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};

use model::Partition;
use tokio::time::timeout;

use super::actor::Actor;
use super::round::Round;
use super::{PartitionHandle, QueueLimits, parts};
use crate::log::{LogError, PartitionLog};
use crate::metrics::PartitionMetrics;

/// The actor of `log`: it works while the future is polled. `before_each` passes the time that a message takes; it is of
/// this node's clock.
pub(crate) fn start_stepped<P: Future<Output = ()> + Send>(
    partition: Partition,
    log: PartitionLog,
    queue_limits: QueueLimits,
    metrics: PartitionMetrics,
    mut before_each: impl FnMut() -> P + Send,
    node: u64,
) -> (PartitionHandle, impl Future<Output = Result<(), LogError>> + Send) {
    let (handle, mut actor): (_, Actor) = parts(partition, log, queue_limits, metrics);
    let told = handle.inbox.told();
    let stopped = Arc::clone(&handle.stopped);
    let works = async move {
        let mut round = Round::default();
        let _guard = super::actor::PanicGuard::new(stopped);
        loop {
            let first = match actor.try_next() {
                Ok(message) => Ok(message),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {
                    let wait = crate::simulated::at_node(node, || actor.wait());
                    if timeout(wait, told.notified()).await.is_ok() {
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout)
                }
            };
            if first.is_ok() {
                before_each().await;
            }
            if crate::simulated::at_node(node, || actor.turn(first, &mut round)).is_break() {
                return actor.close();
            }
        }
    };
    (handle, works)
}
