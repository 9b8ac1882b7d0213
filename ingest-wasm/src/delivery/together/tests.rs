//! Batches that go to a node together, against scripted nodes.

use std::cell::Cell;

use futures::executor::block_on;
use model::{BatchDigest, BatchId, Partition, Tenant};

use super::super::{FailureKind, Outcome};
use super::*;
use crate::budget::Budget;
use crate::config::Config;
use crate::config::tests::{config, two_nodes};
use crate::fake::{Fake, Reaction};
use crate::settle::settle_all;

fn delivery(partition: u16, bytes: usize) -> Delivery {
    let partition = Partition::new(partition);
    Delivery {
        partition,
        id: BatchId::derive(&Tenant::default(), "k", partition),
        digest: BatchDigest::of(b"sent"),
        record_count: 1,
        lines: Bytes::from(vec![b'x'; bytes]),
        acks: None,
    }
}

/// What becomes of a small batch for each of these partitions, without an edge WAL.
fn settled(fake: &Fake<'_>, partitions: &[u16]) -> Vec<Outcome> {
    let (config, budget) = (Config { wal: None, ..two_nodes() }, Budget::new(1 << 20));
    let sparing = fake.sparing();
    let context = fake.context_of(&sparing, &config, &budget);
    let deliveries: Vec<_> = partitions.iter().map(|partition| delivery(*partition, 10)).collect();
    let settled = block_on(sparing.run(settle_all(&context, &deliveries)));
    assert_eq!(budget.in_use(), 0);
    settled.outcomes
}

fn planned(fake: &Fake<'_>, config: &Config, deliveries: &[Delivery]) -> Vec<Vec<usize>> {
    let budget = Budget::new(1 << 20);
    let requests = plan(&fake.context(config, &budget), deliveries.iter().enumerate().collect());
    requests.into_iter().map(|request| request.into_iter().map(|(place, _)| place).collect()).collect()
}

fn stored() -> Outcome {
    Outcome::Stored { durability: Some("leader".to_owned()) }
}

fn failure(outcome: &Outcome) -> (FailureKind, &str) {
    match outcome {
        Outcome::Failed(failure) => (failure.kind, &failure.detail),
        other => panic!("{other:?}"),
    }
}

/// The partitions that batches came for, each time one did.
fn came(fake: &Fake<'_>) -> Vec<String> {
    fake.calls
        .borrow()
        .iter()
        .map(|(_, call)| call.path_and_query.replace("/v1/storage?partition=", ""))
        .collect()
}

#[test]
fn batches_of_one_node_go_there_in_one_request() {
    let fake = Fake::new(|_, _| Reaction::stored(1));
    assert_eq!(settled(&fake, &[0, 2, 1, 3]), vec![stored(); 4]);
    let expected = [("http://node-1:8081", 2), ("http://node-2:8081", 2)];
    assert_eq!(*fake.together.borrow(), expected.map(|(node, count)| (node.to_owned(), count)));
    assert_eq!(came(&fake), ["0", "1", "2", "3"]);
    let ids: Vec<_> = [0, 1, 2, 3].iter().map(|partition| delivery(*partition, 1).id.to_string()).collect();
    assert_eq!(fake.header("batch-id"), ids);
    assert_eq!(fake.header("batch-digest"), vec![BatchDigest::of(b"sent").to_string(); 4]);
    assert_eq!(fake.header("ingest-node").len(), 4);
    assert_eq!(fake.header("batch-attempt"), [""; 0]);
}

#[test]
fn one_batch_goes_alone() {
    let fake = Fake::new(|_, _| Reaction::stored(1));
    assert_eq!(settled(&fake, &[0, 2]), vec![stored(); 2]);
    assert!(fake.together.borrow().is_empty());
}

#[test]
fn a_batch_that_fails_among_others_goes_on_alone() {
    for first in [
        Reaction::problem(503, "no quorum"),
        Reaction::problem(429, "full"),
        Reaction::problem(421, "not here").with("leader", "http://node-2:8081"),
    ] {
        let is_first = Cell::new(true);
        let fake = Fake::new(|_, call| {
            let is_it = call.path_and_query.ends_with("=1") && is_first.replace(false);
            if is_it { first.clone() } else { Reaction::stored(1) }
        });
        let outcomes = settled(&fake, &[1, 0]);
        assert_eq!(outcomes, vec![stored(); 2], "{first:?}");
        assert_eq!(came(&fake), ["1", "0", "1"], "{first:?}");
        let again = fake.calls.borrow()[2].0.clone();
        let is_hinted = matches!(&first, Reaction::Reply { status: 421, .. });
        assert_eq!(again.contains("node-2"), is_hinted, "{first:?}");
        let attempts = fake.header("batch-attempt");
        assert_eq!(attempts, if is_hinted { vec![] } else { vec!["2".to_owned()] }, "{first:?}");
    }
}

