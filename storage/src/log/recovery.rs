//! What a crash left of the last segment: where its whole batches end, and what in front of that is damaged.
//!
//! A crash loses any part of what was not synced, in any order, but it alters nothing. Each header says how many batches
//! were flushed before it was written. Below the highest such count nothing can be torn: a mismatch there is damage, and
//! is kept. From there on it is a torn tail if the bytes never reached the disk: those are sectors of zeros or lie beyond
//! the file's end, and JSON holds no zero byte. Bytes that are there and wrong were written, and perhaps flushed and
//! acknowledged: they are damage too. So are the last headers, if they are there and wrong and all lines of their batches
//! are there: they tell where these ended. Where there are none, such headers may have been those of entries without
//! records: they are cut, and counted.
//!
//! A disk that lied about its syncs, or a hand that cut the file, can also leave flushed batches at the very end
//! without bytes. There is nothing of them to keep: they are cut like a torn tail, and counted as lost.
//!
//! Invariant: nothing is written here, and no bytes that were flushed are cut.

use std::collections::HashMap;
use std::io;

use model::{BatchId, Offset};

use super::batch_index::BatchIndex;
use super::disk::{self, DiskFile};
use super::error::{Damage, DamageKind};
use super::format::{BatchHeader, Undecodable};
use super::limits;
use super::segment::Summary;

/// The last segment as it is to be continued.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The batches to keep.
    pub(super) summary: Summary,
    /// Their places, by id.
    pub(super) batch_by_id: HashMap<BatchId, u32>,
    /// What of them is damaged.
    pub(super) damage: Vec<Damage>,
    /// Records of flushed batches at the end of which the bytes are gone.
    pub(super) lost_records: u64,
    /// The headers at the very end that are not what was written there, and how many of them are cut.
    pub(super) altered: AlteredEnd,
    /// The first kept batch of which no later one says that it was flushed, and where its bytes begin.
    pub(super) unsure_batch: u32,
    pub(super) unsure_position: u64,
    /// Bytes of the data file that are cut before the next append.
    pub(super) torn_data_bytes: u64,
    /// Bytes of the index file that are cut before the next append.
    pub(super) torn_index_bytes: u64,
}

/// Headers at the very end of a log that are there, and are not what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlteredEnd {
    /// How many there are.
    pub headers: u32,
    /// How many of them are cut, as no records are left of what they stood for.
    pub cut: u32,
}

/// Why a segment could not be recovered.
#[derive(Debug)]
pub(super) enum RecoveryError {
    /// An entry is of a kind that this version does not know; cutting it off could lose records.
    Unknown,
    /// The index could not be read.
    Io(io::Error),
}

impl From<io::Error> for RecoveryError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Where a segment ends, known from elsewhere: nothing in front of it can be torn, and its bytes need no check.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownEnd {
    /// The first offset of what follows.
    pub(super) offset: Offset,
    /// The data file's length.
    pub(super) data_bytes: u64,
}

/// Finds the longest prefix of batches to keep. Without `data` there are no bytes to check. Of `flushed_batches` it is
/// known from elsewhere that they were flushed.
pub(super) fn recover(
    base_offset: Offset,
    index: &BatchIndex,
    data: Option<&dyn DiskFile>,
    known_end: Option<KnownEnd>,
    flushed_batches: u32,
) -> Result<Recovered, RecoveryError> {
    let index_bytes = index.length()?;
    let data_bytes = data.map_or(Ok(0), |data| data.length())?;
    let checker = data.filter(|_| known_end.is_none()).map(DataChecker::new);
    let mut survey = Survey::new(base_offset, checker, flushed_batches);
    index.scan(slot_count(index_bytes), |batch, header| survey.add(batch, header))?;
    survey.end_by_lines(data_bytes);
    if survey.found_unknown {
        return Err(RecoveryError::Unknown);
    }
    let kept = match known_end {
        Some(end) => survey.all_batches(Place { offset: end.offset, position: end.data_bytes }),
        None => survey.kept_batches(),
    };
    let lost_records = survey.records_between(kept, survey.flushed_batches);
    let altered = survey.altered_end(kept);
    let damage = survey.damage(kept);
    let (summary, batch_by_id) = summarize(base_offset, index, &survey, kept)?;
    let unsure_batch = survey.flushed_batches.min(kept);
    Ok(Recovered {
        unsure_batch,
        unsure_position: survey
            .slots
            .get(unsure_batch as usize)
            .map_or(summary.data_bytes, |slot| slot.from.position),
        torn_data_bytes: data_bytes.saturating_sub(summary.data_bytes),
        torn_index_bytes: index_bytes.saturating_sub(BatchIndex::bytes_of(kept)),
        summary,
        batch_by_id,
        damage,
        lost_records,
        altered,
    })
}

