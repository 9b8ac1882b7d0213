//! The places of the entries that were written last, so that applying them needs no read.
//!
//! Invariant: what is known here is in the log as it is now: entries are added once they are synced, and taken out
//! before they are cut off. Bounded.

use std::collections::VecDeque;

use crate::log::EntryExtent;

/// Entries whose places are kept: more than are under way at a time.
const KEPT_MAX: usize = 4096;

/// The last entries.
#[derive(Debug, Default)]
pub(super) struct RecentEntries {
    entries: VecDeque<EntryExtent>,
}

impl RecentEntries {
    /// Entries were written.
    pub(super) fn add(&mut self, extents: &[EntryExtent]) {
        for extent in extents {
            if self.entries.back().is_some_and(|last| last.log_index + 1 != extent.log_index) {
                self.entries.clear();
            }
            self.entries.push_back(*extent);
        }
        while self.entries.len() > KEPT_MAX {
            self.entries.pop_front();
        }
    }

    /// Entries from `log_index` on are no more.
    pub(super) fn cut_from(&mut self, log_index: u64) {
        while self.entries.back().is_some_and(|last| last.log_index >= log_index) {
            self.entries.pop_back();
        }
    }

    /// Nothing is known.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// The entries from `from` to before `to`, if all of them are known.
    pub(super) fn between(&self, from: u64, to: u64) -> Option<Vec<EntryExtent>> {
        let first = self.entries.front()?.log_index;
        let skipped = usize::try_from(from.checked_sub(first)?).ok()?;
        let count = usize::try_from(to.checked_sub(from)?).ok()?;
        let found: Vec<EntryExtent> = self.entries.iter().skip(skipped).take(count).copied().collect();
        (found.len() == count).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use model::Offset;

    use super::*;
    use crate::log::EntryKind;

    fn extent(log_index: u64) -> EntryExtent {
        EntryExtent {
            log_index,
            term: 1,
            kind: EntryKind::Blank,
            base_offset: Offset::ZERO,
            end_offset: Offset::ZERO,
        }
    }

    #[test]
    fn only_a_range_that_is_known_whole_is_found() {
        let mut recent = RecentEntries::default();
        recent.add(&[extent(5), extent(6), extent(7)]);
        assert_eq!(recent.between(5, 8).unwrap().len(), 3);
        assert_eq!(recent.between(6, 7).unwrap(), [extent(6)]);
        assert!(recent.between(4, 6).is_none() && recent.between(6, 9).is_none());
        recent.cut_from(6);
        assert!(recent.between(5, 7).is_none());
        // A gap: what came before it is of no use any more.
        recent.add(&[extent(9)]);
        assert!(recent.between(5, 6).is_none() && recent.between(9, 10).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let mut recent = RecentEntries::default();
        let all: Vec<EntryExtent> = (1..=KEPT_MAX as u64 + 10).map(extent).collect();
        recent.add(&all);
        assert_eq!(recent.entries.len(), KEPT_MAX);
    }
}
