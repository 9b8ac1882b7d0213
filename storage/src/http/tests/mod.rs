//! Several nodes in one process, over real sockets. The harness is here, the scenarios in the modules.

mod batches;
mod fan_out;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use model::{BatchDigest, BatchId, ValidBatch};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

use super::*;
use crate::index::{Indexer, Indexes};
use crate::log::{self, LogOptions, PartitionLog, RealDisk};
use crate::partition::{self, Append, PartitionThread, QueueLimits};
use crate::query::{Pool, TailBounds};

/// Tails that a node serves.
const TAILS: usize = 4;

/// Nodes that know of each other; node `n` holds the partitions `2n` and `2n + 1`.
struct Cluster {
    nodes: Vec<Node>,
    client: Client<HttpConnector, Empty<Bytes>>,
}

struct Node {
    url: String,
    app: Arc<App>,
    indexer: Indexer,
    threads: Vec<PartitionThread>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    _dir: TempDir,
}

/// An answer that was read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Cluster {
    async fn start(count: u16) -> Self {
        Self::start_with(count, TailBounds::default()).await
    }

    async fn start_with(count: u16, tail_bounds: TailBounds) -> Self {
        Self::start_beside(count, tail_bounds, &[]).await
    }

    /// Nodes that are told of these others too.
    async fn start_beside(count: u16, tail_bounds: TailBounds, others: &[Url]) -> Self {
        let options = ServerOptions {
            connections_max: 64,
            header_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(5),
        };
        let address = "127.0.0.1:0".parse().unwrap();
        let servers: Vec<Server> = (0..count).map(|_| Server::bind(address, options).unwrap()).collect();
        // Each is told all URLs, its own among them.
        let own = servers
            .iter()
            .map(|server| format!("http://{}", server.local_address().unwrap()).parse().unwrap());
        let urls: Vec<Url> = own.chain(others.iter().cloned()).collect();
        let nodes = servers
            .into_iter()
            .zip(0..)
            .map(|(server, number)| Node::start(server, number, &urls, tail_bounds));
        Self { nodes: nodes.collect(), client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Asks a node.
    async fn get(&self, node: usize, path_and_query: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(format!("{}{path_and_query}", self.nodes[node].url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Empty::new()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// Stores a batch in a partition, wherever that is.
    async fn append(&self, partition: u16, lines: &[String]) {
        let node = &self.nodes[usize::from(partition / 2)];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let append = Append {
            digest: BatchDigest::of(text.as_bytes()),
            batch: ValidBatch::from_ndjson(Bytes::from(text)).unwrap(),
            id: BatchId::from_bytes(uuid::Uuid::now_v7().into_bytes()),
            id_is_new: true,
            acks: None,
            budget: None,
        };
        node.app.partition(Partition::new(partition)).unwrap().append(append).await.unwrap();
    }

    /// Stores records at these times, a second apart in turn over all partitions; returns their times.
    async fn fill(&self, count: u64) -> Vec<u64> {
        let partitions = 2 * self.nodes.len() as u64;
        for number in 0..count {
            let partition = (number % partitions) as u16;
            let level = if number.is_multiple_of(3) { "ERROR" } else { "info" };
            let line =
                line(1000 + number, &format!("service-{partition}"), level, &format!("record {number}"));
            self.append(partition, &[line]).await;
        }
        (1000..1000 + count).collect()
    }

    async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }
}

impl Node {
    /// What node `number` answers from.
    fn app(
        dir: &TempDir,
        number: u16,
        urls: &[Url],
        tail_bounds: TailBounds,
    ) -> (App, Indexer, Vec<PartitionThread>) {
        let metrics = Metrics::new();
        let indexes = Indexes::new(1 << 20);
        let (mut partitions, mut threads, mut indexed) = (Vec::new(), Vec::new(), Vec::new());
        for partition in [2 * number, 2 * number + 1].map(Partition::new) {
            let path = log::partition_dir(dir.path(), partition);
            let disk = Arc::new(RealDisk);
            let (mut log, _) = PartitionLog::open(disk, &path, partition, LogOptions::default(), 0).unwrap();
            log.publish(log.written_end());
            indexed.push(indexes.partition(log.reader(), log.sidecars()));
            let limits = QueueLimits { bytes_max: 1 << 20, requests_max: 64 };
            let (handle, thread) =
                partition::start(partition, log, limits, metrics.of_partition(partition)).unwrap();
            partitions.push(handle);
            threads.push(thread);
        }
        let indexer = Indexer::new(indexed.iter().cloned(), usize::MAX);
        let app = App {
            cluster: Arc::new(ClusterView::new(format!("node-{number}"), &urls[usize::from(number)], urls)),
            partitions,
            queries: Queries::new(indexed, Pool::new(4)),
            replication: None,
            offsets: Default::default(),
            peers: Peers::new(urls),
            instance: HeaderValue::from_str(&format!("instance-{number}")).unwrap(),
            tails: Tails::new(TAILS, tail_bounds),
            metrics,
            durability: HeaderValue::from_static("leader"),
            body_timeout: Duration::from_secs(5),
            body_bytes_max: 1 << 20,
            peer_bytes_per_second: None,
        };
        (app, indexer, threads)
    }

    fn start(server: Server, number: u16, urls: &[Url], tail_bounds: TailBounds) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (app, indexer, threads) = Self::app(&dir, number, urls, tail_bounds);
        let app = Arc::new(app);
        let url = format!("http://{}", server.local_address().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopping = Arc::clone(&app);
        let serving = server.listen().unwrap().serve(router(Arc::clone(&app)), async move {
            stopped.await.ok();
            stopping.tails.close();
        });
        Self { url, app, indexer, threads, stop: Some(stop), served: tokio::spawn(serving), _dir: dir }
    }

    /// Ends the node. Whoever asks it then finds nobody there.
    async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        self.served.await.unwrap();
        close(&self.app, self.threads).await;
    }
}

/// Ends the partitions.
async fn close(app: &App, threads: Vec<PartitionThread>) {
    app.partitions.iter().for_each(PartitionHandle::close);
    tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| thread.join().unwrap()))
        .await
        .unwrap();
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    /// The timestamps of the records, in order.
    fn times(&self) -> Vec<u64> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        let time = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value.get("record").unwrap_or(&value)["timestamp"].as_u64().unwrap()
        };
        self.body.lines().map(time).collect()
    }
}

fn line(timestamp: u64, service: &str, level: &str, message: &str) -> String {
    format!(
        "{{\"timestamp\":{timestamp},\"service\":\"{service}\",\"level\":\"{level}\",\"message\":\"{message}\",\"labels\":{{\"region\":\"{service}\"}},\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}"
    )
}

fn reversed(times: &[u64]) -> Vec<u64> {
    times.iter().rev().copied().collect()
}

fn levels(error: u64, info: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("ERROR".to_owned(), error), ("INFO".to_owned(), info)])
}
