//! The floor: a bare loop that appends and syncs the same bytes, and does nothing else.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::proc_stats;

/// What the bare loop took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// From the first write to the last sync.
    pub(crate) wall: Duration,
    /// CPU time of this process in it.
    pub(crate) cpu: Duration,
    /// What was written.
    pub(crate) bytes: u64,
}

/// Appends `turns` pieces, the next of `pieces` each, to a new file in `dir`, and syncs it after each.
///
/// # Errors
/// The disk's.
pub(crate) fn append_and_sync(dir: &Path, pieces: &[Vec<u8>], turns: u64) -> anyhow::Result<Floor> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("floor");
    let mut file = File::create(&path).with_context(|| format!("could not write {}", path.display()))?;
    let mut bytes = 0;
    let (cpu_before, started) = (proc_stats::own_cpu_time(), Instant::now());
    for (_, piece) in (0..turns).zip(pieces.iter().cycle()) {
        file.write_all(piece)?;
        rustix::fs::fdatasync(&file)?;
        bytes += piece.len() as u64;
    }
    let floor = Floor { wall: started.elapsed(), cpu: proc_stats::own_cpu_time() - cpu_before, bytes };
    std::fs::remove_file(&path)?;
    Ok(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_taken_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let floor = append_and_sync(dir.path(), &[vec![0; 10], vec![0; 1]], 3).unwrap();
        assert_eq!(floor.bytes, 21);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
