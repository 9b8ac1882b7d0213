//! Reading back: the last records, the newest that pass filters, the services there are.
//!
//! `parse` (parameters → [`Query`]) → `scan` (one partition, newest first) → `merge` (all partitions by time) →
//! `encode`. Scans run on a bounded [`Pool`]. Must not know of HTTP, nor of the partitions' actors: it has readers.

mod encode;
mod merge;
mod needle;
mod parse;
mod pool;
mod read;
mod scan;
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::wire::ServiceCount;
use model::{Partition, limits as shared};
use parking_lot::Mutex;

pub use encode::{Format, RecordWriter};
pub use merge::{Answer, Lack};
pub use needle::Needle;
pub use parse::{ParameterError, Query, parse_partition};
pub use pool::{Pool, PoolError};
pub use read::ReadRange;
pub use scan::Watch;

use crate::limits;
use crate::log::LogReader;
use scan::PartitionScan;
use services::ServiceCounts;

/// Answers queries over all partitions of the node.
#[derive(Clone, Debug)]
pub struct Queries {
    partitions: Arc<[Readable]>,
    pool: Pool,
}

#[derive(Debug)]
struct Readable {
    partition: Partition,
    reader: LogReader,
    services: Mutex<ServiceCounts>,
}

/// A finished search: its body, counted against the bound of waiting answers, and what it lacks.
#[derive(Clone, Debug)]
pub struct SearchAnswer {
    /// The records, in the format that was asked for.
    pub body: Bytes,
    /// What the answer lacks; empty when it is whole.
    pub lacks: Vec<Lack>,
}

/// The services there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicesAnswer {
    /// By name.
    pub services: Vec<ServiceCount>,
    /// What the counts lack, in words; empty when they are whole.
    pub lacks: Vec<&'static str>,
}

impl Queries {
    /// Queries over these partitions, in order, on this pool.
    pub fn new(partitions: impl IntoIterator<Item = (Partition, LogReader)>, pool: Pool) -> Self {
        let readable = |(partition, reader)| Readable { partition, reader, services: Mutex::default() };
        Self { partitions: partitions.into_iter().map(readable).collect(), pool }
    }

    /// The newest records that pass the query's filters.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn search(&self, query: Query, format: Format) -> Result<SearchAnswer, PoolError> {
        let partitions = Arc::clone(&self.partitions);
        let (watch, _abandon) = Watch::until(Instant::now() + limits::QUERY_TIME_MAX);
        let work = move || {
            let answer = search(&partitions, &query, format, &watch);
            (answer.body, answer.lacks)
        };
        let (body, lacks) = self.pool.run(limits::QUERY_WAIT_MAX, work).await?;
        Ok(SearchAnswer { body, lacks })
    }

    /// Every service's count of records.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn services(&self) -> Result<ServicesAnswer, PoolError> {
        let partitions = Arc::clone(&self.partitions);
        let (watch, _abandon) = Watch::until(Instant::now() + limits::QUERY_TIME_MAX);
        let work = move || (Vec::new(), count_services(&partitions, &watch));
        let (_, answer) = self.pool.run(limits::QUERY_WAIT_MAX, work).await?;
        Ok(answer)
    }

    /// Reads one piece of `range`, waiting for a thread for `wait_max`.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn read_piece(
        &self,
        reader: LogReader,
        range: ReadRange,
        mut writer: RecordWriter,
        wait_max: Duration,
    ) -> Result<(Bytes, ReadRange, RecordWriter), PoolError> {
        let work = move || {
            let (mut piece, left) = range.read_piece(&reader, &mut writer);
            if left.is_empty() {
                writer.end(&mut piece);
            }
            (piece, (left, writer))
        };
        let (piece, (left, writer)) = self.pool.run(wait_max, work).await?;
        Ok((piece, left, writer))
    }
}

fn search(partitions: &[Readable], query: &Query, format: Format, watch: &Watch) -> Answer {
    let wanted =
        partitions.iter().filter(|held| query.partition.is_none_or(|wanted| wanted == held.partition));
    let scans = wanted
        .map(|held| {
            let batches = held.reader.batches_before(held.reader.high_watermark());
            PartitionScan::new(held.partition, batches, query, watch)
        })
        .collect();
    merge::merge(scans, query.limit, shared::QUERY_ANSWER_BYTES_MAX, format)
}

fn count_services(partitions: &[Readable], watch: &Watch) -> ServicesAnswer {
    let mut totals = BTreeMap::new();
    let (mut in_time, mut damaged, mut overflowed) = (true, false, false);
    for held in partitions {
        let mut counts = held.services.lock();
        let first_offset = held.reader.first_offset();
        in_time &= counts.catch_up(first_offset, |offset| held.reader.batches_from(offset), watch).is_ok();
        damaged |= counts.met_damage();
        overflowed |= counts.overflowed();
        counts.add_to(&mut totals);
    }
    let lacks = [
        (!in_time, "time: not all records are counted yet; ask again"),
        (damaged, "damage: some records cannot be read"),
        (overflowed, "overflow: there are more services than are counted"),
    ];
    ServicesAnswer {
        services: totals.into_iter().map(|(service, records)| ServiceCount { service, records }).collect(),
        lacks: lacks.into_iter().filter_map(|(lacks, reason)| lacks.then_some(reason)).collect(),
    }
}
