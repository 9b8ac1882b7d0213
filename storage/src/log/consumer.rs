//! How far a consumer has read, as an entry of the replicated log says it.
//!
//! Such an entry has no records: what it says is in its header. A name does not fit there, so a consumer is known by the
//! UUID that its name gives. Must not know what a consumer does.

use std::fmt;

use model::Offset;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names of consumers are made UUIDs in it (drawn once, at random).
const NAMESPACE: Uuid = Uuid::from_u128(0x9d3c_52a1_7be0_4f0e_a6c4_18f2_d5b7_630e);

/// A consumer, by its name's UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConsumerKey(Uuid);

/// A consumer has read up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerCommit {
    /// The consumer.
    pub consumer: ConsumerKey,
    /// The offset of the record that it reads next; `None` forgets the consumer.
    pub offset: Option<Offset>,
}

impl ConsumerKey {
    /// That of a name.
    pub fn of(name: &str) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    }

    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    pub(super) fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for ConsumerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<ConsumerKey> for String {
    fn from(key: ConsumerKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for ConsumerKey {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_the_same_key_for_ever_and_others_another() {
        assert_eq!(ConsumerKey::of("exporter").to_string(), "71a4092d-8cb7-528b-8502-58278abb0f6b");
        assert_ne!(ConsumerKey::of("exporter"), ConsumerKey::of("Exporter"));
    }
}
