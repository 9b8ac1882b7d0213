//! The background work: follows each partition's log below its high watermark, and indexes what has no index.
//!
//! Invariant: each record is looked at once. The active segment comes first, then sealed ones without sidecars, the
//! newest first. The writer never waits for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use model::Offset;

use super::block::{Block, SegmentIndex};
use super::builder::{BLOCK_BYTES, BlockBuilder, Built};
use super::filter::BlockFilter;
use super::names::Names;
use super::partition_index::PartitionIndex;
use super::sidecar;
use crate::log::{LogError, SegmentExtent, Sidecar};

/// Bytes of records that are indexed before the next partition has its turn: some 30 ms.
const STEP_BYTES: u64 = 16 << 20;

/// How often the logs are looked at while they are written.
const PAUSE: Duration = Duration::from_millis(100);

/// The same when nothing has been written for a while: a node of many partitions looks at all of them.
const IDLE_PAUSE_MAX: Duration = Duration::from_millis(800);

/// How much the thread stands back behind others (nice(2)).
const NICENESS: i32 = 10;

/// What a step of work has left to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// Nothing.
    CaughtUp,
    /// There is more to do right away.
    More,
}

/// Indexes the partitions of a node.
#[derive(Debug)]
pub struct Indexer {
    partitions: Vec<Follower>,
    memory_bytes_max: usize,
}

/// An indexer on a thread of its own.
#[derive(Debug)]
pub struct IndexerThread {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

/// The indexer's place in one partition.
#[derive(Debug)]
struct Follower {
    index: Arc<PartitionIndex>,
    block_bytes: usize,
    /// The segment that takes appends, or took them when it was last looked at.
    active: Option<Work>,
    /// A sealed segment without sidecars.
    backlog: Option<Work>,
    has_said_full: bool,
}

/// A segment that is being indexed.
#[derive(Debug)]
struct Work {
    segment: Offset,
    next: Offset,
    builder: BlockBuilder,
    names: Arc<Names>,
    blocks: Vec<Arc<Block>>,
    filters: Vec<BlockFilter>,
}

impl Indexer {
    /// An indexer of these partitions. Active segments are indexed as long as all of it takes fewer bytes than this.
    pub fn new(partitions: impl IntoIterator<Item = Arc<PartitionIndex>>, memory_bytes_max: usize) -> Self {
        Self::with_blocks(partitions, memory_bytes_max, BLOCK_BYTES)
    }

    /// The same, of blocks of so many bytes.
    pub(crate) fn with_blocks(
        partitions: impl IntoIterator<Item = Arc<PartitionIndex>>,
        memory_bytes_max: usize,
        block_bytes: usize,
    ) -> Self {
        let follow = |index| Follower::new(index, block_bytes);
        Self { partitions: partitions.into_iter().map(follow).collect(), memory_bytes_max }
    }

    /// Does a bounded piece of work for each partition.
    pub fn step(&mut self) -> Step {
        let steps = self.partitions.iter_mut().map(|follower| follower.step(self.memory_bytes_max));
        steps.fold(Step::Idle, Step::max)
    }

    /// Indexes all that there is.
    pub fn catch_up(&mut self) {
        while self.step() == Step::More {}
    }

    /// Starts a thread that keeps up with the logs until it is stopped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(mut self) -> io::Result<IndexerThread> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            if let Err(error) = rustix::process::nice(NICENESS) {
                tracing::debug!(%error, "the indexer runs at the priority of all others");
            }
            let mut pause = PAUSE;
            while !stopped.load(Ordering::Acquire) {
                pause = match self.step() {
                    Step::More => continue,
                    Step::CaughtUp => PAUSE,
                    Step::Idle => (pause * 2).min(IDLE_PAUSE_MAX),
                };
                std::thread::park_timeout(pause);
            }
        };
        let thread = std::thread::Builder::new().name("indexer".to_owned()).spawn(work)?;
        Ok(IndexerThread { thread, stop })
    }
}

impl IndexerThread {
    /// Stops the thread and waits for it. Blocks for a step at most.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the indexer panicked; searches were slower, and nothing else");
        }
    }
}

