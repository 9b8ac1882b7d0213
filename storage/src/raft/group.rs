//! One partition's replica on this node: its consensus, its leader, and how it stands.
//!
//! Invariant: who lost entries neither votes nor leads until they are here again. What is written to it is in
//! `proposals`, what is read from it in `reads`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use model::wire::Durability;
use model::{Offset, Partition};
use openraft::error::Fatal;
use openraft::network::RaftNetworkFactory;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::storage::RaftLogStorage as _;
use openraft::{LeaderId, ServerState};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::NodeClient;
use super::codec::{Answer, decode_append};
use super::directory::Directory;
use super::freshness::Freshness;
use super::handover::{notice_of, vacancy_after};
use super::identity::HexId;
use super::machine::StateMachine;
use super::patience::Patience;
use super::reads::{ReadIndex, Resumed};
use super::refusals::{Heeding, LATER_VOTES_MAX, LaterVote};
use super::room::Room;
use super::snapshot::{LeaderSegments, Offer, SegmentSource};
use super::store::LogStore;
use super::timing::Timing;
use super::types::{LogId, Member, NodeId, Raft, TypeConfig, Vote};
use crate::log::LogError;

/// A replica. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) partition: Partition,
    pub(super) raft: Raft,
    pub(super) store: LogStore,
    pub(super) directory: Arc<Directory>,
    pub(super) timing: Timing,
    pub(super) acks: Durability,
    pub(super) room: Room,
    pub(super) reads: ReadIndex,
    /// Held by who writes entries, and alone by who hands the lead over.
    pub(super) writing: tokio::sync::RwLock<()>,
    /// Held while it is decided what becomes of a consumer's offset.
    pub(super) committing: tokio::sync::Mutex<()>,
    freshness: Mutex<Freshness>,
    patience: Arc<Mutex<Patience>>,
    /// Up to where a replica that lost entries has to have the log before it votes.
    refill_to: Mutex<Option<LogId>>,
    /// Held while a snapshot is copied and put in place.
    copying: Arc<tokio::sync::Mutex<()>>,
    leaders: Mutex<Leaders>,
    /// What is wrong with the entries that came last, if this version cannot read them.
    unreadable: Mutex<Option<Unreadable>>,
}

/// Entries that this version cannot read.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable {
    why: String,
    /// Who led when they came, as far as this replica knew: of what another leader has they say nothing.
    leader: LeaderId<NodeId>,
}

/// The leaders that were known one after another.
#[derive(Debug, Default)]
struct Leaders {
    last: Option<NodeId>,
    changes: u64,
}

/// What a group is made of.
pub struct GroupParts<N> {
    /// This node's number.
    pub node: NodeId,
    /// The partition.
    pub partition: Partition,
    /// Its log.
    pub store: LogStore,
    /// The ways to the other replicas.
    pub network: N,
    /// Where the other nodes are.
    pub directory: Arc<Directory>,
    /// The group's times.
    pub timing: Timing,
    /// How far a batch has got when it is answered, if it does not say.
    pub acks: Durability,
    /// The room on the disk.
    pub room: Room,
}

/// What a node says of its replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The partition.
    pub partition: Partition,
    /// Whether the replica knows any members: the group was founded.
    pub founded: bool,
    /// Whether it leads.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// The node that leads, as far as it knows.
    pub leader: Option<HexId>,
    /// The members.
    pub members: Vec<MemberStatus>,
    /// The offset of the oldest record that is kept.
    pub first_offset: Offset,
    /// The end of what may be read.
    pub high_watermark: Offset,
    /// The end of what is on its disk.
    pub flushed: Offset,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The node's number.
    pub id: HexId,
    /// The node.
    #[serde(flatten)]
    pub member: Member,
    /// Whether it votes.
    pub votes: bool,
}

