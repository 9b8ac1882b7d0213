//! Groups a request's records by partition: for each partition the lines that storage will keep, and a digest of what
//! the client sent for it.
//!
//! Invariant: a batch has as many lines as records, in the order in which they were sent; a record is in one batch or
//! among the rejections. This module must not know how records are separated in a body, nor where batches go.

use std::collections::BTreeMap;

use model::bytes::equal;
use model::ids::BatchDigester;
use model::limits::{INGEST_RECORDS_MAX, RECORD_BYTES_MAX, REJECTED_LISTED_MAX};
use model::usual::UsualRecord;
use model::wire::Rejected;
use model::{BatchDigest, Partition, PartitionCount, Tenant, route};

use crate::budget::{Budget, Busy, Metered};
use crate::limits;
use crate::record::{self, Checked, Enrichment, Fault, Scanned, Service};

/// One partition's part of a request.
pub struct PartitionBatch<'b> {
    /// The partition.
    pub partition: Partition,
    /// Its records, one a line.
    pub lines: Metered<'b>,
    /// How many there are, at least one.
    pub record_count: usize,
    digester: BatchDigester,
}

impl PartitionBatch<'_> {
    /// The digest of the records' texts as they were sent.
    pub fn digest(&self) -> BatchDigest {
        self.digester.finish()
    }
}

/// The records that are not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    /// The first ones, at most [`REJECTED_LISTED_MAX`].
    pub listed: Vec<Rejected>,
    /// How many there are.
    pub count: usize,
    /// How many there are by the field at fault, empty for the record as a whole.
    pub by_field: BTreeMap<&'static str, usize>,
}

/// A request's records.
pub struct Grouped<'b> {
    /// By partition, in the order in which the partitions first appear.
    pub batches: Vec<PartitionBatch<'b>>,
    /// The others.
    pub rejections: Rejections,
}

impl Grouped<'_> {
    /// How many records are in the batches.
    pub fn received(&self) -> usize {
        self.batches.iter().map(|batch| batch.record_count).sum()
    }
}

/// Why a request's records are not taken at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// There are too many.
    #[error("there are more than {INGEST_RECORDS_MAX} records: send them in several requests")]
    TooMany,
    /// Their lines are too long in all.
    #[error(
        "the records have more than {} bytes in all when enriched: send them in several requests",
        limits::ENRICHED_BYTES_MAX
    )]
    TooLarge,
    /// There is no room for them now.
    #[error(transparent)]
    Busy(#[from] Busy),
}

