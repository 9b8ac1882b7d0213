//! Chance that can be repeated.
//!
//! Invariant: all chance of a test comes from one seed, which stands in its output.

use std::hash::{BuildHasher, RandomState};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The variable that repeats a run.
const SEED_VARIABLE: &str = "EDGELOG_SEED";

/// A random number generator whose seed is printed, and taken from `EDGELOG_SEED` where that is set.
pub fn seeded() -> ChaCha8Rng {
    let seed: u64 = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().expect("EDGELOG_SEED is a whole number"),
        // The standard library draws new keys for each; 32 bits are enough to differ in and short to type again.
        Err(_) => RandomState::new().hash_one(0) & 0xffff_ffff,
    };
    eprintln!("seed {seed} ({SEED_VARIABLE}={seed} repeats it)");
    ChaCha8Rng::seed_from_u64(seed)
}

/// How often a test kills what it kills; `EDGELOG_KILL_ROUNDS` says otherwise.
const KILL_ROUNDS: usize = 5;

/// How often a test of crashes kills a process.
pub fn kill_rounds() -> usize {
    std::env::var("EDGELOG_KILL_ROUNDS").map_or(KILL_ROUNDS, |text| text.parse().expect("a whole number"))
}

/// A number that another run, test or call hardly ever draws: for names that must not meet.
pub fn nonce() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
