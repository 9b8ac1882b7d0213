//! Nodes come and go for good, by an operator's word and under load: nothing that was acknowledged is lost or doubled,
//! and all copies are the same, wherever they are.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use model::wire::{ClusterAnswer, PartitionState, ReplicaRole};
use rand::RngExt;
use tests::certificates::Authority;
use tests::cluster::Stored;
use tests::load::{Load, LoadSpec};
use tests::oracle::Oracle;
use tests::programs::programs;
use tests::recorder::{self, RECORDER, Recorder};
use tests::{Cluster, ClusterSpec, Node, eventually, files, random};

/// How long replicas of little may take to be where they belong: copies, changes of members, and elections.
const MOVED_MAX: Duration = Duration::from_secs(120);

/// Runs a subcommand of the storage program to its end.
async fn storage(arguments: &[&str]) -> Output {
    let mut command = Command::new(&programs().storage);
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn load(cluster: &Cluster, seed: u64) -> Load {
    let urls = vec![cluster.url("/v1/logs")];
    Load::start(&LoadSpec { urls, connections: 3, batch_records_max: 30, given_up: 0.2, seed })
}

fn recorder(cluster: &Cluster, seed: u64) -> Recorder {
    Recorder::start(cluster.nodes.iter().map(|node| node.url("")).collect(), 0, 2, 2, seed)
}

/// How many partitions the node at this place has a replica of that votes, as `told` says.
fn held(cluster: &Cluster, told: &ClusterAnswer, place: usize) -> usize {
    let url = cluster.nodes[place].url("");
    let copies = told.partitions.iter().flat_map(|state| &state.replicas);
    copies.filter(|copy| copy.url == url && copy.role != ReplicaRole::Learner).count()
}

/// Waits until every partition has its three copies, all of which vote, and `is_there` is so.
async fn settled(
    cluster: &Cluster,
    asked: usize,
    is_there: impl Fn(&ClusterAnswer) -> bool,
) -> ClusterAnswer {
    eventually("replicas are where they belong", MOVED_MAX, async || {
        let told = cluster.described_by(asked).await;
        let is_whole = |state: &PartitionState| {
            state.replicas.len() == 3 && state.replicas.iter().all(|copy| copy.role != ReplicaRole::Learner)
        };
        let is_settled = told.partitions.len() == usize::from(cluster.partitions())
            && told.partitions.iter().all(|state| state.leader.is_some() && is_whole(state));
        (is_settled && is_there(&told)).then_some(told)
    })
    .await
}

/// A further node, which is told of nobody but the node at this place.
fn joining(cluster: &Cluster, seed: usize, flags: &[&str]) -> Node {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let mut node = Node::new(cluster.dir(), "node-4", (0..cluster.partitions()).collect(), &flags);
    node.add_flag("--join", &cluster.nodes[seed].url(""));
    node.add_flag("--replicas", "3");
    node
}

/// Ends the load, and asserts that nothing is lost or doubled, nor differs between copies.
async fn assert_holds(cluster: &Cluster, load: Load, recorder: Recorder) {
    let mut history = recorder.finish().await;
    let ledgers = load.finish().await;
    cluster.drain_wals().await;
    let oracle = Oracle::new(cluster.partitions(), ledgers);
    let stored: Stored = cluster.same_everywhere().await;
    let mut loaded = stored.clone();
    loaded.values_mut().for_each(|records| records.retain(|record| record.ingested_node_id != RECORDER));
    oracle.assert_holds(&loaded);
    assert!(history.acked() > 50 && history.reads() > 10);
    history.end_with(recorder::as_seen(&stored[&0]));
    history.assert_holds();
}

#[tokio::test]
async fn a_node_is_drained_under_load_and_stopped_for_good() {
    let mut random = random::seeded();
    let mut cluster = ClusterSpec::default().nodes(4).replicas(3).partitions(4).start().await;
    cluster.leaders().await;
    let (load, recorder) = (load(&cluster, random.random()), recorder(&cluster, random.random()));
    recorder.progress(20).await;
    // The leader of the partition that is recorded: it has to let itself go.
    let leaving = cluster.leader_of(0).await;
    let url = cluster.nodes[leaving].url("");
    // Broken off as soon as it has said what it wants.
    let mut broken_off =
        Command::new(&programs().storage).args(["drain", &url]).stdout(Stdio::null()).spawn().unwrap();
    let is_told = async || {
        let told = cluster.described_by((leaving + 1) % 4).await;
        told.nodes.iter().any(|node| node.url == url && node.draining).then_some(())
    };
    eventually("the others know that it is to be drained", MOVED_MAX, is_told).await;
    broken_off.kill().unwrap();
    broken_off.wait().unwrap();
    let drained = storage(&["drain", &url, "--timeout", "2m"]).await;
    assert!(drained.status.success(), "{}", text(&drained));
    assert!(text(&drained).contains("holds nothing any more"), "{}", text(&drained));
    // Who neither leads a partition nor holds it is told of its members a moment later.
    for place in 0..4 {
        eventually("every node tells that nothing is left there", MOVED_MAX, async || {
            let told = cluster.described_by(place).await;
            assert_eq!(told.partitions.len(), 4, "{told:#?}");
            (held(&cluster, &told, leaving) == 0).then_some(())
        })
        .await;
    }
    load.progress(20).await;
    assert!(cluster.nodes[leaving].stop().await.success());
    load.progress(20).await;
    // As many nodes are left as there are to be copies.
    let other = cluster.nodes[(leaving + 1) % 4].url("");
    let refused = storage(&["drain", &other]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("2 other nodes could hold replicas"), "{}", text(&refused));
    recorder.progress(10).await;
    assert_holds(&cluster, load, recorder).await;
}

#[tokio::test]
async fn what_a_node_let_go_is_forgotten_and_had_again_and_nothing_else_is() {
    let mut random = random::seeded();
    let mut cluster = ClusterSpec::default().nodes(4).replicas(3).partitions(4).start().await;
    let (load, recorder) = (load(&cluster, random.random()), recorder(&cluster, random.random()));
    recorder.progress(20).await;
    let leaving = cluster.leader_of(0).await;
    let (url, other) = (cluster.nodes[leaving].url(""), cluster.nodes[(leaving + 1) % 4].url(""));
    let data = cluster.nodes[leaving].partition_dir(0).parent().unwrap().display().to_string();
    let forget = async |more: &[&str]| {
        storage(&[&["forget", &data, "--node", &other, "--timeout", "1m"], more].concat()).await
    };
    let refused = forget(&[]).await;
    assert!(text(&refused).contains("stop the storage daemon"), "{}", text(&refused));
    assert!(cluster.nodes[leaving].stop().await.success());
    recorder.progress(10).await;
    // It is away, and a member all the same.
    eventually("somebody leads who knows", MOVED_MAX, async || {
        let refused = forget(&["--partition", "0"]).await;
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        let changes = ["nobody leads it just now", "who leads it is changing"];
        let is_between = changes.iter().any(|why| text(&refused).contains(why));
        let is_kept = text(&refused).contains("the node has a replica of it");
        assert!(is_kept || is_between, "{}", text(&refused));
        is_kept.then_some(())
    })
    .await;
    cluster.nodes[leaving].start().await;
    let drained = storage(&["drain", &url, "--timeout", "2m"]).await;
    assert!(drained.status.success(), "{}", text(&drained));
    assert!(cluster.nodes[leaving].stop().await.success());
    assert!(!files::lines(&cluster.nodes[leaving].partition_dir(0)).is_empty());
    let forgotten = forget(&[]).await;
    assert!(forgotten.status.success(), "{}", text(&forgotten));
    for partition in 0..4 {
        let said = format!("partition {partition}: forgotten");
        assert!(text(&forgotten).contains(&said), "{}", text(&forgotten));
        assert!(files::lines(&cluster.nodes[leaving].partition_dir(partition)).is_empty());
    }
    recorder.progress(10).await;
    // It gets its share again, and has all of it, byte for byte.
    cluster.nodes[leaving].start_serving().await;
    let cancelled = storage(&["drain", &url, "--cancel"]).await;
    assert!(cancelled.status.success(), "{}", text(&cancelled));
    settled(&cluster, leaving, |told| held(&cluster, told, leaving) > 0).await;
    cluster.nodes[leaving].ready().await;
    assert_holds(&cluster, load, recorder).await;
}

#[tokio::test]
async fn a_drain_goes_on_though_a_leader_dies_in_the_midst_of_it() {
    let mut random = random::seeded();
    let mut cluster = ClusterSpec::default().nodes(4).replicas(3).partitions(8).start().await;
    let leaders = cluster.leaders().await;
    let (load, recorder) = (load(&cluster, random.random()), recorder(&cluster, random.random()));
    recorder.progress(20).await;
    let dying = leaders[&0];
    let leaving = (0..4).find(|place| *place != dying).unwrap();
    let url = cluster.nodes[leaving].url("");
    let begun = held(&cluster, &cluster.described_by(leaving).await, leaving);
    let drained = tokio::spawn({
        let url = url.clone();
        async move { storage(&["drain", &url, "--timeout", "2m"]).await }
    });
    eventually("some replicas have moved", MOVED_MAX, async || {
        (held(&cluster, &cluster.described_by(leaving).await, leaving) < begun).then_some(())
    })
    .await;
    cluster.nodes[dying].kill();
    recorder.progress(20).await;
    cluster.nodes[dying].start_serving().await;
    let drained = drained.await.unwrap();
    assert!(drained.status.success(), "{}", text(&drained));
    settled(&cluster, dying, |told| held(&cluster, told, leaving) == 0).await;
    assert_holds(&cluster, load, recorder).await;
}

#[tokio::test]
async fn a_replica_is_moved_by_hand_and_stays_where_it_was_put() {
    let mut random = random::seeded();
    let cluster = ClusterSpec::default().nodes(4).replicas(3).partitions(2).start().await;
    let leader = cluster.leader_of(0).await;
    let (load, recorder) = (load(&cluster, random.random()), recorder(&cluster, random.random()));
    recorder.progress(20).await;
    let told = cluster.described_by(leader).await;
    let holds = |place: &usize| {
        let url = cluster.nodes[*place].url("");
        told.partitions[0].replicas.iter().any(|copy| copy.url == url)
    };
    let (to, from) = ((0..4).find(|place| !holds(place)).unwrap(), leader);
    let names = [cluster.nodes[from].name(), cluster.nodes[to].name()];
    let any = cluster.nodes[(from + 1) % 4].url("");
    let wish = ["move", "--partition", "0", "--from", names[0], "--to", names[1], "--node", &any];
    let moved = storage(&wish).await;
    assert!(moved.status.success(), "{}", text(&moved));
    // Once more: it is there already.
    assert!(storage(&wish).await.status.success());
    let nowhere =
        storage(&["move", "--partition", "0", "--from", names[1], "--to", "nobody", "--node", &any]).await;
    assert_eq!(nowhere.status.code(), Some(2), "{}", text(&nowhere));
    assert!(text(&nowhere).contains("0 nodes are known by \"nobody\""), "{}", text(&nowhere));
    // Some seconds' worth, in each of which the leader plans anew: it is still there.
    recorder.progress(200).await;
    let told = cluster.described_by(to).await;
    assert!(told.partitions[0].replicas.iter().any(|copy| copy.node == names[1]), "{told:#?}");
    assert!(!told.partitions[0].replicas.iter().any(|copy| copy.node == names[0]), "{told:#?}");
    assert_holds(&cluster, load, recorder).await;
}

#[tokio::test]
async fn a_node_joins_under_load_and_the_one_that_it_was_told_of_leaves() {
    let mut random = random::seeded();
    let mut cluster = ClusterSpec::default().nodes(3).replicas(3).partitions(8).start().await;
    cluster.leaders().await;
    let joining = joining(&cluster, 0, &[]);
    cluster.nodes.push(joining);
    let (load, recorder) = (load(&cluster, random.random()), recorder(&cluster, random.random()));
    recorder.progress(20).await;
    cluster.nodes[3].start_serving().await;
    // Those whom it was not told of know it, and it has its share.
    let has_share = |told: &ClusterAnswer| told.nodes.len() == 4 && held(&cluster, told, 3) > 0;
    for asked in [1, 2, 3] {
        settled(&cluster, asked, has_share).await;
    }
    recorder.progress(20).await;
    let seed = cluster.nodes[0].url("");
    let drained = storage(&["drain", &seed, "--timeout", "2m"]).await;
    assert!(drained.status.success(), "{}", text(&drained));
    assert!(cluster.nodes[0].stop().await.success());
    load.progress(20).await;
    // All at once, so that none of them can be told by another: whom it was named is gone for good, and nobody was named it.
    cluster.nodes[1..].iter_mut().for_each(Node::kill);
    futures::future::join_all(cluster.nodes[1..].iter_mut().map(Node::start)).await;
    let told = settled(&cluster, 3, |_| true).await;
    assert_eq!((held(&cluster, &told, 0), held(&cluster, &told, 3)), (0, 8), "{told:#?}");
    recorder.progress(10).await;
    assert_holds(&cluster, load, recorder).await;
}

#[tokio::test]
async fn a_node_that_is_gone_for_long_is_replaced_and_one_that_comes_back_is_no_stranger() {
    let mut random = random::seeded();
    let spec = ClusterSpec::default().nodes(4).replicas(3).partitions(4).node_flag("--replace-after", "10s");
    let mut cluster = spec.start().await;
    let (load, recorder) = (load(&cluster, random.random()), recorder(&cluster, random.random()));
    recorder.progress(20).await;
    let gone = cluster.leader_of(0).await;
    cluster.nodes[gone].kill();
    let asked = (gone + 1) % 4;
    settled(&cluster, asked, |told| held(&cluster, told, gone) == 0).await;
    recorder.progress(20).await;
    cluster.nodes[gone].start_serving().await;
    for asked in [asked, gone] {
        settled(&cluster, asked, |told| held(&cluster, told, gone) > 0).await;
    }
    cluster.nodes[gone].ready().await;
    recorder.progress(20).await;
    assert_holds(&cluster, load, recorder).await;
}

#[tokio::test]
async fn who_does_not_know_the_secret_is_not_let_in_and_may_not_change_anything() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("{name}-is-what-they-know\n")).unwrap();
        path.display().to_string()
    };
    let (ours, theirs) = (file("this"), file("that"));
    let spec = ClusterSpec::default().nodes(3).replicas(3).partitions(1);
    let cluster = spec.node_flag("--cluster-secret-file", &ours).start().await;
    let mut stranger = joining(&cluster, 0, &["--cluster-secret-file", &theirs]);
    stranger.start_serving().await;
    eventually("it is told that its secret is another", MOVED_MAX, async || {
        stranger.log().text().contains("the other node has another --cluster-secret-file").then_some(())
    })
    .await;
    for place in 0..3 {
        assert_eq!(cluster.described_by(place).await.nodes.len(), 3);
    }
    let url = cluster.nodes[0].url("");
    for access in [vec![], vec!["--cluster-secret-file", &theirs]] {
        let refused = storage(&[vec!["drain", url.as_str()], access].concat()).await;
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(text(&refused).contains("it wants the cluster's secret"), "{}", text(&refused));
    }
    let refused = storage(&["drain", &url, "--cluster-secret-file", &ours]).await;
    assert!(text(&refused).contains("2 other nodes could hold replicas"), "{}", text(&refused));
}

