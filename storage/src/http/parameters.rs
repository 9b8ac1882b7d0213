//! Query parameters and negotiation, for all routes alike.
//!
//! Unknown and repeated parameters are errors: a mistyped name would silently change what is asked.

use axum::extract::Query;
use http::header::ACCEPT;
use http::{HeaderMap, Uri};
use model::wire;

use crate::query::{Format, ParameterError};

/// The decoded parameters of a request, in order.
///
/// # Errors
/// When they are not in the form of a query string.
pub(super) fn decode(uri: &Uri) -> Result<Vec<(String, String)>, ParameterError> {
    match Query::<Vec<(String, String)>>::try_from_uri(uri) {
        Ok(Query(parameters)) => Ok(parameters),
        Err(error) => Err(ParameterError::new("query", error.to_string())),
    }
}

/// The parameters as pairs of texts.
pub(super) fn pairs(parameters: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

/// The values of `names`, each of which may be given once and no others.
///
/// # Errors
/// Names the parameter at fault.
pub(super) fn take<const N: usize>(
    uri: &Uri,
    names: [&str; N],
) -> Result<[Option<String>; N], ParameterError> {
    let mut values = [const { None }; N];
    for (name, value) in decode(uri)? {
        let place = names.iter().position(|known| *known == name).and_then(|place| values.get_mut(place));
        match place {
            Some(place @ None) => *place = Some(value),
            Some(Some(_)) => return Err(ParameterError::new(&name, format!("{name} is given twice"))),
            None => {
                let known = names.join(", ");
                return Err(ParameterError::new(
                    &name,
                    format!("{name:?} is not a parameter here; known: {known}"),
                ));
            }
        }
    }
    Ok(values)
}

/// A whole number that has to be there.
///
/// # Errors
/// Names the parameter.
pub(super) fn whole_number(name: &'static str, value: Option<&str>) -> Result<u64, ParameterError> {
    let value =
        value.ok_or_else(|| ParameterError::new(name, format!("{name} is needed, a whole number from 0")))?;
    value.parse().map_err(|_| ParameterError::new(name, format!("{name} is a whole number from 0")))
}

/// The format that the client would rather have, of the two there are; the route's own when it does not say.
pub(super) fn format(headers: &HeaderMap, own: Format) -> Format {
    let accepts = |media_type: &str| {
        let mut ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        ranges.any(|value| value.split(',').any(|range| media_range_is(range, media_type)))
    };
    match (accepts(wire::JSON), accepts(wire::NDJSON)) {
        (true, false) => Format::JsonArray,
        (false, true) => Format::Ndjson,
        _ => own,
    }
}

/// Whether a media range or type, with whatever parameters, is this type.
pub(super) fn media_range_is(range: &str, media_type: &str) -> bool {
    let bare = range.split_once(';').map_or(range, |(bare, _)| bare);
    bare.trim().eq_ignore_ascii_case(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_strangers_and_repetitions_are_named() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert_eq!(
            take(&uri("/p?a=1%2B&b=x+y"), ["b", "a"]).unwrap(),
            [Some("x y".into()), Some("1+".into())]
        );
        assert_eq!(take(&uri("/p"), ["a"]).unwrap(), [None]);
        assert_eq!(take(&uri("/p?c=1"), ["a"]).unwrap_err().name, "c");
        assert_eq!(take(&uri("/p?a=1&a=2"), ["a"]).unwrap_err().name, "a");
    }

    #[test]
    fn whole_numbers_have_no_sign_and_no_fraction() {
        assert_eq!(whole_number("limit", Some("18446744073709551615")), Ok(u64::MAX));
        for bad in [None, Some(""), Some("-1"), Some("1.0"), Some("18446744073709551616"), Some("x")] {
            assert!(whole_number("limit", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_format_is_the_one_that_is_accepted_alone() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            format(&headers, Format::Ndjson)
        };
        assert_eq!(of("application/json; charset=utf-8"), Format::JsonArray);
        assert_eq!(of("application/x-ndjson"), Format::Ndjson);
        assert_eq!(of("*/*"), Format::Ndjson);
        assert_eq!(of("application/json, application/x-ndjson"), Format::Ndjson);
    }
}
