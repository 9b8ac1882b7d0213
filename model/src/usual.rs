//! Lines as edgelog's ingest writes them: the fields in the contract's order, and nothing between the tokens.
//!
//! Nearly all lines that storage gets are such lines. They are compared with what is expected, which is several times
//! as fast as finding out what is there. Invariant: a line that is taken here is an enriched record to
//! [`crate::line`] too, with the same timestamp; whatever is otherwise is left to that.

use crate::json::plain_prefix_len;
use crate::limits;

/// A line that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UsualLine {
    /// When it happened, Unix milliseconds.
    pub(crate) timestamp: u64,
    /// Its bytes, without the newline.
    pub(crate) length: usize,
}

/// The line at the start of `text`, which is UTF-8, up to its newline or the text's end; `None` when it is not one of
/// the usual.
pub(crate) fn usual_line(text: &[u8]) -> Option<UsualLine> {
    let mut cursor = Cursor { rest: text };
    cursor.literal(b"{\"timestamp\":")?;
    let timestamp = cursor.milliseconds()?;
    cursor.literal(b",\"service\":\"")?;
    cursor.string_end()?;
    if cursor.literal(b",\"level\":\"").is_some() {
        cursor.string_end()?;
    }
    cursor.literal(b",\"message\":\"")?;
    cursor.string_end()?;
    if cursor.literal(b",\"labels\":{").is_some() {
        cursor.labels_end()?;
    }
    cursor.literal(b",\"received_at\":")?;
    cursor.milliseconds()?;
    cursor.literal(b",\"ingested_node_id\":\"")?;
    cursor.string_end()?;
    cursor.literal(b",\"client_ip\":\"")?;
    cursor.string_end()?;
    cursor.literal(b"}")?;
    let length = text.len() - cursor.rest.len();
    let is_whole = matches!(cursor.rest.first(), None | Some(b'\n')) && length <= limits::RECORD_BYTES_MAX;
    is_whole.then_some(UsualLine { timestamp, length })
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    #[inline]
    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(literal)?;
        Some(())
    }

    /// Passes the rest of a string and its closing quote.
    #[inline]
    fn string_end(&mut self) -> Option<()> {
        loop {
            let special = self.rest.get(plain_prefix_len(self.rest)..)?;
            match special {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Some(());
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => {
                    self.rest = rest
                }
                [b'\\', b'u', a, b, c, d, rest @ ..]
                    if [a, b, c, d].iter().all(|x| x.is_ascii_hexdigit()) =>
                {
                    self.rest = rest;
                }
                _ => return None,
            }
        }
    }

    /// Passes the members of an object of strings and its closing brace.
    #[inline]
    fn labels_end(&mut self) -> Option<()> {
        if self.literal(b"}").is_some() {
            return Some(());
        }
        loop {
            self.literal(b"\"")?;
            self.string_end()?;
            self.literal(b":\"")?;
            self.string_end()?;
            match self.rest {
                [b',', rest @ ..] => self.rest = rest,
                [b'}', rest @ ..] => {
                    self.rest = rest;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Passes whole Unix milliseconds.
    #[inline]
    fn milliseconds(&mut self) -> Option<u64> {
        let mut number: u64 = 0;
        let mut digits = 0;
        while let Some((digit @ b'0'..=b'9', rest)) = self.rest.split_first() {
            // More than the limit has: saturated, it stays beyond it.
            number = number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
            digits += 1;
            self.rest = rest;
            if number == 0 {
                break;
            }
        }
        (digits > 0 && number <= limits::TIMESTAMP_MS_MAX).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::line::EnrichedLine;

    const WHOLE: &str = r#"{"timestamp":1,"service":"a","level":"INFO","message":"m\n\u00e9","labels":{"k":"v","l":""},"received_at":2,"ingested_node_id":"n","client_ip":"::1"}"#;

    fn taken(text: &str) -> Option<u64> {
        usual_line(text.as_bytes()).map(|line| line.timestamp)
    }

    #[test]
    fn a_line_as_the_ingest_writes_it_is_taken_to_its_newline() {
        assert_eq!(usual_line(WHOLE.as_bytes()), Some(UsualLine { timestamp: 1, length: WHOLE.len() }));
        let two = format!("{WHOLE}\n{WHOLE}\n");
        assert_eq!(usual_line(two.as_bytes()), Some(UsualLine { timestamp: 1, length: WHOLE.len() }));
        let without_level = WHOLE.replace(r#""level":"INFO","#, "");
        let without_labels = WHOLE.replace(r#""labels":{"k":"v","l":""},"#, "");
        let empty_labels = WHOLE.replace(r#"{"k":"v","l":""}"#, "{}");
        let last = WHOLE.replace(":1,", &format!(":{},", limits::TIMESTAMP_MS_MAX));
        for text in [without_level, without_labels, empty_labels, last, WHOLE.replace(":1,", ":0,")] {
            assert!(taken(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn every_line_that_is_cut_or_altered_is_judged_as_the_careful_parser_does() {
        let alterations =
            ["", "0", "\"", "\\", "}", ",", " ", "\n", "\u{1}", "é", "{", "null", "99999999999999999999"];
        for place in 0..=WHOLE.len() {
            for removed in 0..3 {
                for inserted in alterations {
                    let Some(after) = WHOLE.get(place + removed..) else { continue };
                    judged_alike(&format!("{}{inserted}{after}", &WHOLE[..place]));
                }
            }
            judged_alike(&WHOLE[..place]);
        }
    }

    fn judged_alike(text: &str) {
        let line = text.split('\n').next().unwrap_or_default();
        if let Some(usual) = usual_line(text.as_bytes()) {
            assert_eq!(usual.length, line.len(), "{text}");
            let careful = EnrichedLine::parse_str(line);
            assert_eq!(careful.map(|record| record.timestamp), Ok(usual.timestamp), "{text}");
        }
    }

    proptest! {
        #[test]
        fn records_of_any_text_are_taken(timestamp in 0..=limits::TIMESTAMP_MS_MAX, texts in prop::array::uniform5(any::<String>())) {
            let [service, message, key, value, node] = texts.map(|text| serde_json::to_string(&text).unwrap());
            let line = format!(
                "{{\"timestamp\":{timestamp},\"service\":{service},\"message\":{message},\"labels\":{{{key}:{value}}},\"received_at\":0,\"ingested_node_id\":{node},\"client_ip\":\"\"}}"
            );
            prop_assert_eq!(taken(&line), Some(timestamp));
            judged_alike(&line);
        }
    }
}
