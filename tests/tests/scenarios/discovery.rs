//! Who holds what: nodes that know of one another, and ingests that find out.

use std::time::Duration;

use model::wire;
use tests::client::answer;
use tests::{Answer, Cluster, ClusterSpec, eventually};

/// How long it may take until nodes have noticed a change among them.
const NOTICED_MAX: Duration = Duration::from_secs(20);

/// The answer of the node at this place to an append to this partition.
async fn append(cluster: &Cluster, node: usize, partition: u16) -> Answer {
    let url = cluster.nodes[node].url(&format!("/v1/storage?partition={partition}"));
    let line = r#"{"timestamp":1,"service":"s","message":"m","received_at":1,"ingested_node_id":"i","client_ip":"c"}"#;
    answer(cluster.client.post(&url).header("content-type", wire::NDJSON).body(format!("{line}\n")))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_node_that_does_not_hold_a_partition_names_the_one_that_does_while_it_lives() {
    let mut cluster = ClusterSpec::default().nodes(3).partitions(3).ingests(0).peers().start().await;
    let url = cluster.nodes[2].url("");
    let named = async |cluster: &Cluster| {
        let told = append(cluster, 0, 2).await.expect(421);
        assert_eq!(told.problem().field.as_deref(), Some("partition"));
        told.header(wire::LEADER).to_owned()
    };
    let names_it = async || (named(&cluster).await == url).then_some(());
    eventually("the first node names the third", NOTICED_MAX, names_it).await;
    let nodes = cluster.described_by(0).await.nodes;
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names[0], "node-1", "{names:?}");
    assert!(nodes.iter().all(|node| node.alive) && nodes.len() == 3, "{nodes:?}");

    cluster.nodes[2].kill();
    let names_nobody = async || named(&cluster).await.is_empty().then_some(());
    eventually("the first node names nobody", NOTICED_MAX, names_nobody).await;
    let nodes = cluster.described_by(0).await.nodes;
    let dead: Vec<_> = nodes.iter().filter(|node| !node.alive).map(|node| node.url.as_str()).collect();
    assert_eq!(dead, [url.as_str()]);

    cluster.nodes[2].start().await;
    let names_it = async || (named(&cluster).await == url).then_some(());
    eventually("the first node names the third again", NOTICED_MAX, names_it).await;
    assert_eq!(append(&cluster, 2, 2).await.status, 200);
}
