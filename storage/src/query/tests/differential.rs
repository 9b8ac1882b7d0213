//! Random records, queries and fates of the index, against a plain reading of all records.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::log::FsyncPolicy;

/// One thing that happens to a node.
#[derive(Clone, Debug)]
enum Event {
    Append { partition: Index, records: Vec<Made> },
    IndexSome { steps: usize },
    Maintain { elapsed_ms: u64 },
    DeleteSidecars { which: u64 },
    DamageSidecar { which: Index, at: Index, xor: u8 },
    DropCache,
    Restart,
    Ask(Asked),
}

/// A record to be written.
#[derive(Clone, Debug)]
struct Made {
    timestamp: u64,
    service: String,
    level: Option<String>,
    message: String,
    labels: Vec<(String, String)>,
    /// How its text is written: escapes, order of fields, white space.
    style: u64,
}

/// A query in parameters.
#[derive(Clone, Debug)]
struct Asked {
    parameters: Vec<(String, String)>,
    limit: usize,
    is_forward: bool,
}

const SERVICES: [&str; 5] = ["a", "auth_service", "b\"c", "śluza", "never"];
const LEVELS: [&str; 6] = ["INFO", "info", "Warn", "ERROR", "é", "nobody"];
/// Parts of messages: words that share beginnings and ends, in both cases, with and without what JSON escapes.
const PARTS: [&str; 20] = [
    "user",
    "User",
    "users",
    "request_id=9f2c",
    "9f2cab",
    "ab9f2c",
    "timeout",
    "TIMEOUT",
    " ",
    "=",
    ", ",
    "\"",
    "\\",
    "\n",
    "é",
    "É",
    "\u{212a}elvin",
    "4242",
    "x",
    "/",
];

fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..8).prop_map(|parts| parts.concat())
}

fn any_made() -> impl Strategy<Value = Made> {
    let name = prop::sample::select(vec!["region", "trace", "r"]);
    let value = prop::sample::select(vec!["eu", "us", "", "9f2c", "~x", "eu west"]);
    let labels =
        prop::collection::btree_map(name.prop_map(str::to_owned), value.prop_map(str::to_owned), 0..3);
    let service = prop::sample::select(SERVICES[..4].to_vec());
    let level = prop::option::of(prop::sample::select(LEVELS[..5].to_vec()));
    (0..4000_u64, service, level, any_text(), labels, any::<u64>()).prop_map(
        |(timestamp, service, level, message, labels, style)| Made {
            timestamp,
            service: service.to_owned(),
            level: level.map(str::to_owned),
            message,
            labels: labels.into_iter().collect(),
            style,
        },
    )
}

fn any_parameter() -> impl Strategy<Value = (String, String)> {
    let pick = |values: Vec<&'static str>| prop::sample::select(values).prop_map(str::to_owned);
    let literal = || prop_oneof![any_text(), "[a-z0-9_=]{1,6}"];
    let line = (pick(vec!["contains", "icontains", "word"]), literal());
    let not_line = (pick(vec!["not_contains", "not_icontains", "not_word"]), literal());
    let patterns = vec![
        "user",
        "us(er|ers)",
        r"9f2c\w+",
        "(?i)timeout",
        "^user",
        "user$",
        r"\d{4}",
        "request_id=[0-9a-f]+",
        "é|timeout",
        "(?i)\u{212a}ELVIN",
        r"(users){1,2}",
        "[^a]",
        r"\bab9",
        "a*",
        "(?s)user.*x",
        "TIME(?:OUT)?",
        r"(?i)[a-z]{5}",
        r"=[0-9a-f]{5,}",
        r"\w{7}",
    ];
    let label = (
        pick(vec!["label.region", "label.region!", "label.trace", "label.r", "label.none!"]),
        pick(vec!["eu", "us", "", "~e.|us", "~", "~(eu)? ?west", "\\~x", "9f2c"]),
    );
    let time = (pick(vec!["from", "to"]), (0..4200_u64).prop_map(|time| time.to_string()));
    prop_oneof![
        4 => line,
        1 => not_line,
        2 => (pick(vec!["regex", "not_regex"]), pick(patterns)),
        2 => (Just("service".to_owned()), pick(SERVICES.to_vec())),
        2 => (Just("level".to_owned()), pick(LEVELS.to_vec())),
        2 => label,
        2 => time,
        1 => (Just("partition".to_owned()), pick(vec!["0", "1"])),
    ]
}

