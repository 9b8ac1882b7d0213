//! Sizes and times as people write them: `256MiB`, `7d`, `never`.
//!
//! Pure: text to number. Knows nothing of what the numbers bound.

use std::time::Duration;

/// Parses a size in bytes: a whole number with an optional unit `B`, `KB`, `MB`, `GB`, `TB` (powers of 1000) or
/// `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024), in any case.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1000,
        "mb" | "m" => 1000_u64.pow(2),
        "gb" | "g" => 1000_u64.pow(3),
        "tb" | "t" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(format!("unknown unit {unit:?}: a size is written like 256MiB or 10GB")),
    };
    let number: u64 =
        number.parse().map_err(|_| "a size is a whole number with a unit, like 256MiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "the size is too large".to_owned())
}

/// Parses a size that has to fit into memory, as [`parse_bytes`] does.
pub fn parse_memory_bytes(text: &str) -> Result<usize, String> {
    usize::try_from(parse_bytes(text)?).map_err(|_| "the size is too large".to_owned())
}

/// Parses a time: a whole number with a unit `ms`, `s`, `m`, `h` or `d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        "" => return Err("a time needs a unit, like 10s, 6h or 7d".to_owned()),
        _ => return Err(format!("unknown unit {unit:?}: a time is written like 500ms, 10s, 5m, 6h or 7d")),
    };
    let number: u64 =
        number.parse().map_err(|_| "a time is a whole number with a unit, like 10s".to_owned())?;
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(|| "the time is too long".to_owned())
}

/// An age at which something happens; `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub Option<Duration>);

/// Parses an age: a time as [`parse_duration`] takes it, or `never`.
pub fn parse_age(text: &str) -> Result<Age, String> {
    if text.trim().eq_ignore_ascii_case("never") {
        return Ok(Age(None));
    }
    parse_duration(text).map(|age| Age(Some(age))).map_err(|error| format!("{error}, or never"))
}

/// The digits in front, and what follows them.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        assert_eq!(parse_bytes("256MiB"), Ok(256 << 20));
        assert_eq!(parse_bytes("10 GB"), Ok(10_000_000_000));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        for bad in ["", "MiB", "-1", "1.5GiB", "1XB", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_age_may_be_never() {
        assert_eq!(parse_age("never"), Ok(Age(None)));
        assert_eq!(parse_age("6h"), Ok(Age(Some(Duration::from_secs(6 * 3600)))));
        assert!(parse_age("soon").is_err());
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 24 * 3600)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["10", "", "s", "1y", "-1s", "18446744073709551615d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }
}
