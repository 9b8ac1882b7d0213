//! Delivery against scripted nodes.

use std::collections::BTreeSet;

use futures::executor::block_on;
use model::Tenant;

use super::*;
use crate::config::tests::two_nodes;
use crate::fake::{Fake, Reaction};
use crate::storage::SendError;

fn delivery(partition: u16) -> Delivery {
    let partition = Partition::new(partition);
    Delivery {
        partition,
        id: BatchId::derive(&Tenant::default(), "k", partition),
        digest: BatchDigest::of(b"sent"),
        record_count: 2,
        lines: Bytes::from_static(b"{}\n{}\n"),
    }
}

fn delivered(fake: &Fake<'_>, partitions: &[u16]) -> Vec<Outcome> {
    let budget = Budget::new(1 << 20);
    let deliveries: Vec<_> = partitions.iter().map(|partition| delivery(*partition)).collect();
    let outcomes = block_on(deliver_all(fake, &two_nodes(), &budget, &deliveries));
    assert_eq!(budget.in_use(), 0);
    outcomes
}

fn stored() -> Outcome {
    Outcome::Stored { durability: Some("leader".to_owned()) }
}

/// The outcome, and how many calls it took, when every call is met with this.
fn always(reaction: &Reaction) -> (Outcome, usize) {
    let fake = Fake::new(|_, _| reaction.clone());
    let outcome = delivered(&fake, &[0]).remove(0);
    let calls = fake.calls.borrow().len();
    (outcome, calls)
}

fn failure(outcome: &Outcome) -> &Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Stored { .. } => panic!("stored"),
    }
}

#[test]
fn each_partition_goes_to_its_node_with_its_id_and_digest() {
    let fake = Fake::new(|_, _| Reaction::stored(2));
    assert_eq!(delivered(&fake, &[3, 0]), [stored(), stored()]);
    let calls = fake.calls.borrow();
    let urls: BTreeSet<_> =
        calls.iter().map(|(node, call)| format!("{node}{}", call.path_and_query)).collect();
    let expected = ["http://node-1:8081/v1/storage?partition=0", "http://node-2:8081/v1/storage?partition=3"];
    assert_eq!(urls, expected.map(str::to_owned).into());
    assert!(calls.iter().all(|(_, call)| call.body.as_deref() == Some(&b"{}\n{}\n"[..])));
    drop(calls);
    let ids = [3, 0].map(|partition| delivery(partition).id.to_string());
    assert_eq!(fake.header("batch-id"), ids);
    assert_eq!(
        fake.header("batch-digest"),
        [BatchDigest::of(b"sent").to_string(), BatchDigest::of(b"sent").to_string()]
    );
    assert_eq!(fake.header("content-type"), ["application/x-ndjson", "application/x-ndjson"]);
}

#[test]
fn all_partitions_are_in_flight_at_once_within_bounds() {
    let config = Config::new(&["n", "http://node-1:8081", "1024", ""].map(str::to_owned)).unwrap();
    let fake = Fake::new(|_, _| Reaction::stored(2));
    let deliveries: Vec<_> = (0..1024).map(delivery).collect();
    let outcomes = block_on(deliver_all(&fake, &config, &Budget::new(1 << 20), &deliveries));
    assert_eq!(outcomes, vec![stored(); 1024]);
    assert_eq!(fake.in_flight_max.get(), limits::FORWARDS_AT_ONCE);
    let few = Fake::new(|_, _| Reaction::stored(2));
    delivered(&few, &[0, 1, 2, 3]);
    assert_eq!(few.in_flight_max.get(), 4);
}

#[test]
fn what_may_pass_is_tried_once_more_with_the_same_id() {
    for first in [
        Reaction::refused_connection(),
        Reaction::Error(SendError::TimedOut),
        Reaction::Breaks,
        Reaction::problem(408, "slow"),
        Reaction::problem(429, "full"),
        Reaction::problem(500, "oh"),
        Reaction::problem(503, "not ready"),
        Reaction::reply(502, "<html>"),
        Reaction::reply(200, "garbage"),
        Reaction::stored(1),
    ] {
        let mut reactions = vec![Reaction::stored(2), first.clone()];
        let fake = Fake::new(|_, _| reactions.pop().unwrap());
        assert_eq!(delivered(&fake, &[1]), [stored()], "{first:?}");
        let id = delivery(1).id.to_string();
        assert_eq!(fake.header("batch-id"), [id.clone(), id], "{first:?}");
        let pauses = fake.pauses.borrow();
        let (least, spread) = limits::RETRY_PAUSE;
        assert!(pauses.len() == 1 && (least..=least + spread).contains(&pauses[0]), "{pauses:?}");

        let (outcome, calls) = always(&first);
        assert_eq!((failure(&outcome).kind, calls), (FailureKind::Unavailable, 2), "{first:?}");
    }
}

