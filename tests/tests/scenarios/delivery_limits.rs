//! Whatever clients send or hold open, the processes stay within their stated memory (docs/operations.md), and others
//! are served.

use std::io::Write;
use std::net::SocketAddr;

use futures::{StreamExt, stream};
use tests::client::answer;
use tests::records::record;
use tests::{Cluster, ClusterSpec};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Connections that are held open to an ingest, and as many to a storage node.
const IDLE_CONNECTIONS: usize = 5_000;
/// The stated bound of an ingest with so many connections and no large request in hand.
const INGEST_MEMORY_MAX: u64 = 256 << 20;
/// The stated bound of a storage node.
const STORAGE_MEMORY_MAX: u64 = 100 << 20;

/// Opens connections and leaves them so; every other one has sent half of a request's head.
async fn idle(address: SocketAddr) -> Vec<TcpStream> {
    let open = |number: usize| async move {
        let mut connection = TcpStream::connect(address).await.unwrap();
        if number.is_multiple_of(2) {
            connection.write_all(b"POST /v1/logs HTTP/1.1\r\nhost: ").await.unwrap();
        }
        connection
    };
    stream::iter(0..IDLE_CONNECTIONS).map(open).buffer_unordered(64).collect().await
}

fn assert_memory(cluster: &Cluster) {
    let ingest = cluster.ingests[0].process().memory_bytes_max();
    let storage = cluster.nodes.iter().map(|node| node.process().memory_bytes_max()).max().unwrap();
    eprintln!("peaks: ingest {} MiB, storage {} MiB", ingest >> 20, storage >> 20);
    assert!(ingest < INGEST_MEMORY_MAX && storage < STORAGE_MEMORY_MAX, "{ingest} {storage}");
}

#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_memory_and_keep_nobody_out() {
    let connections = (2 * IDLE_CONNECTIONS).to_string();
    let cluster = ClusterSpec::default()
        .node_flag("--connections", &connections)
        .ingest_flag(&["--connections-max", &connections])
        .start()
        .await;
    let ingest: SocketAddr = cluster.ingests[0].url("").trim_start_matches("http://").parse().unwrap();
    let held = futures::join!(idle(ingest), idle(cluster.nodes[0].address()));
    assert_eq!(held.0.len() + held.1.len(), 2 * IDLE_CONNECTIONS);
    let records = ["event_creator", "auth_service"].map(|service| record(service, "beside"));
    cluster.send(&records, "k").await.expect(200);
    assert_eq!(cluster.stored_count().await, 2);
    assert_memory(&cluster);
}

#[tokio::test]
async fn hostile_bodies_one_after_another_and_at_once_stay_within_the_stated_memory() {
    let cluster = ClusterSpec::default().start().await;
    let spaces = vec![b' '; 1 << 20];
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..256).for_each(|_| bomb.write_all(&spaces).unwrap());
    let bomb = bytes::Bytes::from(bomb.finish().unwrap());
    let large = bytes::Bytes::from(vec![b'['; 100 << 20]);
    let nested = large.slice(..1_000_000);
    let post = |body: bytes::Bytes, encoding: &'static str, status: u16| {
        let request =
            cluster.client.post(&cluster.url("/v1/logs")).header("content-type", "application/json");
        let request = request.header("content-encoding", encoding).body(body);
        async move {
            // An instance that is busy with others may send one away.
            let status_got = answer(request).await.unwrap().status;
            assert!(status_got == status || status_got == 503, "{status_got} for {status}");
        }
    };
    for _ in 0..4 {
        futures::join!(
            post(bomb.clone(), "gzip", 413),
            post(bomb.clone(), "gzip", 413),
            post(nested.clone(), "identity", 400),
            post(nested.clone(), "identity", 400),
            post(large.clone(), "identity", 413),
        );
    }
    cluster.send(&[record("event_creator", "after")], "k").await.expect(200);
    assert_eq!(cluster.stored_count().await, 1);
    assert_memory(&cluster);
}
