//! One node answers for all: its own records and the others', each once; what a silent node has is named as missing.

use super::*;
use crate::query::{Histogram, ServiceSummary};

const OWN: [(&str, &str); 1] = [("edgelog-scope", "node")];

#[tokio::test]
async fn any_node_answers_for_all_and_each_record_is_told_once() {
    let mut cluster = Cluster::start(3).await;
    let times = cluster.fill(60).await;
    cluster.nodes[1].indexer.catch_up();
    for node in 0..3 {
        let answer = cluster.get(node, "/v1/search?limit=1000", &[]).await;
        assert_eq!((answer.header("partial"), answer.header("next-cursor")), ("", ""));
        assert_eq!(answer.times(), reversed(&times));
        assert!(answer.header("query-stats").contains("segments=6"), "{}", answer.header("query-stats"));
        let own = cluster.get(node, "/v1/search?limit=1000", &OWN).await;
        assert_eq!(own.times().len(), 20, "the scope is this node's records");
        let forward = cluster.get(node, "/v1/search?limit=7&direction=forward", &[]).await;
        assert_eq!(forward.times(), times[..7]);
    }
    let array = cluster.get(0, "/v1/search?limit=3", &[("accept", "application/json")]).await;
    assert_eq!(array.json::<Vec<serde_json::Value>>().len(), 3);
    cluster.stop().await;
}

