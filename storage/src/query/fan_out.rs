//! The other storage nodes: one call each, with the same question, at the same time.
//!
//! Invariants: only the URLs that the operator gave are called, or with replicas those that the nodes' directory has; a
//! node that does not answer, or whose answer is no use, is named; what answers take in memory is bounded in the whole
//! process. Must not know what is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use model::{Partition, wire};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use url::Url;

use super::stats::Lack;
use crate::limits;
use crate::outbound::{self, HttpClient};

/// Of which of its partitions a node answers, in answers of nodes to one another; without it, of all.
pub const SHARE: &str = "edgelog-partitions";

/// The other nodes.
#[derive(Clone, Debug)]
pub struct Peers {
    client: HttpClient<Empty<Bytes>>,
    /// Without a slash at the end.
    urls: Arc<[String]>,
    answer_bytes: Arc<Semaphore>,
}

/// Which of the partitions that a node holds it looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// All.
    #[default]
    All,
    /// Those of these.
    Only(Arc<[Partition]>),
}

/// Who looks at what for one question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the node that was asked looks at itself.
    pub own: Share,
    /// The nodes that are called, by URL, each with its share. No partition is in two shares.
    pub calls: Vec<(String, Share)>,
    /// Partitions of which no node is there: the whole lacks them.
    pub nowhere: Vec<Partition>,
}

