//! A leader that goes hands over first: another replica is elected at once, and nobody waits for an election to be due.
//!
//! The library has no transfer of its own, and in it no replica votes while it may still have a leader. So the leader
//! gives its lead up by the term that follows its own, with a vote in it for nobody, on the replicas that it can reach,
//! itself among them: whoever holds that has no leader, and votes by the usual rules. Then it calls up the heir, which
//! has all that there is.
//!
//! Invariants: a term is all that is given up. A vote for nobody is one that a replica may always give: what is elected
//! then, by whom and with which log, is the library's to decide, and whatever fails here leaves an election that comes
//! when it is due. Nothing is written by the leader while it hands over, for a bounded time.
//!
//! Errors in words: there is nobody who would tell them apart.

use std::collections::BTreeMap;

use futures::future::join_all;
use openraft::raft::AppendEntriesRequest;
use openraft::storage::RaftLogStorage as _;
use openraft::{LeaderId, ServerState};
use tokio::time::timeout;

use super::codec::{Answer, AppendHead};
use super::group::Group;
use super::members;
use super::types::{LogId, NodeId, SavedVote, TypeConfig, Vote, log_id};

/// What a leader has others told that it hands over to, or away from.
pub(super) trait Heralds {
    /// Asks a replica whether it could follow the leader of this vote.
    fn ask_heir(&self, heir: NodeId, leader: SavedVote) -> impl Future<Output = Result<(), String>> + Send;

    /// Tells a replica that there is no leader any more.
    fn release(&self, node: NodeId, vacancy: AppendHead) -> impl Future<Output = ()> + Send;

    /// Has a replica stand for election.
    fn call_up(&self, heir: NodeId, leader: SavedVote) -> impl Future<Output = Result<(), String>> + Send;
}

/// How things stand as a leader sees them.
struct Standing {
    own: NodeId,
    vote: Vote,
    /// The other voters, with what is known of their logs.
    others: BTreeMap<NodeId, Option<LogId>>,
}

impl Group {
    /// Hands the lead over to one of those that fit; to whom.
    ///
    /// # Errors
    /// In words. This replica may not lead any more then, but stands for election like the others.
    pub(super) async fn hand_over(
        &self,
        fits: impl Fn(NodeId) -> bool,
        heralds: &impl Heralds,
    ) -> Result<NodeId, String> {
        let step_max = self.shared.timing.hand_over_step_max();
        // What is being written is awaited, and nothing more is: the heir has to have all of it.
        let held = timeout(step_max, self.shared.writing.write()).await;
        let _held = held.map_err(|_| "what is being written takes too long".to_owned())?;
        let standing = self.standing().ok_or("this replica does not lead")?;
        // The log itself knows: what the library tells of itself comes later.
        let log = self.shared.store.clone().get_log_state().await.map_err(|error| error.to_string())?;
        let last = log.last_log_id.map(|last| last.index);
        let chosen = timeout(step_max * 2, self.choose(&standing, fits, last, heralds)).await;
        let heir =
            chosen.unwrap_or_else(|_| Err("those who could take it do not answer in time".to_owned()))?;
        let vacancy = vacancy_after(&standing.vote);
        let released = standing.others.keys().filter(|node| **node != heir);
        let told = released.map(|node| heralds.release(*node, AppendHead::of_heartbeat(&vacancy)));
        let told = join_all(told.collect::<Vec<_>>());
        let given_up = self.shared.raft.append_entries(vacancy_after(&standing.vote)).await;
        given_up.map_err(|error| error.to_string())?;
        self.note_heard();
        // One that is not there is done without: the heir and this replica may be enough.
        timeout(self.shared.timing.tick(), told).await.ok();
        let elected = async {
            heralds.call_up(heir, standing.vote.into()).await?;
            let mut metrics = self.shared.raft.metrics();
            let is_led = metrics
                .wait_for(|metrics| metrics.current_leader.is_some_and(|leader| leader != standing.own));
            let metrics = is_led.await.map_err(|error| error.to_string())?;
            metrics.current_leader.ok_or_else(|| "the replica has ended".to_owned())
        };
        match timeout(step_max, elected)
            .await
            .unwrap_or_else(|_| Err("nobody was elected in time".to_owned()))
        {
            Ok(leader) => Ok(leader),
            Err(error) => {
                // Nobody leads: whoever has all there is may as well stand at once.
                self.shared.raft.trigger().elect().await.ok();
                Err(error)
            }
        }
    }

