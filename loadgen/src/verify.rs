//! Reads back what the storage nodes hold, for [`crate::compare`] to judge.
//!
//! Invariant: a page counts once and whole. A page whose answer breaks off is asked for again from its first offset,
//! so a node that dies while it is read neither hides nor doubles a record. This module must not know what the
//! records should be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode, header, response};
use http_body_util::Full;
use memchr::memchr;
use model::limits::{QUERY_LIMIT_MAX, RECORD_BYTES_MAX};
use model::wire::{self, ClusterAnswer, ReplicaRole};
use model::{Offset, Partition};

use crate::client::{Client, Target, TransportError};
use crate::compare::{Comparison, StoredLine};
use crate::limits::{ANSWER_BYTES_MAX, SETTLE_PAUSE};
use crate::report::shorten;

/// The offset after the last record of a page.
const NEXT_OFFSET: HeaderName = HeaderName::from_static("next-offset");

/// Why storage could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// A node does not answer.
    #[error("storage node {node}: {source}")]
    Unreachable {
        /// The node's URL.
        node: String,
        /// What happened.
        source: TransportError,
    },
    /// A node answers, but not with what was asked for.
    #[error("storage node {node}: {path}: {detail}")]
    BadAnswer {
        /// The node's URL.
        node: String,
        /// What was asked for.
        path: String,
        /// What is wrong with the answer.
        detail: String,
    },
    /// The nodes hold no partition at all.
    #[error("the storage nodes hold no partition: check --storage")]
    NoPartitions,
}

/// Reads the storage nodes from where they stood when it was opened.
pub(crate) struct StorageReader {
    nodes: Vec<Client>,
    partitions: Vec<PartitionReader>,
}

/// One partition, and how far it was read.
struct PartitionReader {
    partition: Partition,
    next: Offset,
    /// The places of the nodes that hold it. The one that is asked stands first: its leader, until it fails.
    holders: Vec<usize>,
}

/// Records that a node answered with.
struct Page {
    lines: Vec<Result<StoredLine, String>>,
    next: Offset,
}

impl StorageReader {
    /// Notes where each partition of these nodes ends now.
    ///
    /// # Errors
    /// A node that does not answer or answers nonsense; no partitions.
    pub(crate) async fn open(nodes: &[Target], timeout: Duration) -> Result<Self, VerifyError> {
        let mut nodes: Vec<_> = nodes.iter().map(|node| Client::new(node.clone(), timeout)).collect();
        let mut partitions = BTreeMap::<Partition, PartitionReader>::new();
        for (place, node) in nodes.iter_mut().enumerate() {
            let answer = cluster(node).await?;
            for state in answer.partitions {
                // A node may know of partitions that others hold.
                let Some(role) = state.role_of(&answer.node) else { continue };
                let partition = state.partition;
                let next = state.high_watermark;
                let reader = partitions.entry(partition).or_insert(PartitionReader {
                    partition,
                    next,
                    holders: Vec::new(),
                });
                if role == ReplicaRole::Leader {
                    // A replica may lag behind; the leader knows where the partition ends.
                    reader.next = next;
                    reader.holders.insert(0, place);
                } else {
                    reader.holders.push(place);
                }
            }
        }
        if partitions.is_empty() {
            return Err(VerifyError::NoPartitions);
        }
        Ok(Self { nodes, partitions: partitions.into_values().collect() })
    }

    /// Shows `comparison` all records since, and waits for acknowledged ones that are not there yet and for nodes
    /// that do not answer: until all is there, or nothing new came for `settle`.
    ///
    /// # Errors
    /// A node that did not come back within `settle`.
    pub(crate) async fn read_all(
        &mut self,
        comparison: &mut Comparison,
        settle: Duration,
    ) -> Result<(), VerifyError> {
        let mut progress_at = Instant::now();
        loop {
            let mut failure = None;
            for reader in &mut self.partitions {
                let from = reader.next;
                if let Err(error) = reader.read_to_end(&mut self.nodes, comparison).await {
                    failure = Some(error);
                }
                if reader.next != from {
                    progress_at = Instant::now();
                }
            }
            let has_settled = progress_at.elapsed() >= settle;
            match failure {
                Some(error) if has_settled => return Err(error),
                None if has_settled || comparison.acked_unseen() == 0 => return Ok(()),
                _ => tokio::time::sleep(SETTLE_PAUSE).await,
            }
        }
    }
}

impl PartitionReader {
    async fn read_to_end(
        &mut self,
        nodes: &mut [Client],
        comparison: &mut Comparison,
    ) -> Result<(), VerifyError> {
        loop {
            let Some(node) = self.holders.first().and_then(|place| nodes.get_mut(*place)) else {
                return Ok(());
            };
            let page = match read_page(node, self.partition, self.next).await {
                Ok(page) => page,
                Err(error) => {
                    // The next look asks another holder, if there is one.
                    self.holders.rotate_left(1);
                    return Err(error);
                }
            };
            for line in page.lines {
                match line {
                    Ok(line) => comparison.see(self.partition, line),
                    Err(text) => comparison.see_malformed(self.partition, &text),
                }
            }
            if page.next == self.next {
                return Ok(());
            }
            self.next = page.next;
        }
    }
}

