//! Takes units in the order of the answer until the sink has what it wants, or the time is over.

use model::Partition;

use super::deadline::{Interrupted, Watch};
use super::filter::Filter;
use super::key::{Direction, Key, Order};
use super::scan::{Scanner, Sink, Wanted};
use super::stats::{Lack, Stats};
use super::units::{Snapshot, Units};

/// How a run over the units ended.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) stats: Stats,
    pub(super) damaged: Vec<Partition>,
    /// Where it was broken off: no unit was looked at whose bound comes later.
    pub(super) broken_off_at: Option<Key>,
}

impl Run {
    /// What the answer lacks for it.
    pub(super) fn lacks(&self) -> Vec<Lack> {
        let time = self.broken_off_at.map(|_| Lack::Time);
        time.into_iter().chain(self.damaged.iter().map(|partition| Lack::Damage(*partition))).collect()
    }
}

/// Hands what passes `filter` to `sink`, unit by unit.
pub(super) fn run(
    snapshot: &Snapshot,
    filter: &Filter,
    direction: Direction,
    order: Order,
    watch: &Watch,
    sink: &mut impl Sink,
) -> Run {
    let probe = filter.probe();
    let mut units = Units::new(snapshot, filter, &probe, direction, order);
    let mut scanner = Scanner::new(snapshot, filter, direction, order, watch);
    let mut broken_off_at = None;
    loop {
        let bound = units.next_bound();
        let interrupted = match units.next(|bound| sink.wants(bound) != Wanted::NoMore) {
            Ok(None) => break,
            Ok(Some(unit)) => scanner.scan(&unit, sink).map_err(|Interrupted| unit.bound).err(),
            Err((partition, error)) => {
                scanner.note_damage(partition, &error);
                watch.check().err().and(bound)
            }
        };
        if interrupted.is_some() {
            broken_off_at = interrupted;
            break;
        }
    }
    units.stats.scanned_bytes = scanner.scanned_bytes;
    Run { stats: units.finish(), damaged: scanner.damaged.into_iter().collect(), broken_off_at }
}
