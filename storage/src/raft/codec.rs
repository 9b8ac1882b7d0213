//! What replicas say to one another, as bytes.
//!
//! An append is a head in JSON, its length before it (4 bytes, little-endian), and the batches' records after it, as
//! they are stored. Votes and heartbeats have no records: many of them, of many partitions, travel in one request.
//!
//! Invariant: records that do not match their checksums, or a head that is not what it says, are an error. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use model::{BatchDigest, BatchId, Partition};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use serde::{Deserialize, Serialize};

use super::types::{Entry, EntryData, SavedLogId, SavedMembership, SavedVote, TypeConfig};
use crate::log::{ConsumerCommit, EntryBatch};

type AppendRequest = AppendEntriesRequest<TypeConfig>;

const LENGTH_BYTES: usize = 4;

/// Why bytes are not what a replica says.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    /// It is cut short, or longer than it says.
    #[error("the message has another length than it says")]
    Length,
    /// The head is not JSON of the form that is expected.
    #[error("the message's head cannot be read: {0}")]
    Head(#[from] serde_json::Error),
    /// A batch's records are not those that were sent.
    #[error("a batch's records do not match their checksum")]
    Checksum,
    /// An entry whose records are elsewhere cannot be sent.
    #[error("an entry came without its records")]
    NoRecords,
    /// An entry is of a later term than its sender's: it was written by another leader while the sender lost the lead.
    #[error("the log is another leader's by now")]
    LaterTerm,
}

/// The head of an append.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppendHead {
    vote: SavedVote,
    prev: Option<SavedLogId>,
    commit: Option<SavedLogId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    entries: Vec<EntryHead>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct EntryHead {
    id: SavedLogId,
    content: ContentHead,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ContentHead {
    Blank,
    Members { members: SavedMembership },
    Consumer { commit: ConsumerCommit },
    Batches { base_offset: u64, batches: Vec<BatchHead> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct BatchHead {
    #[serde(with = "hex_id")]
    id: Option<BatchId>,
    digest: u64,
    records: u32,
    min_ms: u64,
    max_ms: u64,
    at_ms: u64,
    crc: u32,
    bytes: usize,
}

/// A request without records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LightRequest {
    /// A heartbeat.
    Append(AppendHead),
    /// A candidate asks for a vote.
    Vote {
        /// The vote that is asked for.
        vote: SavedVote,
        /// Where the candidate's log ends.
        last: Option<SavedLogId>,
    },
}

/// An answer to a request with or without records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// All entries are stored.
    Stored,
    /// The entries up to here are stored.
    StoredUpTo(Option<SavedLogId>),
    /// The entry before them is not there, or another.
    Conflict,
    /// There is a later leader, or a candidate.
    HigherVote(SavedVote),
    /// What became of a vote.
    Vote {
        /// The vote that the replica holds now.
        vote: SavedVote,
        /// Whether it was given.
        granted: bool,
        /// Where its log ends.
        last: Option<SavedLogId>,
    },
    /// The replica cannot do it just now.
    Failed(String),
}

/// One request of many that travel together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Addressed<T> {
    /// The partition whose replica is meant.
    pub partition: Partition,
    /// What it is told.
    pub message: T,
}

impl AppendHead {
    /// The head of a request without entries.
    pub fn of_heartbeat(request: &AppendRequest) -> Self {
        Self::of(request, Vec::new())
    }

    /// The request that a head without entries stands for.
    pub fn into_heartbeat(self) -> AppendRequest {
        self.into_request(Vec::new())
    }

    fn of(request: &AppendRequest, entries: Vec<EntryHead>) -> Self {
        Self {
            vote: request.vote.into(),
            prev: request.prev_log_id.map(SavedLogId::from),
            commit: request.leader_commit.map(SavedLogId::from),
            entries,
        }
    }

    fn into_request(self, entries: Vec<Entry>) -> AppendRequest {
        AppendRequest {
            vote: self.vote.into(),
            prev_log_id: self.prev.map(Into::into),
            entries,
            leader_commit: self.commit.map(Into::into),
        }
    }
}

/// An append's bytes, in pieces that need no copy.
pub(super) fn encode_append(request: AppendRequest) -> Result<Vec<Bytes>, CodecError> {
    let term = request.vote.leader_id.term;
    let mut heads = Vec::with_capacity(request.entries.len());
    let mut records = Vec::new();
    for entry in &request.entries {
        if entry.log_id.leader_id.term > term {
            return Err(CodecError::LaterTerm);
        }
        let content = match &entry.payload {
            EntryPayload::Blank => ContentHead::Blank,
            EntryPayload::Membership(members) => {
                ContentHead::Members { members: SavedMembership::of(Some(entry.log_id), members) }
            }
            EntryPayload::Normal(EntryData::Stored { base_offset, batches, .. }) => {
                records.extend(batches.iter().map(|batch| batch.bytes.clone()));
                let batches = batches.iter().map(BatchHead::of).collect();
                ContentHead::Batches { base_offset: *base_offset, batches }
            }
            EntryPayload::Normal(EntryData::Consumer(commit)) => ContentHead::Consumer { commit: *commit },
            EntryPayload::Normal(_) => return Err(CodecError::NoRecords),
        };
        heads.push(EntryHead { id: entry.log_id.into(), content });
    }
    let head = serde_json::to_vec(&AppendHead::of(&request, heads))?;
    let mut front = BytesMut::with_capacity(LENGTH_BYTES + head.len());
    front.put_u32_le(u32::try_from(head.len()).map_err(|_| CodecError::Length)?);
    front.put_slice(&head);
    Ok(std::iter::once(front.freeze()).chain(records).collect())
}

