//! Three copies of each partition: nodes die, forget and are damaged, and what was acknowledged at a quorum is there
//! once, in order, and byte for byte the same on every replica.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use model::wire::{self, AppendAnswer, ClusterAnswer, PartitionState};
use model::{BatchId, Partition, Tenant};
use tempfile::TempDir;
use tests::client::{Answer, Client, answer};
use tests::node::Node;
use tests::wait::eventually;
use tokio::task::JoinHandle;

/// How long an election, a copy of little, and a restart may take together on a busy machine.
const RECOVERED_MAX: Duration = Duration::from_secs(40);

/// The pause of a client before it tries again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Three nodes that hold two partitions, three copies each.
struct Replicas {
    nodes: Vec<Node>,
    client: Client,
    // Removed after the processes have ended.
    _dir: TempDir,
}

/// Batches that were acknowledged: where, and what.
type Acknowledged = Vec<(u64, String)>;

/// Clients that send one batch after another until they are told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Acknowledged>>,
}

impl Replicas {
    async fn start(flags: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("edgelog-test-").tempdir().unwrap();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let names = (1..=3).map(|number| format!("node-{number}"));
        let mut nodes: Vec<Node> =
            names.map(|name| Node::new(dir.path(), &name, vec![0, 1], &flags)).collect();
        let urls: Vec<String> = nodes.iter().map(|node| node.url("")).collect();
        for node in &mut nodes {
            node.add_flag("--peers", &urls.join(","));
            node.add_flag("--replicas", "3");
        }
        // Together: none is ready before the others are there.
        join_all(nodes.iter_mut().map(Node::start)).await;
        Self { nodes, client: Client::new(), _dir: dir }
    }

    fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url("")).collect()
    }

    /// Partition 0 as the node at this place knows it.
    async fn known_by(&self, node: usize) -> Option<PartitionState> {
        let answer = self.client.get(&self.nodes[node].url("/v1/cluster")).await.ok()?;
        let answer: ClusterAnswer = answer.expect(200).json();
        answer.partitions.into_iter().find(|state| state.partition == Partition::new(0))
    }

    /// The place of the node that leads partition 0, once all of `nodes` agree on it.
    async fn leader(&self, nodes: &[usize]) -> usize {
        let urls = self.urls();
        eventually("the nodes agree on a leader", RECOVERED_MAX, async || {
            let known = join_all(nodes.iter().map(|node| self.known_by(*node))).await;
            let leaders: Vec<Option<usize>> = known
                .into_iter()
                .map(|state| {
                    let leader = state?.leader?;
                    urls.iter().position(|url| *url == leader)
                })
                .collect();
            let first = leaders.first().copied().flatten()?;
            let is_running = nodes.contains(&first);
            (is_running && leaders.iter().all(|leader| *leader == Some(first))).then_some(first)
        })
        .await
    }

    /// Waits until every replica of partition 0 has all that its leader has.
    async fn settled(&self) -> PartitionState {
        let leader = self.leader(&[0, 1, 2]).await;
        eventually("every replica has everything", RECOVERED_MAX, async || {
            let state = self.known_by(leader).await?;
            let is_level = |end| state.replicas.iter().all(|replica| replica.flushed == end);
            (state.replicas.len() == 3 && is_level(state.high_watermark)).then_some(state)
        })
        .await
    }

    fn data_dir(&self, node: usize) -> PathBuf {
        self.nodes[node].partition_dir(0).parent().unwrap().to_owned()
    }

    /// The records of a replica, as they lie in its files, and the offset of the first.
    fn in_files(&self, node: usize) -> (u64, Vec<u8>) {
        loop {
            let segments = tests::files::segments(&self.nodes[node].partition_dir(0));
            let first: u64 = segments[0].file_stem().unwrap().to_str().unwrap().parse().unwrap();
            match segments.iter().map(std::fs::read).collect::<io::Result<Vec<_>>>() {
                Ok(read) => return (first, read.concat()),
                // Retention has just deleted the first: the next look finds fewer.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Asserts that all replicas hold the same bytes, and all that was acknowledged once, at its place.
    fn assert_same(&self, acknowledged: &Acknowledged) {
        // Segments may end elsewhere: retention leaves more on one replica than on another.
        let ends: Vec<(u64, Vec<String>)> = (0..3)
            .map(|node| {
                let (first, bytes) = self.in_files(node);
                let text = String::from_utf8(bytes).unwrap();
                (first, text.split_terminator('\n').map(str::to_owned).collect())
            })
            .collect();
        let begin = ends.iter().map(|(first, _)| *first).max().unwrap();
        let tails: Vec<&[String]> =
            ends.iter().map(|(first, lines)| &lines[(begin - first) as usize..]).collect();
        assert!(tails.iter().all(|tail| *tail == tails[0]), "the replicas differ");
        for (offset, message) in acknowledged.iter().filter(|(offset, _)| *offset >= begin) {
            let line = &tails[0][(offset - begin) as usize];
            assert!(line.contains(message), "{message} was acknowledged at {offset}, where {line} is");
        }
        let mut once: Vec<&String> = tails[0].iter().collect();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), tails[0].len(), "a batch was stored twice");
    }

    fn write(&self, writers: usize, bytes: usize) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..writers)
            .map(|writer| tokio::spawn(write_all(self.urls(), writer, bytes, Arc::clone(&stop))))
            .collect();
        Writers { stop, tasks }
    }
}

