//! A request's batches between storage and the edge WAL.

use bytes::Bytes;
use futures::executor::block_on;
use model::wire::Durability;
use model::{BatchDigest, BatchId, Partition, Tenant};

use super::*;
use crate::budget::Budget;
use crate::config::Config;
use crate::config::tests::{config, two_nodes};
use crate::fake::{Fake, NOW_MS, Reaction};
use crate::key_value::KeyValueError;
use crate::storage::Call;
use crate::wal::{Listing, replay};

fn delivery(partition: u16, key: &str) -> Delivery {
    let partition = Partition::new(partition);
    Delivery {
        partition,
        id: BatchId::derive(&Tenant::default(), key, partition),
        digest: BatchDigest::of(key.as_bytes()),
        record_count: 1,
        lines: Bytes::from(format!("{{\"key\":\"{key}\"}}\n")),
        acks: None,
    }
}

fn settled_with(fake: &Fake<'_>, config: &Config, deliveries: &[Delivery]) -> Vec<Outcome> {
    let budget = Budget::new(1 << 20);
    let sparing = fake.sparing();
    let context = fake.context_of(&sparing, config, &budget);
    let settled = block_on(sparing.run(settle_all(&context, deliveries)));
    assert_eq!(budget.in_use(), 0);
    settled.outcomes
}

fn settled(fake: &Fake<'_>, deliveries: &[Delivery]) -> Vec<Outcome> {
    settled_with(fake, &two_nodes(), deliveries)
}

fn replayed(fake: &Fake<'_>) -> wal::Replayed {
    let (config, budget) = (two_nodes(), Budget::new(1 << 20));
    let sparing = fake.sparing();
    let context = fake.context_of(&sparing, &config, &budget);
    let replayed = block_on(sparing.run(replay(&context, limits::REPLAY_ON_DEMAND.into())));
    assert_eq!(budget.in_use(), 0);
    replayed.unwrap().unwrap()
}

fn listing(fake: &Fake<'_>) -> Listing {
    Listing::of(&fake.values.borrow().keys().cloned().collect::<Vec<_>>())
}

/// The lines that were sent to a partition, in order.
fn sent(fake: &Fake<'_>, partition: u16) -> Vec<String> {
    let calls = fake.calls.borrow();
    let of_partition =
        calls.iter().filter(|(_, call)| call.path_and_query.ends_with(&format!("={partition}")));
    of_partition.map(|(_, call)| String::from_utf8(call.body.clone().unwrap().to_vec()).unwrap()).collect()
}

fn stored() -> Outcome {
    Outcome::Stored { durability: Some("leader".to_owned()) }
}

fn is_failed(outcome: &Outcome, kind: FailureKind) -> bool {
    matches!(outcome, Outcome::Failed(failure) if failure.kind == kind)
}

/// Storage that takes everything while it is up.
fn switched(is_up: &std::cell::Cell<bool>) -> Fake<'_> {
    Fake::new(|_, _| if is_up.get() { Reaction::stored(1) } else { Reaction::problem(500, "no") })
}

#[test]
fn all_partitions_are_in_flight_at_once_within_bounds() {
    let config = config(["n", "http://node-1:8081", "1024", ""]).unwrap();
    // So large that no more than 25 go together.
    let lines = Bytes::from(vec![b'x'; limits::TOGETHER_BYTES_MAX / 25]);
    let large = |partition| Delivery { lines: lines.clone(), ..delivery(partition, "k") };
    let deliveries: Vec<_> = (0..1024).map(large).collect();
    for knows_together in [true, false] {
        let fake = Fake::new(|_, _| Reaction::stored(1));
        fake.knows_together.set(knows_together);
        assert_eq!(settled_with(&fake, &config, &deliveries), vec![stored(); 1024]);
        let (together, alone) = (limits::TOGETHER_AT_ONCE, limits::FORWARDS_AT_ONCE);
        let bounds = if knows_together { together..=together } else { alone..=alone + together };
        assert!(bounds.contains(&fake.in_flight_max.get()), "{bounds:?}: {}", fake.in_flight_max.get());
        // What was not on its way yet when the node said that it knows no such requests is spared.
        let requests = fake.together.borrow().len();
        assert_eq!(requests <= together, !knows_together, "{requests}");
    }
    let few = Fake::new(|_, _| Reaction::stored(1));
    settled(&few, &[0, 1, 2, 3].map(|partition| delivery(partition, "k")));
    assert_eq!(few.in_flight_max.get(), 2, "a request for each node");
}

