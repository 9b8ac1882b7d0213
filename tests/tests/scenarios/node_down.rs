//! A storage node that is gone, or hangs, costs only what it holds, and nothing twice; without an edge WAL, so that
//! the client repeats what it holds.

use std::time::{Duration, Instant};

use model::Record;
use model::wire::IngestAnswer;
use tests::records::record;
use tests::wait::eventually;
use tests::{Answer, Cluster, ClusterSpec};

/// Of partitions 0 and 1, on the first node, and of 2 and 3, on the second.
const HERE: [&str; 2] = ["event_creator", "focus_allocator"];
const THERE: [&str; 2] = ["notification_service", "auth_service"];
/// How long an answer about a node that hangs may take: before clients commonly give up.
const HANGING_ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a node that is back may be left alone: the circuit's longest pause, and an attempt.
const ASKED_AGAIN_MAX: Duration = Duration::from_secs(10);

fn records_of(services: &[&str], text: &str) -> Vec<Record> {
    services.iter().map(|service| record(service, text)).collect()
}

/// What the ingest answers to a request of which a part cannot be stored now.
fn assert_not_stored_now(answer: Answer) {
    let answer = answer.expect(503);
    let retry_after: u64 = answer.header("retry-after").parse().expect("Retry-After is a number of seconds");
    assert!((1..=60).contains(&retry_after));
    answer.problem();
}

fn received(answer: Answer) -> usize {
    answer.expect(200).json::<IngestAnswer>().received
}

/// As [`received`], repeated as a client repeats it while the ingest leaves the node alone.
async fn received_in_the_end(cluster: &Cluster, records: &[Record], key: &str) -> usize {
    let taken = eventually("the node is asked again", ASKED_AGAIN_MAX, async || {
        let answer = cluster.send(records, key).await;
        if answer.status == 200 {
            return Some(answer);
        }
        assert_not_stored_now(answer);
        None
    });
    received(taken.await)
}

/// The messages that are stored, in the order of their partitions.
async fn stored_messages(cluster: &Cluster) -> Vec<String> {
    let stored = cluster.stored().await;
    assert_eq!(cluster.in_files(), stored);
    let messages =
        stored.into_values().flatten().map(|record| format!("{} {}", record.service, record.message));
    messages.collect()
}

#[tokio::test]
async fn a_dead_node_refuses_its_own_records_and_takes_them_once_when_it_is_back() {
    let mut cluster = ClusterSpec::default().variable("wal", "off").start().await;
    assert_eq!((cluster.holder_of_service(HERE[1]), cluster.holder_of_service(THERE[0])), (0, 1));
    let all = [HERE, THERE].concat();
    assert_eq!(received(cluster.send(&records_of(&all, "before"), "before").await), 4);

    cluster.nodes[1].kill();
    assert_eq!(received(cluster.send(&records_of(&HERE, "during"), "here").await), 2);
    assert_not_stored_now(cluster.send(&records_of(&THERE, "during"), "there").await);
    assert_not_stored_now(cluster.send(&records_of(&all, "mixed"), "mixed").await);
    assert_eq!(received(cluster.send(&records_of(&HERE, "during again"), "here-again").await), 2);

    cluster.nodes[1].start().await;
    // The retry of a mixed request: one part is stored already.
    assert_eq!(received_in_the_end(&cluster, &records_of(&all, "mixed"), "mixed").await, 4);
    assert_eq!(received(cluster.send(&records_of(&THERE, "during"), "there").await), 2);
    assert_eq!(received(cluster.send(&records_of(&all, "mixed"), "mixed").await), 4);
    let expected = [
        "event_creator before",
        "event_creator during",
        "event_creator mixed",
        "event_creator during again",
        "focus_allocator before",
        "focus_allocator during",
        "focus_allocator mixed",
        "focus_allocator during again",
        "notification_service before",
        "notification_service mixed",
        "notification_service during",
        "auth_service before",
        "auth_service mixed",
        "auth_service during",
    ];
    assert_eq!(stored_messages(&cluster).await, expected);
}

#[tokio::test]
async fn a_node_that_hangs_is_given_up_in_time_and_a_retry_is_stored_once() {
    let cluster = ClusterSpec::default().variable("wal", "off").start().await;
    let all = [HERE, THERE].concat();
    assert_eq!(received(cluster.send(&records_of(&all, "before"), "before").await), 4);

    cluster.nodes[1].pause();
    let begun_at = Instant::now();
    let records = records_of(&all, "hanging");
    let hanging = cluster.send(&records, "hanging");
    let here = async {
        // Meanwhile the others are served without delay.
        let answer = cluster.send(&records_of(&HERE, "meanwhile"), "meanwhile").await;
        (answer, begun_at.elapsed())
    };
    let (hanging, (here, here_after)) = futures::join!(hanging, here);
    assert_eq!(received(here), 2);
    assert!(here_after < Duration::from_secs(3), "{here_after:?}");
    assert_not_stored_now(hanging);
    assert!(begun_at.elapsed() < HANGING_ANSWER_MAX, "{:?}", begun_at.elapsed());

    // What waits in the node's sockets is the request, perhaps twice; the retry makes it three.
    cluster.nodes[1].resume();
    assert_eq!(received_in_the_end(&cluster, &records, "hanging").await, 4);
    let stored = stored_messages(&cluster).await;
    for service in all {
        let count = stored.iter().filter(|text| **text == format!("{service} hanging")).count();
        assert_eq!(count, 1, "{service} in {stored:?}");
    }
}
