//! Storage nodes that follow a script: a replicated cluster as the ingest sees it, without disks, elections or chance.
//!
//! Invariant: a batch is stored once for each id, by the leader alone; a node that is dead refuses connections.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use model::batches::{self, BatchAnswer, BatchesAnswer};
use model::problem::{self, Problem};
use model::wire::{self, AppendAnswer, ClusterAnswer, ClusterNode, PartitionState, Replica, ReplicaRole};
use model::{Offset, Partition};
use serde_json::value::to_raw_value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};

use crate::process::Port;

const NOT_LEADING: &str = "this node does not lead the partition";

/// Nodes that agree on who leads.
#[derive(Debug)]
pub struct StandIns {
    state: Arc<Mutex<State>>,
    serving: Vec<JoinHandle<()>>,
    ports: Vec<Port>,
}

#[derive(Debug)]
struct State {
    urls: Vec<String>,
    partitions: u16,
    /// Who leads every partition, by place.
    leader: Option<usize>,
    /// Whom the nodes name in its place.
    named: Option<String>,
    term: u64,
    gives_hints: bool,
    ids: HashSet<String>,
    lines: Vec<String>,
    /// Appends that came to each node.
    appends: Vec<usize>,
    /// How often each was asked who leads.
    looks: Vec<usize>,
}