/// The entries that an index file of this length has room for.
pub(super) fn slot_count(index_bytes: u64) -> u32 {
    u32::try_from((index_bytes / BatchIndex::bytes_of(0)).saturating_sub(1)).unwrap_or(u32::MAX)
}

/// A border between two batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    offset: Offset,
    position: u64,
}

/// What became of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    /// The header was never written.
    AbsentHeader,
    /// The bytes were never written, or not all.
    TornBytes,
    /// The header is there, and is not what was written.
    WrongHeader,
    /// The bytes are there, and are not what was written.
    WrongBytes,
    /// The system does not give the bytes. Nothing can be said of them, and so nothing may be cut.
    Unreadable,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: State,
    from: Place,
    /// Not known for a header that is wrong until the next that is right.
    to: Option<Place>,
    /// Whether its header is there, and is not what was written.
    is_altered: bool,
    /// Whether its header is wrong, and its lines said where it ends.
    is_ended_by_lines: bool,
}

impl Slot {
    /// Whether all of it was written, whatever became of it.
    fn was_written(&self) -> bool {
        match self.state {
            State::Whole | State::Unreadable | State::WrongBytes => true,
            State::WrongHeader => self.is_ended_by_lines,
            State::AbsentHeader | State::TornBytes => false,
        }
    }

    fn is_torn(&self) -> bool {
        matches!(self.state, State::AbsentHeader | State::TornBytes)
    }
}

/// The slots of an index, in order.
struct Survey<'a> {
    slots: Vec<Slot>,
    /// Where the next batch should begin.
    next: Place,
    /// Whether the header before was right, so that `next` is exact.
    is_next_exact: bool,
    /// The highest count of flushed batches that is known, or that any header names.
    flushed_batches: u32,
    found_unknown: bool,
    checker: Option<DataChecker<'a>>,
}

impl<'a> Survey<'a> {
    fn new(base_offset: Offset, checker: Option<DataChecker<'a>>, flushed_batches: u32) -> Self {
        Self {
            slots: Vec::new(),
            next: Place { offset: base_offset, position: 0 },
            is_next_exact: true,
            flushed_batches,
            found_unknown: false,
            checker,
        }
    }

    fn add(&mut self, batch: u32, header: Result<BatchHeader, Undecodable>) {
        match header {
            Ok(header) if self.continues(batch, &header) => self.add_right_header(&header),
            Ok(_) => self.add_bad_header(State::WrongHeader, false),
            Err(Undecodable::Absent) => self.add_bad_header(State::AbsentHeader, false),
            Err(Undecodable::Unknown) => self.found_unknown = true,
            Err(Undecodable::Checksum) => self.add_bad_header(State::WrongHeader, true),
        }
    }

    /// Whether a header can stand here: an old or misplaced one has a right checksum too.
    fn continues(&self, batch: u32, header: &BatchHeader) -> bool {
        let begins = Place { offset: header.base_offset, position: header.position };
        let follows = if self.is_next_exact {
            begins == self.next
        } else {
            begins.offset >= self.next.offset && begins.position >= self.next.position
        };
        follows && header.flushed_batches <= batch
    }

    fn add_right_header(&mut self, header: &BatchHeader) {
        let from = Place { offset: header.base_offset, position: header.position };
        let to = Place { offset: header.end_offset(), position: header.end_position() };
        self.resolve_bad_headers(from);
        let state = self.checker.as_mut().map_or(State::Whole, |checker| checker.check(header));
        self.slots.push(Slot { state, from, to: Some(to), is_altered: false, is_ended_by_lines: false });
        self.flushed_batches = self.flushed_batches.max(header.flushed_batches);
        self.next = to;
        self.is_next_exact = true;
    }

    fn add_bad_header(&mut self, state: State, is_altered: bool) {
        self.slots.push(Slot { state, from: self.next, to: None, is_altered, is_ended_by_lines: false });
        self.is_next_exact = false;
    }

    /// Now it is known where the wrong headers' batches ended.
    fn resolve_bad_headers(&mut self, to: Place) {
        for slot in self.slots.iter_mut().rev().take_while(|slot| slot.to.is_none()) {
            slot.to = Some(to);
        }
    }

