//! One partition's matching records, newest offset first, found as they are asked for.
//!
//! Invariant: a hit passes every filter of the query, and none that does is passed over, unless the scan says so by
//! [`PartitionScan::met_damage`] or [`Interrupted`]. Holds one batch at a time.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use memchr::memrchr;
use model::json::JsonStr;
use model::{EnrichedLine, Partition};

use super::parse::Query;
use crate::log::{LogError, StoredBatch};

/// A record that passes the filters.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    /// The record's timestamp, Unix milliseconds.
    pub(super) timestamp_ms: u64,
    /// The record as stored, without its newline. It shares the batch's memory: copy it to keep it.
    pub(super) line: Bytes,
}

/// When a scan has to end before it is done.
#[derive(Clone, Debug)]
pub struct Watch {
    deadline: Instant,
    abandoned: Arc<AtomicBool>,
}

/// The scan ran out of time, or nobody waits for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interrupted;

/// Tells the scans of a query, when dropped, that nobody waits for them any more.
#[derive(Debug)]
pub struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    /// A watch that ends scans at `deadline`, or when the other value is dropped.
    pub fn until(deadline: Instant) -> (Self, AbandonOnDrop) {
        let abandoned = Arc::new(AtomicBool::new(false));
        (Self { deadline, abandoned: Arc::clone(&abandoned) }, AbandonOnDrop(abandoned))
    }

    /// Fails when it is time to end.
    pub(super) fn check(&self) -> Result<(), Interrupted> {
        if self.abandoned.load(Ordering::Relaxed) || Instant::now() >= self.deadline {
            return Err(Interrupted);
        }
        Ok(())
    }
}

/// The scan of one partition.
pub(super) struct PartitionScan<'q, B> {
    partition: Partition,
    query: &'q Query,
    watch: &'q Watch,
    batches: B,
    current: Option<Cursor>,
    damaged: bool,
}

/// The lines of one batch that are still to be looked at, from the last.
struct Cursor {
    bytes: Bytes,
    lines: Lines,
}

enum Lines {
    /// All that end before this position, which follows a newline or is the start.
    All { end: usize },
    /// These.
    Some(Vec<Range<usize>>),
}

impl<'q, B: Iterator<Item = Result<StoredBatch, LogError>>> PartitionScan<'q, B> {
    /// A scan of `batches`, which come newest first.
    pub(super) fn new(partition: Partition, batches: B, query: &'q Query, watch: &'q Watch) -> Self {
        Self { partition, query, watch, batches, current: None, damaged: false }
    }

    /// The partition that is scanned.
    pub(super) fn partition(&self) -> Partition {
        self.partition
    }

    /// Whether records could not be read.
    pub(super) fn met_damage(&self) -> bool {
        self.damaged
    }

    /// The next older hit; `None` when there is none.
    pub(super) fn next_hit(&mut self) -> Result<Option<Hit>, Interrupted> {
        loop {
            if let Some(hit) = self.current.as_mut().and_then(|cursor| cursor.next_hit(self.query)) {
                return Ok(Some(hit));
            }
            self.current = None;
            self.watch.check()?;
            match self.batches.next() {
                None => return Ok(None),
                Some(Ok(batch)) => self.current = Some(Cursor::new(batch.bytes, self.query)),
                Some(Err(error)) => {
                    if !self.damaged {
                        tracing::warn!(partition = %self.partition, %error, "a search passes over what it cannot read");
                    }
                    self.damaged = true;
                }
            }
        }
    }
}

impl Cursor {
    fn new(bytes: Bytes, query: &Query) -> Self {
        let lines = match &query.contains {
            Some(needle) => Lines::Some(needle.candidates(&bytes)),
            None => Lines::All { end: bytes.len() },
        };
        Self { bytes, lines }
    }

    fn next_hit(&mut self, query: &Query) -> Option<Hit> {
        while let Some(range) = self.lines.next_back(&self.bytes) {
            let text = self.bytes.get(range.clone()).unwrap_or_default();
            // Stored lines were checked when they came; one that does not parse cannot match a filter.
            let Ok(line) = EnrichedLine::parse(text) else { continue };
            if passes(query, &line) {
                return Some(Hit { timestamp_ms: line.timestamp, line: self.bytes.slice(range) });
            }
        }
        None
    }
}

impl Lines {
    fn next_back(&mut self, bytes: &[u8]) -> Option<Range<usize>> {
        match self {
            Self::Some(ranges) => ranges.pop(),
            Self::All { end } => {
                let newline = end.checked_sub(1)?;
                let start = memrchr(b'\n', bytes.get(..newline)?).map_or(0, |newline| newline + 1);
                *end = start;
                Some(start..newline)
            }
        }
    }
}

/// Whether a record passes every filter of the query.
fn passes(query: &Query, line: &EnrichedLine<'_>) -> bool {
    let service =
        query.services.is_empty() || query.services.iter().any(|wanted| line.service.decode() == **wanted);
    let level =
        query.level.as_ref().is_none_or(|wanted| line.level.is_some_and(|level| same_level(level, wanted)));
    service && level && query.contains.as_ref().is_none_or(|needle| needle.matches(line.message))
}

/// Levels are compared without the case of their letters, of whatever script.
fn same_level(level: JsonStr<'_>, wanted: &str) -> bool {
    let level = level.decode();
    level.eq_ignore_ascii_case(wanted) || (!level.is_ascii() && level.to_lowercase() == wanted.to_lowercase())
}
