//! Reading back: searches, counts, the records around one, and reads by offset.
//!
//! `parse` (parameters → a query) → `units` (what of it has to be looked at, in order, by what `index` knows) →
//! `scan` (one unit) → a sink (`search`, `histogram`, `services`, `labels`), all driven by `drive`. Runs on a bounded
//! [`Pool`]. Must not know of HTTP, nor of the partitions' actors: it has readers and indexes.

mod context;
mod deadline;
mod drive;
mod encode;
mod fan_out;
mod filter;
mod histogram;
mod key;
mod labels;
mod merge;
mod needle;
mod parse;
mod pattern;
mod pool;
mod probe;
mod read;
mod run;
mod scan;
mod search;
mod selection;
mod services;
mod stats;
mod tail;
mod time;
mod units;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::limits as shared;
use tokio::sync::{OwnedSemaphorePermit, watch};

pub use deadline::Watch;
pub use encode::{Format, RecordWriter};
pub use fan_out::{PeerAnswer, PeerError, Peers, Plan, SHARE, Share};
pub use filter::Filter;
pub use histogram::{Buckets, Histogram};
pub use key::{Cursor, Direction, Key, Order};
pub use labels::{Counted, merge_counted};
pub use merge::{Merged, Part};
pub use needle::Needle;
pub use parse::{
    ContextQuery, CountQuery, Cut, HistogramQuery, ParameterError, Query, TailQuery, parse_partition,
};
pub use pool::{Pool, PoolError};
pub use read::ReadRange;
pub use search::Found;
pub use services::{ServiceSummary, merge_services};
pub use stats::{Lack, Staleness, Stats};
pub use tail::{Positions, TailBegin, TailBounds, TailEvent, TailPiece, TailRecord};

use crate::index::PartitionIndex;
use crate::limits;
use crate::log::LogReader;
use units::Snapshot;

/// Answers queries over all partitions of the node.
#[derive(Clone, Debug)]
pub struct Queries {
    partitions: Arc<[Arc<PartitionIndex>]>,
    pool: Pool,
    tail_pool: Pool,
    /// Counts how often there was something new.
    news: Arc<watch::Sender<u64>>,
}

/// An answer of records.
#[derive(Clone, Debug, Default)]
pub struct RecordsAnswer {
    /// The records, in the format that was asked for; counted against the bound of waiting answers.
    pub body: Bytes,
    /// How many.
    pub records: usize,
    /// Where to go on; `None` when there is no more.
    pub next: Option<Cursor>,
    /// What the answer lacks; empty when it is whole.
    pub lacks: Vec<Lack>,
    /// What it took.
    pub stats: Stats,
}

/// An answer of counts.
#[derive(Clone, Debug, Default)]
pub struct CountsAnswer<T> {
    /// The counts.
    pub counts: T,
    /// What they lack; empty when they are whole.
    pub lacks: Vec<Lack>,
    /// What they took.
    pub stats: Stats,
}

impl Queries {
    /// Queries over these partitions, in order, on this pool.
    pub fn new(partitions: impl IntoIterator<Item = Arc<PartitionIndex>>, pool: Pool) -> Self {
        let partitions: Arc<[Arc<PartitionIndex>]> = partitions.into_iter().collect();
        let news = Arc::new(watch::Sender::new(0_u64));
        for index in partitions.iter() {
            let news = Arc::clone(&news);
            index.reader().on_publish(move || news.send_modify(|count| *count = count.wrapping_add(1)));
        }
        Self { partitions, pool, tail_pool: Pool::new(limits::TAIL_THREADS), news }
    }

