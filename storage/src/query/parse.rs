//! The parameters of searches, checked.
//!
//! Pure: pairs of texts to a [`Query`] and its like. An unknown parameter is an error: a mistyped filter would find
//! too much. Times relative to now are made absolute here, once.

use model::Partition;
use model::limits::{QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX};

use super::filter::{Filter, LabelFilter, LabelValue, LineContent, LineFilter, Word};
use super::key::{Cursor, Direction, Order};
use super::needle::Needle;
use super::pattern::Pattern;
use super::time;
use crate::{index, limits};

/// What a search asks for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which records.
    pub filter: Filter,
    /// How many at most.
    pub limit: usize,
    /// From which end.
    pub direction: Direction,
    /// In which order.
    pub order: Order,
    /// Where to go on from.
    pub cursor: Option<Cursor>,
    /// Whether each record is told with its partition and offset.
    pub with_places: bool,
}

/// What a histogram asks for.
#[derive(Clone, Debug)]
pub struct HistogramQuery {
    /// Which records. Its times are those that were given.
    pub filter: Filter,
    /// Whether the begin and the end were given.
    pub has_begin: bool,
    /// See [`Self::has_begin`].
    pub has_end: bool,
    /// How the time is cut.
    pub cut: Cut,
}

/// How a histogram's time is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Into so many buckets.
    Buckets(u64),
    /// Into buckets of so many milliseconds.
    Step(u64),
}

/// What counts of services, labels or a label's values ask for.
#[derive(Clone, Debug)]
pub struct CountQuery {
    /// Which records.
    pub filter: Filter,
    /// How many entries at most.
    pub limit: usize,
}

/// What the records around a record are asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextQuery {
    /// The record's partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: model::Offset,
    /// Records before it.
    pub before: usize,
    /// Records after it.
    pub after: usize,
    /// Whether only records of the same service count.
    pub same_service: bool,
}

/// What a tail asks for.
#[derive(Clone, Debug)]
pub struct TailQuery {
    /// Which records.
    pub filter: Filter,
    /// How many of those that are there already.
    pub last: usize,
}

/// A parameter that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ParameterError {
    /// The parameter's name.
    pub name: String,
    /// What is wrong with it.
    pub detail: String,
}

impl ParameterError {
    /// This parameter has this fault.
    pub fn new(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), detail: detail.into() }
    }
}

impl Query {
    /// The newest of everything, as many as there are without being asked for more.
    pub(super) fn newest() -> Self {
        Self {
            filter: Filter::default(),
            limit: QUERY_LIMIT_DEFAULT,
            direction: Direction::default(),
            order: Order::default(),
            cursor: None,
            with_places: false,
        }
    }

