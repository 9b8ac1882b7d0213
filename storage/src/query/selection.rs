//! Services and levels of a query as the groups of a block: what is decided once for a segment, and once for a block.
//!
//! Invariant: a group that is not selected has no record that passes the filter.

use super::filter::Filter;
use crate::index::{Block, GROUPS_MAX, Group, Names, UNLISTED};

/// The services and levels of one segment that a filter wants.
#[derive(Clone, Debug)]
pub(super) struct NameSelection {
    /// By id; `None` when all are wanted.
    services: Option<Vec<u32>>,
    levels: Option<Vec<bool>>,
}

/// The groups of one block that a filter wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupSelection {
    /// One bit for each.
    is_selected: [u64; GROUPS_MAX / 64],
    /// Whether records have to be looked at to know whether their service and level are wanted.
    has_unlisted: bool,
    timestamp_min_ms: u64,
    timestamp_max_ms: u64,
}

impl NameSelection {
    /// What `filter` wants of these names.
    pub(super) fn new(filter: &Filter, names: &Names) -> Self {
        let services = (!filter.services.is_empty()).then(|| {
            let ids = filter.services.iter().filter_map(|name| names.services().id(name));
            ids.collect()
        });
        let levels = (!filter.levels.is_empty())
            .then(|| names.levels().iter().map(|level| filter.wants_level(level)).collect());
        Self { services, levels }
    }

    fn wants_all(&self) -> bool {
        self.services.is_none() && self.levels.is_none()
    }

    fn wants(&self, group: &Group) -> bool {
        let service = self.services.as_ref().is_none_or(|ids| ids.contains(&group.service));
        let level = || {
            self.levels
                .as_ref()
                .is_none_or(|wanted| wanted.get(group.level as usize).copied().unwrap_or_default())
        };
        service && level()
    }

    /// The times of the first and the last record of `block` that can be wanted; `None` when none can.
    pub(super) fn times_ms(&self, block: &Block) -> Option<(u64, u64)> {
        if self.wants_all() {
            return Some((block.timestamp_min_ms, block.timestamp_max_ms));
        }
        self.of_block(block).map(|groups| groups.times_ms())
    }

    /// The groups of `block`; `None` when no record can be wanted.
    pub(super) fn of_block(&self, block: &Block) -> Option<GroupSelection> {
        let wants_all = self.wants_all();
        let mut selection = GroupSelection {
            is_selected: [0; GROUPS_MAX / 64],
            has_unlisted: block.has_unlisted() && !wants_all,
            timestamp_min_ms: u64::MAX,
            timestamp_max_ms: 0,
        };
        for (place, group) in block.groups.iter().enumerate().filter(|(_, group)| group.records > 0) {
            if (wants_all || place == UNLISTED || self.wants(group))
                && let Some(word) = selection.is_selected.get_mut(place / 64)
            {
                *word |= 1 << (place % 64);
                selection.timestamp_min_ms = selection.timestamp_min_ms.min(group.timestamp_min_ms);
                selection.timestamp_max_ms = selection.timestamp_max_ms.max(group.timestamp_max_ms);
            }
        }
        (selection.timestamp_min_ms <= selection.timestamp_max_ms).then_some(selection)
    }
}

impl GroupSelection {
    /// Whether the group at this place is wanted.
    pub(super) fn wants(&self, place: u64) -> bool {
        self.is_selected.get(place as usize / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Whether records have to be looked at to know whether their service and level are wanted.
    pub(super) fn has_unlisted(&self) -> bool {
        self.has_unlisted
    }

    /// The times of the first and the last record of the wanted groups.
    pub(super) fn times_ms(&self) -> (u64, u64) {
        (self.timestamp_min_ms, self.timestamp_max_ms)
    }
}