#[test]
fn what_storage_cannot_take_waits_at_the_edge_and_the_rest_is_stored() {
    let fake = Fake::new(|node, _| {
        if node.authority == "node-2:8081" { Reaction::refused_connection() } else { Reaction::stored(1) }
    });
    let deliveries = [0, 2, 1, 3].map(|partition| delivery(partition, "k"));
    assert_eq!(settled(&fake, &deliveries), [stored(), Outcome::Queued, stored(), Outcome::Queued]);
    assert_eq!(listing(&fake).held().count(), 2);
}

#[test]
fn what_waits_goes_first_and_with_its_own_id() {
    let is_up = std::cell::Cell::new(false);
    let fake = switched(&is_up);
    for key in ["a", "b"] {
        assert_eq!(settled(&fake, &[delivery(0, key)]), [Outcome::Queued]);
    }
    assert_eq!(sent(&fake, 0).len(), 2, "b was not sent before a");
    is_up.set(true);
    fake.calls.borrow_mut().clear();
    assert_eq!(settled(&fake, &[delivery(0, "c"), delivery(1, "c")]), [stored(), stored()]);
    assert_eq!(sent(&fake, 0), ["a", "b", "c"].map(|key| format!("{{\"key\":\"{key}\"}}\n")));
    let ids = fake.header("batch-id");
    assert!(["a", "b", "c"].iter().all(|key| ids.contains(&delivery(0, key).id.to_string())));
    assert!(listing(&fake).is_empty());
}

#[test]
fn what_waits_is_stored_as_durably_as_its_client_asked_for() {
    let is_up = std::cell::Cell::new(false);
    let fake = switched(&is_up);
    let asking = |key, acks| Delivery { acks, ..delivery(0, key) };
    let levels = [Some(Durability::All), None, Some(Durability::Leader)];
    for (key, acks) in ["a", "b", "c"].into_iter().zip(levels) {
        assert_eq!(settled(&fake, &[asking(key, acks)]), [Outcome::Queued]);
    }
    is_up.set(true);
    fake.calls.borrow_mut().clear();
    assert_eq!(replayed(&fake).entries, 3);
    let asked_for: Vec<_> = fake.calls.borrow().iter().map(|(_, call)| acks_of(call)).collect();
    assert_eq!(asked_for, levels);
}

/// The level that a call asks for.
fn acks_of(call: &Call) -> Option<Durability> {
    let (_, value) = call.headers.iter().find(|(name, _)| *name == model::wire::ACKS)?;
    Some(Durability::parse_acks(value).unwrap())
}

#[test]
fn an_entry_of_a_newer_version_keeps_its_place() {
    let is_up = std::cell::Cell::new(false);
    let fake = switched(&is_up);
    for key in ["a", "b"] {
        settled(&fake, &[Delivery { acks: Some(Durability::All), ..delivery(0, key) }]);
    }
    // As version 3 would be: the version, and a checksum that begins with it.
    let key = fake.values.borrow().keys().find(|key| key.starts_with("wal.")).unwrap().clone();
    let former = fake.values.borrow()[&key].clone();
    let mut newer = former.clone();
    newer[8] = 3;
    let crc = crc32fast::hash(&[&newer[8..10], &newer[14..]].concat());
    newer[10..14].copy_from_slice(&crc.to_le_bytes());
    fake.values.borrow_mut().insert(key.clone(), newer.clone());
    is_up.set(true);
    fake.calls.borrow_mut().clear();
    let replayed_before = replayed(&fake);
    assert!(replayed_before.error.unwrap().contains("version 3"), "it is told");
    assert_eq!((replayed_before.entries, replayed_before.set_aside, sent(&fake, 0).len()), (0, 0, 0));
    assert_eq!((fake.values.borrow()[&key].as_slice(), listing(&fake).held().count()), (&*newer, 2));
    // Whoever can read it goes on.
    fake.values.borrow_mut().insert(key, former);
    assert_eq!((replayed(&fake).entries, listing(&fake).is_empty()), (2, true));
}

