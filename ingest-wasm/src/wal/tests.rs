//! A seeded simulation of the component between clients, a key-value store and storage, with crashes at any operation.
//!
//! Several clients send through one ingest process of two instances; nodes come and go, answers are lost, appends
//! arrive late; the process dies at a random operation, which may or may not have taken effect, and is started anew on
//! the same store. In the end: what was acknowledged is stored once, in the order of each client.

mod storage;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::executor::LocalPool;
use futures::future::poll_fn;
use futures::task::LocalSpawnExt;
use model::EnrichedRecord;

use crate::app;
use crate::body::tests::Pieces;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::tests::two_nodes;
use crate::config::{Config, StorageNode, WalBounds};
use crate::context::Context;
use crate::instance::InstanceState;
use crate::key_value::{KeyValue, KeyValueError};
use crate::limits;
use crate::message::{Afterwards, Answer, Method, RequestHead};
use crate::sparing::Sparing;
use crate::storage::{Call, Reply, SendError, Storage};
use storage::reply;

/// Runs of the simulation; `EDGELOG_SIMULATIONS` says otherwise.
const RUNS: u64 = 40;
/// A run that has not ended by then never would.
const STEPS_MAX: usize = 200_000;
const CLIENTS: usize = 4;
const BATCHES: usize = 12;
/// Services of all four partitions of two nodes.
const SERVICES: [&str; 4] = ["event_creator", "focus_allocator", "notification_service", "auth_service"];

/// Chance of one run.
#[derive(Debug)]
struct Chance(Cell<u64>);

impl Chance {
    fn next(&self) -> u64 {
        // SplitMix64.
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut mixed = self.0.get();
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// All that outlives a process: the store, the nodes and the clients' memories.
struct World {
    chance: Chance,
    /// No more faults.
    is_calm: Cell<bool>,
    now: Cell<Duration>,
    values: RefCell<BTreeMap<String, Vec<u8>>>,
    is_down: RefCell<HashMap<String, bool>>,
    /// Digests by batch id, and the bodies in order.
    stored: RefCell<BTreeMap<String, Partition>>,
    late: RefCell<Vec<Call>>,
    process: RefCell<Rc<Process>>,
    deaths: Cell<usize>,
    replays: Cell<usize>,
    edge_acks: Cell<usize>,
    steps: Cell<usize>,
}

#[derive(Debug, Default)]
struct Partition {
    digests: HashMap<String, String>,
    records: Vec<EnrichedRecord>,
}

/// An ingest process: what dies at once.
struct Process {
    instances: [(InstanceState, Budget); 2],
    operations_left: Cell<u64>,
    is_dead: Cell<bool>,
    config: Config,
}

impl Process {
    fn new(chance: &Chance, wal: WalBounds) -> Rc<Self> {
        let instance = || (InstanceState::new(), Budget::new(limits::BODIES_BYTES_MAX));
        let config = Config { wal: Some(wal), ..two_nodes() };
        let operations_left = Cell::new(20 + chance.below(400));
        Rc::new(Self {
            instances: [instance(), instance()],
            operations_left,
            is_dead: Cell::new(false),
            config,
        })
    }
}

/// The runtime of one process.
struct Sim {
    world: Rc<World>,
    process: Rc<Process>,
}

/// What the process's last operation comes to.
enum Step {
    Goes,
    /// It takes effect, and nobody learns of it.
    DiesAfter,
    DiesBefore,
}

impl Sim {
    /// The runtime as one of the instances has it.
    fn sparing(&self, place: usize) -> Sparing<'_, Self> {
        Sparing::new(self, &self.process.instances[place].0.time)
    }

    /// What a request at one of the instances works with.
    fn context<'c>(
        &'c self,
        storage: &'c Sparing<'c, Self>,
        place: usize,
        now_ms: u64,
        random: u128,
    ) -> Context<'c, Sparing<'c, Self>> {
        let (instance, budget) = &self.process.instances[place];
        let trace = model::trace::TraceParent::unsampled(random);
        Context { config: &self.process.config, storage, budget, instance, now_ms, random, trace }
    }

    async fn step(&self) -> Step {
        let mut yields = self.world.chance.below(4);
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            yields = yields.saturating_sub(1);
            if yields == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let world = &self.world;
        world.steps.set(world.steps.get() + 1);
        assert!(world.steps.get() < STEPS_MAX, "it does not come to an end");
        world.now.set(world.now.get() + Duration::from_millis(world.chance.below(20)));
        if self.process.is_dead.get() {
            // Whatever loops on, ends in time.
            world.now.set(world.now.get() + Duration::from_millis(100));
            return Step::DiesBefore;
        }
        let left = self.process.operations_left.get();
        if left > 0 || world.is_calm.get() {
            self.process.operations_left.set(left.saturating_sub(1));
            return Step::Goes;
        }
        self.process.is_dead.set(true);
        world.deaths.set(world.deaths.get() + 1);
        if world.chance.one_in(2) { Step::DiesAfter } else { Step::DiesBefore }
    }

