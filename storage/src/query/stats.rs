//! What an answer took, and what it lacks.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use model::{Partition, wire};

use super::fan_out::PeerError;

/// What was read for an answer, and what was passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of records that were read.
    pub scanned_bytes: u64,
    /// Bytes of records that were not.
    pub skipped_bytes: u64,
    /// Segments that there are.
    pub segments: u64,
    /// Segments that were passed over as a whole.
    pub segments_skipped: u64,
    /// Blocks of the segments that were not.
    pub blocks: u64,
    /// Blocks that were passed over.
    pub blocks_skipped: u64,
    /// How long it took.
    pub time_ms: u64,
    /// How old what was read may be, where partitions have several copies. Told by itself, and not in the text.
    pub staleness: Option<Staleness>,
}

/// How old may be what a replica knows. Ordered: one of which it is not known may be any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Staleness {
    /// So many milliseconds.
    Ms(u64),
    /// It is not known.
    Unknown,
}

/// Why an answer has less than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The time for one query was over: not all records were searched.
    Time,
    /// The answer has as many bytes as one may have: there are further records.
    Bytes,
    /// As many bytes were read as may be for this: older records were not looked at.
    Scan,
    /// There are more names than are counted.
    Names,
    /// Records of this partition could not be read.
    Damage(Partition),
    /// No node that has a copy of this partition answers.
    Nowhere(Partition),
    /// Another node did not answer, or its answer was no use.
    Node {
        /// Its URL.
        url: String,
        /// What happened.
        reason: String,
    },
    /// What another node's answer lacks, in its words.
    Told {
        /// Its URL.
        url: String,
        /// What it said.
        lack: String,
    },
}

impl Stats {
    /// Adds what another part of the answer took. Parts are made at the same time.
    pub fn add(&mut self, other: &Self) {
        self.scanned_bytes += other.scanned_bytes;
        self.skipped_bytes += other.skipped_bytes;
        self.segments += other.segments;
        self.segments_skipped += other.segments_skipped;
        self.blocks += other.blocks;
        self.blocks_skipped += other.blocks_skipped;
        self.time_ms = self.time_ms.max(other.time_ms);
        self.note_staleness(other.staleness);
    }

    /// Something of it was read that may be so old.
    pub fn note_staleness(&mut self, staleness: Option<Staleness>) {
        self.staleness = self.staleness.max(staleness);
    }

    /// Reads what [`fmt::Display`] wrote; what is not there counts as zero.
    pub fn parse(text: &str) -> Self {
        let mut stats = Self::default();
        for (name, value) in text.split(',').filter_map(|part| part.trim().split_once('=')) {
            let field = match name {
                "scanned_bytes" => &mut stats.scanned_bytes,
                "skipped_bytes" => &mut stats.skipped_bytes,
                "segments" => &mut stats.segments,
                "segments_skipped" => &mut stats.segments_skipped,
                "blocks" => &mut stats.blocks,
                "blocks_skipped" => &mut stats.blocks_skipped,
                "time_ms" => &mut stats.time_ms,
                _ => continue,
            };
            *field = value.parse().unwrap_or_default();
        }
        stats
    }
}

impl Lack {
    /// What lacks because a node did not answer.
    pub fn node(url: &str, error: &PeerError) -> Self {
        Self::Node { url: url.to_owned(), reason: error.to_string() }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scanned_bytes,
            skipped_bytes,
            segments,
            segments_skipped,
            blocks,
            blocks_skipped,
            time_ms,
            staleness: _,
        } = self;
        write!(
            f,
            "scanned_bytes={scanned_bytes}, skipped_bytes={skipped_bytes}, segments={segments}, \
             segments_skipped={segments_skipped}, blocks={blocks}, blocks_skipped={blocks_skipped}, time_ms={time_ms}"
        )
    }
}

impl fmt::Display for Staleness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ms(ms) => write!(f, "{ms}"),
            Self::Unknown => f.write_str(wire::STALENESS_UNKNOWN),
        }
    }
}

impl FromStr for Staleness {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        if text == wire::STALENESS_UNKNOWN { Ok(Self::Unknown) } else { text.parse().map(Self::Ms) }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time => f.write_str("time: not all records were searched"),
            Self::Bytes => f.write_str("bytes: the answer would be too large; further records are left out"),
            Self::Scan => f.write_str("bytes: older records were not looked at"),
            Self::Names => f.write_str("names: there are more than are counted"),
            Self::Damage(partition) => write!(f, "damage: records of partition {partition} cannot be read"),
            Self::Nowhere(partition) => write!(f, "partition {partition}: no node that has a copy answers"),
            Self::Node { url, reason } => write!(f, "node {url} did not answer: {reason}"),
            Self::Told { url, lack } => write!(f, "{lack} (node {url})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_keep_their_text() {
        let stats = Stats {
            scanned_bytes: 1,
            skipped_bytes: 2,
            segments: 3,
            segments_skipped: 4,
            blocks: 5,
            blocks_skipped: 6,
            time_ms: 7,
            staleness: None,
        };
        assert_eq!(Stats::parse(&stats.to_string()), stats);
        assert_eq!(Stats::parse("x=1, scanned_bytes=?"), Stats::default());
    }

    #[test]
    fn the_whole_is_as_old_as_its_oldest_part() {
        let of = |staleness| Stats { staleness, ..Stats::default() };
        let sum = |parts: &[Option<Staleness>]| {
            let mut whole = Stats::default();
            parts.iter().for_each(|part| whole.add(&of(*part)));
            whole.staleness
        };
        assert_eq!(sum(&[None, None]), None);
        let (young, old) = (Staleness::Ms(7), Staleness::Ms(90));
        assert_eq!(sum(&[Some(young), None, Some(old), Some(young)]), Some(old));
        assert_eq!(sum(&[Some(Staleness::Unknown), Some(Staleness::Ms(u64::MAX))]), Some(Staleness::Unknown));
        for staleness in [young, old, Staleness::Unknown] {
            assert_eq!(staleness.to_string().parse(), Ok(staleness));
        }
        assert!("7.5".parse::<Staleness>().is_err());
    }
}
