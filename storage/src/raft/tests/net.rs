//! Replicas on simulated disks, and the lines between them: what tests of running replicas share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::Partition;
use model::wire::Durability;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::super::codec::{Answer, AppendHead, decode_append, encode_append};
use super::super::handover::Heralds;
use super::super::network::NetError;
use super::super::room::Room;
use super::super::snapshot::{Offer, PieceOf, SegmentSource};
use super::super::state::GroupState;
use super::super::types::{Member, NodeId, SavedVote, Vote};
use super::super::{Directory, FoundLog, Group, GroupParts, LogStore, Timing, TypeConfig};
use crate::log::tests::random::Random;
use crate::log::tests::sim_disk::SimDisk;
use crate::log::{AlteredEnd, LogError, LogOptions, LogReader, Manifest, PartitionLog};
use crate::metrics::Metrics;
use crate::outbound::{CallError, Scheme};
use crate::partition::{self, PartitionHandle, QueueLimits};
use crate::simulated;

pub(super) const DIR: &str = "/data/partition-0";
pub(super) const PARTITION: Partition = Partition::new(0);
/// Short, so that a run has many elections.
pub(super) const ELECTION: Duration = Duration::from_millis(200);
/// How long the disk and a message take at most in simulations, where nothing is slow.
const DISK_MS_MAX: u64 = 2;
const LINE_MS_MAX: u64 = 2;
/// How long a replica that was not reached is left alone.
const BACKOFF: Duration = Duration::from_millis(20);

/// The lines between the nodes, and who answers at their ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Net(pub(super) Arc<Mutex<NetState>>);

#[derive(Debug, Default)]
pub(super) struct NetState {
    pub(super) groups: BTreeMap<NodeId, Group>,
    /// Lines on which nothing arrives, by direction.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) delay: Duration,
    /// Nodes that do nothing for a while, as a machine that is stopped: what is sent to them waits, and so does what
    /// they have to say. Told when that is over for one. In simulations alone, as is the next.
    pub(super) frozen: BTreeSet<NodeId>,
    thawed: Arc<Notify>,
    /// How many milliseconds a disk takes at most for what it is told.
    pub(super) slow_ms_max: BTreeMap<NodeId, u64>,
    /// The actors of replicas that run or ran: none of them is to panic.
    actors: Vec<JoinHandle<Result<(), LogError>>>,
    /// Whether nothing arrives but the question whether a leader still leads, of one that does not know yet what others
    /// have.
    pub(super) only_questions: bool,
    /// How many entries each replica keeps of what is agreed on; all of them, if it is not said.
    pub(super) purge_after: Option<u64>,
    /// The election timeout, if it is another than [`ELECTION`].
    pub(super) election: Option<Duration>,
    /// How often a replica got whole segments.
    pub(super) copies: u64,
}

/// The line from one node to another.
struct Line {
    net: Net,
    from: NodeId,
    to: NodeId,
}

struct LineFactory {
    net: Net,
    from: NodeId,
}

impl Net {
    /// Replicas whose times are long enough for a machine that does much else.
    pub(super) fn patient() -> Self {
        let net = Self::default();
        net.0.lock().election = Some(Duration::from_secs(2));
        net
    }

    fn timing(&self) -> Timing {
        Timing::new(self.0.lock().election.unwrap_or(ELECTION))
    }

    pub(super) fn heal(&self) {
        let mut state = self.0.lock();
        state.cut.clear();
        state.delay = Duration::ZERO;
        state.slow_ms_max.clear();
        state.frozen.clear();
        state.thawed.notify_waiters();
    }

    /// Waits until a node is not frozen.
    pub(super) async fn awake(&self, node: NodeId) {
        loop {
            let thawed = Arc::clone(&self.0.lock().thawed);
            let mut thawed = pin!(thawed.notified());
            thawed.as_mut().enable();
            if !self.0.lock().frozen.contains(&node) {
                return;
            }
            thawed.await;
        }
    }

    /// Waits as long as a node's disk takes for the next thing.
    async fn at_disk(self, node: NodeId) {
        self.awake(node).await;
        let slow_ms_max = self.0.lock().slow_ms_max.get(&node).copied();
        let ms = simulated::below(slow_ms_max.unwrap_or(DISK_MS_MAX) + 1);
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        self.awake(node).await;
    }

