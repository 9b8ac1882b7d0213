//! The rules, one by one, and against a naive twin.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use model::json::Scanner;
use model::limits::{LABEL_NAME_BYTES_MAX, LABELS_MAX, LEVEL_BYTES_MAX, SERVICE_BYTES_MAX};
use model::usual::usual_record;
use model::{EnrichedLine, EnrichedRecord};
use proptest::prelude::*;

use super::*;

const RECEIVED_AT: u64 = 1_700_000_000_123;

fn enrichment() -> Enrichment {
    Enrichment::new(RECEIVED_AT, b"\"n-1\"", "::1")
}

/// The line of a record, without its newline, and whether it was spliced. Where the fast way takes the record, it has to
/// come to the same.
fn line_of(text: &str) -> Result<(String, bool), Fault> {
    let careful = careful_line_of(text);
    if let Some(usual) = usual_record(text.trim()) {
        let mut line = Vec::new();
        write_usual_line(&mut line, &usual, &enrichment());
        let line = String::from_utf8(line).unwrap().strip_suffix('\n').unwrap().to_owned();
        assert_eq!(careful, Ok((line, true)), "{text}");
    }
    careful
}

fn careful_line_of(text: &str) -> Result<(String, bool), Fault> {
    let mut scanner = Scanner::new(text);
    let mut record = Scanned::default();
    assert!(scan(&mut scanner, &mut record).unwrap());
    scanner.end().unwrap();
    assert_eq!(record.text(), text.trim());
    let checked = record.check()?;
    let mut line = b"before".to_vec();
    write_line(&mut line, &record, &checked, &enrichment());
    let line = String::from_utf8(line).unwrap().strip_prefix("before").unwrap().to_owned();
    let line = line.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "{line:?}");
    if checked.is_spliced() {
        assert!(line.len() < text.len() + enrichment().bytes_max());
    }
    EnrichedLine::parse_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    Ok((line.to_owned(), checked.is_spliced()))
}

const TAIL: &str = r#","received_at":1700000000123,"ingested_node_id":"n-1","client_ip":"::1"}"#;

/// Checks a line but for its tail, which all have.
#[track_caller]
fn check(text: &str, expected: Expect) {
    let (line, spliced) = line_of(text).unwrap();
    let head = line.strip_suffix(TAIL).unwrap_or_else(|| panic!("{line}"));
    expected.assert_eq(&format!("{} {head}", if spliced { "spliced" } else { "rewritten" }));
}

#[track_caller]
fn refused(text: &str, expected: Expect) {
    expected.assert_eq(&line_of(text).unwrap_err().to_string());
}

