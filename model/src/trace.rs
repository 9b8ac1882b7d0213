//! `traceparent` (W3C Trace Context): which trace a request belongs to.
//!
//! edgelog records no spans: it hands a client's `traceparent` on as it is, and puts the trace's id into log lines. A
//! request without one gets one of its own at the ingest, so that its lines can be found together all the same.
//! Pure; chance is passed in.

use std::fmt;

/// The header's name.
pub const TRACEPARENT: &str = "traceparent";

/// Bytes of version 00.
const LENGTH: usize = 55;

/// A `traceparent` that is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Lower-case hexadecimal digits and hyphens.
    text: [u8; LENGTH],
}

impl TraceParent {
    /// Takes a header's value; `None` for what is no `traceparent`. One of a later version is taken as far as version
    /// 00 goes.
    pub fn parse(value: &str) -> Option<Self> {
        let text: [u8; LENGTH] = *value.trim().as_bytes().first_chunk()?;
        let has_more = value.trim().as_bytes().get(LENGTH);
        let digits = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
        let (version, trace, parent, flags) = (digits(0, 2), digits(3, 35), digits(36, 52), digits(53, 55));
        let has_shape = [2, 35, 52].iter().all(|place| text.get(*place) == Some(&b'-'))
            && [version, trace, parent, flags].into_iter().all(is_hex);
        let is_known = version != b"ff"
            && match has_more {
                None => true,
                Some(next) => version != b"00" && *next == b'-',
            };
        (has_shape && is_known && !is_zero(trace) && !is_zero(parent)).then_some(Self { text })
    }

    /// A trace of its own, which nobody records, from random bits.
    pub fn unsampled(random: u128) -> Self {
        // Neither id may be zero.
        let (trace, parent) = (random | 1, (random >> 64) as u64 ^ random as u64 | 1);
        let mut text = [0; LENGTH];
        let formatted = format!("00-{trace:032x}-{parent:016x}-00");
        for (byte, digit) in text.iter_mut().zip(formatted.bytes()) {
            *byte = digit;
        }
        Self { text }
    }

    /// The header's value.
    pub fn as_str(&self) -> &str {
        // It was made of ASCII.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.as_str().get(3..35).unwrap_or_default()
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(&self) -> bool {
        // The lowest bit of the last digit.
        self.text
            .last()
            .is_some_and(|digit| matches!(digit, b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f'))
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_standards_example_is_taken_and_handed_on_unchanged() {
        let trace = TraceParent::parse(GOOD).unwrap();
        assert_eq!(trace.as_str(), GOOD);
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(trace.is_sampled());
        assert!(!TraceParent::parse(&GOOD.replace("-01", "-00")).unwrap().is_sampled());
        assert!(TraceParent::parse(&format!("cc{}-more", &GOOD[2..])).is_some(), "a later version");
    }

    #[test]
    fn what_is_no_traceparent_is_not_taken() {
        for bad in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-x"),
            GOOD.to_uppercase(),
            GOOD.replace("00-4", "ff-4"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf", "4bé"),
            "é".repeat(40),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn one_of_its_own_is_valid_whatever_chance_gives() {
        for random in [0, 1, u128::MAX, 1 << 64, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let own = TraceParent::unsampled(random);
            assert_eq!(TraceParent::parse(own.as_str()), Some(own));
            assert!(!own.is_sampled());
        }
    }
}