/// Reads an append; every batch's checksum is compared.
pub(super) fn decode_append(partition: Partition, mut bytes: Bytes) -> Result<AppendRequest, CodecError> {
    let length = bytes.split_to_checked(LENGTH_BYTES).ok_or(CodecError::Length)?;
    let length = <[u8; LENGTH_BYTES]>::try_from(&*length).map_err(|_| CodecError::Length)?;
    let head = bytes.split_to_checked(u32::from_le_bytes(length) as usize).ok_or(CodecError::Length)?;
    let mut head: AppendHead = serde_json::from_slice(&head)?;
    let entries = std::mem::take(&mut head.entries);
    let entries = entries
        .into_iter()
        .map(|entry| {
            let payload = match entry.content {
                ContentHead::Blank => EntryPayload::Blank,
                ContentHead::Members { members } => EntryPayload::Membership(members.membership()),
                ContentHead::Consumer { commit } => EntryPayload::Normal(EntryData::Consumer(commit)),
                ContentHead::Batches { base_offset, batches } => {
                    let batches = batches.into_iter().map(|batch| batch.with_records(&mut bytes));
                    let batches = batches.collect::<Result<_, CodecError>>()?;
                    EntryPayload::Normal(EntryData::Stored { partition, base_offset, batches })
                }
            };
            Ok(Entry { log_id: entry.id.into(), payload })
        })
        .collect::<Result<Vec<_>, CodecError>>()?;
    if bytes.is_empty() { Ok(head.into_request(entries)) } else { Err(CodecError::Length) }
}

impl BatchHead {
    fn of(batch: &EntryBatch) -> Self {
        Self {
            id: batch.id,
            digest: batch.digest.get(),
            records: batch.record_count,
            min_ms: batch.timestamp_min_ms,
            max_ms: batch.timestamp_max_ms,
            at_ms: batch.appended_at_ms,
            crc: batch.crc,
            bytes: batch.bytes.len(),
        }
    }

    fn with_records(self, rest: &mut Bytes) -> Result<EntryBatch, CodecError> {
        let bytes = rest.split_to_checked(self.bytes).ok_or(CodecError::Length)?;
        if crc32fast::hash(&bytes) != self.crc {
            return Err(CodecError::Checksum);
        }
        Ok(EntryBatch {
            id: self.id,
            digest: BatchDigest::from_u64(self.digest),
            record_count: self.records,
            timestamp_min_ms: self.min_ms,
            timestamp_max_ms: self.max_ms,
            appended_at_ms: self.at_ms,
            crc: self.crc,
            bytes,
        })
    }
}

impl LightRequest {
    /// A candidate's question.
    pub fn of_vote(request: &VoteRequest<u64>) -> Self {
        Self::Vote { vote: request.vote.into(), last: request.last_log_id.map(SavedLogId::from) }
    }
}

