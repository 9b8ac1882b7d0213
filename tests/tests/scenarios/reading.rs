//! Reading back through the ingest, over all nodes.

use std::cmp::Reverse;

use model::wire;
use model::{EnrichedRecord, Record};
use tests::client::answer;
use tests::records::{SERVICES, record};
use tests::{Answer, Cluster, ClusterSpec};

async fn get(cluster: &Cluster, path_and_query: &str) -> Answer {
    cluster.client.get(&cluster.url(path_and_query)).await.unwrap()
}

/// Records of all services, so that each lies between others, in the order in which they were sent.
fn corpus() -> Vec<Record> {
    let make = |number: usize| {
        let mut record = record(SERVICES[number % SERVICES.len()], &format!("user={number} said \"héllo\""));
        record.timestamp += number as u64;
        record.level = [Some("INFO"), Some("WARN"), None][number / SERVICES.len() % 3].map(str::to_owned);
        record
    };
    (0..120).map(make).collect()
}

fn plain(records: Vec<EnrichedRecord>) -> Vec<Record> {
    records.into_iter().map(EnrichedRecord::into_record).collect()
}

#[tokio::test]
async fn a_query_gives_the_last_records_of_its_service_oldest_first() {
    let cluster = ClusterSpec::default().start().await;
    assert_eq!(get(&cluster, "/v1/query?service=auth_service&limit=5").await.expect(200).text(), "[]");
    let corpus = corpus();
    for (number, batch) in corpus.chunks(17).enumerate() {
        cluster.send(batch, &format!("batch-{number}")).await.expect(200);
    }
    for service in SERVICES {
        let all: Vec<Record> = corpus.iter().filter(|record| record.service == service).cloned().collect();
        for limit in [0, 1, 7, all.len(), 10_000] {
            let path = format!("/v1/query?service={service}&limit={limit}");
            let answer = get(&cluster, &path).await.expect(200);
            assert_eq!(answer.header("content-type"), wire::JSON);
            assert_eq!(plain(answer.json()), all[all.len() - limit.min(all.len())..], "{path}");
        }
    }
    // Only its own, though others share its partition.
    assert_eq!(get(&cluster, "/v1/query?service=nobody&limit=100").await.expect(200).text(), "[]");
    for query in [
        "service=auth_service",
        "service=auth_service&limit=",
        "service=auth_service&limit=-1",
        "service=auth_service&limit=x",
        "service=auth_service&limit=1.5",
        "service=auth_service&limit=99999999999999999999",
    ] {
        let problem = get(&cluster, &format!("/v1/query?{query}")).await.expect(400).problem();
        assert_eq!(problem.field.as_deref(), Some("limit"), "{query}");
    }
}

#[tokio::test]
async fn logs_are_the_newest_of_all_nodes_that_pass_every_filter() {
    let cluster = ClusterSpec::default().peers().start().await;
    assert_eq!(get(&cluster, "/v1/logs").await.expect(200).text(), "");
    let corpus = corpus();
    for (number, batch) in corpus.chunks(23).enumerate() {
        cluster.send(batch, &format!("batch-{number}")).await.expect(200);
    }
    let mut newest_first = corpus;
    newest_first.sort_by_key(|record| Reverse(record.timestamp));
    let check = async |query: &str, limit: usize, passes: &dyn Fn(&Record) -> bool| {
        let answer = get(&cluster, &format!("/v1/logs?{query}")).await.expect(200);
        assert_eq!((answer.header("content-type"), answer.header("partial")), (wire::NDJSON, ""), "{query}");
        let expected: Vec<Record> =
            newest_first.iter().filter(|record| passes(record)).take(limit).cloned().collect();
        assert_eq!(plain(answer.ndjson()), expected, "{query}");
    };
    check("", 100, &|_| true).await;
    check("limit=0", 0, &|_| true).await;
    check("limit=7", 7, &|_| true).await;
    check("limit=10000", 10_000, &|_| true).await;
    check("service=auth_service&limit=5", 5, &|record| record.service == "auth_service").await;
    check("service=%C5%9Bluza-7", 100, &|record| record.service == "śluza-7").await;
    check("level=warn", 100, &|record| record.level.as_deref() == Some("WARN")).await;
    check("contains=user%3D1", 100, &|record| record.message.contains("user=1")).await;
    check("contains=h%C3%A9llo%22&level=INFO&service=event_creator", 100, &|record| {
        record.level.as_deref() == Some("INFO") && record.service == "event_creator"
    })
    .await;
    check("service=nobody", 100, &|_| false).await;

    // Any storage node answers for all.
    for node in &cluster.nodes {
        let found = cluster.client.get(&node.url("/v1/search?limit=10000")).await.unwrap().expect(200);
        assert_eq!((found.header("partial"), plain(found.ndjson())), ("", newest_first.clone()));
    }

    let request =
        cluster.client.request("GET", &cluster.url("/v1/logs?limit=3")).header("accept", wire::JSON);
    let array = answer(request).await.unwrap().expect(200);
    assert_eq!((array.header("content-type"), plain(array.json())), (wire::JSON, newest_first[..3].to_vec()));
    for (query, field) in [
        ("limit=-1", "limit"),
        ("limit=10001", "limit"),
        ("limit=x", "limit"),
        ("servce=a", "servce"),
        ("limit=1&limit=2", "limit"),
    ] {
        let problem = get(&cluster, &format!("/v1/logs?{query}")).await.expect(400).problem();
        assert_eq!(problem.field.as_deref(), Some(field), "{query}");
    }
}

#[tokio::test]
async fn an_answer_that_lacks_a_node_says_so() {
    let mut cluster = ClusterSpec::default().peers().start().await;
    let corpus = corpus();
    cluster.send(&corpus, "k").await.expect(200);
    cluster.nodes[1].kill();
    let here = |record: &&Record| {
        ["event_creator", "focus_allocator", "unknown_service"].contains(&&*record.service)
    };
    let mut expected: Vec<Record> = corpus.iter().filter(here).cloned().collect();
    expected.sort_by_key(|record| Reverse(record.timestamp));
    let answer = get(&cluster, "/v1/logs?limit=1000").await.expect(200);
    let dead = format!("node {} did not answer", cluster.nodes[1].url(""));
    assert!(answer.header("partial").contains(&dead), "{:?}", answer.header("partial"));
    assert_eq!(plain(answer.ndjson()), expected);

    // What does not need the dead node is whole; what needs it alone cannot be answered.
    let whole = get(&cluster, "/v1/query?service=event_creator&limit=1000").await.expect(200);
    assert_eq!((whole.header("partial"), plain(whole.json()).len()), ("", 20));
    get(&cluster, "/v1/query?service=auth_service&limit=1000").await.expect(503).problem();
}
