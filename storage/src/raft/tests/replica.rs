//! One replica that runs: what it makes of leaders, snapshots and purges.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use model::{Offset, Partition};
use openraft::raft::AppendEntriesRequest;
use openraft::storage::{RaftLogReader as _, RaftLogStorage, RaftLogStorageExt as _, RaftStateMachine};
use openraft::{EntryPayload, Snapshot, SnapshotMeta, StoredMembership};

use super::super::codec::Answer;
use super::super::room::Room;
use super::super::snapshot::{Offer, PieceOf, SegmentSource, SnapshotData};
use super::super::state::{Consumers, GroupState};
use super::super::types::{Entry, EntryData, Member, Membership, NodeId, Vote, log_id};
use super::super::{FoundLog, LogStore, StateMachine};
use super::found_log::{ENTRIES, replica};
use super::net::{DIR, Net, PARTITION, Running};
use crate::limits;
use crate::log::tests::batch;
use crate::log::tests::random::Random;
use crate::log::tests::sim_disk::SimDisk;
use crate::log::{LogError, LogOptions, Manifest, PartitionLog};
use crate::metrics::Metrics;
use crate::outbound::CallError;
use crate::partition::{self, LogContent, LogEntry, PartitionHandle, QueueLimits};
use crate::simulated;

/// A store without a replica over it.
struct Store {
    handle: PartitionHandle,
    store: LogStore,
    machine: StateMachine,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.handle.close();
    }
}

fn store(disk: &SimDisk) -> Store {
    let options = LogOptions { segment_bytes_max: 1500, ..LogOptions::default() };
    let (mut log, report) =
        PartitionLog::open(Arc::new(disk.clone()), Path::new(DIR), PARTITION, options, 0).unwrap();
    let found = FoundLog::prepare(&mut log, &report).unwrap();
    let limits = QueueLimits { bytes_max: 1 << 20, requests_max: 100 };
    let (handle, _thread) =
        partition::start(PARTITION, log, limits, Metrics::new().of_partition(PARTITION)).unwrap();
    let store = LogStore::new(PARTITION, found, handle.log_access());
    let machine = StateMachine::new(&store);
    Store { handle, store, machine }
}

fn state_on(disk: &SimDisk) -> GroupState {
    let options = LogOptions::default();
    let (log, _) =
        PartitionLog::open(Arc::new(disk.after_kill()), Path::new(DIR), PARTITION, options, 0).unwrap();
    GroupState::decode(&log.read_group_state().unwrap().unwrap()).unwrap()
}

fn stored(log_index: u64, base_offset: u64) -> LogEntry {
    let content =
        LogContent::Batches { base_offset: Offset::new(base_offset), batches: vec![batch(log_index, 2)] };
    LogEntry { log_index, term: 1, content }
}

fn meta_upto(index: u64) -> SnapshotMeta<NodeId, Member> {
    SnapshotMeta {
        last_log_id: Some(log_id(1, index)),
        last_membership: StoredMembership::default(),
        snapshot_id: String::new(),
    }
}

/// The segments of a replica's whole log, from its store.
struct OtherStore(Arc<super::super::store::StoreShared>);

impl SegmentSource for OtherStore {
    async fn manifest(&self, _: Partition, index: u64) -> Result<Manifest, CallError> {
        Ok(self.0.manifest(index).await.unwrap())
    }

    async fn piece(&self, of: PieceOf) -> Result<bytes::Bytes, CallError> {
        Ok(self.0.piece(of).await.unwrap().unwrap())
    }
}

/// A leader that never answers.
struct Silence;

impl SegmentSource for Silence {
    async fn manifest(&self, _: Partition, _: u64) -> Result<Manifest, CallError> {
        std::future::pending().await
    }

    async fn piece(&self, _: PieceOf) -> Result<bytes::Bytes, CallError> {
        std::future::pending().await
    }
}

fn room(disk: &SimDisk) -> Room {
    Room::new(Arc::new(disk.clone()), DIR.into())
}

fn offer(index: u64) -> Offer {
    let data = SnapshotData::Own { consumers: Consumers::default() };
    let snapshot = Snapshot { meta: meta_upto(index), snapshot: Box::new(data) };
    Offer::new(Vote::new_committed(1, 2), &snapshot).unwrap()
}