fn any_asked() -> impl Strategy<Value = Asked> {
    (prop::collection::vec(any_parameter(), 0..4), prop::sample::select(vec![1, 2, 5, 1000]), any::<bool>())
        .prop_map(|(mut parameters, limit, is_forward)| {
            let mut seen = Vec::new();
            parameters.retain(|(name, _)| {
                let single = matches!(name.as_str(), "from" | "to" | "partition");
                let is_new = !seen.contains(name);
                seen.push(name.clone());
                !single || is_new
            });
            Asked { parameters, limit, is_forward }
        })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<Index>(), prop::collection::vec(any_made(), 1..12))
            .prop_map(|(partition, records)| Event::Append { partition, records }),
        4 => (1..4_usize).prop_map(|steps| Event::IndexSome { steps }),
        2 => (0..40_u64).prop_map(|elapsed_ms| Event::Maintain { elapsed_ms }),
        1 => any::<u64>().prop_map(|which| Event::DeleteSidecars { which }),
        1 => (any::<Index>(), any::<Index>(), 1..=255_u8)
            .prop_map(|(which, at, xor)| Event::DamageSidecar { which, at, xor }),
        1 => Just(Event::DropCache),
        1 => Just(Event::Restart),
        8 => any_asked().prop_map(Event::Ask),
    ]
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes_max: 6000,
        segment_age_max: Duration::from_millis(100),
        retention_age: Some(Duration::from_millis(150)),
        compress_age: Some(Duration::from_millis(60)),
        // What is durable is not the question here, and syncs take time.
        fsync: FsyncPolicy::Never,
        ..LogOptions::default()
    }
}

impl Made {
    /// The record as JSON, in one of many styles.
    fn line(&self) -> String {
        let mut style = self.style;
        let mut choose = |of: u64| {
            style = style.rotate_right(7).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (style >> 32) % of
        };
        let is_usual = choose(3) > 0;
        let mut string = |text: &str| match if is_usual { 0 } else { choose(3) } {
            1 => format!(
                "\"{}\"",
                text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>()
            ),
            2 => serde_json::to_string(text).unwrap().replace('/', "\\/").replace('e', "\\u0065"),
            _ => serde_json::to_string(text).unwrap(),
        };
        let mut members = vec![
            format!("\"timestamp\":{}", self.timestamp),
            format!("\"service\":{}", string(&self.service)),
        ];
        members.extend(self.level.as_ref().map(|level| format!("\"level\":{}", string(level))));
        members.push(format!("\"message\":{}", string(&self.message)));
        if !self.labels.is_empty() {
            let pairs: Vec<String> = self
                .labels
                .iter()
                .map(|(name, value)| format!("{}:{}", string(name), string(value)))
                .collect();
            members.push(format!("\"labels\":{{{}}}", pairs.join(",")));
        }
        members.push("\"received_at\":5,\"ingested_node_id\":\"n\",\"client_ip\":\"i\"".to_owned());
        if !is_usual {
            let turn = choose(members.len() as u64) as usize;
            members.rotate_left(turn);
        }
        format!("{{{}}}", members.join(if is_usual { "," } else { " ,\t" }))
    }
}

/// Whether a record passes a parameter, read plainly.
fn passes(stored: &Stored, name: &str, value: &str) -> bool {
    let record = &stored.record;
    let message = text(record, "message");
    let (bare, is_negated) = match name.strip_prefix("not_") {
        Some(bare) => (bare, true),
        None => (name, false),
    };
    if value.is_empty() && !name.starts_with("label.") {
        return true;
    }
    let holds = match bare {
        "from" => stored.key.rank >= value.parse::<u64>().unwrap(),
        "to" => stored.key.rank < value.parse::<u64>().unwrap(),
        "partition" => stored.key.partition == value.parse().unwrap(),
        "contains" => message.contains(value),
        "icontains" => lower(message).contains(&lower(value)),
        "word" => has_word(message, value),
        "regex" => regex::Regex::new(value).unwrap().is_match(message),
        _ if name.starts_with("label.") => return passes_label(record, name, value),
        other => panic!("{other}"),
    };
    holds != is_negated
}