/// Three copies on four nodes that talk by TLS.
#[tokio::test]
async fn nodes_with_certificates_replicate_are_drained_and_let_nobody_in_who_has_another_authoritys() {
    let mut random = random::seeded();
    let spec = ClusterSpec::default().nodes(4).replicas(3).partitions(2).certificates();
    let mut cluster = spec.start().await;
    let (load, recorder) = (load(&cluster, random.random()), recorder(&cluster, random.random()));
    recorder.progress(20).await;
    let leaving = cluster.leader_of(0).await;
    cluster.nodes[leaving].kill();
    recorder.progress(20).await;
    cluster.nodes[leaving].start().await;
    let url = cluster.nodes[leaving].url("");
    let other = Authority::new(&cluster.dir().join("others"));
    let of_another = other.flags("somebody", "127.0.0.1");
    let drain = async |flags: &[(&str, String)]| {
        let flags = flags.iter().flat_map(|(name, value)| [*name, value.as_str()]);
        storage(&["drain", &url, "--timeout", "2m"].into_iter().chain(flags).collect::<Vec<_>>()).await
    };
    for (flags, reason) in [
        (&of_another[..0], "talks to other nodes by TLS"),
        (&of_another[..2], "--cluster-ca is missing"),
        (&of_another[..], "certificate"),
    ] {
        let refused = drain(flags).await;
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(text(&refused).contains(reason), "{}", text(&refused));
    }
    // One whom nobody has to believe, one that says nothing of the kind, and one that knows another secret.
    let other_secret = cluster.dir().join("other-secret");
    std::fs::write(&other_secret, "what-no-node-of-this-test-knows\n").unwrap();
    let of_ours = cluster.authority().flags("curious", "127.0.0.1");
    for (name, flags, reason) in [
        ("stranger", &of_another[..], "there is no TLS with the other node"),
        ("open", &of_another[..0], "only one of the two has --cluster-cert"),
        ("curious", &of_ours[..], "has another --cluster-secret-file"),
    ] {
        let mut node = Node::new(cluster.dir(), name, vec![0, 1], &[]);
        node.add_flag("--join", &cluster.nodes[0].url(""));
        node.add_flag("--replicas", "3");
        flags.iter().for_each(|(name, value)| node.add_flag(name, value));
        node.add_flag("--cluster-secret-file", &other_secret.display().to_string());
        node.start_serving().await;
        eventually("it is told that it is not let in", MOVED_MAX, async || {
            node.log().text().contains(reason).then_some(())
        })
        .await;
        for place in 0..4 {
            let told = cluster.described_by(place).await;
            assert!(told.nodes.iter().all(|known| known.url != node.url("")), "{told:#?}");
        }
    }
    let secret = ("--cluster-secret-file", cluster.secret_file().display().to_string());
    let of_operator = cluster.authority().flags("operator", "operator");
    let drained = drain(&of_operator.into_iter().chain([secret]).collect::<Vec<_>>()).await;
    assert!(drained.status.success(), "{}", text(&drained));
    settled(&cluster, leaving, |told| held(&cluster, told, leaving) == 0).await;
    recorder.progress(10).await;
    assert_holds(&cluster, load, recorder).await;
}

