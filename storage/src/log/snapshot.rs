//! A log that is only looked at: what tools see of a directory on which no daemon runs.
//!
//! Invariant: nothing is written, not even what a crash left to be put right.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{EnrichedLine, Offset, Partition};

use super::disk::Disk;
use super::error::{Damage, DamageKind, LogError};
use super::id_list;
use super::open;
use super::partition_log::RecoveryReport;
use super::reader::{LogReader, PartitionStatus};
use super::shared::Shared;
use super::stopping_disk::Stop;
use super::stored_batch::StoredBatch;

/// A partition's log as it lies on the disk.
#[derive(Debug)]
pub struct LogSnapshot {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    shared: Arc<Shared>,
    report: RecoveryReport,
}

/// What a full reading of a log came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Batches that are as they were written.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes, before compression.
    pub bytes: u64,
    /// Every place of damage.
    pub damage: Vec<Damage>,
}

impl LogSnapshot {
    /// Looks at the log in `dir`.
    ///
    /// # Errors
    /// When the files are of a newer version, or the system refuses.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, partition: Partition) -> Result<Self, LogError> {
        let opened = open::open(&*disk, dir, partition)?;
        let report = RecoveryReport::of(&opened);
        let shared = Shared::new(partition, opened.segments, &report, opened.missing, Stop::default());
        shared.raise_high_watermark(opened.next_offset);
        Ok(Self { disk, dir: dir.to_owned(), shared: Arc::new(shared), report })
    }

    /// What an opening for writing would find and put right.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// The state of the log, with the damage that was seen so far.
    pub fn status(&self) -> PartitionStatus {
        self.reader().status()
    }

    /// A reader of everything that is whole.
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// Reads everything: every checksum, as many lines as records, and every line a record.
    ///
    /// # Errors
    /// When the system refuses. Damage is no error but a result.
    pub fn verify(&self) -> Result<Verification, LogError> {
        let mut verification = Verification { damage: self.report.damage.clone(), ..Verification::default() };
        for item in self.reader().batches_from(Offset::ZERO) {
            match item {
                Ok(batch) => verification.add(&batch),
                Err(LogError::Damaged(damage)) => verification.note(damage),
                Err(other) => return Err(other),
            }
        }
        for segment in self.shared.segments().iter() {
            if segment.summary().sealed && !id_list::is_sound(&*self.disk, &self.dir, segment) {
                verification.note(Damage {
                    segment: segment.base_offset,
                    position: 0,
                    first_offset: segment.base_offset,
                    end_offset: segment.base_offset,
                    kind: DamageKind::IdList,
                });
            }
        }
        verification.damage.sort_by_key(|damage| (damage.segment, damage.position));
        Ok(verification)
    }
}

impl Verification {
    fn add(&mut self, batch: &StoredBatch) {
        let lines = batch.lines();
        let are_records = lines.clone().all(|(_, line)| EnrichedLine::parse(line).is_ok());
        if lines.count() as u64 != u64::from(batch.record_count) || !are_records {
            self.note(Damage {
                segment: batch.segment,
                position: batch.position,
                first_offset: batch.base_offset,
                end_offset: batch.end_offset(),
                kind: DamageKind::Lines,
            });
            return;
        }
        self.batches += 1;
        self.records += u64::from(batch.record_count);
        self.bytes += batch.bytes.len() as u64;
    }

    fn note(&mut self, damage: Damage) {
        if !self.damage.contains(&damage) {
            self.damage.push(damage);
        }
    }
}
