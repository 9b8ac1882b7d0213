//! The newest records of several nodes: a merge by timestamp of what each gives newest first.
//!
//! Pure. Invariant: a node's own order is kept; between nodes the greater timestamp comes first, then the node that
//! stands first. Where older records of a node were cut off, the merge ends, so that none is passed over.

use model::EnrichedLine;

use super::writer::lines;

/// One node's records, the newest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// One a line.
    pub(super) lines: &'a [u8],
    /// Whether there are older ones that were cut off.
    pub(super) is_cut: bool,
}

/// The merged records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged<'a> {
    /// Without their newlines, the newest first.
    pub(super) lines: Vec<&'a [u8]>,
    /// The answer would have been larger than it may be.
    pub(super) is_cut: bool,
    /// The places of sources that gave something which is no record; nothing behind that was used.
    pub(super) garbled: Vec<usize>,
}

struct Head<'a, I> {
    rest: I,
    next: Option<(u64, &'a [u8])>,
    place: usize,
    is_cut: bool,
}

/// Merges until there are `limit` records, or `bytes_max` bytes.
pub(super) fn merge<'a>(sources: &[Source<'a>], limit: usize, bytes_max: usize) -> Merged<'a> {
    let mut merged = Merged::default();
    let mut heads: Vec<_> = sources
        .iter()
        .enumerate()
        .map(|(place, source)| Head { rest: lines(source.lines), next: None, place, is_cut: source.is_cut })
        .collect();
    for head in &mut heads {
        head.advance(&mut merged.garbled);
    }
    let mut bytes = 0;
    while merged.lines.len() < limit {
        // Of equal timestamps the last in reverse, which is the first.
        let newest = heads.iter_mut().rev().max_by_key(|head| head.next.map(|(timestamp, _)| timestamp));
        let Some(head) = newest else { break };
        let Some((_, line)) = head.next else { break };
        bytes += line.len() + 1;
        if bytes > bytes_max {
            merged.is_cut = true;
            break;
        }
        merged.lines.push(line);
        head.advance(&mut merged.garbled);
        if head.next.is_none() && head.is_cut && merged.lines.len() < limit {
            merged.is_cut = true;
            break;
        }
    }
    merged
}

impl<'a, I: Iterator<Item = &'a [u8]>> Head<'a, I> {
    fn advance(&mut self, garbled: &mut Vec<usize>) {
        self.next = None;
        let Some(line) = self.rest.next() else { return };
        match EnrichedLine::parse(line) {
            Ok(record) => self.next = Some((record.timestamp, line)),
            Err(_) => garbled.push(self.place),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines of a source with these timestamps; `name` tells them apart.
    fn text(name: &str, timestamps: &[u64]) -> String {
        let line = |(n, ms): (usize, &u64)| {
            format!(
                "{{\"timestamp\":{ms},\"service\":\"s\",\"message\":\"{name}{n}\",\"received_at\":1,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"}}\n"
            )
        };
        timestamps.iter().enumerate().map(line).collect()
    }

    fn messages(merged: &Merged<'_>) -> Vec<String> {
        let message = |line: &&[u8]| EnrichedLine::parse(line).unwrap().message.decode().into_owned();
        merged.lines.iter().map(message).collect()
    }

    fn sources(texts: &[String]) -> Vec<Source<'_>> {
        texts.iter().map(|text| Source { lines: text.as_bytes(), is_cut: false }).collect()
    }

    #[test]
    fn the_newest_come_first_and_each_source_keeps_its_order() {
        let texts = [text("a", &[9, 5, 7]), text("b", &[9, 6]), String::new()];
        let merged = merge(&sources(&texts), 10, 10_000);
        assert_eq!(messages(&merged), ["a0", "b0", "b1", "a1", "a2"]);
        assert!(!merged.is_cut && merged.garbled.is_empty());
        assert_eq!(messages(&merge(&sources(&texts), 2, 10_000)), ["a0", "b0"]);
        assert!(merge(&sources(&texts), 0, 10_000).lines.is_empty());
    }

    #[test]
    fn the_merge_ends_where_a_source_was_cut_off() {
        let texts = [text("a", &[9, 5]), text("b", &[8, 4, 3])];
        let mut sources = sources(&texts);
        sources[0].is_cut = true;
        let merged = merge(&sources, 10, 10_000);
        assert_eq!(messages(&merged), ["a0", "b0", "a1"]);
        assert!(merged.is_cut);
        // What was wanted is there: nothing is lacking.
        assert!(!merge(&sources, 3, 10_000).is_cut);
    }

    #[test]
    fn the_answer_is_bounded_in_bytes() {
        let texts = [text("a", &[9, 5])];
        let one = texts[0].find('\n').unwrap() + 1;
        let merged = merge(&sources(&texts), 10, one);
        assert_eq!((messages(&merged), merged.is_cut), (vec!["a0".to_owned()], true));
        assert!(!merge(&sources(&texts), 10, 2 * one).is_cut);
    }

    #[test]
    fn garbage_ends_its_source_and_is_told() {
        let texts = [format!("{}garbage\n{}", text("a", &[9]), text("x", &[9])), text("b", &[8])];
        let merged = merge(&sources(&texts), 10, 10_000);
        assert_eq!((messages(&merged), merged.garbled), (vec!["a0".to_owned(), "b0".to_owned()], vec![0]));
    }

    proptest! {
        #[test]
        fn sorted_sources_make_a_sorted_whole(mut sets in prop::collection::vec(prop::collection::vec(0u64..50, 0..8), 0..5)) {
            for set in &mut sets {
                set.sort_unstable_by(|a, b| b.cmp(a));
            }
            let texts: Vec<_> = sets.iter().map(|set| text("m", set)).collect();
            let merged = merge(&sources(&texts), usize::MAX, usize::MAX);
            let got: Vec<_> = merged.lines.iter().map(|line| EnrichedLine::parse(line).unwrap().timestamp).collect();
            let mut expected = sets.concat();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(got, expected);
        }
    }
}
