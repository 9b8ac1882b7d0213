//! Random uses of a log against the plainest model of one: a list of batches and a few numbers.

use proptest::prelude::*;

use super::random::Random;
use super::*;

/// One use of the log.
#[derive(Clone, Debug)]
enum Use {
    Append { batches: u64, records: u64 },
    Sync,
    Publish,
    PowerCut { seed: u64 },
    Kill,
    CloseAndOpen,
    Maintain { elapsed: u64 },
    DeleteIdLists,
    FillDisk { room: u64 },
    FreeDisk,
    ReadSome { from: u64 },
}

fn any_use() -> impl Strategy<Value = Use> {
    prop_oneof![
        6 => (1..4_u64, 1..5_u64).prop_map(|(batches, records)| Use::Append { batches, records }),
        5 => Just(Use::Sync),
        4 => Just(Use::Publish),
        2 => any::<u64>().prop_map(|seed| Use::PowerCut { seed }),
        1 => Just(Use::Kill),
        1 => Just(Use::CloseAndOpen),
        2 => (0..40_u64).prop_map(|elapsed| Use::Maintain { elapsed }),
        1 => Just(Use::DeleteIdLists),
        1 => (0..1500_u64).prop_map(|room| Use::FillDisk { room }),
        1 => Just(Use::FreeDisk),
        2 => (0..60_u64).prop_map(|from| Use::ReadSome { from }),
    ]
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes_max: 1200,
        segment_age_max: Duration::from_millis(30 * BATCH_MS),
        compress_age: Some(Duration::from_millis(20 * BATCH_MS)),
        retention_age: Some(Duration::from_millis(60 * BATCH_MS)),
        ..LogOptions::default()
    }
}

/// What the log should hold.
struct Model {
    disk: SimDisk,
    log: PartitionLog,
    /// Every batch, and where it begins.
    written: Vec<(Offset, NewBatch)>,
    /// How many of them are flushed, and how many published.
    flushed: usize,
    published: usize,
    next_number: u64,
    now: u64,
}

impl Model {
    fn new() -> Self {
        let disk = SimDisk::new();
        let (log, _) = open(&disk, &options());
        Self { disk, log, written: Vec::new(), flushed: 0, published: 0, next_number: 0, now: 0 }
    }

    fn end_of(&self, batches: usize) -> Offset {
        batches
            .checked_sub(1)
            .and_then(|last| self.written.get(last))
            .map_or(Offset::ZERO, |(base, new)| base.plus(new.batch.record_count().into()))
    }

    fn apply(mut self, step: &Use) -> Self {
        match step {
            Use::Append { batches, records } => self.append(*batches, *records),
            Use::Sync => {
                assert_eq!(self.log.sync().unwrap(), self.log.written_end());
                self.flushed = self.written.len();
            }
            Use::Publish => {
                self.log.publish(self.log.written_end());
                self.published = self.published.max(self.flushed_batches());
            }
            Use::PowerCut { seed } => {
                let disk = self.disk.after_power_cut(&mut Random::new(*seed));
                return self.reopened(disk);
            }
            Use::Kill => {
                let disk = self.disk.after_kill();
                return self.reopened(disk);
            }
            Use::CloseAndOpen => return self.closed_and_opened(),
            Use::Maintain { elapsed } => {
                self.now += elapsed;
                // A disk that is nearly full may refuse; then nothing has happened.
                while self.log.maintain(self.now * BATCH_MS).unwrap().more {}
            }
            Use::DeleteIdLists => {
                for name in self.disk.names().iter().filter(|name| name.ends_with(".ids")) {
                    self.disk.delete(&Path::new(DIR).join(name));
                }
            }
            Use::FillDisk { room } => self.disk.set_capacity(Some(self.disk.used_bytes() + room)),
            Use::FreeDisk => self.disk.set_capacity(None),
            Use::ReadSome { from } => self.check_from(Offset::new(*from)),
        }
        self
    }

