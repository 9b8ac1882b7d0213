//! Words of a text, folded, and the numbers that stand for them in a filter.
//!
//! A word is a run of ASCII letters, digits, `_` and characters beyond ASCII; everything else separates words. All is
//! folded to one case before it is numbered, so that one filter serves searches with and without regard to case.
//!
//! Invariant: folding is character by character and keeps the words' bounds, so that the folded form of a part of a
//! text is a part of the folded form of the text.

use std::borrow::Cow;

/// Bytes of a gram: any so many bytes of a word one after another.
pub(crate) const GRAM_BYTES: usize = 4;

/// Odd numbers without structure: the golden ratio's, and the multiplier of SplitMix64's relatives (M. E. O'Neill).
const K0: u64 = 0x9E37_79B9_7F4A_7C15;
const K1: u64 = 0xD6E8_FEB8_6659_FD93;

/// ASCII letters of both cases differ in this bit; of all other characters of words no two do.
const CASE_BITS: u64 = 0x2020_2020_2020_2020;

/// Marks the number of a word's beginning.
const BEGINNING: u64 = 0x0101_0101;

/// Masks of a number's first bytes.
const FIRST_BYTES: [u64; 9] = [
    0,
    0xff,
    0xffff,
    0xff_ffff,
    0xffff_ffff,
    0xff_ffff_ffff,
    0xffff_ffff_ffff,
    0xff_ffff_ffff_ffff,
    u64::MAX,
];

/// Whether a byte belongs to a word.
pub(crate) fn is_word_byte(byte: u8) -> bool {
    (byte | 0x20).wrapping_sub(b'a') < 26 || byte.wrapping_sub(b'0') < 10 || byte == b'_' || byte >= 0x80
}

/// The text in one case: each character by itself, where its other case is one character too.
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        // Letters' case is folded as they are numbered.
        return Cow::Borrowed(text);
    }
    let mut folded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| !byte.is_ascii()) {
        let (plain, other) = rest.split_at(at);
        folded.push_str(plain);
        let mut chars = other.chars();
        folded.extend(chars.next().map(fold_char));
        rest = chars.as_str();
    }
    folded.push_str(rest);
    Cow::Owned(folded)
}

/// The text in one case, letters too; for comparing rather than numbering.
pub(crate) fn fold_fully(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.chars().map(fold_char).collect() }
}

/// One character in the case that stands for both: what its capital's small form is.
pub(crate) fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let upper = only(c.to_uppercase()).unwrap_or(c);
    only(upper.to_lowercase()).unwrap_or(upper)
}

fn only(mut chars: impl ExactSizeIterator<Item = char>) -> Option<char> {
    if chars.len() == 1 { chars.next() } else { None }
}

/// Hands each word between `start` and `end` to `word` as its place and its length. What lies around is looked at for
/// speed only. The text has to be folded by [`fold`].
#[inline]
pub(crate) fn for_each_word(bytes: &[u8], start: usize, end: usize, mut word: impl FnMut(usize, usize)) {
    let mut open: Option<usize> = None;
    let mut at = start;
    while at < end {
        let length = (end - at).min(64);
        let mut mask = word_mask(bytes, at);
        if length < 64 {
            mask &= (1 << length) - 1;
        }
        if let Some(begun) = open {
            let run = mask.trailing_ones() as usize;
            if run == 64 {
                at += 64;
                continue;
            }
            word(begun, at + run - begun);
            open = None;
            mask &= u64::MAX << run;
        }
        while mask != 0 {
            let first = mask.trailing_zeros() as usize;
            let run = (mask >> first).trailing_ones() as usize;
            if first + run == 64 {
                open = Some(at + first);
                break;
            }
            word(at + first, run);
            mask &= u64::MAX << (first + run);
        }
        at += 64;
    }
    if let Some(begun) = open {
        word(begun, end - begun);
    }
}

/// Which of the 64 bytes from `at` on belong to words. The loop is written so that it is compiled to vectors.
#[inline]
fn word_mask(bytes: &[u8], at: usize) -> u64 {
    let mut padded = [0; 64];
    let chunk: &[u8; 64] = match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(chunk) => chunk,
        None => {
            let rest = bytes.get(at..).unwrap_or_default();
            padded.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            &padded
        }
    };
    let flags = chunk.map(|byte| u8::from(is_word_byte(byte)));
    let (eights, _) = flags.as_chunks::<8>();
    // The product gathers the lowest bits of eight bytes in its highest byte.
    eights.iter().zip((0..64).step_by(8)).fold(0, |mask, (eight, shift)| {
        mask | (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) << shift
    })
}

/// The number of a word. What lies behind it is looked at for speed only.
#[inline]
pub(crate) fn word_key(bytes: &[u8], start: usize, length: usize) -> u64 {
    if length <= 16
        && let Some(window) = bytes.get(start..).and_then(|rest| rest.first_chunk::<16>())
    {
        let both = u128::from_le_bytes(*window);
        return short_key(both as u64, (both >> 64) as u64, length);
    }
    let word = bytes.get(start..start + length).unwrap_or_default();
    if length <= 16 {
        let mut window = [0; 16];
        window.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
        let both = u128::from_le_bytes(window);
        return short_key(both as u64, (both >> 64) as u64, length);
    }
    let (eights, _) = word.as_chunks::<8>();
    let last = word.last_chunk::<8>().copied().unwrap_or_default();
    let key = eights
        .iter()
        .fold(length as u64, |key, eight| mix(key ^ K0 ^ (u64::from_le_bytes(*eight) | CASE_BITS), K1));
    mix(key ^ K0 ^ (u64::from_le_bytes(last) | CASE_BITS), K1)
}