#[test]
fn what_cannot_pass_is_not_tried_again() {
    for (reaction, kind) in [
        (Reaction::Error(SendError::Denied), FailureKind::Unavailable),
        (Reaction::problem(400, "bad record"), FailureKind::Refused),
        (Reaction::problem(404, "nothing here"), FailureKind::Refused),
        (Reaction::reply(302, ""), FailureKind::Refused),
        (Reaction::reply(204, ""), FailureKind::Refused),
        (Reaction::problem(409, "another batch"), FailureKind::Conflict),
        (Reaction::problem(413, "too large"), FailureKind::TooLarge),
        (Reaction::problem(421, "not mine"), FailureKind::Unavailable),
        (Reaction::problem(507, "disk full"), FailureKind::DiskFull),
    ] {
        let (outcome, calls) = always(&reaction);
        assert_eq!((failure(&outcome).kind, calls), (kind, 1), "{reaction:?}");
        assert!(failure(&outcome).detail.starts_with("http://node-1:8081: "), "{outcome:?}");
    }
}

#[test]
fn what_a_node_says_is_passed_on() {
    let (outcome, _) = always(&Reaction::problem(429, "the queue is full").with("retry-after", "7"));
    let expected = "http://node-1:8081: 429: the queue is full";
    assert_eq!((failure(&outcome).detail.as_str(), failure(&outcome).retry_after_s), (expected, Some(7)));
    let (outcome, _) = always(&Reaction::reply(503, "x").with("retry-after", "86400"));
    assert_eq!(failure(&outcome).retry_after_s, Some(limits::RETRY_AFTER_S_MAX));
}

#[test]
fn one_partition_that_fails_does_not_keep_the_others() {
    let fake = Fake::new(|node, _| {
        if node.authority == "node-2:8081" { Reaction::refused_connection() } else { Reaction::stored(2) }
    });
    let outcomes = delivered(&fake, &[0, 2, 1, 3]);
    let is_stored: Vec<_> = outcomes.iter().map(|outcome| *outcome == stored()).collect();
    assert_eq!(is_stored, [true, false, true, false]);
}

#[test]
fn the_named_leader_is_followed_if_it_is_a_configured_node() {
    let moved = |leader: &'static str| {
        Fake::new(move |node, _| {
            if node.authority == "node-1:8081" {
                Reaction::problem(421, "not mine").with("leader", leader)
            } else {
                Reaction::stored(2)
            }
        })
    };
    let fake = moved("http://node-2:8081/");
    assert_eq!(delivered(&fake, &[0]), [stored()]);
    let id = delivery(0).id.to_string();
    assert_eq!(fake.header("batch-id"), [id.clone(), id]);
    assert!(fake.pauses.borrow().is_empty());
    for stranger in ["http://evil:8081", "https://node-2:8081", "http://node-2:22", "http://node-1:8081", "x"]
    {
        let fake = moved(stranger);
        assert_eq!(failure(&delivered(&fake, &[0])[0]).kind, FailureKind::Unavailable, "{stranger}");
        assert_eq!(fake.calls.borrow().len(), 1, "{stranger}");
    }
}

#[test]
fn nodes_that_name_each_other_are_left_alone() {
    let fake = Fake::new(|node, _| {
        let other = if node.authority == "node-1:8081" { "http://node-2:8081" } else { "http://node-1:8081" };
        Reaction::problem(421, "not mine").with("leader", other)
    });
    assert_eq!(failure(&delivered(&fake, &[0])[0]).kind, FailureKind::Unavailable);
    assert_eq!(fake.calls.borrow().len(), 1 + limits::LEADER_HOPS_MAX as usize);
}
