//! Tails: of one node and of all, to their ends and over them.

use std::time::Duration;

use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::timeout;

use super::*;
use crate::query::TailBounds;

const OWN: (&str, &str) = ("edgelog-scope", "node");
const ONE_SECOND: Duration = Duration::from_secs(1);

/// A tail that is read.
struct Tail {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Tail {
    async fn open(cluster: &Cluster, node: usize, query: &str, id: &str) -> Self {
        let header = (!id.is_empty()).then_some(("last-event-id", id));
        Self::open_with(cluster, node, query, header).await
    }

    async fn open_with(cluster: &Cluster, node: usize, query: &str, header: Option<(&str, &str)>) -> Self {
        let mut request = Request::get(format!("{}/v1/tail?{query}", cluster.nodes[node].url));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = cluster.client.request(request.body(Empty::new()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, body, text: String::new() }
    }

    /// The next event; none when the tail has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    line.unwrap_or_default().to_owned()
                };
                let (name, id, data) = (field("event"), field("id"), field("data"));
                self.text = rest.to_owned();
                if name.is_empty() {
                    continue;
                }
                return Some(Event { name, id, data: serde_json::from_str(&data).unwrap() });
            }
            let frame =
                timeout(20 * ONE_SECOND, self.body.frame()).await.expect("the tail says something")?;
            self.text += std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap();
        }
    }

    /// The times of the records up to the beginning, and its id.
    async fn begun(&mut self) -> (Vec<u64>, String) {
        assert_eq!(self.status, StatusCode::OK);
        let mut times = Vec::new();
        loop {
            let event = self.next().await.unwrap();
            match event.name.as_str() {
                "record" => times.push(event.time()),
                "begin" => return (times, event.id),
                other => panic!("{other} comes before the beginning"),
            }
        }
    }

    /// The times of the next records, in order of time, and the last id.
    async fn records(&mut self, count: usize) -> (Vec<u64>, String) {
        let (mut times, mut id) = (Vec::new(), String::new());
        for _ in 0..count {
            let event = self.next().await.unwrap();
            assert_eq!(event.name, "record", "{event:?}");
            times.push(event.time());
            id = event.id;
        }
        times.sort_unstable();
        (times, id)
    }

    fn partial(&self) -> &str {
        self.headers.get("partial").map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl Event {
    fn time(&self) -> u64 {
        self.data["record"]["timestamp"].as_u64().unwrap()
    }
}

async fn append_at(cluster: &Cluster, partition: u16, time: u64) {
    let service = format!("service-{partition}");
    cluster.append(partition, &[line(time, &service, "info", &format!("message {time}"))]).await;
}

#[tokio::test]
async fn a_tail_begins_with_the_newest_of_all_nodes_and_goes_on_at_another_where_it_ended() {
    let cluster = Cluster::start(2).await;
    cluster.fill(20).await;
    let mut tail = Tail::open(&cluster, 0, "last=5", "").await;
    assert_eq!(tail.headers["content-type"], "text/event-stream");
    assert_eq!(tail.partial(), "");
    assert!(!tail.headers.contains_key("edgelog-staleness"), "each partition has one copy");
    assert_eq!(tail.begun().await.0, [1015, 1016, 1017, 1018, 1019]);
    for (partition, time) in [(0, 2000), (3, 2001), (2, 2002), (1, 2003)] {
        append_at(&cluster, partition, time).await;
    }
    let (times, id) = tail.records(4).await;
    assert_eq!(times, [2000, 2001, 2002, 2003]);
    drop(tail);
    for (partition, time) in [(0, 3000), (3, 3001), (3, 3002)] {
        append_at(&cluster, partition, time).await;
    }
    // Neither the ones before nor `last` count for one that goes on.
    let mut tail = Tail::open(&cluster, 1, "last=5", &id).await;
    assert_eq!(tail.begun().await.0, [0; 0]);
    assert_eq!(tail.records(3).await.0, [3000, 3001, 3002]);
    append_at(&cluster, 1, 4000).await;
    assert_eq!(tail.records(1).await.0, [4000]);
    cluster.stop().await;
}

#[tokio::test]
async fn what_comes_while_a_node_is_waited_for_is_told_once_and_in_order() {
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
    let cluster = Cluster::start_beside(2, TailBounds::default(), std::slice::from_ref(&url)).await;
    let mut tail = Tail::open(&cluster, 0, "last=0", "").await;
    assert!(tail.partial().contains(url.as_str().trim_end_matches('/')), "{}", tail.partial());
    let (_, id) = tail.begun().await;
    let times: Vec<u64> = (0..60).collect();
    for time in &times {
        append_at(&cluster, 3, *time).await;
    }
    let mut tail = Tail::open(&cluster, 0, "", &id).await;
    assert_eq!(tail.begun().await.0, [0; 0]);
    for time in times {
        let event = tail.next().await.unwrap();
        assert_eq!((event.name.as_str(), event.time()), ("record", time));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_tail_tells_what_passes_its_filters() {
    let cluster = Cluster::start(2).await;
    cluster.fill(20).await;
    let mut tail =
        Tail::open(&cluster, 0, "service=service-3&contains=record&not_contains=19&last=2", "").await;
    assert_eq!(tail.begun().await.0, [1011, 1015]);
    cluster.append(3, &[line(1, "service-3", "info", "no"), line(2, "service-3", "info", "a record")]).await;
    cluster.append(0, &[line(3, "service-0", "info", "a record")]).await;
    cluster.append(3, &[line(4, "service-3", "info", "record 4")]).await;
    assert_eq!(tail.records(2).await.0, [2, 4]);
    let mut own = Tail::open(&cluster, 0, "partition=1&last=1", "").await;
    assert_eq!(own.begun().await.0, [1017]);
    for (query, status) in [
        ("from=-1h", StatusCode::BAD_REQUEST),
        ("regex=(", StatusCode::BAD_REQUEST),
        ("last=1001", StatusCode::BAD_REQUEST),
        ("partition=9", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(Tail::open(&cluster, 0, query, "").await.status, status, "{query}");
    }
    assert_eq!(Tail::open(&cluster, 0, "", "no id").await.status, StatusCode::BAD_REQUEST);
    cluster.stop().await;
}

#[tokio::test]
async fn a_slow_reader_gets_a_gap_with_the_number_it_missed() {
    // What was missed is counted however long that takes.
    let bounds =
        TailBounds { behind_max: 50, piece_time_max: Duration::from_secs(60), ..TailBounds::default() };
    let cluster = Cluster::start_with(1, bounds).await;
    let mut tails = Vec::new();
    for query in ["last=0", "last=0&level=error"] {
        let mut tail = Tail::open(&cluster, 0, query, "").await;
        assert_eq!(tail.begun().await.0, [0; 0]);
        tails.push(tail);
    }
    // More than the sockets between hold, twice.
    let (count, text) = (1200_u64, "x".repeat(32 << 10));
    for number in 0..count {
        let level = if number.is_multiple_of(2) { "error" } else { "info" };
        cluster.append(0, &[line(number, "s", level, &text)]).await;
    }
    // What it has taken in by now it keeps; behind that at most what may wait, some of which is read meanwhile.
    for (mut tail, all) in tails.into_iter().zip([count, count / 2]) {
        let (mut told, mut missed, mut last) = (0, 0, None);
        while told + missed < all {
            let event = tail.next().await.unwrap();
            match event.name.as_str() {
                "record" => {
                    assert!(last.is_none_or(|last| last < event.time()), "in order, each once");
                    last = Some(event.time());
                    told += 1;
                }
                "gap" => missed += event.data["missed"].as_u64().unwrap(),
                other => panic!("{other}"),
            }
        }
        assert_eq!(told + missed, all);
        assert!(missed > all / 10 && told > 0, "missed {missed}, told {told}");
        // Nothing is left that would be told beyond it.
        append_at(&cluster, 0, count + all).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_tail_of_which_nothing_passes_says_that_it_is_alive() {
    let bounds = TailBounds { heartbeat: Duration::from_millis(200), ..TailBounds::default() };
    let cluster = Cluster::start_with(1, bounds).await;
    let mut tail = Tail::open(&cluster, 0, "service=never", "").await;
    tail.begun().await;
    let beats = async {
        for _ in 0..3 {
            let frame = tail.body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), ":\n\n");
        }
    };
    // There is news all the time.
    let news = async {
        for time in 0.. {
            append_at(&cluster, 0, time).await;
        }
    };
    tokio::select! {
        beats = timeout(20 * ONE_SECOND, beats) => beats.expect("it is heard of"),
        () = news => {}
    }
    cluster.stop().await;
}

#[tokio::test]
async fn there_are_so_many_tails_and_no_more() {
    let cluster = Cluster::start(1).await;
    // For this node alone: the node knows its own address as a peer's, and its call to itself takes a place for a moment.
    let open = || Tail::open_with(&cluster, 0, "", Some(OWN));
    let mut tails = Vec::new();
    for _ in 0..TAILS {
        let mut tail = open().await;
        tail.begun().await;
        tails.push(tail);
    }
    assert_eq!(cluster.nodes[0].app.tails.open(), TAILS);
    let refused = open().await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers.contains_key("retry-after"));
    tails.pop();
    let again = async {
        while open().await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    timeout(20 * ONE_SECOND, again).await.expect("the place of a reader that left is free again");
    cluster.stop().await;
}

#[tokio::test]
async fn a_lost_node_is_named_and_tails_end_with_their_node() {
    let mut cluster = Cluster::start(2).await;
    cluster.fill(8).await;
    let mut tail = Tail::open(&cluster, 0, "last=0", "").await;
    tail.begun().await;
    let dead = cluster.nodes.pop().unwrap();
    let url = dead.url.clone();
    // Its own tail, which this one reads, does not hold it up.
    dead.stop().await;
    let event = tail.next().await.unwrap();
    let partial = event.data["partial"].as_str().unwrap_or_default();
    assert!(event.name == "partial" && partial.contains(&url), "{event:?}");
    append_at(&cluster, 1, 2000).await;
    assert_eq!(tail.records(1).await.0, [2000]);
    let mut second = Tail::open(&cluster, 0, "last=100", "").await;
    assert!(second.partial().contains(&url), "{:?}", second.partial());
    assert_eq!(second.begun().await.0, [1000, 1001, 1004, 1005, 2000]);
    let ending = tokio::spawn(cluster.stop());
    while tail.next().await.is_some() {}
    while second.next().await.is_some() {}
    ending.await.unwrap();
}