#[inline]
fn short_key(low: u64, high: u64, length: usize) -> u64 {
    let kept = |bytes: usize| FIRST_BYTES.get(bytes).copied().unwrap_or(u64::MAX);
    let low = low & kept(length.min(8));
    let high = high & kept(length.saturating_sub(8));
    mix((low | CASE_BITS) ^ K0, (high | CASE_BITS) ^ K1 ^ ((length as u64) << 56))
}

/// The number of a service's name.
pub(crate) fn service_key(name: &[u8]) -> u64 {
    mix(exact_key(name) ^ K0, 1 ^ K1)
}

/// The number of a label with its value.
pub(crate) fn label_key(name: &[u8], value: &[u8]) -> u64 {
    mix(exact_key(name) ^ K0, exact_key(value) ^ K1)
}

/// The number of bytes, case and all.
fn exact_key(bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let key =
        eights.iter().fold(bytes.len() as u64, |key, eight| mix(key ^ K0 ^ u64::from_le_bytes(*eight), K1));
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    mix(key ^ K0 ^ u64::from_le_bytes(last), K1)
}

/// Hands the number of each gram of a word to `gram`.
#[inline]
pub(crate) fn for_each_gram(word: &[u8], mut gram: impl FnMut(u32)) {
    for window in word.array_windows() {
        gram(inner_gram(*window));
    }
}

/// The number of the words that begin with these bytes.
#[inline]
pub(crate) fn beginning_key(bytes: [u8; GRAM_BYTES]) -> u64 {
    mix(u64::from(u32::from_le_bytes(bytes) | CASE_BITS as u32) ^ K0, BEGINNING ^ K1)
}

/// The number of these bytes anywhere in a word.
#[inline]
pub(crate) fn inner_gram(bytes: [u8; GRAM_BYTES]) -> u32 {
    spread(u32::from_le_bytes(bytes) | CASE_BITS as u32)
}

fn spread(gram: u32) -> u32 {
    (u64::from(gram).wrapping_mul(K0) >> 32) as u32
}

/// Both halves of the product of two numbers (as in wyhash).
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &[u8], start: usize, end: usize) -> Vec<&[u8]> {
        let mut words = Vec::new();
        for_each_word(text, start, end, |at, length| words.push(&text[at..at + length]));
        words
    }

    #[test]
    fn words_are_letters_digits_underscores_and_what_is_beyond_ascii() {
        let text = "user=4 request_id=9f2C, \"Frühjahr\"!".as_bytes();
        let expected = ["user", "4", "request_id", "9f2C", "Frühjahr"].map(str::as_bytes);
        assert_eq!(words(text, 0, text.len()), expected);
    }

    #[test]
    fn case_is_folded_one_character_for_one() {
        for (text, folded) in
            [("ÄÖ", "äö"), ("ΣΑΣ", "σας"), ("\u{212a}elvin", "kelvin"), ("ſ", "s"), ("İ", "İ")]
        {
            assert_eq!(fold_fully(text).chars().count(), text.chars().count(), "{text}");
            if text != "ΣΑΣ" {
                assert_eq!(fold_fully(text), folded);
            }
        }
        assert_eq!(fold_fully("ς"), fold_fully("Σ"));
        assert_eq!(fold_fully("STRASSE straße"), "strasse straße");
    }

    proptest! {
        #[test]
        fn words_are_found_wherever_they_lie(text in "[a-zA-Z0-9_ =.\u{e9}]{0,200}", before: u8, behind: Vec<u8>) {
            let start = before as usize % 70;
            let mut bytes = vec![b'x'; start];
            bytes.extend_from_slice(text.as_bytes());
            let end = bytes.len();
            bytes.extend_from_slice(&behind);
            let expected: Vec<&[u8]> = text
                .as_bytes()
                .split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80))
                .filter(|word| !word.is_empty())
                .collect();
            prop_assert_eq!(words(&bytes, start, end), expected);
        }

        #[test]
        fn a_words_number_depends_on_its_bytes_alone_and_not_on_their_case(
            word in "[a-zA-Z0-9_]{1,40}", before in 0..70_usize, behind: Vec<u8>,
        ) {
            let alone = word_key(word.as_bytes(), 0, word.len());
            let mut bytes = vec![b' '; before];
            bytes.extend_from_slice(word.as_bytes());
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(word_key(&bytes, before, word.len()), alone);
            let upper = word.to_uppercase();
            prop_assert_eq!(word_key(upper.as_bytes(), 0, upper.len()), alone);
            let longer = format!("{word}x");
            prop_assert_ne!(word_key(longer.as_bytes(), 0, longer.len()), alone);
        }

        #[test]
        fn folding_keeps_parts_and_the_bounds_of_words(before: String, part: String, behind: String) {
            let whole = fold_fully(&format!("{before}{part}{behind}"));
            let joined = [&before, &part, &behind].map(|text| fold_fully(text)).concat();
            prop_assert_eq!(whole, joined);
            for c in part.chars() {
                let is_word = |c: char| c.to_string().bytes().all(is_word_byte);
                prop_assert_eq!(is_word(c), is_word(fold_char(c)));
            }
        }
    }
}