impl Writers {
    async fn stop(self) -> Acknowledged {
        self.stop.store(true, Ordering::Release);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

/// Sends batches of one record to partition 0's leader, each until it is acknowledged at a quorum.
async fn write_all(urls: Vec<String>, writer: usize, bytes: usize, stop: Arc<AtomicBool>) -> Acknowledged {
    let client = Client::new();
    let mut acknowledged = Vec::new();
    let mut node = writer % urls.len();
    for number in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let message = format!("{writer}/{number} {}", "x".repeat(bytes));
        let id = BatchId::derive(&Tenant::default(), &message, Partition::new(0));
        let record = format!(
            r#"{{"timestamp":1,"service":"s","message":"{message}","received_at":1,"ingested_node_id":"i","client_ip":"::1"}}"#
        );
        let deadline = Instant::now() + RECOVERED_MAX;
        let offset = loop {
            assert!(Instant::now() < deadline, "{message}: not acknowledged within {RECOVERED_MAX:?}");
            let request = client
                .post(&format!("{}/v1/storage?partition=0", urls[node]))
                .header("content-type", wire::NDJSON)
                .header(wire::ACKS, "quorum")
                .header(wire::BATCH_ID, id.to_string())
                .body(record.clone());
            let answered = answer(request).await.ok();
            let leader = answered.as_ref().map(|answer| answer.header(wire::LEADER).to_owned());
            match answered {
                Some(answer) if answer.status == 200 => {
                    assert!(["quorum", "all"].contains(&answer.header(wire::DURABILITY)));
                    break answer.json::<AppendAnswer>().offset.get();
                }
                Some(answer) => assert!([421, 429, 503].contains(&answer.status), "{}", answer.text()),
                None => {}
            }
            let next = (node + 1) % urls.len();
            node = urls.iter().position(|url| Some(url) == leader.as_ref()).unwrap_or(next);
            // As a client does that was told to come back; a node that is gone answers at once.
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        acknowledged.push((offset, message));
    }
    acknowledged
}

/// How many milliseconds old an answer may be, as it says.
fn staleness(answer: &Answer) -> u64 {
    match answer.header(wire::STALENESS) {
        wire::STALENESS_UNKNOWN => u64::MAX,
        ms => ms.parse().unwrap(),
    }
}

#[tokio::test]
async fn a_leader_that_is_killed_under_load_costs_nothing_that_was_acknowledged() {
    let mut replicas = Replicas::start(&[]).await;
    let writers = replicas.write(4, 10);
    for _ in 0..2 {
        let leader = replicas.leader(&[0, 1, 2]).await;
        replicas.nodes[leader].kill();
        let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
        replicas.leader(&others).await;
        replicas.nodes[leader].start().await;
    }
    let acknowledged = writers.stop().await;
    let state = replicas.settled().await;
    assert!(state.high_watermark.get() >= acknowledged.len() as u64);
    replicas.assert_same(&acknowledged);
}

#[tokio::test]
async fn without_a_quorum_nothing_is_acknowledged_and_with_it_all_goes_on() {
    let mut replicas = Replicas::start(&[]).await;
    let first = replicas.write(1, 10);
    let leader = replicas.leader(&[0, 1, 2]).await;
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    let mut acknowledged = first.stop().await;
    for node in &others {
        replicas.nodes[*node].kill();
    }
    let url = replicas.nodes[leader].url("/v1/storage?partition=0");
    let lonely = r#"{"timestamp":1,"service":"s","message":"lonely","received_at":1,"ingested_node_id":"i","client_ip":"::1"}"#;
    let refused = answer(replicas.client.post(&url).header("content-type", wire::NDJSON).body(lonely)).await;
    // By the node itself. That it does so while an ingest would still listen, `raft/tests/handover.rs` holds.
    let refused = refused.unwrap().expect(503);
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.problem().detail.contains("too few replicas"), "{refused:?}");
    // Others may have gone on without it; and what is on the leader alone is not read.
    let read = replicas.nodes[leader].url("/v1/read?partition=0&limit=1000000");
    let refused = replicas.client.get(&read).await.unwrap().expect(503);
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.problem().detail.contains("too few replicas"));
    let stale = replicas.client.get(&format!("{read}&consistency=stale")).await.unwrap().expect(200);
    assert!(!stale.text().contains("lonely"));
    // What it answers alone is as old as the last that it heard of the others, and gets older.
    let age = staleness(&stale);
    assert!(age >= 2000, "it waited longer than that until it refused: {age}");
    let search = replicas.nodes[leader].url("/v1/search");
    eventually("a search tells its age", RECOVERED_MAX, async || {
        let found = replicas.client.get(&search).await.unwrap().expect(200);
        (staleness(&found) > age).then_some(())
    })
    .await;
    for node in &others {
        replicas.nodes[*node].start_serving().await;
    }
    eventually("answers are fresh again", RECOVERED_MAX, async || {
        let found = replicas.client.get(&search).await.unwrap().expect(200);
        (found.header(wire::PARTIAL).is_empty() && staleness(&found) < 2000).then_some(())
    })
    .await;
    let second = replicas.write(2, 20);
    replicas.leader(&[0, 1, 2]).await;
    acknowledged.extend(second.stop().await);
    replicas.settled().await;
    replicas.assert_same(&acknowledged);
}