    /// Altered headers at the very end, but for absent ones behind them: an entry is on the disk whole or not at all, so
    /// they were written. The whole lines behind the batch before are theirs, and perhaps, at the end, some of what was
    /// just being written. Where one batch ends and the next begins is not known.
    fn end_by_lines(&mut self, data_bytes: u64) {
        let before = self.slots.iter().rposition(|slot| slot.to.is_some()).map_or(0, |last| last + 1);
        let absent = self.slots.iter().rev().take_while(|slot| slot.state == State::AbsentHeader).count();
        let end = self.slots.len().saturating_sub(absent);
        let Some(run) = self.slots.get_mut(before..end) else { return };
        let Some(from) = run.first().map(|slot| slot.from) else { return };
        if !run.iter().all(|slot| slot.is_altered) {
            return;
        }
        let lines = self.checker.as_mut().map(|checker| checker.whole_lines(from.position, data_bytes));
        if let Some((lines, position)) = lines.filter(|(lines, _)| *lines > 0) {
            let to = Place { offset: from.offset.plus(lines), position };
            run.iter_mut().for_each(|slot| (slot.to, slot.is_ended_by_lines) = (Some(to), true));
            self.next = to;
        }
    }

    /// What is altered at the very end, when so many batches are kept.
    fn altered_end(&self, kept: u32) -> AlteredEnd {
        let written = self.slots.iter().rev().skip_while(|slot| slot.state == State::AbsentHeader);
        let headers = written.take_while(|slot| slot.is_altered).count();
        let cut = self.slots.iter().skip(kept as usize).filter(|slot| slot.is_altered).count();
        AlteredEnd { headers: headers as u32, cut: cut as u32 }
    }

    /// All batches, when nothing can be torn. Wrong entries at the very end that would be batches of nothing are none:
    /// what is left of a seal.
    fn all_batches(&mut self, end: Place) -> u32 {
        self.resolve_bad_headers(end);
        let of_nothing = |slot: &&Slot| slot.from.offset >= end.offset && slot.state != State::Whole;
        (self.slots.len() - self.slots.iter().rev().take_while(of_nothing).count()) as u32
    }

    /// How many batches to keep after a crash.
    fn kept_batches(&self) -> u32 {
        let flushed = self.flushed_batches as usize;
        let (sure, unsure) = self.slots.split_at_checked(flushed).unwrap_or((&self.slots, &[]));
        let before_torn = unsure.iter().take_while(|slot| !slot.is_torn());
        let whole_after = before_torn.enumerate().filter(|(_, slot)| slot.was_written()).last();
        if let Some((place, _)) = whole_after {
            return (flushed + place + 1) as u32;
        }
        if unsure.iter().any(Slot::was_written) {
            return flushed as u32;
        }
        (sure.len() - sure.iter().rev().take_while(|slot| slot.is_torn()).count()) as u32
    }

    /// The records of the batches from one place to another.
    fn records_between(&self, from: u32, to: u32) -> u64 {
        let end_of = |count: u32| count.checked_sub(1).and_then(|last| self.slots.get(last as usize)?.to);
        let first = self.slots.first().map(|slot| slot.from);
        match (end_of(from).or(first), end_of(to)) {
            (Some(from), Some(to)) => to.offset.since(from.offset),
            _ => 0,
        }
    }

    fn damage(&self, kept: u32) -> Vec<Damage> {
        let segment = self.slots.first().map_or(self.next.offset, |slot| slot.from.offset);
        let mut found: Vec<Damage> = Vec::new();
        for slot in self.slots.iter().take(kept as usize) {
            let kind = match slot.state {
                State::Whole => continue,
                State::WrongBytes | State::Unreadable => DamageKind::Bytes,
                State::WrongHeader | State::AbsentHeader => DamageKind::Header,
                State::TornBytes => DamageKind::MissingBytes,
            };
            let to = slot.to.unwrap_or(self.next);
            let damage = Damage {
                segment,
                position: slot.from.position,
                first_offset: slot.from.offset,
                end_offset: to.offset,
                kind,
            };
            // Wrong headers one after another are one place: where each batch began is not known.
            if found.last() != Some(&damage) {
                found.push(damage);
            }
        }
        found
    }
}

/// Sums up the headers to keep, and collects their ids.
fn summarize(
    base_offset: Offset,
    index: &BatchIndex,
    survey: &Survey<'_>,
    kept: u32,
) -> Result<(Summary, HashMap<BatchId, u32>), RecoveryError> {
    let mut summary = Summary::empty(base_offset);
    let mut batch_by_id = HashMap::new();
    let mut slots = survey.slots.iter();
    index.scan(kept, |batch, header| {
        let Some(slot) = slots.next().filter(|slot| slot.state != State::WrongHeader) else { return };
        let Ok(header) = header else { return };
        summary.add(&header);
        // Of what is not what was written, and was perhaps never acknowledged, a repetition is to be stored.
        let is_stored = slot.state != State::WrongBytes || batch < survey.flushed_batches;
        if let Some(id) = header.id.filter(|_| is_stored) {
            batch_by_id.insert(id, batch);
        }
    })?;
    summary.batch_count = kept;
    if let Some(end) = kept.checked_sub(1).and_then(|last| survey.slots.get(last as usize)?.to) {
        summary.end_offset = end.offset;
        summary.data_bytes = end.position;
    }
    Ok((summary, batch_by_id))
}

