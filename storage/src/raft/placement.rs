//! Which nodes hold a partition: rendezvous hashing, spread over zones.
//!
//! Invariant: all who know the same nodes come to the same choice; a node more or less moves no partition between
//! others. Pure.

use model::{BatchDigest, Partition};

use super::identity::HexId;

/// A node that may hold partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its number, by which all know it alike.
    pub id: HexId,
    /// Where it stands.
    pub zone: Option<String>,
}

/// The places, among `candidates`, of the nodes that hold `partition`: as many as there are to be copies, or as there
/// are nodes. The first is the one that founds the group.
pub(super) fn choose(partition: Partition, candidates: &[Candidate], copies: usize) -> Vec<usize> {
    complete(partition, candidates, copies, Vec::new())
}

/// The same, where the nodes at the places `held` are among them whatever their rank.
pub(super) fn complete(
    partition: Partition,
    candidates: &[Candidate],
    copies: usize,
    held: Vec<usize>,
) -> Vec<usize> {
    let mut ranked: Vec<(u64, usize)> = candidates
        .iter()
        .enumerate()
        .map(|(place, candidate)| (weight(partition, candidate.id), place))
        .collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    let mut chosen = held;
    chosen.truncate(copies);
    let zone_of = |place: &usize| candidates.get(*place).and_then(|candidate| candidate.zone.as_ref());
    let mut zones: Vec<&String> = chosen.iter().filter_map(zone_of).collect();
    while chosen.len() < copies.min(candidates.len()) {
        for (_, place) in &ranked {
            if chosen.len() == copies || chosen.contains(place) {
                continue;
            }
            match zone_of(place) {
                Some(zone) if zones.contains(&zone) => {}
                zone => {
                    zones.extend(zone);
                    chosen.push(*place);
                }
            }
        }
        // One copy in each zone, then a second in each. Where no zones are told each node is one of its own.
        zones.clear();
    }
    chosen
}

fn weight(partition: Partition, id: HexId) -> u64 {
    BatchDigest::of(format!("{partition} {id}").as_bytes()).get()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize, zones: usize) -> Vec<Candidate> {
        let zone = |n: usize| (zones > 0).then(|| format!("z{}", n % zones));
        (0..count).map(|n| Candidate { id: HexId(n as u64 * 0x9E37_79B9), zone: zone(n) }).collect()
    }

    #[test]
    fn each_copy_is_on_another_node_and_in_another_zone_while_there_are_some() {
        for partition in 0..64 {
            let candidates = nodes(6, 2);
            for copies in 1..=8 {
                let mut chosen = choose(Partition::new(partition), &candidates, copies);
                assert_eq!(chosen.len(), copies.min(6));
                let in_first_zone = chosen.iter().filter(|place| *place % 2 == 0).count();
                assert!(in_first_zone.abs_diff(chosen.len() - in_first_zone) <= 1, "{chosen:?}");
                chosen.sort_unstable();
                chosen.dedup();
                assert_eq!(chosen.len(), copies.min(6));
            }
        }
    }

    #[test]
    fn who_is_held_stays_and_the_others_are_chosen_beside_it_in_other_zones() {
        for partition in (0..64).map(Partition::new) {
            let candidates = nodes(6, 3);
            for held in 0..6 {
                let chosen = complete(partition, &candidates, 3, vec![held]);
                let mut zones: Vec<usize> = chosen.iter().map(|place| place % 3).collect();
                zones.sort_unstable();
                assert_eq!((chosen[0], zones), (held, vec![0, 1, 2]));
            }
            let all = complete(partition, &candidates, 3, vec![0, 3, 1, 2]);
            assert_eq!(all, [0, 3, 1], "no more than there are to be copies");
        }
    }

    #[test]
    fn partitions_are_spread_and_a_node_more_moves_few() {
        let (five, six) = (nodes(5, 0), nodes(6, 0));
        let mut founded = [0; 5];
        let mut moved = 0;
        for partition in 0..500 {
            let partition = Partition::new(partition);
            let before = choose(partition, &five, 3);
            founded[before[0]] += 1;
            let after = choose(partition, &six, 3);
            moved += before.iter().filter(|place| !after.contains(place)).count();
        }
        assert!(founded.iter().all(|count| (60..140).contains(count)), "{founded:?}");
        // Each of the 1,500 copies moves to the sixth node or stays: a sixth of them, not more.
        assert!((200..300).contains(&moved), "{moved}");
    }
}
