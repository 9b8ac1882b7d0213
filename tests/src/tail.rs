//! A live tail as a client reads it: server-sent events, over one connection.

use model::EnrichedRecord;
use reqwest::Response;
use serde_json::Value;

use crate::client::Client;

/// A tail that is read.
#[derive(Debug)]
pub struct Tail {
    response: Response,
    /// What came and was not told yet. A character may come in two pieces.
    bytes: Vec<u8>,
    last_id: String,
}

/// What a tail tells.
#[derive(Clone, Debug)]
pub enum Told {
    /// A record with its place.
    Record(u16, u64, Box<EnrichedRecord>),
    /// Anything else: its name, and what it says.
    Other(String, Value),
}

impl Tail {
    /// Opens a tail at this URL, where another one ended if there is an id.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open(client: &Client, url: &str, last_id: &str) -> Self {
        let mut request = client.request("GET", url);
        if !last_id.is_empty() {
            request = request.header("last-event-id", last_id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, bytes: Vec::new(), last_id: last_id.to_owned() }
    }

    /// A header of the answer; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The id with which another tail goes on.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// What is told next; `None` when the tail has ended, or its connection.
    ///
    /// # Panics
    /// When it is not what a tail tells.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(end) = self.bytes.array_windows().position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.bytes.drain(..end + 2).collect();
                let event = std::str::from_utf8(&event).unwrap();
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let name = field("event").map(str::to_owned);
                let data = field("data").map(|data| serde_json::from_str::<Value>(data).unwrap());
                if let Some(id) = field("id") {
                    id.clone_into(&mut self.last_id);
                }
                let (Some(name), Some(data)) = (name, data) else { continue };
                if name != "record" {
                    return Some(Told::Other(name, data));
                }
                let partition = u16::try_from(data["partition"].as_u64().unwrap()).unwrap();
                let offset = data["offset"].as_u64().unwrap();
                let record = serde_json::from_value(data["record"].clone()).unwrap();
                return Some(Told::Record(partition, offset, Box::new(record)));
            }
            let chunk = self.response.chunk().await.ok()??;
            self.bytes.extend_from_slice(&chunk);
        }
    }
}
