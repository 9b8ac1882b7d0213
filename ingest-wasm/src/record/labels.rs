//! Labels: flattening, text for what is not text, and names that collide.

use std::borrow::Cow;
use std::collections::BTreeSet;

use model::json::{JsonError, JsonStr, Scanner, Value};
use model::limits::{LABEL_NAME_BYTES_MAX, LABELS_MAX};

use super::Fault;
use super::check::is_longer;
use super::scan::Member;
use crate::limits::{LABELS_COMPARED_MAX, LABELS_OF_ONE_NAME_MAX};

/// A label to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label<'a> {
    /// The name's text between its quotes.
    pub(super) name: Cow<'a, str>,
    pub(super) value: LabelValue<'a>,
}

/// A label's value, as a slice of the record's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LabelValue<'a> {
    /// What can stand between quotes as it is: a string's text, or a scalar's.
    Quoted(&'a str),
    /// An array, or an empty object: its compact JSON has to be escaped.
    Json(&'a str),
}

/// Whether these members of `labels` can be stored as they are: strings, under different names.
///
/// # Errors
/// When there are too many, or a name is too long.
pub(super) fn can_stay(members: &[Member<'_>]) -> Result<bool, Fault> {
    if members.len() > LABELS_MAX {
        return Err(too_many());
    }
    if members.iter().any(|member| is_longer(member.name, LABEL_NAME_BYTES_MAX)) {
        return Err(name_too_long());
    }
    Ok(members.iter().all(|member| matches!(member.value, Value::String(_))) && names_differ(members))
}

fn names_differ(members: &[Member<'_>]) -> bool {
    if members.iter().any(|member| member.name.is_escaped()) || members.len() > LABELS_COMPARED_MAX {
        let names: BTreeSet<_> = members.iter().map(|member| member.name.decode()).collect();
        return names.len() == members.len();
    }
    let mut rest = members;
    while let Some((first, others)) = rest.split_first() {
        if others.iter().any(|other| other.name.raw() == first.name.raw()) {
            return false;
        }
        rest = others;
    }
    true
}

/// All labels of a record: the members of its `labels`, then its other fields.
///
/// # Errors
/// When there are too many, a name is too long, or too many want the same one.
pub(super) fn collect<'a>(members: &[Member<'a>], others: &[Member<'a>]) -> Result<Vec<Label<'a>>, Fault> {
    let mut collector =
        Collector { labels: Vec::with_capacity(members.len() + others.len()), names: BTreeSet::new() };
    for Member { name, value } in members.iter().chain(others) {
        match value {
            Value::Object(object) => collector.flatten(&mut Scanner::new(object.raw), Name::of(*name))?,
            Value::String(text) => collector.add(Name::of(*name), LabelValue::Quoted(text.raw()))?,
            Value::Number(text) => collector.add(Name::of(*name), LabelValue::Quoted(text))?,
            Value::Bool(value) => collector.add(Name::of(*name), LabelValue::Quoted(bool_text(*value)))?,
            Value::Null => collector.add(Name::of(*name), LabelValue::Quoted("null"))?,
            Value::Array(text) => collector.add(Name::of(*name), LabelValue::Json(text))?,
        }
    }
    Ok(collector.labels)
}

/// A label's name: its text between quotes, and what that means.
#[derive(Clone)]
struct Name<'a> {
    raw: Cow<'a, str>,
    decoded: Cow<'a, str>,
}

impl<'a> Name<'a> {
    fn of(name: JsonStr<'a>) -> Self {
        Self { raw: Cow::Borrowed(name.raw()), decoded: name.decode() }
    }

    /// The name of a member of the object that has this one.
    fn member(&self, name: JsonStr<'a>) -> Self {
        Self {
            raw: format!("{}.{}", self.raw, name.raw()).into(),
            decoded: format!("{}.{}", self.decoded, name.decode()).into(),
        }
    }

    /// The name that the `number`th label of this name gets.
    fn numbered(&self, number: usize) -> Self {
        Self {
            raw: format!("{}_{number}", self.raw).into(),
            decoded: format!("{}_{number}", self.decoded).into(),
        }
    }
}

struct Collector<'a> {
    labels: Vec<Label<'a>>,
    names: BTreeSet<Cow<'a, str>>,
}

impl<'a> Collector<'a> {
    /// Adds what stands at the scanner's place under `name`. The text was scanned before, so it is JSON.
    fn flatten(&mut self, scanner: &mut Scanner<'a>, name: Name<'a>) -> Result<(), Fault> {
        if name.decoded.len() > LABEL_NAME_BYTES_MAX {
            return Err(name_too_long());
        }
        if scanner.peek() != Some(b'{') {
            let value = match scanner.value()? {
                Value::String(text) => LabelValue::Quoted(text.raw()),
                Value::Number(text) => LabelValue::Quoted(text),
                Value::Bool(value) => LabelValue::Quoted(bool_text(value)),
                Value::Null => LabelValue::Quoted("null"),
                Value::Array(text) => LabelValue::Json(text),
                Value::Object(object) => LabelValue::Json(object.raw),
            };
            return self.add(name, value);
        }
        let mut is_empty = true;
        scanner.object_members(|scanner, member| {
            is_empty = false;
            self.flatten(scanner, name.member(member))
        })?;
        // An object without members has no label that would tell of it.
        if is_empty { self.add(name, LabelValue::Json("{}")) } else { Ok(()) }
    }

    fn add(&mut self, name: Name<'a>, value: LabelValue<'a>) -> Result<(), Fault> {
        if self.labels.len() == LABELS_MAX {
            return Err(too_many());
        }
        let numbered = (2..=LABELS_OF_ONE_NAME_MAX).map(|number| name.numbered(number));
        let free =
            std::iter::once(name.clone()).chain(numbered).find(|name| !self.names.contains(&name.decoded));
        let Some(name) = free else {
            let error = format!("more than {LABELS_OF_ONE_NAME_MAX} labels have the same name");
            return Err(Fault::new("labels", error));
        };
        if name.decoded.len() > LABEL_NAME_BYTES_MAX {
            return Err(name_too_long());
        }
        self.names.insert(name.decoded);
        self.labels.push(Label { name: name.raw, value });
        Ok(())
    }
}

impl From<JsonError> for Fault {
    fn from(error: JsonError) -> Self {
        Self::new("labels", error.to_string())
    }
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn too_many() -> Fault {
    Fault::new("labels", format!("there are more than {LABELS_MAX}, other fields included"))
}

fn name_too_long() -> Fault {
    Fault::new("labels", format!("a name has more than {LABEL_NAME_BYTES_MAX} bytes"))
}
