//! What a block's messages can hold: a filter of whole words, and one of their grams.
//!
//! Words are in a split-block Bloom filter (as in Apache Parquet's specification, "Bloom filter": blocks of 256 bits,
//! one bit in each of eight words of 32), beside numbers of words' beginnings, of services, and of labels with their
//! values. Grams are one bit each: a literal has several, and each halves the blocks that are left more than once.
//!
//! Invariant: what was put in is found. What was not is found seldom.

use bytes::Bytes;

use super::token;

/// Bits for each word: about one word in 300 that is not there is found all the same.
const BITS_PER_KEY: usize = 12;

/// Share of the gram filter's bits that may be set before it is twice as long.
const GRAM_LOAD_MAX: f64 = 0.3;

/// Share of the bits beyond which a filter of grams tells nothing.
const GRAM_LOAD_USELESS: f64 = 0.6;

const KEY_BLOCK_BYTES: usize = 32;
const HEADER_BYTES: usize = 8;

/// Parquet's multipliers.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// A finished filter: bytes in memory that may be a part of a file's.
#[derive(Clone, Debug)]
pub(crate) struct BlockFilter {
    bytes: Bytes,
    /// Where the grams begin; the words lie between the header and here.
    grams_at: usize,
}

/// Gathers what goes into one block's filter, and is used for the next again.
#[derive(Debug)]
pub(super) struct FilterBuilder {
    keys: Vec<u64>,
    /// Words that were put in last, each in the place that its number gives it. Most words of a log are in it.
    recent: Box<[u64; RECENT_KEYS]>,
    grams: Vec<u64>,
}

const RECENT_KEYS: usize = 4096;

impl FilterBuilder {
    /// An empty builder for a block of about `block_bytes`.
    pub(super) fn new(block_bytes: usize) -> Self {
        Self {
            keys: Vec::new(),
            recent: Box::new([0; RECENT_KEYS]),
            grams: vec![0; gram_words_max(block_bytes)],
        }
    }

    /// Puts in every word between `start` and `end`, which have to be folded.
    #[inline]
    pub(super) fn add_words(&mut self, bytes: &[u8], start: usize, end: usize) {
        token::for_each_word(bytes, start, end, |at, length| {
            if self.add_key(token::word_key(bytes, at, length)) {
                let word = bytes.get(at..at + length).unwrap_or_default();
                if let Some(beginning) = word.first_chunk() {
                    self.add_key(token::beginning_key(*beginning));
                }
                token::for_each_gram(word, |gram| set(&mut self.grams, gram));
            }
        });
    }

    /// Puts in a number; whether it may be new.
    #[inline]
    pub(super) fn add_key(&mut self, key: u64) -> bool {
        // Zero stands for an empty place; a key of zero is put in each time.
        let Some(place) = self.recent.get_mut(key as usize % RECENT_KEYS) else { return true };
        if *place == key && key != 0 {
            return false;
        }
        *place = key;
        self.keys.push(key);
        true
    }

    /// Forgets what was put in.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.recent.fill(0);
        self.grams.fill(0);
    }

    /// The filter of what was put in so far. `block_bytes` bounds how long it gets.
    pub(super) fn filter(&self, block_bytes: usize) -> BlockFilter {
        let grams = fit_grams(&self.grams, gram_words_max(block_bytes));
        let bits_max = block_bytes * 8 / 50;
        let bits = (self.keys.len() * BITS_PER_KEY).min(bits_max.max(KEY_BLOCK_BYTES * 8));
        let mut key_blocks = vec![[0_u32; 8]; bits.div_ceil(KEY_BLOCK_BYTES * 8)];
        let count = key_blocks.len();
        for key in &self.keys {
            if let Some(block) = key_blocks.get_mut(key_block(*key, count)) {
                block.iter_mut().zip(key_masks(*key)).for_each(|(word, mask)| *word |= mask);
            }
        }
        let mut bytes =
            Vec::with_capacity(HEADER_BYTES + key_blocks.len() * KEY_BLOCK_BYTES + grams.len() * 8);
        bytes.extend_from_slice(&(key_blocks.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(grams.len() as u32).to_le_bytes());
        bytes.extend(key_blocks.iter().flatten().flat_map(|word| word.to_le_bytes()));
        let grams_at = bytes.len();
        bytes.extend(grams.iter().flat_map(|word| word.to_le_bytes()));
        BlockFilter { bytes: bytes.into(), grams_at }
    }
}

impl BlockFilter {
    /// The filter that these bytes are; `None` when they are none.
    pub(super) fn from_bytes(bytes: Bytes) -> Option<Self> {
        let key_blocks = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
        let gram_words = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
        let grams_at = HEADER_BYTES + key_blocks * KEY_BLOCK_BYTES;
        let is_whole =
            bytes.len() == grams_at + gram_words * 8 && (gram_words == 0 || gram_words.is_power_of_two());
        is_whole.then_some(Self { bytes, grams_at })
    }

    /// The filter as bytes.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether this number may have been put in.
    pub(crate) fn may_have_key(&self, key: u64) -> bool {
        let count = (self.grams_at - HEADER_BYTES) / KEY_BLOCK_BYTES;
        if count == 0 {
            return false;
        }
        let start = HEADER_BYTES + key_block(key, count) * KEY_BLOCK_BYTES;
        let Some(block) = self.bytes.get(start..).and_then(|rest| rest.first_chunk::<KEY_BLOCK_BYTES>())
        else {
            return true;
        };
        let (words, _) = block.as_chunks::<4>();
        words.iter().zip(key_masks(key)).all(|(word, mask)| u32::from_le_bytes(*word) & mask != 0)
    }

