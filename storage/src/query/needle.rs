//! A literal to find in decoded messages, and where in stored bytes it is worth looking.
//!
//! Invariant: a line that [`Needle::may_match`] denies has no message that contains the literal. JSON may write any
//! character as `\uXXXX`, so a line with such an escape is always worth a look.

use std::ops::Range;

use memchr::memmem::Finder;
use memchr::{memchr, memrchr};

/// A literal to find.
#[derive(Clone, Debug)]
pub struct Needle {
    text: String,
    finder: Finder<'static>,
    /// Whether the literal can stand in JSON as it is: not if it has a character that JSON must escape.
    verbatim: bool,
    /// Byte sequences without which no character of the literal can stand escaped.
    escapes: Vec<Finder<'static>>,
}

impl Needle {
    /// The needle of this text.
    pub fn new(text: &str) -> Self {
        let must_escape = text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
        let escapes: &[&str] = if must_escape {
            &["\\"]
        } else if text.contains('/') {
            // The one character that has a short escape and needs none.
            &["\\u", "\\/"]
        } else {
            &["\\u"]
        };
        Self {
            text: text.to_owned(),
            finder: Finder::new(text).into_owned(),
            verbatim: !must_escape,
            escapes: escapes.iter().map(|escape| Finder::new(escape).into_owned()).collect(),
        }
    }

    /// The literal.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The literal's bytes.
    pub fn length(&self) -> usize {
        self.text.len()
    }

    /// Where the literal is in a decoded text.
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        self.finder.find(text)
    }

    /// How often the literal stands in these stored bytes, as far as `max`.
    pub fn count(&self, bytes: &[u8], max: usize) -> usize {
        self.finder.find_iter(bytes).take(max).count()
    }

    /// Whether a message in these stored bytes could contain the literal.
    pub fn may_match(&self, bytes: &[u8]) -> bool {
        (self.verbatim && self.finder.find(bytes).is_some()) || self.may_be_escaped(bytes)
    }

    /// The lines of a batch whose message could contain the literal, in order, without their newlines.
    pub fn candidates(&self, batch: &[u8]) -> Vec<Range<usize>> {
        if self.may_be_escaped(batch) {
            return lines(batch)
                .filter(|line| batch.get(line.clone()).is_some_and(|l| self.may_match(l)))
                .collect();
        }
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(hit) =
            batch.get(from..).filter(|_| self.verbatim).and_then(|rest| self.finder.find(rest))
        {
            let line = line_around(batch, from + hit);
            from = line.end + 1;
            found.push(line);
        }
        found
    }

    fn may_be_escaped(&self, bytes: &[u8]) -> bool {
        // Most batches have no backslash at all, which is found out faster than where there are two bytes.
        let first = memchr(b'\\', bytes).and_then(|first| bytes.get(first..));
        first.is_some_and(|rest| self.escapes.iter().any(|escape| escape.find(rest).is_some()))
    }
}

/// The lines of a batch, in order, without their newlines.
pub(super) fn lines(batch: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = batch.get(start..).filter(|rest| !rest.is_empty())?;
        let end = start + memchr(b'\n', rest).unwrap_or(rest.len());
        let line = start..end;
        start = end + 1;
        Some(line)
    })
}

/// The line that holds `position`, without its newline.
pub(super) fn line_around(batch: &[u8], position: usize) -> Range<usize> {
    let (before, after) = batch.split_at_checked(position).unwrap_or((batch, &[]));
    let start = memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    let end = memchr(b'\n', after).map_or(batch.len(), |newline| position + newline);
    start..end
}

#[cfg(test)]
mod tests {
    use model::json::{JsonStr, Scanner};
    use proptest::prelude::*;

    use super::*;

    fn decoded(json: &str) -> JsonStr<'_> {
        Scanner::new(json).string().unwrap()
    }

    fn is_in(needle: &Needle, json: &str) -> bool {
        needle.find(decoded(json).decode().as_bytes()).is_some()
    }

    #[test]
    fn a_literal_is_found_however_json_writes_it() {
        for (text, json) in [
            ("abc", r#""xabcx""#),
            ("abc", r#""\u0061bc""#),
            ("a/b", r#""a\/b""#),
            ("a\"b", r#""a\"b""#),
            ("a\\b", r#""a\\b""#),
            ("a\nb", r#""a\nb""#),
            ("\u{1}", r#""\u0001""#),
            ("é", r#""\u00e9""#),
            ("😀", r#""\ud83d\ude00""#),
            ("\u{fffd}", r#""\ud800""#),
        ] {
            let needle = Needle::new(text);
            assert!(needle.may_match(json.as_bytes()), "{text} {json}");
            assert!(is_in(&needle, json), "{text} {json}");
            let whole = vec![Range { start: 0, end: json.len() }];
            assert_eq!(needle.candidates(json.as_bytes()), whole, "{text} {json}");
        }
    }

    #[test]
    fn an_escape_is_not_its_letters() {
        let json = r#""line\nend""#;
        assert!(Needle::new("nend").may_match(json.as_bytes()));
        assert!(!is_in(&Needle::new("nend"), json));
    }

    #[test]
    fn each_candidate_line_is_named_once() {
        let batch = b"aa\nb\naaa\n";
        assert_eq!(Needle::new("a").candidates(batch), [0..2, 5..8]);
        assert_eq!(Needle::new("b").candidates(batch), vec![Range { start: 3, end: 4 }]);
    }

    proptest! {
        #[test]
        fn no_line_that_matches_is_passed_over(
            messages in proptest::collection::vec("[ab/\"\\\\\u{e9}\n]{0,6}", 1..8),
            escape_all: bool,
            text in "[ab/\"\\\\\u{e9}\n]{1,2}",
        ) {
            let needle = Needle::new(&text);
            let mut batch = String::new();
            let mut expected = Vec::new();
            for message in &messages {
                let start = batch.len();
                if escape_all {
                    batch.push('"');
                    batch.extend(message.encode_utf16().map(|unit| format!("\\u{unit:04x}")));
                    batch.push('"');
                } else {
                    batch.push_str(&serde_json::to_string(message).unwrap());
                }
                if message.contains(&text) {
                    expected.push(start..batch.len());
                }
                batch.push('\n');
            }
            let mut found = needle.candidates(batch.as_bytes());
            found.retain(|line| is_in(&needle, &batch[line.clone()]));
            prop_assert_eq!(found, expected);
        }
    }
}
