//! A column of numbers in as few bits as they need.
//!
//! Runs of 128 numbers share a least value and a width, so that an outlier costs its own run only. Decoding is a load,
//! a shift and a mask for each number.

use super::varint;

/// Numbers of one run.
const RUN: usize = 128;

/// The widest number: what one unaligned load of eight bytes holds wherever it begins.
const WIDTH_MAX: u32 = 57;

/// Appends the numbers, each below 2⁵⁷ beyond the least of its run; larger ones are cut off.
pub(super) fn write(out: &mut Vec<u8>, numbers: &[u64]) {
    for run in numbers.chunks(RUN) {
        let least = run.iter().copied().min().unwrap_or_default();
        let span = run.iter().copied().max().unwrap_or_default() - least;
        let width = (u64::BITS - span.leading_zeros()).min(WIDTH_MAX);
        out.push(width as u8);
        varint::write(out, least);
        write_bits(out, run, least, width);
    }
}

fn write_bits(out: &mut Vec<u8>, run: &[u64], least: u64, width: u32) {
    let (mut held, mut held_bits) = (0_u128, 0);
    for number in run {
        held |= u128::from((number - least) & mask(width)) << held_bits;
        held_bits += width;
        while held_bits >= 8 {
            out.push(held as u8);
            held >>= 8;
            held_bits -= 8;
        }
    }
    if held_bits > 0 {
        out.push(held as u8);
    }
}

/// Takes `count` numbers from the front and appends them to `numbers`; `None` when there are not so many.
pub(super) fn read(bytes: &mut &[u8], count: usize, numbers: &mut Vec<u64>) -> Option<()> {
    numbers.reserve(count);
    let mut left = count;
    while left > 0 {
        let length = left.min(RUN);
        let (width, rest) = bytes.split_first()?;
        *bytes = rest;
        let width = u32::from(*width);
        if width > WIDTH_MAX {
            return None;
        }
        let least = varint::read(bytes)?;
        let run_bytes = (length * width as usize).div_ceil(8);
        let (run, rest) = bytes.split_at_checked(run_bytes)?;
        read_bits(run, bytes, length, width, |offset| numbers.push(least.wrapping_add(offset)));
        *bytes = rest;
        left -= length;
    }
    Some(())
}

/// Takes the bits of one run apart. `bytes` begins with the run and may go on, which makes the loads of its end cheap.
fn read_bits(run: &[u8], bytes: &[u8], length: usize, width: u32, mut number: impl FnMut(u64)) {
    let mask = mask(width);
    for place in 0..length {
        let bit = place * width as usize;
        let word = match bytes.get(bit / 8..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(word) => u64::from_le_bytes(*word),
            None => {
                let mut word = [0; 8];
                let last = run.get(bit / 8..).unwrap_or_default();
                word.iter_mut().zip(last).for_each(|(to, from)| *to = *from);
                u64::from_le_bytes(word)
            }
        };
        number(word >> (bit % 8) & mask);
    }
}

fn mask(width: u32) -> u64 {
    (1 << width) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(
            numbers in prop::collection::vec(prop_oneof![0..300_u64, 0..(1_u64 << 57)], 0..400),
            behind: Vec<u8>,
        ) {
            let mut bytes = Vec::new();
            write(&mut bytes, &numbers);
            let length = bytes.len();
            bytes.extend_from_slice(&behind);
            let (mut rest, mut back) = (&bytes[..], Vec::new());
            prop_assert!(read(&mut rest, numbers.len(), &mut back).is_some());
            prop_assert_eq!(&back, &numbers);
            prop_assert_eq!(rest.len(), bytes.len() - length);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>, count in 0..1000_usize) {
            let (mut rest, mut numbers) = (&bytes[..], Vec::new());
            let _is_whole = read(&mut rest, count, &mut numbers);
            prop_assert!(numbers.len() <= count);
        }
    }
}