fn lower(text: &str) -> String {
    text.replace('\u{212a}', "k").to_lowercase()
}

fn has_word(message: &str, word: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii());
    message.match_indices(word).chain(overlapping(message, word)).any(|(at, _)| {
        let begins = !is_word(word.chars().next()) || !is_word(message[..at].chars().next_back());
        let ends = !is_word(word.chars().next_back()) || !is_word(message[at + word.len()..].chars().next());
        begins && ends
    })
}

/// All places of `word`, those too that overlap others.
fn overlapping<'a>(message: &'a str, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    message
        .char_indices()
        .filter(move |(at, _)| message[*at..].starts_with(word))
        .map(move |(at, _)| (at, word))
}

fn passes_label(record: &serde_json::Value, name: &str, value: &str) -> bool {
    let name = name.strip_prefix("label.").unwrap();
    let (name, is_negated) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
    let actual = record["labels"][name].as_str().unwrap_or_default();
    let holds = match value.strip_prefix('~') {
        Some(pattern) => regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(actual),
        None => actual == value.strip_prefix('\\').unwrap_or(value),
    };
    holds != is_negated
}

/// Whether a record passes all parameters: of services and levels one has to do, of all others each.
fn passes_all(stored: &Stored, parameters: &[(String, String)]) -> bool {
    let of = |wanted: &'static str| {
        parameters.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value)
    };
    let service =
        of("service").count() == 0 || of("service").any(|value| text(&stored.record, "service") == value);
    let level = of("level").count() == 0
        || of("level").any(|value| {
            let level = text(&stored.record, "level");
            !level.is_empty() && level.to_lowercase() == value.to_lowercase()
        });
    let others = parameters.iter().filter(|(name, _)| name != "service" && name != "level");
    service && level && others.into_iter().all(|(name, value)| passes(stored, name, value))
}

