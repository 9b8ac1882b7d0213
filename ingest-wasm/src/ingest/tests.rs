//! `POST /v1/logs`, from the request to its answer, on scripted storage.

use std::io::Write;

use expect_test::expect;
use flate2::Compression;
use flate2::write::GzEncoder;
use model::limits::INGEST_RECORDS_MAX;
use model::{EnrichedRecord, Partition};

use super::*;
use crate::body::tests::Pieces;
use crate::config::Config;
use crate::config::tests::two_nodes;
use crate::fake::{Fake, NOW_MS, Reaction, Try, header, problem, text};

/// Four records of three partitions.
const RECORDS: [&str; 4] = [
    r#"{"timestamp":1,"service":"auth_service","level":"INFO","message":"a"}"#,
    r#"{"timestamp":2,"service":"event_creator","message":"b"}"#,
    r#"{"timestamp":3,"service":"auth_service","message":"c","user":"u"}"#,
    r#"{"message":"d"}"#,
];

fn array() -> String {
    format!("[{}]", RECORDS.join(","))
}

fn all_records(fake: &Fake<'_>) -> Vec<EnrichedRecord> {
    let mut records: Vec<_> = fake.records().into_values().flatten().collect();
    records.sort_by(|a, b| a.message.cmp(&b.message));
    records
}