/// What a leader with two more entries than `replica` would send of its segments, staged beside the log of `own`.
async fn staged(own: &Store, own_disk: &SimDisk) -> Manifest {
    let leader = store(&replica(None));
    for log_index in [ENTRIES + 1, ENTRIES + 2] {
        let entry = stored(log_index, (log_index - 1) * 2);
        leader.handle.log_access().append(vec![entry], false).await.unwrap();
    }
    let source = OtherStore(Arc::clone(leader.store.shared()));
    own.store.shared().copy(&source, &offer(ENTRIES + 1), &room(own_disk)).await.unwrap()
}

#[tokio::test]
async fn a_power_cut_between_the_purge_for_a_snapshot_and_the_snapshot_loses_nothing() {
    let disk = replica(Some(3));
    let mut own = store(&disk);
    let manifest = staged(&own, &disk).await;
    own.store.purge(log_id(1, ENTRIES + 1)).await.unwrap();
    let seen = own.store.get_log_state().await.unwrap();
    assert_eq!(seen.last_purged_log_id, Some(log_id(1, ENTRIES + 1)));
    // A vote in between does not write it down either.
    own.store.save_vote(&Vote::new(4, 2)).await.unwrap();
    for seed in 0..6 {
        let left = disk.after_power_cut(&mut Random::new(seed));
        let mut again = store(&left);
        let seen = again.store.get_log_state().await.unwrap();
        assert_eq!((seen.last_purged_log_id, seen.last_log_id), (None, Some(log_id(1, ENTRIES - 1))));
        assert!(!again.store.shared().is_refilling(), "nothing was lost");
    }
    install_before_what_follows(&mut own, manifest).await;
    let state = state_on(&disk);
    assert_eq!((state.purged(), state.applied()), (Some(log_id(1, ENTRIES + 1)), state.purged()));
    assert_eq!(state.vote(), Some(Vote::new(4, 2)));
    let seen = own.store.get_log_state().await.unwrap();
    assert_eq!(seen.last_log_id, Some(log_id(1, ENTRIES + 2)));
}

/// What follows a snapshot waits for it, and is there after it.
async fn install_before_what_follows(own: &mut Store, manifest: Manifest) {
    let access = own.handle.log_access();
    let mut early = Box::pin(access.append(vec![stored(ENTRIES + 3, (ENTRIES + 2) * 2)], true));
    assert!(early.as_mut().now_or_never().is_none());
    let snapshot = offer(ENTRIES + 1).staged(manifest).snapshot;
    own.machine.install_snapshot(&meta_upto(ENTRIES + 1), snapshot).await.unwrap();
    early.await.unwrap();
}

#[tokio::test]
async fn an_empty_log_holds_what_follows_a_snapshot_until_it_is_there() {
    let disk = SimDisk::new();
    let mut own = store(&disk);
    let manifest = staged(&own, &disk).await;
    own.store.purge(log_id(1, ENTRIES + 1)).await.unwrap();
    install_before_what_follows(&mut own, manifest).await;
    let seen = own.store.get_log_state().await.unwrap();
    assert_eq!(seen.last_log_id, Some(log_id(1, ENTRIES + 2)));
    assert_eq!(own.handle.reader().status().written_end, Offset::new((ENTRIES + 3) * 2));
}

/// What node 2, which leads in term 9, sends after all that [`replica`] has: an entry of this content.
fn sent(content: &str) -> bytes::Bytes {
    let id = format!("{{\"term\":9,\"index\":{ENTRIES}}}");
    let prev = format!("{{\"term\":1,\"index\":{}}}", ENTRIES - 1);
    let head = format!(
        "{{\"vote\":{{\"term\":9,\"node\":2,\"committed\":true}},\"prev\":{prev},\"commit\":null,\"entries\":[{{\"id\":{id},\"content\":{content}}}]}}"
    );
    let length = u32::try_from(head.len()).unwrap().to_le_bytes();
    bytes::Bytes::from([&length[..], head.as_bytes()].concat())
}

/// Of a kind that there is not.
const UNKNOWN: &str = "{\"ledger\":{\"page\":1}}";

