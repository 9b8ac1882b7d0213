//! What the ingest makes of what shippers send, what it adds, and what a client cannot make it believe.

use std::collections::BTreeMap;

use model::EnrichedRecord;
use model::wire::{self, IngestAnswer};
use serde_json::Value;
use tests::client::answer;
use tests::{Answer, Cluster, ClusterSpec, files};

/// Sends a body, and returns the records that are stored of it, as JSON.
async fn store(cluster: &Cluster, content_type: &str, body: &str) -> Vec<Value> {
    let count = cluster.stored_count().await as usize;
    let request = cluster.client.post(&cluster.url("/v1/logs")).header("content-type", content_type);
    answer(request.body(body.to_owned())).await.unwrap().expect(200);
    let lines = files::lines(&cluster.nodes[0].partition_dir(0));
    lines[count..].iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One node with one partition: everything in the order in which it was sent.
async fn one_partition() -> Cluster {
    ClusterSpec::default().nodes(1).partitions(1).start().await
}

#[tokio::test]
async fn an_array_a_single_object_and_lines_are_all_taken() {
    let cluster = one_partition().await;
    let (a, b) =
        (r#"{"timestamp":1,"service":"a","message":"a"}"#, r#"{"timestamp":2,"service":"b","message":"b"}"#);
    for (content_type, body, messages) in [
        (wire::JSON, format!("[{a},{b}]"), &["a", "b"][..]),
        (wire::JSON, a.to_owned(), &["a"]),
        (wire::JSON, format!("\n\t {a}\r\n "), &["a"]),
        ("", format!("[{b}]"), &["b"]),
        ("application/json; charset=utf-8", a.to_owned(), &["a"]),
        ("Application/JSON", a.to_owned(), &["a"]),
        (wire::NDJSON, format!("{a}\n{b}\n"), &["a", "b"]),
        (wire::NDJSON, format!("{b}\n{a}"), &["b", "a"]),
        (wire::NDJSON, format!("{a}\r\n\r\n{b}\r\n"), &["a", "b"]),
        ("application/jsonl", a.to_owned(), &["a"]),
    ] {
        let stored = store(&cluster, content_type, &body).await;
        let got: Vec<&str> = stored.iter().map(|record| record["message"].as_str().unwrap()).collect();
        assert_eq!(got, messages, "{content_type}: {body}");
    }
}

#[tokio::test]
async fn a_client_that_prefers_no_body_gets_none_unless_there_is_something_to_tell() {
    let cluster = one_partition().await;
    let send = async |body: &'static str| {
        let request = cluster.client.post(&cluster.url("/v1/logs")).header("content-type", wire::JSON);
        answer(request.header("prefer", "return=minimal").body(body)).await.unwrap()
    };
    let minimal = send(r#"[{"message":"a"},{"message":"b"}]"#).await.expect(204);
    assert_eq!(
        (minimal.header("received"), minimal.header("durability"), minimal.text()),
        ("2", "leader", "")
    );
    assert_eq!(minimal.header("preference-applied"), "return=minimal");
    let told: IngestAnswer = send(r#"[{"message":"a"},{"message":1}]"#).await.expect(200).json();
    assert_eq!((told.received, told.rejected.len()), (1, 1));
    assert_eq!(cluster.stored_count().await, 3);
}

#[tokio::test]
async fn what_shippers_leave_out_or_add_is_filled_in_or_kept_as_labels() {
    let cluster = one_partition().await;
    let body = r#"[
        {"message": "bare"},
        {"message": "null", "timestamp": null, "service": null, "level": null, "labels": null},
        {"message": "rfc", "timestamp": "2023-11-14T23:13:20.5+01:00", "service": ""},
        {"message": "extra", "service": "s", "timestamp": 1, "host": "h", "pid": 4711, "ratio": 1.50, "ok": true, "no": null},
        {"message": "deep", "service": "s", "timestamp": 1, "k8s": {"pod": {"name": "p", "labels": {"a.b": "c"}}, "ports": [80, {"x": "y"}]}, "e": {}},
        {"message": "labels", "service": "s", "timestamp": 1, "level": 30, "labels": {"k": "v", "n": 1e2, "o": {"p": "q"}}, "k": "other"}
    ]"#;
    let stored = store(&cluster, wire::JSON, body).await;
    let labels = |record: &Value| -> BTreeMap<String, String> {
        serde_json::from_value(record.get("labels").cloned().unwrap_or(Value::Null)).unwrap_or_default()
    };
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    for bare in &stored[..2] {
        assert_eq!((&bare["timestamp"], &bare["service"]), (&bare["received_at"], &"unknown_service".into()));
        assert!(bare.get("level").is_none_or(Value::is_null) && labels(bare).is_empty(), "{bare}");
    }
    assert_eq!(
        (&stored[2]["timestamp"], &stored[2]["service"]),
        (&1_700_000_000_500_u64.into(), &"unknown_service".into())
    );
    let extra = [("host", "h"), ("no", "null"), ("ok", "true"), ("pid", "4711"), ("ratio", "1.50")];
    assert_eq!(labels(&stored[3]), map(&extra));
    let deep =
        [("e", "{}"), ("k8s.pod.labels.a.b", "c"), ("k8s.pod.name", "p"), ("k8s.ports", r#"[80,{"x":"y"}]"#)];
    assert_eq!(labels(&stored[4]), map(&deep));
    assert_eq!(labels(&stored[5]), map(&[("k", "v"), ("k_2", "other"), ("n", "1e2"), ("o.p", "q")]));
    assert_eq!(stored[5]["level"], "30");
}

#[tokio::test]
async fn a_client_cannot_set_what_the_ingest_adds() {
    let cluster = one_partition().await;
    let body = r#"{"message":"m","received_at":5,"ingested_node_id":"forged","client_ip":"6.6.6.6"}"#;
    let stored = store(&cluster, wire::JSON, body).await;
    let record: EnrichedRecord = serde_json::from_value(stored[0].clone()).unwrap();
    assert!(record.received_at > 1_700_000_000_000);
    assert_eq!((&*record.ingested_node_id, &*record.client_ip), ("ingest-1", "127.0.0.1"));
    // It is not dropped either.
    let label = |name: &str| record.labels.get(name).map(String::as_str);
    assert_eq!(label("received_at"), Some("5"));
    assert_eq!(label("ingested_node_id"), Some("forged"));
    assert_eq!(label("client_ip"), Some("6.6.6.6"));
}

/// The address that a record gets whose request has these headers.
async fn client_ip_of(cluster: &Cluster, headers: &[(&str, &str)]) -> String {
    let mut request = cluster.client.post(&cluster.url("/v1/logs")).header("content-type", wire::JSON);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let _: Answer = answer(request.body(r#"{"message":"m"}"#)).await.unwrap().expect(200);
    let line = files::lines(&cluster.nodes[0].partition_dir(0)).pop().unwrap();
    serde_json::from_str::<EnrichedRecord>(&line).unwrap().client_ip
}

#[tokio::test]
async fn a_stranger_cannot_make_up_its_address() {
    let cluster = one_partition().await;
    for headers in [
        &[][..],
        &[("spin-client-addr", "6.6.6.6:1")],
        &[("spin-client-addr", "6.6.6.6:1"), ("Spin-Client-Addr", "7.7.7.7:1")],
        &[("x-forwarded-for", "6.6.6.6")],
        &[("forwarded", "for=6.6.6.6")],
        &[("x-real-ip", "6.6.6.6")],
    ] {
        assert_eq!(client_ip_of(&cluster, headers).await, "127.0.0.1", "{headers:?}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_tells_whom_it_forwards_for() {
    let cluster = ClusterSpec::default()
        .nodes(1)
        .partitions(1)
        .variable("trusted_proxies", "127.0.0.1,10.0.0.0/8")
        .start()
        .await;
    for (headers, address) in [
        (&[][..], "127.0.0.1"),
        (&[("x-forwarded-for", "1.2.3.4")], "1.2.3.4"),
        // Before the last address that no proxy of ours has, anything may stand.
        (&[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.7")], "1.2.3.4"),
        (&[("forwarded", "for=\"[2001:db8::1]:4711\";proto=https")], "2001:db8::1"),
        (&[("x-forwarded-for", "nonsense")], "unknown"),
        (&[("spin-client-addr", "6.6.6.6:1")], "127.0.0.1"),
    ] {
        assert_eq!(client_ip_of(&cluster, headers).await, address, "{headers:?}");
    }
}
