//! Delivery among nodes whose leaders change.

use std::cell::{Cell, RefCell};

use futures::executor::block_on;
use futures::future::join_all;

use super::tests::delivery;
use super::*;
use crate::budget::Budget;
use crate::config::Config;
use crate::config::tests::config;
use crate::fake::{Fake, Reaction};

const NODES: [&str; 3] = ["http://node-1:8081", "http://node-2:8081", "http://node-3:8081"];

/// Three nodes, each of which has a copy of each of three partitions; `http://node-4:8081` may be called too.
fn three_nodes() -> Config {
    config(["ingest-1", &NODES.join(","), "3", ""]).unwrap()
}

/// A cluster with copies, whose nodes agree on what is so.
#[derive(Default)]
struct Cluster {
    /// The leader of every partition.
    leader: RefCell<Option<String>>,
    term: Cell<u64>,
    /// Whether nodes that do not lead say who does.
    gives_hints: Cell<bool>,
    dead: RefCell<Option<String>>,
}

impl Cluster {
    fn led_by(leader: &str) -> Self {
        let cluster = Self::default();
        cluster.elect(leader);
        cluster
    }

    fn elect(&self, leader: &str) {
        *self.leader.borrow_mut() = Some(leader.to_owned());
        self.term.set(self.term.get() + 1);
    }

    fn lose_leader(&self) {
        *self.leader.borrow_mut() = None;
    }

    fn is_dead(&self, node: &StorageNode) -> bool {
        self.dead.borrow().as_deref() == Some(&node.to_string())
    }

    fn append(&self, node: &StorageNode) -> Reaction {
        let leader = self.leader.borrow();
        match leader.as_deref() {
            _ if self.is_dead(node) => Reaction::refused_connection(),
            Some(leader) if leader == node.to_string() => Reaction::stored(2).with("durability", "quorum"),
            Some(leader) if self.gives_hints.get() => {
                Reaction::problem(421, "not mine").with("leader", leader)
            }
            _ => Reaction::problem(421, "not mine"),
        }
    }

    fn describe(&self, node: &StorageNode) -> Reaction {
        if self.is_dead(node) {
            return Reaction::refused_connection();
        }
        let leader = self.leader.borrow();
        let partitions = [0, 1, 2].map(|partition| (partition, leader.as_deref()));
        Reaction::cluster(node, &partitions, self.term.get())
    }

    fn fake(&self) -> Fake<'_> {
        let fake = Fake::new(|node, _| self.append(node));
        *fake.cluster.borrow_mut() = Box::new(|node| self.describe(node));
        fake
    }
}

fn delivered_to(fake: &Fake<'_>, config: &Config, partitions: &[u16]) -> Vec<Outcome> {
    let budget = Budget::new(1 << 20);
    let sparing = fake.sparing();
    let context = fake.context_of(&sparing, config, &budget);
    let deliver = |partition: &u16| {
        let deadline = fake.elapsed() + limits::DELIVERY_TIME_MAX;
        let patience = Patience { deadline, attempts_max: limits::FORWARD_ATTEMPTS };
        block_on(sparing.run(deliver(&context, &delivery(*partition), patience)))
    };
    let outcomes = partitions.iter().map(deliver).collect();
    assert_eq!(budget.in_use(), 0);
    outcomes
}

fn delivered(fake: &Fake<'_>, partitions: &[u16]) -> Vec<bool> {
    let outcomes = delivered_to(fake, &three_nodes(), partitions);
    outcomes.iter().map(|outcome| matches!(outcome, Outcome::Stored { .. })).collect()
}

/// The nodes that were sent batches, in order; forgets them.
fn sent_to(fake: &Fake<'_>) -> Vec<String> {
    fake.calls.take().into_iter().map(|(node, _)| node).collect()
}

#[test]
fn a_cluster_whose_nodes_hold_what_the_configuration_says_is_asked_nothing() {
    let fake = Fake::new(|_, _| Reaction::stored(2));
    assert_eq!(delivered(&fake, &[0, 1, 2]), [true; 3]);
    assert_eq!(sent_to(&fake), NODES);
    assert!(fake.looks.borrow().is_empty());
}

#[test]
fn a_hint_is_followed_and_kept() {
    let cluster = Cluster::led_by(NODES[2]);
    cluster.gives_hints.set(true);
    let fake = cluster.fake();
    assert_eq!(delivered(&fake, &[0, 0]), [true; 2]);
    assert_eq!(sent_to(&fake), [NODES[0], NODES[2], NODES[2]]);
    assert!(fake.looks.borrow().is_empty() && fake.pauses.borrow().is_empty());
    // A node that nobody configured, but that may be called.
    cluster.elect("http://node-4:8081");
    assert_eq!(delivered(&fake, &[0]), [true]);
    assert_eq!(sent_to(&fake), [NODES[2], "http://node-4:8081"]);
}

