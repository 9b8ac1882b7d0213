//! Waiting for what cannot be subscribed to.
//!
//! Invariant: every wait has a deadline, and says what it waited for when that passes.

use std::time::{Duration, Instant};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks again and again until `look` finds something, and returns that.
///
/// # Panics
/// When `within` passes first; the message names `what`.
pub async fn eventually<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        tokio::time::sleep(PAUSE).await;
    }
}
