//! Another node's tail, as a part of this node's: its events, one after another, over as many connections as it takes.
//!
//! Invariants: after a lost connection it goes on where it was; what is held is one read's worth of events; it ends when
//! nobody takes them. Must not know what is done with them.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use memchr::memchr;
use model::wire;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Shared;
use super::scope;
use super::tail::LAST_EVENT_ID;
use crate::limits;
use crate::query::{Lack, PeerError, Positions, Share, Staleness, TailEvent};

/// What another node says.
#[derive(Debug)]
pub(super) enum FromPeer {
    /// Records, and gaps.
    Events(Vec<TailEvent>),
    /// What was there before was told; it follows from here on.
    Begun {
        /// From where on.
        positions: Positions,
        /// What it lacks itself.
        partial: Option<String>,
        /// How old may be what it knows, if it says.
        staleness: Option<Staleness>,
    },
    /// Replicas that it reads have lost touch with the others, and know nothing newer than this; or are back.
    Stale(Option<Staleness>),
    /// It does not answer now; it is tried again.
    Lost(Lack),
    /// It does not hold what is asked for, or is this node.
    NotHeld,
}

/// A call of another node.
#[derive(Debug)]
pub(super) struct PeerTail {
    shared: Shared,
    url: String,
    share: Share,
    parameters: Vec<(String, String)>,
    /// How far it got.
    positions: Option<Positions>,
    /// Whether its beginning was told.
    has_begun: bool,
    /// Whether it was called before: what was there then is not asked for again.
    is_repeated: bool,
    /// Set once all beginnings were put together: only then comes what follows them.
    go: watch::Receiver<bool>,
}

/// Why a call ended.
enum Ended {
    /// Nobody takes the events any more.
    Unwanted,
    /// There will be none.
    NotHeld,
    Lost(PeerError),
}

impl From<PeerError> for Ended {
    fn from(error: PeerError) -> Self {
        Self::Lost(error)
    }
}

impl PeerTail {
    /// A call that is not made yet.
    pub(super) fn new(
        shared: &Shared,
        url: &str,
        share: Share,
        parameters: &[(String, String)],
        positions: Option<Positions>,
        go: watch::Receiver<bool>,
    ) -> Self {
        let (shared, url, parameters) = (shared.clone(), url.to_owned(), parameters.to_vec());
        Self { shared, url, share, parameters, positions, has_begun: false, is_repeated: false, go }
    }

    /// Hands on what the node says until nobody takes it, as from this number.
    pub(super) async fn follow(mut self, number: usize, sender: mpsc::Sender<(usize, FromPeer)>) {
        let mut pause = limits::PEER_TAIL_PAUSE_MIN;
        loop {
            let heard_before = self.positions.clone();
            let lost = match self.call(number, &sender).await {
                Ended::Unwanted => return,
                Ended::NotHeld => {
                    // Whoever is gone does not want to know.
                    sender.send((number, FromPeer::NotHeld)).await.ok();
                    return;
                }
                Ended::Lost(error) => Lack::node(&self.url, &error),
            };
            if sender.send((number, FromPeer::Lost(lost))).await.is_err() {
                return;
            }
            self.is_repeated = true;
            if self.positions != heard_before {
                pause = limits::PEER_TAIL_PAUSE_MIN;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = sender.closed() => return,
            }
            pause = (pause * 2).min(limits::PEER_TAIL_PAUSE_MAX);
        }
    }

    async fn call(&mut self, number: usize, sender: &mpsc::Sender<(usize, FromPeer)>) -> Ended {
        tokio::select! {
            ended = self.exchange(number, sender) => match ended {
                Ok(never) => match never {},
                Err(ended) => ended,
            },
            () = sender.closed() => Ended::Unwanted,
        }
    }

    async fn exchange(
        &mut self,
        number: usize,
        sender: &mpsc::Sender<(usize, FromPeer)>,
    ) -> Result<std::convert::Infallible, Ended> {
        let (headers, mut body) = self.open().await?;
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let partial = header(wire::PARTIAL).map(str::to_owned);
        let staleness = header(wire::STALENESS).and_then(|age| age.parse().ok());
        let mut parser = EventParser::default();
        loop {
            let frame = within(limits::PEER_TAIL_SILENCE_MAX, body.frame()).await?;
            let frame = frame.ok_or(PeerError::Ended)?.map_err(PeerError::BrokeOff)?;
            let Ok(data) = frame.into_data() else { continue };
            let mut events = Vec::new();
            parser.take(&data, &mut events)?;
            for heard in self.understand(events, &partial, staleness)? {
                let has_begun = matches!(heard, FromPeer::Begun { .. });
                sender.send((number, heard)).await.map_err(|_gone| Ended::Unwanted)?;
                if has_begun {
                    self.go.wait_for(|go| *go).await.map_err(|_gone| Ended::Unwanted)?;
                }
            }
        }
    }