#[tokio::test]
async fn a_read_is_answered_by_the_leader_to_which_the_others_point_and_a_stale_one_by_any() {
    let replicas = Replicas::start(&[]).await;
    let writers = replicas.write(2, 10);
    let leader = replicas.leader(&[0, 1, 2]).await;
    let path = "/v1/read?partition=0&limit=1000000";
    let read = async |node: usize, more: &str| {
        replicas.client.get(&replicas.nodes[node].url(&format!("{path}{more}"))).await.unwrap()
    };
    for _ in 0..20 {
        let known = read(leader, "").await.expect(200);
        let again = read(leader, "&consistency=linearizable").await.expect(200);
        let number = |header: &str| header.parse::<u64>().unwrap();
        assert!(number(again.header("next-offset")) >= number(known.header("next-offset")));
    }
    writers.stop().await;
    let end = replicas.settled().await.high_watermark;
    let whole = read(leader, "").await.expect(200).text().to_owned();
    for node in (0..3).filter(|node| *node != leader) {
        let refused = read(node, "").await.expect(421);
        assert_eq!(refused.header(wire::LEADER), replicas.nodes[leader].url(""));
        // Until it hears that the last is agreed on.
        eventually("the follower has everything", RECOVERED_MAX, async || {
            let stale = read(node, "&consistency=stale").await.expect(200);
            (stale.header("next-offset") == end.to_string()).then(|| assert_eq!(stale.text(), whole))
        })
        .await;
    }
}

#[tokio::test]
async fn a_replica_that_lost_its_disk_comes_back_as_another_and_is_filled() {
    let mut replicas = Replicas::start(&["--segment-bytes", "64KiB", "--retention-bytes", "256KiB"]).await;
    let writers = replicas.write(2, 4000);
    let leader = replicas.leader(&[0, 1, 2]).await;
    // Until the first segments are gone for good: the log alone cannot fill a replica any more.
    eventually("retention has deleted segments", RECOVERED_MAX, async || {
        let state = replicas.known_by(leader).await?;
        (state.first_offset.get() > 0).then_some(())
    })
    .await;
    let lost = (0..3).find(|node| *node != leader).unwrap();
    replicas.nodes[lost].kill();
    std::fs::remove_dir_all(replicas.data_dir(lost)).unwrap();
    replicas.nodes[lost].start().await;
    let acknowledged = writers.stop().await;
    // First: before it votes it may still be filled, over what it has.
    let log = replicas.nodes[leader].log();
    eventually("the replica is filled", RECOVERED_MAX, async || {
        log.text().contains("the replica is filled, and votes").then_some(())
    })
    .await;
    replicas.settled().await;
    replicas.assert_same(&acknowledged);
}

