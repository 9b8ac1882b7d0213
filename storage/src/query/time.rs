//! Times as people give them to a search: `2024-06-01T12:00:00Z`, `1717243200000`, `-15m`, `now`.
//!
//! Pure: the time now is passed in.

use jiff::Timestamp;

/// The Unix milliseconds of a time in a query.
///
/// # Errors
/// Says what a time looks like.
pub(super) fn parse(text: &str, now_ms: u64) -> Result<u64, String> {
    if text == "now" {
        return Ok(now_ms);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago_ms = parse_span(ago).map_err(|error| format!("{error}; relative times are like -15m"))?;
        return Ok(now_ms.saturating_sub(ago_ms));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| "the time is too far away".to_owned());
    }
    let timestamp: Timestamp = text.parse().map_err(|_| {
        "a time is RFC 3339 (2024-06-01T12:00:00Z), Unix milliseconds, relative (-15m), or now".to_owned()
    })?;
    // What was before 1970 was before every record.
    Ok(u64::try_from(timestamp.as_millisecond()).unwrap_or(0))
}

/// The milliseconds of a span of time: a whole number with a unit `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// Says what a span looks like.
pub(super) fn parse_span(text: &str) -> Result<u64, String> {
    let span = crate::config::units::parse_duration(text)?;
    u64::try_from(span.as_millis()).map_err(|_| "the time is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn times_are_absolute_or_relative_to_now() {
        for (text, expected) in [
            ("now", NOW),
            ("-15m", NOW - 900_000),
            ("-2d", NOW - 172_800_000),
            ("-500ms", NOW - 500),
            ("1717243200000", 1_717_243_200_000),
            ("0", 0),
            ("2024-06-01T12:00:00Z", 1_717_243_200_000),
            ("2024-06-01T14:00:00.25+02:00", 1_717_243_200_250),
            ("1960-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(parse(text, NOW), Ok(expected), "{text}");
        }
        for bad in ["", "15m", "-15", "yesterday", "--1m", "+1m", "2024-06-01", "1e3", "-1y"] {
            assert!(parse(bad, NOW).is_err(), "{bad}");
        }
    }
}
