//! What a node does among the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use openraft::{ChangeMembers, RaftMetrics};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::client::NodeClient;
use super::super::members::{change, replace};
use super::super::types::{Member, NodeId};
use super::super::{
    Cluster, ClusterParts, Directory, HexId, Identity, Introduced, Introduction, NodeCard, Own, Secret,
    Timing, read_known,
};
use super::net::{ELECTION, Net, Running};
use crate::limits;
use crate::log::RealDisk;
use crate::log::tests::random::Random;
use crate::log::tests::sim_disk::SimDisk;
use crate::outbound::Scheme;
use crate::tls::NodeTls;
use crate::tls::tests::{Authority, Served};

/// Node 1 of cluster 5, which has no partitions.
fn cluster(data: &Path, directory: Directory, secret: Secret) -> Cluster {
    cluster_of(Some(HexId(5)), data, directory, secret)
}

fn cluster_of(cluster: Option<HexId>, data: &Path, directory: Directory, secret: Secret) -> Cluster {
    let client = NodeClient::new(secret.clone(), None);
    cluster_by(client, cluster, data, directory, secret)
}

fn cluster_by(
    client: NodeClient,
    cluster: Option<HexId>,
    data: &Path,
    directory: Directory,
    secret: Secret,
) -> Cluster {
    Cluster::new(ClusterParts {
        own: Own { member: Member::default(), internal: String::new() },
        identity: Identity { node: HexId(1), cluster, draining: false },
        disk: Arc::new(RealDisk),
        data: data.to_owned(),
        copies: 3,
        gone_after: Duration::from_secs(600),
        timing: Timing::new(ELECTION),
        client,
        secret,
        directory: Arc::new(directory),
        is_joining: false,
        groups: Vec::new(),
    })
}

#[test]
fn who_is_introduced_is_known_after_a_restart_and_nodes_of_another_cluster_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(dir.path(), Directory::new([], [], Scheme::Http), Secret::none());
    let node = |id: u64, url: &str| Introduced { id: HexId(id), url: url.to_owned() };
    let told =
        |cluster: Option<u64>, nodes: Vec<Introduced>| Introduction { cluster: cluster.map(HexId), nodes };
    cluster.hear_of(&told(Some(6), vec![node(2, "http://b:1")]));
    assert!(cluster.directory().urls().is_empty(), "another cluster's");
    // Itself, by whatever URL, is none of the others.
    cluster.hear_of(&told(None, vec![node(1, "http://a:1"), node(3, "http://c:1")]));
    cluster.hear_of(&told(Some(5), vec![node(2, "http://b:1"), node(4, "nowhere")]));
    assert_eq!(cluster.directory().urls(), ["http://b:1", "http://c:1"]);
    assert_eq!(read_known(&RealDisk, dir.path()).unwrap(), ["http://b:1", "http://c:1"]);
    // It vouches for those alone that it has heard itself.
    assert_eq!(cluster.introduction(), told(Some(5), vec![node(1, "")]));
}

#[test]
fn who_knows_a_part_of_the_cluster_alone_founds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cluster =
        cluster(dir.path(), Directory::new(["http://b:1".to_owned()], [], Scheme::Http), Secret::none());
    assert!(cluster.everybody().is_none(), "one was never heard");
    for (known, is_all) in [(None, true), (Some(2), true), (Some(1), false), (Some(3), false)] {
        let internal = "http://b:2".to_owned();
        let card = NodeCard { id: HexId(2), internal, known, ..cluster.card() };
        assert!(cluster.directory().note("http://b:1", card));
        assert_eq!(cluster.everybody().is_some(), is_all, "the other knows of {known:?} nodes");
    }
    cluster.hear_of(&Introduction {
        cluster: None,
        nodes: vec![Introduced { id: HexId(3), url: "http://c:1".to_owned() }],
    });
    assert!(cluster.everybody().is_none(), "one is heard of, and was never heard");
}

/// The first replica, which leads a group of its own.
async fn leads_alone(net: &Net) -> Running {
    let first = Running::start(net, 1, SimDisk::new()).await;
    let raft = first.group.raft();
    raft.initialize(BTreeMap::from([(1, Member::default())])).await.unwrap();
    let leads = raft.wait(Some(Duration::from_secs(20)));
    leads.metrics(|metrics| metrics.current_leader == Some(1), "it leads").await.unwrap();
    first
}

