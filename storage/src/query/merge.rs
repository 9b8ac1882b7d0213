//! Answers of several nodes to the same search, put together in the order of the answer.
//!
//! Invariants: nothing is told twice, though two nodes should hold the same partition; nothing is told that comes after
//! the place to which any of the answers is complete, so that the cursor misses nothing.

use bytes::Bytes;
use memchr::memchr;
use model::{Offset, Partition};

use super::encode::{Format, RecordWriter};
use super::key::{Cursor, Key, Order};
use super::parse::Query;
use super::stats::{Lack, Stats};
use crate::index::FieldReader;

/// One node's answer: newline-delimited records with their places, in the order of the answer.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// The records.
    pub body: Bytes,
    /// Where to go on in it, if there is more.
    pub next: Option<Cursor>,
    /// What it lacks.
    pub lacks: Vec<Lack>,
    /// What it took.
    pub stats: Stats,
}

/// Answers put together.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// The records, in the format that was asked for.
    pub body: Vec<u8>,
    /// How many.
    pub records: usize,
    /// Where to go on, if there is more.
    pub next: Option<Cursor>,
    /// What the whole lacks.
    pub lacks: Vec<Lack>,
    /// What the whole took.
    pub stats: Stats,
}

/// Puts answers together.
pub(super) fn merge(parts: &[Part], query: &Query, format: Format, bytes_max: usize) -> Merged {
    let direction = query.direction;
    let mut merged = Merged::default();
    for part in parts {
        merged.stats.add(&part.stats);
        merged.lacks.extend(part.lacks.iter().cloned());
    }
    // Behind the first place at which an answer ends that has more, others would be told without its records.
    let barrier = parts
        .iter()
        .filter_map(|part| part.next)
        .map(|next| next.key)
        .reduce(|a, b| if direction.comes_first(a, b) { a } else { b });
    let mut heads: Vec<Records<'_>> =
        parts.iter().map(|part| Records::new(&part.body, query.order)).collect();
    let mut writer = RecordWriter::new(format);
    let mut last: Option<Key> = None;
    let mut is_cut = false;
    loop {
        let first = heads.iter().enumerate().filter_map(|(place, head)| Some((place, head.head?.key)));
        let first = first.reduce(|a, b| if direction.comes_first(b.1, a.1) { b } else { a });
        let Some((place, key)) = first else { break };
        if barrier.is_some_and(|barrier| direction.comes_first(barrier, key)) {
            break;
        }
        let Some(head) = heads.get_mut(place).and_then(Records::take) else { break };
        if last == Some(key) {
            continue;
        }
        let shown = if query.with_places { head.whole } else { head.record };
        let is_full = merged.records > 0 && merged.body.len() + shown.len() + 2 > bytes_max;
        if is_full || merged.records >= query.limit {
            if is_full {
                merged.lacks.push(Lack::Bytes);
            }
            is_cut = true;
            break;
        }
        writer.record(&mut merged.body, shown);
        merged.records += 1;
        last = Some(key);
    }
    writer.end(&mut merged.body);
    let next = if is_cut { last } else { barrier };
    merged.next = next.map(|key| Cursor { direction, key });
    merged
}

/// The records of one answer, one after another.
struct Records<'a> {
    rest: &'a [u8],
    order: Order,
    fields: FieldReader,
    head: Option<Placed<'a>>,
}

