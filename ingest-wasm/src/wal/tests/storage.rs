//! What the simulated storage does with what it is sent.

use model::wire::AppendAnswer;
use model::{EnrichedRecord, Offset};

use super::World;
use crate::body::tests::Pieces;
use crate::fake::{alone, answer_together};
use crate::message::Headers;
use crate::storage::{Call, Reply};

pub(super) fn reply(status: u16, body: Vec<u8>) -> Reply<Pieces> {
    let headers: Headers = [("content-length", body.len().to_string())].into_iter().collect();
    Reply { status, headers, body: Pieces::of(&[&body]) }
}

impl World {
    pub(super) fn some_node(&self) -> String {
        format!("http://node-{}:8081", 1 + self.chance.below(2))
    }

    /// What storage does with an append: each id once. Whoever asks who leads is told of any node and any term.
    pub(super) fn append(&self, call: &Call) -> Reply<Pieces> {
        if call.path_and_query == "/v1/cluster" {
            let (leader, term) = (self.some_node(), self.chance.below(4));
            let state = |partition| {
                format!(
                    r#"{{"partition":{partition},"leader":"{leader}","term":{term},"high_watermark":0,"replicas":[]}}"#
                )
            };
            let partitions = [0, 1, 2, 3].map(state).join(",");
            return reply(
                200,
                format!(r#"{{"node":"n","nodes":[],"partitions":[{partitions}]}}"#).into_bytes(),
            );
        }
        if call.path_and_query == "/v1/storage/batches" {
            let append = |(partition, call)| {
                let refuses = !self.is_calm.get() && self.chance.one_in(6);
                let refusal = if self.chance.one_in(2) { 503 } else { 421 };
                let (status, body) = if refuses { (refusal, b"{}".to_vec()) } else { self.append_one(&call) };
                (partition, status, Vec::new(), body)
            };
            return reply(200, answer_together(alone(call).into_iter().map(append).collect()));
        }
        let (status, body) = self.append_one(call);
        reply(status, body)
    }

    fn append_one(&self, call: &Call) -> (u16, Vec<u8>) {
        let header = |name: &str| call.headers.iter().find(|(field, _)| *field == name).unwrap().1.clone();
        let (id, digest) = (header("batch-id"), header("batch-digest"));
        let text = String::from_utf8(call.body.clone().unwrap().to_vec()).unwrap();
        let records: Vec<EnrichedRecord> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let answer = AppendAnswer { stored: records.len() as u64, offset: Offset::ZERO };
        let mut stored = self.stored.borrow_mut();
        let partition = stored.entry(call.path_and_query.clone()).or_default();
        match partition.digests.get(&id) {
            Some(known) if *known != digest => return (409, b"{}".to_vec()),
            Some(_) => {}
            None => {
                partition.digests.insert(id, digest);
                partition.records.extend(records);
            }
        }
        (200, serde_json::to_vec(&answer).unwrap())
    }
}
