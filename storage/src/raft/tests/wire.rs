//! What nodes of the version before say is understood, and what a later one may add is passed over: so two versions can
//! be in one cluster while it is upgraded.
//!
//! The texts are as a build wrote them that knew neither moves of replicas nor consumers' offsets in the log.

use bytes::Bytes;
use model::Partition;
use openraft::EntryPayload;
use serde_json::{Value, json};

use super::super::codec::{Addressed, Answer, CodecError, LightRequest, decode_append};
use super::super::directory::NodeCard;
use super::super::state::GroupState;
use super::super::types::{EntryData, Vote, log_id};

const RECORDS: &[u8] = b"{}\n{}\n";

/// An append with an entry of each kind, before its records.
fn append() -> Value {
    json!({
        "vote": {"term": 2, "node": 9, "committed": true},
        "prev": {"term": 1, "index": 4},
        "commit": {"term": 1, "index": 3},
        "entries": [
            {"id": {"term": 2, "index": 5}, "content": "blank"},
            {"id": {"term": 2, "index": 6}, "content": {"members": {"members": members()}}},
            {"id": {"term": 2, "index": 7}, "content": {"batches": {"base_offset": 40, "batches": [{
                "id": "07070707-0707-0707-0707-070707070707", "digest": u64::MAX, "records": 2,
                "min_ms": 1, "max_ms": 2, "at_ms": 3, "crc": crc32fast::hash(RECORDS), "bytes": RECORDS.len(),
            }]}}},
        ],
    })
}

fn members() -> Value {
    json!({
        "at": {"term": 2, "index": 6},
        "voters": [[1, 2, u64::MAX]],
        "nodes": {
            "1": {"name": "node-1", "url": "http://node-1:8081"},
            "2": {"name": "node-2", "url": "http://node-2:8081", "zone": "a"},
            "18446744073709551615": {"name": "node-3", "url": "http://node-3:8081"},
        },
    })
}

fn group_state() -> Value {
    json!({
        "vote": {"term": 3, "node": 9, "committed": false},
        "purged": null,
        "applied": {"term": 2, "index": 7},
        "members": members(),
        "changes": [members()],
    })
}

fn card() -> Value {
    json!({
        "cluster": "00000000000000c1", "id": "fffffffffffffff0", "name": "node-1", "url": "http://node-1:8081",
        "internal": "http://127.0.0.1:8091", "zone": null,
        "groups": [{
            "partition": 0, "founded": true, "leads": true, "term": 2, "leader": "fffffffffffffff0",
            "members": [{"id": "fffffffffffffff0", "name": "node-1", "url": "http://node-1:8081", "votes": true}],
            "first_offset": 0, "high_watermark": 42, "flushed": 42,
        }],
    })
}

/// The same with a field more in each object, but where names are no fields: of the kinds of content, and of nodes by
/// their numbers.
fn with_later_fields(value: Value, has_fields: bool) -> Value {
    match value {
        Value::Object(object) => {
            let of_later = has_fields.then(|| ("later".to_owned(), json!({"x": [1]})));
            let below = object.into_iter().map(|(name, value)| {
                let has_fields = !["content", "nodes", "message"].contains(&name.as_str());
                (name, with_later_fields(value, has_fields))
            });
            Value::Object(below.chain(of_later).collect())
        }
        Value::Array(values) => {
            values.into_iter().map(|value| with_later_fields(value, has_fields)).collect()
        }
        other => other,
    }
}

/// A text as the version before wrote it, and as a later one may.
fn both(text: Value) -> [Value; 2] {
    [text.clone(), with_later_fields(text, true)]
}

fn framed(head: &Value) -> Bytes {
    let head = serde_json::to_vec(head).unwrap();
    [&u32::try_from(head.len()).unwrap().to_le_bytes()[..], &head, RECORDS].concat().into()
}

