//! Cutting off the end of the log: what a leader wrote that the others did not agree to.
//!
//! Invariants: what is below the high watermark is never cut; after a crash in the midst of it the log is a prefix of
//! what it was and no shorter than what was to be kept. Everything that is derived from what is cut goes with it.

use std::collections::HashMap;
use std::sync::Arc;

use model::BatchId;

use super::batch_index::BatchIndex;
use super::disk::OpenMode;
use super::error::{DamageKind, LogError};
use super::format::{BatchHeader, Undecodable};
use super::layout::{self, Part};
use super::partition_log::{PartitionLog, Tail};
use super::segment::{Segment, Summary};
use super::segment_data::SegmentData;
use super::segment_writer::SegmentWriter;

impl PartitionLog {
    /// Cuts off the entries of the replicated log from `log_index` on, for good.
    ///
    /// # Errors
    /// [`LogError::Committed`]: nothing was cut. Any other stops the log: how much of it was cut is not known.
    pub fn truncate_from(&mut self, log_index: u64) -> Result<(), LogError> {
        self.check_running()?;
        self.prepare()?;
        self.check_not_committed(log_index)?;
        let cut = self.cut_from(log_index);
        if let Err(error) = &cut {
            self.shared.stop(format!("could not cut off entries: {error}").into());
        }
        self.or_stopped(cut)
    }

    /// Cuts off the log from the first place on that is damaged, or where an entry is missing; whether there was one.
    /// For a replica that gets again from others what it loses: nothing is published yet.
    ///
    /// # Errors
    /// When an index cannot be read; any other stops the log.
    pub fn cut_damage(&mut self) -> Result<bool, LogError> {
        self.check_running()?;
        let Some(first_bad) = self.first_bad_entry()? else { return Ok(false) };
        self.prepare()?;
        let cut = self.cut_from(first_bad);
        if let Err(error) = &cut {
            self.shared.stop(format!("could not cut off what is damaged: {error}").into());
        }
        self.or_stopped(cut)?;
        Ok(true)
    }

