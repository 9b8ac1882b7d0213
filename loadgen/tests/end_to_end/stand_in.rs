//! Stands in for the ingest and a storage node: keeps records in memory, and misbehaves as a test tells it to.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::problem::Problem;
use model::route::partition_of;
use model::wire::{self, ClusterAnswer, IngestAnswer, PartitionState, Rejected, Replica, ReplicaRole};
use model::{EnrichedRecord, Offset, Partition, PartitionCount, Record, Tenant};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// How many records one page holds: few, so that a run needs many pages.
const PAGE_RECORDS: usize = 7;
const PARTITIONS: u16 = 4;

/// What goes wrong with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its records are acknowledged and not stored.
    Lost,
    /// Its records are stored twice.
    StoredTwice,
    /// Its records are stored last first.
    StoredReversed,
    /// Its records are stored without what the ingest adds.
    StoredBare,
    /// A record is rejected.
    Rejected(usize),
    /// A record is rejected, and stored all the same.
    RejectedYetStored(usize),
    /// All of it is refused with a 400.
    Refused,
    /// It is answered with a count that is one short.
    Miscounted,
    /// It is acknowledged with a 202, and stored when storage was read to its end once.
    Queued,
    /// The connection closes before anything is stored: on the first attempt.
    ClosedBefore,
    /// The connection closes after all is stored: on the first attempt.
    ClosedAfter,
    /// The same, and the idempotency key is forgotten.
    ClosedAfterAndForgotten,
    /// 503 on so many attempts, with `Retry-After: 0`.
    Busy(usize),
    /// It is never answered.
    Silent,
}

type Body = BoxBody<Bytes, std::io::Error>;

/// What the stand-in remembers.
#[derive(Default)]
struct State {
    faults: HashMap<usize, Fault>,
    partitions: BTreeMap<Partition, Vec<String>>,
    /// The batches by their keys: the place of each in the order of arrival, and how often it was tried.
    batches: HashMap<String, (usize, usize)>,
    /// Keys whose records are stored.
    stored: HashSet<String>,
    /// Batches that are stored when storage was read to its end.
    queued: VecDeque<Vec<Record>>,
    /// Reads that found nothing more.
    ends_read: usize,
    /// Reads that break off in the middle of the answer.
    broken_reads: usize,
    content_types: Vec<String>,
}

/// A running stand-in.
pub(crate) struct StandIn {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    silent: Arc<Notify>,
    runtime: tokio::runtime::Runtime,
}

impl StandIn {
    /// Starts on a free port. The faults are given by the batch's place in the order of arrival.
    pub(crate) fn start(faults: impl IntoIterator<Item = (usize, Fault)>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { faults: faults.into_iter().collect(), ..State::default() }));
        let silent = Arc::new(Notify::new());
        runtime.spawn(serve(listener, Arc::clone(&state), Arc::clone(&silent)));
        Self { address, state, silent, runtime }
    }

    /// The URL of this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Lets the next so many reads break off in the middle of the answer.
    pub(crate) fn break_reads(&self, count: usize) {
        self.state.lock().unwrap().broken_reads = count;
    }

    /// Stores a line as some other writer would.
    pub(crate) fn store_line(&self, partition: u16, line: &str) {
        let mut state = self.state.lock().unwrap();
        state.partitions.entry(Partition::new(partition)).or_default().push(line.to_owned());
    }

    /// The content types of the batches so far.
    pub(crate) fn content_types(&self) -> Vec<String> {
        self.state.lock().unwrap().content_types.clone()
    }

    /// Waits until a batch with [`Fault::Silent`] has come.
    pub(crate) fn wait_for_silent_batch(&self) {
        let notified = async { tokio::time::timeout(Duration::from_secs(30), self.silent.notified()).await };
        self.runtime.block_on(notified).expect("no silent batch came within 30 s");
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>, silent: Arc<Notify>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (state, silent) = (Arc::clone(&state), Arc::clone(&silent));
        let service = service_fn(move |request| {
            let (state, silent) = (Arc::clone(&state), Arc::clone(&silent));
            async move { answer(request, &state, &silent).await }
        });
        tokio::spawn(async move {
            // An error here is a connection that a fault or the client closed.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

/// An error closes the connection without an answer.
async fn answer(
    request: Request<Incoming>,
    state: &Mutex<State>,
    silent: &Notify,
) -> Result<Response<Body>, &'static str> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/logs") => {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| "the client went away")?.to_bytes();
            match state.lock().unwrap().ingest(&head, &body)? {
                Some(response) => return Ok(response),
                None => silent.notify_one(),
            }
            std::future::pending().await
        }
        (&Method::GET, "/v1/cluster") => Ok(state.lock().unwrap().cluster()),
        (&Method::GET, "/v1/read") => {
            Ok(state.lock().unwrap().read(request.uri().query().unwrap_or_default()))
        }
        _ => Ok(respond(StatusCode::NOT_FOUND, String::new())),
    }
}

