//! Each bad input that the ingest's contract names, what it answers, and that nothing of it is stored.

use std::io::Write;

use model::wire::{self, IngestAnswer, Rejected};
use reqwest::RequestBuilder;
use tests::client::answer;
use tests::{Answer, Cluster, ClusterSpec};

/// The largest body that is taken, as sent and as decompressed.
const BODY_BYTES_MAX: usize = 16 << 20;
/// What refusing a body may cost the host in bytes, where its length is announced: the buffers of a connection, and a
/// new instance.
const REFUSED_BODY_MEMORY_MAX: u64 = 12 << 20;
/// The same where it is not: as much as is taken, in a buffer that grows, and an instance's other memory.
const REFUSED_STREAM_MEMORY_MAX: u64 = 64 << 20;

fn post(cluster: &Cluster, body: impl Into<reqwest::Body>) -> RequestBuilder {
    cluster.client.post(&cluster.url("/v1/logs")).body(body)
}

async fn post_json(cluster: &Cluster, body: impl Into<reqwest::Body>) -> Answer {
    answer(post(cluster, body).header("content-type", wire::JSON)).await.unwrap()
}

async fn assert_nothing_stored(cluster: &Cluster) {
    assert_eq!(cluster.stored_count().await, 0);
    // And it serves as before.
    post_json(cluster, r#"[{"message":"m"}]"#).await.expect(200);
    assert_eq!(cluster.stored_count().await, 1);
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused_whole() {
    let cluster = ClusterSpec::default().start().await;
    let good = r#"{"message":"m","service":"auth_service"}"#;
    let deep = format!("[{good},{}{}]", "[".repeat(100), "]".repeat(100));
    for body in [
        "",
        " \n",
        "x",
        "{",
        "[",
        "[]",
        " [ ] ",
        "\"text\"",
        "17",
        "null",
        "true",
        &format!("[{good}"),
        &format!("[{good},]"),
        &format!("[{good}] {good}"),
        &format!("[{good}{good}]"),
        &format!("[{good},{{\"message\":\"\u{1}\"}}]"),
        &format!("[{good},{{\"message\":\"m\",}}]"),
        &format!("[{good},{{\"message\":\"m\",\"n\":01}}]"),
        &format!("[{good},{{\"message\":\"\\x\"}}]"),
        &format!("\u{feff}[{good}]"),
        &format!("[{good},NaN]"),
        &deep,
    ] {
        post_json(&cluster, body.to_owned()).await.expect(400).problem();
    }
    let mut not_utf8 = format!("[{good}]").into_bytes();
    not_utf8[13] = 0xff;
    post_json(&cluster, not_utf8).await.expect(400).problem();
    for lines in ["", "\n", "\n\n \n", "x\n"] {
        let request = post(&cluster, lines.to_owned()).header("content-type", wire::NDJSON);
        answer(request).await.unwrap().expect(400).problem();
    }
    assert_nothing_stored(&cluster).await;
}

#[tokio::test]
async fn records_that_are_all_invalid_are_refused_with_the_first_ones_fault() {
    let cluster = ClusterSpec::default().start().await;
    let long = |name: &str, bytes: usize| format!(r#"{{"message":"m","{name}":"{}"}}"#, "x".repeat(bytes));
    let labels: Vec<String> = (0..257).map(|number| format!(r#""k{number}":"v""#)).collect();
    for (record, field) in [
        ("1", ""),
        ("\"text\"", ""),
        ("null", ""),
        ("[]", ""),
        ("{}", "message"),
        (r#"{"message":null}"#, "message"),
        (r#"{"message":7}"#, "message"),
        (r#"{"message":{"a":1}}"#, "message"),
        (r#"{"message":"a","message":"b"}"#, "message"),
        (r#"{"message":"m","timestamp":-1}"#, "timestamp"),
        (r#"{"message":"m","timestamp":1.5}"#, "timestamp"),
        (r#"{"message":"m","timestamp":1e3}"#, "timestamp"),
        (r#"{"message":"m","timestamp":true}"#, "timestamp"),
        (r#"{"message":"m","timestamp":"yesterday"}"#, "timestamp"),
        (r#"{"message":"m","timestamp":"1700000000000"}"#, "timestamp"),
        (r#"{"message":"m","timestamp":"2023-02-30T00:00:00Z"}"#, "timestamp"),
        (r#"{"message":"m","timestamp":253402300800000}"#, "timestamp"),
        (r#"{"message":"m","timestamp":99999999999999999999}"#, "timestamp"),
        (r#"{"message":"m","service":7}"#, "service"),
        (r#"{"message":"m","service":["a"]}"#, "service"),
        (&long("service", 257), "service"),
        (r#"{"message":"m","level":true}"#, "level"),
        (&long("level", 65), "level"),
        (r#"{"message":"m","labels":[]}"#, "labels"),
        (r#"{"message":"m","labels":"k=v"}"#, "labels"),
        (&format!(r#"{{"message":"m","labels":{{{}}}}}"#, labels.join(",")), "labels"),
    ] {
        for body in [format!("[{record}]"), format!("[{record},{record}]")] {
            let problem = post_json(&cluster, body).await.expect(400).problem();
            let field_at_fault = problem.field.unwrap_or_default();
            assert_eq!((problem.index, &*field_at_fault), (Some(0), field), "{record}");
        }
    }
    assert_nothing_stored(&cluster).await;
}

#[tokio::test]
async fn the_valid_records_of_a_request_are_stored_and_the_others_listed() {
    let cluster = ClusterSpec::default().start().await;
    let service = r#""service":"auth_service""#;
    let body = format!(
        r#"[{{"message":"0",{service}}},{{"message":1}},{{"message":"2",{service}}},7,{{"message":"4","timestamp":-1}},{{"message":"5","service":"event_creator"}}]"#
    );
    let listed: Vec<(usize, &str)> = vec![(1, "message"), (3, ""), (4, "timestamp")];
    let check = |answer: Answer| {
        let answer: IngestAnswer = answer.expect(200).json();
        assert!(answer.rejected.iter().all(|rejected| !rejected.error.is_empty()));
        let rejected: Vec<_> =
            answer.rejected.iter().map(|Rejected { index, field, .. }| (*index, &**field)).collect();
        assert_eq!((answer.received, rejected), (3, listed.clone()));
    };
    let key = |request: RequestBuilder| request.header(wire::IDEMPOTENCY_KEY, "partly");
    let request = || key(post(&cluster, body.clone()).header("content-type", wire::JSON));
    check(answer(request()).await.unwrap());
    // A repetition is answered alike, and stores nothing.
    check(answer(request()).await.unwrap());
    let stored = cluster.stored().await;
    let messages: Vec<_> = stored.values().flatten().map(|record| record.message.as_str()).collect();
    assert_eq!(messages, ["5", "0", "2"]);

    // So many that they are counted rather than listed.
    let body = format!("[{}{{\"message\":\"m\"}}]", "0,".repeat(1_000));
    let answer: IngestAnswer = post_json(&cluster, body).await.expect(200).json();
    assert_eq!((answer.received, answer.rejected_total, answer.rejected.len()), (1, Some(1_000), 100));
}

#[tokio::test]
async fn one_bad_line_of_ndjson_costs_no_other() {
    let cluster = ClusterSpec::default().start().await;
    let body = "{\"message\":\"0\"}\n\n{\"message\":\n{\"message\":\"3\"}\r\n7\n{\"message\":\"5\"}";
    let answer = answer(post(&cluster, body).header("content-type", wire::NDJSON)).await.unwrap();
    let answer: IngestAnswer = answer.expect(200).json();
    let rejected: Vec<_> =
        answer.rejected.iter().map(|rejected| (rejected.index, &*rejected.field)).collect();
    // A record's place is its line's, blank ones counted: what an editor shows, less one.
    assert_eq!((answer.received, rejected), (3, vec![(2, ""), (4, "")]));
    let stored = cluster.stored().await;
    let messages: Vec<_> = stored.values().flatten().map(|record| record.message.as_str()).collect();
    assert_eq!(messages, ["0", "3", "5"]);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_before_it_is_read() {
    let cluster = ClusterSpec::default().start().await;
    let good = r#"[{"message":"m"}]"#;
    for content_type in [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "json",
        "application/json; charset=latin1",
    ] {
        let refused = answer(post(&cluster, good).header("content-type", content_type)).await.unwrap();
        refused.expect(415).problem();
    }
    for encoding in ["br", "deflate", "compress", "gzip, gzip", "zstd, gzip", "unknown"] {
        let request =
            post(&cluster, good).header("content-type", wire::JSON).header("content-encoding", encoding);
        answer(request).await.unwrap().expect(415).problem();
    }
    assert_nothing_stored(&cluster).await;
}

#[tokio::test]
async fn compressed_bodies_that_are_damaged_or_swell_too_much_are_refused() {
    let cluster = ClusterSpec::default().start().await;
    let good = br#"[{"message":"m"}]"#;
    let gzipped = gzip(good);
    let zstded = zstd::encode_all(&good[..], 3).unwrap();
    let flipped = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        bytes
    };
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 3].to_vec();
    for (encoding, body) in [
        ("gzip", good.to_vec()),
        ("gzip", Vec::new()),
        ("gzip", cut(&gzipped)),
        ("gzip", flipped(&gzipped)),
        ("gzip", [&gzipped[..], b"garbage"].concat()),
        ("zstd", good.to_vec()),
        ("zstd", Vec::new()),
        ("zstd", cut(&zstded)),
        ("zstd", [&zstded[..], b"garbage"].concat()),
        ("zstd", gzipped.clone()),
    ] {
        let shown = format!("{encoding} {body:?}");
        let request =
            post(&cluster, body).header("content-type", wire::JSON).header("content-encoding", encoding);
        let refused = answer(request).await.unwrap();
        assert_eq!(refused.status, 400, "{shown}: {}", refused.text());
        refused.problem();
    }
    // A few kilobytes that become a gigabyte.
    let before = cluster.ingests[0].process().memory_bytes_max();
    let spaces = vec![b' '; 1 << 20];
    let mut gzip_bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut zstd_bomb = zstd::Encoder::new(Vec::new(), 3).unwrap();
    for _ in 0..256 {
        gzip_bomb.write_all(&spaces).unwrap();
        zstd_bomb.write_all(&spaces).unwrap();
    }
    for (encoding, bomb) in [("gzip", gzip_bomb.finish().unwrap()), ("zstd", zstd_bomb.finish().unwrap())] {
        let request =
            post(&cluster, bomb).header("content-type", wire::JSON).header("content-encoding", encoding);
        answer(request).await.unwrap().expect(413).problem();
    }
    let grown = cluster.ingests[0].process().memory_bytes_max() - before;
    assert!(grown < REFUSED_STREAM_MEMORY_MAX, "the peak of memory grew by {grown} bytes");
    assert_nothing_stored(&cluster).await;
}

#[tokio::test]
async fn a_body_of_the_largest_size_is_taken_and_one_beyond_it_costs_no_memory() {
    let cluster = ClusterSpec::default().start().await;
    let record = br#"[{"message":"m"}]"#;
    let padded = |bytes: usize| [&record[..], &vec![b' '; bytes - record.len()]].concat();
    let before = cluster.ingests[0].process().memory_bytes_max();
    post_json(&cluster, padded(BODY_BYTES_MAX + 1)).await.expect(413).problem();
    let large = bytes::Bytes::from(padded(100 << 20));
    post_json(&cluster, large.clone()).await.expect(413).problem();
    let grown = cluster.ingests[0].process().memory_bytes_max() - before;
    assert!(grown < REFUSED_BODY_MEMORY_MAX, "the peak of memory grew by {grown} bytes");
    // Without an announced length the limit is met on the way.
    let pieces = (0..100)
        .map(move |place: usize| Ok::<_, std::io::Error>(large.slice(place << 20..(place + 1) << 20)));
    let streamed = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    post_json(&cluster, streamed).await.expect(413).problem();
    let grown = cluster.ingests[0].process().memory_bytes_max() - before;
    assert!(grown < REFUSED_STREAM_MEMORY_MAX, "the peak of memory grew by {grown} bytes");
    assert_eq!(cluster.stored_count().await, 0);
    post_json(&cluster, padded(BODY_BYTES_MAX)).await.expect(200);
    assert_eq!(cluster.stored_count().await, 1);
    // 100,000 records are as many as one request may have.
    let many = |count: usize| format!("[{}{{\"message\":\"m\"}}]", "{\"message\":\"m\"},".repeat(count - 1));
    post_json(&cluster, many(100_001)).await.expect(413).problem();
    assert_eq!(cluster.stored_count().await, 1);
}

#[tokio::test]
async fn other_methods_and_paths_are_told_what_there_is() {
    let cluster = ClusterSpec::default().start().await;
    let body = r#"[{"message":"m"}]"#;
    for (path, method, allow) in [
        ("/v1/logs", "PUT", "GET, HEAD, POST"),
        ("/v1/logs", "DELETE", "GET, HEAD, POST"),
        ("/v1/logs", "PATCH", "GET, HEAD, POST"),
        ("/v1/logs", "PROPFIND", "GET, HEAD, POST"),
        ("/v1/query", "POST", "GET, HEAD"),
        ("/v1/query", "DELETE", "GET, HEAD"),
        ("/healthz", "POST", "GET, HEAD"),
    ] {
        let request = cluster.client.request(method, &cluster.url(path)).header("content-type", wire::JSON);
        let refused = answer(request.body(body)).await.unwrap().expect(405);
        let mut allowed: Vec<&str> = refused.header("allow").split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(", "), allow, "{method} {path}");
        refused.problem();
    }
    for path in ["/", "/v1", "/v1/logs/", "/v1/log", "/v2/logs", "/v1/storage?partition=0", "/%2e%2e/etc"] {
        for method in ["GET", "POST"] {
            let request =
                cluster.client.request(method, &cluster.url(path)).header("content-type", wire::JSON);
            answer(request.body(body)).await.unwrap().expect(404).problem();
        }
    }
    let head = answer(cluster.client.request("HEAD", &cluster.url("/healthz"))).await.unwrap().expect(200);
    assert!(head.body.is_empty());
    assert_nothing_stored(&cluster).await;
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let cluster = ClusterSpec::default().start().await;
    for key in ["", &"k".repeat(257)] {
        let request = post(&cluster, r#"[{"message":"m"}]"#).header("content-type", wire::JSON);
        let refused = answer(request.header(wire::IDEMPOTENCY_KEY, key)).await.unwrap();
        assert_eq!(
            refused.expect(400).problem().field.as_deref(),
            Some(wire::IDEMPOTENCY_KEY),
            "{}",
            key.len()
        );
    }
    assert_nothing_stored(&cluster).await;
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}
