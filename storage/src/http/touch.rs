//! Whether the replicas that a tail follows are in touch with the others: what one that is not tells comes late, or never.
//!
//! Invariant: a change is told once, whichever node it is of. The clock is in what is passed in.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::query::Staleness;

/// Which of the nodes that a tail follows have lost touch.
#[derive(Debug)]
pub(super) struct Touch {
    /// How old may be what a replica knows that is in touch.
    age_max: Staleness,
    /// The other nodes that are not, by number.
    peers: BTreeMap<usize, Staleness>,
    /// Whether the reader was told that one is not.
    is_told: bool,
}

impl Touch {
    /// All are in touch, or will be found not to be.
    pub(super) fn new(age_max: Duration) -> Self {
        let age_max = Staleness::Ms(u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX));
        Self { age_max, peers: BTreeMap::new(), is_told: false }
    }

    /// Another node said how old may be what it tells: nothing, where it is in touch, or does not say.
    pub(super) fn note_peer(&mut self, number: usize, staleness: Option<Staleness>) {
        match staleness.filter(|age| self.is_too_old(*age)) {
            Some(age) => self.peers.insert(number, age),
            None => self.peers.remove(&number),
        };
    }

    /// What has changed since it was last told: how old may be what is followed, or that it is fresh again. `own` is the
    /// age of what this node itself reads.
    pub(super) fn change(&mut self, own: Option<Staleness>) -> Option<Option<Staleness>> {
        let own = own.filter(|age| self.is_too_old(*age));
        let oldest = self.peers.values().copied().max().max(own);
        (oldest.is_some() != self.is_told).then(|| {
            self.is_told = oldest.is_some();
            oldest
        })
    }

    fn is_too_old(&self, age: Staleness) -> bool {
        age > self.age_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_of_touch_is_told_once_and_its_end_when_all_are_back() {
        let mut touch = Touch::new(Duration::from_secs(2));
        let (fresh, old) = (Some(Staleness::Ms(2000)), Some(Staleness::Ms(2001)));
        assert_eq!((touch.change(None), touch.change(fresh)), (None, None));
        assert_eq!((touch.change(old), touch.change(Some(Staleness::Ms(9000)))), (Some(old), None));
        touch.note_peer(1, Some(Staleness::Unknown));
        touch.note_peer(2, old);
        assert_eq!(touch.change(fresh), None, "another one is out of touch");
        touch.note_peer(1, None);
        assert_eq!(touch.change(fresh), None);
        touch.note_peer(2, fresh);
        assert_eq!((touch.change(fresh), touch.change(fresh)), (Some(None), None));
        touch.note_peer(1, Some(Staleness::Unknown));
        assert_eq!(touch.change(None), Some(Some(Staleness::Unknown)));
    }
}
