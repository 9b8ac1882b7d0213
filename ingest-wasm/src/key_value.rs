//! The seam to the runtime's key-value store. The glue implements it with Spin's, the tests with a fake.

use std::future::Future;

/// A store of values by key, durable as soon as a call has returned.
pub trait KeyValue {
    /// All keys, in any order.
    fn keys(&self) -> impl Future<Output = Result<Vec<String>, KeyValueError>>;

    /// The value of a key, if it has one.
    fn get(&self, key: String) -> impl Future<Output = Result<Option<Vec<u8>>, KeyValueError>>;

    /// Sets the value of a key.
    fn set(&self, key: String, value: Vec<u8>) -> impl Future<Output = Result<(), KeyValueError>>;

    /// Removes a key. One that is not there is no error.
    fn delete(&self, key: String) -> impl Future<Output = Result<(), KeyValueError>>;
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// The application grants no store to the component: there is none, and there never was.
    #[error("the application grants no key-value store: see key_value_stores in spin.toml")]
    NotGranted,
    /// Anything else: the disk is full, the store is closed.
    #[error("the key-value store failed: {0}")]
    Failed(String),
}
