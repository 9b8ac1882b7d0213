//! The runtime's key-value store: the application's `default` one.

use std::sync::OnceLock;

use spin_sdk::key_value::{Error, Store};
use wasip3::wit_bindgen::StreamResult;

use super::transport::Transport;
use crate::key_value::{KeyValue, KeyValueError};
use crate::limits;

/// Open as long as the instance lives: to open it costs a call.
static STORE: OnceLock<Store> = OnceLock::new();

impl KeyValue for Transport {
    async fn keys(&self) -> Result<Vec<String>, KeyValueError> {
        let (mut listed, outcome) = store().await?.get_keys().await.into_inner();
        let mut keys = Vec::new();
        let mut buffer = Vec::with_capacity(limits::KEYS_AT_ONCE);
        loop {
            let (result, read) = listed.read(buffer).await;
            buffer = read;
            keys.append(&mut buffer);
            if matches!(result, StreamResult::Dropped | StreamResult::Cancelled) {
                break;
            }
        }
        outcome.await.map_err(|error| in_our_words(&error))?;
        Ok(keys)
    }

    async fn get(&self, key: String) -> Result<Option<Vec<u8>>, KeyValueError> {
        store().await?.get(key).await.map_err(|error| in_our_words(&error))
    }

    async fn set(&self, key: String, value: Vec<u8>) -> Result<(), KeyValueError> {
        store().await?.set(key, value).await.map_err(|error| in_our_words(&error))
    }

    async fn delete(&self, key: String) -> Result<(), KeyValueError> {
        store().await?.delete(key).await.map_err(|error| in_our_words(&error))
    }
}

async fn store() -> Result<&'static Store, KeyValueError> {
    if let Some(store) = STORE.get() {
        return Ok(store);
    }
    let store = Store::open_default().await.map_err(|error| in_our_words(&error))?;
    Ok(STORE.get_or_init(|| store))
}

fn in_our_words(error: &Error) -> KeyValueError {
    match error {
        Error::AccessDenied | Error::NoSuchStore => KeyValueError::NotGranted,
        Error::StoreTableFull => KeyValueError::Failed("too many stores are open".to_owned()),
        Error::Other(reason) => KeyValueError::Failed(reason.clone()),
    }
}
