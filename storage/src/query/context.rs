//! The records around a record, in the order in which its partition took them.
//!
//! Invariant: without regard to services these are its neighbours by offset; with it, its nearest ones of its service,
//! as far as is read.

use std::collections::VecDeque;

use model::Offset;

use super::deadline::{Interrupted, Watch};
use super::filter::as_text;
use super::key::Key;
use super::parse::ContextQuery;
use super::search::Found;
use super::stats::{Lack, Stats};
use crate::index::FieldReader;
use crate::limits;
use crate::log::{LogReader, StoredBatch};

/// Finds them; `None` when there is no such record.
pub(super) fn context(
    reader: &LogReader,
    query: &ContextQuery,
    bytes_max: usize,
    watch: &Watch,
) -> Option<Found> {
    let target = query.offset;
    let center = reader.batches_between(target, target.plus(1)).find_map(Result::ok)?;
    let line = center.lines().find(|(offset, _)| *offset == target).map(|(_, line)| line.to_vec())?;
    let mut gatherer = Gatherer {
        service: if query.same_service { service_of(&mut FieldReader::default(), &line) } else { None },
        fields: FieldReader::default(),
        bytes_left: bytes_max.saturating_sub(line.len()),
        stats: Stats::default(),
        lacks: Vec::new(),
    };
    let key = |offset: Offset| Key { rank: 0, partition: reader.partition(), offset };
    let mut records = VecDeque::from([(key(target), line.into_boxed_slice())]);
    let mut before = |offset, line: &[u8]| records.push_front((key(offset), line.into()));
    let back = reader.batches_before(target).flat_map(Result::ok);
    gatherer.gather(back, true, target, query.before, watch, &mut before);
    let mut after = |offset, line: &[u8]| records.push_back((key(offset), line.into()));
    let forth = reader.batches_from(target.plus(1)).flat_map(Result::ok);
    gatherer.gather(forth, false, target, query.after, watch, &mut after);
    let Gatherer { lacks, stats, .. } = gatherer;
    Some(Found { records: records.into(), next: None, lacks, stats })
}

struct Gatherer {
    service: Option<String>,
    fields: FieldReader,
    bytes_left: usize,
    stats: Stats,
    lacks: Vec<Lack>,
}

impl Gatherer {
    /// Hands up to `count` records on one side of `target` to `take`, the nearest first.
    fn gather(
        &mut self,
        batches: impl Iterator<Item = StoredBatch>,
        is_back: bool,
        target: Offset,
        count: usize,
        watch: &Watch,
        take: &mut impl FnMut(Offset, &[u8]),
    ) {
        let (mut left, mut bytes_read) = (count, 0);
        for batch in batches {
            if left == 0 {
                return;
            }
            if watch.check() == Err(Interrupted) {
                return self.lack(Lack::Time);
            }
            if bytes_read >= limits::CONTEXT_SCAN_BYTES_MAX {
                return self.lack(Lack::Scan);
            }
            bytes_read += batch.bytes.len() as u64;
            self.stats.scanned_bytes += batch.bytes.len() as u64;
            let mut lines = batch.lines();
            while let Some((offset, line)) = if is_back { lines.next_back() } else { lines.next() } {
                if left == 0 {
                    return;
                }
                let is_beside = if is_back { offset < target } else { offset > target };
                if !is_beside || !self.is_of_service(line) {
                    continue;
                }
                if line.len() > self.bytes_left {
                    return self.lack(Lack::Bytes);
                }
                self.bytes_left -= line.len();
                left -= 1;
                take(offset, line);
            }
        }
    }

    fn is_of_service(&mut self, line: &[u8]) -> bool {
        self.service.is_none() || service_of(&mut self.fields, line) == self.service
    }

    fn lack(&mut self, lack: Lack) {
        if !self.lacks.contains(&lack) {
            self.lacks.push(lack);
        }
    }
}

fn service_of(reader: &mut FieldReader, line: &[u8]) -> Option<String> {
    let fields = reader.fields_of(line)?;
    Some(as_text(&fields.service.decode()).into_owned())
}