#[test]
fn what_is_final_for_one_is_so_for_no_other() {
    let fake = Fake::new(|_, call| match &call.path_and_query {
        path if path.ends_with("=1") => Reaction::problem(409, "other content"),
        _ => Reaction::stored(1),
    });
    let outcomes = settled(&fake, &[0, 1]);
    assert_eq!(outcomes[0], stored());
    assert_eq!(failure(&outcomes[1]), (FailureKind::Conflict, "http://node-1:8081: 409: other content"));
    assert_eq!(came(&fake).len(), 2);
}

#[test]
fn a_request_that_is_lost_costs_each_batch_one_attempt() {
    for first in [Reaction::refused_connection(), Reaction::Breaks] {
        let is_first = Cell::new(true);
        let fake =
            Fake::new(|_, _| if is_first.replace(false) { first.clone() } else { Reaction::stored(1) });
        assert_eq!(settled(&fake, &[0, 1]), vec![stored(); 2], "{first:?}");
        assert_eq!(fake.header("batch-attempt"), ["2", "2"], "{first:?}");
        assert_eq!(fake.together.borrow().len(), 1);
    }
}

#[test]
fn a_node_that_does_not_know_such_requests_is_spared_them_for_a_while() {
    let fake = Fake::new(|_, _| Reaction::stored(1));
    fake.knows_together.set(false);
    for _ in 0..2 {
        assert_eq!(settled(&fake, &[0, 1]), vec![stored(); 2]);
        assert_eq!(fake.together.borrow().len(), 1);
    }
    assert_eq!(fake.header("batch-attempt"), [""; 0], "nothing has failed");
    fake.elapsed.set(fake.elapsed.get() + limits::TOGETHER_UNKNOWN_AGE_MAX);
    fake.knows_together.set(true);
    assert_eq!(settled(&fake, &[0, 1]), vec![stored(); 2]);
    assert_eq!(fake.together.borrow().len(), 2);
}