impl State {
    /// Takes a batch; `None` is never to answer, an error to close the connection.
    fn ingest(
        &mut self,
        head: &http::request::Parts,
        body: &[u8],
    ) -> Result<Option<Response<Body>>, &'static str> {
        let text = |name: &str| head.headers.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        let (key, content_type) = (text(wire::IDEMPOTENCY_KEY), text("content-type"));
        self.content_types.push(content_type.clone());
        let records: Vec<Record> = match content_type.as_str() {
            wire::NDJSON => body
                .split(|b| *b == b'\n')
                .filter(|l| !l.is_empty())
                .map(|l| serde_json::from_slice(l).unwrap())
                .collect(),
            _ => serde_json::from_slice(body).unwrap(),
        };

        let place = self.batches.len();
        let (place, attempts) = self.batches.entry(key.clone()).or_insert((place, 0));
        *attempts += 1;
        let (fault, attempt) = (self.faults.get(place).copied(), *attempts);
        let is_minimal = text("prefer") == "return=minimal";
        match fault {
            Some(Fault::Silent) => Ok(None),
            Some(Fault::ClosedBefore) if attempt == 1 => Err("closed before storing"),
            Some(Fault::ClosedAfter) if attempt == 1 => {
                self.store_once(key, &records);
                Err("closed after storing")
            }
            Some(Fault::ClosedAfterAndForgotten) if attempt == 1 => {
                self.store(&records, true);
                Err("closed after storing, and forgotten")
            }
            Some(Fault::Busy(times)) if attempt <= times => Ok(Some(busy())),
            Some(Fault::Refused) => {
                let problem = Problem::new(400, "no record is valid").to_json();
                Ok(Some(respond(StatusCode::BAD_REQUEST, String::from_utf8(problem).unwrap())))
            }
            Some(Fault::Queued) => {
                let answer = format!(r#"{{"received":{0},"queued":{0}}}"#, records.len());
                self.queued.push_back(records);
                Ok(Some(acknowledge(StatusCode::ACCEPTED, answer, "edge")))
            }
            fault => {
                let answer = self.take(fault, key, records);
                Ok(Some(match is_minimal {
                    true => acknowledge(StatusCode::NO_CONTENT, String::new(), "leader"),
                    false => acknowledge(StatusCode::OK, serde_json::to_string(&answer).unwrap(), "leader"),
                }))
            }
        }
    }

    /// Takes a batch that is acknowledged, and stores it well or badly.
    fn take(&mut self, fault: Option<Fault>, key: String, mut records: Vec<Record>) -> IngestAnswer {
        let mut answer =
            IngestAnswer { received: records.len(), queued: 0, rejected_total: None, rejected: Vec::new() };
        if let Some(Fault::Rejected(index) | Fault::RejectedYetStored(index)) = fault {
            answer.received -= 1;
            answer.rejected.push(Rejected {
                index,
                field: "message".to_owned(),
                error: "too rude".to_owned(),
            });
        }
        match fault {
            Some(Fault::Lost) => {}
            Some(Fault::StoredTwice) => (0..2).for_each(|_| self.store(&records, true)),
            Some(Fault::StoredReversed) => {
                records.reverse();
                self.store(&records, true);
            }
            Some(Fault::StoredBare) => self.store(&records, false),
            Some(Fault::Rejected(index)) => {
                records.remove(index);
                self.store(&records, true);
            }
            Some(Fault::Miscounted) => {
                answer.received -= 1;
                self.store(&records, true);
            }
            _ => self.store_once(key, &records),
        }
        answer
    }

