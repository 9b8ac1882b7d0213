//! gzip bodies. Each member's CRC and length are checked; members may follow one another.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use super::DecodeError;
use crate::budget::{Budget, Metered};

/// Log records shrink to a tenth and less; a buffer of four times the compressed size seldom grows more than twice.
const GROWTH_EXPECTED: usize = 4;

/// Bytes by which the buffer grows at least.
const GROWTH_BYTES_MIN: usize = 16 << 10;

pub(super) fn decode<'b>(
    body: &[u8],
    bytes_max: usize,
    budget: &'b Budget,
) -> Result<Metered<'b>, DecodeError> {
    if body.is_empty() {
        return Err(damaged("it is empty"));
    }
    let capacity_max = bytes_max.saturating_add(1);
    let mut out = Metered::new(budget);
    let expected = body.len().saturating_mul(GROWTH_EXPECTED).max(GROWTH_BYTES_MIN);
    out.reserve(expected.min(capacity_max), capacity_max)?;
    let mut decoder = MultiGzDecoder::new(body);
    loop {
        let length = out.bytes().len();
        if length > bytes_max {
            return Err(DecodeError::TooLarge(bytes_max));
        }
        if length == out.bytes_mut().capacity() {
            out.reserve(GROWTH_BYTES_MIN.min(capacity_max - length), capacity_max)?;
        }
        let bytes = out.bytes_mut();
        bytes.resize(bytes.capacity(), 0);
        let read = decoder.read(bytes.get_mut(length..).unwrap_or_default());
        bytes.truncate(length + read.as_ref().copied().unwrap_or_default());
        match read {
            Ok(0) => return Ok(out),
            Ok(_more) => {}
            Err(error) => return Err(damaged(&error.to_string())),
        }
    }
}

fn damaged(reason: &str) -> DecodeError {
    DecodeError::Damaged { encoding: "gzip", reason: reason.to_owned() }
}
