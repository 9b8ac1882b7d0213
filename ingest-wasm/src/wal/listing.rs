//! What the edge WAL holds, from one listing of its store's keys.
//!
//! Pure. Invariant: an entry whose pieces are not all there is never among those that count as held: it was not
//! acknowledged, or it was stored and is just being deleted.

use std::collections::BTreeMap;

use model::{BatchDigest, BatchId, Partition};

use super::key::{Key, PieceKey, Place};

/// One batch in the WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The keys of its pieces, in order, at least one.
    pieces: Vec<PieceKey>,
}

impl Entry {
    /// Its partition's number.
    pub fn partition(&self) -> Option<Partition> {
        self.pieces.first().map(|key| key.partition)
    }

    /// The keys of its pieces, in order.
    pub fn pieces(&self) -> &[PieceKey] {
        &self.pieces
    }

    /// Bytes of its values.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|key| u64::from(key.bytes)).sum()
    }

    /// Records of its batch.
    pub fn records(&self) -> u64 {
        self.pieces.first().map_or(0, |key| key.records.into())
    }

    /// Its place among the entries of its partition.
    pub fn place(&self) -> Option<Place> {
        self.pieces.first().map(|key| key.place)
    }

    /// How long ago it was written, in milliseconds.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        self.place().map_or(0, |place| now_ms.saturating_sub(place.time_ms()))
    }

    fn is_whole(&self) -> bool {
        // They are sorted, and each names how many there are.
        let numbers = self.pieces.iter().map(|key| key.piece);
        let wanted = self.pieces.first().map_or(0, |key| key.pieces);
        wanted > 0 && numbers.eq(0..wanted)
    }
}

/// All that one partition holds, or the whole WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Batches.
    pub entries: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Their records.
    pub records: u64,
    /// The age of the oldest, in milliseconds.
    pub oldest_age_ms: Option<u64>,
}

impl Sum {
    /// The sum of these entries.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>, now_ms: u64) -> Self {
        entries.into_iter().fold(Self::default(), |sum, entry| Self {
            entries: sum.entries + 1,
            bytes: sum.bytes + entry.bytes(),
            records: sum.records + entry.records(),
            oldest_age_ms: sum.oldest_age_ms.max(Some(entry.age_ms(now_ms))),
        })
    }
}

/// What the WAL holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The whole entries of each partition that has any, in order.
    held: BTreeMap<Partition, Vec<Entry>>,
    /// Entries of which pieces are missing.
    torn: Vec<Entry>,
    /// Entries that were set aside, whole or not.
    set_aside: Vec<Entry>,
    /// The last place of each partition, whole or not.
    last_places: BTreeMap<Partition, Place>,
}

impl Listing {
    /// The listing of these keys, in any order.
    pub fn of(keys: &[String]) -> Self {
        let (mut pieces, mut set_aside) = (Vec::new(), Vec::new());
        for key in keys {
            match Key::parse(key) {
                Key::Piece(key) => pieces.push(key),
                Key::SetAside(key) => set_aside.push(key),
                Key::Foreign => {}
            }
        }
        let mut listing = Self { set_aside: entries(set_aside), ..Self::default() };
        for entry in entries(pieces) {
            let Some((partition, place)) = entry.partition().zip(entry.place()) else { continue };
            listing.last_places.insert(partition, place);
            if entry.is_whole() {
                listing.held.entry(partition).or_default().push(entry);
            } else {
                listing.torn.push(entry);
            }
        }
        listing
    }

