//! A storage that the tests script, and requests to try on it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Poll;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::poll_fn;
use model::batches::{self, BatchAnswer, BatchHead, BatchesAnswer};
use model::wire::{self, AppendAnswer, ClusterAnswer, ClusterNode, PartitionState};
use model::{EnrichedRecord, Offset, Partition, Problem, ValidBatch};
use serde_json::value::RawValue;

use crate::app;
use crate::body::SourceError;
use crate::body::tests::Pieces;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::{Config, StorageNode};
use crate::context::Context;
use crate::instance::InstanceState;
use crate::key_value::{KeyValue, KeyValueError};
use crate::limits;
use crate::message::{Answer, Headers, Method, RequestHead, Response};
use crate::sparing::Sparing;
use crate::storage::{Call, Reply, SendError, Storage};

pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// What a node does when it is called.
#[derive(Clone, Debug)]
pub(crate) enum Reaction {
    Reply {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    Error(SendError),
    /// The head comes, and half of the body.
    Breaks,
}

impl Reaction {
    pub(crate) fn reply(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Reply { status, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn problem(status: u16, detail: &str) -> Self {
        Self::reply(status, Problem::new(status, detail).to_json())
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Reply { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }

    /// What storage answers to an append of so many records.
    pub(crate) fn stored(count: usize) -> Self {
        let answer = AppendAnswer { stored: count as u64, offset: Offset::ZERO };
        Self::reply(200, serde_json::to_vec(&answer).unwrap()).with("durability", "leader")
    }

    /// What a node says of partitions, their leaders and the term.
    pub(crate) fn cluster(node: &StorageNode, leaders: &[(u16, Option<&str>)], term: u64) -> Self {
        let nodes = vec![ClusterNode {
            id: None,
            name: node.authority.clone(),
            url: node.to_string(),
            zone: None,
            alive: true,
            draining: false,
        }];
        let partitions = leaders.iter().map(|(partition, leader)| PartitionState {
            partition: Partition::new(*partition),
            leader: leader.map(str::to_owned),
            term,
            first_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
            replicas: Vec::new(),
        });
        let answer = ClusterAnswer { node: node.authority.clone(), nodes, partitions: partitions.collect() };
        Self::reply(200, serde_json::to_vec(&answer).unwrap())
    }

    pub(crate) fn refused_connection() -> Self {
        Self::Error(SendError::Failed("connection refused".to_owned()))
    }
}

type ClusterScript<'s> = Box<dyn FnMut(&StorageNode) -> Reaction + 's>;
type Script<'s> = Box<dyn FnMut(&StorageNode, &Call) -> Reaction + 's>;

/// Storage nodes that follow a script.
pub(crate) struct Fake<'s> {
    script: RefCell<Script<'s>>,
    /// The batches that came, each as if it had come alone.
    pub(crate) calls: RefCell<Vec<(String, Call)>>,
    /// Where requests of several batches went, and of how many.
    pub(crate) together: RefCell<Vec<(String, usize)>>,
    /// What they are answered, whatever the script says.
    pub(crate) together_answer: RefCell<Option<Reaction>>,
    /// Whether nodes know such requests.
    pub(crate) knows_together: Cell<bool>,
    /// What nodes say of the cluster; by default, that each partition has one copy.
    pub(crate) cluster: RefCell<ClusterScript<'s>>,
    /// Who was asked that.
    pub(crate) looks: RefCell<Vec<String>>,
    pub(crate) pauses: RefCell<Vec<Duration>>,
    in_flight: Cell<usize>,
    pub(crate) in_flight_max: Cell<usize>,
    pub(crate) elapsed: Cell<Duration>,
    /// How often the time was asked for.
    pub(crate) clock_readings: Cell<usize>,
    /// How long every call takes at least, the store's too.
    pub(crate) call_time: Cell<Duration>,
    /// How long a call takes, unless it may not take that long.
    pub(crate) send_time: Cell<Duration>,
    pub(crate) values: RefCell<BTreeMap<String, Vec<u8>>>,
    /// What the store answers to everything.
    pub(crate) store_error: RefCell<Option<KeyValueError>>,
    pub(crate) instance: InstanceState,
}

impl<'s> Fake<'s> {
    pub(crate) fn new(script: impl FnMut(&StorageNode, &Call) -> Reaction + 's) -> Self {
        Self {
            script: RefCell::new(Box::new(script)),
            calls: RefCell::default(),
            together: RefCell::default(),
            together_answer: RefCell::default(),
            knows_together: Cell::new(true),
            cluster: RefCell::new(Box::new(|node| {
                Reaction::cluster(node, &[(9, Some(&node.to_string()))], 0)
            })),
            looks: RefCell::default(),
            pauses: RefCell::default(),
            in_flight: Cell::new(0),
            in_flight_max: Cell::new(0),
            elapsed: Cell::default(),
            clock_readings: Cell::default(),
            call_time: Cell::default(),
            send_time: Cell::default(),
            values: RefCell::default(),
            store_error: RefCell::default(),
            instance: InstanceState::new(),
        }
    }

    /// What every call of the store begins with.
    fn store_call(&self) -> Result<(), KeyValueError> {
        self.elapsed.set(self.elapsed.get() + self.call_time.get());
        self.store_error.borrow().clone().map_or(Ok(()), Err)
    }

    /// The surroundings of a request that this serves.
    pub(crate) fn context<'c>(&'c self, config: &'c Config, budget: &'c Budget) -> Context<'c, Self> {
        self.context_of(self, config, budget)
    }

