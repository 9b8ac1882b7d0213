//! A cluster: storage nodes with their partitions, and ingests that know them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use model::wire::ClusterAnswer;
use model::{EnrichedRecord, Record};
use serde_json::Value;
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::client::{Answer, Client, answer};
use crate::files;
use crate::ingest::Ingest;
use crate::isolated::{Cable, Network};
use crate::node::Node;
use crate::proxy::Proxy;
use crate::records;
use crate::wait::eventually;

/// How long the entries of an edge WAL may take to storage that is there.
const WAL_EMPTY_MAX: Duration = Duration::from_secs(20);

/// The file with the nodes' secret.
const SECRET: &str = "secret";

/// What each partition holds, in order.
pub type Stored = BTreeMap<u16, Vec<EnrichedRecord>>;

/// A cluster to be started: 4 partitions on 2 storage nodes and one ingest unless it says otherwise.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    nodes: usize,
    ingests: usize,
    partitions: u16,
    node_flags: Vec<String>,
    variables: Vec<(String, String)>,
    ingest_flags: Vec<String>,
    has_proxies: bool,
    is_notified: bool,
    has_peers: bool,
    has_certificates: bool,
    replicas: usize,
    cables: Vec<Cable>,
    disks: BTreeMap<usize, PathBuf>,
    other_program: Option<PathBuf>,
    found_data: Option<PathBuf>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            nodes: 2,
            ingests: 1,
            partitions: 4,
            node_flags: Vec::new(),
            variables: Vec::new(),
            ingest_flags: Vec::new(),
            has_proxies: false,
            is_notified: false,
            has_peers: false,
            has_certificates: false,
            replicas: 1,
            cables: Vec::new(),
            disks: BTreeMap::new(),
            other_program: None,
            found_data: None,
        }
    }
}

impl ClusterSpec {
    /// So many storage nodes.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// So many ingests, named `ingest-1` and so on.
    #[must_use]
    pub fn ingests(mut self, ingests: usize) -> Self {
        self.ingests = ingests;
        self
    }