#[tokio::test]
async fn an_entry_of_a_kind_that_is_not_known_is_not_stored_and_the_replica_keeps_what_it_has() {
    let net = Net::default();
    let own = Running::start(&net, 1, replica(Some(3))).await;
    let before = own.reader.status();
    for _ in 0..2 {
        let Answer::Failed(why) = own.group.answer_entries(sent(UNKNOWN)).await else {
            panic!("it is stored")
        };
        assert!(why.contains("unknown variant `ledger`"), "{why}");
    }
    assert!(own.group.unreadable().is_some_and(|why| why.contains("ledger")));
    assert_eq!((own.group.failure(), own.reader.status().written_end), (None, before.written_end));
    // The same node, with a version that knows all that is sent.
    assert_eq!(own.group.answer_entries(sent("\"blank\"")).await, Answer::Stored);
    assert_eq!(own.group.unreadable(), None);
    assert_eq!(own.reader.status().written_end, before.written_end);
}

#[tokio::test]
async fn what_an_earlier_leader_sent_and_could_not_be_read_is_nothing_to_who_follows_another_or_leads() {
    let net = Net::default();
    let own = Running::start(&net, 1, replica(Some(3))).await;
    let heartbeat = |term, node| AppendEntriesRequest { leader_commit: None, ..heartbeat(term, node, 0) };
    let follows = async |term, node| {
        own.group.answer_append(heartbeat(term, node)).await;
        let followed = own.group.raft().wait(Some(Duration::from_secs(20)));
        let vote = Vote::new_committed(term, node);
        followed.metrics(|metrics| metrics.vote == vote, "the leader is followed").await.unwrap();
    };
    follows(9, 2).await;
    own.group.answer_entries(sent(UNKNOWN)).await;
    follows(9, 2).await;
    assert!(own.group.unreadable().is_some(), "a heartbeat can be read, and what comes with it cannot");
    // What the next one sends may be known all of it, and if not, it comes.
    follows(10, 3).await;
    assert_eq!(own.group.unreadable(), None);
    own.crash(&net, 1, &mut Random::new(0)).await;

    let own = Running::start(&net, 1, SimDisk::new()).await;
    own.group.answer_entries(sent(UNKNOWN)).await;
    assert!(own.group.unreadable().is_some());
    // Nobody sends anything to one that leads.
    own.group.raft().initialize(BTreeMap::from([(1, Member::default())])).await.unwrap();
    let leads = own.group.raft().wait(Some(Duration::from_secs(20)));
    leads.metrics(|metrics| metrics.current_leader == Some(1), "it leads").await.unwrap();
    assert_eq!(own.group.unreadable(), None);
    own.crash(&net, 1, &mut Random::new(0)).await;
}

#[tokio::test]
async fn entries_that_leave_a_gap_or_lie_elsewhere_on_their_leader_are_refused_before_they_are_written() {
    let own = store(&replica(Some(3)));
    let access = own.handle.log_access();
    let gap = access.append(vec![stored(ENTRIES + 2, ENTRIES * 2)], false).await;
    assert!(matches!(gap, Err(LogError::NoEntry { log_index }) if log_index == ENTRIES + 1), "{gap:?}");
    let (right, wrong) = (stored(ENTRIES + 1, ENTRIES * 2), stored(ENTRIES + 2, ENTRIES * 2 + 3));
    let elsewhere = access.append(vec![right, wrong], false).await;
    assert!(
        matches!(elsewhere, Err(LogError::OtherOffset { log_index, .. }) if log_index == ENTRIES + 2),
        "{elsewhere:?}"
    );
    assert_eq!(own.handle.reader().status().written_end, Offset::new(ENTRIES * 2), "nothing was written");
    let (first, second) = (stored(ENTRIES + 1, ENTRIES * 2), stored(ENTRIES + 2, ENTRIES * 2 + 2));
    access.append(vec![first, second], false).await.unwrap();
}

#[tokio::test]
async fn a_vote_that_is_given_while_the_log_is_purged_or_replaced_is_not_forgotten() {
    let disk = replica(Some(3));
    let own = store(&disk);
    let access = own.handle.log_access();
    let states = [1, 2, 3, 4, 5].map(|term| {
        let mut state = GroupState::default();
        state.set_vote(Vote::new(term, 1));
        state.encode()
    });
    let [purge, voted, before, after, voted_again] = states;
    // What was encoded first is written first, however late it is awaited.
    let purging = access.purge(1, purge);
    access.save_state(voted).await.unwrap();
    purging.await.unwrap();
    assert_eq!(state_on(&disk).vote(), Some(Vote::new(2, 1)));
    let manifest = staged(&own, &disk).await;
    let installing = access.install(manifest, ENTRIES + 2, before, after);
    access.save_state(voted_again).await.unwrap();
    installing.await.unwrap();
    assert_eq!(state_on(&disk).vote(), Some(Vote::new(5, 1)));
}