impl StandIns {
    /// So many nodes, of which the first leads all partitions, in a first term.
    ///
    /// # Panics
    /// When there is no port for one.
    pub fn start(nodes: usize, partitions: u16) -> Self {
        let ports: Vec<Port> = (0..nodes).map(|_| Port::free()).collect();
        let state = Arc::new(Mutex::new(State {
            urls: ports.iter().map(|port| format!("http://{}", port.address())).collect(),
            partitions,
            leader: Some(0),
            named: None,
            term: 1,
            gives_hints: true,
            ids: HashSet::new(),
            lines: Vec::new(),
            appends: vec![0; nodes],
            looks: vec![0; nodes],
        }));
        let serving = ports.iter().enumerate().map(|(place, port)| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(port.address()).unwrap();
            tokio::spawn(serve(socket.listen(64).unwrap(), place, Arc::clone(&state)))
        });
        Self { serving: serving.collect(), state, ports }
    }

    /// The URL of a node.
    pub fn url(&self, place: usize) -> String {
        format!("http://{}", self.ports[place].address())
    }

    /// From now on this node leads, in a new term.
    pub fn elect(&self, place: usize) {
        let mut state = self.lock();
        state.leader = Some(place);
        state.named = None;
        state.term += 1;
    }

    /// From now on nobody leads.
    pub fn lose_leader(&self) {
        self.lock().leader = None;
    }

    /// From now on nobody leads, and all say that somebody at this URL does.
    pub fn name(&self, url: &str) {
        self.lose_leader();
        self.lock().named = Some(url.to_owned());
    }

    /// Whether a `421` names the leader.
    pub fn give_hints(&self, gives_hints: bool) {
        self.lock().gives_hints = gives_hints;
    }

    /// The node is gone, and its connections with it.
    pub fn kill(&self, place: usize) {
        self.serving[place].abort();
    }

    /// All lines that were stored, in order.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// How many appends came to a node.
    pub fn appends(&self, place: usize) -> usize {
        self.lock().appends[place]
    }

    /// How often all nodes were asked who leads.
    pub fn looks(&self) -> usize {
        self.lock().looks.iter().sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for StandIns {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(listener: TcpListener, place: usize, state: Arc<Mutex<State>>) {
    // End with the node.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(request, place, Arc::clone(&state)));
        connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new();
            // An error is a client that went away.
            connection.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    place: usize,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut state = state.lock().unwrap();
    Ok(match (&head.method, head.uri.path()) {
        (&Method::GET, "/v1/cluster") => {
            state.looks[place] += 1;
            json(200, serde_json::to_vec(&state.describe(place)).unwrap())
        }
        (&Method::POST, "/v1/storage") => {
            state.appends[place] += 1;
            let id = head.headers[wire::BATCH_ID].to_str().unwrap().to_owned();
            respond(state.append(place, id, &body))
        }
        (&Method::POST, "/v1/storage/batches") => {
            state.appends[place] += 1;
            state.append_together(place, body)
        }
        _ => refuse(404, "a stand-in has nothing there"),
    })
}

impl State {
    fn leader_url(&self) -> Option<String> {
        self.named.clone().or_else(|| self.leader.map(|place| self.urls[place].clone()))
    }

    fn append_together(&mut self, place: usize, body: Bytes) -> Response<Full<Bytes>> {
        let mut answers = Vec::new();
        for (head, lines) in batches::split(body).unwrap() {
            let appended = self.append(place, head.id.to_string(), &lines);
            answers.push(match appended {
                Ok(answer) => BatchAnswer {
                    partition: head.partition,
                    status: 200,
                    durability: Some("quorum".to_owned()),
                    leader: None,
                    retry_after: None,
                    body: to_raw_value(&answer).unwrap(),
                },
                Err(leader) => BatchAnswer {
                    partition: head.partition,
                    status: 421,
                    durability: None,
                    leader,
                    retry_after: None,
                    body: to_raw_value(&Problem::new(421, NOT_LEADING)).unwrap(),
                },
            });
        }
        let status = if answers.iter().all(|answer| answer.status == 200) { 200 } else { 207 };
        json(status, serde_json::to_vec(&BatchesAnswer { batches: answers }).unwrap())
    }

    /// Stores a batch; if this node does not lead, whom it names.
    fn append(&mut self, place: usize, id: String, body: &Bytes) -> Result<AppendAnswer, Option<String>> {
        if self.leader != Some(place) {
            return Err(self.leader_url().filter(|_| self.gives_hints));
        }
        let lines: Vec<&str> = std::str::from_utf8(body).unwrap().lines().collect();
        if self.ids.insert(id) {
            self.lines.extend(lines.iter().map(|line| (*line).to_owned()));
        }
        Ok(AppendAnswer { stored: lines.len() as u64, offset: Offset::ZERO })
    }

    fn describe(&self, place: usize) -> ClusterAnswer {
        let name = |place: usize| format!("node-{}", place + 1);
        let node = |(place, url): (usize, &String)| ClusterNode {
            id: None,
            name: name(place),
            url: url.clone(),
            zone: None,
            alive: true,
            draining: false,
        };
        let replica = |(place, url): (usize, &String)| Replica {
            node: name(place),
            url: url.clone(),
            role: if self.leader == Some(place) { ReplicaRole::Leader } else { ReplicaRole::Follower },
            flushed: Offset::ZERO,
            lag: 0,
        };
        let partition = |number| PartitionState {
            partition: Partition::new(number),
            leader: self.leader_url(),
            term: self.term,
            first_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
            replicas: self.urls.iter().enumerate().map(replica).collect(),
        };
        ClusterAnswer {
            node: name(place),
            nodes: self.urls.iter().enumerate().map(node).collect(),
            partitions: (0..self.partitions).map(partition).collect(),
        }
    }
}

/// What became of one batch, as an answer of its own.
fn respond(appended: Result<AppendAnswer, Option<String>>) -> Response<Full<Bytes>> {
    match appended {
        Ok(answer) => {
            let mut response = json(200, serde_json::to_vec(&answer).unwrap());
            response.headers_mut().insert(wire::DURABILITY, "quorum".parse().unwrap());
            response
        }
        Err(leader) => {
            let mut response = refuse(421, NOT_LEADING);
            if let Some(leader) = leader {
                response.headers_mut().insert(wire::LEADER, leader.parse().unwrap());
            }
            response
        }
    }
}

fn json(status: u16, body: Vec<u8>) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", wire::JSON);
    response.body(Full::new(body.into())).unwrap()
}

fn refuse(status: u16, detail: &str) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", problem::CONTENT_TYPE);
    response.body(Full::new(Problem::new(status, detail).to_json().into())).unwrap()
}