    /// So many partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = partitions;
        self
    }

    /// A flag of every storage node.
    #[must_use]
    pub fn node_flag(mut self, name: &str, value: &str) -> Self {
        self.node_flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// A variable of every ingest.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A flag of every ingest's host.
    #[must_use]
    pub fn ingest_flag(mut self, flag: &[&str]) -> Self {
        self.ingest_flags.extend(flag.iter().map(|part| (*part).to_owned()));
        self
    }

    /// The ingests reach each node through a [`Proxy`].
    #[must_use]
    pub fn proxies(mut self) -> Self {
        self.has_proxies = true;
        self
    }

    /// The nodes tell the ingests when they are ready.
    #[must_use]
    pub fn notified(mut self) -> Self {
        self.is_notified = true;
        self
    }

    /// So many copies of each partition, of nodes that know one another.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self.peers().node_flag("--replicas", &replicas.to_string())
    }

    /// Each node in a network of its own.
    #[must_use]
    pub fn network(mut self, network: &Network) -> Self {
        self.cables = network.cables();
        self
    }

    /// The node at this place has its data in this directory.
    #[must_use]
    pub fn disk_of(mut self, node: usize, dir: &Path) -> Self {
        self.disks.insert(node, dir.to_owned());
        self
    }

    /// The nodes run this program instead of the one that is tested, until they are upgraded.
    #[must_use]
    pub fn other_program(mut self, program: &Path) -> Self {
        self.other_program = Some(program.to_owned());
        self
    }

    /// The nodes find their data directories as they are below this one, by their names.
    #[must_use]
    pub fn found_data(mut self, dir: &Path) -> Self {
        self.found_data = Some(dir.to_owned());
        self
    }

    /// The nodes know one another.
    #[must_use]
    pub fn peers(mut self) -> Self {
        self.has_peers = true;
        self
    }

    /// The nodes talk to one another by TLS, with certificates of an authority of their own.
    #[must_use]
    pub fn certificates(mut self) -> Self {
        self.has_certificates = true;
        self
    }

    /// Starts everything and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(self) -> Cluster {
        let mut cluster = self.start_nodes().await;
        join_all(cluster.ingests.iter_mut().map(Ingest::start)).await;
        cluster
    }

    /// Starts everything and waits until the nodes are ready and the ingests listen, be they healthy or not.
    ///
    /// # Panics
    /// When they do not.
    pub async fn start_serving(self) -> Cluster {
        let mut cluster = self.start_nodes().await;
        join_all(cluster.ingests.iter_mut().map(Ingest::start_serving)).await;
        cluster
    }

    async fn start_nodes(self) -> Cluster {
        let dir = tempfile::Builder::new().prefix("edgelog-test-").tempdir().unwrap();
        let mut nodes = self.make_nodes(dir.path());
        let mut urls: Vec<String> = nodes.iter().map(|node| node.url("")).collect();
        if !self.cables.is_empty() || self.has_certificates {
            // Whoever is on the network, or has a certificate, could talk to them.
            let secret = dir.path().join(SECRET);
            std::fs::write(&secret, "what only the nodes of this test know\n".replace(' ', "-")).unwrap();
            let secret = secret.display().to_string();
            nodes.iter_mut().for_each(|node| node.add_flag("--cluster-secret-file", &secret));
        }
        let authority = self.has_certificates.then(|| Authority::new(&dir.path().join("certificates")));
        if let Some(authority) = &authority {
            for node in &mut nodes {
                let flags = authority.flags(node.name(), &node.address().ip().to_string());
                flags.iter().for_each(|(name, value)| node.add_flag(name, value));
            }
        }
        if self.has_peers {
            nodes.iter_mut().for_each(|node| node.add_flag("--peers", &urls.join(",")));
        }
        let mut proxies = Vec::new();
        if self.has_proxies {
            proxies = join_all(nodes.iter().map(|node| Proxy::start(node.address()))).await;
            urls = proxies.iter().map(Proxy::url).collect();
        }
        join_all(nodes.iter_mut().map(Node::start)).await;
        let ingests = self.make_ingests(dir.path(), &urls);
        if self.is_notified {
            // From their next start on: at this one there is nobody to tell yet.
            for node in &mut nodes {
                ingests.iter().for_each(|ingest| node.add_flag("--notify-ingest", &ingest.url("")));
            }
        }
        Cluster {
            nodes,
            ingests,
            proxies,
            client: Client::new(),
            partitions: self.partitions,
            replicas: self.replicas,
            authority,
            dir,
        }
    }

    fn make_nodes(&self, dir: &Path) -> Vec<Node> {
        let numbers: Vec<u16> = (0..self.partitions).collect();
        let run = numbers.len().div_ceil(self.nodes);
        let runs: Vec<&[u16]> = match self.replicas {
            1 => numbers.chunks(run).collect(),
            // The nodes agree among themselves.
            _ => vec![&numbers; self.nodes],
        };
        assert_eq!(runs.len(), self.nodes, "every node has partitions");
        let named = (1..).map(|number| format!("node-{number}")).zip(runs);
        let mut cables = self.cables.iter().cloned();
        named
            .enumerate()
            .map(|(place, (name, run))| {
                let mut node = Node::new(dir, &name, run.to_vec(), &self.node_flags);
                if let Some(disk) = self.disks.get(&place) {
                    node = node.with_data_in(disk);
                }
                if let Some(program) = &self.other_program {
                    node = node.with_program(program);
                }
                if let Some(found) = &self.found_data {
                    files::copy_dir(&found.join(&name), node.data_dir());
                }
                if let Some(cable) = cables.next() { node.at(cable) } else { node }
            })
            .collect()
    }

    fn make_ingests(&self, dir: &Path, urls: &[String]) -> Vec<Ingest> {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut variables = vec![
            variable("storage_nodes", &urls.join(",")),
            variable(
                "storage_hosts",
                if self.cables.is_empty() { "http://127.0.0.1:*" } else { "http://*:*" },
            ),
            variable("partitions", &self.partitions.to_string()),
        ];
        variables.extend(self.variables.iter().cloned());
        let names = (1..=self.ingests).map(|number| format!("ingest-{number}"));
        names.map(|name| Ingest::new(dir, &name, variables.clone(), &self.ingest_flags)).collect()
    }
}

/// A cluster that runs, all of it or what a test has left of it.
#[derive(Debug)]
pub struct Cluster {
    /// The ingests.
    pub ingests: Vec<Ingest>,
    /// The storage nodes.
    pub nodes: Vec<Node>,
    /// The proxies before the nodes, if there are any.
    pub proxies: Vec<Proxy>,
    /// A client for the test itself.
    pub client: Client,
    partitions: u16,
    replicas: usize,
    authority: Option<Authority>,
    // Removed after the processes have ended.
    dir: TempDir,
}

