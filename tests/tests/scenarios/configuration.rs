//! What is set wrongly is named, and nobody is called who was not configured.

use tests::ClusterSpec;
use tests::records::record;

#[tokio::test]
async fn a_variable_that_is_wrong_is_named_in_every_answer() {
    for (name, value) in [
        ("node_id", ""),
        ("partitions", "0"),
        ("partitions", "many"),
        ("storage_nodes", "localhost:8081"),
        ("storage_nodes", ""),
        ("trusted_proxies", "10.0.0.0/99"),
    ] {
        let mut cluster = ClusterSpec::default().nodes(1).variable(name, value).start_serving().await;
        for path in ["/v1/logs", "/v1/query?service=a&limit=1"] {
            let problem = cluster.client.get(&cluster.url(path)).await.unwrap().expect(500).problem();
            assert!(problem.detail.contains(&format!("`{name}`")), "{value:?}: {}", problem.detail);
        }
        let problem = cluster.send(&[record("a", "m")], "k").await.expect(500).problem();
        assert!(problem.detail.contains(&format!("`{name}`")), "{value:?}: {}", problem.detail);
        assert!(cluster.ingests[0].stop().await.success());
        assert_eq!(cluster.stored_count().await, 0);
    }
}

#[tokio::test]
async fn a_node_that_is_not_among_the_allowed_hosts_is_not_called() {
    // With the edge WAL the record would be kept until the variable is mended, and the answer be 202.
    let spec = ClusterSpec::default().variable("storage_hosts", "http://127.0.0.1:1").variable("wal", "off");
    let cluster = spec.start().await;
    let answer = cluster.send(&[record("event_creator", "m")], "k").await;
    assert!(answer.status >= 500, "{answer:?}");
    let problem = answer.problem();
    assert!(problem.detail.contains("storage_hosts"), "{}", problem.detail);
    assert_eq!(cluster.stored_count().await, 0);
}
