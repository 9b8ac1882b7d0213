//! The keys of the edge WAL's entries.
//!
//! `wal.<partition>.<place>.<batch id>.<batch digest>.<piece>.<pieces>.<bytes>.<records>`: all that a decision about an
//! entry needs stands in its keys, so that one listing of keys is the whole truth on what the WAL holds. There is no
//! counter beside it that a crash could leave wrong.
//!
//! Invariant: the text of a key that was parsed is the text that its parts are written as; of one partition, keys sort
//! by place, then by piece.

use std::fmt;
use std::str::FromStr;

use model::{BatchDigest, BatchId, Partition};
use uuid::Uuid;

/// What the keys of entries begin with.
const PREFIX: &str = "wal.";

/// What the keys of entries that were set aside begin with.
const SET_ASIDE_PREFIX: &str = "wal-bad.";

/// The key of the last error.
pub(super) const ERROR_KEY: &str = "wal-error";

/// An entry's place among those of its partition: a UUIDv7, whose 12 bits behind the time count within a millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u128);

/// Milliseconds have 48 bits of a UUIDv7.
const TIME_SHIFT: u32 = 80;
const COUNT_SHIFT: u32 = 64;
const COUNT_MAX: u128 = 0xfff;
const VERSION: u128 = 7 << 76;
const VARIANT: u128 = 2 << 62;
const CHANCE: u128 = (1 << 62) - 1;

impl Place {
    /// A place behind `last`, whatever the clock says. `chance` tells it from one that another chose at the same time.
    pub fn after(last: Option<Place>, now_ms: u64, chance: u64) -> Self {
        let now_ms = u128::from(now_ms) & ((1 << 48) - 1);
        let (ms, count) = match last.map(Self::parts) {
            Some((ms, COUNT_MAX)) if ms >= now_ms => (ms + 1, 0),
            Some((ms, count)) if ms >= now_ms => (ms, count + 1),
            _ => (now_ms, 0),
        };
        let chance = u128::from(chance) & CHANCE;
        Self(ms << TIME_SHIFT | VERSION | count << COUNT_SHIFT | VARIANT | chance)
    }

    /// When it was chosen, Unix milliseconds: no later than that by the clock of the time, as a rule.
    pub fn time_ms(self) -> u64 {
        u64::try_from(self.parts().0).unwrap_or(u64::MAX)
    }

    fn parts(self) -> (u128, u128) {
        (self.0 >> TIME_SHIFT, self.0 >> COUNT_SHIFT & COUNT_MAX)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_u128(self.0).simple().fmt(f)
    }
}

/// The key of one piece of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceKey {
    /// The partition.
    pub partition: Partition,
    /// The entry's place.
    pub place: Place,
    /// The batch.
    pub id: BatchId,
    /// Tells a repetition of the batch from other content under its id.
    pub digest: BatchDigest,
    /// Which piece, from zero.
    pub piece: u16,
    /// How many there are.
    pub pieces: u16,
    /// Bytes of the piece's value.
    pub bytes: u32,
    /// Records of the whole batch.
    pub records: u32,
}

impl PieceKey {
    /// Whether it is a piece of the same entry as `other`.
    pub fn is_of_same_entry(&self, other: &Self) -> bool {
        let entry = |key: &Self| (key.partition, key.place, key.id, key.digest, key.pieces, key.records);
        entry(self) == entry(other)
    }

    /// The key under which the piece is kept when its entry is set aside.
    pub fn set_aside(&self) -> String {
        let text = self.to_string();
        format!("{SET_ASIDE_PREFIX}{}", text.strip_prefix(PREFIX).unwrap_or(&text))
    }
}

impl fmt::Display for PieceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, place, id, digest, piece, pieces, bytes, records } = self;
        let id = Uuid::from_bytes(id.to_bytes()).simple();
        let partition = partition.get();
        write!(f, "{PREFIX}{partition:04}.{place}.{id}.{digest}.{piece:03}.{pieces:03}.{bytes}.{records}")
    }
}

