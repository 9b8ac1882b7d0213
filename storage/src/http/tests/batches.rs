//! Requests of several batches, where partitions differ.

use axum::body::Body;
use axum::extract::State;
use model::Tenant;
use model::batches::{BATCHES, BatchHead, BatchesAnswer};

use super::*;

fn part(partition: u16, lines: &str) -> String {
    let partition = Partition::new(partition);
    let id = BatchId::derive(&Tenant::default(), "k", partition);
    let head = BatchHead { partition, id, digest: BatchDigest::of(lines.as_bytes()), bytes: lines.len() };
    String::from_utf8(head.to_line()).unwrap() + lines
}

#[tokio::test]
async fn a_partition_that_does_not_answer_keeps_no_other_from_being_answered() {
    let dir = tempfile::tempdir().unwrap();
    let urls = ["http://node-0:1".parse().unwrap()];
    let (mut app, indexer, threads) = Node::app(&dir, 0, &urls, TailBounds::default());
    // Whoever would take its batches to the replicas is stuck.
    let (stuck, _waiting) = app.partitions.remove(1).with_proposals();
    app.partitions.push(stuck);
    let app = Arc::new(app);
    let shared = Shared {
        budget: BodyBudget::new(app.body_bytes_max),
        peer_limit: Arc::new(PeerLimit::new(None)),
        readiness: Readiness::default(),
        app: Arc::clone(&app),
    };
    let lines = line(7, "s", "INFO", "m") + "\n";
    let body = Body::from(part(1, &lines) + &part(0, &lines));
    let request = Request::post("/v1/storage/batches").header("content-type", BATCHES).body(body).unwrap();
    let response = super::super::batches::append(State(shared), request).await;
    assert_eq!(response.status(), StatusCode::MULTI_STATUS);
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    let answer: BatchesAnswer = serde_json::from_slice(&answer).unwrap();
    let found = answer.batches.iter().map(|part| (part.partition.get(), part.status, part.retry_after));
    assert_eq!(found.collect::<Vec<_>>(), [(1, 503, Some(1)), (0, 200, None)]);
    assert!(answer.batches[0].body.get().contains("may come to be stored"));
    drop(indexer);
    close(&app, threads).await;
}