#[test]
fn only_an_answer_for_the_batch_itself_is_believed() {
    let part = |partition: u16, stored: u64| {
        format!(r#"{{"partition":{partition},"status":200,"body":{{"stored":{stored},"offset":0}}}}"#)
    };
    let strange = "it answers 200, but not as storage does";
    for (body, of_first, of_second) in [
        ("<html>".to_owned(), strange, strange),
        (r#"{"stored":1,"offset":0}"#.to_owned(), strange, strange),
        (r#"{"stored":1,"offset":0,"batches":[]}"#.to_owned(), strange, strange),
        (format!(r#"{{"batches":[{}]}}"#, part(0, 1)), "", strange),
        (format!(r#"{{"batches":[{},{}]}}"#, part(1, 7), part(0, 1)), "", "it stored 7 of 1 records"),
    ] {
        let fake = Fake::new(|_, _| Reaction::stored(1));
        *fake.together_answer.borrow_mut() = Some(Reaction::reply(200, body.clone()));
        let outcomes = settled(&fake, &[0, 1]);
        for (outcome, expected) in outcomes.iter().zip([of_first, of_second]) {
            match outcome {
                Outcome::Stored { .. } => assert_eq!(expected, "", "{body}"),
                other => {
                    let (kind, detail) = failure(other);
                    assert_eq!(kind, FailureKind::Unavailable);
                    assert!(!expected.is_empty() && detail.ends_with(expected), "{body}: {detail}");
                }
            }
        }
    }
}

#[test]
fn requests_have_a_bounded_number_of_batches_and_bytes() {
    let one_node = config(["n", "http://node-1:8081", "1024", ""]).unwrap();
    let fake = Fake::new(|_, _| Reaction::stored(1));
    let small: Vec<_> = (0..150).map(|partition| delivery(partition, 1)).collect();
    let sizes: Vec<usize> = planned(&fake, &one_node, &small).iter().map(Vec::len).collect();
    assert_eq!(sizes, [BATCHES_AT_ONCE_MAX, BATCHES_AT_ONCE_MAX, 150 - 2 * BATCHES_AT_ONCE_MAX]);
    let large = limits::TOGETHER_BATCH_BYTES_MAX;
    let batches = [(0, large), (1, large + 1), (2, large), (3, large), (4, large), (5, 1), (6, 1)]
        .map(|(partition, bytes)| delivery(partition, bytes));
    assert_eq!(planned(&fake, &one_node, &batches), [vec![0, 2, 3, 4], vec![1], vec![5, 6]]);
}

#[test]
fn where_something_is_in_the_way_each_batch_finds_its_own() {
    let batches = [0, 1, 2, 3].map(|partition| delivery(partition, 1));
    let (config, node) = (two_nodes(), StorageNode::parse("http://node-1:8081").unwrap());
    let fake = Fake::new(|_, _| Reaction::stored(1));
    assert_eq!(planned(&fake, &config, &batches), [[0, 1], [2, 3]]);
    assert!(planned(&fake, &config, &[]).is_empty());
    for _ in 0..limits::CIRCUIT_FAILURES_MAX {
        fake.instance.circuits.note_not_reached(&node, Duration::ZERO);
    }
    assert_eq!(planned(&fake, &config, &batches), [vec![0], vec![1], vec![2, 3]]);

    // An election that is worth waiting for.
    let fake = Fake::new(|_, _| Reaction::stored(1));
    let looking = fake.instance.leaders.look(&config, Duration::ZERO).unwrap();
    let Reaction::Reply { body, .. } = Reaction::cluster(&node, &[(1, None)], 1) else { unreachable!() };
    looking.note(&config, &node, &serde_json::from_slice(&body).unwrap(), Duration::ZERO);
    drop(looking);
    fake.instance.leaders.note_failed(Partition::new(1), &node, Duration::ZERO);
    assert_eq!(planned(&fake, &config, &batches), [vec![0], vec![1], vec![2, 3]]);
}

#[test]
fn what_was_found_out_since_it_was_planned_is_heeded() {
    let fake = Fake::new(|_, _| Reaction::stored(1));
    let (config, budget) = (two_nodes(), Budget::new(1 << 20));
    let context = fake.context(&config, &budget);
    let batches = [0, 1].map(|partition| delivery(partition, 1));
    let attempt = |deadline| {
        let patience = Patience { deadline, attempts_max: limits::FORWARD_ATTEMPTS };
        block_on(attempt_together(&context, &batches.iter().collect::<Vec<_>>(), patience))
    };
    assert!(attempt(limits::DELIVERY_TIME_MAX).iter().all(Option::is_some));
    assert!(attempt(limits::ATTEMPT_TIME_MIN / 2).iter().all(Option::is_none), "there is no time left");
    let other = StorageNode::parse("http://node-2:8081").unwrap();
    fake.instance.leaders.note_hint(Partition::new(1), &other, Duration::ZERO);
    assert!(attempt(limits::DELIVERY_TIME_MAX).iter().all(Option::is_none), "they have different leaders");
    assert_eq!(fake.together.borrow().len(), 1);
}

#[test]
fn a_request_that_fails_as_a_whole_is_a_failed_attempt_of_each() {
    for (status, is_tried_again) in [(429, true), (408, true), (503, true), (500, false)] {
        let fake = Fake::new(|_, _| Reaction::stored(1));
        *fake.together_answer.borrow_mut() = Some(Reaction::problem(status, "no"));
        let outcomes = settled(&fake, &[0, 1]);
        let expected = if is_tried_again { vec![stored(); 2] } else { vec![] };
        assert_eq!(
            outcomes.iter().filter(|outcome| **outcome == stored()).cloned().collect::<Vec<_>>(),
            expected
        );
        assert_eq!(fake.header("batch-attempt").len(), expected.len(), "{status}");
    }
}

#[test]
fn a_partition_with_older_batches_in_the_wal_stays_out() {
    let is_up = Cell::new(false);
    let fake =
        Fake::new(|_, _| if is_up.get() { Reaction::stored(1) } else { Reaction::problem(507, "full") });
    let (config, budget) = (two_nodes(), Budget::new(1 << 20));
    let sparing = fake.sparing();
    let context = fake.context_of(&sparing, &config, &budget);
    let settle = |deliveries: &[Delivery]| block_on(sparing.run(settle_all(&context, deliveries))).outcomes;
    assert_eq!(settle(&[delivery(0, 10)]), [Outcome::Queued]);
    is_up.set(true);
    fake.calls.borrow_mut().clear();
    let newer = |partition| Delivery {
        id: BatchId::derive(&Tenant::default(), "newer", Partition::new(partition)),
        ..delivery(partition, 10)
    };
    assert_eq!(settle(&[newer(0), newer(1)]), vec![stored(); 2]);
    assert!(fake.together.borrow().is_empty(), "one of the two waits for what is older");
    let ids: Vec<_> = fake
        .calls
        .borrow()
        .iter()
        .filter(|(_, call)| call.path_and_query.ends_with("=0"))
        .map(|(_, call)| call.headers.iter().find(|(name, _)| *name == wire::BATCH_ID).unwrap().1.clone())
        .collect();
    assert_eq!(ids, [delivery(0, 1).id.to_string(), newer(0).id.to_string()]);
}