#[test]
fn an_append_of_another_version_is_understood() {
    for head in both(append()) {
        let request = decode_append(Partition::new(3), framed(&head)).unwrap();
        assert_eq!((request.vote, request.prev_log_id), (Vote::new_committed(2, 9), Some(log_id(1, 4))));
        assert_eq!(request.leader_commit, Some(log_id(1, 3)));
        let [blank, change, records] = &request.entries[..] else { panic!("{:?}", request.entries) };
        assert!(matches!(blank.payload, EntryPayload::Blank) && blank.log_id == log_id(2, 5));
        let EntryPayload::Membership(members) = &change.payload else { panic!("{change:?}") };
        assert_eq!(members.voter_ids().collect::<Vec<_>>(), [1, 2, u64::MAX]);
        assert_eq!(members.get_node(&2).unwrap().zone.as_deref(), Some("a"));
        assert!(!members.get_node(&1).unwrap().placed);
        let EntryPayload::Normal(EntryData::Stored { base_offset: 40, batches, .. }) = &records.payload
        else {
            panic!("{records:?}")
        };
        assert_eq!((batches.len(), &batches[0].bytes[..]), (1, RECORDS));
    }
}

#[test]
fn an_entry_of_a_kind_that_only_a_later_version_knows_is_refused_and_not_half_taken() {
    let mut head = append();
    head["entries"][1]["content"] = json!({"later": {"x": 1}});
    assert!(matches!(decode_append(Partition::new(3), framed(&head)), Err(CodecError::Head(_))));
}

#[test]
fn votes_heartbeats_and_answers_of_another_version_are_understood() {
    let vote = json!({"term": 5, "node": 1, "committed": false});
    let messages = json!([
        {"partition": 1, "message": {"append": {"vote": vote, "prev": null, "commit": null}}},
        {"partition": 2, "message": {"vote": {"vote": vote, "last": {"term": 4, "index": 9}}}},
    ]);
    for messages in both(messages) {
        let messages: Vec<Addressed<LightRequest>> = serde_json::from_value(messages).unwrap();
        assert!(matches!(messages[0].message, LightRequest::Append(_)));
        assert!(
            matches!(&messages[1].message, LightRequest::Vote { vote, last: Some(_) } if *vote == Vote::new(5, 1).into())
        );
    }
    for (text, answer) in [
        (json!("stored"), Answer::Stored),
        (json!({"stored_up_to": {"term": 1, "index": 2}}), Answer::StoredUpTo(Some(log_id(1, 2).into()))),
        (json!("conflict"), Answer::Conflict),
        (json!({"higher_vote": vote}), Answer::HigherVote(Vote::new(5, 1).into())),
        (
            json!({"vote": {"vote": vote, "granted": true, "last": null}}),
            Answer::Vote { vote: Vote::new(5, 1).into(), granted: true, last: None },
        ),
        (json!({"failed": "no"}), Answer::Failed("no".to_owned())),
    ] {
        assert_eq!(serde_json::from_value::<Answer>(text.clone()).unwrap(), answer);
        assert_eq!(serde_json::to_value(&answer).unwrap(), text, "and is answered so");
    }
}

#[test]
fn what_a_node_of_another_version_says_of_itself_is_understood() {
    for card in both(card()) {
        let card: NodeCard = serde_json::from_value(card).unwrap();
        assert_eq!((card.name.as_str(), card.draining, card.copies), ("node-1", false, None));
        assert_eq!((card.groups[0].high_watermark.get(), card.groups[0].members.len()), (42, 1));
    }
}

#[test]
fn a_replicas_state_of_another_version_is_read_and_the_same_is_written() {
    for state in both(group_state()) {
        let state = GroupState::decode(&serde_json::to_vec(&state).unwrap()).unwrap();
        assert_eq!((state.vote(), state.applied()), (Some(Vote::new(3, 9)), Some(log_id(2, 7))));
        assert!(
            !state.is_refilling() && state.consumers().is_empty() && state.change_at(log_id(2, 6)).is_some()
        );
        assert_eq!(serde_json::from_slice::<Value>(&state.encode()).unwrap(), group_state());
    }
}
