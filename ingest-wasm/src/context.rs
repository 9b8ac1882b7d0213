//! What the handling of a request works with.

use model::trace::TraceParent;

use crate::budget::Budget;
use crate::config::Config;
use crate::instance::InstanceState;

/// The surroundings of one request. Time and chance come from outside, so that the handling is a function of these.
#[derive(Clone, Copy)]
pub struct Context<'c, S> {
    /// The configuration.
    pub config: &'c Config,
    /// The way to storage, and all else that the runtime gives.
    pub storage: &'c S,
    /// The bytes that may be held.
    pub budget: &'c Budget,
    /// What the instance knows.
    pub instance: &'c InstanceState,
    /// When the request came, Unix milliseconds.
    pub now_ms: u64,
    /// Random bits, for a key of the request's own.
    pub random: u128,
    /// The trace that the request belongs to, which is handed on to storage.
    pub trace: TraceParent,
}

impl<S> Context<'_, S> {
    /// Random bits that no other call of this instance gets.
    pub fn chance(&self) -> u64 {
        self.instance.chance(self.random)
    }
}
