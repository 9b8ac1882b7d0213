//! Which replica is moved next: from what the nodes say of themselves to the steps that may be taken now.
//!
//! Invariants: no step leaves a partition with fewer voters than it is to have copies, or than it has; a partition
//! changes one replica at a time, and only while all its voters are there or are gone for good; all who know the same
//! come to the same steps, so that the bound on moves at once holds for the whole cluster. Pure.

use std::collections::BTreeSet;

use model::Partition;

use super::identity::HexId;
use super::placement::{self, Candidate};

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeView {
    /// Its number.
    pub id: HexId,
    /// Where it stands.
    pub zone: Option<String>,
    /// How it is.
    pub presence: Presence,
    /// Whether its operator wants it to hold nothing.
    pub is_draining: bool,
    /// The partitions that it may hold.
    pub partitions: BTreeSet<Partition>,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It was heard lately.
    Alive,
    /// It was not, and may come back: nothing is moved for its sake.
    Away,
    /// It has been away for so long that others take its place.
    Gone,
}

/// A partition, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionView {
    /// The partition.
    pub partition: Partition,
    /// The node that leads it.
    pub leader: HexId,
    /// The members that vote.
    pub voters: BTreeSet<HexId>,
    /// The members that do not: they are being filled, or were let go.
    pub learners: BTreeSet<HexId>,
    /// Whether a voter was put there by hand: then those who are there stay.
    pub is_placed: bool,
}

/// The whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Its nodes.
    pub nodes: Vec<NodeView>,
    /// Its partitions of which a leader is known, in order.
    pub partitions: Vec<PartitionView>,
    /// Copies that each partition is to have.
    pub copies: usize,
}

/// What is to be done with a partition, by its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// `add` is filled and votes, and `drop` is let go.
    Change {
        /// The node that gets a replica.
        add: Option<HexId>,
        /// The node that has one no more.
        drop: Option<HexId>,
    },
    /// A member that does not vote, and is not to, is let go.
    Forget(HexId),
}

impl View {
    /// The steps that are to be taken now, in the whole cluster: `moves_max` partitions at once at most.
    pub(super) fn steps(&self, moves_max: usize) -> Vec<(Partition, Step)> {
        let (begun, others): (Vec<_>, Vec<_>) =
            self.partitions.iter().partition(|partition| self.is_under_way(partition));
        let free = moves_max.saturating_sub(begun.len());
        let step = |partition: &&PartitionView| Some((partition.partition, self.step(partition)?));
        // Those that are begun first: each of them is a copy that nobody reads.
        let begun = begun.iter().filter_map(step);
        begun.take(moves_max).chain(others.iter().filter_map(step).take(free)).collect()
    }

    /// How many partitions are being moved.
    pub(super) fn under_way(&self) -> usize {
        self.partitions.iter().filter(|partition| self.is_under_way(partition)).count()
    }

    fn is_under_way(&self, partition: &PartitionView) -> bool {
        !partition.learners.is_empty() || partition.voters.len() > self.copies
    }

    /// The next step of a partition.
    fn step(&self, partition: &PartitionView) -> Option<Step> {
        if !self.is_settled(partition) {
            return None;
        }
        let wanted = self.wanted(partition);
        let (voters, learners) = (&partition.voters, &partition.learners);
        if let Some(left) = learners.iter().find(|learner| !wanted.contains(learner)) {
            return Some(Step::Forget(*left));
        }
        let drop = self.first_to_go(partition, &wanted);
        if voters.len() > self.copies && drop.is_some() {
            return Some(Step::Change { add: None, drop });
        }
        let is_missing = |node: &&HexId| !voters.contains(node);
        let missing = wanted.iter().filter(is_missing);
        let add = missing.copied().find(|node| self.presence(*node) == Presence::Alive)?;
        match drop {
            _ if voters.len() < self.copies => Some(Step::Change { add: Some(add), drop: None }),
            Some(_) => Some(Step::Change { add: Some(add), drop }),
            None => None,
        }
    }

    /// Whether all voters are there, or will not be any more: what is only away for a while is not acted upon.
    pub(super) fn is_settled(&self, partition: &PartitionView) -> bool {
        partition.voters.iter().all(|voter| self.presence(*voter) != Presence::Away)
    }

    /// The nodes that are to hold a partition, best first.
    pub(super) fn wanted(&self, partition: &PartitionView) -> Vec<HexId> {
        let fit: Vec<&NodeView> =
            self.nodes.iter().filter(|node| node.may_hold(partition.partition)).collect();
        let candidates: Vec<Candidate> =
            fit.iter().map(|node| Candidate { id: node.id, zone: node.zone.clone() }).collect();
        let stays = |id: HexId| partition.is_placed && partition.voters.contains(&id);
        let held: Vec<usize> = (0..candidates.len())
            .filter(|place| fit.get(*place).is_some_and(|node| stays(node.id)))
            .collect();
        let chosen = placement::complete(partition.partition, &candidates, self.copies, held);
        chosen.into_iter().filter_map(|place| Some(candidates.get(place)?.id)).collect()
    }

