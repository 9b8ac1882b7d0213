//! The times of a group, all of which follow from one.
//!
//! Invariant: a heartbeat is a fraction of what a follower waits for it.

use std::time::Duration;

/// The times of a group.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    election_max: Duration,
}

impl Timing {
    /// The times for a leader that may be silent for this long.
    pub fn new(election_max: Duration) -> Self {
        Self { election_max }
    }

    /// How often a leader says that it is there. All groups of a node do so at the same moment, so that it is one
    /// request to each other node.
    pub fn heartbeat(&self) -> Duration {
        self.tick() * 3
    }

    /// How often it is looked whether a heartbeat or an election is due.
    pub fn tick(&self) -> Duration {
        self.election_max / 10
    }

    /// How long a replica that hears no leader waits before it stands for election. `chance` is any number: replicas
    /// that waited the same time would split the votes, again and again.
    pub fn election_wait(&self, chance: u64) -> Duration {
        // Others do not vote while the leader may still be there for them.
        self.election_max * 11 / 10 + self.election_max.mul_f64((chance % 1000) as f64 / 1000.0 * 0.9)
    }

    /// How long a replica waits to stand again that was only not up to date with the term.
    pub fn second_try_wait(&self, chance: u64) -> Duration {
        self.election_max.mul_f64(0.05 + (chance % 1000) as f64 / 1000.0 * 0.25)
    }

    /// How long a replica waits to stand again that stood at the same moment as another. A vote is on the disk before it is
    /// sent, so that what lies between the two has to be longer than a disk takes.
    pub fn split_wait(&self, chance: u64) -> Duration {
        self.election_max.mul_f64(0.05 + (chance % 1000) as f64 / 1000.0 * 0.6)
    }

    /// How long one request between replicas may take; what was stored meanwhile is not sent again.
    pub fn request(&self) -> Duration {
        self.election_max * 2 / 5
    }

    /// How long each step of handing a lead over may take: all of them take less than an election that is waited for.
    pub fn hand_over_step_max(&self) -> Duration {
        self.election_max * 2 / 5
    }

    /// How long a node that ends waits until others lead its partitions.
    pub fn hand_over_max(&self) -> Duration {
        self.hand_over_step_max() * 5
    }

    /// How long a leader that no majority answers still counts as one.
    pub fn quorum_silence_max(&self) -> Duration {
        self.election_max * 2
    }

    /// How long something waits for a majority before its client is told that there is none.
    pub fn commit_wait_max(&self) -> Duration {
        self.election_max * 4
    }

    /// As [`Self::commit_wait_max`], of a batch, whose ingest waits only so long for its answer; the wait for the last
    /// replica included.
    pub fn append_wait_max(&self) -> Duration {
        self.commit_wait_max().min(model::limits::APPEND_AGREED_TIME_MAX)
    }

    /// How long a read waits until a majority says that this replica still leads.
    pub fn read_wait_max(&self) -> Duration {
        self.election_max * 2
    }

    /// How long a batch that is on a majority waits for the last replica.
    pub fn all_wait_max(&self) -> Duration {
        self.election_max * 2
    }

    /// The library's settings.
    pub(super) fn config(&self, partition: model::Partition) -> openraft::Config {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        openraft::Config {
            cluster_name: format!("partition-{partition}"),
            // Heartbeats and elections are ours to time; it goes by this for the time of a request.
            heartbeat_interval: ms(self.request()),
            enable_heartbeat: false,
            enable_elect: false,
            election_timeout_min: ms(self.election_max * 11 / 20),
            election_timeout_max: ms(self.election_max),
            // A snapshot is the log: the time is for finding that out. The copying is done on the other side.
            install_snapshot_timeout: ms(self.election_max * 10),
            max_payload_entries: 256,
            replication_lag_threshold: 1000,
            // The log is deleted by retention alone, which asks for it. A snapshot purges nothing by itself: it is
            // asked for so that the library lets retention purge, and by default takes all that it may.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            ..openraft::Config::default()
        }
    }
}