#[test]
fn a_record_that_needs_no_change_is_copied() {
    check(
        r#"{"timestamp":1,"service":"a","level":"INFO","message":"m","labels":{"k":"v"}}"#,
        expect![[r#"spliced {"timestamp":1,"service":"a","level":"INFO","message":"m","labels":{"k":"v"}"#]],
    );
    check(
        r#"{"message":"m","level":null,"service":"a","timestamp":1}"#,
        expect![[r#"spliced {"message":"m","level":null,"service":"a","timestamp":1"#]],
    );
    check(
        "{ \"message\" :\t\"a  b\",\r\n \"timestamp\": 1 , \"service\":\"a\", \"labels\" : { \"k\" : \"v\" } }",
        expect![[r#"spliced {"message":"a  b","timestamp":1,"service":"a","labels":{"k":"v"}"#]],
    );
}

#[test]
fn what_is_missing_is_added() {
    check(
        r#"{"message":"m"}"#,
        expect![[r#"spliced {"message":"m","timestamp":1700000000123,"service":"unknown_service""#]],
    );
    check(
        r#"{"message":"m","timestamp":null,"service":null}"#,
        expect![[r#"rewritten {"timestamp":1700000000123,"service":"unknown_service","message":"m""#]],
    );
    check(
        r#"{"message":"m","timestamp":1,"service":""}"#,
        expect![[r#"rewritten {"timestamp":1,"service":"unknown_service","message":"m""#]],
    );
}

#[test]
fn timestamps_may_be_rfc_3339() {
    check(
        r#"{"timestamp":"2023-11-14T22:13:20.5+01:00","service":"a","message":"m"}"#,
        expect![[r#"rewritten {"timestamp":1699996400500,"service":"a","message":"m""#]],
    );
    check(
        r#"{"timestamp":"2023-11-14\u005422:13:20Z","service":"a","message":"m"}"#,
        expect![[r#"rewritten {"timestamp":1700000000000,"service":"a","message":"m""#]],
    );
    for bad in [
        "-1",
        "1.0",
        "1.5",
        "1e3",
        "253402300800000",
        "99999999999999999999999",
        "true",
        "[]",
        "{}",
        "\"\"",
        "\"1700000000000\"",
        "\"yesterday\"",
        "\"1969-12-31T23:59:59Z\"",
        "\"2023-11-14T22:13:20\"",
    ] {
        let fault = line_of(&format!(r#"{{"message":"m","timestamp":{bad}}}"#)).unwrap_err();
        assert_eq!(fault.field, "timestamp", "{bad}");
    }
}

#[test]
fn levels_may_be_numbers() {
    check(
        r#"{"timestamp":1,"service":"a","level":30,"message":"m"}"#,
        expect![[r#"rewritten {"timestamp":1,"service":"a","level":"30","message":"m""#]],
    );
    refused(r#"{"message":"m","level":true}"#, expect!["level: has to be a string or a number"]);
    refused(r#"{"message":"m","level":["INFO"]}"#, expect!["level: has to be a string or a number"]);
}

#[test]
fn a_message_is_needed() {
    refused("{}", expect!["message: is missing"]);
    refused(r#"{"msg":"m"}"#, expect!["message: is missing"]);
    refused(r#"{"message":null}"#, expect!["message: has to be a string"]);
    refused(r#"{"message":1}"#, expect!["message: has to be a string"]);
}

#[test]
fn other_fields_become_labels() {
    check(
        r#"{"timestamp":1,"service":"a","message":"m","user":"u","n":1.50,"big":12345678901234567890,"ok":true,"no":null}"#,
        expect![[
            r#"rewritten {"timestamp":1,"service":"a","message":"m","labels":{"user":"u","n":"1.50","big":"12345678901234567890","ok":"true","no":"null"}"#
        ]],
    );
    check(
        r#"{"timestamp":1,"service":"a","message":"m","k8s":{"pod":{"name":"p","ip":null},"ports":[1, {"a": "b\n"}]},"e":{},"f":[]}"#,
        expect![[
            r#"rewritten {"timestamp":1,"service":"a","message":"m","labels":{"k8s.pod.name":"p","k8s.pod.ip":"null","k8s.ports":"[1,{\"a\":\"b\\n\"}]","e":"{}","f":"[]"}"#
        ]],
    );
}

#[test]
fn labels_that_are_not_text_become_text() {
    check(
        r#"{"timestamp":1,"service":"a","message":"m","labels":{"s":"x","n":-0.0,"o":{"a":{"b":1}},"e":{},"l":[ "x" ],"z":null}}"#,
        expect![[
            r#"rewritten {"timestamp":1,"service":"a","message":"m","labels":{"s":"x","n":"-0.0","o.a.b":"1","e":"{}","l":"[\"x\"]","z":"null"}"#
        ]],
    );
    check(
        r#"{"message":"m","labels":null,"service":"a","timestamp":1}"#,
        expect![[r#"rewritten {"timestamp":1,"service":"a","message":"m""#]],
    );
    refused(r#"{"message":"m","labels":["a"]}"#, expect!["labels: has to be an object"]);
    refused(r#"{"message":"m","labels":"a"}"#, expect!["labels: has to be an object"]);
}

#[test]
fn a_client_cannot_set_what_the_ingest_adds() {
    check(
        r#"{"timestamp":1,"service":"a","message":"m","received_at":5,"ingested_node_id":"x","client_ip":"1.2.3.4"}"#,
        expect![[
            r#"rewritten {"timestamp":1,"service":"a","message":"m","labels":{"received_at":"5","ingested_node_id":"x","client_ip":"1.2.3.4"}"#
        ]],
    );
    check(
        r#"{"timestamp":1,"service":"a","message":"m","client\u005fip":"1.2.3.4"}"#,
        expect![[
            r#"rewritten {"timestamp":1,"service":"a","message":"m","labels":{"client\u005fip":"1.2.3.4"}"#
        ]],
    );
}

#[test]
fn labels_that_want_the_same_name_are_all_kept() {
    check(
        r#"{"k":"other","timestamp":1,"service":"a","message":"m","labels":{"k":"explicit","k_2":"taken"}}"#,
        expect![[
            r#"rewritten {"timestamp":1,"service":"a","message":"m","labels":{"k":"explicit","k_2":"taken","k_3":"other"}"#
        ]],
    );
    check(
        r#"{"timestamp":1,"service":"a","message":"m","labels":{"k":"1","\u006b":"2"},"a":{"b":"1"},"a.b":"2"}"#,
        expect![[
            r#"rewritten {"timestamp":1,"service":"a","message":"m","labels":{"k":"1","\u006b_2":"2","a.b":"1","a.b_2":"2"}"#
        ]],
    );
    refused(
        r#"{"message":"m","k":1,"k":2,"k":3,"k":4,"k":5}"#,
        expect!["labels: more than 4 labels have the same name"],
    );
}

#[test]
fn a_known_field_twice_is_refused() {
    refused(r#"{"message":"a","message":"a"}"#, expect!["message: appears twice"]);
    refused(r#"{"message":"a","m\u0065ssage":"b"}"#, expect!["message: appears twice"]);
    refused(r#"{"message":"a","labels":{},"labels":null}"#, expect!["labels: appears twice"]);
    refused(r#"{"message":"a","timestamp":1,"timestamp":1}"#, expect!["timestamp: appears twice"]);
}

#[test]
fn a_disguised_field_is_the_field() {
    check(
        r#"{"\u0074imestamp":1,"service":"a","mess\u0061ge":"m","l\u0061bels":{"k":"v"}}"#,
        expect![[r#"rewritten {"timestamp":1,"service":"a","message":"m","labels":{"k":"v"}"#]],
    );
}

#[test]
fn whatever_a_message_holds_stays_as_it_was_written() {
    for message in [
        r"\n\u0000\u001f\t",
        r"\ud800",
        r"\udc00\ud800",
        r"\ud83d\ude00",
        "😀é",
        r#"\"\\\/"#,
        "\u{7f}\u{2028}",
    ] {
        let text =
            format!(r#"{{"timestamp":1,"service":"a","message":"{message}","labels":{{"k":"{message}"}}}}"#);
        let (line, spliced) = line_of(&text).unwrap();
        assert!(spliced);
        assert_eq!(line, format!("{}{TAIL}", text.strip_suffix('}').unwrap()));
        let (line, spliced) =
            line_of(&text.replacen('{', &format!(r#"{{"{message}":"{message}","#), 1)).unwrap();
        assert!(!spliced);
        assert!(line.contains(&format!(r#""message":"{message}""#)), "{line}");
        assert!(line.contains(&format!(r#""{message}":"{message}""#)), "{line}");
    }
    let large = "x\\n".repeat(1 << 20);
    let (line, _) = line_of(&format!(r#"{{"message":"{large}"}}"#)).unwrap();
    assert!(line.contains(&large));
}

#[test]
fn sizes_are_bounded_and_the_bounds_are_inclusive() {
    let check = |text: String, fits: bool, field: &str| match line_of(&text) {
        Ok(_) => assert!(fits, "{field}"),
        Err(fault) => assert_eq!((fits, fault.field), (false, field), "{fault}"),
    };
    for (extra, fits) in [(0, true), (1, false)] {
        let service = "s".repeat(SERVICE_BYTES_MAX + extra);
        check(format!(r#"{{"message":"m","service":"{service}"}}"#), fits, "service");
        let escaped = r"\u0073".repeat(SERVICE_BYTES_MAX + extra);
        check(format!(r#"{{"message":"m","service":"{escaped}"}}"#), fits, "service");
        let level = "l".repeat(LEVEL_BYTES_MAX + extra);
        check(format!(r#"{{"message":"m","level":"{level}"}}"#), fits, "level");
        check(format!(r#"{{"message":"m","level":{}}}"#, "1".repeat(LEVEL_BYTES_MAX + extra)), fits, "level");
        let name = "k".repeat(LABEL_NAME_BYTES_MAX + extra);
        check(format!(r#"{{"message":"m","labels":{{"{name}":"v"}}}}"#), fits, "labels");
        check(format!(r#"{{"message":"m","{name}":"v"}}"#), fits, "labels");
        let name = "k".repeat(LABEL_NAME_BYTES_MAX - 2 + extra);
        check(format!(r#"{{"message":"m","a":{{"{name}":"v"}}}}"#), fits, "labels");
        check(format!(r#"{{"message":"m","a":{{"{name}":{{}}}}}}"#), fits, "labels");
        let members: Vec<_> = (0..LABELS_MAX + extra).map(|n| format!(r#""k{n}":"v""#)).collect();
        check(format!(r#"{{"message":"m","labels":{{{}}}}}"#, members.join(",")), fits, "labels");
        check(format!(r#"{{"message":"m",{}}}"#, members.join(",")), fits, "labels");
        check(format!(r#"{{"message":"m","o":{{{}}}}}"#, members.join(",")), fits, "labels");
    }
    check(format!(r#"{{"message":"{}"}}"#, "m".repeat(model::limits::RECORD_BYTES_MAX)), false, "");
}

#[test]
fn scanning_forgets_the_record_before() {
    let mut record = Scanned::default();
    let first = r#"{"message":"m","message":"m","x":1,"labels":{"k":"v"},"level":"l","t\u0069mestamp":1}"#;
    scan(&mut Scanner::new(first), &mut record).unwrap();
    scan(&mut Scanner::new(r#"{"message":"m"}"#), &mut record).unwrap();
    let mut line = Vec::new();
    write_line(&mut line, &record, &record.check().unwrap(), &enrichment());
    let line = String::from_utf8(line).unwrap();
    assert_eq!(line.trim_end(), line_of(r#"{"message":"m"}"#).unwrap().0);
    assert!(!scan(&mut Scanner::new("[1]"), &mut record).unwrap());
}

/// JSON as a tree that keeps what `serde_json::Value` would lose: the order of members, their repetition, and digits.
#[derive(Clone, Debug)]
enum Tree {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// Its text; `space` stands between tokens.
    fn text(&self, space: &str) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(digits) => digits.clone(),
            Self::Text(text) => serde_json::to_string(text).unwrap(),
            Self::List(items) => {
                let items: Vec<_> =
                    items.iter().map(|item| format!("{space}{}{space}", item.text(space))).collect();
                format!("[{}]", items.join(","))
            }
            Self::Object(members) => {
                let member = |(name, value): &(String, Self)| {
                    format!(
                        "{space}{}{space}:{space}{}{space}",
                        serde_json::to_string(name).unwrap(),
                        value.text(space)
                    )
                };
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }
        }
    }

    /// The labels it makes under `name`.
    fn labels(&self, name: &str, out: &mut Vec<(String, String)>) {
        match self {
            Self::Text(text) => out.push((name.to_owned(), text.clone())),
            Self::Object(members) if !members.is_empty() => {
                for (member, value) in members {
                    value.labels(&format!("{name}.{member}"), out);
                }
            }
            other => out.push((name.to_owned(), other.text(""))),
        }
    }
}

/// The rules in their plainest form. `None` where a record is refused.
fn naive(members: &[(String, Tree)]) -> Option<EnrichedRecord> {
    let all = |name: &str| {
        members.iter().filter(|(member, _)| member == name).map(|(_, value)| value).collect::<Vec<_>>()
    };
    let known = ["timestamp", "service", "level", "message", "labels"];
    if known.iter().any(|name| all(name).len() > 1) {
        return None;
    }
    let one = |name: &str| all(name).first().copied().cloned().unwrap_or(Tree::Null);
    let timestamp = match one("timestamp") {
        Tree::Null => RECEIVED_AT,
        Tree::Number(digits) => digits.parse().ok().filter(|ms| *ms <= model::limits::TIMESTAMP_MS_MAX)?,
        Tree::Text(text) => u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()?,
        _ => return None,
    };
    let service = match one("service") {
        Tree::Null => UNKNOWN_SERVICE.to_owned(),
        Tree::Text(text) if text.is_empty() => UNKNOWN_SERVICE.to_owned(),
        Tree::Text(text) if text.len() <= SERVICE_BYTES_MAX => text,
        _ => return None,
    };
    let level = match one("level") {
        Tree::Null => None,
        Tree::Text(text) | Tree::Number(text) if text.len() <= LEVEL_BYTES_MAX => Some(text),
        _ => return None,
    };
    let Tree::Text(message) = one("message") else { return None };
    let mut flat = Vec::new();
    match one("labels") {
        Tree::Null => {}
        Tree::Object(members) => members.iter().for_each(|(name, value)| value.labels(name, &mut flat)),
        _ => return None,
    }
    for (name, value) in members.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        value.labels(name, &mut flat);
    }
    let mut labels = BTreeMap::new();
    for (name, value) in flat {
        let mut names = vec![name.clone()];
        names.extend((2..=4).map(|number| format!("{name}_{number}")));
        let free = names.into_iter().find(|name| !labels.contains_key(name))?;
        labels.insert(free, value);
    }
    let (ingested_node_id, client_ip) = ("n-1".to_owned(), "::1".to_owned());
    Some(EnrichedRecord {
        timestamp,
        service,
        level,
        message,
        labels,
        received_at: RECEIVED_AT,
        ingested_node_id,
        client_ip,
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-c]{0,3}", 1 => any::<String>()]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i32>().prop_map(|n| n.to_string()),
        Just("1.50".to_owned()),
        Just("-0".to_owned()),
        Just("1E+400".to_owned()),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        number().prop_map(Tree::Number),
        text().prop_map(Tree::Text),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::List),
            prop::collection::vec((text(), inner), 0..4).prop_map(Tree::Object),
        ]
    })
}

/// Members of a record: mostly the known fields with values that fit, and anything else now and then.
fn members() -> impl Strategy<Value = Vec<(String, Tree)>> {
    let timestamp = prop_oneof![
        6 => (0..2_000_000_000_000u64).prop_map(|ms| Tree::Number(ms.to_string())),
        2 => (0..2_000_000_000_000i64).prop_map(|ms| Tree::Text(jiff::Timestamp::from_millisecond(ms).unwrap().to_string())),
        1 => tree(),
    ];
    let string = || prop_oneof![8 => text().prop_map(Tree::Text), 1 => tree()];
    let labels = prop_oneof![
        6 => prop::collection::vec((text(), text().prop_map(Tree::Text)), 0..4).prop_map(Tree::Object),
        1 => tree(),
    ];
    let known = (
        prop::option::weighted(0.9, timestamp.prop_map(|value| ("timestamp".to_owned(), value))),
        prop::option::weighted(0.9, string().prop_map(|value| ("service".to_owned(), value))),
        prop::option::of(string().prop_map(|value| ("level".to_owned(), value))),
        prop::option::weighted(0.95, string().prop_map(|value| ("message".to_owned(), value))),
        prop::option::of(labels.prop_map(|value| ("labels".to_owned(), value))),
    );
    let name = prop_oneof![
        8 => text(),
        2 => prop::sample::select(vec!["received_at", "client_ip", "ingested_node_id"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["timestamp", "message", "labels"]).prop_map(str::to_owned),
    ];
    let others = prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec((name, tree()), 0..4)];
    (known, others).prop_flat_map(|((a, b, c, d, e), others)| {
        let mut members: Vec<_> = [a, b, c, d, e].into_iter().flatten().collect();
        members.extend(others);
        Just(members).prop_shuffle()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_record_becomes_what_its_naive_twin_becomes(members in members(), space in "[ \n\r\t]{0,2}") {
        let text = Tree::Object(members.clone()).text(&space);
        let expected = naive(&members);
        match line_of(&text) {
            Ok((line, _)) => {
                let got: EnrichedRecord = serde_json::from_str(&line).unwrap();
                prop_assert_eq!(Some(got), expected, "{}", text);
            }
            Err(fault) => prop_assert_eq!(expected, None, "{}: {}", text, fault),
        }
    }
}
