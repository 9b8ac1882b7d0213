//! Records in the order of their offsets, a piece at a time.
//!
//! Invariant: a piece ends at a record's end, and the next begins with the record after it; whatever the number of
//! records asked for, one piece (or one batch, where that is larger) is in memory.

use model::Offset;

use super::encode::RecordWriter;
use crate::limits;
use crate::log::LogReader;

/// The records to read: from `next` to `end`, which is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// The next record to read.
    pub next: Offset,
    /// Where to stop.
    pub end: Offset,
}

impl ReadRange {
    /// The last `limit` readable records.
    pub fn last(reader: &LogReader, limit: u64) -> Self {
        let end = reader.high_watermark();
        Self { next: end.minus(limit).max(reader.first_offset()).min(end), end }
    }

    /// `limit` readable records from `offset` on, or from the oldest that is kept.
    pub fn from(reader: &LogReader, offset: Offset, limit: u64) -> Self {
        let high_watermark = reader.high_watermark();
        let next = offset.max(reader.first_offset()).min(high_watermark);
        Self { next, end: next.plus(limit).min(high_watermark) }
    }

    /// Whether there is nothing left to read.
    pub fn is_empty(self) -> bool {
        self.next >= self.end
    }

    /// Reads one piece and returns it with what is left. Records that cannot be read are passed over.
    pub fn read_piece(mut self, reader: &LogReader, writer: &mut RecordWriter) -> (Vec<u8>, Self) {
        let mut piece = Vec::new();
        if self.is_empty() {
            return (piece, self);
        }
        for batch in reader.batches_from(self.next) {
            let batch = match batch {
                Ok(batch) if batch.base_offset >= self.end => break,
                Ok(batch) => batch,
                Err(error) => {
                    tracing::warn!(%error, "a read passes over what it cannot read");
                    continue;
                }
            };
            let wanted = batch.lines().skip_while(|(offset, _)| *offset < self.next);
            for (_, line) in wanted.take_while(|(offset, _)| *offset < self.end) {
                writer.record(&mut piece, line);
            }
            self.next = batch.base_offset.plus(batch.record_count.into());
            if piece.len() >= limits::READ_CHUNK_BYTES {
                return (piece, self);
            }
        }
        // There is nothing readable any more before the end.
        self.next = self.end;
        (piece, self)
    }
}
