//! Records as programs write them as a rule, and lines as edgelog's ingest writes them: the fields in the contract's
//! order, and nothing between the tokens.
//!
//! Nearly all that arrives is such. It is compared with what is expected, which is several times as fast as finding
//! out what is there. Invariant: a line that is taken here is an enriched record to [`crate::line`] too, with the same
//! timestamp, and a record that is taken here is one JSON object to [`crate::json`]; whatever is otherwise is left to
//! those.

use crate::bytes;
use crate::json::JsonStr;
use crate::limits;

/// Labels that a usual record has at most: their names are compared each with each.
const LABELS_MAX: usize = 8;

/// A line that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UsualLine {
    /// When it happened, Unix milliseconds.
    pub(crate) timestamp: u64,
    /// Its bytes, without the newline.
    pub(crate) length: usize,
}

/// A client's record that can be stored as it is: all that the contract asks for is there, within the limits, the
/// labels are strings under different names, and there is nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsualRecord<'a> {
    /// Its text, braces included.
    pub text: &'a str,
    /// What logged it: neither empty nor escaped.
    pub service: JsonStr<'a>,
}

/// What the ingest added to the line before, from its comma to the closing brace: the same for all records of a
/// request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tail<'a>(&'a str);

/// The line at the start of `text`, up to its newline or the text's end; `None` when it is not one of the usual.
#[inline]
pub(crate) fn usual_line<'a>(text: &'a str, tail: &mut Tail<'a>) -> Option<UsualLine> {
    let mut cursor = Cursor { text, position: 0 };
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
        cursor.members_end(|_name| Some(()))?;
    }
    cursor.tail(tail)?;
    let length = cursor.position;
    let is_whole = matches!(cursor.rest().first(), None | Some(b'\n')) && length <= limits::RECORD_BYTES_MAX;
    is_whole.then_some(UsualLine { timestamp, length })
}

/// The record at the start of `text`, whatever follows it; `None` when it is not one of the usual.
#[inline]
pub fn usual_record(text: &str) -> Option<UsualRecord<'_>> {
    let mut cursor = Cursor { text, position: 0 };
    cursor.literal(b"{\"timestamp\":")?;
    cursor.milliseconds()?;
    cursor.literal(b",\"service\":\"")?;
    let service = cursor.string_end()?;
    if service.is_escaped() || !(1..=limits::SERVICE_BYTES_MAX).contains(&service.raw().len()) {
        return None;
    }
    if cursor.literal(b",\"level\":\"").is_some()
        && cursor.string_end()?.raw().len() > limits::LEVEL_BYTES_MAX
    {
        return None;
    }
    cursor.literal(b",\"message\":\"")?;
    cursor.string_end()?;
    if cursor.literal(b",\"labels\":{").is_some() {
        cursor.different_members_end()?;
    }
    cursor.literal(b"}")?;
    let text = text.get(..cursor.position).filter(|text| text.len() <= limits::RECORD_BYTES_MAX)?;
    Some(UsualRecord { text, service })
}

