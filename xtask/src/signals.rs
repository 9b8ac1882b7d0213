//! The user's wish to stop: SIGINT, SIGTERM, or a terminal that was closed.

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Signals that have come since they were last asked for. While one of these exists, they no longer end the process.
pub(crate) struct StopSignals(Signals);

impl StopSignals {
    /// Begins to catch them.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn catch() -> anyhow::Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]);
        Ok(Self(signals.context("could not set up the handling of Ctrl-C")?))
    }

    /// Whether one has come since the last call.
    pub(crate) fn came(&mut self) -> bool {
        // All of them are taken: Ctrl-C pressed twice at once is one wish.
        self.0.pending().count() > 0
    }
}
