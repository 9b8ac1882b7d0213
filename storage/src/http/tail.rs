//! `GET /v1/tail`: the newest records, then those that come, as server-sent events.
//!
//! Events: `record`; `gap` for records that a slow reader misses; `begin` once, between what was there and what comes;
//! `partial` when a node is lost, or is back; `stale` when a replica that is read loses touch with the others, or is back. From `begin` on each has an id, the positions of all partitions, with
//! which a later tail goes on. Invariants: what is held for a reader is a few pieces, whatever it leaves unread; no record
//! is told twice; a tail ends when its reader goes or the node stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use model::wire;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::ApiError;
use super::peer_tail::{FromPeer, PeerTail};
use super::scope::{self, Scope};
use super::search::say_staleness;
use super::touch::Touch;
use super::{Shared, parameters};
use crate::limits;
use crate::query::{
    Filter, Lack, ParameterError, PeerError, Plan, PoolError, Positions, Share, Staleness, TailBegin,
    TailBounds, TailEvent, TailQuery, TailRecord,
};

/// The header with which a client says how far it got.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";

/// The tails that a node serves.
#[derive(Debug)]
pub struct Tails {
    places: Arc<Semaphore>,
    /// How many there are, taken or free.
    count: usize,
    is_closing: watch::Sender<bool>,
    bounds: TailBounds,
}

impl Tails {
    /// Up to `count` tails at once.
    pub fn new(count: usize, bounds: TailBounds) -> Self {
        Self { places: Arc::new(Semaphore::new(count)), count, is_closing: watch::Sender::new(false), bounds }
    }

    /// How many are followed now.
    pub fn open(&self) -> usize {
        self.count.saturating_sub(self.places.available_permits())
    }

    /// Ends all tails, and each that begins later at once.
    pub fn close(&self) {
        self.is_closing.send_replace(true);
    }
}

/// Follows.
pub(super) async fn tail(State(shared): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let parameters = parameters::decode(request.uri())?;
    let query = TailQuery::parse(parameters::pairs(&parameters))?;
    let resumed = resumed(request.headers())?;
    let plan = match scope::of(&shared, request.headers(), query.filter.partition)? {
        Scope::Cluster(plan) => plan,
        Scope::Node(own) => {
            shared.app.check_partition(query.filter.partition)?;
            Plan { own, ..Plan::default() }
        }
    };
    let tails = &shared.app.tails;
    let place = Arc::clone(&tails.places).try_acquire_owned().map_err(|_none_left| ApiError::TailsFull)?;
    let query = TailQuery { filter: query.filter.within(plan.own.clone()), ..query };
    let (sender, peers) = mpsc::channel(1);
    let go = watch::Sender::new(false);
    for (number, (url, share)) in plan.calls.iter().enumerate() {
        let call = PeerTail::new(&shared, url, share.clone(), &parameters, resumed.clone(), go.subscribe());
        // It ends with the tail: nobody takes what it hears then.
        tokio::spawn(call.follow(number, sender.clone()));
    }
    drop(sender);
    let news = shared.app.queries.news();
    // What a node that is silent now has told before stays in the ids: it may be back at the next try.
    let positions = resumed.clone().unwrap_or_default();
    let mut own = shared.app.queries.tail_begin(query.clone(), resumed, tails.bounds).await?;
    own.lacks.extend(plan.nowhere.iter().map(|partition| Lack::Nowhere(*partition)));
    let silence_max = shared.app.replication.as_ref().map(|cluster| cluster.silence_max());
    let mut tail = Tail {
        share: plan.own.clone(),
        touch: silence_max.map(Touch::new),
        filter: Arc::new(query.filter),
        positions,
        own_positions: own.positions.clone(),
        lacks: BTreeMap::new(),
        peers,
        go,
        news,
        is_closing: tails.is_closing.subscribe(),
        bounds: tails.bounds,
        shared: shared.clone(),
        _place: place,
    };
    let urls: Vec<&str> = plan.calls.iter().map(|(url, _)| url.as_str()).collect();
    let begun = tail.begin(own, &urls, query.last).await?;
    let (sender, chunks) = mpsc::channel(1);
    let Begun { text, partial, staleness } = begun;
    tokio::spawn(tail.run(text, sender));
    let mut response = response(chunks, partial);
    say_staleness(response.headers_mut(), staleness);
    Ok(response)
}