    /// Whether an entry is damaged or missing: whether [`Self::cut_damage`] would cut.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub fn has_bad_entry(&self) -> Result<bool, LogError> {
        Ok(self.first_bad_entry()?.is_some())
    }

    /// The index of the first entry that is damaged, missing, or behind one that is. An entry of several batches is
    /// damaged when any of them is.
    fn first_bad_entry(&self) -> Result<Option<u64>, LogError> {
        let (mut last, mut bad): (Option<BatchHeader>, _) = (None, None);
        for segment in self.shared.segments().iter() {
            let damage = segment.damage().listed;
            let is_damaged = |header: &BatchHeader| {
                damage.iter().any(|damage| {
                    damage.kind != DamageKind::IdList
                        && damage.first_offset < header.end_offset()
                        && header.base_offset < damage.end_offset
                })
            };
            let mut is_unknown = false;
            let is_looked_through = bad.is_some();
            let scanned = segment.scan_headers(|_, header| {
                is_unknown |= matches!(header, Err(Undecodable::Unknown));
                if bad.is_some() {
                    return;
                }
                // The entry that has to come now: the one before goes on, or has ended.
                let next = last.as_ref().map(|last| last.log_index + u64::from(!last.continues));
                match header {
                    Ok(header) => {
                        let follows = last.as_ref().is_none_or(|last| {
                            (header.log_index == last.log_index || header.log_index == last.log_index + 1)
                                && header.base_offset == last.end_offset()
                        });
                        if !follows || header.log_index == 0 || is_damaged(&header) {
                            bad = Some(next.map_or(1, |next| next.min(header.log_index.max(1))));
                        } else {
                            last = Some(header);
                        }
                    }
                    Err(_) => bad = Some(next.unwrap_or(1)),
                }
            });
            // What lies behind damage goes with it, whether it can be read or not.
            if !is_looked_through {
                scanned?;
            }
            // A later version's entry is no damage, and nothing is cut where there is one.
            if is_unknown {
                let name = layout::file_name(segment.base_offset, Part::Index);
                return Err(LogError::UnknownFormat { path: self.dir.join(name) });
            }
        }
        Ok(bad)
    }

    fn check_not_committed(&self, log_index: u64) -> Result<(), LogError> {
        let first = self.entry_reader().extents(log_index, 1)?;
        match first.first() {
            // A blank at the high watermark itself may be committed or not: that is the caller's to know.
            Some(extent) if extent.base_offset < self.shared.high_watermark() => {
                Err(LogError::Committed { log_index })
            }
            _ => Ok(()),
        }
    }

    /// Goes from the last segment back, so that a crash leaves no gap.
    fn cut_from(&mut self, log_index: u64) -> Result<(), LogError> {
        loop {
            let segments = self.shared.segments();
            let Some(last) = segments.last() else { return Ok(()) };
            let kept = match last.first_batch_of_entry(log_index)? {
                // Compressed bytes are not cut: the whole segment goes. What is too much is had again from others.
                kept if kept < last.summary().batch_count && last.data.is_compressed() => 0,
                kept => kept,
            };
            let is_empty = last.summary().batch_count == 0;
            if kept == last.summary().batch_count && !(is_empty && segments.len() > 1) {
                return Ok(());
            }
            let is_last = segments.len() == 1;
            if kept > 0 || (is_last && !last.data.is_compressed()) {
                return self.cut_segment(last, kept);
            }
            self.remove_last_segment(last)?;
            if is_last {
                return self.writer().map(|_| ());
            }
        }
    }

    /// Keeps the first batches of the last segment, which takes appends again.
    fn cut_segment(&mut self, segment: &Arc<Segment>, kept: u32) -> Result<(), LogError> {
        let (summary, batch_by_id) = summarize(segment, kept)?;
        self.tail = Tail::Sealed;
        self.remove_derived(segment)?;
        self.shorten(segment, BatchIndex::bytes_of(kept), summary.data_bytes)?;
        let index = BatchIndex::File(self.open_file(segment, Part::Index)?);
        let data = SegmentData::Plain(self.open_file(segment, Part::Data)?);
        let cut = Segment::new(segment.partition, segment.base_offset, index, data, summary);
        let damage = segment.damage().listed;
        damage.iter().filter(|d| d.first_offset < summary.end_offset).for_each(|d| cut.note_damage(d));
        let writer = SegmentWriter::resume(&*self.disk, &self.dir, &cut, batch_by_id).map_err(|(e, _)| e)?;
        self.shared.replace_segment(writer.segment());
        self.tail = Tail::Writing(writer);
        self.note_end(summary);
        Ok(())
    }

    /// Emptied before its names go: bytes without an index would be taken for records of another program.
    fn remove_last_segment(&mut self, segment: &Arc<Segment>) -> Result<(), LogError> {
        self.tail = Tail::Sealed;
        self.remove_derived(segment)?;
        if segment.data.is_compressed() {
            self.remove(&layout::file_name(segment.base_offset, Part::CompressedData))?;
        } else {
            self.shorten(segment, BatchIndex::bytes_of(0), 0)?;
            self.remove(&layout::file_name(segment.base_offset, Part::Data))?;
        }
        self.sync_dir()?;
        self.shared.change_segments(|list| list.retain(|other| other.base_offset != segment.base_offset));
        self.note_end(Summary::empty(segment.base_offset));
        self.remove(&layout::file_name(segment.base_offset, Part::Index))?;
        self.sync_dir()
    }

    fn remove_derived(&self, segment: &Segment) -> Result<(), LogError> {
        self.remove(&layout::file_name(segment.base_offset, Part::Ids))?;
        Part::SIDECARS.iter().try_for_each(|part| self.remove(&layout::file_name(segment.base_offset, *part)))
    }

    /// Headers before bytes: a header without its bytes would look like a loss.
    fn shorten(&self, segment: &Segment, index_bytes: u64, data_bytes: u64) -> Result<(), LogError> {
        for (part, bytes) in [(Part::Index, index_bytes), (Part::Data, data_bytes)] {
            let file = self.open_file(segment, part)?;
            let path = self.dir.join(layout::file_name(segment.base_offset, part));
            file.set_length(bytes)
                .and_then(|()| file.sync_data())
                .map_err(|error| LogError::io("cut", &path, error))?;
        }
        Ok(())
    }

    fn open_file(&self, segment: &Segment, part: Part) -> Result<Arc<dyn super::disk::DiskFile>, LogError> {
        let path = self.dir.join(layout::file_name(segment.base_offset, part));
        self.disk.open(&path, OpenMode::Write).map_err(|error| LogError::io("open", &path, error))
    }

    fn note_end(&self, summary: Summary) {
        self.shared.missing.lock().retain(|gap| gap.first_offset < summary.end_offset);
        self.shared.set_flushed_end(summary.end_offset);
        self.shared.set_written_end(summary.end_offset);
    }
}

/// What the first batches come to, and their places by id.
fn summarize(segment: &Segment, kept: u32) -> Result<(Summary, HashMap<BatchId, u32>), LogError> {
    let mut summary = Summary::empty(segment.base_offset);
    let mut batch_by_id = HashMap::new();
    segment.scan_headers(|batch, header| {
        if batch < kept
            && let Ok(header) = header
        {
            summary.add(&header);
            if let Some(id) = header.id {
                batch_by_id.insert(id, batch);
            }
        }
    })?;
    summary.batch_count = kept;
    Ok((summary, batch_by_id))
}