/// What a key of the store stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A piece of an entry.
    Piece(PieceKey),
    /// A piece of an entry that was set aside.
    SetAside(PieceKey),
    /// Nothing of the WAL's: the store may be used by others too.
    Foreign,
}

impl Key {
    /// What this key stands for.
    pub(super) fn parse(text: &str) -> Self {
        let (rest, kind): (_, fn(PieceKey) -> Self) = match text.strip_prefix(PREFIX) {
            Some(rest) => (rest, Self::Piece),
            None => match text.strip_prefix(SET_ASIDE_PREFIX) {
                Some(rest) => (rest, Self::SetAside),
                None => return Self::Foreign,
            },
        };
        // Whoever deletes or reads an entry writes its key anew: only what comes out the same may pass.
        let parsed = parse_parts(rest).filter(|key| key.to_string().strip_prefix(PREFIX) == Some(rest));
        parsed.map_or(Self::Foreign, kind)
    }
}

fn parse_parts(text: &str) -> Option<PieceKey> {
    let mut parts = text.split('.');
    let key = PieceKey {
        partition: next(&mut parts)?,
        place: Place(Uuid::try_parse(parts.next()?).ok()?.as_u128()),
        id: next(&mut parts)?,
        digest: next(&mut parts)?,
        piece: next(&mut parts)?,
        pieces: next(&mut parts)?,
        bytes: next(&mut parts)?,
        records: next(&mut parts)?,
    };
    (parts.next().is_none() && key.piece < key.pieces).then_some(key)
}

fn next<'a, T: FromStr>(parts: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    parts.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use model::Tenant;
    use proptest::prelude::*;

    use super::*;

    fn key() -> PieceKey {
        let partition = Partition::new(3);
        PieceKey {
            partition,
            place: Place::after(None, 1_700_000_000_000, 7),
            id: BatchId::derive(&Tenant::default(), "k", partition),
            digest: BatchDigest::of(b"x"),
            piece: 1,
            pieces: 12,
            bytes: 921_600,
            records: 1_000,
        }
    }

    #[test]
    fn a_key_tells_all_of_its_entry_and_is_frozen() {
        expect!["wal.0003.018bcfe5680070008000000000000007.64649217c49f5cfaa21c5d20b6e2b021.eaf06c6480b2cd11.001.012.921600.1000"]
            .assert_eq(&key().to_string());
        assert_eq!(Key::parse(&key().to_string()), Key::Piece(key()));
        assert_eq!(Key::parse(&key().set_aside()), Key::SetAside(key()));
        let uuid = Uuid::parse_str(&key().place.to_string()).unwrap();
        assert_eq!((uuid.get_version_num(), key().place.time_ms()), (7, 1_700_000_000_000));
    }

    #[test]
    fn what_is_written_otherwise_is_foreign() {
        let text = key().to_string();
        let swapped = |from: &str, to: &str| text.replacen(from, to, 1);
        for foreign in [
            "".to_owned(),
            "wal.".to_owned(),
            ERROR_KEY.to_owned(),
            "x".to_owned() + &text,
            text.clone() + ".1",
            swapped("wal.0003", "wal.3"),
            swapped("wal.0003", "wal.1024"),
            swapped(".001.", ".012."),
            swapped(".1000", ".+1000"),
            text.to_uppercase(),
        ] {
            assert_eq!(Key::parse(&foreign), Key::Foreign, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_places_always_grow(text in "(wal|wal-bad)?[.0-9a-f]{0,140}", now_ms: u64, back in 0u64..5, chance: u64) {
            Key::parse(&text);
            let now_ms = now_ms & ((1 << 47) - 1);
            let mut last = Place::after(None, now_ms, chance);
            for step in 0..3 {
                let next = Place::after(Some(last), now_ms.saturating_sub(back), chance ^ step);
                prop_assert!(next > last && next.to_string() > last.to_string());
                last = next;
            }
        }
    }

    #[test]
    fn more_places_than_a_millisecond_has_go_on_in_the_next() {
        let mut last = Place::after(None, 5, u64::MAX);
        for _ in 0..10_000 {
            let next = Place::after(Some(last), 5, u64::MAX);
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.time_ms(), 7);
    }
}