    /// The same, with this as the component has it.
    pub(crate) fn context_of<'c, S>(
        &'c self,
        storage: &'c S,
        config: &'c Config,
        budget: &'c Budget,
    ) -> Context<'c, S> {
        let random = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
        Context {
            config,
            storage,
            budget,
            instance: &self.instance,
            now_ms: NOW_MS,
            random,
            trace: model::trace::TraceParent::unsampled(random),
        }
    }

    /// This as the component has it: the clock is asked sparingly.
    pub(crate) fn sparing(&self) -> Sparing<'_, Self> {
        Sparing::new(self, &self.instance.time)
    }

    /// Nodes that store all that is valid.
    pub(crate) fn storing() -> Self {
        Self::new(|_node, call| match ValidBatch::from_ndjson(call.body.clone().unwrap_or_default()) {
            Ok(batch) => Reaction::stored(batch.record_count() as usize),
            Err(error) => Reaction::reply(400, error.problem().to_json()),
        })
    }

    fn take(&self, node: &StorageNode, call: Call) -> Reaction {
        let reaction = (self.script.borrow_mut())(node, &call);
        self.calls.borrow_mut().push((node.to_string(), call));
        reaction
    }

    /// Takes each batch as if it had come alone. Where the script fails a call, it fails the whole one.
    fn take_together(&self, node: &StorageNode, call: &Call) -> Reaction {
        let batches = alone(call);
        self.together.borrow_mut().push((node.to_string(), batches.len()));
        if let Some(answer) = &*self.together_answer.borrow() {
            return answer.clone();
        }
        if !self.knows_together.get() {
            return Reaction::problem(404, "there is nothing at /v1/storage/batches");
        }
        let mut answers = Vec::new();
        for (partition, batch) in batches {
            match self.take(node, batch) {
                Reaction::Reply { status, headers, body } => answers.push((partition, status, headers, body)),
                failure => return failure,
            }
        }
        Reaction::reply(200, answer_together(answers))
    }

    /// The records that were sent, by path.
    pub(crate) fn records(&self) -> BTreeMap<String, Vec<EnrichedRecord>> {
        let calls = self.calls.borrow();
        let records = |call: &Call| {
            let text = std::str::from_utf8(call.body.as_ref().unwrap()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        calls.iter().map(|(node, call)| (format!("{node}{}", call.path_and_query), records(call))).collect()
    }

    /// A header of every call, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let calls = self.calls.borrow();
        let header = |call: &Call| {
            call.headers.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone())
        };
        calls.iter().filter_map(|(_, call)| header(call)).collect()
    }
}

/// The batches of a request, each as if it came alone.
pub(crate) fn alone(call: &Call) -> Vec<(Partition, Call)> {
    let found = batches::split(call.body.clone().unwrap()).unwrap();
    let alone = |(BatchHead { partition, id, digest, .. }, lines)| {
        let mut headers = call.headers.clone();
        headers.retain(|(name, _)| *name != "content-type");
        headers.push(("content-type", wire::NDJSON.to_owned()));
        headers.push((wire::BATCH_ID, id.to_string()));
        headers.push((wire::BATCH_DIGEST, digest.to_string()));
        let path_and_query = format!("/v1/storage?partition={partition}");
        (partition, Call { path_and_query, headers, body: Some(lines), ..call.clone() })
    };
    found.into_iter().map(alone).collect()
}