    /// Changes whenever there may be something new to read.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Begins a tail.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn tail_begin(
        &self,
        query: TailQuery,
        resumed: Option<Positions>,
        bounds: TailBounds,
    ) -> Result<TailBegin, PoolError> {
        let partitions = Arc::clone(&self.partitions);
        let (watch, _abandon) = Watch::until(Instant::now() + limits::QUERY_TIME_MAX);
        let work = move || {
            let snapshot = Snapshot::now(&partitions, &query.filter);
            (Vec::new(), tail::begin(&snapshot, &query, resumed.as_ref(), bounds, &watch))
        };
        Ok(self.pool.run(limits::QUERY_WAIT_MAX, work).await?.1)
    }

    /// What is new behind `positions`.
    ///
    /// # Errors
    /// When too many tails are at it already.
    pub async fn tail_next(
        &self,
        filter: Arc<Filter>,
        positions: Positions,
        bounds: TailBounds,
    ) -> Result<TailPiece, PoolError> {
        let partitions = Arc::clone(&self.partitions);
        let (watch, _abandon) = Watch::until(Instant::now() + bounds.piece_time_max);
        let work = move || {
            let snapshot = Snapshot::now(&partitions, &filter);
            (Vec::new(), tail::next(&snapshot, &filter, &positions, bounds, &watch))
        };
        Ok(self.tail_pool.run(limits::QUERY_WAIT_MAX, work).await?.1)
    }

    /// The first records that pass the query's filter.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn search(&self, query: Query, format: Format) -> Result<RecordsAnswer, PoolError> {
        let partitions = Arc::clone(&self.partitions);
        let pool = self.pool.clone();
        self.run(move |watch| {
            let snapshot = Snapshot::now(&partitions, &query.filter);
            let more = more_threads(&pool, &query.filter);
            let (bytes_max, threads) = (shared::QUERY_ANSWER_BYTES_MAX, 1 + more.len());
            let found = search::search_in_parallel(&snapshot, &query, bytes_max, watch, threads);
            drop(more);
            let body = found.encode(format, query.with_places);
            let records = found.records.len();
            let Found { next, lacks, stats, .. } = found;
            (body, RecordsAnswer { records, next, lacks, stats, ..RecordsAnswer::default() })
        })
        .await
        .map(|(body, answer)| RecordsAnswer { body, stats: answer.stats, ..answer })
    }

    /// Puts the answers of several nodes together. They are held until it is done.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn merge(
        &self,
        parts: Vec<Part>,
        held: Vec<PeerAnswer>,
        query: Query,
        format: Format,
    ) -> Result<RecordsAnswer, PoolError> {
        let work = move |_: &Watch| {
            let merged = merge::merge(&parts, &query, format, shared::QUERY_ANSWER_BYTES_MAX);
            drop((parts, held));
            let Merged { body, records, next, lacks, stats } = merged;
            (body, (RecordsAnswer { records, next, lacks, stats, ..RecordsAnswer::default() }, stats))
        };
        let (body, (answer, stats)) = self.run(work).await?;
        // The parts' time is the answer's; that of putting them together is nothing beside it.
        Ok(RecordsAnswer { body, stats, ..answer })
    }

    /// The records around one; `None` when there is none at its place.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn context(
        &self,
        query: ContextQuery,
        format: Format,
    ) -> Result<Option<RecordsAnswer>, PoolError> {
        let index = self.partitions.iter().find(|index| index.partition() == query.partition).cloned();
        let Some(index) = index else { return Ok(None) };
        let (body, answer) = self
            .run(move |watch| {
                let found = context::context(index.reader(), &query, shared::QUERY_ANSWER_BYTES_MAX, watch);
                let body = found.as_ref().map(|found| found.encode(format, true)).unwrap_or_default();
                let answer = found.map(|Found { records, lacks, stats, .. }| RecordsAnswer {
                    records: records.len(),
                    lacks,
                    stats,
                    ..RecordsAnswer::default()
                });
                (body, answer)
            })
            .await?;
        Ok(answer.map(|answer| RecordsAnswer { body, ..answer }))
    }

    /// The times of the first record and the last in the partitions that the filter wants; `None` when there are none.
    pub fn extent(&self, filter: &Filter) -> Option<(u64, u64)> {
        histogram::extent(&Snapshot::now(&self.partitions, filter))
    }

    /// How many records pass the filter in each bucket, by level.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn histogram(
        &self,
        filter: Filter,
        buckets: Buckets,
    ) -> Result<CountsAnswer<Histogram>, PoolError> {
        let pool = self.pool.clone();
        self.count(filter, move |snapshot, filter, watch| {
            let more = more_threads(&pool, filter);
            histogram::histogram_in_parallel(snapshot, filter, buckets, watch, 1 + more.len())
        })
        .await
    }

    /// Every service's counts.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn services(&self, filter: Filter) -> Result<CountsAnswer<Vec<ServiceSummary>>, PoolError> {
        self.count(filter, services::services).await
    }

    /// The names of labels, or the values of the label `of`, and how many of the newest records have each.
    ///
    /// # Errors
    /// When too much runs already.
    pub async fn labels(
        &self,
        filter: Filter,
        of: Option<String>,
    ) -> Result<CountsAnswer<Vec<Counted>>, PoolError> {
        self.count(filter, move |snapshot, filter, watch| {
            labels::labels(snapshot, filter, of.as_deref(), watch)
        })
        .await
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

    async fn count<T: Send + 'static>(
        &self,
        filter: Filter,
        work: impl FnOnce(&Snapshot, &Filter, &Watch) -> (T, Vec<Lack>, Stats) + Send + 'static,
    ) -> Result<CountsAnswer<T>, PoolError> {
        let partitions = Arc::clone(&self.partitions);
        let (_, answer) = self
            .run(move |watch| {
                let snapshot = Snapshot::now(&partitions, &filter);
                let (counts, lacks, stats) = work(&snapshot, &filter, watch);
                (Vec::new(), CountsAnswer { counts, lacks, stats })
            })
            .await?;
        Ok(answer)
    }

    /// Runs a query on the pool, until it is done, out of time, or nobody waits for it any more.
    async fn run<T: Send + Timed + 'static>(
        &self,
        work: impl FnOnce(&Watch) -> (Vec<u8>, T) + Send + 'static,
    ) -> Result<(Bytes, T), PoolError> {
        let (watch, _abandon) = Watch::until(Instant::now() + limits::QUERY_TIME_MAX);
        let timed = move || {
            let started = Instant::now();
            let (body, mut answer) = work(&watch);
            answer.set_time(started.elapsed());
            (body, answer)
        };
        self.pool.run(limits::QUERY_WAIT_MAX, timed).await
    }
}

/// Further threads for a query that has to look at most lines: one that the index and literals do not help.
fn more_threads(pool: &Pool, filter: &Filter) -> Vec<OwnedSemaphorePermit> {
    if filter.is_expensive() { pool.spare_slots(limits::QUERY_THREADS_MAX - 1) } else { Vec::new() }
}

/// An answer that tells how long it took.
trait Timed {
    fn set_time(&mut self, time: Duration);
}

impl Timed for RecordsAnswer {
    fn set_time(&mut self, time: Duration) {
        self.stats.time_ms = time.as_millis() as u64;
    }
}

impl<T> Timed for CountsAnswer<T> {
    fn set_time(&mut self, time: Duration) {
        self.stats.time_ms = time.as_millis() as u64;
    }
}

impl<T: Timed> Timed for (T, Stats) {
    fn set_time(&mut self, time: Duration) {
        self.0.set_time(time);
    }
}

impl<T: Timed> Timed for Option<T> {
    fn set_time(&mut self, time: Duration) {
        if let Some(answer) = self {
            answer.set_time(time);
        }
    }
}
