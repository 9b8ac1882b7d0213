//! More ingests behind a proxy: one is killed and each is rolled under load, and nothing is lost, doubled or refused.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::programs::programs;
use tests::tools::{self, Envoy, Nginx};
use tests::{Cluster, ClusterSpec, eventually};

const PROGRESS_MAX: Duration = Duration::from_secs(60);
const TOTAL: u64 = 30_000;

async fn behind_nginx(ingests: usize) -> (Cluster, Nginx) {
    // At its end the generator looks for all records at once: none may be on its way.
    let spec = ClusterSpec::default().variable("wal", "off").variable("trusted_proxies", "127.0.0.1");
    let cluster = spec.ingests(ingests).start().await;
    let addresses: Vec<_> = cluster.ingests.iter().map(|ingest| ingest.address()).collect();
    let nginx = Nginx::start(cluster.dir(), &addresses).await;
    (cluster, nginx)
}

/// Waits until so many records more are stored.
async fn progress(cluster: &Cluster, records: u64) {
    let wanted = cluster.stored_count().await + records;
    eventually("records are stored", PROGRESS_MAX, async || {
        (cluster.stored_count().await >= wanted).then_some(())
    })
    .await;
}

async fn one_is_killed_and_all_are_rolled_under_load(ingests: usize) {
    if !tools::are_there(&["nginx"]) {
        return;
    }
    let (mut cluster, nginx) = behind_nginx(ingests).await;
    let storage: Vec<String> = cluster.nodes.iter().map(|node| node.url("")).collect();
    let load = Command::new(&programs().loadgen)
        .args(["--url", &nginx.url("/v1/logs"), "--storage", &storage.join(","), "--json", "--verify"])
        .args(["--total", &TOTAL.to_string(), "--batch", "20", "--connections", "4", "--delay", "10"])
        .args(["--retries", "20", "--seed", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    progress(&cluster, 1_000).await;
    cluster.ingests[0].kill();
    progress(&cluster, 1_000).await;
    cluster.ingests[0].start().await;
    for place in 0..ingests {
        progress(&cluster, 500).await;
        assert!(cluster.ingests[place].stop().await.success(), "it ends in order");
        progress(&cluster, 500).await;
        cluster.ingests[place].start().await;
    }
    assert!(cluster.stored_count().await < TOTAL, "all of that happened under load");
    let ended: Output = tokio::task::spawn_blocking(|| load.wait_with_output()).await.unwrap().unwrap();
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert!(ended.status.success(), "{report:#}\n{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!((&report["ok"], &report["records"]["acked"]), (&true.into(), &TOTAL.into()), "{report:#}");
    assert_eq!(cluster.stored_count().await, TOTAL, "each once");
    let stored = cluster.stored().await;
    for ingest in &cluster.ingests {
        let has_its = stored.values().flatten().any(|record| record.ingested_node_id == ingest.name());
        assert!(has_its, "{} took a share", ingest.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ingests_behind_nginx_one_killed_and_both_rolled_lose_and_double_nothing() {
    one_is_killed_and_all_are_rolled_under_load(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_ingests_behind_nginx_one_killed_and_all_rolled_lose_and_double_nothing() {
    one_is_killed_and_all_are_rolled_under_load(4).await;
}

/// Sends a record with headers that claim another client, from this address of the loopback network.
async fn send_forged(url: &str, from: Ipv4Addr, message: &str) {
    let client = reqwest::Client::builder().no_proxy().local_address(IpAddr::V4(from)).build().unwrap();
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("x-forwarded-for", "203.0.113.66, 127.0.0.1")
        .header("forwarded", "for=203.0.113.66")
        .header("x-real-ip", "203.0.113.66")
        .header("spin-client-addr", "203.0.113.66:1");
    let body = format!(r#"[{{"service":"s","message":"{message}"}}]"#);
    assert_eq!(request.body(body).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_clients_address_is_right_behind_the_proxy_and_cannot_be_forged_past_it() {
    if !tools::are_there(&["nginx"]) {
        return;
    }
    let (cluster, nginx) = behind_nginx(2).await;
    addresses_are_right(&cluster, &nginx.url("/v1/logs")).await;
}

#[tokio::test]
async fn envoy_tells_the_clients_address_and_goes_elsewhere_when_an_ingest_is_gone() {
    if !tools::are_there(&["nginx", "envoy"]) {
        return;
    }
    let (mut cluster, _nginx) = behind_nginx(2).await;
    let envoy = Envoy::start(cluster.dir(), [0, 1].map(|place| cluster.ingests[place].address())).await;
    let url = envoy.url("/v1/logs");
    addresses_are_right(&cluster, &url).await;
    // Without a key of its own a request gets one at the proxy, so that it may be repeated.
    let body = r#"[{"service":"s","message":"m"}]"#;
    let answer = cluster.client.post_json(&url, body).await.unwrap().expect(200);
    assert_eq!(answer.header("idempotency-key").len(), 36, "Envoy's request id");
    cluster.ingests[0].kill();
    for _ in 0..8 {
        cluster.client.post_json(&url, body).await.unwrap().expect(200);
    }
    cluster.client.get(&envoy.url("/metrics")).await.unwrap().expect(404);
}

/// The address is that of the client, as the proxy sees it, and who goes past the proxy is not believed.
async fn addresses_are_right(cluster: &Cluster, proxy: &str) {
    let (behind, past) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    send_forged(proxy, behind, "behind").await;
    send_forged(&cluster.url("/v1/logs"), past, "past").await;
    let stored = cluster.stored().await;
    let address_of = |message: &str| {
        stored.values().flatten().find(|record| record.message == message).unwrap().client_ip.clone()
    };
    assert_eq!(address_of("behind"), behind.to_string());
    assert_eq!(address_of("past"), past.to_string());
}