    /// The entries of a partition, in order.
    pub fn of_partition(&self, partition: Partition) -> &[Entry] {
        self.held.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// The partitions that have entries, and these.
    pub fn partitions(&self) -> impl Iterator<Item = (Partition, &[Entry])> {
        self.held.iter().map(|(partition, entries)| (*partition, entries.as_slice()))
    }

    /// All entries.
    pub fn held(&self) -> impl Iterator<Item = &Entry> {
        self.held.values().flatten()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Entries of which pieces are missing.
    pub fn torn(&self) -> &[Entry] {
        &self.torn
    }

    /// Entries that were set aside.
    pub fn set_aside(&self) -> &[Entry] {
        &self.set_aside
    }

    /// The last place of a partition, whatever became of its entry.
    pub fn last_place(&self, partition: Partition) -> Option<Place> {
        self.last_places.get(&partition).copied()
    }

    /// The digest of the batch of this id, if it is held.
    pub fn digest_of(&self, partition: Partition, id: BatchId) -> Option<BatchDigest> {
        let first_pieces = self.of_partition(partition).iter().filter_map(|entry| entry.pieces.first());
        first_pieces.rev().find(|key| key.id == id).map(|key| key.digest)
    }

    /// Entries and bytes of all there is, however it is there: what the bounds are about.
    pub fn occupied(&self) -> (u64, u64) {
        let all = self.held().chain(&self.torn).chain(&self.set_aside);
        all.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.bytes()))
    }
}

/// Pieces by entry, in the order of partitions and places.
fn entries(mut pieces: Vec<PieceKey>) -> Vec<Entry> {
    pieces.sort_unstable_by_key(|key| (key.partition, key.place, key.piece));
    pieces.chunk_by(PieceKey::is_of_same_entry).map(|pieces| Entry { pieces: pieces.to_vec() }).collect()
}

#[cfg(test)]
mod tests {
    use model::Tenant;

    use super::*;

    fn key(partition: u16, count: u64, piece: u16, pieces: u16) -> PieceKey {
        let partition = Partition::new(partition);
        let id = BatchId::derive(&Tenant::default(), &count.to_string(), partition);
        let place = Place::after(None, 1_000 + count, count);
        let digest = BatchDigest::of(&count.to_le_bytes());
        PieceKey { partition, place, id, digest, piece, pieces, bytes: 100, records: 3 }
    }

    fn listing(keys: &[PieceKey]) -> Listing {
        Listing::of(&keys.iter().map(PieceKey::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn entries_come_by_partition_in_the_order_of_their_places() {
        let keys = [key(1, 2, 0, 1), key(0, 5, 1, 2), key(1, 1, 0, 1), key(0, 5, 0, 2)];
        let listing = listing(&keys);
        let places = |partition: u16| -> Vec<_> {
            let entries = listing.of_partition(Partition::new(partition));
            entries.iter().map(|entry| (entry.age_ms(1_010), entry.bytes())).collect()
        };
        assert_eq!((places(0), places(1), places(2)), (vec![(5, 200)], vec![(9, 100), (8, 100)], vec![]));
        let sum = Sum::of(listing.held(), 1_010);
        assert_eq!(sum, Sum { entries: 3, bytes: 400, records: 9, oldest_age_ms: Some(9) });
        assert_eq!(listing.digest_of(Partition::new(1), keys[0].id), Some(keys[0].digest));
        assert_eq!(listing.digest_of(Partition::new(0), keys[0].id), None);
    }

    #[test]
    fn an_entry_that_lacks_a_piece_is_not_held_but_occupies_its_place() {
        let keys = [key(0, 1, 0, 1), key(0, 2, 0, 2), key(0, 3, 1, 2)];
        let listing = listing(&keys);
        assert_eq!((listing.of_partition(Partition::new(0)).len(), listing.torn().len()), (1, 2));
        assert_eq!(listing.last_place(Partition::new(0)), Some(keys[2].place));
        assert_eq!(listing.occupied(), (3, 300));
    }

    #[test]
    fn what_was_set_aside_is_counted_apart_and_foreign_keys_not_at_all() {
        let keys = [key(0, 1, 0, 2).set_aside(), key(0, 1, 1, 2).set_aside(), "other".to_owned()];
        let listing = Listing::of(&keys);
        assert_eq!((listing.is_empty(), listing.set_aside().len(), listing.occupied()), (true, 1, (1, 200)));
    }
}