#[test]
fn a_batch_joins_those_that_cannot_leave() {
    let is_up = std::cell::Cell::new(false);
    let fake = switched(&is_up);
    settled(&fake, &[delivery(0, "a")]);
    // The replay of `a` is what fails: `b` itself is never sent.
    fake.calls.borrow_mut().clear();
    assert_eq!(settled(&fake, &[delivery(0, "b")]), [Outcome::Queued]);
    assert_eq!(sent(&fake, 0), ["{\"key\":\"a\"}\n"]);
    is_up.set(true);
    fake.calls.borrow_mut().clear();
    assert_eq!((replayed(&fake).entries, sent(&fake, 0).len()), (2, 2));
    assert!(listing(&fake).is_empty());
}

#[test]
fn a_retry_of_what_waits_is_not_queued_twice_and_other_content_conflicts() {
    let fake = Fake::new(|_, _| Reaction::problem(500, "no"));
    for _ in 0..2 {
        assert_eq!(settled(&fake, &[delivery(0, "a")]), [Outcome::Queued]);
    }
    assert_eq!(listing(&fake).held().count(), 1);
    let other = Delivery { digest: BatchDigest::of(b"other"), ..delivery(0, "a") };
    assert!(is_failed(&settled(&fake, &[other])[0], FailureKind::Conflict));
}

#[test]
fn the_wal_is_bounded_in_entries_and_in_bytes() {
    let fake = Fake::new(|_, _| Reaction::problem(500, "no"));
    let wal = Some(WalBounds { bytes_max: 10_000, entries_max: 2 });
    let few = Config { wal, ..two_nodes() };
    for key in ["a", "b"] {
        assert_eq!(settled_with(&fake, &few, &[delivery(0, key)]), [Outcome::Queued]);
    }
    let outcome = settled_with(&fake, &few, &[delivery(3, "c")]).remove(0);
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!((failure.kind, failure.retry_after_s), (FailureKind::Unavailable, Some(2)));
    assert!(failure.detail.contains("500: no; the edge WAL is full"), "{}", failure.detail);

    let fake = Fake::new(|_, _| Reaction::problem(500, "no"));
    let (_, bytes) = {
        settled(&fake, &[delivery(0, "a")]);
        listing(&fake).occupied()
    };
    let small = Config { wal: Some(WalBounds { bytes_max: 2 * bytes - 1, entries_max: 10 }), ..two_nodes() };
    assert!(is_failed(&settled_with(&fake, &small, &[delivery(0, "b")])[0], FailureKind::Unavailable));
    let enough = Config { wal: Some(WalBounds { bytes_max: 2 * bytes, entries_max: 10 }), ..two_nodes() };
    assert_eq!(settled_with(&fake, &enough, &[delivery(0, "b")]), [Outcome::Queued]);
}

#[test]
fn those_who_write_at_once_stay_within_the_bounds_together() {
    let fake = Fake::new(|_, _| Reaction::problem(500, "no"));
    let wal = Some(WalBounds { bytes_max: 10_000, entries_max: 2 });
    let config = Config { wal, ..two_nodes() };
    let deliveries = [0, 1, 2, 3].map(|partition| delivery(partition, "k"));
    let outcomes = settled_with(&fake, &config, &deliveries);
    let queued = outcomes.iter().filter(|outcome| **outcome == Outcome::Queued).count();
    assert!(queued <= 2 && listing(&fake).occupied().0 == queued as u64, "{outcomes:?}");
}

#[test]
fn without_a_wal_a_failure_is_the_clients_to_repeat() {
    let fake = Fake::new(|_, _| Reaction::problem(500, "no"));
    let off = Config { wal: None, ..two_nodes() };
    assert!(is_failed(&settled_with(&fake, &off, &[delivery(0, "a")])[0], FailureKind::Unavailable));
    *fake.store_error.borrow_mut() = Some(KeyValueError::NotGranted);
    assert!(is_failed(&settled(&fake, &[delivery(0, "a")])[0], FailureKind::Unavailable));
    let up = Fake::new(|_, _| Reaction::stored(1));
    *up.store_error.borrow_mut() = Some(KeyValueError::NotGranted);
    assert_eq!(settled(&up, &[delivery(0, "a")]), [stored()]);
    // A store that does not say what waits: nothing may overtake that.
    *up.store_error.borrow_mut() = Some(KeyValueError::Failed("disk full".to_owned()));
    assert!(is_failed(&settled(&up, &[delivery(0, "a")])[0], FailureKind::Unavailable));
}

