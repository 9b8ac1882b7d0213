//! Delivery against scripted nodes.

use std::collections::BTreeSet;

use futures::executor::block_on;
use model::Tenant;

use super::*;
use crate::budget::Budget;
use crate::config::tests::two_nodes;
use crate::fake::{Fake, Reaction};
use crate::storage::SendError;

pub(super) fn delivery(partition: u16) -> Delivery {
    let partition = Partition::new(partition);
    Delivery {
        partition,
        id: BatchId::derive(&Tenant::default(), "k", partition),
        digest: BatchDigest::of(b"sent"),
        record_count: 2,
        lines: Bytes::from_static(b"{}\n{}\n"),
        acks: None,
    }
}

/// The outcomes of batches that are delivered one after another.
fn delivered(fake: &Fake<'_>, partitions: &[u16]) -> Vec<Outcome> {
    let (config, budget) = (two_nodes(), Budget::new(1 << 20));
    let sparing = fake.sparing();
    let context = fake.context_of(&sparing, &config, &budget);
    let deadline = fake.elapsed() + limits::DELIVERY_TIME_MAX;
    let patience = Patience { deadline, attempts_max: limits::FORWARD_ATTEMPTS };
    let deliver = |partition: &u16| block_on(sparing.run(deliver(&context, &delivery(*partition), patience)));
    let outcomes = partitions.iter().map(deliver).collect();
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
        other => panic!("{other:?}"),
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
fn what_may_pass_is_tried_again_with_the_same_id_a_few_times() {
    for (first, kind) in [
        (Reaction::refused_connection(), FailureKind::Unavailable),
        (Reaction::Error(SendError::TimedOut), FailureKind::Unavailable),
        (Reaction::Breaks, FailureKind::Unavailable),
        (Reaction::problem(408, "slow"), FailureKind::Unavailable),
        (Reaction::problem(429, "full"), FailureKind::Overloaded),
        (Reaction::problem(503, "not ready"), FailureKind::Unavailable),
        (Reaction::reply(502, "<html>"), FailureKind::Unavailable),
    ] {
        let mut reactions = vec![Reaction::stored(2), first.clone()];
        let fake = Fake::new(|_, _| reactions.pop().unwrap());
        assert_eq!(delivered(&fake, &[1]), [stored()], "{first:?}");
        let id = delivery(1).id.to_string();
        assert_eq!(fake.header("batch-id"), [id.clone(), id], "{first:?}");
        let pauses = fake.pauses.borrow();
        assert!(pauses.len() == 1 && pauses[0] <= limits::RETRY_PAUSE_FIRST_MAX, "{pauses:?}");

        let (outcome, calls) = always(&first);
        assert_eq!(failure(&outcome).kind, kind, "{first:?}");
        assert!((3..=limits::FORWARD_ATTEMPTS as usize).contains(&calls), "{calls} {first:?}");
    }
}

#[test]
fn a_node_that_names_a_time_is_met_then_or_not_at_all() {
    let mut reactions = vec![Reaction::stored(2), Reaction::problem(429, "full").with("retry-after", "2")];
    let fake = Fake::new(|_, _| reactions.pop().unwrap());
    assert_eq!(delivered(&fake, &[1]), [stored()]);
    let pause = fake.pauses.borrow()[0];
    assert!(pause >= Duration::from_secs(2) && pause < Duration::from_millis(2_100), "{pause:?}");

    let (outcome, calls) = always(&Reaction::problem(503, "starting").with("retry-after", "7"));
    assert_eq!((failure(&outcome).retry_after_s, calls), (Some(7), 1));
}

#[test]
fn all_attempts_end_in_time() {
    let fake = Fake::new(|_, _| Reaction::Error(SendError::TimedOut));
    fake.send_time.set(limits::APPEND_TIME_MAX);
    assert_eq!(failure(&delivered(&fake, &[0])[0]).kind, FailureKind::Unavailable);
    assert!(fake.elapsed() <= limits::DELIVERY_TIME_MAX, "{:?}", fake.elapsed());
    let calls = fake.calls.borrow();
    assert!(calls.len() == 2 && calls[1].1.time_max < limits::APPEND_TIME_MAX);
}

#[test]
fn a_node_that_is_not_reached_is_left_alone_and_found_again() {
    let is_down = std::cell::Cell::new(true);
    let fake =
        Fake::new(|_, _| if is_down.get() { Reaction::refused_connection() } else { Reaction::stored(2) });
    *fake.cluster.borrow_mut() = Box::new(|_| Reaction::refused_connection());
    delivered(&fake, &[0]);
    // Whether somebody else leads is asked too.
    let reached = || {
        fake.looks.borrow().iter().filter(|node| *node == "http://node-1:8081").count()
            + fake.calls.borrow().len()
    };
    assert_eq!(reached(), limits::CIRCUIT_FAILURES_MAX as usize);
    let outcomes = delivered(&fake, &[0, 1, 0]);
    assert!(outcomes.iter().all(|outcome| failure(outcome).detail.contains("left alone")), "{outcomes:?}");
    assert_eq!(reached(), limits::CIRCUIT_FAILURES_MAX as usize, "nobody called it");
    is_down.set(false);
    fake.elapsed.set(fake.elapsed() + limits::CIRCUIT_OPEN_FIRST);
    assert_eq!(delivered(&fake, &[0, 1]), [stored(), stored()]);
}

#[test]
fn retries_do_not_multiply_the_load() {
    let fake = Fake::new(|_, _| Reaction::problem(503, "no"));
    delivered(&fake, &[0; 200]);
    let retries = fake.calls.borrow().len() - 200;
    let retries_max = 200 / limits::RETRY_SHARE_INVERSE + limits::RETRY_BURST;
    assert!(retries > 0 && retries <= retries_max as usize, "{retries}");
}

#[test]
fn what_cannot_pass_is_not_tried_again() {
    for (reaction, kind) in [
        (Reaction::Error(SendError::Denied), FailureKind::Unavailable),
        (Reaction::problem(400, "bad record"), FailureKind::Invalid),
        (Reaction::problem(500, "oh"), FailureKind::Unavailable),
        (Reaction::reply(200, "garbage"), FailureKind::Unavailable),
        (Reaction::stored(1), FailureKind::Unavailable),
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

#[test]
fn a_deadline_that_passes_while_a_node_is_awaited_is_noticed() {
    let fake = Fake::new(|_, _| Reaction::problem(429, "full"));
    fake.send_time.set(limits::APPEND_TIME_MAX);
    let outcome = delivered(&fake, &[0]).remove(0);
    assert_eq!(failure(&outcome).kind, FailureKind::Overloaded);
    let time_left: Vec<_> = fake.calls.borrow().iter().map(|(_, call)| call.time_max).collect();
    let first_pause = fake.pauses.borrow()[0];
    let left = limits::DELIVERY_TIME_MAX - limits::APPEND_TIME_MAX - first_pause;
    assert_eq!(time_left, [limits::APPEND_TIME_MAX, left], "no third time");
}
