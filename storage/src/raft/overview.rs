//! The cluster as one picture: what each node says of its own replicas, put together.
//!
//! Invariant: of two nodes that say they lead, the one of the later term does. Pure.

use std::collections::BTreeMap;

use model::wire::{ClusterNode, PartitionState, Replica, ReplicaRole};
use model::{Offset, Partition};

use super::directory::NodeCard;
use super::group::{GroupStatus, MemberStatus};
use super::identity::HexId;

/// A node, and whether it was heard lately.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What it said.
    pub card: NodeCard,
    /// Whether that is recent.
    pub alive: bool,
}

/// The nodes as clients are told of them.
pub(super) fn nodes(heard: &[Heard]) -> Vec<ClusterNode> {
    let node = |Heard { card, alive }: &Heard| ClusterNode {
        id: Some(card.id.to_string()),
        name: card.name.clone(),
        url: card.url.clone(),
        zone: card.zone.clone(),
        alive: *alive,
        draining: card.draining,
    };
    heard.iter().map(node).collect()
}

/// The partitions that any node knows, in order.
pub(super) fn partitions(heard: &[Heard]) -> Vec<PartitionState> {
    let mut by_partition: BTreeMap<Partition, Vec<(&Heard, &GroupStatus)>> = BTreeMap::new();
    for node in heard {
        for status in node.card.groups.iter().filter(|status| status.founded) {
            by_partition.entry(status.partition).or_default().push((node, status));
        }
    }
    by_partition.into_iter().filter_map(|(partition, said)| state_of(partition, &said, heard)).collect()
}

fn state_of(
    partition: Partition,
    said: &[(&Heard, &GroupStatus)],
    heard: &[Heard],
) -> Option<PartitionState> {
    // Who leads knows best; else who has the latest term.
    let (_, best) = said.iter().max_by_key(|(node, status)| (node.alive, status.term, status.leads))?;
    let leads = said.iter().filter(|(node, status)| node.alive && status.leads);
    let leader = leads.max_by_key(|(_, status)| status.term).copied();
    let status_of = |id: HexId| said.iter().find(|(node, _)| node.card.id == id).map(|(_, status)| *status);
    let leader_flushed = leader.map_or(best.flushed, |(_, status)| status.flushed);
    let replica = |member: &MemberStatus| {
        let flushed = status_of(member.id).map_or(Offset::ZERO, |status| status.flushed);
        let url = heard.iter().find(|node| node.card.id == member.id).map(|node| node.card.url.clone());
        Replica {
            node: member.member.name.clone(),
            url: url.unwrap_or_else(|| member.member.url.clone()),
            role: match leader {
                Some((node, _)) if node.card.id == member.id => ReplicaRole::Leader,
                _ if member.votes => ReplicaRole::Follower,
                _ => ReplicaRole::Learner,
            },
            flushed,
            lag: leader_flushed.get().saturating_sub(flushed.get()),
        }
    };
    let shown = leader.map_or(*best, |(_, status)| status);
    Some(PartitionState {
        partition,
        leader: leader.map(|(node, _)| node.card.url.clone()),
        term: shown.term,
        first_offset: shown.first_offset,
        high_watermark: shown.high_watermark,
        replicas: shown.members.iter().map(replica).collect(),
    })
}

/// Which node answers for which partition: this one for those of which it has a replica, and of the rest a node that is
/// alive and has one, the leader before others. `None` for a partition of which nobody is there.
pub(super) fn readers(own: HexId, heard: &[Heard], named: &[Partition]) -> Vec<(Partition, Option<String>)> {
    let is_member = |node: &Heard, partition: Partition| is_voter(node.card.id, partition, heard);
    let leads = |node: &Heard, partition: Partition| {
        node.card.groups.iter().any(|status| status.partition == partition && status.leads)
    };
    let reader = |partition: Partition| {
        let holders = heard.iter().filter(|node| node.alive && is_member(node, partition));
        holders
            .max_by_key(|node| (node.card.id == own, leads(node, partition)))
            .map(|node| node.card.url.clone())
    };
    named.iter().map(|partition| (*partition, reader(*partition))).collect()
}

