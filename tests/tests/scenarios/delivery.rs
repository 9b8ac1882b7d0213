//! Whatever happens between an ingest and storage, what was acknowledged is stored once, in the order of its
//! partition and of its client.

use std::time::Duration;

use rand::RngExt;
use tests::load::{Load, LoadSpec};
use tests::oracle::{Fate, Ledger, Oracle};
use tests::proxy::FAULTS;
use tests::records::{RecordSource, record};
use tests::{Cluster, ClusterSpec, Fault, eventually, random};

/// How long what waits at the edge may take to storage without anybody asking.
const DRAINED_MAX: Duration = Duration::from_secs(20);

/// Clients that send small batches; each stays with one ingest, or its order would be nobody's promise.
fn load(cluster: &Cluster, seed: u64) -> Load {
    let urls = vec![cluster.url("/v1/logs")];
    Load::start(&LoadSpec { urls, connections: 4, batch_records_max: 30, given_up: 0.3, seed })
}

/// Lets the load end, has the rest taken to storage, and compares.
async fn assert_holds(cluster: &Cluster, load: Load) {
    let ledgers = load.finish().await;
    cluster.drain_wals().await;
    assert_stored(cluster, ledgers).await;
}

async fn assert_stored(cluster: &Cluster, ledgers: Vec<Ledger>) {
    let oracle = Oracle::new(cluster.partitions(), ledgers);
    let stored = cluster.stored().await;
    oracle.assert_holds(&stored);
    assert_eq!(cluster.in_files(), stored);
    eprintln!("{} records acked, {} in doubt", oracle.count(Fate::Acked), oracle.count(Fate::InDoubt));
}

#[tokio::test]
async fn clients_go_on_while_a_node_is_down_and_the_wal_drains_by_itself_when_it_is_back() {
    let mut random = random::seeded();
    let mut cluster = ClusterSpec::default().notified().start().await;
    let load = load(&cluster, random.random());
    load.progress(20).await;
    cluster.nodes[1].kill();
    load.progress(60).await;
    let wal = cluster.wal(0).await;
    assert!(wal["entries"].as_u64() > Some(0) && wal["records"].as_u64() >= wal["entries"].as_u64(), "{wal}");
    assert!(wal["bytes"].as_u64() > Some(0) && wal["oldest_age_ms"].is_u64(), "{wal}");
    let error = wal["last_error"]["error"].as_str().unwrap();
    assert!(error.contains(&cluster.nodes[1].url("")), "{wal}");
    // Nobody sends any more when the node comes back: it says so itself.
    let ledgers = load.finish().await;
    cluster.nodes[1].start().await;
    let is_drained = async || (cluster.wal(0).await["entries"] == 0).then_some(());
    eventually("the edge WAL is empty", DRAINED_MAX, is_drained).await;
    assert_stored(&cluster, ledgers).await;
}

#[tokio::test]
async fn live_requests_drain_the_wal_when_nobody_tells() {
    let mut random = random::seeded();
    let mut cluster = ClusterSpec::default().start().await;
    let load = load(&cluster, random.random());
    load.progress(10).await;
    for victim in [0, 1] {
        cluster.nodes[victim].kill();
        load.progress(40).await;
        cluster.nodes[victim].start().await;
        let is_drained = async || (cluster.wal(0).await["entries"] == 0).then_some(());
        eventually("the edge WAL is empty under load", DRAINED_MAX, is_drained).await;
    }
    load.progress(10).await;
    assert_holds(&cluster, load).await;
}

#[tokio::test]
async fn a_node_that_freezes_and_thaws_holds_up_nobody_for_long() {
    let mut random = random::seeded();
    let cluster = ClusterSpec::default().start().await;
    let load = load(&cluster, random.random());
    load.progress(10).await;
    cluster.nodes[0].pause();
    // The first ones wait for its answer; once it is left alone, nobody does.
    load.progress(40).await;
    cluster.nodes[0].resume();
    load.progress(20).await;
    assert_holds(&cluster, load).await;
}