#[test]
fn without_a_hint_all_leaders_are_found_by_one_question() {
    let cluster = Cluster::led_by(NODES[2]);
    let fake = cluster.fake();
    assert_eq!(delivered(&fake, &[0, 1, 2, 0]), [true; 4]);
    assert_eq!(sent_to(&fake), [NODES[0], NODES[2], NODES[2], NODES[2], NODES[2]]);
    assert_eq!(fake.looks.borrow().len(), 1);
}

#[test]
fn a_leader_that_may_not_be_called_is_never_called() {
    for stranger in ["http://evil:8081", "https://node-2:8081", "http://node-2:22", "file:///etc/passwd"] {
        let cluster = Cluster::led_by(stranger);
        for gives_hints in [false, true] {
            cluster.gives_hints.set(gives_hints);
            let fake = cluster.fake();
            assert_eq!(delivered(&fake, &[0, 1]), [false; 2], "{stranger}");
            let asked = fake.looks.take().into_iter().chain(sent_to(&fake));
            let strange: Vec<_> = asked.filter(|node| !NODES.contains(&node.as_str())).collect();
            assert!(strange.is_empty(), "{strange:?}");
        }
    }
}

#[test]
fn the_successor_of_a_dead_leader_is_found() {
    let cluster = Cluster::led_by(NODES[0]);
    let fake = cluster.fake();
    assert_eq!(delivered(&fake, &[0]), [true]);
    *cluster.dead.borrow_mut() = Some(NODES[0].to_owned());
    cluster.elect(NODES[1]);
    sent_to(&fake);
    assert_eq!(delivered(&fake, &[0, 0]), [true; 2]);
    assert_eq!(sent_to(&fake), [NODES[0], NODES[1], NODES[1]]);
    let ids = fake.header("batch-id");
    assert!(ids.iter().all(|id| *id == delivery(0).id.to_string()));
}

#[test]
fn an_election_is_waited_for_without_sending_anything() {
    let cluster = Cluster::led_by(NODES[0]);
    let mut looks = 0;
    let fake = Fake::new(|node, _| cluster.append(node));
    *fake.cluster.borrow_mut() = Box::new(|node| {
        looks += 1;
        // The dead one is asked too, until it is left alone.
        if looks == 30 {
            cluster.elect(NODES[2]);
        }
        cluster.describe(node)
    });
    *cluster.dead.borrow_mut() = Some(NODES[0].to_owned());
    cluster.lose_leader();
    assert_eq!(delivered(&fake, &[0]), [true]);
    assert_eq!(sent_to(&fake), [NODES[0], NODES[2]]);
    let elapsed = fake.elapsed();
    assert!(elapsed > Duration::from_millis(300) && elapsed < limits::ELECTION_TIME_MAX, "{elapsed:?}");
}

#[test]
fn one_asks_for_all_that_wait() {
    let cluster = Cluster::led_by(NODES[0]);
    cluster.lose_leader();
    let mut looks = 0;
    let fake = Fake::new(|node, _| cluster.append(node));
    *fake.cluster.borrow_mut() = Box::new(|node| {
        looks += 1;
        if looks == 10 {
            cluster.elect(NODES[2]);
        }
        cluster.describe(node)
    });
    let (config, budget) = (three_nodes(), Budget::new(1 << 20));
    let context = fake.context(&config, &budget);
    let patience = Patience { deadline: limits::DELIVERY_TIME_MAX, attempts_max: limits::FORWARD_ATTEMPTS };
    let deliveries = [0, 1, 2].map(delivery);
    let outcomes = block_on(join_all(deliveries.iter().map(|each| deliver(&context, each, patience))));
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Stored { .. })), "{outcomes:?}");
    assert_eq!(sent_to(&fake).len(), 6, "one in vain, and one to the leader, of each");
    assert!(fake.looks.borrow().len() <= 12, "{}", fake.looks.borrow().len());
}

#[test]
fn an_election_that_does_not_end_is_not_waited_for_by_everybody() {
    let cluster = Cluster::led_by(NODES[0]);
    cluster.lose_leader();
    let fake = cluster.fake();
    assert_eq!(delivered(&fake, &[0]), [false]);
    let first = fake.elapsed();
    assert!(first >= limits::ELECTION_TIME_MAX && first < limits::DELIVERY_TIME_MAX, "{first:?}");
    let calls = sent_to(&fake).len();
    assert!(calls <= limits::FORWARD_ATTEMPTS as usize, "{calls}");
    // Those who come later are told at once, and the first whom a leader takes ends it.
    assert_eq!(delivered(&fake, &[0, 0]), [false; 2]);
    assert!(fake.elapsed() < first + Duration::from_millis(500), "{:?}", fake.elapsed() - first);
    cluster.elect(NODES[1]);
    fake.elapsed.set(fake.elapsed() + limits::LOOK_PAUSE_MAX);
    sent_to(&fake);
    assert_eq!(delivered(&fake, &[0, 0]), [true; 2]);
}