impl Cluster {
    /// How many partitions there are.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// How many copies there are of each.
    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// Who signs the nodes' certificates.
    ///
    /// # Panics
    /// When they have none.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().unwrap()
    }

    /// The file with the nodes' secret, where they have certificates or talk over a network.
    pub fn secret_file(&self) -> PathBuf {
        self.dir.path().join(SECRET)
    }

    /// A directory for what a test itself writes; it is removed with the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A URL of the first ingest: `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        self.ingests[0].url(path)
    }

    /// What the edge WAL of the ingest at this place holds, as it says itself.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn wal(&self, ingest: usize) -> Value {
        self.client.get(&self.ingests[ingest].url("/v1/wal")).await.unwrap().expect(200).json()
    }

    /// Asks all ingests to replay until none of them holds anything.
    ///
    /// # Panics
    /// When something is left, or was set aside.
    pub async fn drain_wals(&self) {
        for (place, ingest) in self.ingests.iter().enumerate() {
            let url = ingest.url("/v1/wal/replay");
            let is_empty = async || {
                let answer: Value = answer(self.client.post(&url)).await.unwrap().expect(200).json();
                (answer["left"]["entries"] == 0).then_some(())
            };
            eventually("the edge WAL is empty", WAL_EMPTY_MAX, is_empty).await;
            assert_eq!(self.wal(place).await["set_aside"], 0, "nothing is set aside");
        }
    }

    /// What the node at this place knows of the cluster.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn described_by(&self, node: usize) -> ClusterAnswer {
        self.client.get(&self.nodes[node].url("/v1/cluster")).await.unwrap().expect(200).json()
    }

    /// The place in [`Self::nodes`] of the node that holds a partition.
    pub fn holder_of(&self, partition: u16) -> usize {
        self.nodes.iter().position(|node| node.partitions().contains(&partition)).unwrap()
    }

    /// The place in [`Self::nodes`] of the node that holds a service's records.
    pub fn holder_of_service(&self, service: &str) -> usize {
        self.holder_of(records::partition_of(service, self.partitions))
    }

    /// The first ingest's answer to these records, sent as one JSON array under this key.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(&self, records: &[Record], key: &str) -> Answer {
        self.send_to(0, records, key).await
    }

    /// As [`Self::send`], to the ingest at this place.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send_to(&self, ingest: usize, records: &[Record], key: &str) -> Answer {
        let request = self.client.post(&self.ingests[ingest].url("/v1/logs"));
        let request =
            request.header("content-type", model::wire::JSON).header(model::wire::IDEMPOTENCY_KEY, key);
        answer(request.body(records::json_array(records))).await.unwrap()
    }

    /// All that the running nodes hold, read over HTTP.
    ///
    /// # Panics
    /// When a node does not answer with records.
    pub async fn stored(&self) -> Stored {
        let mut stored = Stored::new();
        for node in &self.nodes {
            for partition in node.partitions() {
                let url = node.url(&format!("/v1/read?partition={partition}&limit={}", u64::MAX));
                let request = self.client.request("GET", &url).header("accept", model::wire::NDJSON);
                let records = answer(request).await.unwrap().expect(200).ndjson();
                assert!(stored.insert(*partition, records).is_none(), "partition {partition} has one holder");
            }
        }
        stored
    }

    /// How many records the running nodes hold, as they say themselves.
    ///
    /// # Panics
    /// When a node does not answer.
    pub async fn stored_count(&self) -> u64 {
        let mut count = 0;
        for node in 0..self.nodes.len() {
            let answer = self.described_by(node).await;
            count += answer.partitions.iter().map(|state| state.high_watermark.get()).sum::<u64>();
        }
        count
    }

    /// All that is in the nodes' files, whether the nodes run or not.
    ///
    /// # Panics
    /// When a file holds anything but one enriched record on each line.
    pub fn in_files(&self) -> Stored {
        let of_node = |node: &Node| -> Vec<(u16, Vec<EnrichedRecord>)> {
            node.partitions()
                .iter()
                .map(|number| (*number, files::records(&node.partition_dir(*number))))
                .collect()
        };
        self.nodes.iter().flat_map(of_node).collect()
    }
}
