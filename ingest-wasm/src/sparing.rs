//! The runtime, with a clock that is asked as seldom as is safe: to ask it is a call out of the component, and a request
//! looks at the time some twenty times.
//!
//! Between two waits only computing takes time, and one answer does until then. Invariant: the time told is never ahead
//! of the runtime's, and behind it by no more than what was computed since a task was resumed or a call of the runtime
//! returned, whichever came last, and what calls took that have begun since and not returned. What is known of the time is one for all requests of an instance: whenever any of
//! them has waited, it is forgotten for all.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::StorageNode;
use crate::key_value::{KeyValue, KeyValueError};
use crate::storage::{Call, Reply, SendError, Storage};

/// The time as the runtime last told it, until it is forgotten.
#[derive(Debug, Default)]
pub struct KnownTime(Mutex<Option<Duration>>);

/// A runtime whose clock is asked sparingly.
#[derive(Debug)]
pub struct Sparing<'r, R> {
    runtime: &'r R,
    time: &'r KnownTime,
}

impl KnownTime {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn or_ask(&self, clock: &impl Clock) -> Duration {
        *self.lock().get_or_insert_with(|| clock.elapsed())
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'r, R> Sparing<'r, R> {
    /// This runtime, and what its instance knows of the time.
    pub const fn new(runtime: &'r R, time: &'r KnownTime) -> Self {
        Self { runtime, time }
    }

    /// Runs a task. All that asks for the time has to be in one: whenever it is resumed, time has passed.
    pub async fn run<T>(&self, task: impl Future<Output = T>) -> T {
        let mut task = pin!(task);
        poll_fn(|cx| {
            self.time.forget();
            task.as_mut().poll(cx)
        })
        .await
    }

    /// Awaits a call of the runtime. That it returns at once does not say that it took no time: the runtime may have
    /// stood still meanwhile, as for a disk.
    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        let returned = call.await;
        self.time.forget();
        returned
    }
}

impl<R: Clock> Clock for Sparing<'_, R> {
    fn elapsed(&self) -> Duration {
        self.time.or_ask(self.runtime)
    }

    async fn pause(&self, duration: Duration) {
        self.call(self.runtime.pause(duration)).await;
    }
}

impl<R: Storage> Storage for Sparing<'_, R> {
    // Bytes of a body that have come are only copied; who waits for them is resumed.
    type Body = R::Body;

    async fn send(&self, node: &StorageNode, call: Call) -> Result<Reply<R::Body>, SendError> {
        self.call(self.runtime.send(node, call)).await
    }
}

impl<R: KeyValue> KeyValue for Sparing<'_, R> {
    async fn keys(&self) -> Result<Vec<String>, KeyValueError> {
        self.call(self.runtime.keys()).await
    }

    async fn get(&self, key: String) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.call(self.runtime.get(key)).await
    }

    async fn set(&self, key: String, value: Vec<u8>) -> Result<(), KeyValueError> {
        self.call(self.runtime.set(key, value)).await
    }

    async fn delete(&self, key: String) -> Result<(), KeyValueError> {
        self.call(self.runtime.delete(key)).await
    }
}

#[cfg(test)]
mod tests;
