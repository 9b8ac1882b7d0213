//! A service's records lie where everybody can compute that they lie.

use model::Record;
use tests::records::{partition_of, record};
use tests::{ClusterSpec, files};

/// Of 4 partitions and of 7: as docs/api.md publishes them, computed apart from edgelog.
const VECTORS: [(&str, u16, u16); 7] = [
    ("auth_service", 3, 1),
    ("event_creator", 0, 2),
    ("focus_allocator", 1, 6),
    ("notification_service", 2, 4),
    ("unknown_service", 1, 4),
    ("", 1, 2),
    ("śluza-7", 3, 1),
];

#[test]
fn the_published_vectors_are_fnv_1a() {
    for (service, of_4, of_7) in VECTORS {
        assert_eq!((partition_of(service, 4), partition_of(service, 7)), (of_4, of_7), "{service:?}");
    }
}

/// Sends a record of each service, and looks for them in the files.
async fn check(nodes: usize, partitions: u16, of_service: impl Fn(&(&str, u16, u16)) -> u16) {
    let cluster = ClusterSpec::default().nodes(nodes).partitions(partitions).start().await;
    // Without a name, a record is of `unknown_service`; it is in the table for itself.
    let named: Vec<_> = VECTORS.iter().filter(|(service, ..)| !service.is_empty()).collect();
    let records: Vec<Record> = named.iter().map(|(service, ..)| record(service, "here")).collect();
    cluster.send(&records, "placement").await.expect(200);
    for node in &cluster.nodes {
        for partition in node.partitions() {
            let stored = files::records(&node.partition_dir(*partition));
            let mut services: Vec<&str> = stored.iter().map(|record| record.service.as_str()).collect();
            services.sort_unstable();
            let here = |vector: &&&(&str, u16, u16)| of_service(vector) == *partition;
            let expected: Vec<&str> = named.iter().filter(here).map(|(service, ..)| *service).collect();
            assert_eq!(services, expected, "partition {partition} of {partitions} on {}", node.name());
        }
    }
}

#[tokio::test]
async fn four_partitions_on_two_nodes_hold_what_the_vectors_say() {
    check(2, 4, |(_, of_4, _)| *of_4).await;
}

#[tokio::test]
async fn seven_partitions_on_one_node_hold_what_the_vectors_say() {
    check(1, 7, |(_, _, of_7)| *of_7).await;
}
