//! What a node does among the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::client::NodeClient;
use super::super::members::{change, replace};
use super::super::types::Member;
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

/// Node 1 of cluster 5, which has no partitions.
fn cluster(data: &Path, directory: Directory, secret: Secret) -> Cluster {
    cluster_of(Some(HexId(5)), data, directory, secret)
}

fn cluster_of(cluster: Option<HexId>, data: &Path, directory: Directory, secret: Secret) -> Cluster {
    Cluster::new(ClusterParts {
        own: Own { member: Member::default(), internal: String::new() },
        identity: Identity { node: HexId(1), cluster, draining: false },
        disk: Arc::new(RealDisk),
        data: data.to_owned(),
        copies: 3,
        gone_after: Duration::from_secs(600),
        timing: Timing::new(ELECTION),
        client: NodeClient::new(secret.clone(), None),
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
    let first = Running::start(&net, 1, SimDisk::new()).await;
    let raft = first.group.raft();
    raft.initialize(BTreeMap::from([(1, Member::default())])).await.unwrap();
    let leads = raft.wait(Some(Duration::from_secs(20)));
    leads.metrics(|metrics| metrics.current_leader == Some(1), "it leads").await.unwrap();
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
async fn a_learner_that_is_there_already_is_marked_when_a_replica_is_put_there_by_hand() {
    let net = Net::default();
    let first = Running::start(&net, 1, SimDisk::new()).await;
    let raft = first.group.raft();
    raft.initialize(BTreeMap::from([(1, Member::default())])).await.unwrap();
    let leads = raft.wait(Some(Duration::from_secs(20)));
    leads.metrics(|metrics| metrics.current_leader == Some(1), "it leads").await.unwrap();
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

/// Another node's address, where it says who it is.
async fn other_node(id: u64, freezes: bool) -> (String, mpsc::Receiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, questions) = mpsc::channel(if freezes { 1 } else { 64 });
    let card = NodeCard {
        cluster: None,
        id: HexId(id),
        name: String::new(),
        url: url.clone(),
        internal: url.clone(),
        zone: None,
        draining: false,
        copies: None,
        known: None,
        groups: Vec::new(),
    };
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
