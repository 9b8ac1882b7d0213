//! Which batches the log holds, by id: what deduplication asks.

use model::{BatchDigest, BatchId, Offset};

use super::error::{DamageKind, LogError};
use super::format::BatchHeader;
use super::id_list;
use super::limits;
use super::partition_log::PartitionLog;
use super::segment::Segment;

/// A batch that the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownBatch {
    /// Its id.
    pub id: BatchId,
    /// The digest of what the client sent.
    pub digest: BatchDigest,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Its records.
    pub record_count: u32,
}

impl PartitionLog {
    /// The batch that was stored under `id`, however long ago, if retention has left it.
    ///
    /// # Errors
    /// When an index cannot be read; or when the batch was written, and its sync failed.
    pub fn find_batch(&self, id: BatchId) -> Result<Option<KnownBatch>, LogError> {
        let segments = self.shared.segments();
        for segment in segments.iter().rev() {
            let place = if segment.summary().sealed {
                id_list::find(&*self.disk, &self.dir, segment, id, || self.id_filter_room())?
            } else {
                self.batch_in_tail(id)
            };
            if let Some(place) = place
                && let Some(known) = known_at(segment, place)?
                && known.id == id
            {
                if known.end_offset() > self.publishable_end() {
                    // Its sync failed: nobody may be told that it is stored.
                    self.check_running()?;
                }
                return Ok(Some(known));
            }
        }
        Ok(None)
    }

    /// The last `count` batches that have an id, newest last. What cannot be read is left out.
    pub fn recent_batches(&self, count: usize) -> Vec<KnownBatch> {
        let mut newest_first = Vec::new();
        for segment in self.shared.segments().iter().rev() {
            let mut end = segment.summary().batch_count;
            let damage = segment.damage().listed;
            // Asked by its id the log knows whether one that cannot be read was ever acknowledged.
            let is_readable = |header: &&BatchHeader| {
                !damage.iter().any(|damage| {
                    damage.kind == DamageKind::Bytes && damage.first_offset == header.base_offset
                })
            };
            while end > 0 && newest_first.len() < count {
                let run = end.min(limits::HEADER_RUN_SCAN);
                end -= run;
                // These only fill a cache; whoever asks for one of them by its id hears of the error.
                let headers = segment.headers(end, run).unwrap_or_default();
                let readable = headers.iter().rev().flatten().filter(is_readable);
                newest_first.extend(readable.filter_map(KnownBatch::of));
            }
        }
        newest_first.truncate(count);
        newest_first.reverse();
        newest_first
    }

    /// Bytes that one more filter over batch ids may take.
    pub(super) fn id_filter_room(&self) -> usize {
        let taken: usize =
            self.shared.segments().iter().filter_map(|s| Some(s.ids.try_lock()?.filter_bytes())).sum();
        self.id_filter_bytes_max.saturating_sub(taken)
    }
}

impl KnownBatch {
    /// The offset after its last record.
    pub fn end_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.record_count))
    }

    fn of(header: &BatchHeader) -> Option<Self> {
        Some(Self {
            id: header.id?,
            digest: header.digest,
            base_offset: header.base_offset,
            record_count: header.record_count,
        })
    }
}

fn known_at(segment: &Segment, place: u32) -> Result<Option<KnownBatch>, LogError> {
    let headers = segment.headers(place, 1)?;
    Ok(headers.first().and_then(|slot| KnownBatch::of(slot.as_ref().ok()?)))
}
