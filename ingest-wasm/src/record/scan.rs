//! Walks a record's text once and notes where its fields are. It judges nothing but the JSON.

use model::json::{JsonError, JsonStr, Scanner, Value};

/// A record's fields, as slices of its text.
#[derive(Clone, Debug, Default)]
pub struct Scanned<'a> {
    /// The text, braces included.
    pub(super) text: &'a str,
    /// There is no white space between its tokens.
    pub(super) is_compact: bool,
    /// A known field's name was written with escapes.
    pub(super) is_disguised: bool,
    pub(super) timestamp: Option<Value<'a>>,
    pub(super) service: Option<Value<'a>>,
    pub(super) level: Option<Value<'a>>,
    pub(super) message: Option<Value<'a>>,
    pub(super) labels: Labels<'a>,
    /// The members of `labels`, if it is an object.
    pub(super) label_members: Vec<Member<'a>>,
    /// The top-level fields that are not known.
    pub(super) others: Vec<Member<'a>>,
    /// The first known field that appears a second time.
    pub(super) twice: Option<&'static str>,
    /// The known field that may come next, if they come in order.
    next: Known,
}

/// The known fields, in the contract's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    #[default]
    Timestamp,
    Service,
    Level,
    Message,
    Labels,
    None,
}

/// What stands at `labels`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Labels<'a> {
    #[default]
    Absent,
    /// An object; its members are in [`Scanned::label_members`].
    Object,
    Other(Value<'a>),
}

/// A member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    pub(super) name: JsonStr<'a>,
    pub(super) value: Value<'a>,
}

impl<'a> Scanned<'a> {
    /// The text as it was sent, braces included.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Forgets the record, but keeps the memory for the next one.
    fn clear(&mut self) {
        self.is_disguised = false;
        self.timestamp = None;
        self.service = None;
        self.level = None;
        self.message = None;
        self.labels = Labels::Absent;
        self.label_members.clear();
        self.others.clear();
        self.twice = None;
        self.next = Known::Timestamp;
    }

    /// Takes a known field if it stands where programs write it that have the fields in the contract's order. Most do;
    /// a name is then compared rather than scanned and looked up.
    #[inline]
    fn take_expected(&mut self, scanner: &mut Scanner<'a>) -> Result<bool, JsonError> {
        if self.next <= Known::Timestamp && scanner.take_literal("\"timestamp\":") {
            self.next = Known::Service;
            scanner.skip_white_space();
            let value = match scanner.peek() {
                Some(b'0'..=b'9') => Value::Number(scanner.number()?),
                _ => scanner.value()?,
            };
            set(&mut self.timestamp, value, "timestamp", &mut self.twice);
        } else if self.next <= Known::Service && scanner.take_literal("\"service\":") {
            self.next = Known::Level;
            let value = likely_string(scanner)?;
            set(&mut self.service, value, "service", &mut self.twice);
        } else if self.next <= Known::Level && scanner.take_literal("\"level\":") {
            self.next = Known::Message;
            let value = likely_string(scanner)?;
            set(&mut self.level, value, "level", &mut self.twice);
        } else if self.next <= Known::Message && scanner.take_literal("\"message\":") {
            self.next = Known::Labels;
            let value = likely_string(scanner)?;
            set(&mut self.message, value, "message", &mut self.twice);
        } else if self.next <= Known::Labels && scanner.take_literal("\"labels\":") {
            self.next = Known::None;
            scanner.skip_white_space();
            self.note_labels(scanner)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn note_member(&mut self, scanner: &mut Scanner<'a>, name: JsonStr<'a>) -> Result<(), JsonError> {
        if name.is_escaped() {
            return self.note_escaped(scanner, name);
        }
        self.note(scanner, name, name.raw())
    }

    #[cold]
    fn note_escaped(&mut self, scanner: &mut Scanner<'a>, name: JsonStr<'a>) -> Result<(), JsonError> {
        let others = self.others.len();
        self.note(scanner, name, &name.decode())?;
        self.is_disguised |= self.others.len() == others;
        Ok(())
    }

    #[inline]
    fn note(&mut self, scanner: &mut Scanner<'a>, name: JsonStr<'a>, decoded: &str) -> Result<(), JsonError> {
        let (slot, field) = match decoded {
            "timestamp" => (&mut self.timestamp, "timestamp"),
            "service" => (&mut self.service, "service"),
            "level" => (&mut self.level, "level"),
            "message" => (&mut self.message, "message"),
            "labels" => return self.note_labels(scanner),
            _ => {
                let value = scanner.value()?;
                self.others.push(Member { name, value });
                return Ok(());
            }
        };
        let value = scanner.value()?;
        set(slot, value, field, &mut self.twice);
        Ok(())
    }

    fn note_labels(&mut self, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        if self.labels != Labels::Absent {
            self.twice.get_or_insert("labels");
        }
        if scanner.peek() != Some(b'{') {
            self.labels = Labels::Other(scanner.value()?);
            return Ok(());
        }
        self.labels = Labels::Object;
        let members = &mut self.label_members;
        scanner.object_members(|scanner, name| {
            let value = likely_string(scanner)?;
            members.push(Member { name, value });
            Ok(())
        })
    }
}

/// Fills a known field's slot.
#[inline]
fn set<'a>(
    slot: &mut Option<Value<'a>>,
    value: Value<'a>,
    field: &'static str,
    twice: &mut Option<&'static str>,
) {
    if slot.is_some() {
        twice.get_or_insert(field);
    }
    *slot = Some(value);
}

/// Scans a value that is a string as a rule.
#[inline(always)]
fn likely_string<'a>(scanner: &mut Scanner<'a>) -> Result<Value<'a>, JsonError> {
    scanner.skip_white_space();
    if scanner.peek() == Some(b'"') { Ok(Value::String(scanner.string()?)) } else { scanner.value() }
}

/// Scans the value at the scanner's place into `record`; `false` if it is JSON but no object.
///
/// # Errors
/// When it is not JSON.
#[inline]
pub fn scan<'a>(scanner: &mut Scanner<'a>, record: &mut Scanned<'a>) -> Result<bool, JsonError> {
    record.clear();
    if scanner.peek() != Some(b'{') {
        scanner.value()?;
        return Ok(false);
    }
    let start = scanner.position();
    let white_space = scanner.white_space();
    scanner.object_members_guessed(record, Scanned::take_expected, Scanned::note_member)?;
    record.text = scanner.text_since(start);
    record.is_compact = scanner.white_space() == white_space;
    Ok(true)
}
