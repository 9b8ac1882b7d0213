//! A search's parameters, checked.
//!
//! Pure: pairs of texts to a [`Query`]. An unknown parameter is an error: a mistyped filter would find too much.

use model::Partition;
use model::limits::{QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX};

use super::needle::Needle;
use crate::limits;

/// What a search asks for: the newest `limit` records that pass every filter.
#[derive(Clone, Debug)]
pub struct Query {
    /// The record's service is one of these; empty: any.
    pub services: Vec<String>,
    /// The record's level is this, whatever the case of its letters.
    pub level: Option<String>,
    /// The record's message contains this.
    pub contains: Option<Needle>,
    /// Records to answer with, at most [`QUERY_LIMIT_MAX`].
    pub limit: usize,
    /// Only this partition.
    pub partition: Option<Partition>,
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
    /// The query of these decoded parameters. An empty value is a filter left blank; `service` may be repeated.
    ///
    /// # Errors
    /// Names the first parameter that is unknown, repeated or has a bad value.
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ParameterError> {
        let mut query = Self {
            services: Vec::new(),
            level: None,
            contains: None,
            limit: QUERY_LIMIT_DEFAULT,
            partition: None,
        };
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in parameters {
            if name != "service" && seen.contains(&name) {
                return Err(ParameterError::new(name, format!("{name} is given twice")));
            }
            match name {
                "service" | "level" | "contains" | "partition" if value.is_empty() => {}
                "service" if query.services.len() < limits::QUERY_SERVICES_MAX => {
                    query.services.push(value.to_owned());
                }
                "service" => return Err(ParameterError::new(name, "there are too many services")),
                "level" => query.level = Some(value.to_owned()),
                "contains" if value.len() > limits::QUERY_CONTAINS_BYTES_MAX => {
                    return Err(ParameterError::new(name, "the text to find is too long"));
                }
                "contains" => query.contains = Some(Needle::new(value)),
                "partition" => query.partition = Some(parse_partition(value)?),
                "limit" => query.limit = parse_limit(value)?,
                _ => {
                    let known = "service, level, contains, limit and partition";
                    return Err(ParameterError::new(
                        name,
                        format!("{name:?} is not a parameter here; there are {known}"),
                    ));
                }
            }
            seen.push(name);
        }
        Ok(query)
    }
}

/// The partition of this parameter's value.
///
/// # Errors
/// When it is not the number of a partition.
pub fn parse_partition(value: &str) -> Result<Partition, ParameterError> {
    value.parse().map_err(|error: model::ids::InvalidId| ParameterError::new("partition", error.to_string()))
}

fn parse_limit(value: &str) -> Result<usize, ParameterError> {
    let limit: Option<usize> = value.parse().ok().filter(|limit| *limit <= QUERY_LIMIT_MAX);
    limit.ok_or_else(|| {
        ParameterError::new("limit", format!("limit is a whole number from 0 to {QUERY_LIMIT_MAX}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &[(&str, &str)]) -> Result<Query, String> {
        Query::parse(parameters.iter().copied()).map_err(|error| error.name)
    }

    #[test]
    fn a_query_without_parameters_asks_for_the_newest_of_everything() {
        let query = parse(&[]).unwrap();
        assert!(query.services.is_empty() && query.level.is_none() && query.contains.is_none());
        assert_eq!(query.limit, QUERY_LIMIT_DEFAULT);
    }

    #[test]
    fn services_may_be_repeated_and_blank_filters_are_none() {
        let query = parse(&[("service", "a"), ("service", "b"), ("level", ""), ("contains", "")]).unwrap();
        assert_eq!(query.services, ["a", "b"]);
        assert!(query.level.is_none() && query.contains.is_none());
    }

    #[test]
    fn the_error_names_the_parameter_at_fault() {
        assert_eq!(parse(&[("servce", "a")]).unwrap_err(), "servce");
        assert_eq!(parse(&[("level", "a"), ("level", "b")]).unwrap_err(), "level");
        for bad in ["", "-1", "x", "10001", "1.0", "99999999999999999999"] {
            assert_eq!(parse(&[("limit", bad)]).unwrap_err(), "limit", "{bad:?}");
        }
        assert_eq!(parse(&[("partition", "1024")]).unwrap_err(), "partition");
    }
}
