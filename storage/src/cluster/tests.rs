use model::Offset;
use model::wire::{PartitionState, Replica, ReplicaRole};

use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn view() -> ClusterView {
    ClusterView::new("n1".to_owned(), &url("http://a:1"), &[url("http://b:1"), url("http://c:1/")])
}

/// The answer of a node that knows itself by `own`, and names these leaders.
fn answer(node: &str, own: &str, leaders: &[(u16, Option<&str>)]) -> ClusterAnswer {
    let partitions = leaders.iter().map(|(partition, leader)| PartitionState {
        partition: Partition::new(*partition),
        leader: leader.map(str::to_owned),
        term: 0,
        first_offset: Offset::ZERO,
        high_watermark: Offset::ZERO,
        replicas: vec![Replica {
            node: node.to_owned(),
            url: own.to_owned(),
            role: ReplicaRole::Leader,
            flushed: Offset::ZERO,
            lag: 0,
        }],
    });
    let itself = ClusterNode {
        id: None,
        name: node.to_owned(),
        url: own.to_owned(),
        zone: None,
        alive: true,
        draining: false,
    };
    ClusterAnswer { node: node.to_owned(), nodes: vec![itself], partitions: partitions.collect() }
}

fn leader(view: &ClusterView, partition: u16) -> Option<String> {
    view.leader_of(Partition::new(partition))
}

#[test]
fn a_leader_is_known_once_its_node_has_answered() {
    let view = view();
    assert_eq!(leader(&view, 2), None);
    view.note(0, answer("n2", "http://b:1", &[(2, Some("http://b:1")), (3, None)]));
    assert_eq!(leader(&view, 2).as_deref(), Some("http://b:1"));
    assert_eq!((leader(&view, 3), leader(&view, 4)), (None, None));
    view.note(1, answer("n3", "http://c:1", &[(3, Some("http://c:1"))]));
    assert_eq!(leader(&view, 3).as_deref(), Some("http://c:1"));
}

#[test]
fn a_node_that_knows_itself_by_another_url_is_called_by_the_configured_one() {
    let view = view();
    view.note(0, answer("n2", "http://0.0.0.0:1", &[(2, Some("http://0.0.0.0:1"))]));
    assert_eq!(leader(&view, 2).as_deref(), Some("http://b:1"));
    assert_eq!(view.nodes()[1].url, "http://b:1");
}

#[test]
fn no_url_that_was_not_configured_is_handed_on() {
    let view = view();
    let told =
        [(1, Some("http://c:1/")), (2, Some("http://evil:1")), (3, Some("x")), (4, Some("http://a:1"))];
    view.note(0, answer("n2", "http://b:1", &told));
    assert_eq!(leader(&view, 1).as_deref(), Some("http://c:1"));
    // Nor this node itself: it was asked because it is not the leader.
    assert_eq!([2, 3, 4].map(|partition| leader(&view, partition)), [None, None, None]);
}

#[test]
fn what_is_not_confirmed_is_forgotten() {
    let view = view();
    view.note(0, answer("n2", "http://b:1", &[(2, Some("http://b:1"))]));
    let long_ago = Instant::now().checked_sub(limits::PEER_SEEN_MAX).unwrap();
    view.peers[0].seen.lock().as_mut().unwrap().at = long_ago;
    assert_eq!(leader(&view, 2), None);
    let names = |alive: bool| -> Vec<String> {
        view.nodes().into_iter().filter(|node| node.alive == alive).map(|node| node.name).collect()
    };
    assert_eq!(
        (names(true), names(false)),
        (vec!["n1".to_owned()], vec!["n2".to_owned(), "http://c:1".to_owned()])
    );
}

#[test]
fn a_node_does_not_ask_itself_nor_anybody_twice() {
    let peers = ["http://a:1/", "http://b:1", "http://b:1/"].map(url);
    let view = ClusterView::new("n1".to_owned(), &url("http://a:1"), &peers);
    let urls: Vec<_> = view.peers.iter().map(|peer| peer.url.as_str()).collect();
    assert_eq!(urls, ["http://b:1"]);
}