    /// The voter that is to go first: who is gone already, then who is to hold nothing; the leader last, as that costs an
    /// election.
    fn first_to_go(&self, partition: &PartitionView, wanted: &[HexId]) -> Option<HexId> {
        let going = partition.voters.iter().filter(|voter| !wanted.contains(voter));
        let order = |voter: &&HexId| {
            let node = self.node(**voter);
            let is_draining = node.is_some_and(|node| node.is_draining);
            (self.presence(**voter) != Presence::Gone, **voter == partition.leader, !is_draining)
        };
        going.min_by_key(order).copied()
    }

    /// How a node is; one of which nobody knows may come back.
    pub(super) fn presence(&self, id: HexId) -> Presence {
        self.node(id).map_or(Presence::Away, |node| node.presence)
    }

    fn node(&self, id: HexId) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The partition of this number, if its leader is known.
    pub(super) fn partition(&self, partition: Partition) -> Option<&PartitionView> {
        self.partitions.iter().find(|view| view.partition == partition)
    }
}

impl NodeView {
    /// Whether the node may be given a replica, or keep one. Who is away for a while still may: it would have to be
    /// filled twice.
    fn may_hold(&self, partition: Partition) -> bool {
        self.presence != Presence::Gone && !self.is_draining && self.partitions.contains(&partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::random::Random;

    const PARTITIONS: u16 = 8;

    fn id(number: u64) -> HexId {
        HexId(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn node(number: u64) -> NodeView {
        NodeView {
            id: id(number),
            zone: None,
            presence: Presence::Alive,
            is_draining: false,
            partitions: (0..PARTITIONS).map(Partition::new).collect(),
        }
    }

    /// A cluster whose partitions are where they belong among the first `nodes` nodes.
    fn settled(nodes: u64, copies: usize) -> View {
        let mut view = View { nodes: (0..nodes).map(node).collect(), partitions: Vec::new(), copies };
        for partition in (0..PARTITIONS).map(Partition::new) {
            let mut of = PartitionView {
                partition,
                leader: id(0),
                voters: BTreeSet::new(),
                learners: BTreeSet::new(),
                is_placed: false,
            };
            of.voters = view.wanted(&of).into_iter().collect();
            of.leader = *of.voters.first().unwrap();
            view.partitions.push(of);
        }
        view
    }

    fn find(view: &mut View, number: u64) -> &mut NodeView {
        view.nodes.iter_mut().find(|node| node.id == id(number)).unwrap()
    }

    /// Takes a step, or the first part of it as a leader does that dies in the midst of it.
    fn take(view: &mut View, partition: Partition, step: Step, parts: u64) {
        let copies = view.copies;
        let of = view.partitions.iter_mut().find(|of| of.partition == partition).unwrap();
        let before = of.voters.len();
        match step {
            Step::Forget(node) => assert!(of.learners.remove(&node), "a voter is not forgotten"),
            Step::Change { add, drop } => {
                assert!(add.is_some() || drop.is_some());
                assert!(add.is_none_or(|node| !of.voters.contains(&node)), "{step:?}");
                of.learners.extend(add);
                if parts > 0 {
                    // With both sets of voters first.
                    add.map(|node| (of.learners.remove(&node), of.voters.insert(node)));
                }
                if parts > 1 {
                    drop.map(|node| (of.voters.remove(&node), of.learners.insert(node)));
                }
                if parts > 2 {
                    drop.map(|node| of.learners.remove(&node));
                }
            }
        }
        assert!(of.voters.len() >= before.min(copies), "fewer voters than copies");
        if !of.voters.contains(&of.leader) {
            of.leader = *of.voters.first().unwrap();
        }
    }

    /// Takes steps until there are none; how many replicas were given to nodes.
    fn converge(view: &mut View, random: &mut Random) -> usize {
        let mut given = 0;
        for _ in 0..1000 {
            let steps = view.steps(2);
            assert!(steps.len() <= 2, "{steps:?}");
            if steps.is_empty() {
                return given;
            }
            for (partition, step) in steps {
                let parts = random.below(4);
                given += usize::from(parts == 3 && matches!(step, Step::Change { add: Some(_), .. }));
                take(view, partition, step, parts);
                assert!(view.under_way() <= 2);
            }
        }
        panic!("it does not end: {:?}", view.steps(2));
    }

    fn assert_settled(view: &View) {
        for of in &view.partitions {
            let wanted: BTreeSet<HexId> = view.wanted(of).into_iter().collect();
            assert_eq!((&of.voters, of.learners.len()), (&wanted, 0), "partition {}", of.partition);
        }
    }

    #[test]
    fn whatever_comes_a_plan_ends_where_replicas_belong_and_never_has_fewer_than_the_copies() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let copies = 2 + random.below(2) as usize;
            let nodes = copies as u64 + random.below(3);
            let mut view = settled(nodes, copies);
            for number in 0..nodes {
                find(&mut view, number).zone = (seed % 3 == 0).then(|| format!("z{}", number % 3));
            }
            converge(&mut view, &mut random);
            // Some nodes more, and one less while as many are left as there are to be copies.
            let more = random.below(3);
            view.nodes.extend((nodes..nodes + more).map(node));
            if nodes + more > copies as u64 {
                let lost = find(&mut view, random.below(nodes));
                match random.below(3) {
                    0 => lost.is_draining = true,
                    1 => lost.presence = Presence::Gone,
                    _ => {}
                }
            }
            converge(&mut view, &mut random);
            assert_settled(&view);
        }
    }

    #[test]
    fn a_node_that_joins_gets_its_share_and_others_get_nothing() {
        let mut view = settled(4, 3);
        view.nodes.push(node(4));
        let before = view.clone();
        for (partition, step) in std::iter::from_fn(|| {
            view.clone()
                .steps(1)
                .into_iter()
                .next()
                .inspect(|(partition, step)| take(&mut view, *partition, *step, 3))
        }) {
            assert!(
                matches!(step, Step::Change { add: Some(add), drop: Some(_) } if add == id(4)),
                "{partition} {step:?}"
            );
        }
        assert_settled(&view);
        let has = |of: &&PartitionView| of.voters.contains(&id(4));
        let share = view.partitions.iter().filter(has).count();
        assert!((2..=7).contains(&share), "{share} of {PARTITIONS}");
        assert_ne!(before, view);
    }

    #[test]
    fn a_short_absence_moves_nothing_and_a_long_one_does() {
        let mut view = settled(4, 3);
        find(&mut view, 1).presence = Presence::Away;
        assert_eq!(view.steps(9), []);
        find(&mut view, 1).presence = Presence::Gone;
        let held = view.partitions.iter().filter(|of| of.voters.contains(&id(1))).count();
        assert_eq!(view.steps(9).len(), held);
        assert!(
            view.steps(9)
                .iter()
                .all(|(_, step)| matches!(step, Step::Change { drop: Some(gone), .. } if *gone == id(1)))
        );
        // Another that is away as well keeps what it is in from being touched.
        find(&mut view, 2).presence = Presence::Away;
        let both = |of: &&PartitionView| of.voters.contains(&id(1)) && !of.voters.contains(&id(2));
        assert!(view.steps(9).len() <= view.partitions.iter().filter(both).count());
        // Nobody is left to take its place.
        let mut view = settled(3, 3);
        find(&mut view, 1).presence = Presence::Gone;
        assert_eq!(view.steps(9), []);
        find(&mut view, 1).is_draining = true;
        assert_eq!(view.steps(9), []);
    }

    #[test]
    fn what_is_begun_comes_first_and_counts() {
        let mut view = settled(4, 3);
        find(&mut view, 0).is_draining = true;
        let last = view.partitions.iter().rposition(|of| of.voters.contains(&id(0))).unwrap();
        let of = view.partitions[last].partition;
        let Some((_, step)) = view.steps(9).into_iter().find(|(partition, _)| *partition == of) else {
            panic!()
        };
        take(&mut view, of, step, 0);
        assert_eq!(view.steps(1), [(of, step)]);
        assert_eq!(view.steps(2).len(), 2);
        // It holds a place though it cannot go on.
        let Step::Change { add: Some(add), .. } = step else { panic!("{step:?}") };
        view.nodes.iter_mut().find(|node| node.id == add).unwrap().presence = Presence::Away;
        assert_eq!(view.steps(1), []);
    }

    #[test]
    fn where_a_replica_was_put_by_hand_those_who_are_there_stay() {
        let mut view = settled(5, 3);
        let of = &mut view.partitions[0];
        let outside = (0..5).map(id).find(|id| !of.voters.contains(id)).unwrap();
        let inside = of.voters.pop_first().unwrap();
        of.voters.insert(outside);
        (of.leader, of.is_placed) = (outside, true);
        assert_eq!(view.steps(9), []);
        view.partitions[0].is_placed = false;
        let back = Step::Change { add: Some(inside), drop: Some(outside) };
        assert_eq!(view.steps(9), [(Partition::new(0), back)]);
        // What was put there by hand goes all the same when the node is drained.
        view.partitions[0].is_placed = true;
        view.nodes.iter_mut().find(|node| node.id == outside).unwrap().is_draining = true;
        let (_, step) = view.steps(9)[0];
        assert!(matches!(step, Step::Change { drop: Some(drop), .. } if drop == outside), "{step:?}");
    }

    #[test]
    fn the_leader_goes_last() {
        let mut view = settled(6, 3);
        let of = view.partitions[0].clone();
        for voter in &of.voters {
            view.nodes.iter_mut().find(|node| node.id == *voter).unwrap().is_draining = true;
        }
        let mut gone = Vec::new();
        while let Some((_, step)) =
            view.steps(1).into_iter().find(|(partition, _)| *partition == of.partition)
        {
            let Step::Change { drop: Some(drop), .. } = step else { panic!("{step:?}") };
            gone.push(drop);
            take(&mut view, of.partition, step, 3);
        }
        assert_eq!((gone.len(), gone.last()), (3, Some(&of.leader)));
    }
}
