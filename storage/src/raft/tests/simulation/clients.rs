//! Who uses the simulated cluster, and what they may see: nothing that was acknowledged or read ever goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::wire::Durability;
use model::{BatchDigest, BatchId, Offset, Tenant, ValidBatch};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::super::super::members;
use super::super::super::types::{Member, NodeId};
use super::super::net::{Net, NetHeralds, PARTITION};
use super::{CONSUMER, FOURTH};
use crate::log::tests::random::Random;
use crate::log::{ConsumerCommit, ConsumerKey, LogReader};
use crate::partition::{Append, PartitionHandle};
use crate::simulated;

/// How long one change of the members may take before it is looked at anew.
const CHANGE_MAX: Duration = Duration::from_secs(2);
/// What a disk says whose power was cut.
const DEAD: &str = "the machine is dead";

/// What clients were told, and what was ever read.
#[derive(Default)]
pub(super) struct Seen {
    /// Where each acknowledged batch is.
    pub(super) acknowledged: BTreeMap<u64, Bytes>,
    /// The committed batches that any node ever served, by offset.
    committed: BTreeMap<u64, Bytes>,
    /// How far anybody has read who may miss nothing, and how often that was.
    read_end: Offset,
    pub(super) reads: u64,
    /// Where the consumer is, as it was told that this is kept.
    pub(super) consumer_at: Offset,
}

impl Seen {
    /// What is acknowledged or read ends here, or behind it: whoever reads from now on, and may miss nothing, sees that.
    fn known_end(&self) -> Offset {
        let acknowledged = self.acknowledged.keys().next_back().map_or(0, |last| last + 1);
        self.read_end.max(Offset::new(acknowledged))
    }
}

/// The cluster of one run.
pub(super) struct Run {
    pub(super) seed: u64,
    pub(super) net: Net,
    pub(super) handles: Arc<Mutex<BTreeMap<NodeId, (PartitionHandle, LogReader)>>>,
    pub(super) seen: Arc<Mutex<Seen>>,
    /// Whether clients are to come to an end.
    pub(super) is_over: AtomicBool,
}

