//! How many records each service has, counted as far as somebody asked.
//!
//! Appends pay nothing for it: a request for the counts reads what was appended since the last one. Counts are kept
//! by blocks of records, so that what retention deletes is taken out again by recounting one block at most.
//!
//! Invariant: after an uninterrupted [`ServiceCounts::catch_up`] the counts are exact for all readable records,
//! unless [`ServiceCounts::overflowed`].

use std::collections::{BTreeMap, HashMap, VecDeque};

use model::{EnrichedLine, Offset};

use super::scan::{Interrupted, Watch};
use crate::limits;
use crate::log::{LogError, StoredBatch};

/// Records of one block: some 250 MB, which are recounted in well below a second.
const BLOCK_RECORDS: u64 = 1 << 20;

/// One partition's counts.
#[derive(Debug, Default)]
pub(super) struct ServiceCounts {
    /// In order and without gaps.
    blocks: VecDeque<Block>,
    damaged: bool,
    overflowed: bool,
}

/// The counts of the records from `start` to `end`.
#[derive(Debug)]
struct Block {
    start: Offset,
    end: Offset,
    records_by_service: HashMap<Box<str>, u64>,
}

impl ServiceCounts {
    /// Counts what is not counted yet, and forgets what lies before `first_offset`. What was counted before an
    /// interruption stays counted.
    pub(super) fn catch_up<B: Iterator<Item = Result<StoredBatch, LogError>>>(
        &mut self,
        first_offset: Offset,
        batches_from: impl Fn(Offset) -> B,
        watch: &Watch,
    ) -> Result<(), Interrupted> {
        self.forget_before(first_offset, &batches_from, watch)?;
        let counted_end = self.blocks.back().map_or(first_offset, |block| block.end);
        let mut room = self.room();
        for batch in batches_from(counted_end) {
            watch.check()?;
            let Some(batch) = self.readable(batch) else { continue };
            if self.blocks.back().is_none_or(|block| block.end.since(block.start) >= BLOCK_RECORDS) {
                self.blocks.push_back(Block::starting_at(batch.base_offset));
            }
            if let Some(block) = self.blocks.back_mut() {
                self.overflowed |= block.count(&batch, &mut room).is_err();
            }
        }
        Ok(())
    }

    /// Adds the counts to `totals`.
    pub(super) fn add_to(&self, totals: &mut BTreeMap<String, u64>) {
        for (service, records) in self.blocks.iter().flat_map(|block| &block.records_by_service) {
            match totals.get_mut(&**service) {
                Some(total) => *total += records,
                None => {
                    totals.insert(service.to_string(), *records);
                }
            }
        }
    }

    /// Whether records could not be read.
    pub(super) fn met_damage(&self) -> bool {
        self.damaged
    }

    /// Whether there were more services than are counted.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Forgets blocks before `first_offset`, and counts the one anew that it cuts.
    fn forget_before<B: Iterator<Item = Result<StoredBatch, LogError>>>(
        &mut self,
        first_offset: Offset,
        batches_from: &impl Fn(Offset) -> B,
        watch: &Watch,
    ) -> Result<(), Interrupted> {
        while self.blocks.front().is_some_and(|block| block.end <= first_offset) {
            self.blocks.pop_front();
        }
        let Some(end) = self.blocks.front().filter(|block| block.start < first_offset).map(|block| block.end)
        else {
            return Ok(());
        };
        let mut room = self.room();
        let mut rest = Block::starting_at(first_offset);
        for batch in batches_from(first_offset) {
            watch.check()?;
            let Some(batch) = self.readable(batch) else { continue };
            if batch.base_offset >= end {
                break;
            }
            self.overflowed |= rest.count(&batch, &mut room).is_err();
        }
        rest.end = end;
        if let Some(front) = self.blocks.front_mut() {
            *front = rest;
        }
        Ok(())
    }

    fn readable(&mut self, batch: Result<StoredBatch, LogError>) -> Option<StoredBatch> {
        self.damaged |= batch.is_err();
        batch.ok()
    }

    /// Counts that may still be added.
    fn room(&self) -> usize {
        let counts: usize = self.blocks.iter().map(|block| block.records_by_service.len()).sum();
        limits::SERVICE_COUNTS_MAX.saturating_sub(counts)
    }
}

/// There is no room for the count of another service.
struct Overflow;

impl Block {
    fn starting_at(start: Offset) -> Self {
        Self { start, end: start, records_by_service: HashMap::new() }
    }

    fn count(&mut self, batch: &StoredBatch, room: &mut usize) -> Result<(), Overflow> {
        self.end = batch.base_offset.plus(batch.record_count.into());
        let mut outcome = Ok(());
        for (_offset, line) in batch.lines() {
            // Stored lines were checked when they came; one that does not parse belongs to no service.
            let Ok(line) = EnrichedLine::parse(line) else { continue };
            let service = line.service.decode();
            if let Some(records) = self.records_by_service.get_mut(&*service) {
                *records += 1;
            } else if *room > 0 {
                *room -= 1;
                self.records_by_service.insert(Box::from(&*service), 1);
            } else {
                outcome = Err(Overflow);
            }
        }
        outcome
    }
}