    /// The query of these decoded parameters. An empty value is a filter left blank.
    ///
    /// # Errors
    /// Names the first parameter that is unknown, repeated or has a bad value.
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        now_ms: u64,
    ) -> Result<Self, ParameterError> {
        let mut query = Self::newest();
        let mut parser = Parser::new("limit, direction, order, cursor, fields", now_ms);
        parser.parse(parameters, &mut query.filter, |name, value| {
            match name {
                "limit" => query.limit = whole_number(name, value, QUERY_LIMIT_MAX)?,
                "direction" => query.direction = parse_direction(value)?,
                "order" => query.order = parse_order(value)?,
                "cursor" if value.is_empty() => {}
                "cursor" => query.cursor = Some(parse_cursor(value)?),
                "fields" => query.with_places = parse_fields(value)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if query.cursor.is_some_and(|cursor| cursor.direction != query.direction) {
            return Err(ParameterError::new("cursor", "the cursor is of an answer in the other direction"));
        }
        if query.order == Order::Arrival && query.filter.partition.is_none() {
            return Err(ParameterError::new(
                "order",
                "order=arrival needs a partition: each has its own order",
            ));
        }
        Ok(query)
    }
}

impl HistogramQuery {
    /// The query of these decoded parameters.
    ///
    /// # Errors
    /// As of [`Query::parse`].
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        now_ms: u64,
    ) -> Result<Self, ParameterError> {
        let mut filter = Filter::default();
        let mut cut = Cut::Buckets(limits::HISTOGRAM_BUCKETS_DEFAULT);
        let mut parser = Parser::new("buckets, step", now_ms);
        parser.parse(parameters, &mut filter, |name, value| {
            match name {
                "buckets" => {
                    let buckets: usize = whole_number(name, value, limits::HISTOGRAM_BUCKETS_MAX)?;
                    if buckets == 0 {
                        return Err(ParameterError::new(name, "there has to be one bucket at least"));
                    }
                    cut = Cut::Buckets(buckets as u64);
                }
                "step" => {
                    let step = time::parse_span(value).map_err(|error| ParameterError::new(name, error))?;
                    if step == 0 {
                        return Err(ParameterError::new(name, "a step has one millisecond at least"));
                    }
                    cut = Cut::Step(step);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if parser.seen.contains(&"buckets") && parser.seen.contains(&"step") {
            return Err(ParameterError::new("step", "either buckets or step is given, not both"));
        }
        let (has_begin, has_end) = (parser.given.contains(&"from"), parser.given.contains(&"to"));
        Ok(Self { has_begin, has_end, cut, filter })
    }
}

impl CountQuery {
    /// The query of these decoded parameters; `limit` may be given if there is a default for it.
    ///
    /// # Errors
    /// As of [`Query::parse`].
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        limit_default: Option<usize>,
        now_ms: u64,
    ) -> Result<Self, ParameterError> {
        let mut filter = Filter::default();
        let mut limit = limit_default.unwrap_or(usize::MAX);
        let own = if limit_default.is_some() { "limit" } else { "" };
        let mut parser = Parser::new(own, now_ms);
        parser.only = Some(&["from", "to", "service"]);
        parser.parse(parameters, &mut filter, |name, value| {
            if name != "limit" || limit_default.is_none() {
                return Ok(false);
            }
            limit = whole_number(name, value, QUERY_LIMIT_MAX)?;
            Ok(true)
        })?;
        Ok(Self { filter, limit })
    }
}

impl TailQuery {
    /// The query of these decoded parameters.
    ///
    /// # Errors
    /// As of [`Query::parse`].
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ParameterError> {
        let mut filter = Filter::default();
        let mut last = limits::TAIL_LAST_DEFAULT;
        let mut parser = Parser::new("last", 0);
        parser.only = Some(&["service", "level", "partition", "label", "line"]);
        parser.parse(parameters, &mut filter, |name, value| {
            if name != "last" {
                return Ok(false);
            }
            last = whole_number(name, value, limits::TAIL_LAST_MAX)?;
            Ok(true)
        })?;
        Ok(Self { filter, last })
    }
}

impl ContextQuery {
    /// The query of these decoded parameters.
    ///
    /// # Errors
    /// As of [`Query::parse`].
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ParameterError> {
        let (mut offset, mut before, mut after) = (None, limits::CONTEXT_DEFAULT, limits::CONTEXT_DEFAULT);
        let mut same_service = false;
        let mut filter = Filter::default();
        let mut parser = Parser::new("offset, before, after, service", 0);
        parser.only = Some(&["partition"]);
        parser.parse(parameters, &mut filter, |name, value| {
            match name {
                "offset" => {
                    let parsed = value.parse().map(model::Offset::new);
                    offset = Some(
                        parsed.map_err(|_| ParameterError::new(name, "offset is a whole number from 0"))?,
                    );
                }
                "before" => before = whole_number(name, value, limits::CONTEXT_MAX)?,
                "after" => after = whole_number(name, value, limits::CONTEXT_MAX)?,
                "service" if value.is_empty() || value == "same" => same_service = !value.is_empty(),
                "service" => return Err(ParameterError::new(name, "service is same, or is not given")),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let partition =
            filter.partition.ok_or_else(|| ParameterError::new("partition", "partition is needed"))?;
        let offset =
            offset.ok_or_else(|| ParameterError::new("offset", "offset is needed, a whole number from 0"))?;
        Ok(Self { partition, offset, before, after, same_service })
    }
}

/// Goes through the parameters: those of the filter are common to all, the others the caller's.
struct Parser<'a> {
    /// The caller's own, for the error that names all there are.
    own: &'static str,
    /// The filter's parameters that may be given; all if not said.
    only: Option<&'static [&'static str]>,
    now_ms: u64,
    seen: Vec<&'a str>,
    /// Those that were not left blank.
    given: Vec<&'a str>,
}

impl<'a> Parser<'a> {
    fn new(own: &'static str, now_ms: u64) -> Self {
        Self { own, only: None, now_ms, seen: Vec::new(), given: Vec::new() }
    }

    fn parse(
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

fn whole_number(name: &str, value: &str, max: usize) -> Result<usize, ParameterError> {
    let number: Option<usize> = value.parse().ok().filter(|number| *number <= max);
    number.ok_or_else(|| ParameterError::new(name, format!("{name} is a whole number from 0 to {max}")))
}

fn parse_direction(value: &str) -> Result<Direction, ParameterError> {
    match value {
        "" | "backward" => Ok(Direction::Backward),
        "forward" => Ok(Direction::Forward),
        _ => Err(ParameterError::new("direction", "direction is backward or forward")),
    }
}

fn parse_order(value: &str) -> Result<Order, ParameterError> {
    match value {
        "" | "time" => Ok(Order::Time),
        "arrival" => Ok(Order::Arrival),
        _ => Err(ParameterError::new("order", "order is time or arrival")),
    }
}

fn parse_cursor(value: &str) -> Result<Cursor, ParameterError> {
    value
        .parse()
        .map_err(|()| ParameterError::new("cursor", "cursor is what Next-Cursor was in the answer before"))
}

fn parse_fields(value: &str) -> Result<bool, ParameterError> {
    match value {
        "" => Ok(false),
        "meta" => Ok(true),
        _ => Err(ParameterError::new("fields", "fields is meta, or is not given")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn parse(parameters: &[(&str, &str)]) -> Result<Query, String> {
        Query::parse(parameters.iter().copied(), NOW).map_err(|error| error.name)
    }

    #[test]
    fn a_query_without_parameters_asks_for_the_newest_of_everything() {
        let query = parse(&[]).unwrap();
        assert!(query.filter.services.is_empty() && !query.filter.looks_at_text());
        assert_eq!((query.filter.from_ms, query.filter.to_ms), (0, u64::MAX));
        assert_eq!((query.limit, query.direction), (QUERY_LIMIT_DEFAULT, Direction::Backward));
    }

    #[test]
    fn filters_may_be_repeated_and_blank_ones_are_none() {
        let query = parse(&[
            ("service", "a"),
            ("service", "b"),
            ("level", ""),
            ("level", "Warn"),
            ("contains", ""),
            ("contains", "x"),
            ("contains", "y"),
            ("from", "-1s"),
            ("label.a!", "1"),
        ])
        .unwrap();
        assert_eq!(
            (&*query.filter.services, &*query.filter.levels),
            (&["a".into(), "b".into()][..], &["warn".into()][..])
        );
        assert_eq!((query.filter.lines.len(), query.filter.labels.len()), (2, 1));
        assert_eq!(query.filter.from_ms, NOW - 1000);
    }

    #[test]
    fn label_filters_are_cut_at_the_first_equals_sign() {
        let label = |name: &str, value: &str| {
            let label = parse(&[(name, value)]).unwrap().filter.labels.remove(0);
            let wanted = match label.wanted {
                LabelValue::Equal(value) => format!("={}", value.text()),
                LabelValue::Matching(_) => "~".to_owned(),
            };
            (label.name, wanted, label.is_negated)
        };
        assert_eq!(label("label.a", "v"), ("a".into(), "=v".into(), false));
        assert_eq!(label("label.a!", "v"), ("a".into(), "=v".into(), true));
        assert_eq!(label("label.a.b", "~v.*"), ("a.b".into(), "~".into(), false));
        assert_eq!(label("label.a!", "~v"), ("a".into(), "~".into(), true));
        assert_eq!(label("label.a", "\\~v"), ("a".into(), "=~v".into(), false));
        assert_eq!(label("label.a", "\\v"), ("a".into(), "=\\v".into(), false));
        assert_eq!(label("label.a", ""), ("a".into(), "=".into(), false));
    }

    #[test]
    fn the_error_names_the_parameter_at_fault() {
        for (name, value) in [
            ("servce", "a"),
            ("limit", ""),
            ("limit", "-1"),
            ("limit", "10001"),
            ("limit", "1.0"),
            ("partition", "1024"),
            ("from", "yesterday"),
            ("direction", "up"),
            ("order", "size"),
            ("order", "arrival"),
            ("cursor", "x"),
            ("cursor", "f1.0.0"),
            ("fields", "all"),
            ("regex", "("),
            ("not_regex", r"\w{1000}{1000}"),
            ("label.", "a"),
            ("label.a", "~("),
            ("not_service", "a"),
            ("last", "5"),
        ] {
            assert_eq!(parse(&[(name, value)]).unwrap_err(), name, "{name}={value}");
        }
        assert_eq!(parse(&[("limit", "1"), ("limit", "1")]).unwrap_err(), "limit");
        let many = vec![("contains", "x"); limits::QUERY_FILTERS_MAX + 1];
        assert_eq!(parse(&many).unwrap_err(), "contains");
    }

    #[test]
    fn other_queries_take_what_is_theirs() {
        let histogram = HistogramQuery::parse([("step", "10s"), ("to", "now"), ("level", "a")], NOW).unwrap();
        assert_eq!((histogram.cut, histogram.has_begin, histogram.has_end), (Cut::Step(10_000), false, true));
        for bad in [
            [("buckets", "0"), ("level", "")],
            [("buckets", "5"), ("step", "1s")],
            [("step", "0s"), ("limit", "1")],
        ] {
            assert!(HistogramQuery::parse(bad, NOW).is_err());
        }
        assert!(CountQuery::parse([("service", "a"), ("limit", "5")], Some(10), NOW).is_ok());
        assert_eq!(CountQuery::parse([("limit", "5")], None, NOW).unwrap_err().name, "limit");
        assert_eq!(CountQuery::parse([("contains", "5")], None, NOW).unwrap_err().name, "contains");
        let tail = TailQuery::parse([("last", "0"), ("regex", "a"), ("label.a", "b")]).unwrap();
        assert_eq!((tail.last, tail.filter.lines.len()), (0, 1));
        assert_eq!(TailQuery::parse([("from", "now")]).unwrap_err().name, "from");
        let context =
            ContextQuery::parse([("partition", "1"), ("offset", "7"), ("service", "same")]).unwrap();
        assert!(context.same_service && context.before == limits::CONTEXT_DEFAULT);
        assert_eq!(ContextQuery::parse([("partition", "1")]).unwrap_err().name, "offset");
        assert_eq!(ContextQuery::parse([("offset", "1")]).unwrap_err().name, "partition");
    }
}
