//! RFC 3339 timestamps as Unix milliseconds.
//!
//! Written out here because the general parsers take a superset (ISO 8601, RFC 9557) or end before the year 9999.

/// The Unix milliseconds of an RFC 3339 timestamp; what is finer than a millisecond is cut off. `None` if the text is
/// something else. A leap second counts as the first of the next minute, as in Unix time.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let mut rest = text.as_bytes();
    let year = number(&mut rest, 4)?;
    take(&mut rest, b"-")?;
    let month = number(&mut rest, 2).filter(|month| (1..=12).contains(month))?;
    take(&mut rest, b"-")?;
    let day = number(&mut rest, 2).filter(|day| (1..=days_of_month(year, month)).contains(day))?;
    // RFC 3339 §5.6 allows the lower case, and a space for readability.
    take(&mut rest, b"Tt ")?;
    let hour = number(&mut rest, 2).filter(|hour| *hour <= 23)?;
    take(&mut rest, b":")?;
    let minute = number(&mut rest, 2).filter(|minute| *minute <= 59)?;
    take(&mut rest, b":")?;
    let second = number(&mut rest, 2).filter(|second| *second <= 60)?;
    let milliseconds = if take(&mut rest, b".").is_some() { fraction(&mut rest)? } else { 0 };
    let offset_minutes = offset(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1000 + milliseconds)
}

/// Takes one of these bytes.
fn take(rest: &mut &[u8], one_of: &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    one_of.contains(first).then(|| {
        *rest = after;
        *first
    })
}

/// Takes a number of so many digits.
fn number(rest: &mut &[u8], digits: usize) -> Option<i64> {
    let (number, after) = rest.split_at_checked(digits)?;
    *rest = after;
    number
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// Takes the digits behind the decimal point: milliseconds.
fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, after) = rest.split_at_checked(length)?;
    *rest = after;
    let first_three = digits.iter().chain(b"00").take(3);
    (length > 0).then(|| first_three.fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

/// Takes the offset from UTC, in minutes.
fn offset(rest: &mut &[u8]) -> Option<i64> {
    match take(rest, b"Zz+-")? {
        b'Z' | b'z' => Some(0),
        sign => {
            let hours = number(rest, 2).filter(|hours| *hours <= 23)?;
            take(rest, b":")?;
            let minutes = number(rest, 2).filter(|minutes| *minutes <= 59)?;
            let offset = hours * 60 + minutes;
            Some(if sign == b'-' { -offset } else { offset })
        }
    }
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let is_leap_year = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(is_leap_year),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to this date of the Gregorian calendar: Howard Hinnant's `days_from_civil`, in which years
/// begin with March so that the leap day is the last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_rfc_3339_have_their_instants() {
        for (text, expected) in [
            ("1985-04-12T23:20:50.52Z", 482_196_050_520),
            ("1996-12-19T16:39:57-08:00", 851_042_397_000),
            ("1990-12-31T23:59:60Z", 662_688_000_000),
            ("1937-01-01T12:00:27.87+00:20", -1_041_337_172_130),
            ("1970-01-01t00:00:00z", 0),
            ("1970-01-01 00:00:00.0019Z", 1),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            ("2024-02-29T00:00:00-00:00", 1_709_164_800_000),
        ] {
            assert_eq!(parse_rfc3339(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_timestamps() {
        for text in [
            "",
            "now",
            "1700000000000",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-32T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:61Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00,5Z",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:00+01",
            "2024-01-01T00:00:00Zx",
            " 2024-01-01T00:00:00Z",
            "24-01-01T00:00:00Z",
            "+002024-01-01T00:00:00Z",
            "2024-01-01T00:00:00Z[UTC]",
            "２024-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(ms in -62_167_219_200_000i64..253_402_207_200_000, offset_minutes in -1439i64..=1439) {
            let local = jiff::Timestamp::from_millisecond(ms + offset_minutes * 60_000);
            let Ok(local) = local else { return Ok(()) };
            let local = local.to_string();
            prop_assume!(!local.starts_with(['-', '+']));
            let sign = if offset_minutes < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset_minutes.abs() / 60, offset_minutes.abs() % 60);
            let text = format!("{}{sign}{hours:02}:{minutes:02}", local.trim_end_matches('Z'));
            prop_assert_eq!(parse_rfc3339(&text), Some(ms), "{}", text);
        }

        #[test]
        fn never_panics(text: String) {
            let _ignored = parse_rfc3339(&text);
        }
    }
}
