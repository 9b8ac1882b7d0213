//! What is asked of bytes so often that it has to be fast on wasm too, where a library's comparison goes a byte at a
//! time.
//!
//! Invariant: the same answer on every target, which the tests compare with a naive one.

/// How many bytes come before the first quote, backslash or control character.
#[inline]
pub fn plain_prefix_len(bytes: &[u8]) -> usize {
    let (blocks, tail) = bytes.as_chunks::<16>();
    for (place, block) in blocks.iter().enumerate() {
        if let Some(found) = first_special(block) {
            return place * 16 + found;
        }
    }
    blocks.len() * 16 + tail.iter().take_while(|byte| !is_special(**byte)).count()
}

/// The number that `bytes` begins with, and of how many decimal digits it is: all that there are, but no more than the 19
/// of which every number fits. Whether another follows is the caller's to look.
#[inline]
pub fn leading_number(bytes: &[u8]) -> (u64, usize) {
    let (mut number, mut digits) = (0, 0);
    // Unix milliseconds have 13 digits until the year 2286: eight at a time, and then one by one.
    if let Some(eight) = bytes.first_chunk().and_then(|eight| eight_digits(*eight)) {
        (number, digits) = (eight, 8);
    }
    while digits < NUMBER_DIGITS_MAX
        && let Some(digit @ b'0'..=b'9') = bytes.get(digits)
    {
        number = number * 10 + u64::from(digit - b'0');
        digits += 1;
    }
    (number, digits)
}

/// Decimal digits of which every number fits 64 bits.
const NUMBER_DIGITS_MAX: usize = 19;

/// The number of eight decimal digits: pairs, then pairs of pairs, then both (D. Lemire, "Quickly parsing eight
/// digits").
#[inline]
fn eight_digits(digits: [u8; 8]) -> Option<u64> {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_le_bytes(digits);
    let values = word.wrapping_sub(ONES * b'0' as u64);
    // A byte below '0' borrows and one above '9' carries into the high half of its byte.
    if (values | values.wrapping_add(ONES * 6)) & (ONES * 0xf0) != 0 {
        return None;
    }
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = (pairs >> 16 & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some(low.wrapping_add(high) >> 32)
}

/// Whether two texts are the same.
#[inline(always)]
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let ((left, left_tail), (right, right_tail)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let words = left.iter().zip(right);
    let words = words
        .fold(0, |found, (left, right)| found | (u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right)));
    let tail = left_tail.iter().zip(right_tail).fold(0, |found, (left, right)| found | (left ^ right));
    words | u64::from(tail) == 0
}

#[inline]
fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// The place of the first quote, backslash or control character.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline(always)]
fn first_special(block: &[u8; 16]) -> Option<usize> {
    use core::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_lt, u8x16_splat, u64x2, v128_or};
    let [low, high] = words(block);
    let block = u64x2(low, high);
    let quotes = u8x16_eq(block, u8x16_splat(b'"'));
    let backslashes = u8x16_eq(block, u8x16_splat(b'\\'));
    let controls = u8x16_lt(block, u8x16_splat(0x20));
    let found = u8x16_bitmask(v128_or(v128_or(quotes, backslashes), controls));
    (found != 0).then(|| found.trailing_zeros() as usize)
}

/// The place of the first quote, backslash or control character.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(unsafe_code, reason = "SSE2 is a part of x86-64, which the compiler does not take for granted")]
fn first_special(block: &[u8; 16]) -> Option<usize> {
    use core::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };
    let [low, high] = words(block).map(u64::cast_signed);
    // SAFETY: these are SSE2's, which every x86-64 has, and none of them touches memory.
    let found = unsafe {
        let block = _mm_set_epi64x(high, low);
        let quotes = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'"'.cast_signed()));
        let backslashes = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'\\'.cast_signed()));
        let controls = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quotes, backslashes), controls))
    };
    (found != 0).then(|| found.trailing_zeros() as usize)
}

/// The place of the first quote, backslash or control character.
#[cfg(not(any(all(target_arch = "wasm32", target_feature = "simd128"), target_arch = "x86_64")))]
#[inline(always)]
fn first_special(block: &[u8; 16]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    // Each term sets the high bit of the bytes that match (and perhaps of bytes behind a match, which do not matter):
    // "Bit Twiddling Hacks" (S. E. Anderson), "Determine if a word has a byte less than n".
    let [low, high] = words(block).map(|word| {
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        (quote.wrapping_sub(ONES) & !quote
            | backslash.wrapping_sub(ONES) & !backslash
            | word.wrapping_sub(ONES * 0x20) & !word)
            & HIGHS
    });
    match (low, high) {
        (0, 0) => None,
        (0, high) => Some(8 + high.trailing_zeros() as usize / 8),
        (low, _) => Some(low.trailing_zeros() as usize / 8),
    }
}

#[inline(always)]
fn words(block: &[u8; 16]) -> [u64; 2] {
    let word = u128::from_le_bytes(*block);
    [word as u64, (word >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_at_every_place_of_a_block_is_judged_as_by_itself() {
        for byte in 0..=u8::MAX {
            for place in 0..40 {
                let mut text = [b'x'; 40];
                text[place] = byte;
                let expected = if is_special(byte) { place } else { 40 };
                assert_eq!(plain_prefix_len(&text), expected, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn a_byte_that_is_no_digit_ends_a_number_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for place in 0..20 {
                let mut text = *b"12345678901234567890";
                text[place] = byte;
                let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count().min(19);
                let number = std::str::from_utf8(&text[..digits]).unwrap().parse().unwrap_or(0);
                assert_eq!(leading_number(&text), (number, digits), "{byte:#x} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn numbers_are_what_the_library_reads(number: u64, behind in "[^0-9]?") {
            let digits = number.to_string();
            let (read, length) = leading_number(format!("{digits}{behind}").as_bytes());
            if digits.len() <= NUMBER_DIGITS_MAX {
                prop_assert_eq!((read, length), (number, digits.len()));
            } else {
                prop_assert_eq!((read, length), (number / 10, NUMBER_DIGITS_MAX));
            }
        }

        #[test]
        fn texts_are_equal_as_the_library_says(mut left in prop::collection::vec(0_u8..3, 0..40), flip in any::<prop::sample::Index>(), cut in 0_usize..2) {
            let right = left.clone();
            prop_assert!(equal(&left, &right));
            left.truncate(left.len().saturating_sub(cut));
            if !left.is_empty() && cut == 0 {
                let place = flip.index(left.len());
                left[place] ^= 1 << (place % 8);
            }
            prop_assert_eq!(equal(&left, &right), left == right);
        }
    }
}