#[tokio::test]
async fn each_fault_between_ingest_and_storage_costs_nothing_that_was_acked() {
    let mut random = random::seeded();
    let cluster = ClusterSpec::default().proxies().start().await;
    let load = load(&cluster, random.random());
    load.progress(10).await;
    for fault in FAULTS.into_iter().chain([Fault::Slow(Duration::from_millis(50))]) {
        cluster.proxies.iter().for_each(|proxy| proxy.set(fault));
        load.progress(15).await;
        cluster.proxies[0].set(Fault::Pass);
        load.progress(15).await;
        cluster.proxies[1].set(Fault::Pass);
        load.progress(5).await;
    }
    assert_holds(&cluster, load).await;
}

#[tokio::test]
async fn faults_that_come_and_go_with_each_append_cost_nothing_that_was_acked() {
    let mut random = random::seeded();
    let cluster = ClusterSpec::default().proxies().start().await;
    let load = load(&cluster, random.random());
    for proxy in &cluster.proxies {
        let mut mix = vec![Fault::Pass; FAULTS.len()];
        mix.extend(FAULTS);
        proxy.mix(mix, random::seeded());
    }
    load.progress(150).await;
    cluster.proxies.iter().for_each(|proxy| proxy.set(Fault::Pass));
    load.progress(10).await;
    assert_holds(&cluster, load).await;
}

#[tokio::test]
async fn a_request_of_which_a_part_waits_is_told_so_and_minimal_answers_too() {
    let mut cluster = ClusterSpec::default().start().await;
    cluster.nodes[1].kill();
    let here = record("event_creator", "here");
    let there = record("auth_service", "there");
    assert_eq!(
        (cluster.holder_of_service("event_creator"), cluster.holder_of_service("auth_service")),
        (0, 1)
    );
    let answer = cluster.send(&[here.clone(), there.clone(), there.clone()], "k").await.expect(202);
    assert_eq!((answer.text(), answer.header("durability")), ("{\"received\":3,\"queued\":2}", "edge"));
    // The retry of what waits is not queued again; other content under the key is refused at once.
    cluster.send(&[here.clone(), there.clone(), there.clone()], "k").await.expect(202);
    assert_eq!(cluster.wal(0).await["entries"], 1);
    cluster.send(std::slice::from_ref(&there), "k").await.expect(409).problem();
    let request = cluster.client.post(&cluster.url("/v1/logs")).header("prefer", "return=minimal");
    let request = request.header("content-type", "application/json");
    let body = tests::records::json_array(&[there]);
    let answer = tests::client::answer(request.body(body)).await.unwrap().expect(204);
    let header = |name: &str| answer.header(name).to_owned();
    assert_eq!(
        (header("received"), header("queued"), header("durability")),
        ("1".into(), "1".into(), "edge".into())
    );
    cluster.nodes[1].start().await;
    cluster.drain_wals().await;
    assert_eq!(cluster.stored_count().await, 4);
}

#[tokio::test]
async fn a_try_that_timed_out_at_one_ingest_and_its_retry_through_another_store_one_copy() {
    let cluster = ClusterSpec::default().ingests(2).start().await;
    let records = RecordSource::new(0, 3).batch(20);
    cluster.nodes.iter().for_each(tests::Node::pause);
    let impatient = async {
        let request = cluster.client.post(&cluster.ingests[0].url("/v1/logs"));
        let request = request.header("content-type", "application/json").header("idempotency-key", "k");
        let request = request.timeout(Duration::from_millis(500)).body(tests::records::json_array(&records));
        assert!(tests::client::answer(request).await.unwrap_err().is_timeout());
    };
    impatient.await;
    // It lands in the second ingest's WAL, while the first one may have put it into its own.
    let answer = cluster.send_to(1, &records, "k").await.expect(202);
    assert_eq!(answer.header("durability"), "edge");
    cluster.nodes.iter().for_each(tests::Node::resume);
    cluster.drain_wals().await;
    for ingest in [0, 1] {
        cluster.send_to(ingest, &records, "k").await.expect(200);
    }
    let mut ledger = Ledger::default();
    ledger.note(records, Fate::Acked);
    assert_stored(&cluster, vec![ledger]).await;
}