    async fn value<T>(
        &self,
        operate: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T,
    ) -> Result<T, KeyValueError> {
        let dead = || KeyValueError::Failed("dead".to_owned());
        match self.step().await {
            Step::Goes => Ok(operate(&mut self.world.values.borrow_mut())),
            Step::DiesAfter => {
                operate(&mut self.world.values.borrow_mut());
                Err(dead())
            }
            Step::DiesBefore => Err(dead()),
        }
    }
}

impl KeyValue for Sim {
    async fn keys(&self) -> Result<Vec<String>, KeyValueError> {
        self.value(|values| values.keys().cloned().collect()).await
    }

    async fn get(&self, key: String) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.value(|values| values.get(&key).cloned()).await
    }

    async fn set(&self, key: String, value: Vec<u8>) -> Result<(), KeyValueError> {
        self.value(|values| drop(values.insert(key, value))).await
    }

    async fn delete(&self, key: String) -> Result<(), KeyValueError> {
        self.value(|values| drop(values.remove(&key))).await
    }
}

impl Clock for Sim {
    fn elapsed(&self) -> Duration {
        self.world.now.get()
    }

    async fn pause(&self, duration: Duration) {
        self.step().await;
        self.world.now.set(self.world.now.get() + duration);
    }
}

impl Storage for Sim {
    type Body = Pieces;

    async fn send(&self, node: &StorageNode, call: Call) -> Result<Reply<Pieces>, SendError> {
        let world = &self.world;
        let dead = Err(SendError::Failed("dead".to_owned()));
        match self.step().await {
            Step::Goes => {}
            Step::DiesAfter => {
                world.append(&call);
                return dead;
            }
            Step::DiesBefore => return dead,
        }
        if !world.is_calm.get() {
            if world.is_down.borrow().get(&node.authority).copied().unwrap_or_default() {
                return Err(SendError::Failed("connection refused".to_owned()));
            }
            match world.chance.below(24) {
                0 => {
                    world.append(&call);
                    return Err(SendError::TimedOut);
                }
                1 => {
                    // It waits in a socket.
                    world.late.borrow_mut().push(call);
                    return Err(SendError::TimedOut);
                }
                2 => return Ok(reply(503, b"{}".to_vec())),
                3 => return Ok(reply(500, b"oh".to_vec())),
                4 => {
                    world.append(&call);
                    return Ok(reply(200, b"<garbage>".to_vec()));
                }
                5 => return Ok(reply(429, b"{}".to_vec())),
                6 => {
                    let mut astray = reply(421, b"{}".to_vec());
                    astray.headers = [("leader", world.some_node())].into_iter().collect();
                    return Ok(astray);
                }
                7 => return Ok(reply(421, b"{}".to_vec())),
                _ => {}
            }
        }
        // Between its arrival and its answer others come.
        let answer = world.append(&call);
        match self.step().await {
            Step::Goes => Ok(answer),
            Step::DiesAfter | Step::DiesBefore => dead,
        }
    }
}

impl World {
    fn process(&self) -> Rc<Process> {
        let mut process = self.process.borrow_mut();
        if process.is_dead.get() {
            let wal = process.config.wal.unwrap();
            *process = Process::new(&self.chance, wal);
        }
        Rc::clone(&process)
    }

    /// Nodes come and go, and what waited in sockets arrives.
    fn disturb(&self) {
        let node = format!("node-{}:8081", 1 + self.chance.below(2));
        let is_down = !self.chance.one_in(3);
        self.is_down.borrow_mut().insert(node, is_down);
        if self.chance.one_in(2) {
            let late = std::mem::take(&mut *self.late.borrow_mut());
            late.iter().for_each(|call| drop(self.append(call)));
        }
    }
}

/// Answers a request in a process, and has the rest done beside what follows.
async fn respond(
    world: &Rc<World>,
    spawner: &futures::executor::LocalSpawner,
    head: RequestHead,
    body: String,
) -> Option<Answer> {
    let process = world.process();
    let sim = Rc::new(Sim { world: Rc::clone(world), process });
    let place = world.chance.below(2) as usize;
    let (now_ms, random) = (1_000 + world.now.get().as_millis() as u64, u128::from(world.chance.next()));
    let response = {
        let sparing = sim.sparing(place);
        let context = sim.context(&sparing, place, now_ms, random);
        sparing.run(app::respond(&context, &head, &mut Pieces::of(&[body.as_bytes()]))).await
    };
    if sim.process.is_dead.get() {
        return None;
    }
    if response.afterwards != Afterwards::Nothing {
        world.replays.set(world.replays.get() + 1);
        let follow_up = async move {
            let sparing = sim.sparing(place);
            let context = sim.context(&sparing, place, now_ms, random);
            sparing.run(app::follow_up(&context, response.afterwards)).await;
        };
        spawner.spawn_local(follow_up).unwrap();
    }
    Some(response.answer)
}

fn request(path: &str, key: &str) -> RequestHead {
    let headers = [("idempotency-key", key.to_owned())].into_iter().collect();
    RequestHead { method: Method::Post, path: path.to_owned(), query: String::new(), headers }
}

