//! What a storage node tells of its cluster: `GET /v1/cluster`.
//!
//! Nodes are known by two things that are not secrets: a name, for people, and a URL, for those who call them. Whoever
//! reads this over the network takes a URL in it for a hint, and calls it only if it was configured to.

use serde::{Deserialize, Serialize};

use crate::ids::{Offset, Partition};

/// Storage's answer to `GET /v1/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterAnswer {
    /// The node that answers.
    pub node: String,
    /// The nodes it knows, itself among them.
    pub nodes: Vec<ClusterNode>,
    /// The partitions it knows, in order.
    pub partitions: Vec<PartitionState>,
}

/// A storage node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNode {
    /// What it drew when its data directory was made; a wiped node gets another. Absent where nothing needs it.
    #[serde(default)]
    pub id: Option<String>,
    /// Its name; the URL, as long as it has not told one.
    pub name: String,
    /// Where it is reached.
    pub url: String,
    /// Where it stands, if it was told: copies of a partition are spread over zones.
    #[serde(default)]
    pub zone: Option<String>,
    /// Whether it has answered of late.
    pub alive: bool,
    /// Whether its operator wants it to hold nothing: its copies move to others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// One partition, as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// Its number.
    pub partition: Partition,
    /// The URL of the node that takes its appends; absent during an election.
    pub leader: Option<String>,
    /// The term of that leadership; 0 without replication.
    pub term: u64,
    /// The offset of the oldest record that is kept.
    #[serde(default)]
    pub first_offset: Offset,
    /// One past the newest record that may be read.
    pub high_watermark: Offset,
    /// Its copies.
    pub replicas: Vec<Replica>,
}

/// One copy of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The name of the node that holds it.
    pub node: String,
    /// That node's URL.
    pub url: String,
    /// What it does for the partition.
    pub role: ReplicaRole,
    /// One past the newest record that is on its disk, as far as is known.
    pub flushed: Offset,
    /// Records that it lacks of what the leader has.
    pub lag: u64,
}

/// What a copy does for its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaRole {
    /// Takes appends.
    Leader,
    /// Counts for the quorum.
    Follower,
    /// Is being filled, and does not count yet.
    Learner,
}

impl ClusterAnswer {
    /// The URL under which the node that answers knows itself.
    pub fn own_url(&self) -> Option<&str> {
        self.nodes.iter().find(|node| node.name == self.node).map(|node| node.url.as_str())
    }
}

impl PartitionState {
    /// What the node of this name does for the partition, if it holds a copy.
    pub fn role_of(&self, node: &str) -> Option<ReplicaRole> {
        self.replicas.iter().find(|replica| replica.node == node).map(|replica| replica.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape that clients depend on.
    #[test]
    fn the_answer_has_its_documented_shape() {
        let text = r#"{"node":"node-1","nodes":[{"id":null,"name":"node-1","url":"http://127.0.0.1:8081","zone":"a","alive":true}],"partitions":[{"partition":0,"leader":"http://127.0.0.1:8081","term":3,"first_offset":0,"high_watermark":1234,"replicas":[{"node":"node-1","url":"http://127.0.0.1:8081","role":"leader","flushed":1240,"lag":0}]}]}"#;
        let answer: ClusterAnswer = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        assert_eq!(answer.own_url(), Some("http://127.0.0.1:8081"));
        assert_eq!(answer.partitions[0].role_of("node-1"), Some(ReplicaRole::Leader));
        assert_eq!(answer.partitions[0].role_of("node-2"), None);
    }
}
