//! Time as the component's runtime gives it. The tests have a clock of their own.

use std::future::Future;
use std::time::Duration;

/// A clock that only goes forward, and waiting by it.
pub trait Clock {
    /// The time since some fixed moment.
    fn elapsed(&self) -> Duration;

    /// Waits.
    fn pause(&self, duration: Duration) -> impl Future<Output = ()>;
}
