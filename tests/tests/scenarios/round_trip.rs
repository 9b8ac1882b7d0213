//! Ten thousand records of every kind go in, and come out as they were.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use model::wire::{self, IngestAnswer};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::value::RawValue;
use tests::client::answer;
use tests::records::{SERVICES, partition_of};
use tests::{Cluster, ClusterSpec, files, random};

const RECORDS: usize = 10_000;
/// Records of one request at most.
const BATCH_RECORDS_MAX: usize = 300;
/// Bytes of one request after which a batch is closed: two large records may meet.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A JSON string's text, quotes included: numbers keep their digits, strings their escapes.
type JsonText = String;

/// A record as it has to come out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    /// `None`: the time of receipt.
    timestamp: Option<u64>,
    service: String,
    level: Option<String>,
    message: JsonText,
    labels: BTreeMap<String, JsonText>,
}

/// A stored line, read by a parser that is not edgelog's. Texts that may hold lone surrogates stay as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLine<'a> {
    timestamp: u64,
    service: String,
    #[serde(default)]
    level: Option<String>,
    #[serde(borrow)]
    message: &'a RawValue,
    #[serde(borrow, default)]
    labels: Option<BTreeMap<String, &'a RawValue>>,
    received_at: u64,
    ingested_node_id: String,
    client_ip: String,
}

/// When a batch was sent, and when it was answered, in Unix milliseconds.
type Span = (u64, u64);

#[tokio::test]
async fn ten_thousand_records_of_every_kind_come_out_as_they_went_in() {
    let cluster = ClusterSpec::default().start().await;
    let mut random = random::seeded();
    let mut expected: BTreeMap<u16, Vec<(Expected, Span)>> = BTreeMap::new();
    let mut corpus =
        (0..RECORDS).map(|number| make_record(number, &mut random)).collect::<Vec<_>>().into_iter();
    let mut number = 0;
    while let Some(batch) = next_batch(&mut corpus, &mut random) {
        let sent_at = unix_ms();
        send(&cluster, number, batch.iter().map(|(text, _)| text.as_str()).collect()).await;
        let span = (sent_at, unix_ms());
        for (_, record) in batch {
            let partition = partition_of(&record.service, cluster.partitions());
            expected.entry(partition).or_default().push((record, span));
        }
        number += 1;
    }
    assert_eq!(cluster.stored_count().await, RECORDS as u64);
    for (partition, expected) in &expected {
        compare(&cluster, *partition, expected).await;
    }
}

/// The next records, as many as one request takes.
fn next_batch(
    corpus: &mut std::vec::IntoIter<(String, Expected)>,
    random: &mut ChaCha8Rng,
) -> Option<Vec<(String, Expected)>> {
    let records_max = random.random_range(1..=BATCH_RECORDS_MAX);
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < records_max && bytes < BATCH_BYTES_MAX {
        let Some(record) = corpus.next() else { break };
        bytes += record.0.len();
        batch.push(record);
    }
    (!batch.is_empty()).then_some(batch)
}

/// Sends the records in one of the ways that there are.
async fn send(cluster: &Cluster, number: usize, records: Vec<&str>) {
    let array = format!("[{}]", records.join(","));
    let spaced = format!("\u{20}[\r\n{}\n]\t\n", records.join(" ,\n "));
    let lines = records.join("\n");
    let (content_type, encoding, body) = match number % 6 {
        0 => (wire::JSON, None, array.into_bytes()),
        1 => (wire::NDJSON, None, (lines + "\n").into_bytes()),
        2 => (wire::JSON, Some("gzip"), gzip(array.as_bytes())),
        3 => (wire::NDJSON, Some("zstd"), zstd::encode_all(lines.as_bytes(), 1).unwrap()),
        4 => (wire::JSON, None, spaced.into_bytes()),
        _ => ("application/x-ndjson; charset=utf-8", Some("gzip"), gzip(lines.as_bytes())),
    };
    let mut request = cluster.client.post(&cluster.url("/v1/logs")).header("content-type", content_type);
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    let answer = answer(request.body(body)).await.unwrap().expect(200);
    let taken =
        IngestAnswer { received: records.len(), queued: 0, rejected_total: None, rejected: Vec::new() };
    assert_eq!(answer.json::<IngestAnswer>(), taken, "batch {number}");
    assert_eq!(answer.header("durability"), "leader");
}

