//! A run of characters of one kind, without which a message cannot match, and where in stored bytes there is one.
//!
//! Of so long a run a few bytes stand at every so-many-th place: the others need not be looked at.
//!
//! Invariant: a line that is no candidate has no message that contains the run. JSON may write any character as
//! `\uXXXX`, so a line with such an escape always is one.

use std::ops::Range;

use memchr::memchr;
use memchr::memmem::Finder;
use regex_syntax::hir::Class;

use super::needle::{line_around, lines};

/// Shorter runs leave too many lines.
const LENGTH_MIN: usize = 5;

/// In runs of at least this length three bytes are looked at a time, else two.
const LENGTH_OF_THREE: usize = 9;

/// Kinds with more characters of ASCII than this are in every line.
const CHARACTERS_MAX: usize = 70;

/// A run that every match contains.
#[derive(Clone, Debug)]
pub(super) struct Run {
    is_in: [bool; 256],
    length: usize,
    escape: Finder<'static>,
}

impl Run {
    /// The run of at least so many characters of a class; `None` when it is of no use.
    pub(super) fn of_class(class: &Class, length: usize) -> Option<Self> {
        let mut is_in = [false; 256];
        let ranges: Vec<(u32, u32)> = match class {
            Class::Unicode(class) => {
                class.iter().map(|range| (range.start().into(), range.end().into())).collect()
            }
            Class::Bytes(class) => {
                class.iter().map(|range| (range.start().into(), range.end().into())).collect()
            }
        };
        for (byte, is_in) in (0_u32..).zip(&mut is_in) {
            // A character beyond ASCII is of several such bytes, each of which may be any of them.
            *is_in = ranges
                .iter()
                .any(|(start, end)| if byte < 0x80 { (*start..=*end).contains(&byte) } else { *end >= 0x80 });
        }
        let has_escaped =
            (0_u8..0x20).chain(*b"\"\\/").any(|byte| is_in.get(usize::from(byte)) == Some(&true));
        let characters = is_in.iter().take(0x80).filter(|is_in| **is_in).count();
        let is_useful = length >= LENGTH_MIN && characters <= CHARACTERS_MAX && !has_escaped;
        is_useful.then(|| Self { is_in, length, escape: Finder::new("\\u").into_owned() })
    }

    /// How long it is at least.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The lines of a batch whose message could contain the run, in order, without their newlines.
    pub(super) fn candidates(&self, batch: &[u8]) -> Vec<Range<usize>> {
        // Most batches have no backslash at all, which is found out faster than where there are two bytes.
        if memchr(b'\\', batch).is_none() || self.escape.find(batch).is_none() {
            return self.lines_with_run(batch);
        }
        let may_match = |line: &Range<usize>| {
            let line = batch.get(line.clone()).unwrap_or_default();
            self.escape.find(line).is_some() || !self.lines_with_run(line).is_empty()
        };
        lines(batch).filter(may_match).collect()
    }

    fn lines_with_run(&self, batch: &[u8]) -> Vec<Range<usize>> {
        let is_in = |byte: &u8| self.is_in.get(usize::from(*byte)).copied().unwrap_or_default();
        let mut found = Vec::new();
        // A few neighbours at once: one alone is of the kind so often that the processor cannot guess it, and stumbles.
        let neighbours = if self.length < LENGTH_OF_THREE { 2 } else { 3 };
        let mut at = self.length - 1;
        while let Some(looked_at) = batch.get(at + 1 - neighbours..=at) {
            if !looked_at.iter().fold(true, |all, byte| all & is_in(byte)) {
                // Of a run as many places as this have all these neighbours in it.
                at += self.length + 1 - neighbours;
                continue;
            }
            // No newline is in the run: it stays on its line.
            let (before, behind) = batch.split_at_checked(at).unwrap_or_default();
            let start = before.iter().rposition(|byte| !is_in(byte)).map_or(0, |last| last + 1);
            let end = at + behind.iter().position(|byte| !is_in(byte)).unwrap_or(behind.len());
            let mut next = end;
            if end - start >= self.length {
                let line = line_around(batch, at);
                next = line.end;
                found.push(line);
            }
            at = next + self.length;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pattern::Pattern;
    use super::LENGTH_MIN;

    #[test]
    fn a_run_is_found_in_what_matches_and_not_in_what_is_too_short() {
        let pattern = Pattern::new("x?[a-f]{6,}").unwrap();
        let run = pattern.run.as_ref().unwrap();
        let batch = b"abcde\nabcdef\n--abcdefa--\nabcabc abcab\nabcdeg\nfffff\n\\u0061\n";
        let lines: Vec<&[u8]> = run.candidates(batch).into_iter().map(|line| &batch[line]).collect();
        let expected: [&[u8]; 4] = [b"abcdef", b"--abcdefa--", b"abcabc abcab", b"\\u0061"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_run_is_found_wherever_it_begins_and_however_long_it_is() {
        for length in LENGTH_MIN..20 {
            let pattern = Pattern::new(&format!("[a-f]{{{length}}}")).unwrap();
            let run = pattern.run.as_ref().unwrap();
            for before in 0..3 * length {
                for count in length - 2..length + 4 {
                    // What comes before has runs of its own, each too short.
                    let filler: String = "abxcdey-".chars().cycle().take(before).collect();
                    let line = format!("{filler}-{}-{filler}", "f".repeat(count));
                    let found = run.candidates(line.as_bytes());
                    assert_eq!(!found.is_empty(), count >= length, "{length}: {line}");
                }
            }
        }
    }

    #[test]
    fn only_what_every_match_has_is_a_run() {
        for (pattern, length) in [
            ("[a-f]{13}", Some(13)),
            (r"(?:id=)?(\d{8})", Some(8)),
            ("[a-f]{6}[0-9]{9}", Some(9)),
            ("[a-f]{4}", None),
            ("(?:[a-f]{13})?", None),
            ("[a-f]{13}|x", None),
            (".{13}", None),
            (r"[^a]{13}", None),
            (r"[a/]{13}", None),
            (r"\w{13}", Some(13)),
        ] {
            let run = Pattern::new(pattern).unwrap().run;
            assert_eq!(run.map(|run| run.length()), length, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_line_that_matches_is_passed_over(
            messages in prop::collection::vec("[ab0\u{e9}\u{663} ]{0,24}", 1..8),
            escaped in prop::collection::vec(any::<bool>(), 8),
            pattern in prop::sample::select(vec!["[ab]{5}", r"\d{5,}", r"\w{7}", "(?i)[A-B]{6}", "(?:[ab0]{5} )+"]),
        ) {
            let pattern = Pattern::new(pattern).unwrap();
            let run = pattern.run.as_ref().unwrap();
            let (mut batch, mut expected) = (String::new(), Vec::new());
            for (message, is_escaped) in messages.iter().zip(escaped) {
                let start = batch.len();
                batch.push('"');
                if is_escaped {
                    batch.extend(message.encode_utf16().map(|unit| format!("\\u{unit:04x}")));
                } else {
                    batch.push_str(message);
                }
                batch.push('"');
                if pattern.is_match(message.as_bytes()) {
                    expected.push(start..batch.len());
                }
                batch.push('\n');
            }
            let found = run.candidates(batch.as_bytes());
            prop_assert!(expected.iter().all(|line| found.contains(line)), "{batch:?} {found:?}");
            prop_assert!(found.is_sorted_by(|a, b| a.end < b.start));
        }
    }
}