#[test]
fn overload_is_told_to_the_client_and_what_cannot_succeed_too() {
    for (reaction, kind) in [
        (Reaction::problem(429, "full"), FailureKind::Overloaded),
        (Reaction::problem(409, "other"), FailureKind::Conflict),
        (Reaction::problem(400, "no record"), FailureKind::Invalid),
        (Reaction::problem(404, "nothing"), FailureKind::Refused),
    ] {
        let fake = Fake::new(|_, _| reaction.clone());
        assert!(is_failed(&settled(&fake, &[delivery(0, "a")])[0], kind));
        assert!(listing(&fake).is_empty());
    }
    let full = Fake::new(|_, _| Reaction::problem(507, "disk full"));
    assert_eq!(settled(&full, &[delivery(0, "a")]), [Outcome::Queued]);
}

#[test]
fn what_can_never_be_stored_is_set_aside_and_the_next_ones_go_on() {
    for reaction in [Reaction::problem(409, "other content"), Reaction::problem(400, "no record")] {
        let is_up = std::cell::Cell::new(false);
        let fake = Fake::new(|_, call| match (is_up.get(), call.body.as_deref()) {
            (false, _) => Reaction::problem(500, "no"),
            (true, Some(b"{\"key\":\"b\"}\n")) => reaction.clone(),
            _ => Reaction::stored(1),
        });
        for key in ["a", "b", "c"] {
            settled(&fake, &[delivery(0, key)]);
        }
        is_up.set(true);
        let replayed = replayed(&fake);
        assert_eq!((replayed.entries, replayed.set_aside), (2, 1));
        let listing = listing(&fake);
        assert_eq!((listing.is_empty(), listing.set_aside().len()), (true, 1));
        assert!(replayed.error.unwrap().starts_with("set aside: http://node-1:8081: "));
    }
}

#[test]
fn a_damaged_entry_is_set_aside_and_keeps_its_bytes() {
    let is_up = std::cell::Cell::new(false);
    let fake = switched(&is_up);
    for key in ["a", "b"] {
        settled(&fake, &[delivery(0, key)]);
    }
    let first = fake.values.borrow().keys().find(|key| key.starts_with("wal.")).unwrap().clone();
    *fake.values.borrow_mut().get_mut(&first).unwrap().last_mut().unwrap() ^= 1;
    let damaged = fake.values.borrow()[&first].clone();
    is_up.set(true);
    let replayed = replayed(&fake);
    assert_eq!((replayed.entries, replayed.set_aside), (1, 1));
    assert_eq!(fake.values.borrow()[&first.replacen("wal.", "wal-bad.", 1)], damaged);
}

#[test]
fn an_entry_of_a_partition_that_is_no_more_is_kept_and_holds_up_no_other() {
    let fake = Fake::new(|_, _| Reaction::problem(500, "no"));
    settled(&fake, &[delivery(3, "a"), delivery(0, "a")]);
    let config = config(["n", "http://node-1:8081", "2", ""]).unwrap();
    let up = Fake::new(|_, _| Reaction::stored(1));
    *up.values.borrow_mut() = fake.values.borrow().clone();
    let budget = Budget::new(1 << 20);
    let replayed = block_on(replay(&up.context(&config, &budget), limits::REPLAY_ON_DEMAND.into()));
    let replayed = replayed.unwrap().unwrap();
    assert_eq!((replayed.entries, replayed.error.as_deref()), (1, Some("partition 3 does not exist")));
    assert_eq!(listing(&up).held().count(), 1);
}

#[test]
fn an_entry_that_lacks_a_piece_is_dropped_after_a_time() {
    let fake = Fake::new(|_, _| Reaction::problem(500, "no"));
    let lines = Bytes::from("{}\n".repeat(400));
    settled(&fake, &[Delivery { lines, record_count: 400, ..delivery(0, "a") }]);
    let pieces: Vec<_> = fake.values.borrow().keys().filter(|key| key.starts_with("wal.")).cloned().collect();
    assert_eq!(pieces.len(), 3);
    fake.values.borrow_mut().remove(&pieces[1]);
    assert_eq!((replayed(&fake).dropped, listing(&fake).torn().len()), (0, 1), "it may be being written");
    let (config, budget) = (two_nodes(), Budget::new(1 << 20));
    let later =
        Context { now_ms: NOW_MS + limits::WAL_TORN_AGE_MS_MAX + 1, ..fake.context(&config, &budget) };
    let replayed = block_on(replay(&later, limits::REPLAY_ON_DEMAND.into())).unwrap().unwrap();
    assert_eq!((replayed.dropped, listing(&fake).occupied()), (1, (0, 0)));
}