async fn cluster(node: &mut Client) -> Result<ClusterAnswer, VerifyError> {
    let path = "/v1/cluster";
    let request = node.target().request(Some(PathAndQuery::from_static(path)), Full::default());
    let (head, body) = node
        .exchange_whole(request, ANSWER_BYTES_MAX)
        .await
        .map_err(|source| VerifyError::Unreachable { node: node.target().to_string(), source })?;
    let bad_answer =
        |detail| VerifyError::BadAnswer { node: node.target().to_string(), path: path.to_owned(), detail };
    if head.status != StatusCode::OK {
        return Err(bad_answer(format!("answered {}", head.status)));
    }
    serde_json::from_slice(&body).map_err(|error| bad_answer(error.to_string()))
}

/// Reads the records of `partition` from `offset` on, as many as the node gives at once.
async fn read_page(node: &mut Client, partition: Partition, offset: Offset) -> Result<Page, VerifyError> {
    let path = format!("/v1/read?partition={partition}&offset={offset}&limit={QUERY_LIMIT_MAX}");
    let bad_answer = |node: &Client, detail: String| VerifyError::BadAnswer {
        node: node.target().to_string(),
        path: path.clone(),
        detail,
    };
    let path_and_query = path.parse().map_err(|_| bad_answer(node, "not a path".to_owned()))?;
    let mut request = node.target().request(Some(path_and_query), Full::default());
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(wire::NDJSON));

    let mut lines = PageLines::default();
    let head = node
        .exchange(request, |data| lines.feed(data))
        .await
        .map_err(|source| VerifyError::Unreachable { node: node.target().to_string(), source })?;
    if head.status != StatusCode::OK {
        return Err(bad_answer(node, format!("answered {}", head.status)));
    }
    let next = next_offset(&head).filter(|next| *next >= offset);
    let next = next.ok_or_else(|| bad_answer(node, "no fit Next-Offset header".to_owned()))?;
    let lines = lines.finish();
    if next == offset && !lines.is_empty() {
        return Err(bad_answer(node, format!("{} records, but Next-Offset says none", lines.len())));
    }
    Ok(Page { lines, next })
}

fn next_offset(head: &response::Parts) -> Option<Offset> {
    head.headers.get(NEXT_OFFSET)?.to_str().ok()?.parse().ok().map(Offset::new)
}

/// Cuts a body that comes in pieces into lines, and parses each at once: only digests are kept.
#[derive(Default)]
struct PageLines {
    lines: Vec<Result<StoredLine, String>>,
    /// The beginning of a line whose end has not come yet.
    unfinished: Vec<u8>,
}

impl PageLines {
    fn feed(&mut self, mut data: &[u8]) -> Result<(), TransportError> {
        while let Some(length) = memchr(b'\n', data) {
            let (line, rest) = data.split_at(length);
            if self.unfinished.is_empty() {
                self.push(line);
            } else {
                self.unfinished.extend_from_slice(line);
                let line = std::mem::take(&mut self.unfinished);
                self.push(&line);
            }
            data = rest.get(1..).unwrap_or_default();
        }
        self.unfinished.extend_from_slice(data);
        if self.unfinished.len() > RECORD_BYTES_MAX {
            return Err(TransportError::TooLong(RECORD_BYTES_MAX));
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<Result<StoredLine, String>> {
        let last = std::mem::take(&mut self.unfinished);
        if !last.is_empty() {
            self.push(&last);
        }
        self.lines
    }

    fn push(&mut self, line: &[u8]) {
        let parsed = StoredLine::parse(line);
        self.lines
            .push(parsed.map_err(|error| format!("{error}: {}", shorten(&String::from_utf8_lossy(line)))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":1,"service":"s","message":"m","received_at":2,"ingested_node_id":"n","client_ip":"c"}"#;

    #[test]
    fn lines_are_the_same_however_the_body_is_cut() {
        let body = format!("{LINE}\nbroken\n{LINE}\n");
        for cut in 0..=body.len() {
            let (one, other) = body.as_bytes().split_at(cut);
            let mut lines = PageLines::default();
            lines.feed(one).unwrap();
            lines.feed(other).unwrap();
            let are_records: Vec<_> = lines.finish().iter().map(Result::is_ok).collect();
            assert_eq!(are_records, [true, false, true], "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut lines = PageLines::default();
        let piece = vec![b'x'; RECORD_BYTES_MAX / 2];
        lines.feed(&piece).unwrap();
        lines.feed(&piece).unwrap();
        assert!(matches!(lines.feed(b"x"), Err(TransportError::TooLong(_))));
    }
}
