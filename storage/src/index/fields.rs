//! A stored line's fields, found without parsing what is not asked for.
//!
//! The ingest writes every record's fields in the same order and without white space, and what it adds at the end is
//! the same for a whole batch: such a line costs a few comparisons. Any other line is parsed.
//!
//! Invariant: the fields are those that [`EnrichedLine::parse`] finds. That holds for lines that were checked when
//! they came, as stored ones were; of others nothing is promised but that reading them does no harm.

use std::borrow::Cow;

use memchr::memchr;
use model::EnrichedLine;
use model::bytes::{leading_number, plain_prefix_len};
use model::json::{JsonStr, Scanner};

/// A string as it stands between its quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    pub(crate) raw: &'a [u8],
    /// Whether it holds escapes, so that it differs from its decoded form.
    pub(crate) is_escaped: bool,
}

/// The fields of one line that a search asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields<'a> {
    pub(crate) timestamp_ms: u64,
    pub(crate) service: Text<'a>,
    pub(crate) level: Option<Text<'a>>,
    pub(crate) message: Text<'a>,
    /// The text of the labels, an object of strings.
    pub(crate) labels: Option<&'a [u8]>,
}

/// Finds the fields of lines, one after another.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldReader {
    /// What followed the labels of the last line that was in the usual form, up to its end.
    tail: Vec<u8>,
}

impl<'a> Text<'a> {
    /// The string that is meant.
    pub(crate) fn decode(self) -> Cow<'a, [u8]> {
        if !self.is_escaped {
            return Cow::Borrowed(self.raw);
        }
        if let Some(decoded) = without_short_escapes(self.raw) {
            return Cow::Owned(decoded);
        }
        let mut quoted = Vec::with_capacity(self.raw.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(self.raw);
        quoted.push(b'"');
        // It was checked when it came; were it not JSON, its raw form would be as good as any.
        let decoded = std::str::from_utf8(&quoted)
            .ok()
            .and_then(|text| Some(Scanner::new(text).string().ok()?.decode().into_owned().into_bytes()));
        decoded.map_or(Cow::Borrowed(self.raw), Cow::Owned)
    }

    /// The string between the quotes that begin at `start`, and where what follows it begins.
    #[inline]
    fn at(bytes: &'a [u8], start: usize) -> Option<(Self, usize)> {
        let (mut at, mut is_escaped) = (start, false);
        loop {
            at += plain_prefix_len(bytes.get(at..)?);
            match bytes.get(at)? {
                b'"' => return Some((Self { raw: bytes.get(start..at)?, is_escaped }, at + 1)),
                b'\\' => {
                    is_escaped = true;
                    at += 2;
                }
                // A control character, which no line that was checked has.
                _ => return None,
            }
        }
    }
}

impl<'a> From<JsonStr<'a>> for Text<'a> {
    fn from(text: JsonStr<'a>) -> Self {
        Self { raw: text.raw().as_bytes(), is_escaped: text.is_escaped() }
    }
}

/// The message of a line whose first fields have the usual form. Where they have, no other field of that name follows:
/// a line that has one twice is not taken.
pub(crate) fn message_of(line: &[u8]) -> Option<Text<'_>> {
    let (_, at) = digits(line, skip(line, 0, b"{\"timestamp\":")?)?;
    let (_, at) = Text::at(line, skip(line, at, b",\"service\":\"")?)?;
    let at = match skip(line, at, b",\"level\":\"") {
        Some(at) => Text::at(line, at)?.1,
        None => at,
    };
    Some(Text::at(line, skip(line, at, b",\"message\":\"")?)?.0)
}