#[test]
fn while_a_partition_has_no_leader_nobody_is_sent_its_batches() {
    let cluster = Cluster::led_by(NODES[0]);
    *cluster.dead.borrow_mut() = Some(NODES[0].to_owned());
    cluster.lose_leader();
    let fake = cluster.fake();
    // A batch that finds out, with little time.
    let config = three_nodes();
    let budget = Budget::new(1 << 20);
    let context = fake.context(&config, &budget);
    let patience = Patience { deadline: fake.elapsed() + Duration::from_millis(300), attempts_max: 1 };
    block_on(deliver(&context, &delivery(0), patience));
    sent_to(&fake);
    cluster.elect(NODES[1]);
    fake.elapsed.set(fake.elapsed() + limits::LOOK_PAUSE_MAX);
    assert_eq!(delivered(&fake, &[0]), [true]);
    assert_eq!(sent_to(&fake), [NODES[1]]);
}

#[test]
fn a_leader_that_lost_its_quorum_is_left_for_its_successor_and_else_met_again() {
    let cluster = Cluster::led_by(NODES[0]);
    let is_cut_off = Cell::new(true);
    let fake = Fake::new(|node, _| {
        if is_cut_off.get() && node.to_string() == NODES[0] {
            Reaction::problem(503, "no quorum").with("retry-after", "1")
        } else {
            cluster.append(node)
        }
    });
    // It still believes that it leads.
    *fake.cluster.borrow_mut() = Box::new(|node| {
        if node.to_string() == NODES[0] {
            Reaction::cluster(node, &[(0, Some(NODES[0]))], 1)
        } else {
            cluster.describe(node)
        }
    });
    cluster.elect(NODES[1]);
    assert_eq!(delivered(&fake, &[0]), [true]);
    assert_eq!(sent_to(&fake), [NODES[0], NODES[1]]);
    assert!(fake.pauses.borrow().is_empty());

    let fake = Fake::new(|node, _| {
        if node.to_string() == NODES[0] && is_cut_off.take() {
            Reaction::problem(503, "no quorum").with("retry-after", "1")
        } else {
            Reaction::stored(2)
        }
    });
    *fake.cluster.borrow_mut() = Box::new(|node| Reaction::cluster(node, &[(0, Some(NODES[0]))], 1));
    assert_eq!(delivered(&fake, &[0]), [true]);
    assert_eq!(sent_to(&fake), [NODES[0], NODES[0]]);
    assert!(fake.elapsed() >= Duration::from_secs(1), "it was met when it said");
}

#[test]
fn an_older_term_is_not_believed() {
    let cluster = Cluster::led_by(NODES[1]);
    cluster.term.set(5);
    let fake = cluster.fake();
    assert_eq!(delivered(&fake, &[0]), [true]);
    // The next one to be asked still lives in the past.
    *fake.cluster.borrow_mut() = Box::new(|node| Reaction::cluster(node, &[(0, Some(NODES[2]))], 4));
    *cluster.dead.borrow_mut() = Some(NODES[1].to_owned());
    sent_to(&fake);
    assert_eq!(delivered(&fake, &[0]), [false]);
    assert!(!sent_to(&fake).contains(&NODES[2].to_owned()));
}

#[test]
fn what_is_known_grows_old() {
    let cluster = Cluster::led_by(NODES[2]);
    cluster.gives_hints.set(true);
    let fake = cluster.fake();
    delivered(&fake, &[0]);
    sent_to(&fake);
    fake.elapsed.set(fake.elapsed() + limits::LEADER_AGE_MAX);
    assert_eq!(delivered(&fake, &[0]), [true]);
    assert_eq!(sent_to(&fake), [NODES[0], NODES[2]]);
}

#[test]
fn a_client_decides_how_many_copies_there_have_to_be() {
    let fake = Fake::new(|_, _| Reaction::stored(2));
    let config = three_nodes();
    let budget = Budget::new(1 << 20);
    let context = fake.context(&config, &budget);
    let patience = Patience { deadline: limits::DELIVERY_TIME_MAX, attempts_max: 1 };
    let all = Delivery { acks: Some(Durability::All), ..delivery(0) };
    block_on(deliver(&context, &all, patience));
    block_on(deliver(&context, &delivery(0), patience));
    assert_eq!(fake.header("acks"), ["all"]);
}