/// A record with its place.
#[derive(Clone, Copy)]
struct Placed<'a> {
    key: Key,
    record: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Records<'a> {
    fn new(body: &'a [u8], order: Order) -> Self {
        let mut records = Self { rest: body, order, fields: FieldReader::default(), head: None };
        records.advance();
        records
    }

    fn take(&mut self) -> Option<Placed<'a>> {
        let head = self.head.take();
        self.advance();
        head
    }

    fn advance(&mut self) {
        while self.head.is_none() && !self.rest.is_empty() {
            let length = memchr(b'\n', self.rest).unwrap_or(self.rest.len());
            let (line, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
            self.rest = rest.get(1..).unwrap_or_default();
            self.head = self.placed(line);
        }
    }

    fn placed(&mut self, line: &'a [u8]) -> Option<Placed<'a>> {
        let (partition, offset, record) = split_place(line)?;
        let timestamp_ms = self.fields.fields_of(record)?.timestamp_ms;
        let key = Key { rank: self.order.rank(timestamp_ms), partition, offset };
        Some(Placed { key, record, whole: line })
    }
}

/// A record's place and text, as [`RecordWriter::record_at`] writes them.
pub(super) fn split_place(line: &[u8]) -> Option<(Partition, Offset, &[u8])> {
    let rest = line.strip_prefix(b"{\"partition\":")?;
    let (partition, rest) = number(rest)?;
    let (offset, rest) = number(rest.strip_prefix(b",\"offset\":")?)?;
    let record = rest.strip_prefix(b",\"record\":")?.strip_suffix(b"}")?;
    Some((Partition::new(u16::try_from(partition).ok()?), Offset::new(offset), record))
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(length)?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        r#""service":"s","message":"m","received_at":1,"ingested_node_id":"n","client_ip":"i"}}"#;

    /// An answer of records of one partition at these times, with the time at which it ends if it has more.
    fn part(partition: u16, times: &[u64], next: Option<&str>) -> Part {
        let lines = times.iter().map(|time| {
            format!(
                "{{\"partition\":{partition},\"offset\":{time},\"record\":{{\"timestamp\":{time},{LINE}\n"
            )
        });
        let body: String = lines.collect();
        Part { body: body.into(), next: next.map(|next| next.parse().unwrap()), ..Part::default() }
    }

    /// The times that are told, and where to go on.
    fn told(parts: &[Part], parameters: &[(&str, &str)], bytes_max: usize) -> (Vec<u64>, Option<String>) {
        let query = Query { with_places: true, ..Query::parse(parameters.iter().copied(), 0).unwrap() };
        let merged = merge(parts, &query, Format::Ndjson, bytes_max);
        let times = merged.body.split(|byte| *byte == b'\n').filter_map(split_place);
        (times.map(|(_, offset, _)| offset.get()).collect(), merged.next.map(|next| next.to_string()))
    }

    #[test]
    fn answers_are_merged_in_order_up_to_the_limit() {
        let parts = [part(0, &[90, 70, 50], None), part(1, &[80, 60], None)];
        assert_eq!(told(&parts, &[], usize::MAX), (vec![90, 80, 70, 60, 50], None));
        assert_eq!(told(&parts, &[("limit", "2")], usize::MAX), (vec![90, 80], Some("b50.1.50".to_owned())));
        assert_eq!(told(&parts, &[("limit", "5")], usize::MAX).1, None);
        assert_eq!(told(&parts, &[("limit", "0")], usize::MAX), (vec![], None));
        let forward = [part(0, &[50, 70], None), part(1, &[60], None)];
        assert_eq!(told(&forward, &[("direction", "forward")], usize::MAX).0, [50, 60, 70]);
    }

    #[test]
    fn nothing_is_told_behind_the_end_of_an_answer_that_has_more() {
        let parts = [part(0, &[90, 70], Some("b46.0.46")), part(1, &[80, 60, 40], None)];
        assert_eq!(told(&parts, &[], usize::MAX), (vec![90, 80, 70], Some("b46.0.46".to_owned())));
        // One that ran out of time before it found anything.
        let parts = [part(0, &[], Some("b55.0.0")), part(1, &[90, 80], None)];
        assert_eq!(told(&parts, &[], usize::MAX), (vec![90], Some("b55.0.0".to_owned())));
    }

    #[test]
    fn a_record_that_two_nodes_tell_is_told_once() {
        let parts = [part(0, &[90, 70], None), part(0, &[90, 70], None)];
        assert_eq!(told(&parts, &[], usize::MAX), (vec![90, 70], None));
        assert_eq!(told(&parts, &[("limit", "2")], usize::MAX), (vec![90, 70], None));
    }

    #[test]
    fn an_answer_that_would_be_too_large_ends_earlier_but_tells_one_record() {
        let parts = [part(0, &[90, 70], None)];
        assert_eq!(told(&parts, &[], 10), (vec![90], Some("b5a.0.5a".to_owned())));
    }

    #[test]
    fn a_place_is_split_off_as_it_was_written() {
        let mut out = Vec::new();
        RecordWriter::new(Format::Ndjson).record_at(
            &mut out,
            Partition::new(3),
            Offset::new(7),
            b"{\"a\":{}}",
        );
        let line = out.strip_suffix(b"\n").unwrap();
        assert_eq!(split_place(line), Some((Partition::new(3), Offset::new(7), &b"{\"a\":{}}"[..])));
        for bad in ["", "{}", "{\"partition\":x", "{\"partition\":70000,\"offset\":1,\"record\":{}}"] {
            assert_eq!(split_place(bad.as_bytes()), None);
        }
    }
}