    fn store_once(&mut self, key: String, records: &[Record]) {
        if self.stored.insert(key) {
            self.store(records, true);
        }
    }

    fn store(&mut self, records: &[Record], enriched: bool) {
        for record in records.iter().cloned() {
            let count = PartitionCount::new(PARTITIONS).unwrap();
            let partition = partition_of(&Tenant::default(), record.service.as_bytes(), count);
            let Record { timestamp, service, level, message, labels } = record;
            let added = |text: &str| if enriched { text.to_owned() } else { String::new() };
            let line = serde_json::to_string(&EnrichedRecord {
                timestamp,
                service,
                level,
                message,
                labels,
                received_at: 1,
                ingested_node_id: added("stand-in"),
                client_ip: added("127.0.0.1"),
            });
            self.partitions.entry(partition).or_default().push(line.unwrap());
        }
    }

    fn cluster(&self) -> Response<Body> {
        let (node, url) = ("stand-in".to_owned(), "http://stand-in:1".to_owned());
        let state = |partition| {
            let end = Offset::new(self.partitions.get(&partition).map_or(0, Vec::len) as u64);
            let (node, url) = (node.clone(), url.clone());
            PartitionState {
                partition,
                leader: Some(url.clone()),
                term: 0,
                first_offset: Offset::ZERO,
                high_watermark: end,
                replicas: vec![Replica { node, url, role: ReplicaRole::Leader, flushed: end, lag: 0 }],
            }
        };
        let partitions = (0..PARTITIONS).map(Partition::new).map(state).collect();
        let answer = ClusterAnswer { node, nodes: Vec::new(), partitions };
        respond(StatusCode::OK, serde_json::to_string(&answer).unwrap())
    }

    fn read(&mut self, query: &str) -> Response<Body> {
        let parameters: HashMap<_, _> = query.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
        let lines =
            self.partitions.get(&parameters["partition"].parse().unwrap()).map_or(&[][..], Vec::as_slice);
        let limit = PAGE_RECORDS.min(parameters["limit"].parse().unwrap());
        let from = lines.len().min(parameters["offset"].parse().unwrap());
        let to = lines.len().min(from + limit);
        // With every partition read to its end once, a reader that does not wait would leave.
        let is_end = from == to;
        let page: String = lines[from..to].iter().flat_map(|line| [line, "\n"]).collect();

        let mut response = respond(StatusCode::OK, page.clone());
        if self.broken_reads > 0 && !page.is_empty() {
            self.broken_reads -= 1;
            let half = Bytes::from(page[..page.len() / 2].to_owned());
            let frames = [Ok(Frame::data(half)), Err(std::io::Error::other("killed"))];
            *response.body_mut() = BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)));
        }
        response.headers_mut().insert("next-offset", to.into());
        self.ends_read += usize::from(is_end);
        if self.ends_read >= usize::from(PARTITIONS)
            && let Some(records) = self.queued.pop_front()
        {
            self.store(&records, true);
        }
        response
    }
}

fn busy() -> Response<Body> {
    let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, "come again".to_owned());
    response.headers_mut().insert(header::RETRY_AFTER, "0".parse().unwrap());
    response
}

fn acknowledge(status: StatusCode, body: String, durability: &str) -> Response<Body> {
    let mut response = respond(status, body);
    response.headers_mut().insert(wire::DURABILITY, durability.parse().unwrap());
    response
}

fn respond(status: StatusCode, body: String) -> Response<Body> {
    let never = |error: Infallible| match error {};
    let mut response = Response::new(BodyExt::boxed(Full::new(Bytes::from(body)).map_err(never)));
    *response.status_mut() = status;
    response
}