impl Follower {
    fn new(index: Arc<PartitionIndex>, block_bytes: usize) -> Self {
        Self { index, block_bytes, active: None, backlog: None, has_said_full: false }
    }

    fn step(&mut self, memory_bytes_max: usize) -> Step {
        let segments = self.index.reader.segment_extents();
        self.index.retain(&segments);
        let has_room = self.index.memory_bytes() < memory_bytes_max;
        if !has_room && !std::mem::replace(&mut self.has_said_full, true) {
            tracing::warn!(partition = %self.index.partition(), memory_bytes_max, "the index of active segments is full; what is appended is searched without one until it is sealed");
        }
        let followed = if has_room { self.follow_active(&segments) } else { Step::Idle };
        if followed < Step::More && self.catch_up_sealed(&segments) { Step::More } else { followed }
    }

    /// Indexes what was appended.
    fn follow_active(&mut self, segments: &[SegmentExtent]) -> Step {
        self.active = self.active.take().filter(|work| segments.iter().any(|segment| work.is_of(segment)));
        let Some(newest) = segments.last() else { return Step::Idle };
        let work = match &mut self.active {
            Some(work) => work,
            None if newest.sealed || self.index.is_given_up(newest.base_offset) => return Step::Idle,
            None => self.active.insert(Work::new(newest.base_offset, self.block_bytes)),
        };
        let Some(segment) = segments.iter().find(|segment| segment.base_offset == work.segment) else {
            return Step::Idle;
        };
        match work.advance(&self.index, segment) {
            Ok(Progress::More) => return Step::More,
            Ok(Progress::CaughtUp) => return Step::CaughtUp,
            Ok(Progress::None) => return Step::Idle,
            Ok(Progress::Done) => {}
            Err(failure) => failure.give_up(&self.index, segment.base_offset),
        }
        self.active = None;
        Step::More
    }

    /// Indexes the newest sealed segment that has no sidecars; whether there is more.
    fn catch_up_sealed(&mut self, segments: &[SegmentExtent]) -> bool {
        let find = |work: &Work| segments.iter().find(|segment| work.is_of(segment));
        if let Some(segment) = self.backlog.as_ref().and_then(find) {
            return self.advance_backlog(segment);
        }
        self.backlog = None;
        let is_active = |base| self.active.as_ref().is_some_and(|work| work.segment == base);
        let missing = segments.iter().rev().find(|segment| {
            segment.sealed && !is_active(segment.base_offset) && !self.index.is_settled(segment.base_offset)
        });
        let Some(segment) = missing else { return false };
        if self.has_sidecars(segment) {
            self.index.note_stored(segment);
            return true;
        }
        self.backlog = Some(Work::new(segment.base_offset, self.block_bytes));
        self.advance_backlog(segment)
    }

    fn advance_backlog(&mut self, segment: &SegmentExtent) -> bool {
        let Some(work) = &mut self.backlog else { return false };
        match work.advance(&self.index, segment) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => self.backlog = None,
            Ok(Progress::None | Progress::CaughtUp) => {
                // It is not sealed any more.
                self.backlog = None;
                return false;
            }
            Err(failure) => {
                failure.give_up(&self.index, segment.base_offset);
                self.backlog = None;
            }
        }
        true
    }

    /// Whether both sidecars are there, as their headers tell.
    fn has_sidecars(&self, segment: &SegmentExtent) -> bool {
        [Sidecar::Columns, Sidecar::Filter].into_iter().all(|sidecar| {
            let head = self.index.sidecars.read(segment.base_offset, sidecar, sidecar::HEADER_BYTES);
            head.ok().flatten().is_some_and(|head| sidecar::is_of(&head, segment))
        })
    }
}

/// How far a segment's work has got.
enum Progress {
    /// There are further records.
    More,
    /// There was nothing to index; there may be something later.
    None,
    /// All records that there are are indexed; there may be more later.
    CaughtUp,
    /// The segment's sidecars are written.
    Done,
}

/// Why a segment cannot be indexed.
enum Failure {
    NotARecord,
    Log(LogError),
}

