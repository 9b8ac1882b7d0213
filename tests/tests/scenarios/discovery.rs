//! Who holds what: nodes that know of one another, and ingests that find out.

use std::time::Duration;

use model::wire;
use model::wire::IngestAnswer;
use tempfile::TempDir;
use tests::client::answer;
use tests::records::{SERVICES, json_array, record};
use tests::{Answer, Client, Cluster, ClusterSpec, Ingest, StandIns, eventually};

/// How long it may take until nodes have noticed a change among them.
const NOTICED_MAX: Duration = Duration::from_secs(20);

/// The answer of the node at this place to an append to this partition.
async fn append(cluster: &Cluster, node: usize, partition: u16) -> Answer {
    let url = cluster.nodes[node].url(&format!("/v1/storage?partition={partition}"));
    let line = r#"{"timestamp":1,"service":"s","message":"m","received_at":1,"ingested_node_id":"i","client_ip":"c"}"#;
    answer(cluster.client.post(&url).header("content-type", wire::NDJSON).body(format!("{line}\n")))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_node_that_does_not_hold_a_partition_names_the_one_that_does_while_it_lives() {
    let mut cluster = ClusterSpec::default().nodes(3).partitions(3).ingests(0).peers().start().await;
    let url = cluster.nodes[2].url("");
    let named = async |cluster: &Cluster| {
        let told = append(cluster, 0, 2).await.expect(421);
        assert_eq!(told.problem().field.as_deref(), Some("partition"));
        told.header(wire::LEADER).to_owned()
    };
    let names_it = async || (named(&cluster).await == url).then_some(());
    eventually("the first node names the third", NOTICED_MAX, names_it).await;
    // The third may be heard of before the second.
    let nodes = eventually("the first node has heard of both", NOTICED_MAX, async || {
        let nodes = cluster.described_by(0).await.nodes;
        (nodes.len() == 3 && nodes.iter().all(|node| node.alive)).then_some(nodes)
    });
    let names: Vec<_> = nodes.await.into_iter().map(|node| node.name).collect();
    assert_eq!(names[0], "node-1", "{names:?}");

    cluster.nodes[2].kill();
    let names_nobody = async || named(&cluster).await.is_empty().then_some(());
    eventually("the first node names nobody", NOTICED_MAX, names_nobody).await;
    let nodes = cluster.described_by(0).await.nodes;
    let dead: Vec<_> = nodes.iter().filter(|node| !node.alive).map(|node| node.url.as_str()).collect();
    assert_eq!(dead, [url.as_str()]);

    cluster.nodes[2].start().await;
    let names_it = async || (named(&cluster).await == url).then_some(());
    eventually("the first node names the third again", NOTICED_MAX, names_it).await;
    assert_eq!(append(&cluster, 2, 2).await.status, 200);
}

/// An ingest before nodes that follow a script.
struct Edge {
    nodes: StandIns,
    ingest: Ingest,
    client: Client,
    _dir: TempDir,
}

impl Edge {
    /// Of three nodes the first two are told to the ingest, which may call those of `allowed`.
    async fn start(allowed: impl Fn(&StandIns) -> [String; 3]) -> Self {
        let dir = tempfile::Builder::new().prefix("edgelog-test-").tempdir().unwrap();
        let nodes = StandIns::start(3, 4);
        let variable = |name: &str, value: String| (name.to_owned(), value);
        let [first, second, third] = allowed(&nodes);
        let variables = vec![
            variable("storage_nodes", format!("{},{}", nodes.url(0), nodes.url(1))),
            variable("storage_hosts", first),
            variable("storage_hosts_2", second),
            variable("storage_hosts_3", third),
        ];
        // One instance at a time: what it has learned is there for the next request.
        let mut ingest = Ingest::new(dir.path(), "ingest-1", variables, &[]);
        ingest.start().await;
        Self { nodes, ingest, client: Client::new(), _dir: dir }
    }

    /// The answer to one record of each service: every partition gets some.
    async fn send(&self, message: &str) -> Answer {
        let records = SERVICES.map(|service| record(service, message));
        let request = self.client.post(&self.ingest.url("/v1/logs")).header("content-type", wire::JSON);
        answer(request.header(wire::ACKS, "quorum").body(json_array(&records))).await.unwrap()
    }

    /// How many stored lines have this message.
    fn stored(&self, message: &str) -> usize {
        let wanted = format!("\"message\":\"{message}\"");
        self.nodes.lines().iter().filter(|line| line.contains(&wanted)).count()
    }

    #[track_caller]
    fn assert_stored(&self, answer: Answer, message: &str) {
        assert_eq!(answer.expect(200).header(wire::DURABILITY), "quorum");
        assert_eq!(self.stored(message), SERVICES.len());
    }
}

fn any_port(_: &StandIns) -> [String; 3] {
    ["http://127.0.0.1:*".to_owned(), String::new(), String::new()]
}

#[tokio::test]
async fn an_election_is_waited_for_and_the_new_leader_is_found() {
    let edge = Edge::start(any_port).await;
    edge.assert_stored(edge.send("before").await, "before");
    for gives_hints in [false, true] {
        // The leader is a node that nobody told the ingest of.
        for (number, leader) in [2, 0, 1, 2].into_iter().enumerate() {
            edge.nodes.give_hints(gives_hints);
            edge.nodes.lose_leader();
            let message = format!("{gives_hints}-{number}");
            let looks = edge.nodes.looks();
            let elect = async {
                let is_waiting = async || (edge.nodes.looks() > looks + 2).then_some(());
                eventually("the ingest asks who leads", NOTICED_MAX, is_waiting).await;
                assert_eq!(edge.stored(&message), 0);
                edge.nodes.elect(leader);
            };
            let (answer, ()) = tokio::join!(edge.send(&message), elect);
            edge.assert_stored(answer, &message);
        }
    }
}

#[tokio::test]
async fn a_leader_that_dies_is_replaced_and_those_that_know_are_not_asked_again() {
    let edge = Edge::start(any_port).await;
    edge.assert_stored(edge.send("before").await, "before");
    edge.nodes.kill(0);
    edge.nodes.elect(2);
    edge.assert_stored(edge.send("after").await, "after");
    let (looks, appends) = (edge.nodes.looks(), edge.nodes.appends(1));
    // As many as one instance may serve: an instance that begins has to find out for itself.
    for number in 0..20 {
        edge.assert_stored(edge.send(&format!("later-{number}")).await, &format!("later-{number}"));
    }
    assert!(edge.nodes.looks() - looks <= 4, "{} looks for 20 requests", edge.nodes.looks() - looks);
    assert!(edge.nodes.appends(1) - appends <= 8, "{} appends went astray", edge.nodes.appends(1) - appends);
    let wal: serde_json::Value =
        edge.client.get(&edge.ingest.url("/v1/wal")).await.unwrap().expect(200).json();
    assert_eq!(wal["entries"], 0, "{wal}");
}

#[tokio::test]
async fn a_leader_that_may_not_be_called_is_not_called_and_the_edge_keeps_the_records() {
    let stranger = StandIns::start(1, 4);
    let edge = Edge::start(|nodes| [0, 1, 2].map(|place| nodes.url(place))).await;
    for gives_hints in [true, false] {
        edge.nodes.give_hints(gives_hints);
        edge.nodes.name(&stranger.url(0));
        let message = format!("strange-{gives_hints}");
        let told: IngestAnswer = edge.send(&message).await.expect(202).json();
        assert_eq!((told.queued, edge.stored(&message)), (SERVICES.len(), 0));
        assert_eq!((stranger.appends(0), stranger.looks()), (0, 0));

        edge.nodes.elect(2);
        let is_drained = async || {
            let replay = edge.client.post(&edge.ingest.url("/v1/wal/replay"));
            answer(replay).await.unwrap().expect(200);
            (edge.stored(&message) == SERVICES.len()).then_some(())
        };
        eventually("what waited is stored", NOTICED_MAX, is_drained).await;
    }
    assert_eq!((stranger.appends(0), stranger.looks()), (0, 0));
}
