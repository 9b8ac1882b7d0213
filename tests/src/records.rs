//! The records that the tests send, and where they have to go.
//!
//! Invariant: a record of a [`RecordSource`] names the connection that sends it and its place among that connection's
//! records, so that the oracle knows each one again.

use std::collections::BTreeMap;

use model::Record;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The services that the tests log as: of 4 partitions each has at least one of them.
pub const SERVICES: [&str; 6] = [
    "auth_service",
    "event_creator",
    "focus_allocator",
    "notification_service",
    "unknown_service",
    "śluza-7",
];

/// The partition of a service's records, from the definition of FNV-1a 64 (draft-eastlake-fnv), not from edgelog.
pub fn partition_of(service: &str, partitions: u16) -> u16 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in service.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash % u64::from(partitions)) as u16
}

/// Records as the body of a request.
pub fn json_array(records: &[Record]) -> String {
    serde_json::to_string(records).unwrap()
}

/// Records as the body of a request of the type NDJSON.
pub fn ndjson(records: &[Record]) -> String {
    records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect()
}

/// A plain record.
pub fn record(service: &str, message: &str) -> Record {
    Record {
        timestamp: 1_700_000_000_000,
        service: service.to_owned(),
        level: Some("INFO".to_owned()),
        message: message.to_owned(),
        labels: BTreeMap::new(),
    }
}

/// Makes the records of one connection.
#[derive(Clone, Debug)]
pub struct RecordSource {
    connection: u32,
    next_place: u64,
    random: ChaCha8Rng,
}

impl RecordSource {
    /// The records of this connection. `seed` decides them.
    pub fn new(connection: u32, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(connection.into());
        Self { connection, next_place: 0, random }
    }

    /// The next records, of all services.
    pub fn batch(&mut self, records: usize) -> Vec<Record> {
        (0..records).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> Record {
        let place = self.next_place;
        self.next_place += 1;
        let random = &mut self.random;
        let service = *SERVICES.choose(random).unwrap();
        let filler = "lorem ipsum \n\"dolor\" sit ".repeat(random.random_range(0..8));
        let level = ["DEBUG", "INFO", "WARN", "ERROR"].choose(random).map(|level| (*level).to_owned());
        let mut labels = BTreeMap::new();
        if random.random_bool(0.3) {
            labels.insert("user".to_owned(), random.random_range(0..1_000).to_string());
        }
        Record {
            timestamp: 1_700_000_000_000 + place,
            service: service.to_owned(),
            level: level.filter(|_| random.random_bool(0.9)),
            message: format!("{}:{place}: {filler}", self.connection),
            labels,
        }
    }
}

/// The connection and the place that a message of a [`RecordSource`] names.
pub fn origin(message: &str) -> Option<(u32, u64)> {
    let mut parts = message.splitn(3, ':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
