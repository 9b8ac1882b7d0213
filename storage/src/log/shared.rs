//! What the one writer and the many readers of a log share.
//!
//! Invariants: `high watermark ≤ flushed ≤ written`, except that without syncs what is written may be published;
//! a list of segments never changes, it is replaced.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use model::{Offset, Partition};
use parking_lot::{Mutex, RwLock};

use super::error::Damage;
use super::partition_log::RecoveryReport;
use super::segment::Segment;
use super::stopping_disk::Stop;

/// The segments of a log, in order of their offsets.
pub(super) type SegmentList = Arc<Vec<Arc<Segment>>>;

/// Raises a log's high watermark; for who learns elsewhere than at the writer what is committed.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Lets readers see the records below `end`, as far as they are flushed.
    pub fn publish(&self, end: Offset) {
        self.shared.raise_high_watermark(end.min(self.shared.flushed_end()));
    }
}

/// What the writer and the readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) partition: Partition,
    /// Held only to copy or replace the pointer.
    segments: RwLock<SegmentList>,
    /// Segments that were missing when the log was opened.
    pub(super) missing: Mutex<Vec<Damage>>,
    /// Records that had been flushed, and were gone at the end of the log when it was opened.
    pub(super) lost_records: u64,
    written_end: AtomicU64,
    flushed_end: AtomicU64,
    high_watermark: AtomicU64,
    /// With replication: the entry up to which retention waits for its leave to delete; 0 where it does not.
    purge_wanted: AtomicU64,
    /// Called when there is more to read.
    on_publish: OnceLock<PublishHook>,
    stop: Stop,
}

/// What is called when there is more to read.
struct PublishHook(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for PublishHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublishHook")
    }
}

impl Shared {
    /// A log of what was found, of which all is flushed, and nothing published.
    pub(super) fn new(
        partition: Partition,
        segments: Vec<Arc<Segment>>,
        found: &RecoveryReport,
        missing: Vec<Damage>,
        stop: Stop,
    ) -> Self {
        let end = found.next_offset;
        Self {
            partition,
            segments: RwLock::new(Arc::new(segments)),
            missing: Mutex::new(missing),
            lost_records: found.lost_records,
            written_end: AtomicU64::new(end.get()),
            flushed_end: AtomicU64::new(end.get()),
            high_watermark: AtomicU64::new(0),
            purge_wanted: AtomicU64::new(0),
            on_publish: OnceLock::new(),
            stop,
        }
    }

    pub(super) fn segments(&self) -> SegmentList {
        Arc::clone(&self.segments.read())
    }

    /// Replaces the list by what `change` makes of it.
    pub(super) fn change_segments(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        let mut list = Vec::clone(&self.segments());
        change(&mut list);
        *self.segments.write() = Arc::new(list);
    }

    /// Puts `segment` in the place of the one with its base offset.
    pub(super) fn replace_segment(&self, segment: &Arc<Segment>) {
        self.change_segments(|list| {
            for old in list.iter_mut().filter(|old| old.base_offset == segment.base_offset) {
                *old = Arc::clone(segment);
            }
        });
    }

    pub(super) fn written_end(&self) -> Offset {
        Offset::new(self.written_end.load(Ordering::Acquire))
    }

    pub(super) fn set_written_end(&self, end: Offset) {
        self.written_end.store(end.get(), Ordering::Release);
    }

    pub(super) fn flushed_end(&self) -> Offset {
        Offset::new(self.flushed_end.load(Ordering::Acquire))
    }

    pub(super) fn set_flushed_end(&self, end: Offset) {
        self.flushed_end.store(end.get(), Ordering::Release);
    }

    pub(super) fn high_watermark(&self) -> Offset {
        Offset::new(self.high_watermark.load(Ordering::Acquire))
    }

    pub(super) fn purge_wanted(&self) -> Option<u64> {
        Some(self.purge_wanted.load(Ordering::Acquire)).filter(|index| *index > 0)
    }

    pub(super) fn set_purge_wanted(&self, index: Option<u64>) {
        self.purge_wanted.store(index.unwrap_or_default(), Ordering::Release);
    }

    /// What was readable once stays so.
    pub(super) fn raise_high_watermark(&self, end: Offset) {
        let before = self.high_watermark.fetch_max(end.get(), Ordering::AcqRel);
        if before < end.get()
            && let Some(PublishHook(hook)) = self.on_publish.get()
        {
            hook();
        }
    }

    /// Calls `hook` whenever there is more to read; only the first hook stays.
    pub(super) fn on_publish(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.on_publish.get_or_init(|| PublishHook(Box::new(hook)));
    }

    pub(super) fn stopped(&self) -> Option<Arc<str>> {
        self.stop.cause()
    }

    pub(super) fn stop(&self, cause: Arc<str>) {
        self.stop.set(cause);
    }
}
