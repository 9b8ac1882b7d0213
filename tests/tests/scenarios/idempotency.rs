//! A request that is repeated under its key is stored once, whichever ingest it meets.

use model::wire::{self, IngestAnswer};
use rand::RngExt;
use tests::client::answer;
use tests::load::{Load, LoadSpec};
use tests::oracle::{Fate, Ledger, Oracle};
use tests::records::{RecordSource, ndjson};
use tests::{ClusterSpec, random};

#[tokio::test]
async fn a_repetition_is_answered_alike_and_stored_once_and_other_content_conflicts() {
    let cluster = ClusterSpec::default().start().await;
    let mut source = RecordSource::new(0, 1);
    let (records, others) = (source.batch(50), source.batch(50));
    for _ in 0..3 {
        let answer = cluster.send(&records, "k").await.expect(200);
        assert_eq!((answer.json::<IngestAnswer>().received, answer.header("durability")), (50, "leader"));
    }
    cluster.send(&others, "k").await.expect(409).problem();
    // A longer and a shorter request are other content too.
    cluster.send(&records[..49], "k").await.expect(409).problem();
    let longer = [&records[..], &others[..1]].concat();
    cluster.send(&longer, "k").await.expect(409).problem();
    // Under another key the same content is meant to be there again; without one each request is its own.
    let ledgers = || {
        let mut ledger = Ledger::default();
        ledger.note(records.clone(), Fate::Acked);
        vec![ledger]
    };
    Oracle::new(4, ledgers()).assert_holds(&cluster.stored().await);
    cluster.send(&records, "another").await.expect(200);
    let url = cluster.url("/v1/logs");
    for _ in 0..2 {
        cluster.client.post_json(&url, tests::records::json_array(&records)).await.unwrap().expect(200);
    }
    assert_eq!(cluster.stored_count().await, 200);
}

#[tokio::test]
async fn the_same_records_in_another_form_are_a_repetition() {
    let cluster = ClusterSpec::default().start().await;
    let records = RecordSource::new(0, 2).batch(40);
    cluster.send(&records, "k").await.expect(200);
    let request = cluster.client.post(&cluster.url("/v1/logs")).header("content-type", wire::NDJSON);
    let lines = request.header(wire::IDEMPOTENCY_KEY, "k").body(ndjson(&records));
    answer(lines).await.unwrap().expect(200);
    assert_eq!(cluster.stored_count().await, 40);
}

#[tokio::test]
async fn a_retry_through_another_ingest_stores_one_copy() {
    let cluster = ClusterSpec::default().ingests(2).start().await;
    let mut source = RecordSource::new(0, 3);
    let mut ledger = Ledger::default();
    for number in 0..10 {
        let records = source.batch(20);
        let key = format!("key-{number}");
        // Both at once, and each once more.
        let both = futures::join!(cluster.send_to(0, &records, &key), cluster.send_to(1, &records, &key));
        assert_eq!(
            (both.0.expect(200).text(), both.1.expect(200).text()),
            ("{\"received\":20}", "{\"received\":20}")
        );
        cluster.send_to(1, &records, &key).await.expect(200);
        cluster.send_to(0, &records, &key).await.expect(200);
        ledger.note(records, Fate::Acked);
    }
    cluster.send_to(1, &source.batch(20), "key-0").await.expect(409).problem();
    Oracle::new(4, vec![ledger]).assert_holds(&cluster.stored().await);
    assert_eq!(cluster.in_files(), cluster.stored().await);
}

#[tokio::test]
async fn a_repetition_is_known_after_a_restart_of_everything() {
    let mut cluster = ClusterSpec::default().ingests(2).start().await;
    let records = RecordSource::new(0, 4).batch(100);
    cluster.send_to(0, &records, "k").await.expect(200);
    cluster.ingests[0].kill();
    cluster.ingests[0].start().await;
    for node in &mut cluster.nodes {
        assert!(node.stop().await.success());
        node.start().await;
    }
    for ingest in [1, 0] {
        cluster.send_to(ingest, &records, "k").await.expect(200);
    }
    cluster.nodes[0].kill();
    cluster.nodes[0].start().await;
    cluster.send_to(0, &records, "k").await.expect(200);
    assert_eq!(cluster.stored_count().await, 100);
}

#[tokio::test]
async fn an_ingest_that_is_killed_or_stopped_under_load_costs_nothing_that_was_acked() {
    let mut random = random::seeded();
    let mut cluster = ClusterSpec::default().ingests(2).start().await;
    let urls = cluster.ingests.iter().map(|ingest| ingest.url("/v1/logs")).collect();
    let seed = random.random();
    let load = Load::start(&LoadSpec { urls, connections: 4, batch_records_max: 40, given_up: 0.3, seed });
    for victim in [0, 1] {
        load.progress(random.random_range(1..40)).await;
        if victim == 0 {
            cluster.ingests[victim].kill();
        } else {
            let status = cluster.ingests[victim].stop().await;
            assert!(status.success(), "{status}");
        }
        load.progress(10).await;
        cluster.ingests[victim].start().await;
    }
    load.progress(10).await;
    let oracle = Oracle::new(cluster.partitions(), load.finish().await);
    oracle.assert_holds(&cluster.stored().await);
}