#[tokio::test]
async fn an_inner_call_is_about_the_partitions_that_it_names() {
    let cluster = Cluster::start(2).await;
    cluster.fill(40).await;
    let share = |list: &'static str| [("edgelog-scope", "node"), ("edgelog-partitions", list)];
    let found = cluster.get(1, "/v1/search?limit=1000", &share("3")).await;
    assert!(found.times().len() == 10 && found.times().iter().all(|time| time % 4 == 3), "{}", found.body);
    let services: Vec<ServiceSummary> = cluster.get(1, "/v1/services", &share("2")).await.json();
    assert_eq!(services.iter().map(|service| &*service.service).collect::<Vec<_>>(), ["service-2"]);
    let histogram: Histogram = cluster.get(1, "/v1/histogram", &share("3")).await.json();
    assert_eq!((histogram.from, histogram.total), (1003, 10));
    let labels: serde_json::Value = cluster.get(1, "/v1/labels", &share("")).await.json();
    assert_eq!(labels, serde_json::json!([]));
    assert_eq!(cluster.get(1, "/v1/services", &share("x")).await.status, StatusCode::BAD_REQUEST);
    // Who asks this node for what it does not hold knows an older state of the cluster.
    let elsewhere = cluster.get(1, "/v1/search", &share("3, 0")).await;
    assert_eq!(elsewhere.status, StatusCode::MISDIRECTED_REQUEST);
    let whole = cluster.get(1, "/v1/search", &[]).await;
    assert_eq!((found.header("edgelog-scope"), whole.header("edgelog-scope")), ("node", "cluster"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_cursor_goes_on_over_all_nodes_without_a_gap_or_a_repetition() {
    let cluster = Cluster::start(2).await;
    let times = cluster.fill(50).await;
    for (direction, expected) in [("backward", reversed(&times)), ("forward", times)] {
        let (mut found, mut cursor, mut node) = (Vec::new(), String::new(), 0);
        loop {
            // Each page is another node's.
            let path = format!("/v1/search?limit=7&fields=meta&direction={direction}&cursor={cursor}");
            let answer = cluster.get(node, &path, &[]).await;
            found.extend(answer.times());
            cursor = answer.header("next-cursor").to_owned();
            node = 1 - node;
            if cursor.is_empty() {
                break;
            }
        }
        assert_eq!(found, expected);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn counts_are_those_of_all_nodes() {
    let cluster = Cluster::start(2).await;
    cluster.fill(60).await;
    let services: Vec<ServiceSummary> = cluster.get(0, "/v1/services", &[]).await.json();
    assert_eq!(services.iter().map(|service| service.records).collect::<Vec<_>>(), [15; 4]);
    assert_eq!(services[0].levels, levels(5, 10));
    assert_eq!((services[3].first, services[3].last), (1003, 1059));
    let part: Vec<ServiceSummary> = cluster.get(1, "/v1/services?from=1010&to=1020", &[]).await.json();
    assert_eq!(part.iter().map(|service| service.records).sum::<u64>(), 10);
    // The extent is that of all nodes: only partition 0 has the first record, only partition 3 the last.
    let histogram: Histogram = cluster.get(0, "/v1/histogram?buckets=6", &[]).await.json();
    assert_eq!((histogram.from, histogram.to, histogram.step, histogram.total), (1000, 1060, 10, 60));
    assert_eq!(histogram.levels, ["INFO", "ERROR"]);
    assert!(histogram.buckets.iter().all(|bucket| bucket.iter().sum::<u64>() == 10), "{histogram:?}");
    let labels: serde_json::Value = cluster.get(0, "/v1/labels", &[]).await.json();
    assert_eq!(labels, serde_json::json!([{"name": "region", "records": 60}]));
    let values: serde_json::Value = cluster.get(0, "/v1/labels/region/values?limit=2", &[]).await.json();
    let expected =
        serde_json::json!([{"value": "service-0", "records": 15}, {"value": "service-1", "records": 15}]);
    assert_eq!(values, expected);
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named_and_nothing_else_is_missing() {
    let mut cluster = Cluster::start(2).await;
    let times = cluster.fill(40).await;
    let dead = cluster.nodes.pop().unwrap();
    let url = dead.url.clone();
    dead.stop().await;
    let here: Vec<u64> = times.iter().copied().filter(|time| time % 4 < 2).collect();
    for path in
        ["/v1/search?limit=1000", "/v1/histogram", "/v1/services", "/v1/labels", "/v1/labels/region/values"]
    {
        let answer = cluster.get(0, path, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let partial = answer.header("partial");
        assert!(partial.contains(&format!("node {url} did not answer")), "{path}: {partial:?}");
        // Named once, however often it was asked.
        assert_eq!(partial.matches("did not answer").count(), 1, "{path}: {partial:?}");
    }
    let answer = cluster.get(0, "/v1/search?limit=1000", &[]).await;
    assert_eq!(answer.times(), reversed(&here));
    let own = cluster.get(0, "/v1/search?limit=1000", &OWN).await;
    assert_eq!((own.header("partial"), own.times().len()), ("", here.len()));
    cluster.stop().await;
}

#[tokio::test]
async fn a_partition_of_another_node_is_read_there() {
    let mut cluster = Cluster::start(2).await;
    cluster.fill(40).await;
    let found = cluster.get(0, "/v1/search?partition=3&limit=2", &[]).await;
    assert_eq!((found.header("partial"), found.times()), ("", vec![1039, 1035]));
    let context = cluster.get(0, "/v1/context?partition=3&offset=5&before=1&after=2", &[]).await;
    assert_eq!(context.times(), [1019, 1023, 1027, 1031]);
    let array = [("accept", "application/json")];
    let context = cluster.get(0, "/v1/context?partition=3&offset=5&before=1&after=2", &array).await;
    assert_eq!(context.json::<Vec<serde_json::Value>>().len(), 4);
    let missing = cluster.get(0, "/v1/context?partition=3&offset=500", &[]).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    for path in ["/v1/search?partition=9", "/v1/histogram?partition=9", "/v1/context?partition=9&offset=0"] {
        assert_eq!(cluster.get(0, path, &[]).await.status, StatusCode::NOT_FOUND, "{path}: nobody holds it");
    }
    cluster.nodes.pop().unwrap().stop().await;
    // Whether there is such a record cannot be told now.
    let silent = cluster.get(0, "/v1/context?partition=3&offset=5", &[]).await;
    assert_eq!(silent.status, StatusCode::BAD_GATEWAY, "{}", silent.body);
    cluster.stop().await;
}