impl Answer {
    /// What became of an append.
    pub fn of_append(response: AppendEntriesResponse<u64>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Stored,
            AppendEntriesResponse::PartialSuccess(upto) => Self::StoredUpTo(upto.map(SavedLogId::from)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }

    /// What became of a vote.
    pub fn of_vote(response: VoteResponse<u64>) -> Self {
        Self::Vote {
            vote: response.vote.into(),
            granted: response.vote_granted,
            last: response.last_log_id.map(SavedLogId::from),
        }
    }

    /// The answer to an append.
    pub fn into_append(self) -> Result<AppendEntriesResponse<u64>, String> {
        match self {
            Self::Stored => Ok(AppendEntriesResponse::Success),
            Self::StoredUpTo(upto) => Ok(AppendEntriesResponse::PartialSuccess(upto.map(Into::into))),
            Self::Conflict => Ok(AppendEntriesResponse::Conflict),
            Self::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            Self::Vote { .. } => Err("it answered another question".to_owned()),
            Self::Failed(why) => Err(why),
        }
    }

    /// The answer to a candidate.
    pub fn into_vote(self) -> Result<VoteResponse<u64>, String> {
        match self {
            Self::Vote { vote, granted, last } => {
                let last_log_id = last.map(Into::into);
                Ok(VoteResponse { vote: vote.into(), vote_granted: granted, last_log_id })
            }
            Self::Failed(why) => Err(why),
            _ => Err("it answered another question".to_owned()),
        }
    }
}

/// `split_to` that says no instead of panicking.
trait SplitChecked: Sized {
    fn split_to_checked(&mut self, length: usize) -> Option<Self>;
}

impl SplitChecked for Bytes {
    fn split_to_checked(&mut self, length: usize) -> Option<Self> {
        (length <= self.len()).then(|| self.split_to(length))
    }
}

/// A batch id as the text that people know it by.
mod hex_id {
    use model::BatchId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &Option<BatchId>, serializer: S) -> Result<S::Ok, S::Error> {
        id.map(|id| id.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<BatchId>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{Vote, log_id};
    use super::*;
    use crate::log::ConsumerKey;

    fn commit() -> ConsumerCommit {
        ConsumerCommit { consumer: ConsumerKey::of("c"), offset: Some(model::Offset::new(u64::MAX)) }
    }

    fn request() -> AppendRequest {
        let bytes = Bytes::from_static(b"{}\n{}\n");
        let batch = EntryBatch {
            id: Some(BatchId::from_bytes([7; 16])),
            digest: BatchDigest::from_u64(u64::MAX),
            record_count: 2,
            timestamp_min_ms: 1,
            timestamp_max_ms: 2,
            appended_at_ms: 3,
            crc: crc32fast::hash(&bytes),
            bytes,
        };
        let data = EntryData::Stored {
            partition: Partition::new(3),
            base_offset: 40,
            batches: vec![batch.clone(), EntryBatch { id: None, ..batch }],
        };
        let node = |id: u64| (id, super::super::types::Member::default());
        let nodes: std::collections::BTreeMap<_, _> = [node(1), node(u64::MAX)].into();
        let members = super::super::types::Membership::new(vec![[1, u64::MAX].into()], nodes);
        let entry = |index, payload| Entry { log_id: log_id(2, index), payload };
        AppendRequest {
            vote: Vote::new_committed(2, 9),
            prev_log_id: Some(log_id(1, 4)),
            entries: vec![
                entry(5, EntryPayload::Blank),
                entry(6, EntryPayload::Membership(members)),
                entry(7, EntryPayload::Normal(data)),
                entry(8, EntryPayload::Normal(EntryData::Consumer(commit()))),
            ],
            leader_commit: None,
        }
    }

    #[test]
    fn an_append_arrives_as_it_was_sent() {
        let sent = encode_append(request()).unwrap().concat();
        let received = decode_append(Partition::new(3), sent.into()).unwrap();
        assert_eq!(received.vote, request().vote);
        assert_eq!(received.prev_log_id, request().prev_log_id);
        let batches = |request: &AppendRequest| match &request.entries[2].payload {
            EntryPayload::Normal(EntryData::Stored { batches, base_offset: 40, .. }) => batches.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(batches(&received), batches(&request()));
        assert!(matches!(
            received.entries[3].payload,
            EntryPayload::Normal(EntryData::Consumer(received)) if received == commit()
        ));
        assert_eq!(received.entries[1].log_id, log_id(2, 6));
        let members = |request: &AppendRequest| match &request.entries[1].payload {
            EntryPayload::Membership(members) => members.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(members(&received), members(&request()));
    }

    #[test]
    fn bytes_that_are_cut_or_changed_are_refused() {
        let sent = encode_append(request()).unwrap().concat();
        for length in 0..sent.len() {
            assert!(decode_append(Partition::new(3), Bytes::copy_from_slice(&sent[..length])).is_err());
        }
        let longer = [sent.as_slice(), b"x"].concat();
        assert!(matches!(decode_append(Partition::new(3), longer.into()), Err(CodecError::Length)));
        let mut changed = sent.clone();
        *changed.last_mut().unwrap() = b'x';
        assert!(matches!(decode_append(Partition::new(3), changed.into()), Err(CodecError::Checksum)));
    }

    #[test]
    fn an_entry_of_a_later_leader_is_not_sent() {
        let mut later = request();
        later.entries[2].log_id = log_id(3, 7);
        assert!(matches!(encode_append(later), Err(CodecError::LaterTerm)));
    }

    #[test]
    fn votes_and_heartbeats_arrive_as_they_were_sent() {
        let mut heartbeat = request();
        heartbeat.entries.clear();
        let messages = vec![
            Addressed {
                partition: Partition::new(1),
                message: LightRequest::Append(AppendHead::of_heartbeat(&heartbeat)),
            },
            Addressed {
                partition: Partition::new(2),
                message: LightRequest::of_vote(&VoteRequest::new(Vote::new(5, 1), Some(log_id(4, 9)))),
            },
        ];
        let text = serde_json::to_vec(&messages).unwrap();
        let read: Vec<Addressed<LightRequest>> = serde_json::from_slice(&text).unwrap();
        assert_eq!(read, messages);
        for answer in [Answer::Stored, Answer::Conflict, Answer::HigherVote(Vote::new(7, 2).into())] {
            let text = serde_json::to_vec(&answer).unwrap();
            assert_eq!(serde_json::from_slice::<Answer>(&text).unwrap(), answer);
        }
    }
}