    /// Ends a run: whatever is wrong with an actor comes out.
    pub(super) async fn join_actors(&self) {
        let actors = std::mem::take(&mut self.0.lock().actors);
        for actor in actors {
            // That its disk was dead is no wonder.
            actor.await.unwrap().ok();
        }
    }

    /// The replica at the end of a line, if the line and the replica work.
    async fn reach(&self, from: NodeId, to: NodeId) -> Result<Group, NetError> {
        self.awake(from).await;
        let mut delay = self.0.lock().delay;
        if simulated::is_entered() {
            // Each message its own: they overtake one another.
            let most = u64::try_from(delay.as_millis()).unwrap() + LINE_MS_MAX;
            delay = Duration::from_millis(simulated::below(most + 1));
        }
        tokio::time::sleep(delay).await;
        self.awake(to).await;
        let state = self.0.lock();
        match state.groups.get(&to) {
            Some(group) if !state.cut.contains(&(from, to)) => Ok(group.clone()),
            _ => Err(NetError::Nowhere { target: to }),
        }
    }
}

impl Line {
    async fn append(&self, request: AppendEntriesRequest<TypeConfig>) -> Result<Answer, NetError> {
        let is_question = request.entries.is_empty() && request.prev_log_id.is_none();
        if self.net.0.lock().only_questions && !is_question {
            return Err(NetError::Nowhere { target: self.to });
        }
        simulated::note(|| format!("{}>{} {request:?}", self.from, self.to));
        let bytes = encode_append(request)?.concat();
        let group = self.net.reach(self.from, self.to).await?;
        let request = decode_append(PARTITION, bytes.into())?;
        let answer = group.answer_append(request).await;
        self.comes_back(answer).await
    }

    async fn ask_for_vote(&self, request: VoteRequest<NodeId>) -> Result<Answer, NetError> {
        simulated::note(|| format!("{}>{} {request:?}", self.from, self.to));
        let group = self.net.reach(self.from, self.to).await?;
        let answer = group.answer_vote(request).await;
        self.comes_back(answer).await
    }

    /// The answer has to come back too.
    async fn comes_back<T: std::fmt::Debug>(&self, answer: T) -> Result<T, NetError> {
        self.net.awake(self.to).await;
        self.net.awake(self.from).await;
        simulated::note(|| format!("{}<{} {answer:?}", self.from, self.to));
        let is_cut = self.net.0.lock().cut.contains(&(self.to, self.from));
        if is_cut { Err(NetError::Nowhere { target: self.to }) } else { Ok(answer) }
    }
}

type LineError = RPCError<NodeId, Member, RaftError<NodeId>>;

async fn unreachable(error: NetError) -> LineError {
    if simulated::is_entered() {
        // The library's own waiting takes what happens meanwhile in an order that nobody can choose.
        tokio::time::sleep(BACKOFF).await;
        return RPCError::Network(NetworkError::new(&error));
    }
    RPCError::Unreachable(Unreachable::new(&error))
}

impl RaftNetworkFactory<TypeConfig> for LineFactory {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, _: &Member) -> Line {
        Line { net: self.net.clone(), from: self.from, to: target }
    }
}

