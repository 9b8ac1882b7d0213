//! Which partition a service's records belong to, and which node holds it by default.
//!
//! Routing is part of the contract: every ingest node computes it alone, and a change would strand stored records.

use std::hash::Hasher;

use fnv::FnvHasher;

use crate::ids::{Partition, PartitionCount, Tenant};

/// The partition of `service`'s records: FNV-1a 64 of its bytes modulo the number of partitions; for a tenant other
/// than the default, of `tenant NUL service`.
///
/// FNV-1a as in draft-eastlake-fnv; the crate `fnv` has its 64-bit offset basis and prime.
pub fn partition_of(tenant: &Tenant, service: &[u8], count: PartitionCount) -> Partition {
    let mut hasher = FnvHasher::default();
    if !tenant.is_default() {
        hasher.write(tenant.as_str().as_bytes());
        hasher.write(&[0]);
    }
    hasher.write(service);
    // The remainder is below `count`, which is a u16.
    Partition::new((hasher.finish() % u64::from(count.get())) as u16)
}

/// Where a partition is by default: the place, in a list of `nodes` storage nodes, of the one that holds
/// `partition` when the partitions are dealt out in equal runs (4 on 2 nodes: 0 and 1, then 2 and 3).
///
/// `None` when there are no nodes or the partition is not one of `count`.
pub fn default_node(partition: Partition, count: PartitionCount, nodes: usize) -> Option<usize> {
    if partition.get() >= count.get() {
        return None;
    }
    let run = usize::from(count.get()).div_ceil(nodes.max(1));
    let place = usize::from(partition.get()) / run;
    (place < nodes).then_some(place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(n: u16) -> PartitionCount {
        PartitionCount::new(n).unwrap()
    }

    /// FNV-1a 32, which the Go service used.
    fn fnv1a_32(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }

    #[test]
    fn services_go_where_the_published_vectors_say() {
        let default = Tenant::default();
        let acme: Tenant = "acme".parse().unwrap();
        // (service, of 4, of 7, of 7 for the tenant `acme`); docs/api.md publishes the same table.
        let vectors: [(&str, u16, u16, u16); 7] = VECTORS;
        for (service, of_4, of_7, acme_of_7) in vectors {
            let got = (
                partition_of(&default, service.as_bytes(), count(4)).get(),
                partition_of(&default, service.as_bytes(), count(7)).get(),
                partition_of(&acme, service.as_bytes(), count(7)).get(),
            );
            assert_eq!(got, (of_4, of_7, acme_of_7), "{service}");
        }
    }

    const VECTORS: [(&str, u16, u16, u16); 7] = [
        ("auth_service", 3, 1, 4),
        ("event_creator", 0, 2, 1),
        ("focus_allocator", 1, 6, 3),
        ("notification_service", 2, 4, 2),
        ("unknown_service", 1, 4, 2),
        ("", 1, 2, 2),
        ("śluza-7", 3, 1, 2),
    ];

    #[test]
    fn four_partitions_on_two_nodes_lie_as_documented() {
        let places: Vec<_> = count(4).partitions().map(|p| default_node(p, count(4), 2)).collect();
        assert_eq!(places, [Some(0), Some(0), Some(1), Some(1)]);
        assert_eq!(default_node(Partition::new(4), count(4), 2), None);
        assert_eq!(default_node(Partition::new(0), count(4), 0), None);
    }

    proptest! {
        #[test]
        fn powers_of_two_up_to_32_place_as_the_go_service_did(service: Vec<u8>, power in 0u32..=5) {
            let partitions = 1u16 << power;
            let go = fnv1a_32(&service) % u32::from(partitions);
            let ours = partition_of(&Tenant::default(), &service, count(partitions));
            prop_assert_eq!(u32::from(ours.get()), go);
        }

        #[test]
        fn every_partition_has_a_node(partitions in 1u16..=64, nodes in 1usize..=16) {
            for partition in count(partitions).partitions() {
                prop_assert!(default_node(partition, count(partitions), nodes).is_some_and(|n| n < nodes));
            }
        }
    }
}