    /// A roll flushes what came before it: the log knows of more flushed batches than the model was told.
    fn flushed_batches(&self) -> usize {
        let end = self.log.flushed_end();
        self.flushed.max((0..=self.written.len()).rev().find(|n| self.end_of(*n) <= end).unwrap_or_default())
    }

    fn append(&mut self, batches: u64, records: u64) {
        let group: Vec<NewBatch> = (0..batches)
            .map(|place| NewBatch {
                appended_at_ms: self.now * BATCH_MS,
                ..batch(self.next_number + place, records)
            })
            .collect();
        self.next_number += batches;
        match self.log.append(&group) {
            Ok(offsets) => {
                assert_eq!(offsets.first(), Some(&self.end_of(self.written.len())));
                self.written.extend(offsets.into_iter().zip(group));
            }
            Err(LogError::DiskFull) => assert_eq!(self.log.written_end(), self.end_of(self.written.len())),
            Err(other) => panic!("{other}"),
        }
    }

    fn reopened(self, disk: SimDisk) -> Self {
        let flushed = self.flushed_batches();
        let Self { written, next_number, now, log, .. } = self;
        drop(log);
        let (log, report) = open(&disk, &options());
        assert!(report.damage.is_empty(), "{report:?}");
        let mut model = Self { disk, log, written, flushed, published: 0, next_number, now };
        let end = model.log.written_end();
        let kept = (flushed..=model.written.len()).find(|n| model.end_of(*n) == end);
        let kept = kept.unwrap_or_else(|| panic!("{end} ends no batch that was written after the last sync"));
        model.written.truncate(kept);
        (model.flushed, model.published) = (kept, kept);
        model
    }

    fn closed_and_opened(mut self) -> Self {
        let all = self.written.len();
        // Without room for the marker the next opening has to look for itself.
        let is_clean = match std::mem::replace(&mut self.log, other_log()).close() {
            Ok(()) => true,
            Err(LogError::DiskFull) => false,
            Err(other) => panic!("{other}"),
        };
        let (log, report) = open(&self.disk, &options());
        assert!(report.was_closed || !is_clean);
        assert!(report.damage.is_empty());
        Self { log, flushed: all, published: all, ..self }
    }

    fn check_from(&self, from: Offset) {
        let stored: Vec<StoredBatch> = self.log.reader().batches_from(from).map(Result::unwrap).collect();
        let first_offset = self.log.reader().first_offset();
        let expected: Vec<&(Offset, NewBatch)> = self
            .written
            .iter()
            .take(self.published)
            .filter(|(base, new)| *base >= first_offset && base.plus(new.batch.record_count().into()) > from)
            .collect();
        assert_eq!(stored.len(), expected.len());
        for (stored, (base, new)) in stored.iter().zip(expected) {
            assert_eq!((&stored.base_offset, &stored.bytes), (base, new.batch.bytes()));
        }
    }

    fn check(&self) {
        let log = &self.log;
        assert!(log.reader().high_watermark() <= log.flushed_end());
        assert!(log.flushed_end() <= log.written_end());
        assert_eq!(log.written_end(), self.end_of(self.written.len()));
        self.check_from(Offset::ZERO);
        let first_offset =
            log.reader().status().segments.first().map_or(Offset::ZERO, |first| first.base_offset);
        for (base, new) in &self.written {
            let known = log.find_batch(new.id).unwrap();
            assert_eq!(known.map(|known| known.base_offset), (*base >= first_offset).then_some(*base));
        }
    }
}

/// A log to stand in for the one that is being closed.
fn other_log() -> PartitionLog {
    open(&SimDisk::new(), &options()).0
}

proptest! {
    #[test]
    fn any_use_of_a_log_leaves_what_the_model_has(uses in prop::collection::vec(any_use(), 1..40)) {
        let mut model = Model::new();
        for step in &uses {
            model = model.apply(step);
            model.check();
        }
    }
}