struct Cursor<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.position..).unwrap_or_default()
    }

    #[inline(always)]
    fn literal<const N: usize>(&mut self, literal: &[u8; N]) -> Option<()> {
        if !bytes::equal(self.rest().first_chunk::<N>()?, literal) {
            return None;
        }
        self.position += N;
        Some(())
    }

    /// Passes what the ingest added, and remembers it.
    #[inline]
    fn tail(&mut self, known: &mut Tail<'a>) -> Option<()> {
        let start = self.position;
        let expected = known.0.as_bytes();
        if !expected.is_empty()
            && bytes::equal(self.rest().get(..expected.len()).unwrap_or_default(), expected)
        {
            self.position += expected.len();
            return Some(());
        }
        self.literal(b",\"received_at\":")?;
        self.milliseconds()?;
        self.literal(b",\"ingested_node_id\":\"")?;
        self.string_end()?;
        self.literal(b",\"client_ip\":\"")?;
        self.string_end()?;
        self.literal(b"}")?;
        *known = Tail(self.text.get(start..self.position)?);
        Some(())
    }

    /// Passes the rest of a string and its closing quote.
    #[inline]
    fn string_end(&mut self) -> Option<JsonStr<'a>> {
        let start = self.position;
        let mut escaped = false;
        loop {
            self.position += bytes::plain_prefix_len(self.rest());
            match self.rest() {
                [b'"', ..] => {
                    let raw = self.text.get(start..self.position)?;
                    self.position += 1;
                    return Some(JsonStr::from_raw(raw, escaped));
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.position += 2,
                [b'\\', b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|x| x.is_ascii_hexdigit()) => {
                    self.position += 6;
                }
                _ => return None,
            }
            escaped = true;
        }
    }

    /// Passes the members of an object of strings and its closing brace; `name` may refuse.
    #[inline]
    fn members_end(&mut self, mut name: impl FnMut(JsonStr<'a>) -> Option<()>) -> Option<()> {
        if self.literal(b"}").is_some() {
            return Some(());
        }
        loop {
            self.literal(b"\"")?;
            name(self.string_end()?)?;
            self.literal(b":\"")?;
            self.string_end()?;
            match self.rest().first()? {
                b',' => self.position += 1,
                b'}' => {
                    self.position += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Passes the members of an object of strings, under different names that need no look, and its closing brace.
    #[inline]
    fn different_members_end(&mut self) -> Option<()> {
        let mut names = [""; LABELS_MAX];
        let mut count = 0;
        self.members_end(|name| {
            let raw = name.raw();
            let is_known =
                names.get(..count)?.iter().any(|known| bytes::equal(known.as_bytes(), raw.as_bytes()));
            if is_known || name.is_escaped() || raw.len() > limits::LABEL_NAME_BYTES_MAX {
                return None;
            }
            *names.get_mut(count)? = raw;
            count += 1;
            Some(())
        })
    }

    /// Passes whole Unix milliseconds.
    #[inline]
    fn milliseconds(&mut self) -> Option<u64> {
        let rest = self.rest();
        let (number, digits) = bytes::leading_number(rest);
        self.position += digits;
        // JSON has no leading zeros. A number that is longer still goes on here, and what follows it is not there.
        let is_json = digits == 1 || rest.first() != Some(&b'0');
        (digits > 0 && is_json && number <= limits::TIMESTAMP_MS_MAX).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::{Scanner, Value};
    use crate::line::EnrichedLine;

    const WHOLE: &str = r#"{"timestamp":1,"service":"a","level":"INFO","message":"m\n\u00e9","labels":{"k":"v","l":""},"received_at":2,"ingested_node_id":"n","client_ip":"::1"}"#;

    fn taken(text: &str) -> Option<u64> {
        usual_line(text, &mut Tail::default()).map(|line| line.timestamp)
    }

    #[test]
    fn a_line_as_the_ingest_writes_it_is_taken_to_its_newline() {
        assert_eq!(
            usual_line(WHOLE, &mut Tail::default()),
            Some(UsualLine { timestamp: 1, length: WHOLE.len() })
        );
        let two = format!("{WHOLE}\n{WHOLE}\n");
        let first = usual_line(&two, &mut Tail::default());
        assert_eq!(first, Some(UsualLine { timestamp: 1, length: WHOLE.len() }));
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

    const RECORD: &str =
        r#"{"timestamp":1,"service":"a","level":"INFO","message":"m\n\u00e9","labels":{"k":"v","l":""}}"#;

    #[test]
    fn a_record_is_taken_to_its_end_whatever_follows() {
        for rest in ["", ",{}", "]", "\n"] {
            let text = format!("{RECORD}{rest}");
            let usual = usual_record(&text).unwrap();
            assert_eq!((usual.text, usual.service.raw()), (RECORD, "a"));
        }
        let long = |bytes: usize| RECORD.replace(r#""a""#, &format!("\"{}\"", "a".repeat(bytes)));
        assert!(usual_record(&long(limits::SERVICE_BYTES_MAX)).is_some());
        let labels = |count: usize| {
            let labels: Vec<_> = (0..count).map(|n| format!("\"{n}\":\"\"")).collect();
            RECORD.replace(r#""k":"v","l":"""#, &labels.join(","))
        };
        assert!(usual_record(&labels(LABELS_MAX)).is_some() && usual_record(&labels(0)).is_some());
        let not_usual = [
            long(limits::SERVICE_BYTES_MAX + 1),
            long(0),
            labels(LABELS_MAX + 1),
            RECORD.replace("INFO", &"I".repeat(limits::LEVEL_BYTES_MAX + 1)),
            RECORD.replace(r#""a""#, r#""\u0061""#),
            RECORD.replace(r#""l":"""#, r#""k":"""#),
            RECORD.replace(r#""l":"""#, r#""\u006b":"""#),
            RECORD.replace(r#""v""#, "1"),
            RECORD.replace("\"k\"", &format!("\"{}\"", "k".repeat(limits::LABEL_NAME_BYTES_MAX + 1))),
            RECORD.replace("m\\n", &"m".repeat(limits::RECORD_BYTES_MAX)),
            RECORD.replace(":1,", &format!(":{},", limits::TIMESTAMP_MS_MAX + 1)),
        ];
        for text in not_usual {
            assert_eq!(usual_record(&text), None, "{}", text.get(..200).unwrap_or(&text));
        }
    }

    #[test]
    fn every_record_that_is_cut_or_altered_and_taken_is_one_object() {
        for place in 0..=RECORD.len() {
            for removed in 0..3 {
                for inserted in ["", "0", "\"", "\\", "}", ",", " ", "\n", "\u{1}", "é", "{", "null"] {
                    let Some(after) = RECORD.get(place + removed..) else { continue };
                    let text = format!("{}{inserted}{after}", &RECORD[..place]);
                    let Some(usual) = usual_record(&text) else { continue };
                    let mut scanner = Scanner::new(&text);
                    assert!(matches!(scanner.value(), Ok(Value::Object(_))), "{text}");
                    assert_eq!(scanner.position(), usual.text.len(), "{text}");
                }
            }
        }
    }

    fn judged_alike(text: &str) {
        let line = text.split('\n').next().unwrap_or_default();
        // The line before may have had the same tail.
        let tails = ["", r#","received_at":2,"ingested_node_id":"n","client_ip":"::1"}"#];
        let judged = tails.map(|tail| usual_line(text, &mut Tail(tail)));
        for usual in judged.into_iter().flatten() {
            assert_eq!(usual.length, line.len(), "{text}");
            let careful = EnrichedLine::parse_str(line);
            assert_eq!(careful.map(|record| record.timestamp), Ok(usual.timestamp), "{text}");
        }
        assert_eq!(judged[0], judged[1], "{text}");
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