impl Run {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Acquire)
    }

    /// Takes what can be read on every node, and compares it with what was read before.
    pub(super) fn look(&self) {
        let readers: Vec<LogReader> =
            self.handles.lock().values().map(|(_, reader)| reader.clone()).collect();
        for reader in readers {
            let (high_watermark, status) = (reader.high_watermark(), reader.status());
            assert!(high_watermark <= status.flushed_end, "seed {}", self.seed);
            for batch in reader.batches_from(Offset::ZERO) {
                let batch = match batch {
                    Ok(batch) => batch,
                    // Its power was cut meanwhile.
                    Err(error) if error.to_string().contains(DEAD) => break,
                    Err(error) => panic!("seed {}: {error}", self.seed),
                };
                let mut seen = self.seen.lock();
                let known =
                    seen.committed.entry(batch.base_offset.get()).or_insert_with(|| batch.bytes.clone());
                assert_eq!(
                    *known, batch.bytes,
                    "seed {}: an offset names other bytes than before",
                    self.seed
                );
            }
        }
    }

    /// Sends batches, each until it is acknowledged, or the run is over.
    pub(super) async fn client(self: Arc<Self>, number: u64) {
        let mut random = Random::new(self.seed ^ (number << 32));
        for count in 0_u64.. {
            let line = format!(
                "{{\"timestamp\":{count},\"service\":\"s\",\"message\":\"{number}/{count}\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
            );
            let bytes = Bytes::from(line);
            let id = BatchId::derive(&Tenant::default(), &format!("{number}/{count}"), PARTITION);
            loop {
                if !self.goes_on() {
                    return;
                }
                let node = random.below(FOURTH) + 1;
                let handle = self.handles.lock().get(&node).map(|(handle, _)| handle.clone());
                let append = Append {
                    batch: ValidBatch::from_ndjson(bytes.clone()).unwrap(),
                    id,
                    digest: BatchDigest::of(&bytes),
                    id_is_new: false,
                    acks: Some(Durability::Quorum),
                    budget: None,
                };
                if let Some(handle) = handle
                    && let Ok(appended) = handle.append(append).await
                {
                    let offset = appended.base_offset.get();
                    simulated::note(|| format!("{number}/{count} is at {offset}"));
                    let other = self.seen.lock().acknowledged.insert(offset, bytes.clone());
                    assert_eq!(other, None, "seed {}: two batches at {offset}", self.seed);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Reads where this may miss nothing, as far as a node says that it is the one to ask.
    pub(super) async fn read(self: Arc<Self>) {
        let mut random = Random::new(!self.seed);
        while self.goes_on() {
            let group = self.net.0.lock().groups.get(&(random.below(FOURTH) + 1)).cloned();
            let (known_end, consumer_at) = {
                let seen = self.seen.lock();
                (seen.known_end(), seen.consumer_at)
            };
            if let Some(group) = group
                && group.confirm_leadership().await.is_ok()
            {
                let end = group.store().shared().reader.high_watermark();
                assert!(end >= known_end, "seed {}: a read of the past: {end} < {known_end}", self.seed);
                let kept_at = group.offset_of(ConsumerKey::of(CONSUMER)).unwrap_or(Offset::ZERO);
                assert!(kept_at >= consumer_at, "seed {}: {kept_at} < {consumer_at}", self.seed);
                simulated::note(|| format!("read up to {end}, the consumer at {kept_at}"));
                let mut seen = self.seen.lock();
                seen.read_end = seen.read_end.max(end);
                seen.reads += 1;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A consumer that goes on and on.
    pub(super) async fn consume(self: Arc<Self>) {
        let mut random = Random::new(self.seed ^ 0x5555);
        let consumer = ConsumerKey::of(CONSUMER);
        let mut next = 1;
        while self.goes_on() {
            let group = self.net.0.lock().groups.get(&(random.below(FOURTH) + 1)).cloned();
            let commit = ConsumerCommit { consumer, offset: Some(Offset::new(next)) };
            if let Some(group) = group
                && group.commit_offset(commit).await.is_ok()
            {
                self.seen.lock().consumer_at = Offset::new(next);
                next += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Moves a replica from `old` to the fourth node, whatever comes between.
    pub(super) async fn move_replica(self: Arc<Self>, old: NodeId) {
        loop {
            let leader = self.net.0.lock().groups.values().find(|group| group.leads()).cloned();
            if let Some(leader) = leader {
                let members: Vec<(NodeId, bool)> =
                    leader.status().members.iter().map(|member| (member.id.0, member.votes)).collect();
                let votes = |node| members.contains(&(node, true));
                let is_member = |node| members.iter().any(|(id, _)| *id == node);
                let is_half_way = members::is_half_way(&leader);
                simulated::note(|| format!("members {members:?}, half way: {is_half_way}"));
                if !is_half_way && votes(FOURTH) && !is_member(old) {
                    return;
                }
                let changed = async {
                    if is_half_way {
                        members::finish(&leader).await
                    } else if votes(FOURTH) {
                        members::let_go(&leader, old, true).await
                    } else {
                        members::change(&leader, Some((FOURTH, Member::default())), Some((old, true))).await
                    }
                };
                // What does not come about now is tried again.
                timeout(CHANGE_MAX, changed).await.ok();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Leaders go now and then, and hand over; how often another was elected by that.
    pub(super) async fn change_leaders(self: Arc<Self>) -> u64 {
        let mut random = Random::new(self.seed ^ 0xAAAA);
        let mut handed_over = 0;
        while self.goes_on() {
            tokio::time::sleep(Duration::from_millis(50 + random.below(150))).await;
            let leader = {
                let state = self.net.0.lock();
                let leader = state.groups.iter().find(|(_, group)| group.leads());
                leader.map(|(node, group)| (*node, group.clone()))
            };
            let Some((from, group)) = leader else { continue };
            let not_to = random.below(FOURTH) + 1;
            let heralds = NetHeralds { net: self.net.clone(), from };
            let is_done = group.hand_over(|node| node != not_to, &heralds).await.is_ok();
            simulated::note(|| format!("{from} hands over, not to {not_to}: {is_done}"));
            handed_over += u64::from(is_done);
        }
        handed_over
    }

    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            self.look();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}