    /// Whether a word with this gram may have been put in.
    pub(crate) fn may_have_gram(&self, gram: u32) -> bool {
        let Some(grams) = self.bytes.get(self.grams_at..).filter(|grams| !grams.is_empty()) else {
            return true;
        };
        let bit = gram as usize & (grams.len() * 8 - 1);
        grams.get(bit / 8).is_none_or(|byte| byte >> (bit % 8) & 1 != 0)
    }
}

fn key_block(key: u64, count: usize) -> usize {
    ((key >> 32) as usize * count) >> 32
}

fn key_masks(key: u64) -> impl Iterator<Item = u32> {
    SALTS.iter().map(move |salt| 1 << ((key as u32).wrapping_mul(*salt) >> 27))
}

fn set(words: &mut [u64], gram: u32) {
    let bit = gram as usize & (words.len() * 64 - 1);
    if let Some(word) = words.get_mut(bit / 64) {
        *word |= 1 << (bit % 64);
    }
}

/// The longest filter of grams for a block: two bits for each byte and then some, a power of two of words.
fn gram_words_max(block_bytes: usize) -> usize {
    (block_bytes / 256).next_power_of_two()
}

/// The grams in as few words as the load allows: halving a filter puts both of its halves over one another.
fn fit_grams(grams: &[u64], words_max: usize) -> Vec<u64> {
    let mut fitted = grams.to_vec();
    loop {
        let ones: u32 = fitted.iter().map(|word| word.count_ones()).sum();
        let load = f64::from(ones) / (fitted.len() * 64) as f64;
        if load > GRAM_LOAD_USELESS {
            return Vec::new();
        }
        if fitted.len() == 1 || (load * 2.0 > GRAM_LOAD_MAX && fitted.len() <= words_max) {
            return fitted;
        }
        let half = fitted.len() / 2;
        let (low, high) = fitted.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low |= *high);
        fitted.truncate(half);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK_BYTES: usize = 256 << 10;

    fn filter_of(messages: &[String]) -> BlockFilter {
        let mut builder = FilterBuilder::new(BLOCK_BYTES);
        for message in messages {
            let folded = token::fold(message);
            builder.add_words(folded.as_bytes(), 0, folded.len());
        }
        let filter = builder.filter(BLOCK_BYTES);
        BlockFilter::from_bytes(filter.bytes().clone()).unwrap()
    }

    #[test]
    fn few_strangers_pass() {
        let mut state = 1_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 16
        };
        let messages: Vec<String> =
            (0..1000).map(|n| format!("user={n} request_id={:012x}", number())).collect();
        let filter = filter_of(&messages);
        let strangers: Vec<String> = (0..20_000).map(|_| format!("{:012x}", number())).collect();
        let words =
            strangers.iter().filter(|word| filter.may_have_key(token::word_key(word.as_bytes(), 0, 12)));
        assert!(words.count() < 200);
        let parts = strangers.iter().filter(|word| {
            let mut passes = true;
            token::for_each_gram(&word.as_bytes()[..8], |gram| passes &= filter.may_have_gram(gram));
            passes
        });
        assert!(parts.count() < 200);
        assert!(filter.bytes().len() < BLOCK_BYTES * 4 / 100, "{}", filter.bytes().len());
    }

    #[test]
    fn a_filter_that_is_full_of_grams_says_nothing_of_them_rather_than_grow() {
        let mut state = 7_u64;
        let messages: Vec<String> = (0..2000)
            .map(|_| {
                let text = (0..20).map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(3);
                    format!("{:011x}", state >> 20)
                });
                text.collect()
            })
            .collect();
        let filter = filter_of(&messages);
        assert!(filter.may_have_gram(0) && filter.may_have_gram(12345));
        assert!(filter.bytes().len() <= BLOCK_BYTES * 2 / 100 + 64);
    }

    proptest! {
        #[test]
        fn every_word_and_every_part_of_one_is_found(
            messages in prop::collection::vec("[a-cA-C0-1_ =\u{e9}\u{c9}]{0,40}", 1..20),
            at: prop::sample::Index, cut: prop::sample::Index, length in 4..10_usize,
        ) {
            let filter = filter_of(&messages);
            let message = token::fold_fully(&messages[at.index(messages.len())]);
            token::for_each_word(message.as_bytes(), 0, message.len(), |start, length| {
                assert!(filter.may_have_key(token::word_key(message.as_bytes(), start, length)));
                if let Some(beginning) = message.as_bytes()[start..start + length].first_chunk() {
                    assert!(filter.may_have_key(token::beginning_key(*beginning)));
                }
                token::for_each_gram(&message.as_bytes()[start..start + length], |gram| assert!(filter.may_have_gram(gram)));
            });
            let start = cut.index(message.len() + 1);
            let part = &message.as_bytes()[start..message.len().min(start + length)];
            token::for_each_word(part, 0, part.len(), |start, length| {
                for window in part[start..start + length].array_windows() {
                    assert!(filter.may_have_gram(token::inner_gram(*window)));
                }
            });
        }

        #[test]
        fn any_bytes_are_a_filter_or_none_and_never_harm(bytes: Vec<u8>, key: u64) {
            if let Some(filter) = BlockFilter::from_bytes(bytes.into()) {
                let _may = filter.may_have_key(key);
                let _may = filter.may_have_gram(key as u32);
            }
        }
    }
}
