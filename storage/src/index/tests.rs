//! What becomes of an index when its segments are replaced.

use std::path::Path;
use std::sync::Arc;

use model::Partition;

use super::{Indexer, Indexes};
use crate::log::tests::batch;
use crate::log::tests::sim_disk::SimDisk;
use crate::log::{EntryContent, LogOptions, NewEntry, PartitionLog, Piece};

const ENTRIES: u64 = 20;

fn log(segment_bytes_max: u64) -> PartitionLog {
    let options = LogOptions { segment_bytes_max, ..LogOptions::default() };
    let dir = Path::new("/data/partition-0");
    let (mut log, _) =
        PartitionLog::open(Arc::new(SimDisk::new()), dir, Partition::new(0), options, 0).unwrap();
    for log_index in 1..=ENTRIES {
        let content = EntryContent::Batches(vec![batch(log_index, 10)]);
        log.append_entries(&[NewEntry { log_index, term: 1, appended_at_ms: 0, content }]).unwrap();
    }
    let flushed = log.sync().unwrap();
    log.publish(flushed);
    log
}

#[test]
fn an_index_reaches_no_further_than_a_segment_that_took_the_place_of_a_longer_one() {
    let (mut own, leader) = (log(1 << 20), log(4000));
    let index = Indexes::new(1 << 20).partition(own.reader(), own.sidecars());
    let mut indexer = Indexer::with_blocks([Arc::clone(&index)], usize::MAX, 1500);
    indexer.catch_up();
    let extents = own.reader().segment_extents();
    let end_of = |extent| index.of_segment(extent, true).and_then(|index| index.end_offset());
    assert_eq!((extents.len(), end_of(&extents[0])), (1, Some(extents[0].end_offset)));
    let manifest = leader.entry_reader().manifest(ENTRIES).unwrap();
    for segment in &manifest.segments {
        for (piece, bytes) in [(Piece::Data, segment.data_bytes), (Piece::Index, segment.index_bytes)] {
            let read = leader.entry_reader().read_piece(segment.base_offset, piece, 0, bytes as usize);
            own.staging().add(segment.base_offset, piece, 0, &read.unwrap().unwrap()).unwrap();
        }
    }
    manifest.segments.iter().for_each(|segment| own.staging().check(segment).unwrap());
    own.replace_by_staged(&manifest).unwrap();
    let extents = own.reader().segment_extents();
    assert!(extents.len() > 3 && end_of(&extents[0]) <= Some(extents[0].end_offset), "{extents:?}");
    indexer.catch_up();
    for extent in &extents {
        assert_eq!(end_of(extent), Some(extent.end_offset), "what is there now is indexed");
    }
}
