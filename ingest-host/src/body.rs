//! Request bodies on their way to the component: bounded in size and in time, gathered where they are small.
//!
//! Invariant: no more than `bytes_max` bytes of a body are handed on, whatever its length claims to be, and gathered
//! bodies hold at most [`limits::GATHERED_BYTES_MAX`] bytes together. It must not know of instances.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::limits;
use crate::problem::Refusal;

/// Takes in request bodies. Clones share the memory bound.
#[derive(Clone)]
pub(crate) struct Intake {
    bytes_max: u64,
    gathered: Arc<Semaphore>,
}

/// A body that the component may read.
pub(crate) struct Accepted {
    pub(crate) body: WasiBody,
    /// Set when a streamed body turns out to be too large, or too slow, while the component reads it.
    pub(crate) verdict: Arc<Verdict>,
}

/// What became of a body after it was handed on.
#[derive(Default)]
pub(crate) struct Verdict {
    too_large: AtomicBool,
    too_slow: AtomicBool,
}

impl Verdict {
    /// Why the request must be refused after all, whatever the component made of the part that it saw.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.too_large.load(Relaxed) {
            Some(Refusal::BodyTooLarge)
        } else if self.too_slow.load(Relaxed) {
            Some(Refusal::BodyTooSlow)
        } else {
            None
        }
    }
}

impl Intake {
    /// An intake for bodies of up to `bytes_max` bytes each.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, gathered: Arc::new(Semaphore::new(limits::GATHERED_BYTES_MAX)) }
    }

    /// Accepts a body: at once where it is streamed, once it is there where it is gathered. `client_waits` says
    /// that the client sends the body only when asked to (`Expect: 100-continue`).
    ///
    /// # Errors
    /// [`Refusal`] for a body that is, or announces itself as, too large, and for one that does not arrive.
    pub(crate) async fn accept(&self, incoming: Incoming, client_waits: bool) -> Result<Accepted, Refusal> {
        let verdict = Arc::new(Verdict::default());
        let announced = incoming.size_hint().exact();
        if announced.is_some_and(|length| length > self.bytes_max) {
            // A client that waits for `100 Continue` sends nothing, and must not be told to.
            if !client_waits {
                discard(incoming);
            }
            return Err(Refusal::BodyTooLarge);
        }
        let body = match announced {
            Some(0) => boxed(Empty::new()),
            Some(length) => match self.permit(length) {
                Some(permit) => gather(incoming, length, permit).await?,
                None => self.stream(incoming, &verdict),
            },
            None => self.stream(incoming, &verdict),
        };
        Ok(Accepted { body, verdict })
    }

    /// Memory for gathering a body, if it is small and there is some left.
    fn permit(&self, length: u64) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(length).ok().filter(|_| length <= limits::BODY_GATHER_BYTES_MAX)?;
        Arc::clone(&self.gathered).try_acquire_many_owned(bytes).ok()
    }

    fn stream(&self, incoming: Incoming, verdict: &Arc<Verdict>) -> WasiBody {
        Streamed {
            incoming: Some(incoming),
            remaining: self.bytes_max,
            pause: None,
            verdict: Arc::clone(verdict),
        }
        .boxed_unsync()
    }
}

fn boxed<B>(body: B) -> WasiBody
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    body.map_err(|never| match never {}).boxed_unsync()
}

async fn gather(
    mut incoming: Incoming,
    length: u64,
    permit: OwnedSemaphorePermit,
) -> Result<WasiBody, Refusal> {
    let mut whole = BytesMut::new();
    loop {
        let frame =
            timeout(limits::BODY_PAUSE_MAX, incoming.frame()).await.map_err(|_| Refusal::BodyTooSlow)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Refusal::BodyIncomplete)?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() as u64 == length {
            // It came in one piece: no copy.
            return Ok(boxed(Gathered { full: Full::new(data), _permit: permit }));
        }
        if whole.capacity() == 0 {
            whole.reserve(usize::try_from(length).unwrap_or(0));
        }
        whole.extend_from_slice(&data);
    }
    Ok(boxed(Gathered { full: Full::new(whole.freeze()), _permit: permit }))
}

/// A body that is all there, with its share of the memory for such bodies.
struct Gathered {
    full: Full<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Body for Gathered {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.full).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.full.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.full.size_hint()
    }
}

/// A body that is handed on as it arrives.
struct Streamed {
    /// `None` once it has been refused.
    incoming: Option<Incoming>,
    /// Bytes that may still come.
    remaining: u64,
    /// Armed while the body is waited for.
    pause: Option<Pin<Box<Sleep>>>,
    verdict: Arc<Verdict>,
}

impl Streamed {
    fn check(&mut self, frame: &Frame<Bytes>) -> Result<(), Error> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.remaining.checked_sub(length) {
            Some(remaining) => {
                self.remaining = remaining;
                Ok(())
            }
            None => {
                self.verdict.too_large.store(true, Relaxed);
                if let Some(incoming) = self.incoming.take() {
                    discard(incoming);
                }
                Err(Error::HttpRequestBodySize(None))
            }
        }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) {
            self.pause = None;
            return Poll::Ready(match frame {
                Some(Ok(frame)) => Some(self.check(&frame).map(|()| frame)),
                Some(Err(error)) => Some(Err(error.into())),
                None => None,
            });
        }
        let pause =
            self.pause.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limits::BODY_PAUSE_MAX)));
        if pause.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.verdict.too_slow.store(true, Relaxed);
        self.incoming = None;
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

/// Reads the rest of a refused body and throws it away, so that the client, busy sending, gets to read the refusal.
/// Closing the connection with bytes unread would reset it.
fn discard(mut incoming: Incoming) {
    tokio::spawn(timeout(limits::REFUSED_BODY_DRAIN_MAX, async move {
        let mut remaining = limits::REFUSED_BODY_DRAIN_BYTES_MAX;
        while let Some(Ok(frame)) = incoming.frame().await {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match remaining.checked_sub(length) {
                Some(less) => remaining = less,
                None => break,
            }
        }
    }));
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