#[tokio::test]
async fn who_reads_for_others_what_was_purged_meanwhile_reads_nothing_and_goes_on() {
    let mut own = store(&replica(None));
    let at = log_id(1, ENTRIES);
    let members = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, Member::default())]));
    let entries = [
        Entry { log_id: at, payload: EntryPayload::Membership(members) },
        Entry { log_id: log_id(1, ENTRIES + 1), payload: EntryPayload::Blank },
    ];
    own.store.blocking_append(entries).await.unwrap();
    let mut source = own.store.get_log_reader().await;
    assert_eq!(source.try_get_log_entries(at.index..at.index + 2).await.unwrap().len(), 2);
    own.store.shared().state.lock().set_applied(log_id(1, ENTRIES + 1));
    own.store.purge(at).await.unwrap();
    // The entry is there still; the members that it has set are not.
    assert!(source.try_get_log_entries(at.index..at.index + 2).await.unwrap().is_empty());
    assert_eq!(source.try_get_log_entries(at.index + 1..at.index + 2).await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_reads_for_others_while_the_log_is_cut_off_reads_nothing_and_goes_on() {
    let mut own = store(&replica(None));
    let at = log_id(1, ENTRIES);
    let members = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, Member::default())]));
    let entry = Entry { log_id: at, payload: EntryPayload::Membership(members) };
    own.store.blocking_append([entry]).await.unwrap();
    let mut source = own.store.get_log_reader().await;
    assert_eq!(source.try_get_log_entries(at.index..at.index + 1).await.unwrap().len(), 1);
    // The members that an entry has set go before the entry does.
    let shared = own.store.shared();
    shared.state.lock().cut_changes(at.index);
    shared.cuts.fetch_add(1, Ordering::AcqRel);
    assert!(source.try_get_log_entries(at.index..at.index + 1).await.unwrap().is_empty());
    // Where nothing was cut off, members that nobody knows are a failure.
    shared.cuts.fetch_add(1, Ordering::AcqRel);
    source.try_get_log_entries(at.index..at.index + 1).await.unwrap_err();
}

#[tokio::test]
async fn a_copy_leaves_room_for_votes() {
    let disk = replica(Some(3));
    let own = store(&disk);
    let leader = store(&replica(None));
    let source = OtherStore(Arc::clone(leader.store.shared()));
    disk.set_capacity(Some(disk.used_bytes() + limits::REPLICA_FREE_BYTES_MIN + 100));
    let copied = own.store.shared().copy(&source, &offer(ENTRIES - 1), &room(&disk)).await;
    assert_eq!(copied.unwrap_err().to_string(), LogError::DiskFull.to_string());
    disk.set_capacity(None);
    own.store.shared().copy(&source, &offer(ENTRIES - 1), &room(&disk)).await.unwrap();
}

/// A replica of a group of three that lost some entries and is being filled anew; it voted in term 3.
async fn refilling(net: &Net) -> Running {
    let disk = replica(Some(5));
    let options = LogOptions::default();
    let (mut log, _) =
        PartitionLog::open(Arc::new(disk.clone()), Path::new(DIR), PARTITION, options, 0).unwrap();
    let mut state = GroupState::decode(&log.read_group_state().unwrap().unwrap()).unwrap();
    state.set_lost(None);
    state.set_vote(Vote::new(3, 2));
    log.write_group_state(&state.encode()).unwrap();
    drop(log);
    Running::start(net, 1, disk).await
}

fn heartbeat(term: u64, node: NodeId, agreed: u64) -> AppendEntriesRequest<super::super::TypeConfig> {
    AppendEntriesRequest {
        vote: Vote::new_committed(term, node),
        prev_log_id: Some(log_id(1, ENTRIES - 1)),
        entries: Vec::new(),
        leader_commit: Some(log_id(term, agreed)),
    }
}