#[tokio::test]
async fn the_secret_is_not_shown_where_clients_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let secret = Secret::read(&path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let cluster = cluster(dir.path(), Directory::new([url.clone()], [], Scheme::Http), secret);
    let answer = async {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(peer.read_u8().await.unwrap());
        }
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let (head, ()) = tokio::join!(answer, cluster.ask(&url));
    assert!(head.starts_with("GET /v1/node "), "{head}");
    assert!(!head.to_lowercase().contains("authorization") && !head.contains("0123456789abcdef"), "{head}");
}

#[tokio::test]
async fn a_node_that_was_lost_before_it_was_filled_is_no_member_once_another_has_its_place() {
    let net = Net::default();
    let first = leads_alone(&net).await;
    let raft = first.group.raft();
    raft.add_learner(2, Member::default(), false).await.unwrap();
    let third = Running::start(&net, 3, SimDisk::new()).await;
    replace(&first.group, 2, 3, Member::default()).await.unwrap();
    let members: Vec<_> = first.group.status().members.iter().map(|one| (one.id.0, one.votes)).collect();
    assert_eq!(members, [(1, true), (3, true)]);
    for (node, running) in [(1, first), (3, third)] {
        running.crash(&net, node, &mut Random::new(0)).await;
    }
}

#[tokio::test]
async fn who_got_a_vote_while_another_was_filled_keeps_it_when_the_other_takes_a_lost_ones_place() {
    let net = Net::default();
    let first = leads_alone(&net).await;
    let raft = first.group.raft();
    let second = Running::start(&net, 2, SimDisk::new()).await;
    raft.add_learner(2, Member::default(), true).await.unwrap();
    // The third is not there yet: it is being filled until it is.
    let replacing = tokio::spawn({
        let group = first.group.clone();
        async move { replace(&group, 9, 3, Member::default()).await }
    });
    let is_filled =
        |metrics: &RaftMetrics<NodeId, Member>| metrics.membership_config.membership().get_node(&3).is_some();
    raft.wait(Some(Duration::from_secs(20))).metrics(is_filled, "the third is known").await.unwrap();
    raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([2])), true).await.unwrap();
    let third = Running::start(&net, 3, SimDisk::new()).await;
    replacing.await.unwrap().unwrap();
    let members: Vec<_> = first.group.status().members.iter().map(|one| (one.id.0, one.votes)).collect();
    assert_eq!(members, [(1, true), (2, true), (3, true)]);
    for (node, running) in [(1, first), (2, second), (3, third)] {
        running.crash(&net, node, &mut Random::new(0)).await;
    }
}

#[tokio::test]
async fn a_learner_that_is_there_already_is_marked_when_a_replica_is_put_there_by_hand() {
    let net = Net::default();
    let first = leads_alone(&net).await;
    let raft = first.group.raft();
    let second = Running::start(&net, 2, SimDisk::new()).await;
    // A move that a leader has begun which died.
    raft.add_learner(2, Member::default(), false).await.unwrap();
    let placed = |placed| Member { placed, ..Member::default() };
    change(&first.group, Some((2, placed(true))), None).await.unwrap();
    let members = || -> Vec<_> {
        first.group.status().members.iter().map(|one| (one.id.0, one.votes, one.member.placed)).collect()
    };
    assert_eq!(members(), [(1, true, false), (2, true, true)]);
    for (node, running) in [(1, first), (2, second)] {
        running.crash(&net, node, &mut Random::new(0)).await;
    }
}

/// What another node says of itself.
fn card(id: u64, url: &str, internal: &str) -> NodeCard {
    NodeCard {
        cluster: None,
        id: HexId(id),
        name: String::new(),
        url: url.to_owned(),
        internal: internal.to_owned(),
        zone: None,
        draining: false,
        copies: None,
        known: None,
        groups: Vec::new(),
    }
}

/// An address at which a node says what it is told to, of clients or of other nodes.
struct Speaker {
    served: Served,
    said: Arc<Mutex<Option<NodeCard>>>,
}