/// What a node answered.
#[derive(Debug)]
pub struct PeerAnswer {
    /// The node's URL.
    pub url: String,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, which is counted until the answer is dropped.
    pub body: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Why a node's answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It is not a URL that can be called.
    #[error("it cannot be called: {0}")]
    Request(#[from] http::Error),
    /// There is no connection.
    #[error("it cannot be reached")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    TimedOut,
    /// Its answer ended where it should not.
    #[error("its answer ended")]
    Ended,
    /// Its answer broke off.
    #[error("its answer broke off")]
    BrokeOff(#[from] hyper::Error),
    /// Its answer is larger than one may be.
    #[error("its answer is too large")]
    TooLarge,
    /// The answers of other nodes take all memory there is for them.
    #[error("there is no room for its answer")]
    NoRoom,
    /// It refused.
    #[error("it answered {0}")]
    Refused(StatusCode),
    /// Its answer is not what was asked for.
    #[error("its answer is not understood")]
    NotUnderstood,
}

impl Plan {
    /// The plan for a question about one partition: who has nothing of it is not asked, and no other one lacks.
    pub fn only(mut self, partition: Partition) -> Self {
        self.calls.retain(|(_, share)| share.contains(partition));
        self.nowhere.retain(|nowhere| *nowhere == partition);
        self
    }
}

impl Peers {
    /// The nodes of these URLs.
    pub fn new(urls: &[Url]) -> Self {
        let client = outbound::builder()
            .pool_idle_timeout(limits::PEER_IDLE_MAX)
            .pool_max_idle_per_host(limits::PEER_IDLE_CONNECTIONS_MAX)
            .build(outbound::connector(limits::PEER_CONNECT_MAX));
        Self {
            client,
            urls: urls.iter().map(|url| url.as_str().trim_end_matches('/').to_owned()).collect(),
            answer_bytes: Arc::new(Semaphore::new(limits::PEER_ANSWERS_BYTES_MAX)),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }

    /// Who looks at what. Every partition has one holder: each node looks at all that it holds.
    pub fn plan(&self) -> Plan {
        Plan {
            own: Share::All,
            calls: self.urls.iter().map(|url| (url.clone(), Share::All)).collect(),
            nowhere: Vec::new(),
        }
    }

    /// Who looks at what where partitions have replicas: each is looked at by one node, as `readers` says. What has none
    /// is asked of nobody, and named by [`Plan::nowhere`].
    pub fn plan_of(own_url: &str, readers: Vec<(Partition, Option<String>)>) -> Plan {
        let mut own = Vec::new();
        let mut calls: BTreeMap<String, Vec<Partition>> = BTreeMap::new();
        let mut nowhere = Vec::new();
        for (partition, reader) in readers {
            match reader {
                Some(url) if url == own_url => own.push(partition),
                Some(url) => calls.entry(url).or_default().push(partition),
                None => nowhere.push(partition),
            }
        }
        let calls = calls.into_iter().map(|(url, share)| (url, Share::Only(share.into())));
        Plan { own: Share::Only(own.into()), calls: calls.collect(), nowhere }
    }

    /// Makes the plan's calls, all at once. Waits no longer than a query may take.
    pub async fn ask(&self, plan: &Plan, path_and_query: &str) -> Vec<Result<PeerAnswer, Lack>> {
        let asked = plan.calls.iter().map(|(url, share)| self.ask_one(url, share, path_and_query));
        let mut answers = join_all(asked).await;
        answers.extend(plan.nowhere.iter().map(|partition| Err(Lack::Nowhere(*partition))));
        answers
    }

    async fn ask_one(&self, url: &str, share: &Share, path_and_query: &str) -> Result<PeerAnswer, Lack> {
        let answer = timeout(limits::PEER_TIME_MAX, self.call(url, share, path_and_query));
        answer.await.unwrap_or(Err(PeerError::TimedOut)).map_err(|error| Lack::node(url, &error))
    }

    async fn call(&self, url: &str, share: &Share, path_and_query: &str) -> Result<PeerAnswer, PeerError> {
        let response = self.open(url, share, path_and_query, &[]).await?;
        let (parts, mut body) = response.into_parts();
        let mut bytes = BytesMut::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if bytes.len() + data.len() > limits::PEER_ANSWER_BYTES_MAX {
                return Err(PeerError::TooLarge);
            }
            let more = u32::try_from(data.len()).map_err(|_| PeerError::TooLarge)?;
            let more = Arc::clone(&self.answer_bytes).acquire_many_owned(more);
            let more = timeout(limits::PEER_ROOM_WAIT_MAX, more).await.map_err(|_| PeerError::NoRoom)?;
            let more = more.map_err(|_closed| PeerError::NoRoom)?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok(PeerAnswer {
            url: url.to_owned(),
            status: parts.status,
            headers: parts.headers,
            body: bytes.freeze(),
            _share: share,
        })
    }

    /// Asks one node, and returns as soon as its answer begins.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn open(
        &self,
        url: &str,
        share: &Share,
        path_and_query: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, PeerError> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(format!("{url}{path_and_query}"))
            .header(wire::SCOPE, wire::SCOPE_NODE);
        if let Share::Only(_) = share {
            request = request.header(SHARE, share.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(self.client.request(request.body(Empty::new())?).await?)
    }
}

impl Share {
    /// Whether the partition is in it, should the node hold it.
    pub fn contains(&self, partition: Partition) -> bool {
        match self {
            Self::All => true,
            Self::Only(partitions) => partitions.contains(&partition),
        }
    }

    /// The partitions that are named.
    pub fn named(&self) -> &[Partition] {
        match self {
            Self::All => &[],
            Self::Only(partitions) => partitions,
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Only(partitions) = self else { return f.write_str("all") };
        for (place, partition) in partitions.iter().enumerate() {
            write!(f, "{}{partition}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Share {
    type Err = model::ids::InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split(',').map(str::trim).filter(|number| !number.is_empty());
        Ok(Self::Only(numbers.map(str::parse).collect::<Result<_, _>>()?))
    }
}

impl PeerAnswer {
    /// The text of a header; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What the node says that its answer lacks.
    pub fn told_lack(&self) -> Option<Lack> {
        let lack = self.header(wire::PARTIAL);
        (!lack.is_empty()).then(|| Lack::Told { url: self.url.clone(), lack: lack.to_owned() })
    }

    /// What lacks because of this answer.
    pub fn lack(&self, error: &PeerError) -> Lack {
        Lack::node(&self.url, error)
    }
}