/// What a partition's leader says of it, if a leader is there.
pub(super) fn led(partition: Partition, heard: &[Heard]) -> Option<(&Heard, &GroupStatus)> {
    let said = heard.iter().filter(|node| node.alive);
    let of_partition = |status: &&GroupStatus| status.partition == partition && status.leads;
    let led =
        said.flat_map(|node| node.card.groups.iter().filter(of_partition).map(move |status| (node, status)));
    led.max_by_key(|(_, status)| status.term)
}

/// Whether a node has all there is of a partition: its leader knows best, as who was let go while it was away may not
/// have heard of it. A learner is being filled.
pub(super) fn is_voter(id: HexId, partition: Partition, heard: &[Heard]) -> bool {
    let own = || {
        let card = &heard.iter().find(|node| node.card.id == id)?.card;
        card.groups.iter().find(|status| status.partition == partition)
    };
    let status = led(partition, heard).map(|(_, status)| status).or_else(own);
    status.is_some_and(|status| status.members.iter().any(|member| member.id == id && member.votes))
}

#[cfg(test)]
mod tests {
    use super::super::types::Member;
    use super::*;

    /// A node that has a replica of partition 0, with members 1 to 3.
    fn heard(id: u64, term: u64, leads: bool, flushed: u64) -> Heard {
        let member = |id: u64| MemberStatus {
            id: HexId(id),
            member: Member { name: format!("n{id}"), url: format!("http://n{id}"), ..Member::default() },
            votes: id != 3,
        };
        let status = GroupStatus {
            partition: Partition::new(0),
            founded: true,
            leads,
            term,
            leader: None,
            members: [1, 2, 3].map(member).into(),
            first_offset: Offset::ZERO,
            high_watermark: Offset::new(flushed),
            flushed: Offset::new(flushed),
        };
        let card = NodeCard {
            cluster: None,
            id: HexId(id),
            name: format!("n{id}"),
            url: format!("http://n{id}"),
            internal: String::new(),
            zone: None,
            draining: false,
            copies: None,
            known: None,
            groups: vec![status],
        };
        Heard { card, alive: true }
    }

    #[test]
    fn the_later_of_two_leaders_is_shown_with_the_lag_of_the_others() {
        let all = [heard(1, 4, true, 90), heard(2, 5, true, 120), heard(3, 5, false, 100)];
        let shown = partitions(&all);
        assert_eq!((shown[0].leader.as_deref(), shown[0].term), (Some("http://n2"), 5));
        let replicas: Vec<_> = shown[0].replicas.iter().map(|r| (r.role, r.flushed.get(), r.lag)).collect();
        assert_eq!(
            replicas,
            [(ReplicaRole::Follower, 90, 30), (ReplicaRole::Leader, 120, 0), (ReplicaRole::Learner, 100, 20)]
        );
    }

    #[test]
    fn a_leader_that_is_not_heard_is_none() {
        let mut all = [heard(1, 4, true, 90), heard(2, 4, false, 90)];
        all[0].alive = false;
        let shown = partitions(&all);
        assert_eq!((shown[0].leader.as_deref(), shown[0].term), (None, 4));
        assert_eq!(nodes(&all).iter().map(|node| node.alive).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_replica_that_was_let_go_and_does_not_know_it_is_not_read() {
        let named = [Partition::new(0)];
        let mut all = [heard(1, 9, false, 90), heard(2, 4, true, 90)];
        all[1].card.groups[0].members.retain(|member| member.id != HexId(1));
        assert!(!is_voter(HexId(1), named[0], &all) && is_voter(HexId(2), named[0], &all));
        assert_eq!(readers(HexId(1), &all, &named)[0].1.as_deref(), Some("http://n2"));
        // As long as nobody leads it is the best that there is.
        all[1].alive = false;
        assert_eq!(readers(HexId(1), &all, &named)[0].1.as_deref(), Some("http://n1"));
    }

    #[test]
    fn a_partition_is_read_here_or_at_its_leader_or_nowhere() {
        let named = [Partition::new(0), Partition::new(1)];
        let all = [heard(1, 4, false, 90), heard(2, 4, true, 90), heard(9, 4, false, 0)];
        let reader = |own| readers(HexId(own), &all, &named)[0].1.clone();
        assert_eq!(reader(1).as_deref(), Some("http://n1"));
        // Node 9 is no member.
        assert_eq!(reader(9).as_deref(), Some("http://n2"));
        assert_eq!(readers(HexId(1), &all, &named)[1].1, None);
    }
}
