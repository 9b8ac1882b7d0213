//! The storage daemon's interface, spoken to as the ingest and the tools do.

use model::batches::{BATCHES, BatchAnswer, BatchHead, BatchesAnswer};
use model::wire::{self, AppendAnswer, ClusterAnswer, ReplicaRole, ServiceCount};
use model::{BatchDigest, BatchId, EnrichedRecord, Partition, Problem, Tenant};
use reqwest::RequestBuilder;
use tests::client::answer;
use tests::{Answer, Cluster, ClusterSpec, files};

/// Two nodes of two partitions each, and no ingest.
async fn nodes() -> Cluster {
    ClusterSpec::default().ingests(0).start().await
}

fn enriched(service: &str, message: &str, timestamp: u64) -> EnrichedRecord {
    EnrichedRecord {
        timestamp,
        service: service.to_owned(),
        level: Some("INFO".to_owned()),
        message: message.to_owned(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        received_at: timestamp + 1,
        ingested_node_id: "ingest".to_owned(),
        client_ip: "127.0.0.1".to_owned(),
    }
}

fn lines(records: &[EnrichedRecord]) -> String {
    records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect()
}

fn batch_id(key: &str) -> String {
    BatchId::derive(&Tenant::default(), key, Partition::new(0)).to_string()
}

/// The query, the body, the status, the record at fault, the field or parameter at fault.
type BadAppend = (&'static str, String, u16, Option<usize>, Option<&'static str>);

/// An append of NDJSON to a partition of the first node.
fn append(cluster: &Cluster, partition: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    let url = cluster.nodes[0].url(&format!("/v1/storage{partition}"));
    cluster.client.post(&url).header("content-type", wire::NDJSON).body(body)
}

async fn get(cluster: &Cluster, path: &str) -> Answer {
    cluster.client.get(&cluster.nodes[0].url(path)).await.unwrap()
}

#[tokio::test]
async fn an_append_names_its_offset_and_its_repetition_gets_the_first_answer_again() {
    let cluster = nodes().await;
    let records = [enriched("event_creator", "a\n\u{0}b", 7), enriched("event_creator", "ś", 5)];
    let with_id =
        |body: String, key: &str| append(&cluster, "?partition=0", body).header("batch-id", batch_id(key));
    let first = answer(with_id(lines(&records), "k")).await.unwrap().expect(200);
    assert_eq!(first.header("durability"), "leader");
    assert_eq!(first.json::<AppendAnswer>(), AppendAnswer { stored: 2, offset: Default::default() });

    // As a JSON array, with white space that is not kept.
    let array = serde_json::to_string_pretty(&records).unwrap();
    let url = cluster.nodes[0].url("/v1/storage?partition=0");
    let second = cluster.client.post_json(&url, array).await.unwrap().expect(200);
    assert_eq!(second.json::<AppendAnswer>().offset.get(), 2);

    let again = answer(with_id(lines(&records), "k")).await.unwrap().expect(200);
    assert_eq!(again.json::<AppendAnswer>(), first.json::<AppendAnswer>());
    answer(with_id(lines(&records[..1]), "k")).await.unwrap().expect(409).problem();

    // The digest says what the client sent, whatever the bytes that were made of it.
    let digest = BatchDigest::from_u64(11).to_string();
    let enriched_here = with_id(lines(&records), "d").header("batch-digest", &digest);
    let enriched_there = with_id(lines(&records[1..]), "d").header("batch-digest", &digest);
    answer(enriched_here).await.unwrap().expect(200);
    assert_eq!(answer(enriched_there).await.unwrap().expect(200).json::<AppendAnswer>().stored, 2);

    let text = lines(&records).repeat(3);
    assert_eq!(files::lines(&cluster.nodes[0].partition_dir(0)).join("\n") + "\n", text);
    let stored = cluster.stored().await;
    assert_eq!(stored[&0], [records.clone(), records.clone(), records].concat());
    assert_eq!(cluster.in_files(), stored);
}

#[tokio::test]
async fn a_batch_with_a_fault_is_refused_whole_and_the_answer_names_it() {
    let cluster = nodes().await;
    let good = lines(&[enriched("event_creator", "m", 1)]);
    let without = |field: &str| format!("{good}{}", good.replace(field, "other"));
    let cases: Vec<BadAppend> = vec![
        ("", good.clone(), 400, None, Some("partition")),
        ("?partition=", good.clone(), 400, None, Some("partition")),
        ("?partition=x", good.clone(), 400, None, Some("partition")),
        ("?partition=-1", good.clone(), 400, None, Some("partition")),
        ("?partition=1024", good.clone(), 400, None, Some("partition")),
        ("?partition=0&partition=1", good.clone(), 400, None, Some("partition")),
        ("?partition=0&batch=1", good.clone(), 400, None, Some("batch")),
        ("?partition=2", good.clone(), 421, None, Some("partition")),
        ("?partition=7", good.clone(), 421, None, Some("partition")),
        ("?partition=0", String::new(), 400, None, None),
        ("?partition=0", "\n".to_owned(), 400, Some(0), None),
        ("?partition=0", format!("{good}\n{good}"), 400, Some(1), None),
        ("?partition=0", format!("{good}[]\n"), 400, Some(1), None),
        ("?partition=0", format!("{good}{{\"timestamp\":1"), 400, Some(1), None),
        ("?partition=0", without("timestamp"), 400, Some(1), Some("timestamp")),
        ("?partition=0", without("service"), 400, Some(1), Some("service")),
        ("?partition=0", without("message"), 400, Some(1), Some("message")),
        ("?partition=0", without("received_at"), 400, Some(1), Some("received_at")),
        ("?partition=0", without("ingested_node_id"), 400, Some(1), Some("ingested_node_id")),
        ("?partition=0", without("client_ip"), 400, Some(1), Some("client_ip")),
        ("?partition=0", good.replace("\"m\"", "7"), 400, Some(0), Some("message")),
    ];
    for (query, body, status, index, field) in cases {
        let case = format!("{query} {body}");
        let problem = answer(append(&cluster, query, body)).await.unwrap().problem();
        assert_eq!(
            (problem.status, problem.index, problem.field.as_deref()),
            (status, index, field),
            "{case}"
        );
    }
    assert_eq!(cluster.stored_count().await, 0);
}

/// A batch as it stands in a request of several, under this key.
fn part(partition: u16, key: &str, body: &str) -> String {
    let partition = Partition::new(partition);
    let id = BatchId::derive(&Tenant::default(), key, partition);
    let head = BatchHead { partition, id, digest: BatchDigest::of(body.as_bytes()), bytes: body.len() };
    String::from_utf8(head.to_line()).unwrap() + body
}

/// An append of several batches to the first node.
fn append_together(cluster: &Cluster, body: impl Into<reqwest::Body>) -> RequestBuilder {
    let url = cluster.nodes[0].url("/v1/storage/batches");
    cluster.client.post(&url).header("content-type", BATCHES).body(body)
}

#[tokio::test]
async fn batches_in_one_request_are_stored_each_by_itself_and_once() {
    let cluster = nodes().await;
    let records = [enriched("event_creator", "a", 7), enriched("event_creator", "b", 5)];
    let good = lines(&records);
    let bad = good.replace("\"b\"", "7");
    let body = [part(0, "k", &good), part(1, "k", &bad), part(2, "k", &good)].concat();
    let parts = async |body: String| {
        let whole = answer(append_together(&cluster, body).header("acks", "leader")).await.unwrap();
        let parts = whole.json::<BatchesAnswer>().batches;
        let is_all = parts.iter().all(|part| part.status == 200);
        assert_eq!(whole.status, if is_all { 200 } else { 207 });
        parts
    };
    let found = parts(body).await;
    let statuses: Vec<_> = found.iter().map(|part| (part.partition.get(), part.status)).collect();
    assert_eq!(statuses, [(0, 200), (1, 400), (2, 421)]);
    let stored = |part: &BatchAnswer| serde_json::from_str::<AppendAnswer>(part.body.get()).unwrap();
    assert_eq!(stored(&found[0]), AppendAnswer { stored: 2, offset: Default::default() });
    assert_eq!(found[0].durability.as_deref(), Some("leader"));
    let problem: Problem = serde_json::from_str(found[1].body.get()).unwrap();
    assert_eq!((problem.status, problem.index, problem.field.as_deref()), (400, Some(1), Some("message")));
    let problem: Problem = serde_json::from_str(found[2].body.get()).unwrap();
    assert_eq!((problem.status, problem.field.as_deref()), (421, Some("partition")));

    // What was stored is not stored again, alone or together; under its id nothing else is.
    let again = parts([part(1, "k", &good), part(0, "k", &good)].concat()).await;
    assert_eq!((again[0].status, stored(&again[1])), (200, stored(&found[0])));
    let alone = append(&cluster, "?partition=0", good.clone()).header("batch-id", batch_id("k"));
    let alone = alone.header("batch-digest", BatchDigest::of(good.as_bytes()).to_string());
    assert_eq!(answer(alone).await.unwrap().expect(200).json::<AppendAnswer>(), stored(&found[0]));
    assert_eq!(parts(part(0, "k", &lines(&records[..1]))).await[0].status, 409);
    for partition in [0, 1] {
        assert_eq!(files::lines(&cluster.nodes[0].partition_dir(partition)).join("\n") + "\n", good);
    }
    assert_eq!(cluster.stored_count().await, 4);
}

#[tokio::test]
async fn a_request_that_is_not_one_of_batches_is_refused_whole() {
    let cluster = nodes().await;
    let good = part(0, "k", &lines(&[enriched("event_creator", "m", 1)]));
    for (body, status) in [
        (String::new(), 400),
        ("{}\n".to_owned(), 400),
        (format!("{good}x"), 400),
        (format!("{good}{good}"), 400),
        (good[..good.len() - 1].to_owned(), 400),
        (good.replace("\"batch_id\":\"", "\"batch_id\":\"x"), 400),
    ] {
        let problem = answer(append_together(&cluster, body.clone())).await.unwrap().problem();
        assert_eq!(problem.status, status, "{body}: {}", problem.detail);
    }
    let url = cluster.nodes[0].url("/v1/storage/batches");
    for (url, content_type, acks, status) in [
        (url.clone(), wire::NDJSON, "all", 415),
        (url.clone(), BATCHES, "most", 400),
        (format!("{url}?partition=0"), BATCHES, "all", 400),
    ] {
        let request = cluster.client.post(&url).header("content-type", content_type).header("acks", acks);
        answer(request.body(good.clone())).await.unwrap().expect(status).problem();
    }
    let refused = cluster.client.request("GET", &url);
    assert_eq!(answer(refused).await.unwrap().expect(405).header("allow"), "POST");
    assert_eq!(cluster.stored_count().await, 0);
}

#[tokio::test]
async fn requests_that_are_not_appends_are_told_what_would_be() {
    let cluster = nodes().await;
    let good = lines(&[enriched("event_creator", "m", 1)]);
    let url = cluster.nodes[0].url("/v1/storage?partition=0");
    let post = || cluster.client.post(&url).body(good.clone());
    answer(post()).await.unwrap().expect(415).problem();
    answer(post().header("content-type", "text/plain")).await.unwrap().expect(415).problem();
    for (name, value) in [("batch-id", "k"), ("batch-id", ""), ("batch-digest", "12")] {
        let request = append(&cluster, "?partition=0", good.clone()).header(name, value);
        let problem = answer(request).await.unwrap().expect(400).problem();
        assert_eq!(problem.field.as_deref(), Some(name), "{value:?}");
    }
    let gets = ["/v1/read", "/v1/search", "/v1/services", "/v1/cluster", "/metrics", "/healthz", "/readyz"];
    let mut wrong_methods: Vec<_> =
        gets.iter().flat_map(|path| [("POST", *path), ("DELETE", *path)]).collect();
    wrong_methods.extend(["GET", "PUT", "DELETE", "PATCH", "OPTIONS"].map(|method| (method, "/v1/storage")));
    for (method, path) in wrong_methods {
        let request = cluster.client.request(method, &cluster.nodes[0].url(path)).body("x");
        let refused = answer(request).await.unwrap().expect(405);
        let allow = if path == "/v1/storage" { "POST" } else { "GET, HEAD" };
        assert_eq!(refused.header("allow"), allow, "{method} {path}");
        refused.problem();
    }
    for path in ["/v1/logs", "/v1", "/v1/storage/", "/../etc/passwd", "/%00"] {
        get(&cluster, path).await.expect(404).problem();
    }
    assert_eq!(cluster.stored_count().await, 0);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_costs_no_memory() {
    let cluster = nodes().await;
    let process = cluster.nodes[0].process();
    let before = process.memory_bytes_max();
    let body = bytes::Bytes::from(vec![b' '; 100 << 20]);
    answer(append(&cluster, "?partition=0", body.clone())).await.unwrap().expect(413).problem();
    let grown = process.memory_bytes_max() - before;
    assert!(grown < 8 << 20, "the peak of memory grew by {grown} bytes");
    let pieces = futures::stream::iter(
        (0..100).map(move |place: usize| Ok::<_, std::io::Error>(body.slice(place << 20..(place + 1) << 20))),
    );
    // Without an announced length the limit is met on the way.
    let streamed = append(&cluster, "?partition=0", reqwest::Body::wrap_stream(pieces));
    answer(streamed).await.unwrap().expect(413).problem();
    let grown = process.memory_bytes_max() - before;
    assert!(grown < 70 << 20, "the peak of memory grew by {grown} bytes");
    assert_eq!(cluster.stored_count().await, 0);
}

#[tokio::test]
async fn reads_give_the_last_records_or_a_page_from_an_offset() {
    let cluster = nodes().await;
    let records: Vec<_> = (0..25).map(|n| enriched("event_creator", &n.to_string(), 100 - n)).collect();
    for batch in records.chunks(7) {
        answer(append(&cluster, "?partition=0", lines(batch))).await.unwrap().expect(200);
    }
    let read = async |query: &str| get(&cluster, &format!("/v1/read?{query}")).await.expect(200);
    for limit in [0, 1, 6, 7, 8, 24, 25, 26, 10_000] {
        let last = &records[records.len() - limit.min(records.len())..];
        let got = read(&format!("partition=0&limit={limit}")).await;
        assert_eq!(got.json::<Vec<EnrichedRecord>>(), last, "limit {limit}");
        assert_eq!((got.header("content-type"), got.header("next-offset")), (wire::JSON, "25"));
    }
    for (offset, limit, expected, next) in
        [(0, 3, 0..3, "3"), (5, 9, 5..14, "14"), (24, 9, 24..25, "25"), (99, 9, 25..25, "25")]
    {
        let got = read(&format!("partition=0&offset={offset}&limit={limit}")).await;
        assert_eq!(got.json::<Vec<EnrichedRecord>>(), records[expected], "from {offset}");
        assert_eq!(got.header("next-offset"), next);
    }
    assert_eq!(read("partition=1&limit=5").await.text(), "[]");
    for (query, status, field) in [
        ("limit=5", 400, "partition"),
        ("partition=&limit=5", 400, "partition"),
        ("partition=x&limit=5", 400, "partition"),
        ("partition=0", 400, "limit"),
        ("partition=0&limit=", 400, "limit"),
        ("partition=0&limit=-1", 400, "limit"),
        ("partition=0&limit=1.5", 400, "limit"),
        ("partition=0&limit=99999999999999999999", 400, "limit"),
        ("partition=0&limit=1&offset=x", 400, "offset"),
        ("partition=0&limit=1&limti=1", 400, "limti"),
        ("partition=0&limit=1&consistency=strong", 400, "consistency"),
        ("partition=2&limit=1", 404, "partition"),
    ] {
        let problem = get(&cluster, &format!("/v1/read?{query}")).await.expect(status).problem();
        assert_eq!(problem.field.as_deref(), Some(field), "{query}");
    }
}

#[tokio::test]
async fn searches_give_the_newest_records_that_pass_every_filter() {
    let cluster = nodes().await;
    let levels = ["INFO", "WARN", "ERROR"];
    let record = |n: u64, service: &str| {
        let mut record = enriched(service, &format!("user={n} said \"h\u{e9}llo\""), 1_000 + n);
        record.level = Some(levels[n as usize % levels.len()].to_owned());
        record
    };
    let creators: Vec<_> = (0..30).map(|n| record(2 * n, "event_creator")).collect();
    let allocators: Vec<_> = (0..30).map(|n| record(2 * n + 1, "focus_allocator")).collect();
    answer(append(&cluster, "?partition=0", lines(&creators))).await.unwrap().expect(200);
    answer(append(&cluster, "?partition=1", lines(&allocators))).await.unwrap().expect(200);
    let mut newest_first: Vec<_> = creators.into_iter().chain(allocators).collect();
    newest_first.sort_by_key(|record| std::cmp::Reverse(record.timestamp));

    let check = async |query: &str, limit: usize, passes: &dyn Fn(&EnrichedRecord) -> bool| {
        let found = get(&cluster, &format!("/v1/search?{query}")).await.expect(200);
        assert_eq!((found.header("content-type"), found.header("partial")), (wire::NDJSON, ""));
        let expected: Vec<_> =
            newest_first.iter().filter(|record| passes(record)).take(limit).cloned().collect();
        assert_eq!(found.ndjson::<EnrichedRecord>(), expected, "{query}");
    };
    check("", 100, &|_| true).await;
    check("limit=7", 7, &|_| true).await;
    check("limit=0", 0, &|_| true).await;
    check("service=event_creator&limit=5", 5, &|record| record.service == "event_creator").await;
    check("service=event_creator&service=focus_allocator", 100, &|_| true).await;
    check("service=nobody", 100, &|_| false).await;
    check("level=error", 100, &|record| record.level.as_deref() == Some("ERROR")).await;
    check("contains=user%3D1", 100, &|record| record.message.contains("user=1")).await;
    check("contains=%22h%C3%A9llo%22&level=WARN", 100, &|record| record.level.as_deref() == Some("WARN"))
        .await;
    check("contains=user%3D1&service=focus_allocator&limit=3", 3, &|record| {
        record.message.contains("user=1") && record.service == "focus_allocator"
    })
    .await;
    check("partition=1", 100, &|record| record.service == "focus_allocator").await;

    let request = cluster.client.request("GET", &cluster.nodes[0].url("/v1/search?limit=1"));
    let array = answer(request.header("accept", wire::JSON)).await.unwrap().expect(200);
    assert_eq!(array.json::<Vec<EnrichedRecord>>(), newest_first[..1]);
    for (query, status, field) in [
        ("limit=-1", 400, "limit"),
        ("limit=10001", 400, "limit"),
        ("servce=a", 400, "servce"),
        ("limit=1&limit=2", 400, "limit"),
        ("partition=x", 400, "partition"),
        ("partition=2", 404, "partition"),
    ] {
        let problem = get(&cluster, &format!("/v1/search?{query}")).await.expect(status).problem();
        assert_eq!(problem.field.as_deref(), Some(field), "{query}");
    }
}

#[tokio::test]
async fn a_node_tells_of_its_services_its_partitions_its_health_and_its_metrics() {
    let cluster = nodes().await;
    let services = async || get(&cluster, "/v1/services").await.expect(200).json::<Vec<ServiceCount>>();
    assert_eq!(services().await, []);
    let records = ["b", "a", "b", "ś"].map(|service| enriched(service, "m", 1));
    answer(append(&cluster, "?partition=0", lines(&records))).await.unwrap().expect(200);
    answer(append(&cluster, "?partition=1", lines(&records[..1]))).await.unwrap().expect(200);
    let counts: Vec<_> = services().await.into_iter().map(|count| (count.service, count.records)).collect();
    assert_eq!(counts, [("a", 1), ("b", 3), ("ś", 1)].map(|(service, count)| (service.to_owned(), count)));

    let state: ClusterAnswer = get(&cluster, "/v1/cluster").await.expect(200).json();
    assert_eq!(state.node, "node-1");
    let partitions: Vec<_> = state.partitions.iter().map(|state| state.partition.get()).collect();
    let ends: Vec<_> = state.partitions.iter().map(|state| state.high_watermark.get()).collect();
    assert_eq!((partitions, ends), (vec![0, 1], vec![4, 1]));
    let url = cluster.nodes[0].url("");
    let nodes: Vec<_> =
        state.nodes.iter().map(|node| (node.name.as_str(), node.url.as_str(), node.alive)).collect();
    assert_eq!(nodes, [("node-1", url.as_str(), true)]);
    for state in &state.partitions {
        assert_eq!((state.leader.as_ref(), state.term, state.first_offset.get()), (Some(&url), 0, 0));
        let copies: Vec<_> =
            state.replicas.iter().map(|copy| (&copy.url, copy.role, copy.flushed, copy.lag)).collect();
        assert_eq!(copies, [(&url, ReplicaRole::Leader, state.high_watermark, 0)]);
    }

    for path in ["/healthz", "/readyz"] {
        let health: serde_json::Value = get(&cluster, path).await.expect(200).json();
        assert_eq!(health["status"], "ok", "{path}");
    }
    let metrics = get(&cluster, "/metrics").await.expect(200);
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        "storage_records_total{partition=\"0\"} 4",
        "storage_appends_total{partition=\"1\"} 1",
        "storage_high_watermark{partition=\"0\"} 4",
        "storage_partition_stopped{partition=\"0\"} 0",
    ] {
        assert!(metrics.text().contains(line), "{line} in\n{}", metrics.text());
    }
    assert!(metrics.text().ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_consumer_goes_on_where_it_was_after_a_restart_too() {
    let mut cluster = nodes().await;
    let records = ["a", "b", "c"].map(|message| enriched("event_creator", message, 1));
    answer(append(&cluster, "?partition=0", lines(&records))).await.unwrap().expect(200);
    let offsets = |method: &str, consumer: &str| {
        cluster.client.request(method, &cluster.nodes[0].url(&format!("/v1/offsets/{consumer}")))
    };
    let known =
        async |consumer: &str| answer(offsets("GET", consumer)).await.unwrap().expect(200).text().to_owned();
    assert_eq!(known("exporter").await, "{}");
    let put =
        async |consumer: &str, body: &'static str| answer(offsets("PUT", consumer).body(body)).await.unwrap();
    put("exporter", r#"{"0":2,"1":0}"#).await.expect(204);
    put("exporter", r#"{"0":3}"#).await.expect(204);
    put("other", r#"{"0":1}"#).await.expect(204);
    assert_eq!(
        (known("exporter").await, known("other").await),
        (r#"{"0":3,"1":0}"#.to_owned(), r#"{"0":1}"#.to_owned())
    );
    // Nothing of a request of which a part is at fault.
    for (body, status, field) in [
        (r#"{"0":1,"1":1}"#, 400, "1"),
        (r#"{"0":1,"2":0}"#, 421, "partition"),
        (r#"{"0":-1}"#, 400, "body"),
        ("[]", 400, "body"),
    ] {
        let problem = put("exporter", body).await.expect(status).problem();
        assert_eq!(problem.field.as_deref(), Some(field), "{body}");
    }
    assert_eq!(put("a%20b", "{}").await.expect(400).problem().field.as_deref(), Some("consumer"));
    cluster.nodes[0].kill();
    cluster.nodes[0].start().await;
    let offsets = |method: &str, consumer: &str| {
        cluster.client.request(method, &cluster.nodes[0].url(&format!("/v1/offsets/{consumer}")))
    };
    let known =
        async |consumer: &str| answer(offsets("GET", consumer)).await.unwrap().expect(200).text().to_owned();
    assert_eq!(known("exporter").await, r#"{"0":3,"1":0}"#);
    answer(offsets("DELETE", "exporter")).await.unwrap().expect(204);
    assert_eq!((known("exporter").await, known("other").await), ("{}".to_owned(), r#"{"0":1}"#.to_owned()));
}