impl Group {
    /// Starts a replica. It waits for a leader, or for the group to be founded.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub async fn start<N: RaftNetworkFactory<TypeConfig>>(
        parts: GroupParts<N>,
    ) -> Result<Self, Fatal<NodeId>> {
        let GroupParts { node, partition, store, network, directory, timing, acks, room } = parts;
        let config = Arc::new(timing.config(partition));
        let machine = StateMachine::new(&store);
        let patience = Arc::new(Mutex::new(Patience::new(timing)));
        let (later, later_votes) = mpsc::channel(LATER_VOTES_MAX);
        let network = Heeding { inner: network, patience: Arc::clone(&patience), later };
        let mut found = store.clone();
        let resumed = Resumed::of(node, found.read_vote().await?, found.get_log_state().await?.last_log_id);
        let raft = Raft::new(node, config, network, store.clone(), machine).await?;
        let reads = ReadIndex::new(raft.clone(), timing, resumed);
        let (refill_to, copying) = (Mutex::default(), Arc::default());
        let leaders = Mutex::default();
        let shared = Shared {
            partition,
            raft,
            store,
            directory,
            timing,
            acks,
            room,
            reads,
            writing: tokio::sync::RwLock::default(),
            committing: tokio::sync::Mutex::default(),
            freshness: Mutex::default(),
            patience,
            refill_to,
            copying,
            leaders,
            unreadable: Mutex::default(),
        };
        let shared = Arc::new(shared);
        tokio::spawn(step_down(Arc::downgrade(&shared), later_votes));
        Ok(Self { shared })
    }

    /// The partition.
    pub fn partition(&self) -> Partition {
        self.shared.partition
    }

    /// The library's replica.
    pub fn raft(&self) -> &Raft {
        &self.shared.raft
    }

    /// The replica's log.
    pub fn store(&self) -> &LogStore {
        &self.shared.store
    }

    /// The room on the disk.
    pub fn room(&self) -> &Room {
        &self.shared.room
    }

    /// Answers a leader that sends entries. One that this version cannot read is not stored, nor is any after it, until
    /// the node has the version that the leader has: the log stays as it is.
    pub async fn answer_entries(&self, bytes: Bytes) -> Answer {
        let partition = self.partition();
        match decode_append(partition, bytes) {
            Ok(request) => {
                self.shared.unreadable.lock().take();
                self.answer_append(request).await
            }
            Err(error) => {
                let why = error.to_string();
                let now = Unreadable { why: why.clone(), leader: self.leader_id() };
                let before = self.shared.unreadable.lock().replace(now);
                // The leader tries again and again.
                if before.is_none_or(|before| before.why != why) {
                    tracing::error!(%partition, %why, "what the leader sends cannot be read, and the replica stays behind; is this node's version older than the leader's?");
                }
                Answer::Failed(why)
            }
        }
    }

    /// Why the replica stays behind, if it cannot read what its leader sends.
    pub fn unreadable(&self) -> Option<String> {
        let leader = self.leader_id();
        let unreadable = self.shared.unreadable.lock();
        unreadable.as_ref().filter(|entries| entries.leader == leader).map(|entries| entries.why.clone())
    }

    /// Whom this replica has voted for or follows, and in which term.
    fn leader_id(&self) -> LeaderId<NodeId> {
        self.shared.raft.metrics().borrow().vote.leader_id
    }

    /// Answers a leader.
    pub async fn answer_append(&self, request: AppendEntriesRequest<TypeConfig>) -> Answer {
        let (vote, agreed, came_at) = (request.vote, request.leader_commit, Instant::now());
        match self.shared.raft.append_entries(request).await {
            Ok(response) => {
                // An earlier leader's is no sign of a leader, nor of what is agreed on.
                if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                    self.note_heard();
                    self.note_agreed(&vote, agreed);
                    // Until a leader has agreed on something in its own term it tells of less than there is.
                    if agreed.is_some_and(|agreed| agreed.leader_id.term == vote.leader_id.term) {
                        self.shared.freshness.lock().note(came_at, agreed, self.applied());
                    }
                }
                Answer::of_append(response)
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    /// Answers a candidate.
    pub async fn answer_vote(&self, request: VoteRequest<NodeId>) -> Answer {
        if self.is_refilling() {
            return Answer::Failed("the replica is being filled anew, and does not vote".to_owned());
        }
        match self.shared.raft.vote(request).await {
            Ok(response) => {
                if response.vote_granted {
                    self.note_heard();
                }
                Answer::of_vote(response)
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    /// Copies a leader's snapshot and puts it in the place of this replica's log; the vote that the replica holds then.
    /// One copy at a time. It goes on by itself if who asked does not wait for it.
    ///
    /// # Errors
    /// In words: the leader tries again whatever it is.
    pub async fn receive(&self, client: &NodeClient, offer: Offer) -> Result<Vote, String> {
        let leader = offer.vote().leader_id.voted_for;
        let leader = leader.and_then(|leader| self.shared.directory.internal_url(leader));
        let leader = leader.ok_or_else(|| "the leader is nowhere to be found".to_owned())?;
        tracing::info!(partition = %self.partition(), %leader, upto = offer.last().index, "copying the leader's segments");
        self.receive_from(LeaderSegments::new(client.clone(), leader), offer).await
    }

    /// Whether a leader's snapshot is being copied, or put in the place of the log.
    #[cfg(test)]
    pub(super) fn is_copying(&self) -> bool {
        self.shared.copying.try_lock().is_err()
    }

    /// The same, from where the segments come from.
    pub(super) async fn receive_from(
        &self,
        source: impl SegmentSource,
        offer: Offer,
    ) -> Result<Vote, String> {
        let Ok(one) = Arc::clone(&self.shared.copying).try_lock_owned() else {
            return Err("a copy is under way already".to_owned());
        };
        let group = self.clone();
        // A request that is broken off must not make way for another copy while this one is being put in place.
        let received = tokio::spawn(async move {
            let _one = one;
            let shared = &group.shared;
            let copied = shared.store.shared().copy(&source, &offer, &shared.room).await;
            let manifest = copied.map_err(|error| error.to_string())?;
            let snapshot = offer.staged(manifest);
            let installed = shared.raft.install_full_snapshot(offer.vote(), snapshot).await;
            installed.map(|response| response.vote).map_err(|error| error.to_string())
        });
        received.await.unwrap_or_else(|_| Err("the copy was broken off".to_owned()))
    }

    /// A leader was heard, or a candidate was given the vote: there is no need for another election.
    pub(super) fn note_heard(&self) {
        self.shared.patience.lock().renew();
    }

    /// Stands for election if no leader was heard for long enough.
    pub async fn elect_if_due(&self) {
        let may_stand = {
            let metrics = self.shared.raft.metrics();
            let metrics = metrics.borrow();
            matches!(metrics.state, ServerState::Follower | ServerState::Candidate)
        };
        if !may_stand || self.is_refilling() || !self.shared.patience.lock().is_over() {
            return;
        }
        self.note_heard();
        // One that has ended is told of elsewhere.
        self.shared.raft.trigger().elect().await.ok();
    }

    /// Whether the replica lost entries and has not had them again: it neither votes nor leads.
    pub fn is_refilling(&self) -> bool {
        self.shared.store.shared().is_refilling()
    }

    /// A leader told up to where the log is agreed on. A replica that is being filled anew has again what it had once
    /// it has all that its leader knew, in its own term, to be agreed on: whatever the replica had acknowledged before
    /// and the others counted on is in there.
    fn note_agreed(&self, vote: &Vote, agreed: Option<LogId>) {
        if let Some(agreed) = agreed
            && self.is_refilling()
            && agreed.leader_id.term == vote.leader_id.term
        {
            self.shared.refill_to.lock().get_or_insert(agreed);
        }
    }

    fn applied(&self) -> Option<LogId> {
        self.shared.store.shared().state.lock().applied()
    }

    /// How old may be what is read here without a question to others: for how long no majority has answered this leader,
    /// or since when this replica has not heard that it has all. `None` if it is not known.
    pub fn staleness(&self) -> Option<Duration> {
        let silence_ms = {
            let metrics = self.shared.raft.metrics();
            let metrics = metrics.borrow();
            let term = metrics.current_term;
            let is_current = metrics.last_applied.is_some_and(|applied| applied.leader_id.term == term);
            metrics.millis_since_quorum_ack.filter(|_| metrics.state == ServerState::Leader && is_current)
        };
        let applied = self.applied();
        let age = || self.shared.freshness.lock().age(Instant::now(), applied);
        silence_ms.map(Duration::from_millis).or_else(age)
    }

    /// Lets the replica vote again once it has what it had.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn end_refill_if_done(&self) -> Result<(), LogError> {
        let target = *self.shared.refill_to.lock();
        let shared = self.shared.store.shared();
        let is_done = target.is_some_and(|target| {
            let state = shared.state.lock();
            state.applied() >= Some(target) && state.has_what_it_had()
        });
        if is_done && self.is_refilling() {
            shared.end_refill().await?;
            tracing::info!(partition = %self.shared.partition, "the replica has again what it had, and votes");
        }
        Ok(())
    }

    /// Looks who leads, and counts if it is another than before; whether it is this node.
    pub fn note_leader(&self) -> bool {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow();
        if let Some(leader) = metrics.current_leader {
            let mut leaders = self.shared.leaders.lock();
            if leaders.last.replace(leader).is_some_and(|last| last != leader) {
                leaders.changes += 1;
            }
        }
        metrics.state == ServerState::Leader
    }

    /// How often another leader followed one that this replica knew.
    pub fn leader_changes(&self) -> u64 {
        self.shared.leaders.lock().changes
    }

    /// Whether this node leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.shared.raft.metrics().borrow().state == ServerState::Leader
    }

    /// Whether it leads, and no majority has answered it for so long that it does not count as a leader any more.
    pub(super) fn is_out_of_touch(&self) -> bool {
        let silence_ms = self.shared.raft.metrics().borrow().millis_since_quorum_ack;
        let silence_max = self.shared.timing.quorum_silence_max();
        silence_ms.is_some_and(|silence| Duration::from_millis(silence) > silence_max)
    }

    /// Why the replica works no more, if it does not.
    pub fn failure(&self) -> Option<String> {
        self.shared.raft.metrics().borrow().running_state.as_ref().err().map(ToString::to_string)
    }

    /// Who leads, as far as is known, in which term, and whether it is this node.
    pub(super) fn lead(&self) -> (Option<HexId>, u64, bool) {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow();
        (metrics.current_leader.map(HexId), metrics.current_term, metrics.state == ServerState::Leader)
    }

    /// The state of things.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let status = self.shared.store.shared().reader.clone();
        GroupStatus {
            partition: self.shared.partition,
            founded: !voters.is_empty(),
            leads: metrics.state == ServerState::Leader,
            term: metrics.current_term,
            leader: metrics.current_leader.map(HexId),
            members: membership
                .nodes()
                .map(|(id, member)| MemberStatus {
                    id: HexId(*id),
                    member: member.clone(),
                    votes: voters.contains(id),
                })
                .collect(),
            first_offset: status.first_offset(),
            high_watermark: status.high_watermark(),
            flushed: status.flushed_end(),
        }
    }

    /// The URL of the node that leads, as far as is known.
    pub fn leader_url(&self) -> Option<Arc<str>> {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow();
        // A node that was let go hears of later leaders by what they say of themselves alone.
        if let Some(url) = self.shared.directory.leader_after(self.partition(), metrics.current_term) {
            return Some(Arc::from(url));
        }
        let leader = metrics.current_leader.filter(|leader| *leader != metrics.id)?;
        let member = || Some(metrics.membership_config.membership().get_node(&leader)?.url.clone());
        self.shared.directory.url_of(leader).or_else(member).map(Arc::from)
    }
}

/// Tells the replica of later votes, which others know: a leader that hears of one leads no more. What an earlier lead met
/// is nothing to a later one.
async fn step_down(group: Weak<Shared>, mut votes: mpsc::Receiver<LaterVote>) {
    while let Some(LaterVote { own, later }) = votes.recv().await {
        let Some(shared) = group.upgrade() else { return };
        let (id, vote) = {
            let metrics = shared.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.id, metrics.vote)
        };
        if vote == own {
            // A vote for itself that it has forgotten would not unseat it.
            let is_for_itself = later.leader_id.voted_for == Some(id);
            let notice = if is_for_itself { vacancy_after(&later) } else { notice_of(later) };
            // One that has ended is told of elsewhere.
            shared.raft.append_entries(notice).await.ok();
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("partition", &self.shared.partition).finish_non_exhaustive()
    }
}