/// A partition, and the status, the headers and the body of what its batch would be answered alone.
pub(crate) type AnswerAlone = (Partition, u16, Vec<(&'static str, String)>, Vec<u8>);

/// What became of each batch of a request, as its answer says it.
pub(crate) fn answer_together(answers: Vec<AnswerAlone>) -> Vec<u8> {
    let answer = |(partition, status, headers, body): AnswerAlone| {
        let header = |name| headers.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone());
        BatchAnswer {
            partition,
            status,
            durability: header("durability"),
            leader: header("leader"),
            retry_after: header("retry-after").map(|seconds| seconds.parse().unwrap()),
            body: RawValue::from_string(String::from_utf8(body).unwrap()).unwrap(),
        }
    };
    let batches = answers.into_iter().map(answer).collect();
    serde_json::to_vec(&BatchesAnswer { batches }).unwrap()
}

/// Lets the other tasks go on first.
pub(crate) async fn others_turn() {
    let mut has_waited = false;
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::replace(&mut has_waited, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Storage for Fake<'_> {
    type Body = Pieces;

    async fn send(&self, node: &StorageNode, call: Call) -> Result<Reply<Pieces>, SendError> {
        self.in_flight.set(self.in_flight.get() + 1);
        self.in_flight_max.set(self.in_flight_max.get().max(self.in_flight.get()));
        // Everyone who sends at once is in flight before the first answer.
        others_turn().await;
        self.in_flight.set(self.in_flight.get() - 1);
        let takes = self.send_time.get().max(self.call_time.get());
        self.elapsed.set(self.elapsed.get() + takes.min(call.time_max));
        let reaction = if call.path_and_query == "/v1/cluster" {
            self.looks.borrow_mut().push(node.to_string());
            (self.cluster.borrow_mut())(node)
        } else if call.path_and_query == "/v1/storage/batches" {
            self.take_together(node, &call)
        } else {
            self.take(node, call)
        };
        match reaction {
            Reaction::Reply { status, mut headers, body } => {
                headers.push(("content-length", body.len().to_string()));
                let headers: Headers = headers.into_iter().collect();
                Ok(Reply { status, headers, body: Pieces::of(&[&body]) })
            }
            Reaction::Breaks => {
                let mut body = Pieces::of(&[b"{\"stored\":"]);
                body.failure = Some(SourceError::BrokeOff("the connection broke".to_owned()));
                Ok(Reply { status: 200, headers: Headers::default(), body })
            }
            Reaction::Error(error) => Err(error),
        }
    }
}

impl Clock for Fake<'_> {
    fn elapsed(&self) -> Duration {
        self.clock_readings.set(self.clock_readings.get() + 1);
        self.elapsed.get()
    }

    async fn pause(&self, duration: Duration) {
        self.pauses.borrow_mut().push(duration);
        self.elapsed.set(self.elapsed.get() + duration);
        others_turn().await;
    }
}

/// A store that keeps what it is given, unless it is told to fail.
impl KeyValue for Fake<'_> {
    async fn keys(&self) -> Result<Vec<String>, KeyValueError> {
        self.store_call()?;
        Ok(self.values.borrow().keys().cloned().collect())
    }

    async fn get(&self, key: String) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.store_call()?;
        Ok(self.values.borrow().get(&key).cloned())
    }

    async fn set(&self, key: String, value: Vec<u8>) -> Result<(), KeyValueError> {
        self.store_call()?;
        assert!(value.len() < 1_000_000, "hosted Spin takes values below 1 MB");
        self.values.borrow_mut().insert(key, value);
        Ok(())
    }

    async fn delete(&self, key: String) -> Result<(), KeyValueError> {
        self.store_call()?;
        self.values.borrow_mut().remove(&key);
        Ok(())
    }
}

/// A request to be tried.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    pub(crate) head: RequestHead,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Pieces,
}

impl Try {
    pub(crate) fn new(method: Method, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let head = RequestHead { method, path, query, headers: Headers::default() };
        let headers = vec![("spin-client-addr", "192.0.2.7:4711".to_owned())];
        Self { head, headers, body: Pieces::of(&[]) }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new(Method::Get, target)
    }

    pub(crate) fn post(body: impl AsRef<[u8]>) -> Self {
        let mut post = Self::new(Method::Post, "/v1/logs");
        post.body = Pieces::of(&[body.as_ref()]);
        post
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The answer, with storage as scripted, a configuration, and a time.
    pub(crate) fn answer_with(&self, fake: &Fake<'_>, config: &Config, now_ms: u64) -> Answer {
        self.respond(fake, config, now_ms).answer
    }

    pub(crate) fn respond(&self, fake: &Fake<'_>, config: &Config, now_ms: u64) -> Response {
        let budget = Budget::new(limits::BODIES_BYTES_MAX);
        let sparing = fake.sparing();
        let context = Context { now_ms, ..fake.context_of(&sparing, config, &budget) };
        let mut head = self.head.clone();
        head.headers = self.headers.iter().cloned().collect();
        let mut body = self.body.clone();
        let response = block_on(sparing.run(app::respond(&context, &head, &mut body)));
        assert_eq!(budget.in_use(), 0, "all bytes came back");
        response
    }

    pub(crate) fn answer(&self, fake: &Fake<'_>) -> Answer {
        self.answer_with(fake, &crate::config::tests::two_nodes(), NOW_MS)
    }
}

/// A header of an answer.
pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
}

/// The body of an answer as text.
pub(crate) fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// The problem that an answer is.
pub(crate) fn problem(answer: &Answer) -> Problem {
    assert_eq!(header(answer, "content-type"), Some(model::problem::CONTENT_TYPE));
    let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem.status, answer.status);
    problem
}