impl RaftNetwork<TypeConfig> for Line {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, LineError> {
        let answer = self.append(request).await;
        match answer.and_then(|answer| answer.into_append().map_err(NetError::Replica)) {
            Ok(response) => Ok(response),
            Err(error) => Err(unreachable(error).await),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, LineError> {
        let answer = self.ask_for_vote(request).await;
        match answer.and_then(|answer| answer.into_vote().map_err(NetError::Replica)) {
            Ok(response) => Ok(response),
            Err(error) => Err(unreachable(error).await),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let copied = async {
            let nothing = || NetError::Replica("there is nothing in the snapshot".to_owned());
            let offer = Offer::new(vote, &snapshot).ok_or_else(nothing)?;
            let group = self.net.reach(self.from, self.to).await?;
            let source = LineSource { net: self.net.clone(), from: self.to, to: self.from };
            let vote = group.receive_from(source, offer).await.map_err(NetError::Replica)?;
            self.net.0.lock().copies += 1;
            self.comes_back(vote).await
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            copied = copied => match copied {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Network(NetworkError::new(&error))),
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// What a leader that goes has others told, over the lines.
pub(super) struct NetHeralds {
    pub(super) net: Net,
    pub(super) from: NodeId,
}

impl NetHeralds {
    fn line_to(&self, to: NodeId) -> Line {
        Line { net: self.net.clone(), from: self.from, to }
    }

    async fn reach(&self, to: NodeId) -> Result<Group, String> {
        self.net.reach(self.from, to).await.map_err(|error| error.to_string())
    }

    async fn heard(&self, to: NodeId, answer: Answer) -> Result<(), String> {
        match self.line_to(to).comes_back(answer).await.map_err(|error| error.to_string())? {
            Answer::Stored => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

impl Heralds for NetHeralds {
    async fn ask_heir(&self, heir: NodeId, leader: SavedVote) -> Result<(), String> {
        let answer = self.reach(heir).await?.answer_heir(leader);
        self.heard(heir, answer).await
    }

    async fn release(&self, node: NodeId, vacancy: AppendHead) {
        if let Ok(group) = self.reach(node).await {
            group.answer_append(vacancy.into_heartbeat()).await;
        }
    }

    async fn call_up(&self, heir: NodeId, leader: SavedVote) -> Result<(), String> {
        let answer = self.reach(heir).await?.answer_call_up(leader).await;
        self.heard(heir, answer).await
    }
}

/// A leader's segments, at the end of a line.
struct LineSource {
    net: Net,
    from: NodeId,
    to: NodeId,
}

impl LineSource {
    async fn leader(&self) -> Result<Group, CallError> {
        self.net.reach(self.from, self.to).await.map_err(|_| CallError::TimedOut)
    }
}

impl SegmentSource for LineSource {
    async fn manifest(&self, _: Partition, index: u64) -> Result<Manifest, CallError> {
        let leader = self.leader().await?;
        leader.store().shared().manifest(index).await.map_err(|error| CallError::BrokeOff(error.into()))
    }

    async fn piece(&self, of: PieceOf) -> Result<Bytes, CallError> {
        let leader = self.leader().await?;
        let piece = leader.store().shared().piece(of).await;
        piece.map_err(|error| CallError::BrokeOff(error.into()))?.ok_or(CallError::TimedOut)
    }
}

/// A replica that runs.
pub(super) struct Running {
    pub(super) disk: SimDisk,
    pub(super) handle: PartitionHandle,
    pub(super) group: Group,
    pub(super) reader: LogReader,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    pub(super) async fn start(net: &Net, node: NodeId, disk: SimDisk) -> Self {
        Self::start_on(net, node, disk, false).await
    }

    /// The same, on a disk of which it is known whether something on it is wrong.
    pub(super) async fn start_on(net: &Net, node: NodeId, disk: SimDisk, is_damaged: bool) -> Self {
        let options = LogOptions { segment_bytes_max: 2000, ..LogOptions::default() };
        let shared_disk = Arc::new(disk.clone());
        let (mut log, report) =
            PartitionLog::open(shared_disk.clone(), Path::new(DIR), PARTITION, options, 0).unwrap();
        let is_whole =
            report.damage.is_empty() && report.lost_records == 0 && report.altered == AlteredEnd::default();
        // A log that was being replaced when the power failed is a part of either; it is wiped.
        let state = log.read_group_state().unwrap().map(|state| GroupState::decode(&state).unwrap());
        let is_installing = state.is_some_and(|state| state.is_installing());
        assert!(is_whole || is_damaged || is_installing, "node {node}: {report:?}");
        let found = FoundLog::prepare(&mut log, &report).unwrap();
        let reader = log.reader();
        let limits = QueueLimits { bytes_max: 1 << 20, requests_max: 100 };
        let metrics = Metrics::new().of_partition(PARTITION);
        let handle = if simulated::is_entered() {
            let at_disk = {
                let net = net.clone();
                move || net.clone().at_disk(node)
            };
            let (handle, works) = partition::start_stepped(PARTITION, log, limits, metrics, at_disk, node);
            net.0.lock().actors.push(tokio::spawn(works));
            handle
        } else {
            partition::start(PARTITION, log, limits, metrics).unwrap().0
        };
        let parts = GroupParts {
            node,
            partition: PARTITION,
            store: LogStore::new(PARTITION, found, handle.log_access()),
            network: LineFactory { net: net.clone(), from: node },
            directory: Arc::new(Directory::new([], [], Scheme::Http)),
            timing: net.timing(),
            acks: Durability::Quorum,
            room: Room::new(shared_disk, DIR.into()),
        };
        let group = Group::start(parts).await.unwrap();
        let (handle, waiting) = handle.with_proposals();
        net.0.lock().groups.insert(node, group.clone());
        let tasks = vec![
            tokio::spawn(group.clone().propose_all(waiting)),
            tokio::spawn(keep_time(net.clone(), node, group.clone())),
        ];
        Self { disk, handle, group, reader, tasks }
    }

    /// The power fails: what was not synced is lost, or a part of it.
    pub(super) async fn crash(self, net: &Net, node: NodeId, random: &mut Random) -> SimDisk {
        {
            let mut state = net.0.lock();
            state.groups.remove(&node);
            state.slow_ms_max.remove(&node);
            state.frozen.remove(&node);
            state.thawed.notify_waiters();
        }
        // Nothing more comes to the disk, whatever the replica still does.
        self.disk.crash_at(0);
        let left = self.disk.after_power_cut(random);
        self.tasks.iter().for_each(JoinHandle::abort);
        self.handle.close();
        // It ends with errors: its disk is dead.
        self.group.raft().shutdown().await.ok();
        left
    }
}

/// What a node does for its replica from time to time.
async fn keep_time(net: Net, node: NodeId, group: Group) {
    let purge_after = net.0.lock().purge_after;
    let mut ticks = tokio::time::interval(net.timing().heartbeat() / 2);
    let mut known = None;
    loop {
        ticks.tick().await;
        net.awake(node).await;
        let now = {
            let metrics = group.raft().metrics();
            let metrics = metrics.borrow();
            Some((metrics.state, metrics.current_term, metrics.current_leader))
        };
        if known != now {
            simulated::note(|| format!("{node} {now:?}"));
            known = now;
        }
        if group.leads() {
            group.raft().trigger().heartbeat().await.ok();
        } else {
            group.elect_if_due().await;
        }
        group.end_refill_if_done().await.ok();
        if let Some(kept) = purge_after {
            purge(&group, kept).await;
        }
    }
}

/// Purges all that is applied but the last entries: a replica that lacks more gets the segments.
async fn purge(group: &Group, kept: u64) {
    let applied = group.raft().metrics().borrow().last_applied;
    let Some(upto) = applied.and_then(|applied| applied.index.checked_sub(kept)) else { return };
    group.raft().trigger().snapshot().await.ok();
    group.raft().trigger().purge_log(upto).await.ok();
}

/// The power of a disk is cut; then one of the headers is altered of which the disk had said, before that, that it has
/// them. Whether there was one.
pub(super) fn damage(disk: &SimDisk, random: &mut Random) -> bool {
    let indexes = disk.names().into_iter().filter(|name| name.ends_with(".batches"));
    let flushed: Vec<(PathBuf, usize)> = indexes
        .flat_map(|name| {
            let index = Path::new(DIR).join(name);
            let bytes = disk.read(&index);
            let is_right = |header: &&[u8]| {
                header.len() == 128
                    && header[..4] == crc32fast::hash(&header[4..]).to_le_bytes()
                    && header[4] != 3
            };
            let said = |header: &[u8]| u32::from_le_bytes(header[36..40].try_into().unwrap());
            let count = bytes.chunks(128).skip(1).filter(is_right).map(said).max().unwrap_or(0);
            (0..count as usize).map(move |place| (index.clone(), (place + 1) * 128))
        })
        .collect();
    if flushed.is_empty() {
        return false;
    }
    let (index, position) = &flushed[random.below(flushed.len() as u64) as usize];
    let mut bytes = disk.read(index);
    bytes[position + 60] ^= 1;
    disk.put(index, &bytes);
    true
}
