//! All that the component asks of its runtime.

use crate::clock::Clock;
use crate::key_value::KeyValue;
use crate::storage::Storage;

/// The way to storage, the key-value store and the clock, in one.
pub trait Runtime: Storage + KeyValue + Clock {}

impl<R: Storage + KeyValue + Clock> Runtime for R {}