/// Compares a partition over HTTP and in its files with what it has to hold, field by field.
async fn compare(cluster: &Cluster, partition: u16, expected: &[(Expected, Span)]) {
    let node = &cluster.nodes[cluster.holder_of(partition)];
    let lines = files::lines(&node.partition_dir(partition));
    let url = node.url(&format!("/v1/read?partition={partition}&limit={RECORDS}"));
    let read =
        answer(cluster.client.request("GET", &url).header("accept", wire::NDJSON)).await.unwrap().expect(200);
    assert!(
        read.text().split_terminator('\n').eq(&lines),
        "partition {partition}: HTTP and files have the same lines"
    );
    assert_eq!(lines.len(), expected.len(), "partition {partition}");
    for (line, (expected, (sent_at, answered_at))) in lines.iter().zip(expected) {
        let shown: String = line.chars().take(1_000).collect();
        let stored: StoredLine<'_> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {shown}"));
        let texts = stored.labels.into_iter().flatten().map(|(name, text)| (name, text.get().to_owned()));
        let got = Expected {
            timestamp: Some(stored.timestamp),
            service: stored.service,
            level: stored.level,
            message: stored.message.get().to_owned(),
            labels: texts.collect(),
        };
        let timestamp = expected.timestamp.or(Some(stored.received_at));
        assert!(got == Expected { timestamp, ..expected.clone() }, "{shown}\nis not {expected:.2000?}");
        assert!(
            (*sent_at..=*answered_at).contains(&stored.received_at),
            "{sent_at}..={answered_at}: {shown}"
        );
        assert_eq!((&*stored.ingested_node_id, &*stored.client_ip), ("ingest-1", "127.0.0.1"), "{shown}");
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Makes a record: the text to send, on one line, and what has to come of it.
fn make_record(number: usize, random: &mut ChaCha8Rng) -> (String, Expected) {
    let message = match number {
        // The large ones: plain, all newlines, and all NULs, each of which takes six bytes.
        1_000 => format!("\"{}\"", "m".repeat(1 << 20)),
        2_000 => format!("\"{}\"", "\\n".repeat(1 << 20)),
        3_000 => format!("\"{}\"", "\\u0000".repeat(1 << 20)),
        _ => make_text(random),
    };
    let mut fields = vec![format!("\"message\":{message}")];
    let timestamp = make_timestamp(&mut fields, random);
    let service = make_service(&mut fields, random);
    let level = make_level(&mut fields, random);
    let labels = make_labels(&mut fields, random);
    // The order of members means nothing.
    let middle = random.random_range(0..fields.len());
    fields.rotate_left(middle);
    (format!("{{{}}}", fields.join(",")), Expected { timestamp, service, level, message, labels })
}

fn make_timestamp(fields: &mut Vec<String>, random: &mut ChaCha8Rng) -> Option<u64> {
    let timestamp = match random.random_range(0..10) {
        0 => return None,
        1 => 0,
        2 => 253_402_300_799_999,
        3 => {
            fields.push("\"timestamp\":\"2023-11-14T23:13:20.123456+01:00\"".to_owned());
            return Some(1_700_000_000_123);
        }
        _ => random.random_range(1_600_000_000_000..1_800_000_000_000),
    };
    fields.push(format!("\"timestamp\":{timestamp}"));
    Some(timestamp)
}

fn make_service(fields: &mut Vec<String>, random: &mut ChaCha8Rng) -> String {
    let service = match random.random_range(0..12) {
        0 => return "unknown_service".to_owned(),
        1 => "\u{1f600} service \n",
        2 => "a\"b\\c/d",
        _ => SERVICES.choose(random).unwrap(),
    };
    fields.push(format!("\"service\":{}", serde_json::to_string(service).unwrap()));
    service.to_owned()
}

fn make_level(fields: &mut Vec<String>, random: &mut ChaCha8Rng) -> Option<String> {
    let (text, level) = match random.random_range(0..8) {
        0 => return None,
        1 => ("null", None),
        2 => ("30", Some("30")),
        3 => ("\"\\u0057arn \u{15b}\"", Some("Warn \u{15b}")),
        4 => ("\"\"", Some("")),
        _ => ("\"INFO\"", Some("INFO")),
    };
    fields.push(format!("\"level\":{text}"));
    level.map(str::to_owned)
}

fn make_labels(fields: &mut Vec<String>, random: &mut ChaCha8Rng) -> BTreeMap<String, JsonText> {
    let mut labels = BTreeMap::new();
    match random.random_range(0..6) {
        0 => {}
        1 => fields.push("\"labels\":null".to_owned()),
        2 => fields.push("\"labels\":{}".to_owned()),
        _ => {
            let names = ["user", "", "n\u{e4}me", "a.b", "\u{1f600}", "with space\n"];
            for name in names.choose_multiple_in_order(random) {
                labels.insert(name.to_owned(), make_text(random));
            }
            let members: Vec<String> = labels
                .iter()
                .map(|(name, text)| format!("{}:{text}", serde_json::to_string(name).unwrap()))
                .collect();
            fields.push(format!("\"labels\":{{{}}}", members.join(",")));
        }
    }
    if random.random_bool(0.2) {
        // Other fields become labels: nothing that was sent is dropped, and no digit of a number.
        for (name, sent, kept) in [
            ("count", "123456789012345678901234567890", "\"123456789012345678901234567890\""),
            ("ratio", "-0.10e-400", "\"-0.10e-400\""),
            ("flag", "true", "\"true\""),
            ("text", "\"\\ud800 \\n\"", "\"\\ud800 \\n\""),
            ("list", "[1.0,{\"a\":\"b\"}]", "\"[1.0,{\\\"a\\\":\\\"b\\\"}]\""),
        ] {
            fields.push(format!("\"{name}\":{sent}"));
            labels.insert(name.to_owned(), kept.to_owned());
        }
    }
    labels
}

/// Some of a list's elements, in order.
trait ChooseInOrder<T> {
    fn choose_multiple_in_order(&self, random: &mut ChaCha8Rng) -> Vec<T>;
}

impl<T: Copy> ChooseInOrder<T> for [T] {
    fn choose_multiple_in_order(&self, random: &mut ChaCha8Rng) -> Vec<T> {
        self.iter().filter(|_| random.random_bool(0.5)).copied().collect()
    }
}

/// A JSON string of any characters, escaped or not, with lone surrogates now and then.
fn make_text(random: &mut ChaCha8Rng) -> JsonText {
    let length = match random.random_range(0..100) {
        0 => 20_000,
        1..5 => 0,
        _ => random.random_range(1..80),
    };
    let mut text = String::from("\"");
    for _ in 0..length {
        let c = match random.random_range(0..12) {
            0 => char::from(random.random_range(0..0x20_u8)),
            1 => *['"', '\\', '/', '\u{7f}', '\u{2028}', '\u{feff}', '\u{fffe}', '\u{ffff}']
                .choose(random)
                .unwrap(),
            2 => random.random_range('\u{80}'..='\u{7ff}'),
            3 => random.random_range('\u{800}'..='\u{ffff}'),
            4 => random.random_range('\u{10000}'..='\u{10ffff}'),
            5 if random.random_bool(0.01) => {
                // Half of a character: JSON's grammar allows it, and a client's bug should not cost its record.
                text.push_str(["\\ud800", "\\uDFFF", "\\udc00\\ud800"].choose(random).unwrap());
                continue;
            }
            _ => char::from(random.random_range(b' '..=b'~')),
        };
        push_character(&mut text, c, random);
    }
    text.push('"');
    text
}

/// Appends a character in one of the ways in which JSON may have it.
fn push_character(text: &mut String, c: char, random: &mut ChaCha8Rng) {
    let needs_escape = c < ' ' || c == '"' || c == '\\';
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '/' => "\\/",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        _ => "",
    };
    match random.random_range(0..10) {
        0..8 if !needs_escape => text.push(c),
        0..9 if !short.is_empty() => text.push_str(short),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&if random.random_bool(0.5) {
                    format!("\\u{unit:04x}")
                } else {
                    format!("\\u{unit:04X}")
                });
            }
        }
    }
}
