//! Goes through parameters one by one, and reads their values.

use model::Partition;

use super::super::filter::{Filter, LabelFilter, LabelValue, LineContent, LineFilter, Word};
use super::super::key::{Cursor, Direction, Order};
use super::super::needle::Needle;
use super::super::pattern::Pattern;
use super::super::time;
use super::ParameterError;
use crate::{index, limits};

/// Goes through the parameters: those of the filter are common to all, the others the caller's.
pub(super) struct Parser<'a> {
    /// The caller's own, for the error that names all there are.
    own: &'static str,
    /// The filter's parameters that may be given; all if not said.
    pub(super) only: Option<&'static [&'static str]>,
    now_ms: u64,
    pub(super) seen: Vec<&'a str>,
    /// Those that were not left blank.
    pub(super) given: Vec<&'a str>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(own: &'static str, now_ms: u64) -> Self {
        Self { own, only: None, now_ms, seen: Vec::new(), given: Vec::new() }
    }

    pub(super) fn parse(
        &mut self,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        filter: &mut Filter,
        mut take_own: impl FnMut(&str, &str) -> Result<bool, ParameterError>,
    ) -> Result<(), ParameterError> {
        for (name, value) in parameters {
            if self.seen.contains(&name) && !is_repeatable(name) {
                return Err(ParameterError::new(name, format!("{name} is given twice")));
            }
            let taken = take_own(name, value)? || (self.may_have(name) && self.take(name, value, filter)?);
            if !taken {
                return Err(self.unknown(name));
            }
            self.seen.push(name);
            if !value.is_empty() {
                self.given.push(name);
            }
        }
        if filter.labels.len() + filter.lines.len() > limits::QUERY_FILTERS_MAX {
            let detail = format!("there are at most {} filters", limits::QUERY_FILTERS_MAX);
            return Err(ParameterError::new(self.seen.last().copied().unwrap_or_default(), detail));
        }
        Ok(())
    }

    fn may_have(&self, name: &str) -> bool {
        let kind = match name {
            _ if name.starts_with("label.") => "label",
            _ if is_line_filter(name) => "line",
            other => other,
        };
        self.only.is_none_or(|only| only.contains(&kind))
    }

    fn unknown(&self, name: &str) -> ParameterError {
        let common = self.only.map_or_else(
            || "from, to, service, level, partition, label.NAME, contains, icontains, word, regex and each with not_".to_owned(),
            |only| only.join(", "),
        );
        let known = if self.own.is_empty() { common } else { format!("{common}, {}", self.own) };
        ParameterError::new(name, format!("{name:?} is not a parameter here; there are {known}"))
    }

    fn take(&self, name: &str, value: &str, filter: &mut Filter) -> Result<bool, ParameterError> {
        if let Some(label) = name.strip_prefix("label.") {
            return parse_label(name, label, value).map(|label| {
                filter.labels.push(label);
                true
            });
        }
        if is_line_filter(name) {
            filter.lines.extend(parse_line_filter(name, value)?);
            return Ok(true);
        }
        match name {
            "from" | "to" | "service" | "level" | "partition" if value.is_empty() => {}
            "from" => filter.from_ms = self.parse_time(name, value)?,
            "to" => filter.to_ms = self.parse_time(name, value)?,
            "service" | "level" => {
                let (list, kept) = match name {
                    "service" => (&mut filter.services, value.to_owned()),
                    _ => (&mut filter.levels, index::fold_fully(value)),
                };
                if list.len() >= limits::QUERY_NAMES_MAX {
                    return Err(ParameterError::new(name, format!("{name} is given too often")));
                }
                list.push(kept);
            }
            "partition" => filter.partition = Some(parse_partition(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn parse_time(&self, name: &str, value: &str) -> Result<u64, ParameterError> {
        time::parse(value, self.now_ms).map_err(|error| ParameterError::new(name, error))
    }
}

fn is_repeatable(name: &str) -> bool {
    matches!(name, "service" | "level") || name.starts_with("label.") || is_line_filter(name)
}

fn is_line_filter(name: &str) -> bool {
    let bare = name.strip_prefix("not_").unwrap_or(name);
    matches!(bare, "contains" | "icontains" | "word" | "regex")
}

fn parse_line_filter(name: &str, value: &str) -> Result<Option<LineFilter>, ParameterError> {
    if value.is_empty() {
        return Ok(None);
    }
    if value.len() > limits::QUERY_TEXT_BYTES_MAX {
        return Err(ParameterError::new(name, "the text to find is too long"));
    }
    let (bare, is_negated) = match name.strip_prefix("not_") {
        Some(bare) => (bare, true),
        None => (name, false),
    };
    let wanted = match bare {
        "icontains" => LineContent::folded(value),
        "word" => LineContent::Word(Word::new(value)),
        "regex" => {
            LineContent::matching(Pattern::new(value).map_err(|error| ParameterError::new(name, error))?)
        }
        _ => LineContent::Literal(Needle::new(value)),
    };
    Ok(Some(LineFilter { wanted, is_negated }))
}

/// A query string is cut at its first `=`: of `label.a!=v` the name is `label.a!`, of `label.a=~v` the value `~v`.
fn parse_label(name: &str, label: &str, value: &str) -> Result<LabelFilter, ParameterError> {
    let (label, is_negated) = match label.strip_suffix('!') {
        Some(label) => (label, true),
        None => (label, false),
    };
    if label.is_empty() || label.len() > model::limits::LABEL_NAME_BYTES_MAX {
        return Err(ParameterError::new(name, "a label filter is label.NAME=VALUE"));
    }
    if value.len() > limits::QUERY_TEXT_BYTES_MAX {
        return Err(ParameterError::new(name, "the value is too long"));
    }
    let wanted = match value.strip_prefix('~') {
        Some(pattern) => LabelValue::Matching(
            Pattern::anchored(pattern).map_err(|error| ParameterError::new(name, error))?,
        ),
        None => {
            // `\~` begins a value that begins with `~`.
            let value = value.strip_prefix('\\').filter(|rest| rest.starts_with('~')).unwrap_or(value);
            LabelValue::Equal(Box::new(Needle::new(value)))
        }
    };
    Ok(LabelFilter { name: label.to_owned(), wanted, is_negated })
}

/// The partition of this parameter's value.
///
/// # Errors
/// When it is not the number of a partition.
pub fn parse_partition(value: &str) -> Result<Partition, ParameterError> {
    value.parse().map_err(|error: model::ids::InvalidId| ParameterError::new("partition", error.to_string()))
}

pub(super) fn whole_number(name: &str, value: &str, max: usize) -> Result<usize, ParameterError> {
    let number: Option<usize> = value.parse().ok().filter(|number| *number <= max);
    number.ok_or_else(|| ParameterError::new(name, format!("{name} is a whole number from 0 to {max}")))
}

pub(super) fn parse_direction(value: &str) -> Result<Direction, ParameterError> {
    match value {
        "" | "backward" => Ok(Direction::Backward),
        "forward" => Ok(Direction::Forward),
        _ => Err(ParameterError::new("direction", "direction is backward or forward")),
    }
}

pub(super) fn parse_order(value: &str) -> Result<Order, ParameterError> {
    match value {
        "" | "time" => Ok(Order::Time),
        "arrival" => Ok(Order::Arrival),
        _ => Err(ParameterError::new("order", "order is time or arrival")),
    }
}

pub(super) fn parse_cursor(value: &str) -> Result<Cursor, ParameterError> {
    value
        .parse()
        .map_err(|()| ParameterError::new("cursor", "cursor is what Next-Cursor was in the answer before"))
}

pub(super) fn parse_fields(value: &str) -> Result<bool, ParameterError> {
    match value {
        "" => Ok(false),
        "meta" => Ok(true),
        _ => Err(ParameterError::new("fields", "fields is meta, or is not given")),
    }
}