/// Takes records one after another.
pub struct Grouping<'a, 'b> {
    enrichment: &'a Enrichment,
    partition_count: PartitionCount,
    tenant: Tenant,
    budget: &'b Budget,
    batches: Vec<PartitionBatch<'b>>,
    /// For each partition the place of its batch.
    places: Vec<Option<usize>>,
    /// The places of the services that came last: most requests repeat a few.
    recent: [Option<(&'a str, usize)>; limits::RECENT_SERVICES],
    recent_next: usize,
    record_count: usize,
    line_bytes: usize,
    rewritten: Vec<u8>,
    rejections: Rejections,
}

/// Bytes that the buffer for rewritten records keeps between two of them.
const REWRITTEN_KEPT_BYTES: usize = 64 << 10;

/// How many times its own length a record may take while it is written anew: compact, escaped, in a growing buffer.
const REWRITING_FACTOR: usize = 4;

impl<'a, 'b> Grouping<'a, 'b> {
    /// A grouping of no records yet.
    pub fn new(enrichment: &'a Enrichment, partition_count: PartitionCount, budget: &'b Budget) -> Self {
        Self {
            enrichment,
            partition_count,
            tenant: Tenant::default(),
            budget,
            batches: Vec::new(),
            places: vec![None; usize::from(partition_count.get())],
            recent: [None; limits::RECENT_SERVICES],
            recent_next: 0,
            record_count: 0,
            line_bytes: 0,
            rewritten: Vec::new(),
            rejections: Rejections::default(),
        }
    }

    /// Takes a record, or rejects it. `bytes_left` is how much of the body is still to come.
    ///
    /// # Errors
    /// When the request as a whole is too large.
    #[inline]
    pub fn add(&mut self, index: usize, record: &Scanned<'a>, bytes_left: usize) -> Result<(), GroupError> {
        match record.check() {
            Ok(checked) => {
                self.count_one()?;
                self.write(index, record, &checked, bytes_left)
            }
            Err(fault) => self.reject(index, &fault),
        }
    }

    /// Takes a record that can stay as it is.
    ///
    /// # Errors
    /// When the request as a whole is too large.
    #[inline]
    pub fn add_usual(
        &mut self,
        index: usize,
        record: &UsualRecord<'a>,
        bytes_left: usize,
    ) -> Result<(), GroupError> {
        self.count_one()?;
        let enrichment = self.enrichment;
        let line_bytes_max = record.text.len() + enrichment.bytes_max();
        let service = Service::Named(record.service);
        self.append(index, record.text, service, (line_bytes_max, bytes_left), |lines| {
            record::write_usual_line(lines, record, enrichment);
        })
    }

    /// Notes a record that is not taken.
    ///
    /// # Errors
    /// When there are too many records.
    pub fn reject(&mut self, index: usize, fault: &Fault) -> Result<(), GroupError> {
        self.count_one()?;
        self.note_rejection(index, fault);
        Ok(())
    }

    /// The batches and the rejections.
    pub fn finish(self) -> Grouped<'b> {
        // What was opened for a record that then proved too long is not sent.
        let batches = self.batches.into_iter().filter(|batch| batch.record_count > 0).collect();
        Grouped { batches, rejections: self.rejections }
    }

    fn count_one(&mut self) -> Result<(), GroupError> {
        self.record_count += 1;
        if self.record_count > INGEST_RECORDS_MAX { Err(GroupError::TooMany) } else { Ok(()) }
    }

    fn note_rejection(&mut self, index: usize, fault: &Fault) {
        self.rejections.count += 1;
        *self.rejections.by_field.entry(fault.field).or_default() += 1;
        if self.rejections.listed.len() < REJECTED_LISTED_MAX {
            let (field, error) = (fault.field.to_owned(), fault.error.clone().into_owned());
            self.rejections.listed.push(Rejected { index, field, error });
        }
    }

    #[inline]
    fn write(
        &mut self,
        index: usize,
        record: &Scanned<'a>,
        checked: &Checked<'a>,
        bytes_left: usize,
    ) -> Result<(), GroupError> {
        let (text, service, enrichment) = (record.text(), checked.service(), self.enrichment);
        if checked.is_spliced() {
            let line_bytes_max = text.len() + enrichment.bytes_max();
            return self.append(index, text, service, (line_bytes_max, bytes_left), |lines| {
                record::write_line(lines, record, checked, enrichment);
            });
        }
        self.rewrite(record, checked)?;
        let rewritten = std::mem::take(&mut self.rewritten);
        let appended = self.append(index, text, service, (rewritten.len(), bytes_left), |lines| {
            lines.extend_from_slice(&rewritten);
        });
        self.rewritten = rewritten;
        appended
    }

    /// Appends the line of the record of this text to its partition's batch: `write` writes it. `bytes` are how many
    /// it has at most, and how many of the body are still to come.
    #[inline]
    fn append(
        &mut self,
        index: usize,
        text: &str,
        service: Service<'a>,
        (line_bytes_max, bytes_left): (usize, usize),
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), GroupError> {
        if self.line_bytes + line_bytes_max > limits::ENRICHED_BYTES_MAX {
            return Err(GroupError::TooLarge);
        }
        let place = self.place_of(service, line_bytes_max, text.len() + bytes_left)?;
        // The place was just found or made.
        let Some(batch) = self.batches.get_mut(place) else { return Ok(()) };
        batch.lines.reserve(line_bytes_max, limits::ENRICHED_BYTES_MAX)?;
        let lines = batch.lines.bytes_mut();
        let start = lines.len();
        write(lines);
        // Without its newline.
        if lines.len() - start - 1 > RECORD_BYTES_MAX {
            lines.truncate(start);
            let fault =
                Fault::new("", format!("the record has more than {RECORD_BYTES_MAX} bytes when enriched"));
            self.note_rejection(index, &fault);
            return Ok(());
        }
        self.line_bytes += lines.len() - start;
        batch.record_count += 1;
        batch.digester.update(text.as_bytes());
        Ok(())
    }

    /// Writes a record that cannot stay as it is into the buffer for such records.
    #[cold]
    fn rewrite(&mut self, record: &Scanned<'a>, checked: &Checked<'a>) -> Result<(), Busy> {
        // Nothing else runs until this record is written: it is enough that there is room now.
        self.budget.share().take(record.text().len().saturating_mul(REWRITING_FACTOR))?;
        self.rewritten.clear();
        self.rewritten.shrink_to(REWRITTEN_KEPT_BYTES);
        record::write_line(&mut self.rewritten, record, checked, self.enrichment);
        Ok(())
    }

    /// The place of the batch that a service's records go to.
    #[inline]
    fn place_of(
        &mut self,
        service: Service<'a>,
        line_bytes: usize,
        bytes_left: usize,
    ) -> Result<usize, Busy> {
        let raw = service.raw();
        if let Some((_, place)) =
            self.recent.iter().flatten().find(|(recent, _)| equal(recent.as_bytes(), raw.as_bytes()))
        {
            return Ok(*place);
        }
        let partition = route::partition_of(&self.tenant, service.decode().as_bytes(), self.partition_count);
        let place = match self.places.get(usize::from(partition.get())).copied().flatten() {
            Some(place) => place,
            None => self.open(partition, line_bytes, bytes_left)?,
        };
        if let Some(slot) = self.recent.get_mut(self.recent_next) {
            *slot = Some((raw, place));
            self.recent_next = (self.recent_next + 1) % limits::RECENT_SERVICES;
        }
        Ok(place)
    }

    /// Opens a partition's batch with a buffer that fits what is likely to come: all of the rest for the first one,
    /// which may be the only one; less and less for further ones, so that the sum stays bounded.
    fn open(&mut self, partition: Partition, line_bytes: usize, bytes_left: usize) -> Result<usize, Busy> {
        let place = self.batches.len();
        let likely = bytes_left.saturating_add(bytes_left / 2) / ((place + 1) * (place + 1));
        let mut lines = Metered::new(self.budget);
        lines
            .reserve(likely.min(limits::FIRST_LINES_BYTES_MAX).max(line_bytes), limits::ENRICHED_BYTES_MAX)?;
        self.batches.push(PartitionBatch {
            partition,
            lines,
            record_count: 0,
            digester: BatchDigester::default(),
        });
        if let Some(slot) = self.places.get_mut(usize::from(partition.get())) {
            *slot = Some(place);
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests;
