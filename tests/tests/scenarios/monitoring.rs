//! The stack as an operator runs it, without containers: nginx, two ingests, three storage nodes with three copies of
//! each partition, Prometheus. It is loaded, every panel and alert is asked for, nodes are killed, and the alert that
//! must fire is read from Prometheus.

use std::time::Duration;

use tests::load::{Load, LoadSpec};
use tests::oracle::Oracle;
use tests::tools::{self, Nginx, Prometheus};
use tests::{Cluster, ClusterSpec, eventually};

use super::deploy::{alerts, panel_queries};

/// How long until a query finds something: a rate needs two scrapes, a second apart.
const DATA_MAX: Duration = Duration::from_secs(30);
/// How long until an alert fires or ends: a scrape, an evaluation and its `for`, each a second.
const ALERT_MAX: Duration = Duration::from_secs(30);

/// An alert's left-hand side: what it compares.
fn compared(expression: &str) -> &str {
    let place = expression.rfind([' ']).and_then(|end| expression[..end].rfind(['<', '>'])).unwrap();
    expression[..place].trim()
}

/// The value of a query's only sample.
fn number(found: &[serde_json::Value]) -> f64 {
    found[0]["value"][1].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_alert_finds_data_and_a_dead_node_is_told() {
    if !tools::are_there(&["nginx", "prometheus"]) {
        return;
    }
    let mut cluster = ClusterSpec::default().nodes(3).replicas(3).ingests(2).notified().start().await;
    cluster.leaders().await;
    let ingests: Vec<_> = cluster.ingests.iter().map(|ingest| ingest.address()).collect();
    let storage: Vec<_> = cluster.nodes.iter().map(|node| node.address()).collect();
    let nginx = Nginx::start(cluster.dir(), &ingests).await;
    let prometheus = Prometheus::start(cluster.dir(), &storage, &ingests).await;
    let load = Load::start(&LoadSpec {
        urls: vec![nginx.url("/v1/logs")],
        connections: 4,
        batch_records_max: 20,
        given_up: 0.0,
        seed: 11,
    });
    load.progress(50).await;
    for path in ["/v1/query?service=auth_service&limit=3", "/v1/logs?contains=a&limit=3"] {
        cluster.client.get(&nginx.url(path)).await.unwrap().expect(200);
    }
    cluster.client.post_json(&nginx.url("/v1/logs"), "[").await.unwrap().expect(400);
    cluster.client.get(&nginx.url("/metrics")).await.unwrap().expect(404);

    all_is_seen(&prometheus, cluster.partitions()).await;
    nothing_is_down(&prometheus).await;
    let dead = kill_one(&mut cluster, &prometheus).await;
    // Clients went on, and the other two stored it: that is seen from what they commit.
    load.progress(20).await;
    let watermark = "sum(max by (partition) (storage_high_watermark))";
    let stored = number(&prometheus.query(watermark).await);
    eventually("what is stored grows without the node", DATA_MAX, async || {
        (number(&prometheus.query(watermark).await) > stored).then_some(())
    })
    .await;
    // One copy of three commits nothing: what clients send now is seen at the edge.
    let second = (dead + 1) % 3;
    cluster.nodes[second].kill();
    load.progress(20).await;
    eventually("the edge WAL is seen", DATA_MAX, async || {
        (!prometheus.query("sum(ingest_wal_records) > 0").await.is_empty()).then_some(())
    })
    .await;

    let address = cluster.nodes[dead].address().to_string();
    for place in [dead, second] {
        cluster.nodes[place].start_serving().await;
    }
    cluster.leaders().await;
    eventually("the alert ends", ALERT_MAX, async || {
        (!prometheus.firing().await.iter().any(|alert| is_of(alert, &address))).then_some(())
    })
    .await;
    let ledgers = load.finish().await;
    cluster.drain_wals().await;
    let mut faults = Oracle::new(cluster.partitions(), ledgers).faults(&cluster.same_everywhere().await);
    // A batch may wait at one ingest while its client's next one goes through the other.
    faults.remove("out of order");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Waits until every panel and alert finds something to show or compare, and each node and copy is told of by itself.
async fn all_is_seen(prometheus: &Prometheus, partitions: u16) {
    let panels = panel_queries();
    let alerts = alerts();
    let compared = alerts.iter().map(|(name, expression)| (name.clone(), compared(expression).to_owned()));
    for (place, query) in panels.into_iter().chain(compared) {
        eventually(&format!("{place} finds data: {query}"), DATA_MAX, async || {
            (!prometheus.query(&query).await.is_empty()).then_some(())
        })
        .await;
    }
    // Each node is there by itself, and each copy that a leader counts.
    for (query, series) in [
        ("up{job=\"edgelog-storage\"} == 1", 3),
        ("count by (instance) (storage_high_watermark)", 3),
        ("storage_raft_term > 0", 3 * usize::from(partitions)),
        ("count by (partition) (storage_replication_lag_records)", partitions.into()),
    ] {
        eventually(&format!("{query} has {series} series"), DATA_MAX, async || {
            (prometheus.query(query).await.len() == series).then_some(())
        })
        .await;
    }
    let rules = prometheus.rules().await;
    assert_eq!(rules.len(), alerts.len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

async fn nothing_is_down(prometheus: &Prometheus) {
    // How fast this machine and its disk are is not told here; whether something is down is.
    let down = [
        "EdgelogStorageDown",
        "EdgelogIngestDown",
        "EdgelogPartitionStopped",
        "EdgelogDamage",
        "EdgelogRecordsLost",
    ];
    let firing = prometheus.firing().await;
    let is_down = |alert: &&serde_json::Value| down.contains(&alert["labels"]["alertname"].as_str().unwrap());
    let unexpected: Vec<_> = firing.iter().filter(is_down).collect();
    assert!(unexpected.is_empty(), "nothing is down: {unexpected:?}");
}

/// Whether an alert says that the node at this address is down.
fn is_of(alert: &serde_json::Value, address: &str) -> bool {
    alert["labels"]["alertname"] == "EdgelogStorageDown" && alert["labels"]["instance"] == address
}

/// Kills a node that leads, and waits for the alert that says so; its place.
async fn kill_one(cluster: &mut Cluster, prometheus: &Prometheus) -> usize {
    let dead = cluster.leader_of(0).await;
    let address = cluster.nodes[dead].address().to_string();
    cluster.nodes[dead].kill();
    let alert = eventually("the alert fires", ALERT_MAX, async || {
        prometheus.firing().await.into_iter().find(|alert| is_of(alert, &address))
    })
    .await;
    assert!(alert["annotations"]["summary"].as_str().unwrap().contains(&address), "{alert}");
    assert!(
        alert["annotations"]["runbook_url"].as_str().unwrap().ends_with("#edgelogstoragedown"),
        "{alert}"
    );
    let down = prometheus.query("ALERTS{alertname=\"EdgelogStorageDown\",alertstate=\"firing\"}").await;
    assert_eq!(down.len(), 1, "of that node alone: {down:?}");
    dead
}