fn response(chunks: mpsc::Receiver<Bytes>, partial: Option<String>) -> Response {
    let body = stream::unfold(chunks, async |mut chunks| {
        chunks.recv().await.map(|chunk| (Ok::<_, std::convert::Infallible>(chunk), chunks))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let mut response = (headers, Body::from_stream(body)).into_response();
    if let Some(partial) = partial {
        let partial = HeaderValue::from_str(&partial).unwrap_or(HeaderValue::from_static("yes"));
        response.headers_mut().insert(HeaderName::from_static(wire::PARTIAL), partial);
    }
    response
}

/// Where a client's last tail ended.
fn resumed(headers: &HeaderMap) -> Result<Option<Positions>, ParameterError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let positions: Option<Positions> = value.to_str().ok().and_then(|value| value.parse().ok());
    let positions = positions
        .ok_or_else(|| ParameterError::new(LAST_EVENT_ID, "it is the id of an event of a tail before"))?;
    Ok((!positions.is_empty()).then_some(positions))
}

/// What a tail waited for.
enum Happened {
    Nothing,
    Heard(usize, FromPeer),
    /// It is time to look for what is new.
    LookTime,
    /// It is time to look whether the replicas that are read are in touch.
    TouchTime,
}

/// How a tail begins.
struct Begun {
    /// Its first piece.
    text: Vec<u8>,
    /// What that lacks.
    partial: Option<String>,
    /// How old may be what it was made of, where partitions have several copies.
    staleness: Option<Staleness>,
}

/// A tail that is followed.
struct Tail {
    filter: Arc<Filter>,
    /// Up to where everything was told, of all partitions.
    positions: Positions,
    /// The same of this node's.
    own_positions: Positions,
    /// What this node itself reads.
    share: Share,
    /// Who of those that are read has lost touch; nothing where each partition has one copy.
    touch: Option<Touch>,
    /// By node, what is not told.
    lacks: BTreeMap<usize, Lack>,
    peers: mpsc::Receiver<(usize, FromPeer)>,
    /// Tells the peers that all has begun.
    go: watch::Sender<bool>,
    news: watch::Receiver<u64>,
    is_closing: watch::Receiver<bool>,
    bounds: TailBounds,
    shared: Shared,
    _place: OwnedSemaphorePermit,
}

impl Tail {
    /// Waits for the other nodes' beginnings, for a while.
    async fn begin(&mut self, own: TailBegin, peers: &[&str], last: usize) -> Result<Begun, ApiError> {
        // What was read was known then.
        let mut oldest = self.own_staleness();
        let TailBegin { mut records, positions, lacks } = own;
        self.positions.update(&positions);
        let mut lacks: Vec<String> = lacks.iter().map(ToString::to_string).collect();
        let mut waiting: Vec<usize> = (0..peers.len()).collect();
        let mut elsewhere = 0;
        let deadline = Instant::now() + limits::PEER_TAIL_BEGIN_MAX;
        while !waiting.is_empty() {
            let Ok(Some((number, heard))) = timeout_at(deadline, self.peers.recv()).await else { break };
            match heard {
                FromPeer::Events(events) => records.extend(events.into_iter().filter_map(record)),
                FromPeer::Begun { positions, partial, staleness } => {
                    self.positions.update(&positions);
                    lacks.extend(partial);
                    oldest = oldest.max(staleness);
                    self.note_staleness(number, staleness);
                    waiting.retain(|waiting| *waiting != number);
                }
                FromPeer::Stale(staleness) => self.note_staleness(number, staleness),
                FromPeer::Lost(lack) => {
                    self.lacks.insert(number, lack);
                    waiting.retain(|waiting| *waiting != number);
                }
                FromPeer::NotHeld => {
                    elsewhere += 1;
                    waiting.retain(|waiting| *waiting != number);
                }
            }
        }
        if !peers.is_empty() && elsewhere == peers.len() {
            self.shared.app.check_partition(self.filter.partition)?;
        }
        self.go.send_replace(true);
        for number in waiting {
            let url = peers.get(number).copied().unwrap_or_default();
            self.lacks.entry(number).or_insert_with(|| Lack::node(url, &PeerError::TimedOut));
        }
        lacks.extend(self.lacks.values().map(ToString::to_string));
        records.sort_by_key(|record| (record.timestamp_ms, record.partition, record.offset));
        // Two nodes may have told the same.
        records.dedup_by_key(|record| (record.partition, record.offset));
        let first = records.len().saturating_sub(last);
        let mut text = Vec::new();
        for record in records.iter().skip(first) {
            write_event(&mut text, "record", None, |out| record.encode(out));
        }
        write_event(&mut text, "begin", Some(&self.positions), |out| out.extend_from_slice(b"{}"));
        self.tell_touch(&mut text);
        let partial = (!lacks.is_empty()).then(|| lacks.join(", "));
        Ok(Begun { text, partial, staleness: oldest })
    }

    /// Tells until the reader is gone, or the node stops.
    async fn run(mut self, begun: Vec<u8>, sender: mpsc::Sender<Bytes>) {
        let mut out = begun;
        // What came since the beginning was made is looked at at once.
        let (mut is_new, mut look_at) = (true, Instant::now());
        // Counted from what was sent last: what comes and does not pass is silence to the reader.
        let mut quiet_until = Instant::now() + self.bounds.heartbeat;
        let mut touch_at = Instant::now() + limits::TAIL_TOUCH_PAUSE;
        loop {
            if !out.is_empty() {
                if !self.send(&sender, std::mem::take(&mut out)).await {
                    return;
                }
                quiet_until = Instant::now() + self.bounds.heartbeat;
            }
            let mut happened = Happened::Nothing;
            tokio::select! {
                _ = self.is_closing.wait_for(|is_closing| *is_closing) => return,
                () = sender.closed() => return,
                // Without other nodes this branch is off: the channel is empty and closed.
                Some((number, heard)) = self.peers.recv() => happened = Happened::Heard(number, heard),
                changed = self.news.changed(), if !is_new => match changed {
                    Ok(()) => is_new = true,
                    Err(_gone) => return,
                },
                () = sleep_until(look_at), if is_new => happened = Happened::LookTime,
                () = sleep_until(touch_at), if self.touch.is_some() => happened = Happened::TouchTime,
                () = sleep_until(quiet_until) => out.extend_from_slice(b":\n\n"),
            }
            match happened {
                Happened::Nothing => {}
                Happened::Heard(number, heard) => self.take(number, heard, &mut out),
                Happened::TouchTime => {
                    self.tell_touch(&mut out);
                    touch_at = Instant::now() + limits::TAIL_TOUCH_PAUSE;
                }
                Happened::LookTime => {
                    match self.look(&mut out).await {
                        Ok(has_more) => is_new = has_more,
                        Err(PoolError::Busy { .. }) => {}
                        Err(PoolError::BrokenOff) => return,
                    }
                    look_at = Instant::now() + if is_new { Duration::ZERO } else { limits::TAIL_PAUSE_MIN };
                }
            }
        }
    }

    /// Whether the reader takes it: waits for that, but not longer than the node serves.
    async fn send(&mut self, sender: &mpsc::Sender<Bytes>, out: Vec<u8>) -> bool {
        tokio::select! {
            sent = sender.send(out.into()) => sent.is_ok(),
            _ = self.is_closing.wait_for(|is_closing| *is_closing) => false,
        }
    }

    /// Looks for what is new on this node; whether there is more already.
    async fn look(&mut self, out: &mut Vec<u8>) -> Result<bool, PoolError> {
        // Before looking: what comes meanwhile is new again.
        self.news.mark_unchanged();
        let (filter, at) = (Arc::clone(&self.filter), self.own_positions.clone());
        let piece = self.shared.app.queries.tail_next(filter, at, self.bounds).await?;
        for event in piece.events {
            self.tell(event, out);
        }
        self.positions.update(&piece.positions);
        self.own_positions = piece.positions;
        Ok(piece.has_more)
    }

    /// Takes what another node says.
    fn take(&mut self, number: usize, heard: FromPeer, out: &mut Vec<u8>) {
        match heard {
            // It has not begun, or not again: what was there before is not news.
            FromPeer::Events(_) if self.lacks.contains_key(&number) => {}
            FromPeer::Events(events) => events.into_iter().for_each(|event| self.tell(event, out)),
            FromPeer::Stale(staleness) => self.note_staleness(number, staleness),
            FromPeer::Begun { positions, staleness, .. } => {
                self.positions.update(&positions);
                self.note_staleness(number, staleness);
                if self.lacks.remove(&number).is_some() {
                    self.tell_lacks(out);
                }
            }
            FromPeer::Lost(lack) => {
                // It tells nothing any more, be it old or not.
                self.note_staleness(number, None);
                if self.lacks.insert(number, lack).is_none() {
                    self.tell_lacks(out);
                }
            }
            FromPeer::NotHeld => {
                self.note_staleness(number, None);
                if self.lacks.remove(&number).is_some() {
                    self.tell_lacks(out);
                }
            }
        }
    }

    fn tell(&mut self, event: TailEvent, out: &mut Vec<u8>) {
        match event {
            TailEvent::Record(record) => {
                if self.positions.get(record.partition).is_some_and(|next| record.offset < next) {
                    return;
                }
                self.positions.set(record.partition, record.offset.plus(1));
                write_event(out, "record", Some(&self.positions), |out| record.encode(out));
            }
            TailEvent::Missed(missed) => {
                write_event(out, "gap", Some(&self.positions), |out| {
                    out.extend_from_slice(format!("{{\"missed\":{missed}}}").as_bytes());
                });
            }
        }
    }

    /// How old may be what this node itself reads.
    fn own_staleness(&self) -> Option<Staleness> {
        scope::staleness_of_share(&self.shared, &self.share, self.filter.partition)
    }

    fn note_staleness(&mut self, number: usize, staleness: Option<Staleness>) {
        if let Some(touch) = &mut self.touch {
            touch.note_peer(number, staleness);
        }
    }

    /// Tells whether a replica that is read has lost touch, or all are back, if the reader does not know it.
    fn tell_touch(&mut self, out: &mut Vec<u8>) {
        let own = self.own_staleness();
        let Some(change) = self.touch.as_mut().and_then(|touch| touch.change(own)) else { return };
        write_event(out, "stale", Some(&self.positions), |out| match change {
            Some(age) => out.extend_from_slice(format!("{{\"staleness\":\"{age}\"}}").as_bytes()),
            None => out.extend_from_slice(b"{\"staleness\":null}"),
        });
    }

    fn tell_lacks(&self, out: &mut Vec<u8>) {
        let lacks: Vec<String> = self.lacks.values().map(ToString::to_string).collect();
        let partial = (!lacks.is_empty()).then(|| lacks.join(", "));
        write_event(out, "partial", Some(&self.positions), |out| {
            out.extend_from_slice(b"{\"partial\":");
            match &partial {
                Some(partial) => model::json::append_string(out, partial),
                None => out.extend_from_slice(b"null"),
            }
            out.push(b'}');
        });
    }
}

fn record(event: TailEvent) -> Option<TailRecord> {
    match event {
        TailEvent::Record(record) => Some(record),
        TailEvent::Missed(_) => None,
    }
}

fn write_event(out: &mut Vec<u8>, name: &str, id: Option<&Positions>, data: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(format!("\nid: {id}").as_bytes());
    }
    out.extend_from_slice(b"\ndata: ");
    data(out);
    out.extend_from_slice(b"\n\n");
}
