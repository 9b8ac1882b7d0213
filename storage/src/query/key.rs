//! The order of answers, and the cursor that goes on from a place in it.
//!
//! Records are ordered by timestamp, then by partition, then by offset: a total order that does not depend on what is
//! asked, nor on what is appended later. Backward is exactly the reverse of forward.

use std::fmt;
use std::str::FromStr;

use model::{Offset, Partition};

/// A record's place in the order of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The timestamp, Unix milliseconds; zero where the order is that of arrival.
    pub rank: u64,
    /// The partition.
    pub partition: Partition,
    /// The offset.
    pub offset: Offset,
}

/// Which end of the order comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The newest first.
    #[default]
    Backward,
    /// The oldest first.
    Forward,
}

/// What records are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The time of the records.
    #[default]
    Time,
    /// The order in which a partition took them.
    Arrival,
}

/// A place to go on from: everything that comes after `key`, in this direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The direction of the answer that the cursor came with.
    pub direction: Direction,
    /// The last record that was answered with, or a bound that was reached.
    pub key: Key,
}

impl Key {
    /// The place right after this one, where no record can be in between.
    pub(super) fn next(self) -> Self {
        match self.offset.get().checked_add(1) {
            Some(offset) => Self { offset: Offset::new(offset), ..self },
            // No record has the last offset there is.
            None => self,
        }
    }

    /// The place right before this one, where no record can be in between.
    pub(super) fn previous(self) -> Self {
        let last = Offset::new(u64::MAX);
        match (
            self.offset.get().checked_sub(1),
            self.partition.get().checked_sub(1),
            self.rank.checked_sub(1),
        ) {
            (Some(offset), _, _) => Self { offset: Offset::new(offset), ..self },
            (None, Some(partition), _) => Self { partition: Partition::new(partition), offset: last, ..self },
            (None, None, Some(rank)) => Self { rank, partition: Partition::new(u16::MAX), offset: last },
            (None, None, None) => self,
        }
    }
}

impl Direction {
    /// Whether `a` comes before `b` in an answer.
    pub(super) fn comes_first(self, a: Key, b: Key) -> bool {
        match self {
            Self::Backward => a > b,
            Self::Forward => a < b,
        }
    }
}

impl Order {
    /// What a record of this timestamp is ordered by.
    pub(super) fn rank(self, timestamp_ms: u64) -> u64 {
        match self {
            Self::Time => timestamp_ms,
            Self::Arrival => 0,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Backward => 'b',
            Direction::Forward => 'f',
        };
        let Key { rank, partition, offset } = self.key;
        write!(f, "{direction}{rank:x}.{:x}.{:x}", partition.get(), offset.get())
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (direction, rest) = match text.split_at_checked(1) {
            Some(("b", rest)) => (Direction::Backward, rest),
            Some(("f", rest)) => (Direction::Forward, rest),
            _ => return Err(()),
        };
        let mut numbers = rest.split('.').map(|digits| u64::from_str_radix(digits, 16).map_err(|_| ()));
        let mut next = || numbers.next().unwrap_or(Err(()));
        let (rank, partition, offset) = (next()?, next()?, next()?);
        let partition = Partition::new(u16::try_from(partition).map_err(|_| ())?);
        let cursor = Self { direction, key: Key { rank, partition, offset: Offset::new(offset) } };
        // Only what was written here is taken: a sign or a leading zero was not.
        if cursor.to_string() == text { Ok(cursor) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_its_text_and_nothing_else_is_one() {
        for direction in [Direction::Backward, Direction::Forward] {
            let key =
                Key { rank: 1_700_000_000_000, partition: Partition::new(3), offset: Offset::new(u64::MAX) };
            let cursor = Cursor { direction, key };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "b", "b1.2", "b1.2.3.4", "c1.2.3", "b+1.2.3", "b01.2.3", "b1.10000.3", "é", "b1.2.x"]
        {
            assert_eq!(bad.parse::<Cursor>(), Err(()), "{bad}");
        }
    }
}