impl Node {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Append { partition, records } => {
                let lines: Vec<String> = records.iter().map(Made::line).collect();
                self.append(partition.index(self.logs.len()), &lines);
            }
            Event::IndexSome { steps } => {
                for _ in 0..*steps {
                    self.indexer.step();
                }
            }
            Event::Maintain { elapsed_ms } => self.maintain(*elapsed_ms),
            Event::DeleteSidecars { which } => {
                for (path, place) in self.sidecars().iter().zip(0..) {
                    if which >> (place % 64) & 1 == 1 {
                        std::fs::remove_file(path).unwrap();
                    }
                }
                self.indexes.drop_cache();
            }
            Event::DamageSidecar { which, at, xor } => {
                let sidecars = self.sidecars();
                if !sidecars.is_empty() {
                    let path = which.get(&sidecars);
                    let mut bytes = std::fs::read(path).unwrap();
                    let at = at.index(bytes.len());
                    bytes[at] ^= xor;
                    std::fs::write(path, bytes).unwrap();
                }
                self.indexes.drop_cache();
            }
            Event::DropCache => self.indexes.drop_cache(),
            Event::Restart => self.restart(),
            Event::Ask(asked) => self.ask(asked),
        }
    }

    fn ask(&self, asked: &Asked) {
        let direction = if asked.is_forward { Direction::Forward } else { Direction::Backward };
        let pairs = || asked.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let expected = self.expected(direction, |stored| passes_all(stored, &asked.parameters));
        let mut query = Query::parse(pairs(), 0).unwrap();
        (query.direction, query.limit) = (direction, asked.limit);
        let mut pages = Vec::new();
        loop {
            let found = self.search(&query);
            assert_eq!(found.lacks, [], "{asked:?}");
            if pages.is_empty() && asked.limit.is_multiple_of(2) {
                self.ask_in_parallel(&query, &found);
            }
            assert!(found.records.len() <= asked.limit);
            assert!(
                found.next.is_none() || found.records.len() == asked.limit,
                "a page is full if there is another"
            );
            pages.extend(found_lines(&found));
            query.cursor = found.next.map(|next| next.to_string().parse().unwrap());
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(pages, lines_of(&expected), "{asked:?}");
        self.ask_counts(asked, &query.filter, &expected);
    }

    /// Threads make no difference.
    fn ask_in_parallel(&self, query: &Query, found: &Found) {
        let snapshot = Snapshot::now(&self.partitions, &query.filter);
        let parallel = search::search_in_parallel(&snapshot, query, usize::MAX, &no_hurry(), 2);
        assert_eq!(
            (found_lines(&parallel), parallel.next, parallel.lacks),
            (found_lines(found), found.next, Vec::new())
        );
    }

    fn ask_counts(&self, asked: &Asked, filter: &Filter, expected: &[Stored]) {
        let snapshot = Snapshot::now(&self.partitions, filter);
        let (services, lacks, _) = services::services(&snapshot, filter, &no_hurry());
        assert_eq!(lacks, []);
        let mut names: Vec<&str> = expected.iter().map(|stored| text(&stored.record, "service")).collect();
        names.sort_unstable();
        names.dedup();
        let summaries: Vec<ServiceSummary> = names
            .into_iter()
            .map(|service| {
                let of = || expected.iter().filter(|stored| text(&stored.record, "service") == service);
                ServiceSummary {
                    service: service.to_owned(),
                    records: of().count() as u64,
                    first: of().map(|stored| stored.key.rank).min().unwrap(),
                    last: of().map(|stored| stored.key.rank).max().unwrap(),
                    levels: by_level(of()),
                }
            })
            .collect();
        assert_eq!(services, summaries, "{asked:?}");
        let buckets =
            Buckets::new(filter.from_ms, filter.to_ms.min(5000).max(filter.from_ms), Cut::Buckets(7))
                .unwrap();
        let (histogram, lacks, _) = histogram::histogram(&snapshot, filter, buckets, &no_hurry());
        assert_eq!(lacks, []);
        if asked.is_forward {
            let parallel = histogram::histogram_in_parallel(&snapshot, filter, buckets, &no_hurry(), 2);
            assert_eq!((&parallel.0, parallel.1), (&histogram, Vec::new()), "{asked:?}");
        }
        for (bucket, place) in histogram.buckets.iter().zip(0..) {
            let begin = buckets.from_ms + place * buckets.step_ms;
            let within = |stored: &&Stored| (begin..begin + buckets.step_ms).contains(&stored.key.rank);
            let counts: BTreeMap<String, u64> = histogram
                .levels
                .iter()
                .cloned()
                .zip(bucket.iter().copied())
                .filter(|(_, count)| *count > 0)
                .collect();
            assert_eq!(counts, by_level(expected.iter().filter(within)), "{asked:?}, bucket {place}");
        }
        assert_eq!(histogram.total, expected.len() as u64);
        self.ask_labels(filter, &snapshot, expected);
    }

    fn ask_labels(&self, filter: &Filter, snapshot: &Snapshot, expected: &[Stored]) {
        let (names, lacks, _) = labels::labels(snapshot, filter, None, &no_hurry());
        assert_eq!(lacks, []);
        for Counted { name, records } in &names {
            let has = expected.iter().filter(|stored| stored.record["labels"].get(name).is_some());
            assert_eq!(has.count() as u64, *records, "{name}");
            let (values, _, _) = labels::labels(snapshot, filter, Some(name), &no_hurry());
            assert_eq!(values.iter().map(|value| value.records).sum::<u64>(), *records);
            for value in values {
                let has = expected
                    .iter()
                    .filter(|stored| stored.record["labels"][name].as_str() == Some(&value.name));
                assert_eq!(has.count() as u64, value.records);
            }
        }
        let labelled = expected.iter().filter_map(|stored| stored.record["labels"].as_object()).flatten();
        assert_eq!(labelled.count() as u64, names.iter().map(|name| name.records).sum::<u64>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_is_that_of_a_plain_reading_whatever_becomes_of_the_index(
        events in prop::collection::vec(any_event(), 5..60),
    ) {
        let mut node = Node::new(2, options());
        for event in &events {
            node.happen(event);
        }
        node.indexer.catch_up();
        for event in events.iter().filter(|event| matches!(event, Event::Ask(_))) {
            node.happen(event);
        }
    }
}
