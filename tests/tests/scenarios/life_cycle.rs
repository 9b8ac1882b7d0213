//! Starts and stops: nothing that was taken is lost or left without an answer, and nobody is asked too early or too late.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use model::EnrichedRecord;
use rustix::process::Signal;
use tests::client::{Client, answer};
use tests::records::partition_of;
use tests::{Cluster, ClusterSpec, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(10);

fn enriched(message: &str) -> String {
    format!(
        "{{\"timestamp\":1,\"service\":\"s\",\"message\":\"{message}\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
    )
}

fn messages(records: &[EnrichedRecord]) -> Vec<&str> {
    records.iter().map(|record| record.message.as_str()).collect()
}

/// A connection on which the head of a `POST` and the first half of its body were sent, and have arrived.
struct HalfSent {
    stream: TcpStream,
    rest: String,
}

impl HalfSent {
    async fn send(address: SocketAddr, target: &str, content_type: &str, body: &str) -> Self {
        let (first, rest) = body.split_at(body.len() / 2);
        let length = body.len();
        // The server answers the expectation when it wants the body: from there on the request is under way.
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(first.as_bytes()).await.unwrap();
        Self { stream, rest: rest.to_owned() }
    }

    /// Sends the rest; returns all of the answer, after which the server closes the connection.
    async fn finish(mut self) -> String {
        self.stream.write_all(self.rest.as_bytes()).await.unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

async fn refuses_connections(address: SocketAddr) {
    eventually("no connection is taken", SOON, async || TcpStream::connect(address).await.err()).await;
}

#[tokio::test]
async fn a_storage_node_that_is_told_to_stop_answers_what_is_under_way_and_closes_its_log() {
    let mut cluster = ClusterSpec::default().nodes(1).ingests(0).start().await;
    let address = cluster.nodes[0].address();
    let slow =
        HalfSent::send(address, "/v1/storage?partition=0", model::wire::NDJSON, &enriched("slow")).await;
    cluster.nodes[0].process().signal(Signal::TERM);
    refuses_connections(address).await;
    let answer = slow.finish().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"stored\":1"), "{answer}");
    assert!(cluster.nodes[0].stop().await.success());
    assert!(cluster.nodes[0].partition_dir(0).join("closed").is_file(), "the next start need not recover");
    assert_eq!(messages(&cluster.in_files()[&0]), ["slow"]);
}

/// Appends batches of one record until one is not taken; returns those that were.
async fn append_until_refused(client: Client, url: String, appender: usize) -> Vec<String> {
    let mut acked = Vec::new();
    for number in 0.. {
        let message = format!("{appender}-{number}");
        let request = client.post(&url).header("content-type", model::wire::NDJSON).body(enriched(&message));
        match answer(request).await {
            Ok(answer) if answer.status == 200 => acked.push(message),
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.text());
                return acked;
            }
            // It was not taken at all: the node listens no more.
            Err(error) => {
                assert!(error.is_connect() || error.is_request(), "{error:?}");
                return acked;
            }
        }
    }
    acked
}

#[tokio::test]
async fn a_storage_node_stopped_under_load_stores_exactly_what_it_acked() {
    let mut cluster = ClusterSpec::default().nodes(1).ingests(0).start().await;
    let url = cluster.nodes[0].url("/v1/storage?partition=0");
    // Each its own connection.
    let appenders: Vec<_> = (0..16)
        .map(|appender| tokio::spawn(append_until_refused(Client::new(), url.clone(), appender)))
        .collect();
    eventually("records are stored", SOON, async || (cluster.stored_count().await > 200).then_some(())).await;
    assert!(cluster.nodes[0].stop().await.success());
    let mut acked: Vec<String> = join_all(appenders).await.into_iter().flat_map(Result::unwrap).collect();
    let files = cluster.in_files();
    let mut stored = messages(&files[&0]);
    acked.sort_unstable();
    stored.sort_unstable();
    assert_eq!(stored, acked, "nothing is lost, and nothing was left without an answer");
}

#[tokio::test]
async fn an_ingest_that_is_told_to_stop_answers_what_is_under_way() {
    let mut cluster = ClusterSpec::default().start().await;
    let address: SocketAddr = cluster.url("").trim_start_matches("http://").parse().unwrap();
    // Larger than what the host gathers before it asks the component, and of one service.
    let message = "m".repeat(1 << 20);
    let body = format!(
        "[{{\"service\":\"s\",\"message\":\"{message}\"}},{{\"service\":\"s\",\"message\":\"end\"}}]"
    );
    let slow = HalfSent::send(address, "/v1/logs", model::wire::JSON, &body).await;
    cluster.ingests[0].process().signal(Signal::TERM);
    refuses_connections(address).await;
    let answer = slow.finish().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("{\"received\":2}"), "{answer}");
    assert!(cluster.ingests[0].stop().await.success());
    let stored = cluster.stored().await;
    assert_eq!(messages(&stored[&partition_of("s", 4)]), [message.as_str(), "end"]);
}

async fn leaves_while_it_serves(cluster: &Cluster, url: impl Fn(&str) -> String) {
    let status = async |path: &str| cluster.client.get(&url(path)).await.unwrap().status;
    eventually("/readyz says no", SOON, async || (status("/readyz").await == 503).then_some(())).await;
    // New connections are taken all the same.
    let fresh = Client::new().get(&url("/healthz")).await.unwrap();
    assert_eq!(fresh.status, 200);
}

#[tokio::test]
async fn with_a_drain_a_node_says_that_it_leaves_while_it_still_serves() {
    let spec = ClusterSpec::default().node_flag("--drain", "3s").ingest_flag(&["--drain-ms", "3000"]);
    let mut cluster = spec.nodes(1).start().await;
    cluster.nodes[0].process().signal(Signal::TERM);
    leaves_while_it_serves(&cluster, |path| cluster.nodes[0].url(path)).await;
    cluster.ingests[0].process().signal(Signal::TERM);
    leaves_while_it_serves(&cluster, |path| cluster.ingests[0].url(path)).await;
    assert!(cluster.nodes[0].stop().await.success());
    assert!(cluster.ingests[0].stop().await.success());
}