/// Checks batches' bytes against their checksums, reading the file from front to back.
struct DataChecker<'a> {
    file: &'a dyn DiskFile,
    buffer: Vec<u8>,
    /// Where the buffer's bytes are from, and how many they are.
    start: u64,
    filled: usize,
}

impl<'a> DataChecker<'a> {
    fn new(file: &'a dyn DiskFile) -> Self {
        Self { file, buffer: vec![0; limits::SCAN_BUFFER_BYTES], start: 0, filled: 0 }
    }

    fn check(&mut self, header: &BatchHeader) -> State {
        let mut hasher = crc32fast::Hasher::new();
        let mut sectors = Sectors::from(header.position);
        let (from, to) = (header.position, header.end_position());
        match self.each_piece(from, to, |piece| hasher.update(piece)) {
            Err(_) => return State::Unreadable,
            Ok(false) => return State::TornBytes,
            Ok(true) if hasher.finalize() == header.crc => return State::Whole,
            Ok(true) => {}
        }
        match self.each_piece(from, to, |piece| sectors.add(piece)) {
            Err(_) => State::Unreadable,
            Ok(_) if sectors.end() => State::TornBytes,
            Ok(_) => State::WrongBytes,
        }
    }

    /// How many whole lines there are from one position on, before the first byte that was never written and before `to`;
    /// and where the last ends.
    fn whole_lines(&mut self, from: u64, to: u64) -> (u64, u64) {
        let (mut lines, mut end, mut at, mut is_over) = (0, from, from, false);
        let read = self.each_piece(from, to, |piece| {
            if is_over {
                return;
            }
            let zero = memchr::memchr(0, piece);
            is_over = zero.is_some();
            let piece = piece.get(..zero.unwrap_or(piece.len())).unwrap_or_default();
            lines += memchr::memchr_iter(b'\n', piece).count() as u64;
            if let Some(last) = memchr::memrchr(b'\n', piece) {
                end = at + last as u64 + 1;
            }
            at += piece.len() as u64;
        });
        if read.is_err() { (0, from) } else { (lines, end) }
    }

    /// Hands bytes out piece by piece; false when the file ends before.
    fn each_piece(&mut self, mut position: u64, end: u64, mut visit: impl FnMut(&[u8])) -> io::Result<bool> {
        while position < end {
            if position < self.start || position >= self.start + self.filled as u64 {
                self.refill(position, end)?;
            }
            let from = (position - self.start) as usize;
            let to = self.filled.min(from.saturating_add((end - position) as usize));
            let piece = self.buffer.get(from..to).unwrap_or_default();
            if piece.is_empty() {
                return Ok(false);
            }
            visit(piece);
            position += piece.len() as u64;
        }
        Ok(true)
    }

    /// Reads on from `position`; no further than `end` where the system refuses more, so that a bad sector is only
    /// held against the batch that it is in.
    fn refill(&mut self, position: u64, end: u64) -> io::Result<()> {
        self.filled = 0;
        self.start = position;
        self.filled = match disk::read_full(self.file, &mut self.buffer, position) {
            Ok(filled) => filled,
            Err(_) => {
                let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(self.buffer.len());
                disk::read_full(self.file, self.buffer.get_mut(..wanted).unwrap_or_default(), position)?
            }
        };
        Ok(())
    }
}

/// Looks for sectors that were never written: zeros alone. A zero among other bytes is a bit that flipped.
struct Sectors {
    position: u64,
    /// Whether all bytes of this sector so far are zeros, and there are some.
    is_zero: Option<bool>,
    has_lost: bool,
}

impl Sectors {
    fn from(position: u64) -> Self {
        Self { position, is_zero: None, has_lost: false }
    }

    fn add(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let room = limits::SECTOR_BYTES - (self.position % limits::SECTOR_BYTES as u64) as usize;
            let (sector, rest) = piece.split_at(room.min(piece.len()));
            let is_zero = sector.iter().all(|byte| *byte == 0);
            self.is_zero = Some(self.is_zero.unwrap_or(true) && is_zero);
            self.position += sector.len() as u64;
            if self.position.is_multiple_of(limits::SECTOR_BYTES as u64) {
                self.has_lost |= self.is_zero.take().unwrap_or_default();
            }
            piece = rest;
        }
    }

    /// Whether any sector, the last one included, was never written.
    fn end(&mut self) -> bool {
        self.has_lost || self.is_zero.unwrap_or_default()
    }
}