impl FieldReader {
    /// The fields of the line that begins at `start`, and where its newline is. `None` of the fields when they cannot
    /// be made out; `None` at all when there is no line.
    pub(crate) fn read<'a>(&mut self, bytes: &'a [u8], start: usize) -> Option<(Option<Fields<'a>>, usize)> {
        if let Some((fields, end)) = self.read_usual(bytes, start) {
            return Some((Some(fields), end));
        }
        let rest = bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let length = memchr(b'\n', rest).unwrap_or(rest.len());
        Some((Fields::parse(rest.get(..length)?), start + length))
    }

    /// The fields of one line without its newline.
    pub(crate) fn fields_of<'a>(&mut self, line: &'a [u8]) -> Option<Fields<'a>> {
        match self.read_usual(line, 0) {
            Some((fields, end)) if end == line.len() => Some(fields),
            _ => Fields::parse(line),
        }
    }

    fn read_usual<'a>(&mut self, bytes: &'a [u8], start: usize) -> Option<(Fields<'a>, usize)> {
        let at = skip(bytes, start, b"{\"timestamp\":")?;
        let (timestamp_ms, at) = digits(bytes, at)?;
        let (service, at) = Text::at(bytes, skip(bytes, at, b",\"service\":\"")?)?;
        let (level, at) = match skip(bytes, at, b",\"level\":\"") {
            Some(at) => {
                let (level, at) = Text::at(bytes, at)?;
                (Some(level), at)
            }
            None => (None, at),
        };
        let (message, at) = Text::at(bytes, skip(bytes, at, b",\"message\":\"")?)?;
        let (labels, at) = match skip(bytes, at, b",\"labels\":{") {
            Some(inside) => {
                let end = end_of_labels(bytes, inside)?;
                (bytes.get(inside - 1..end), end)
            }
            None => (None, at),
        };
        let end = self.end_of_tail(bytes, at)?;
        Some((Fields { timestamp_ms, service, level, message, labels }, end))
    }

    /// Where the line ends whose tail begins at `at`, if the tail has the usual form: then no field can hide in it.
    fn end_of_tail(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let rest = bytes.get(at..)?;
        let ends_at = |end: usize| bytes.get(end).is_none_or(|next| *next == b'\n');
        if !self.tail.is_empty() && rest.starts_with(&self.tail) && ends_at(at + self.tail.len()) {
            return Some(at + self.tail.len());
        }
        let (_, end) = digits(bytes, skip(bytes, at, b",\"received_at\":")?)?;
        let (_, end) = Text::at(bytes, skip(bytes, end, b",\"ingested_node_id\":\"")?)?;
        let (_, end) = Text::at(bytes, skip(bytes, end, b",\"client_ip\":\"")?)?;
        let end = skip(bytes, end, b"}")?;
        if !ends_at(end) {
            return None;
        }
        self.tail.clear();
        self.tail.extend_from_slice(bytes.get(at..end)?);
        Some(end)
    }
}

impl<'a> Fields<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = EnrichedLine::parse(line).ok()?;
        Some(Self {
            timestamp_ms: line.timestamp,
            service: line.service.into(),
            level: line.level.map(Text::from),
            message: line.message.into(),
            labels: line.labels.map(str::as_bytes),
        })
    }

    /// The names and values of the labels, in order.
    pub(crate) fn labels(self) -> impl Iterator<Item = (Text<'a>, Text<'a>)> {
        let object = self.labels.unwrap_or_default();
        let mut at = 0;
        // The object holds nothing but strings: whatever lies between two of them is a colon or a comma.
        let mut next = move || {
            let start = at + object.get(at..)?.iter().position(|byte| *byte == b'"')? + 1;
            let (text, end) = Text::at(object, start)?;
            at = end;
            Some(text)
        };
        std::iter::from_fn(move || Some((next()?, next()?)))
    }
}

/// What a string means whose escapes are all of two bytes (RFC 8259 §7), as they usually are.
fn without_short_escapes(raw: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(at);
        decoded.extend_from_slice(plain);
        decoded.push(match escape.get(1)? {
            byte @ (b'"' | b'\\' | b'/') => *byte,
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            _ => return None,
        });
        rest = escape.get(2..)?;
    }
    decoded.extend_from_slice(rest);
    Some(decoded)
}

/// Where what follows `literal` begins, if that is what stands at `at`.
#[inline]
fn skip(bytes: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(literal).then_some(at + literal.len())
}

/// The number that begins at `at`, and where it ends.
#[inline]
fn digits(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let (number, digits) = leading_number(bytes.get(at..)?);
    let end = at + digits;
    // A number that goes on is not a whole one.
    let is_whole = end > at && bytes.get(end) == Some(&b',');
    is_whole.then_some((number, end))
}