/// What a client was told of one batch: its records' messages by service, and whether they were acknowledged.
type Sent = Vec<(String, String, bool)>;

/// Sends batches one after another, each until it is acknowledged or given up.
async fn client(world: Rc<World>, spawner: futures::executor::LocalSpawner, number: usize) -> Sent {
    let mut sent = Sent::new();
    for batch in 0..BATCHES {
        let services: Vec<&str> =
            SERVICES.into_iter().filter(|_| world.chance.one_in(2)).chain([SERVICES[number]]).collect();
        let filler = "x".repeat(world.chance.below(700) as usize);
        let message = |place: usize| format!("{number}:{batch}:{place}:{filler}");
        let records: Vec<_> = services
            .iter()
            .enumerate()
            .map(|(place, service)| format!(r#"{{"service":"{service}","message":"{}"}}"#, message(place)))
            .collect();
        let body = format!("[{}]", records.join(","));
        let gives_up = world.chance.one_in(5);
        let is_acked = loop {
            if world.chance.one_in(4) {
                world.disturb();
            }
            let answer =
                respond(&world, &spawner, request("/v1/logs", &format!("{number}-{batch}")), body.clone())
                    .await;
            match answer.map(|answer| answer.status) {
                Some(200) => break true,
                Some(202) => {
                    world.edge_acks.set(world.edge_acks.get() + 1);
                    break true;
                }
                Some(503) | None if gives_up => break false,
                Some(503) | None => {}
                Some(status) => panic!("a good batch was answered {status}"),
            }
        };
        sent.extend(
            services
                .iter()
                .enumerate()
                .map(|(place, service)| ((*service).to_owned(), message(place), is_acked)),
        );
    }
    sent
}

/// One run: what was acknowledged is stored once and in order.
fn simulate(seed: u64) -> Rc<World> {
    let chance = Chance(Cell::new(seed));
    let bounds = [(1 << 20, 1_000), (6_000, 1_000), (1 << 20, 4)];
    let (bytes_max, entries_max) = bounds[chance.below(3) as usize];
    let process = Process::new(&chance, WalBounds { bytes_max, entries_max });
    let world = Rc::new(World {
        chance,
        is_calm: Cell::new(false),
        now: Cell::default(),
        values: RefCell::default(),
        is_down: RefCell::default(),
        stored: RefCell::default(),
        late: RefCell::default(),
        process: RefCell::new(process),
        deaths: Cell::default(),
        replays: Cell::default(),
        edge_acks: Cell::default(),
        steps: Cell::default(),
    });
    let mut pool = LocalPool::new();
    let spawner = pool.spawner();
    let clients = (0..CLIENTS).map(|number| client(Rc::clone(&world), spawner.clone(), number));
    let sent = pool.run_until(futures::future::join_all(clients));
    pool.run();

    // Peace: everything is up, and somebody asks for a replay, twice at once.
    world.is_calm.set(true);
    std::mem::take(&mut *world.late.borrow_mut()).iter().for_each(|call| drop(world.append(call)));
    for _ in 0..4 {
        world.now.set(world.now.get() + Duration::from_secs(60));
        let replay = || respond(&world, &spawner, request("/v1/wal/replay", "r"), String::new());
        let (first, second) = pool.run_until(futures::future::join(replay(), replay()));
        assert_eq!((first.unwrap().status, second.unwrap().status), (200, 200));
        pool.run();
    }
    let held: Vec<String> = world.values.borrow().keys().cloned().collect();
    let listing = super::Listing::of(&held);
    assert!(listing.is_empty() && listing.set_aside().is_empty(), "{held:?}");
    check(&world, &sent);
    world
}

fn check(world: &World, sent: &[Sent]) {
    let stored = world.stored.borrow();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for partition in stored.values() {
        for (place, record) in partition.records.iter().enumerate() {
            *seen.entry(&record.message).or_default() += 1;
            places.insert(&record.message, place);
        }
    }
    for sent in sent {
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (service, message, is_acked) in sent {
            let count = seen.get(message.as_str()).copied().unwrap_or_default();
            assert!(count <= 1, "{message} is stored {count} times");
            if *is_acked {
                assert_eq!(count, 1, "{message} was acknowledged");
                let place = places[message.as_str()];
                let before = last.insert(service, place);
                assert!(before.is_none_or(|before| before < place), "{message} of {service} is out of order");
            }
        }
    }
}

#[test]
fn what_was_acknowledged_is_stored_once_and_in_order_whatever_dies_when() {
    let runs = std::env::var("EDGELOG_SIMULATIONS").map_or(RUNS, |text| text.parse().unwrap());
    let (mut deaths, mut replays, mut edge_acks) = (0, 0, 0);
    for seed in 0..runs {
        eprintln!("seed {seed}");
        let world = simulate(seed);
        deaths += world.deaths.get();
        replays += world.replays.get();
        edge_acks += world.edge_acks.get();
    }
    // It is no proof if nothing happened.
    assert!(
        deaths as u64 > runs && replays as u64 > runs && edge_acks as u64 > runs,
        "{deaths} {replays} {edge_acks}"
    );
}
