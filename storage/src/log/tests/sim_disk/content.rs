//! What a file holds: what is seen of it, what a power cut leaves, and what is on its way to the disk.

use super::super::random::Random;

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct SimFile {
    /// What is read: the page cache.
    pub(super) content: Vec<u8>,
    /// What is on the disk.
    durable: Vec<u8>,
    /// What was written since the last sync.
    pending: Vec<FileChange>,
}

#[derive(Clone, Debug)]
pub(super) enum FileChange {
    Write { position: usize, bytes: Vec<u8> },
    Length(usize),
}

impl SimFile {
    pub(super) fn durable(bytes: &[u8]) -> Self {
        Self { content: bytes.to_vec(), durable: bytes.to_vec(), pending: Vec::new() }
    }

    pub(super) fn change(&mut self, change: FileChange) {
        change.apply(&mut self.content);
        self.pending.push(change);
    }

    pub(super) fn is_durable(&self) -> bool {
        self.content == self.durable
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// As Linux does it: what could not be written counts as clean from now on. It is read as long as it is cached,
    /// and no later sync writes it.
    pub(super) fn fail_sync(&mut self) {
        self.pending.clear();
    }

    pub(super) fn after_power_cut(&self, survival: Survival, random: &mut Random) -> Self {
        let mut left = self.durable.clone();
        for change in &self.pending {
            match change {
                FileChange::Length(_) if survival.keeps(random) => change.apply(&mut left),
                FileChange::Length(_) => {}
                FileChange::Write { position, bytes } => {
                    for (place, sector) in sectors(*position, bytes) {
                        if survival.keeps(random) {
                            FileChange::Write { position: place, bytes: sector.to_vec() }.apply(&mut left);
                        }
                    }
                }
            }
        }
        Self::durable(&left)
    }
}

impl FileChange {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(length) => content.resize(*length, 0),
            Self::Write { position, bytes } => {
                let end = position + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*position..end].copy_from_slice(bytes);
            }
        }
    }
}

/// Cuts a write where sectors end.
fn sectors(position: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let place = position + start;
        let length = (SECTOR_BYTES - place % SECTOR_BYTES).min(bytes.len() - start);
        pieces.push((place, &bytes[start..start + length]));
        start += length;
    }
    pieces
}

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Survival {
    Nothing,
    Everything,
    Some,
}

impl Survival {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.below(6) {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Some,
        }
    }

    pub(super) fn keeps(self, random: &mut Random) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some => random.below(2) == 0,
        }
    }
}