/// Where what follows the object begins whose first member begins at `at`, if it is in the usual form.
fn end_of_labels(bytes: &[u8], mut at: usize) -> Option<usize> {
    if let Some(end) = skip(bytes, at, b"}") {
        return Some(end);
    }
    loop {
        let (_, after_name) = Text::at(bytes, skip(bytes, at, b"\"")?)?;
        let (_, after_value) = Text::at(bytes, skip(bytes, after_name, b":\"")?)?;
        match bytes.get(after_value)? {
            b',' => at = after_value + 1,
            b'}' => return Some(after_value + 1),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines that storage takes, in the usual form and in others.
    fn any_line() -> impl Strategy<Value = String> {
        let string = || {
            prop_oneof![
                "[a-z0-9_=\u{e9} ]{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
                any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
                Just(r#""\u0041\"\\\/\n}""#.to_owned()),
                Just(r#"",\"level\":\"X""#.to_owned()),
            ]
        };
        let space = || prop::sample::select(vec!["", "", "", "", " "]);
        let labels = prop::collection::vec((string(), string()), 0..4);
        let members = (
            (0..model::limits::TIMESTAMP_MS_MAX, string(), prop::option::of(string()), string()),
            prop::option::of(labels),
            (0..100_u64, string(), string()),
            prop::option::of((string(), "(null|1\\.5|\\[\\{\\}\\]|\"x\")")),
        );
        (members, any::<bool>(), any::<u64>(), space(), space()).prop_map(
            |(
                ((timestamp, service, level, message), labels, (received, node, ip), other),
                shuffled,
                seed,
                a,
                b,
            )| {
                let mut members =
                    vec![format!("\"timestamp\":{a}{timestamp}"), format!("\"service\":{a}{service}")];
                members.extend(level.map(|level| format!("\"level\":{b}{level}")));
                members.push(format!("\"message\":{a}{message}"));
                members.extend(labels.map(|labels| {
                    let pairs: Vec<_> =
                        labels.iter().map(|(name, value)| format!("{b}{name}:{a}{value}")).collect();
                    format!("\"labels\":{{{}{b}}}", pairs.join(","))
                }));
                members.push(format!("\"received_at\":{received}"));
                members.push(format!("\"ingested_node_id\":{node}"));
                members.push(format!("\"client_ip\":{ip}{a}"));
                members.extend(other.map(|(name, value)| format!("{name}:{value}")));
                if shuffled {
                    let length = members.len() as u64;
                    for place in (1..length).rev() {
                        members.swap(place as usize, (seed.rotate_left(place as u32) % (place + 1)) as usize);
                    }
                }
                format!("{{{}}}", members.join(","))
            },
        )
    }

    proptest! {
        #[test]
        fn the_fields_are_those_that_a_parser_finds(lines in prop::collection::vec(any_line(), 1..6)) {
            let valid: Vec<&String> =
                lines.iter().filter(|line| EnrichedLine::parse(line.as_bytes()).is_ok()).collect();
            let bytes: String = valid.iter().map(|line| format!("{line}\n")).collect();
            let (mut reader, mut at) = (FieldReader::default(), 0);
            for line in valid {
                let expected = Fields::parse(line.as_bytes());
                prop_assert_eq!(reader.fields_of(line.as_bytes()), expected);
                if let Some(message) = message_of(line.as_bytes()) {
                    prop_assert_eq!(Some(message), expected.map(|fields| fields.message));
                }
                let (fields, end) = reader.read(bytes.as_bytes(), at).unwrap();
                prop_assert_eq!(fields, expected, "{}", line);
                prop_assert_eq!(&bytes[at..end], line);
                at = end + 1;
                let parsed = EnrichedLine::parse(line.as_bytes()).unwrap();
                let labels: Vec<(String, String)> = expected
                    .unwrap()
                    .labels()
                    .map(|(name, value)| (name.decode(), value.decode()))
                    .map(|(name, value)| (String::from_utf8_lossy(&name).into_owned(), String::from_utf8_lossy(&value).into_owned()))
                    .collect();
                prop_assert_eq!(labels, labels_by_serde(parsed.labels));
            }
            prop_assert!(reader.read(bytes.as_bytes(), at).is_none());
        }
    }

    fn labels_by_serde(object: Option<&str>) -> Vec<(String, String)> {
        struct Pairs;
        impl<'de> serde::de::Visitor<'de> for Pairs {
            type Value = Vec<(String, String)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        let mut deserializer = serde_json::Deserializer::from_str(object.unwrap_or("{}"));
        serde::Deserializer::deserialize_map(&mut deserializer, Pairs).unwrap()
    }

    #[test]
    fn a_field_that_hides_behind_the_usual_ones_is_found() {
        let tail = r#""received_at":2,"ingested_node_id":"n","client_ip":"i""#;
        for line in [
            format!(r#"{{"timestamp":1,"service":"a","message":"m",{tail},"level":"X"}}"#),
            format!(r#"{{"timestamp":1,"service":"a","message":"m","level":"X",{tail}}}"#),
            format!(
                r#"{{"timestamp":1,"service":"a","message":"m",{tail},"labels":{{"k":"v"}},"level":"X"}}"#
            ),
        ] {
            let mut reader = FieldReader::default();
            let fields = reader.fields_of(line.as_bytes()).unwrap();
            assert_eq!(fields.level.map(|level| level.raw), Some(&b"X"[..]), "{line}");
        }
    }
}
