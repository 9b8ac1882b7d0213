//! The wall clock, for whoever may have one: the log may not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time now, Unix milliseconds. A clock before 1970 reads as 1970.
pub(crate) fn unix_now_ms() -> u64 {
    #[cfg(test)]
    if let Some(now_ms) = crate::simulated::unix_now_ms() {
        return now_ms;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