impl Speaker {
    fn start(tls: Option<&NodeTls>) -> Self {
        let said: Arc<Mutex<Option<NodeCard>>> = Arc::default();
        let card = Arc::clone(&said);
        let path = if tls.is_some() { "/cluster/node" } else { "/v1/node" };
        let router = Router::new().route(path, get(async move || Json(card.lock().clone())));
        Self { served: Served::of(router, tls, 8), said }
    }

    fn url(&self, scheme: Scheme) -> String {
        format!("{}://{}", scheme.as_str(), self.served.address)
    }

    fn says(&self, id: u64, internal: &Self) {
        *self.said.lock() = Some(card(id, &self.url(Scheme::Http), &internal.url(Scheme::Https)));
    }
}

#[tokio::test]
async fn where_a_node_was_reached_by_tls_is_not_believed_to_be_its_own_when_another_answers_there() {
    let tls = Authority::new().node("127.0.0.1");
    let open = Speaker::start(None);
    let (first, second) = (Speaker::start(Some(&tls)), Speaker::start(Some(&tls)));
    let url = open.url(Scheme::Http);
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::new([url.clone()], [], Scheme::Https);
    let client = NodeClient::new(Secret::none(), Some(&tls));
    let cluster = cluster_by(client, None, dir.path(), directory, Secret::none());
    let known = || (cluster.directory().node_at(&url), cluster.directory().internal_url(2));
    open.says(2, &first);
    first.says(2, &first);
    cluster.ask(&url).await;
    assert_eq!(known(), (Some(2), Some(first.url(Scheme::Https))));
    // Both were restarted: node 3 has the port that node 2 had.
    open.says(2, &second);
    second.says(2, &second);
    first.says(3, &first);
    cluster.ask(&url).await;
    assert_eq!(known(), (Some(2), Some(second.url(Scheme::Https))));
    assert_eq!(cluster.directory().internal_url(3), None);
    // It says where it is, and is gone from there before it is asked.
    second.says(3, &second);
    cluster.ask(&url).await;
    assert_eq!(known(), (Some(2), Some(second.url(Scheme::Https))));
    assert_eq!(cluster.directory().internal_url(3), None, "another node's card is none of this URL's");
    // It has lost its disk: another node answers at its addresses, to clients too.
    open.says(4, &second);
    second.says(4, &second);
    cluster.ask(&url).await;
    assert_eq!(cluster.directory().node_at(&url), Some(4));
}

/// Another node's address, where it says who it is.
async fn other_node(id: u64, freezes: bool) -> (String, mpsc::Receiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, questions) = mpsc::channel(if freezes { 1 } else { 64 });
    let card = card(id, &url, &url);
    let who = get(move || {
        // It says so once, and then nothing any more.
        let is_frozen = asked.try_send(Instant::now()).is_err();
        let card = card.clone();
        async move { if is_frozen { std::future::pending().await } else { Json(card) } }
    });
    let told = post(move || async move {
        if freezes {
            std::future::pending::<()>().await;
        }
        Json(Introduction { cluster: None, nodes: Vec::new() })
    });
    let router = Router::new().route("/v1/node", who).route("/cluster/nodes", told);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, questions)
}

#[tokio::test]
async fn a_frozen_node_does_not_make_the_others_count_as_silent() {
    let (frozen, frozen_asked) = other_node(0, true).await;
    // Nobody takes what it was asked: its only room is used up by the first question.
    let _full = frozen_asked;
    let (live, mut asked) = other_node(3, false).await;
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::new([frozen.clone(), live], [], Scheme::Http);
    let cluster = Arc::new(cluster_of(None, dir.path(), directory, Secret::none()));
    let knowing = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move { cluster.know_others().await }
    });
    let mut longest = Duration::ZERO;
    let mut last = asked.recv().await.unwrap();
    // Until the frozen node is not heard lately any more, it is asked and told.
    while cluster.directory().silence_of(0).is_none_or(|silence| silence < limits::NODE_SEEN_MAX) {
        let next = asked.recv().await.unwrap();
        longest = longest.max(next - last);
        last = next;
    }
    knowing.abort();
    assert!(longest > Duration::from_secs(1), "it was waited for: {longest:?}");
    assert!(
        longest + limits::NODE_ASK_INTERVAL < limits::NODE_SEEN_MAX - Duration::from_secs(1),
        "{longest:?}"
    );
}