#[tokio::test]
async fn consumers_go_on_where_they_were_when_leaders_die_and_disks_are_lost() {
    let mut replicas = Replicas::start(&["--segment-bytes", "64KiB", "--retention-bytes", "256KiB"]).await;
    let writers = replicas.write(2, 4000);
    let leader = replicas.leader(&[0, 1, 2]).await;
    let offsets = async |replicas: &Replicas, node: usize, method: &str, body: &str| {
        let url = replicas.nodes[node].url("/v1/offsets/exporter?partition=0");
        answer(replicas.client.request(method, &url).body(body.to_owned())).await.unwrap()
    };
    let put = async |replicas: &Replicas, node: usize, body: &str| {
        let url = replicas.nodes[node].url("/v1/offsets/exporter");
        answer(replicas.client.request("PUT", &url).body(body.to_owned())).await.unwrap()
    };
    eventually("there are some records", RECOVERED_MAX, async || {
        (replicas.known_by(leader).await?.high_watermark.get() > 9).then_some(())
    })
    .await;
    assert_eq!(offsets(&replicas, leader, "GET", "").await.expect(200).text(), "{}");
    put(&replicas, leader, r#"{"0":7}"#).await.expect(204);
    put(&replicas, leader, r#"{"0":5}"#).await.expect(204);
    assert_eq!(
        put(&replicas, leader, r#"{"0":99999999}"#).await.expect(400).problem().field.as_deref(),
        Some("0")
    );
    for node in (0..3).filter(|node| *node != leader) {
        for refused in [put(&replicas, node, r#"{"0":1}"#).await, offsets(&replicas, node, "GET", "").await] {
            assert_eq!(refused.expect(421).header(wire::LEADER), replicas.nodes[leader].url(""));
        }
    }
    // The next leader knows.
    replicas.nodes[leader].kill();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    let next = replicas.leader(&others).await;
    let known = async |replicas: &Replicas, node: usize| {
        let answered = offsets(replicas, node, "GET", "").await;
        (answered.status == 200).then(|| answered.text().to_owned())
    };
    let read =
        eventually("the next leader answers", RECOVERED_MAX, async || known(&replicas, next).await).await;
    assert_eq!(read, r#"{"0":5}"#);
    replicas.nodes[leader].start().await;
    // One whose disk is lost gets it with the segments: the entries are no more.
    let begun_at = replicas.known_by(next).await.unwrap().high_watermark;
    eventually("retention has deleted all that was there", RECOVERED_MAX, async || {
        (replicas.known_by(next).await?.first_offset > begun_at).then_some(())
    })
    .await;
    let lost = leader;
    replicas.nodes[lost].kill();
    std::fs::remove_dir_all(replicas.data_dir(lost)).unwrap();
    replicas.nodes[lost].start().await;
    let log = replicas.nodes[next].log();
    eventually("the replica is filled", RECOVERED_MAX, async || {
        log.text().contains("the replica is filled, and votes").then_some(())
    })
    .await;
    writers.stop().await;
    replicas.settled().await;
    let filled = tests::files::read_group_state(&replicas.nodes[lost].partition_dir(0));
    assert_eq!(filled["consumers"].as_object().unwrap().values().collect::<Vec<_>>(), [5]);
    let leads = replicas.leader(&[0, 1, 2]).await;
    offsets(&replicas, leads, "DELETE", "").await.expect(204);
    assert_eq!(known(&replicas, leads).await.as_deref(), Some("{}"));
}

#[tokio::test]
async fn damage_in_one_replica_is_repaired_from_the_others() {
    let mut replicas = Replicas::start(&[]).await;
    let writers = replicas.write(2, 100);
    let leader = replicas.leader(&[0, 1, 2]).await;
    eventually("there are some records", RECOVERED_MAX, async || {
        let state = replicas.known_by(leader).await?;
        (state.high_watermark.get() > 40).then_some(())
    })
    .await;
    let acknowledged = writers.stop().await;
    replicas.settled().await;
    let damaged = (0..3).find(|node| *node != leader).unwrap();
    replicas.nodes[damaged].stop().await;
    let dir = replicas.nodes[damaged].partition_dir(0);
    let segment = tests::files::segments(&dir).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let place = bytes.len() / 3;
    bytes[place] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    // Else the next start would take the bytes for those that were closed.
    std::fs::remove_file(dir.join("closed")).unwrap();
    replicas.nodes[damaged].start().await;
    // First: until it votes its files may be those of before, or half of the others'.
    let log = replicas.nodes[damaged].log();
    eventually("the replica votes again", RECOVERED_MAX, async || {
        log.text().contains("the replica has again what it had").then_some(())
    })
    .await;
    assert!(log.text().contains("the replica has lost entries"), "{}", log.text());
    replicas.settled().await;
    replicas.assert_same(&acknowledged);
}
