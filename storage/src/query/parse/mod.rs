//! The parameters of searches, checked.
//!
//! Pure: pairs of texts to a [`Query`] and its like. An unknown parameter is an error: a mistyped filter would find
//! too much. Times relative to now are made absolute here, once.

mod parser;

use model::Partition;
use model::limits::{QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX};

use super::filter::Filter;
use super::key::{Cursor, Direction, Order};
use super::time;
use crate::limits;
pub use parser::parse_partition;
use parser::{Parser, parse_cursor, parse_direction, parse_fields, parse_order, whole_number};

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

#[cfg(test)]
mod tests;