    /// The first of those that fit which has all there is, and says that it could follow.
    async fn choose(
        &self,
        standing: &Standing,
        fits: impl Fn(NodeId) -> bool,
        last: Option<u64>,
        heralds: &impl Heralds,
    ) -> Result<NodeId, String> {
        let mut why = "there is nobody to hand over to".to_owned();
        for heir in standing.heirs(fits, self.partition().get()) {
            let is_ready = async {
                if !members::has(self, heir, last).await {
                    return Err("this replica does not lead any more".to_owned());
                }
                heralds.ask_heir(heir, standing.vote.into()).await
            };
            match timeout(self.shared.timing.hand_over_step_max(), is_ready).await {
                Ok(Ok(())) => return Ok(heir),
                Ok(Err(error)) => why = error,
                Err(_) => "it lacks entries, or does not answer".clone_into(&mut why),
            }
        }
        Err(why)
    }

    /// How things stand, if this replica leads.
    fn standing(&self) -> Option<Standing> {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow();
        let matched = metrics.replication.as_ref().filter(|_| metrics.state == ServerState::Leader)?;
        let membership = metrics.membership_config.membership();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        // A change of the members that is half done is finished by who began it.
        (membership.get_joint_config().len() == 1).then(|| Standing {
            own: metrics.id,
            vote: metrics.vote,
            others: matched
                .iter()
                .filter(|(node, _)| voters.contains(node))
                .map(|(node, id)| (*node, *id))
                .collect(),
        })
    }

    /// Whether this replica could follow the leader of this vote.
    pub fn answer_heir(&self, leader: SavedVote) -> Answer {
        if self.is_refilling() {
            return Answer::Failed("the replica is being filled anew, and does not stand".to_owned());
        }
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow();
        let follows = metrics.state == ServerState::Follower && metrics.vote == leader.into();
        if follows { Answer::Stored } else { Answer::Failed("it follows another leader, or none".to_owned()) }
    }

    /// The leader of this vote hands over to this replica: it stands for election.
    pub async fn answer_call_up(&self, leader: SavedVote) -> Answer {
        let answer = self.answer_heir(leader);
        if answer == Answer::Stored {
            self.note_heard();
            if let Err(error) = self.shared.raft.trigger().elect().await {
                return Answer::Failed(error.to_string());
            }
        }
        answer
    }
}

impl Standing {
    /// Those that fit, who has most first; of several, not the same one for all partitions.
    fn heirs(&self, fits: impl Fn(NodeId) -> bool, partition: u16) -> Vec<NodeId> {
        let is_fit = |node: &NodeId| *node != self.own && fits(*node);
        let mut fit: Vec<(NodeId, Option<LogId>)> = self
            .others
            .iter()
            .filter(|(node, _)| is_fit(node))
            .map(|(node, matched)| (*node, *matched))
            .collect();
        if let Some(first) = usize::from(partition).checked_rem(fit.len()) {
            fit.rotate_left(first);
        }
        fit.sort_by_key(|(_, matched)| std::cmp::Reverse(*matched));
        fit.into_iter().map(|(node, _)| node).collect()
    }
}

/// What says that there is no leader any more: a heartbeat of nobody, in the next term.
pub(super) fn vacancy_after(leader: &Vote) -> AppendEntriesRequest<TypeConfig> {
    let leader_id = LeaderId { term: leader.leader_id.term + 1, voted_for: None };
    notice_of(Vote { leader_id, committed: false })
}

/// What tells a replica of a vote, and nothing else. The library takes the vote of an append before it looks at its
/// entries; that these follow one which nobody has ends it there.
pub(super) fn notice_of(vote: Vote) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest {
        vote,
        prev_log_id: Some(log_id(vote.leader_id.term, u64::MAX)),
        entries: Vec::new(),
        leader_commit: None,
    }
}