#[tokio::test]
async fn a_deposed_leader_does_not_end_a_refill() {
    let net = Net::default();
    let running = refilling(&net).await;
    let group = &running.group;
    let answer = group.answer_append(heartbeat(1, 3, 2)).await;
    assert!(matches!(answer, Answer::HigherVote(_)), "{answer:?}");
    group.end_refill_if_done().await.unwrap();
    assert!(group.is_refilling(), "what the deposed leader knew is not all that there is");
    running.crash(&net, 1, &mut Random::new(0)).await;
}

#[test]
fn a_refill_is_over_once_the_disk_says_so() {
    let ends = async {
        let net = Net::default();
        let running = refilling(&net).await;
        net.0.lock().slow_ms_max.insert(1, 2000);
        let shared = running.group.store().shared();
        assert!(shared.end_refill().now_or_never().is_none(), "the disk is slow");
        assert!(running.group.is_refilling(), "a power cut would have it refill again");
        shared.end_refill().await.unwrap();
        assert!(!running.group.is_refilling());
        let disk = running.crash(&net, 1, &mut Random::new(0)).await;
        assert!(!state_on(&disk).is_refilling());
    };
    simulated::in_world(0, ends);
}

#[tokio::test]
async fn a_vote_and_an_entry_without_records_wait_for_room_on_a_full_disk() {
    let disk = replica(Some(3));
    let mut own = store(&disk);
    disk.set_capacity(Some(disk.used_bytes()));
    let blank = Entry { log_id: log_id(4, ENTRIES), payload: EntryPayload::Blank };
    let mut other = own.store.clone();
    let mut wait = Box::pin(async move {
        let vote = Vote::new(4, 2);
        let mut voter = other.clone();
        let (voted, appended) = tokio::join!(voter.save_vote(&vote), other.blocking_append([blank]));
        voted.and(appended)
    });
    tokio::time::timeout(3 * limits::FULL_DISK_PAUSE, &mut wait).await.unwrap_err();
    disk.set_capacity(None);
    wait.await.unwrap();
    assert_eq!(state_on(&disk).vote(), Some(Vote::new(4, 2)));
    assert_eq!(own.store.get_log_state().await.unwrap().last_log_id, Some(log_id(4, ENTRIES)));

    // Whoever ends does not wait.
    disk.set_capacity(Some(disk.used_bytes()));
    own.store.shared().close();
    own.store.save_vote(&Vote::new(5, 2)).await.unwrap_err();
}

#[tokio::test]
async fn a_copy_whose_request_is_broken_off_holds_its_place() {
    let net = Net::default();
    let running = refilling(&net).await;
    let group = &running.group;
    // Asked for, and given up at once.
    assert!(group.receive_from(Silence, offer(20)).now_or_never().is_none());
    let second = tokio::time::timeout(Duration::from_secs(5), group.receive_from(Silence, offer(20))).await;
    assert_eq!(second.unwrap(), Err("a copy is under way already".to_owned()));
    running.crash(&net, 1, &mut Random::new(0)).await;
}

#[tokio::test]
async fn a_snapshot_purges_nothing_and_retention_no_more_than_it_asked_for() {
    let net = Net::default();
    let disk = SimDisk::new();
    let running = Running::start(&net, 1, disk.clone()).await;
    let raft = running.group.raft();
    raft.initialize(BTreeMap::from([(1, Member::default())])).await.unwrap();
    let wait = || raft.wait(Some(Duration::from_secs(20)));
    wait().metrics(|metrics| metrics.current_leader == Some(1), "it leads").await.unwrap();
    let mut last = 0;
    for _ in 0..8 {
        let (proposal, _settled) = partition::Proposal::new(Vec::new());
        last = raft.client_write(EntryData::Proposed(proposal)).await.unwrap().log_id.index;
    }
    raft.trigger().snapshot().await.unwrap();
    wait()
        .metrics(|metrics| metrics.snapshot.is_some_and(|at| at.index == last), "a snapshot")
        .await
        .unwrap();
    raft.trigger().purge_log(2).await.unwrap();
    wait().metrics(|metrics| metrics.purged.is_some(), "it is purged").await.unwrap();
    assert_eq!(raft.metrics().borrow().purged.map(|at| at.index), Some(2));
    assert_eq!(state_on(&disk).purged().map(|at| at.index), Some(2));
    running.crash(&net, 1, &mut Random::new(0)).await;
}