    /// Calls the node; an answer that is a tail.
    async fn open(&self) -> Result<(HeaderMap, Incoming), Ended> {
        let parameters = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let none_again = self.is_repeated.then_some(("last", "0"));
        let parameters =
            parameters.filter(|(name, _)| !self.is_repeated || *name != "last").chain(none_again);
        let path_and_query = scope::path_and_query("/v1/tail", parameters);
        let id = self.positions.as_ref().map(ToString::to_string);
        let headers: Vec<(&str, &str)> = id.iter().map(|id| (LAST_EVENT_ID, id.as_str())).collect();
        let peers = &self.shared.app.peers;
        let opening = peers.open(&self.url, &self.share, &path_and_query, &headers);
        let (parts, body) = within(limits::PEER_TIME_MAX, opening).await??.into_parts();
        if scope::is_own(&self.shared, &parts.headers) || parts.status == StatusCode::NOT_FOUND {
            return Err(Ended::NotHeld);
        }
        if parts.status != StatusCode::OK {
            return Err(PeerError::Refused(parts.status).into());
        }
        Ok((parts.headers, body))
    }

    /// What events mean; consecutive records are handed on together.
    fn understand(
        &mut self,
        events: Vec<Event>,
        partial: &Option<String>,
        staleness: Option<Staleness>,
    ) -> Result<Vec<FromPeer>, PeerError> {
        let mut heard = Vec::new();
        let mut told = Vec::new();
        for Event { name, id, data } in events {
            match name.as_slice() {
                b"record" => {
                    let event = TailEvent::parse_record(&data).ok_or(PeerError::NotUnderstood)?;
                    if let (TailEvent::Record(record), Some(positions)) = (&event, &mut self.positions)
                        && self.has_begun
                    {
                        positions.set(record.partition, record.offset.plus(1));
                    }
                    told.push(event);
                }
                b"gap" => {
                    let gap: Gap = serde_json::from_slice(&data).map_err(|_| PeerError::NotUnderstood)?;
                    told.push(TailEvent::Missed(gap.missed));
                }
                b"begin" => {
                    if !told.is_empty() {
                        heard.push(FromPeer::Events(std::mem::take(&mut told)));
                    }
                    let id = std::str::from_utf8(&id).map_err(|_| PeerError::NotUnderstood)?;
                    let positions: Positions = id.parse().map_err(|()| PeerError::NotUnderstood)?;
                    self.positions = Some(positions.clone());
                    self.has_begun = true;
                    heard.push(FromPeer::Begun { positions, partial: partial.clone(), staleness });
                }
                b"stale" => {
                    let Stale { staleness } =
                        serde_json::from_slice(&data).map_err(|_| PeerError::NotUnderstood)?;
                    let age = staleness.map(|age| age.parse().map_err(|_| PeerError::NotUnderstood));
                    heard.push(FromPeer::Stale(age.transpose()?));
                }
                // Of a newer node.
                _ => {}
            }
        }
        if !told.is_empty() {
            heard.push(FromPeer::Events(told));
        }
        Ok(heard)
    }
}

#[derive(serde::Deserialize)]
struct Gap {
    missed: u64,
}

/// The data of a `stale` event.
#[derive(serde::Deserialize)]
struct Stale {
    staleness: Option<String>,
}

async fn within<T>(time_max: Duration, work: impl Future<Output = T>) -> Result<T, PeerError> {
    timeout(time_max, work).await.map_err(|_elapsed| PeerError::TimedOut)
}

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    name: Vec<u8>,
    id: Vec<u8>,
    data: Vec<u8>,
}

/// Events from bytes as they arrive. Our own events only: each field is on one line.
#[derive(Debug, Default)]
struct EventParser {
    line: BytesMut,
    event: Event,
}

impl EventParser {
    fn take(&mut self, data: &Bytes, events: &mut Vec<Event>) -> Result<(), PeerError> {
        self.line.extend_from_slice(data);
        while let Some(length) = memchr(b'\n', &self.line) {
            let line = self.line.split_to(length);
            self.line.advance(1);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if !event.name.is_empty() {
                    events.push(event);
                }
            } else if let Some(name) = line.strip_prefix(b"event: ") {
                self.event.name = name.to_vec();
            } else if let Some(id) = line.strip_prefix(b"id: ") {
                self.event.id = id.to_vec();
            } else if let Some(data) = line.strip_prefix(b"data: ") {
                self.event.data = data.to_vec();
            }
        }
        if self.line.len() > limits::PEER_TAIL_LINE_BYTES_MAX {
            return Err(PeerError::TooLarge);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_wherever_their_bytes_are_cut() {
        let text = ":\n\nevent: record\nid: 0.1\ndata: {\"a\":1}\n\n:\n\nevent: gap\ndata: {}\n\n";
        let event =
            |name: &str, id: &str, data: &str| Event { name: name.into(), id: id.into(), data: data.into() };
        let expected = [event("record", "0.1", "{\"a\":1}"), event("gap", "", "{}")];
        for cut in 0..text.len() {
            let (mut parser, mut events) = (EventParser::default(), Vec::new());
            let (one, other) = text.split_at(cut);
            parser.take(&Bytes::copy_from_slice(one.as_bytes()), &mut events).unwrap();
            parser.take(&Bytes::copy_from_slice(other.as_bytes()), &mut events).unwrap();
            assert_eq!(events, expected, "{cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let (mut parser, mut events) = (EventParser::default(), Vec::new());
        let piece = Bytes::from(vec![b'x'; limits::PEER_TAIL_LINE_BYTES_MAX / 2 + 1]);
        parser.take(&piece, &mut events).unwrap();
        assert!(matches!(parser.take(&piece, &mut events), Err(PeerError::TooLarge)));
    }
}
