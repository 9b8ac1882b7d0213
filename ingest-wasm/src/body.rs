//! A body in one buffer, as it arrives: bounded in bytes, under the instance's budget.
//!
//! Invariant: no more than `bytes_max` bytes are kept, and the end of a body that broke off is an error, never a
//! shorter body. This module must not know whose body it is.

use std::future::Future;

use crate::budget::{Budget, Busy, Metered};
use crate::limits;

/// Where a body comes from.
pub trait ByteSource {
    /// Reads the next bytes, at least one, into the spare capacity of `buffer`, and gives the buffer back.
    fn read(&mut self, buffer: Vec<u8>) -> impl Future<Output = (Vec<u8>, Result<Progress, SourceError>)>;
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    More,
    /// That was all of it.
    End,
}

/// Why a body cannot be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It did not arrive in time.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The connection failed.
    #[error("the body broke off: {0}")]
    BrokeOff(String),
}

/// Why a body was not received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The other side's doing.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no room for it now.
    #[error(transparent)]
    Busy(#[from] Busy),
}

/// A body, or as much of it as was allowed.
#[derive(Debug)]
pub struct Received<'b> {
    /// Its bytes.
    pub bytes: Metered<'b>,
    /// Whether these are all of its bytes.
    pub is_whole: bool,
}

/// Receives a body of `announced` bytes, if that was said, and keeps at most `bytes_max` of them.
///
/// # Errors
/// When it breaks off, or when there is no room for it.
pub async fn receive<'b>(
    source: &mut impl ByteSource,
    announced: Option<u64>,
    bytes_max: usize,
    budget: &'b Budget,
) -> Result<Received<'b>, ReceiveError> {
    let announced = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let mut buffer = Metered::new(budget);
    // One byte more than is kept tells a body that is too large from one that just fits.
    let capacity_max = bytes_max.saturating_add(1);
    buffer.reserve(announced.unwrap_or(limits::BODY_BYTES_UNANNOUNCED).min(capacity_max), capacity_max)?;
    loop {
        let length = buffer.bytes().len();
        if length > bytes_max {
            buffer.bytes_mut().truncate(bytes_max);
            return Ok(Received { bytes: buffer, is_whole: false });
        }
        // A body of announced length is over with its last byte: its end need not be waited for.
        if announced == Some(length) {
            return Ok(Received { bytes: buffer, is_whole: true });
        }
        if length == buffer.bytes_mut().capacity() {
            buffer.reserve(1, capacity_max)?;
        }
        let (bytes, progress) = source.read(std::mem::take(buffer.bytes_mut())).await;
        *buffer.bytes_mut() = bytes;
        match progress? {
            Progress::More => {}
            Progress::End if announced.is_some_and(|announced| announced > buffer.bytes().len()) => {
                let reason =
                    format!("{} of {} bytes came", buffer.bytes().len(), announced.unwrap_or_default());
                return Err(SourceError::BrokeOff(reason).into());
            }
            Progress::End => {
                let is_whole = buffer.bytes().len() <= bytes_max;
                buffer.bytes_mut().truncate(bytes_max);
                return Ok(Received { bytes: buffer, is_whole });
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use futures::executor::block_on;

    use super::*;

    /// A body that comes in these pieces, and then ends or fails.
    #[derive(Clone, Debug)]
    pub(crate) struct Pieces {
        pub(crate) pieces: Vec<Vec<u8>>,
        pub(crate) failure: Option<SourceError>,
        pub(crate) bytes_read: usize,
    }

    impl Pieces {
        pub(crate) fn of(pieces: &[&[u8]]) -> Self {
            let pieces = pieces.iter().rev().map(|piece| piece.to_vec()).collect();
            Self { pieces, failure: None, bytes_read: 0 }
        }
    }

    impl ByteSource for Pieces {
        async fn read(&mut self, mut buffer: Vec<u8>) -> (Vec<u8>, Result<Progress, SourceError>) {
            let room = buffer.capacity() - buffer.len();
            assert!(room > 0, "a read needs room");
            let Some(mut piece) = self.pieces.pop() else {
                let progress = self.failure.clone().map_or(Ok(Progress::End), Err);
                return (buffer, progress);
            };
            if piece.len() > room {
                self.pieces.push(piece.split_off(room));
            }
            self.bytes_read += piece.len();
            buffer.extend_from_slice(&piece);
            (buffer, Ok(Progress::More))
        }
    }

    fn received(source: &mut Pieces, announced: Option<u64>) -> Result<(Vec<u8>, bool), ReceiveError> {
        let budget = Budget::new(1 << 20);
        let received = block_on(receive(source, announced, 10, &budget))?;
        Ok((received.bytes.bytes().to_vec(), received.is_whole))
    }

    #[test]
    fn a_body_arrives_whole_in_whatever_pieces() {
        for pieces in [&[&b"0123456789"[..]][..], &[b"0", b"123", b"456789"]] {
            for announced in [None, Some(10)] {
                let got = received(&mut Pieces::of(pieces), announced);
                assert_eq!(got, Ok((b"0123456789".to_vec(), true)), "{announced:?}");
            }
        }
        assert_eq!(received(&mut Pieces::of(&[]), None), Ok((Vec::new(), true)));
        assert_eq!(received(&mut Pieces::of(&[]), Some(0)), Ok((Vec::new(), true)));
    }

    #[test]
    fn reading_stops_at_the_limit_whatever_was_announced() {
        for announced in [None, Some(5), Some(11), Some(u64::MAX)] {
            let mut endless = Pieces::of(&[&b"xxxx"[..]; 1000]);
            let got = received(&mut endless, announced).unwrap();
            if announced == Some(5) {
                continue;
            }
            assert_eq!(got, (vec![b'x'; 10], false), "{announced:?}");
            assert!(endless.bytes_read <= 12, "{announced:?}: {}", endless.bytes_read);
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        let short = received(&mut Pieces::of(&[b"012"]), Some(4)).unwrap_err();
        assert!(matches!(short, ReceiveError::Source(SourceError::BrokeOff(_))), "{short}");
        let mut late = Pieces::of(&[b"012"]);
        late.failure = Some(SourceError::TimedOut);
        assert_eq!(received(&mut late, None), Err(SourceError::TimedOut.into()));
    }

    #[test]
    fn a_body_waits_outside_while_others_hold_all_bytes() {
        let budget = Budget::new(100);
        let mut other = budget.share();
        other.take(95).unwrap();
        let mut source = Pieces::of(&[b"0123456789"]);
        let busy = block_on(receive(&mut source, Some(10), 10, &budget)).unwrap_err();
        assert_eq!((busy, source.bytes_read), (ReceiveError::Busy(Busy), 0));
        drop(other);
        assert!(block_on(receive(&mut source, Some(10), 10, &budget)).is_ok());
    }
}