#[test]
fn records_arrive_enriched_at_the_nodes_of_their_partitions() {
    let fake = Fake::storing();
    let answer = Try::post(array()).answer(&fake);
    assert_eq!((answer.status, text(&answer).as_str()), (200, r#"{"received":4}"#));
    assert_eq!(header(&answer, "durability"), Some("leader"));
    for (url, records) in fake.records() {
        for record in records {
            let partition = model::route::partition_of(
                &Tenant::default(),
                record.service.as_bytes(),
                two_nodes().partitions,
            );
            let node = two_nodes().node_of(partition).unwrap().to_string();
            assert_eq!(url, format!("{node}/v1/storage?partition={partition}"));
            assert_eq!((record.received_at, record.ingested_node_id.as_str()), (NOW_MS, "ingest-1"));
            assert_eq!(record.client_ip, "192.0.2.7");
        }
    }
    let records = all_records(&fake);
    assert_eq!(records.iter().map(|record| record.timestamp).collect::<Vec<_>>(), [1, 2, 3, NOW_MS]);
    assert_eq!(records[2].labels["user"], "u");
    assert_eq!(records[3].service, "unknown_service");
}

#[test]
fn every_way_to_write_the_same_records_stores_the_same() {
    let expected = Fake::storing();
    Try::post(array()).answer(&expected);
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let ndjson = RECORDS.join("\n");
    for post in [
        Try::post(array()).with("content-type", "application/json; charset=utf-8"),
        Try::post(&ndjson).with("content-type", "application/x-ndjson"),
        Try::post(gzip(&array())).with("content-encoding", "gzip"),
        Try::post(gzip(&ndjson))
            .with("content-encoding", "gzip")
            .with("content-type", "application/x-ndjson"),
        Try::post(zstd::encode_all(array().as_bytes(), 3).unwrap()).with("content-encoding", "zstd"),
    ] {
        let fake = Fake::storing();
        let answer = post.with("idempotency-key", "k").answer(&fake);
        assert_eq!((answer.status, text(&answer).as_str()), (200, r#"{"received":4}"#));
        assert_eq!(fake.records(), expected.records());
        assert_eq!(fake.header("batch-digest"), expected.header("batch-digest"));
    }
}

#[test]
fn a_body_may_come_in_pieces_and_without_a_length() {
    let fake = Fake::storing();
    let mut post = Try::post("");
    let body = array();
    let pieces: Vec<&[u8]> = body.as_bytes().chunks(7).collect();
    post.body = Pieces::of(&pieces);
    assert_eq!(post.answer(&fake).status, 200);
    assert_eq!(all_records(&fake).len(), 4);
}

#[test]
fn a_repeated_request_has_the_same_batch_ids_whenever_and_wherever_it_is_repeated() {
    let (first, second) = (Fake::storing(), Fake::storing());
    let post = Try::post(array()).with("idempotency-key", "order-66");
    let answer = post.answer(&first);
    assert_eq!(header(&answer, "idempotency-key"), Some("order-66"));
    let other_node =
        crate::config::tests::config(["other", "http://node-1:8081,http://node-2:8081", "4", ""]);
    post.answer_with(&second, &other_node.unwrap(), NOW_MS + 60_000);
    assert_eq!(first.header("batch-id"), second.header("batch-id"));
    assert_eq!(first.header("batch-digest"), second.header("batch-digest"));
    let partition: Partition =
        first.calls.borrow()[0].1.path_and_query.rsplit('=').next().unwrap().parse().unwrap();
    assert_eq!(
        first.header("batch-id")[0],
        BatchId::derive(&Tenant::default(), "order-66", partition).to_string()
    );
    assert_ne!(first.records(), second.records(), "the stored bytes do differ");
}

#[test]
fn a_request_without_key_gets_one_and_is_told() {
    let fake = Fake::storing();
    let answer = Try::post(array()).answer(&fake);
    let key = header(&answer, "idempotency-key").unwrap().to_owned();
    let uuid = uuid::Uuid::parse_str(&key).unwrap();
    assert_eq!(uuid.get_version_num(), 7);
    assert_eq!(uuid.get_timestamp().unwrap().to_unix().0, NOW_MS / 1000);
    let again = Fake::storing();
    Try::post(array()).with("idempotency-key", &key).answer(&again);
    assert_eq!(fake.header("batch-id"), again.header("batch-id"));
}

#[test]
fn keys_are_bounded_visible_ascii() {
    let fake = Fake::storing();
    let longest = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX);
    for (key, fits) in [
        ("k", true),
        ("\"quoted\"", true),
        (longest.as_str(), true),
        ("", false),
        ("a b", false),
        ("é", false),
    ] {
        let answer = Try::post(array()).with("idempotency-key", key).answer(&fake);
        assert_eq!(answer.status == 200, fits, "{key}");
    }
    let too_long = Try::post(array()).with("idempotency-key", &format!("{longest}k")).answer(&fake);
    assert_eq!(problem(&too_long).field.as_deref(), Some("idempotency-key"));
    let twice = Try::post(array()).with("idempotency-key", "a").with("idempotency-key", "b").answer(&fake);
    assert_eq!(twice.status, 400);
}

#[test]
fn invalid_records_are_named_and_the_others_stored() {
    let fake = Fake::storing();
    let body = format!(r#"[{},{{"message":1}},7,{}]"#, RECORDS[0], RECORDS[1]);
    let answer = Try::post(body).with("prefer", "return=minimal").answer(&fake);
    assert_eq!(answer.status, 200, "rejections are told also to those who want no body");
    expect![[r#"{"received":2,"rejected":[{"index":1,"field":"message","error":"has to be a string"},{"index":2,"field":"","error":"a record has to be a JSON object"}]}"#]]
        .assert_eq(&text(&answer));
    assert_eq!(all_records(&fake).len(), 2);
}

#[test]
fn the_wanted_durability_goes_to_storage_and_has_to_be_one() {
    let fake = Fake::storing();
    let post = || {
        Try::post(r#"[{"service":"auth_service","message":"m"},{"service":"event_creator","message":"m"}]"#)
            .with("content-type", "application/json")
    };
    assert_eq!(post().with("acks", "quorum").answer(&fake).status, 200);
    assert_eq!(fake.header("acks"), ["quorum"; 2]);
    for wrong in ["edge", "2", "", "ALL"] {
        let answer = post().with("acks", wrong).answer(&fake);
        assert_eq!((answer.status, problem(&answer).field.as_deref()), (400, Some("acks")), "{wrong:?}");
    }
    assert_eq!(post().with("acks", "all").with("acks", "all").answer(&fake).status, 400);
}

#[test]
fn a_client_may_do_without_a_body() {
    for prefer in ["return=minimal", "wait=10, Return=\"Minimal\"; x=y"] {
        let answer = Try::post(array()).with("prefer", prefer).answer(&Fake::storing());
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{prefer}");
        assert_eq!((header(&answer, "received"), header(&answer, "rejected")), (Some("4"), Some("0")));
        assert_eq!(header(&answer, "durability"), Some("leader"));
        assert!(header(&answer, "idempotency-key").is_some());
    }
    for other in ["return=representation", "minimal", "return"] {
        assert_eq!(Try::post(array()).with("prefer", other).answer(&Fake::storing()).status, 200, "{other}");
    }
}

/// What is answered without anything being sent to storage.
#[track_caller]
fn refused(post: &Try, status: u16, part_of_detail: &str) -> Answer {
    let fake = Fake::storing();
    let answer = post.answer(&fake);
    let problem = problem(&answer);
    assert_eq!(problem.status, status, "{}", problem.detail);
    assert!(problem.detail.contains(part_of_detail), "{}", problem.detail);
    assert!(fake.calls.borrow().is_empty(), "nothing is stored");
    answer
}

#[test]
fn each_bad_request_has_its_status() {
    refused(&Try::post(format!("[{},", RECORDS[0])), 400, "not JSON");
    refused(&Try::post(""), 400, "no records");
    refused(&Try::post("[]"), 400, "no records");
    refused(&Try::post("\n\n").with("content-type", "application/x-ndjson"), 400, "no records");
    refused(&Try::post("7"), 400, "neither a JSON array");
    refused(&Try::post(b"[\"\xff\"]"), 400, "UTF-8 at byte 2");
    refused(&Try::post("[".repeat(1_000_000)), 400, "nested too deeply");
    refused(&Try::post(array()).with("content-encoding", "gzip"), 400, "gzip body cannot be decompressed");
    refused(&Try::post("").with("content-encoding", "zstd"), 400, "no records");
    let answer =
        refused(&Try::post(r#"[{"message":1},{}]"#), 400, "none of 2 records is valid; record 0: message");
    assert_eq!((problem(&answer).index, problem(&answer).field.as_deref()), (Some(0), Some("message")));
    let answer = refused(&Try::post(array()).with("content-type", "text/plain"), 415, "text/plain");
    assert_eq!(header(&answer, "accept"), Some("application/json, application/x-ndjson"));
    let answer = refused(&Try::post(array()).with("content-encoding", "br"), 415, "br");
    assert_eq!(header(&answer, "accept-encoding"), Some("gzip, zstd"));
    refused(&Try::post(array()).with("content-encoding", "gzip, gzip"), 415, "gzip, gzip");
    assert!(header(&answer, "idempotency-key").is_some());
}

#[test]
fn bodies_that_are_too_large_are_refused_before_they_are_read_to_the_end() {
    let announced = Try::post(array()).with("content-length", &(INGEST_BODY_BYTES_MAX + 1).to_string());
    refused(&announced, 413, "larger than 16777216 bytes");
    let mut streamed = Try::post("");
    streamed.body = Pieces::of(&vec![&[b' '; 1 << 20][..]; 20]);
    refused(&streamed, 413, "larger than 16777216 bytes");
    let bomb = zstd::encode_all(&vec![b' '; INGEST_BODY_BYTES_MAX + 1][..], 1).unwrap();
    refused(&Try::post(bomb).with("content-encoding", "zstd"), 413, "when decompressed");
    let many = format!("[{}{{}}]", "{},".repeat(INGEST_RECORDS_MAX));
    refused(&Try::post(many), 413, "more than 100000 records");
}

#[test]
fn bodies_that_do_not_come_are_told_apart() {
    let mut late = Try::post(array());
    late.body.failure = Some(SourceError::TimedOut);
    refused(&late, 408, "in time");
    let mut broken = Try::post(&array()[..20]);
    broken.body.failure = Some(SourceError::BrokeOff("reset".to_owned()));
    refused(&broken, 400, "broke off: reset");
    refused(&Try::post("[").with("content-length", "10"), 400, "1 of 10 bytes came");
}

#[test]
fn a_node_that_is_down_makes_the_request_one_to_be_repeated() {
    let fake = Fake::new(|node, call| {
        if node.authority == "node-2:8081" {
            return Reaction::refused_connection();
        }
        Reaction::stored(call.body.as_ref().unwrap().iter().filter(|byte| **byte == b'\n').count())
    });
    let body: Vec<_> = (0..20).map(|n| format!(r#"{{"service":"s{n}","message":"m"}}"#)).collect();
    let post = Try::post(format!("[{}]", body.join(",")));
    let answer = post.answer_with(&fake, &Config { wal: None, ..two_nodes() }, NOW_MS);
    assert_eq!((answer.status, header(&answer, "retry-after")), (503, Some("1")));
    let key = header(&answer, "idempotency-key").unwrap();
    assert!(!key.is_empty());
    let detail = problem(&answer).detail;
    assert!(detail.contains("partition 2: http://node-2:8081: connection refused"), "{detail}");
    assert!(detail.contains("2 of 4 partitions"), "{detail}");
    assert_eq!(header(&answer, "durability"), None);
}

#[test]
fn an_instance_that_holds_too_much_sends_the_client_away() {
    let (config, budget) = (two_nodes(), crate::budget::Budget::new(100));
    let fake = Fake::storing();
    let context = fake.context(&config, &budget);
    let head = Try::post("").head;
    let mut body = Pieces::of(&[array().as_bytes()]);
    let answer = futures::executor::block_on(ingest(&context, &head, &mut body)).answer;
    assert_eq!((answer.status, header(&answer, "retry-after")), (503, Some("1")));
    assert!(header(&answer, "idempotency-key").is_some());
}

#[test]
fn a_request_asks_for_the_time_once_after_each_wait_that_matters() {
    let fake = Fake::storing();
    let body: Vec<_> = (0..20).map(|n| format!(r#"{{"service":"s{n}","message":"m"}}"#)).collect();
    let answer = Try::post(format!("[{}]", body.join(","))).answer(&fake);
    assert_eq!((answer.status, fake.calls.borrow().len()), (200, 4));
    // For the deadline, and when the store has said that nothing waits.
    assert_eq!(fake.clock_readings.get(), 2);
}