/// With an election that takes far longer than anything else here.
#[tokio::test]
async fn a_leader_that_is_stopped_or_drained_hands_over_and_nobody_waits_for_an_election() {
    const ELECTION: Duration = Duration::from_secs(6);
    // No replica stands earlier after its leader was heard last, which was a fifth of that ago at most.
    const PAUSE_MAX: Duration = Duration::from_secs(5);
    let mut random = random::seeded();
    let spec = ClusterSpec::default().nodes(4).replicas(3).partitions(2);
    let mut cluster = spec.node_flag("--election-timeout", &format!("{}s", ELECTION.as_secs())).start().await;
    let (load, recorder) = (load(&cluster, random.random()), recorder(&cluster, random.random()));
    recorder.progress(20).await;
    let stopped = cluster.leader_of(0).await;
    let began = Instant::now();
    assert!(cluster.nodes[stopped].stop().await.success());
    recorder.progress(5).await;
    assert!(began.elapsed() < PAUSE_MAX, "{:?}", began.elapsed());
    assert!(cluster.nodes[stopped].log().text().contains("handed the lead over"));
    cluster.nodes[stopped].start().await;
    let leaving = cluster.leader_of(0).await;
    let url = cluster.nodes[leaving].url("");
    let drained = tokio::spawn(async move { storage(&["drain", &url, "--timeout", "2m"]).await });
    let mut longest = Duration::ZERO;
    while !drained.is_finished() {
        longest = longest.max(recorder.progress(2).await);
    }
    let drained = drained.await.unwrap();
    assert!(drained.status.success(), "{}", text(&drained));
    assert!(longest < PAUSE_MAX, "{longest:?}");
    eprintln!("while the node was drained, the longest pause was {longest:?}");
    assert_holds(&cluster, load, recorder).await;
}