impl Failure {
    fn give_up(&self, index: &PartitionIndex, segment: Offset) {
        let partition = index.partition();
        match self {
            Self::NotARecord => {
                tracing::warn!(%partition, %segment, "a line is no record; the segment is searched without an index")
            }
            Self::Log(error) => {
                tracing::warn!(%partition, %segment, %error, "the segment is searched without an index")
            }
        }
        index.give_up(segment);
    }
}

impl Work {
    fn new(segment: Offset, block_bytes: usize) -> Self {
        Self {
            segment,
            next: segment,
            builder: BlockBuilder::new(block_bytes),
            names: Arc::default(),
            blocks: Vec::new(),
            filters: Vec::new(),
        }
    }

    /// Whether this is the segment, and not one of its name that was put in its place and ends earlier.
    fn is_of(&self, segment: &SegmentExtent) -> bool {
        segment.base_offset == self.segment && self.next <= segment.end_offset
    }

    /// Indexes a piece of `segment`; at its end, if it is sealed, writes its sidecars.
    fn advance(&mut self, index: &PartitionIndex, segment: &SegmentExtent) -> Result<Progress, Failure> {
        let end = segment.end_offset.min(index.reader.high_watermark());
        if self.next < end {
            self.index_some(index, end)?;
            if self.next < end {
                self.publish(index, false);
                return Ok(Progress::More);
            }
        } else if !segment.sealed {
            return Ok(Progress::None);
        }
        let is_done = segment.sealed && self.next >= segment.end_offset;
        self.publish(index, is_done);
        if !is_done {
            return Ok(Progress::CaughtUp);
        }
        self.write(index, segment)?;
        Ok(Progress::Done)
    }

    fn index_some(&mut self, index: &PartitionIndex, end: Offset) -> Result<(), Failure> {
        let mut built = Vec::new();
        let mut bytes = 0;
        let names = Arc::make_mut(&mut self.names);
        for batch in index.reader.batches_between(self.next, end) {
            match batch {
                Ok(batch) => {
                    self.builder
                        .add(&batch, self.next, names, &mut built)
                        .map_err(|_| Failure::NotARecord)?;
                    self.next = batch.end_offset();
                    bytes += batch.bytes.len() as u64;
                }
                // What cannot be read is in no block: whoever searches meets it.
                Err(LogError::Damaged(damage)) => self.next = self.next.max(damage.end_offset.min(end)),
                Err(error) => return Err(Failure::Log(error)),
            }
            if bytes >= STEP_BYTES {
                break;
            }
        }
        if bytes < STEP_BYTES {
            // Retention may have taken what did not come.
            self.next = self.next.max(end);
        }
        built.into_iter().for_each(|built| self.keep(built));
        Ok(())
    }

    /// Shows what is indexed; the last block may be one that still grows.
    fn publish(&mut self, index: &PartitionIndex, is_done: bool) {
        if is_done && let Some(last) = self.builder.finish() {
            self.keep(last);
        }
        let mut shown = self.whole();
        if let Some(Built { block, filter }) = self.builder.block_so_far() {
            shown.blocks = shown.blocks.iter().cloned().chain([Arc::new(block)]).collect();
            shown.filters = Some(self.filters.iter().cloned().chain([filter]).collect());
        }
        index.put_live(self.segment, shown);
    }

    fn keep(&mut self, built: Built) {
        self.blocks.push(Arc::new(built.block));
        self.filters.push(built.filter);
    }

    /// What is closed.
    fn whole(&self) -> SegmentIndex {
        SegmentIndex {
            names: Arc::clone(&self.names),
            blocks: self.blocks.as_slice().into(),
            filters: Some(self.filters.as_slice().into()),
        }
    }

    fn write(&mut self, index: &PartitionIndex, segment: &SegmentExtent) -> Result<(), Failure> {
        let encoded = sidecar::encode(segment, &self.whole());
        // The columns last: their checksum stands in the filter's header, and a start looks for both.
        let written = index
            .sidecars
            .write(segment.base_offset, Sidecar::Filter, &encoded.filter)
            .and_then(|()| index.sidecars.write(segment.base_offset, Sidecar::Columns, &encoded.columns));
        match written {
            Ok(()) => {
                index.note_stored(segment);
                Ok(())
            }
            Err(error) => Err(Failure::Log(error)),
        }
    }
}
