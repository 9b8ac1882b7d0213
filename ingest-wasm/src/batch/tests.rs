//! Grouping, and cutting bodies into records, on one another.

use model::{BatchDigest, EnrichedRecord, ValidBatch};
use proptest::prelude::*;

use super::*;
use crate::decode::BodyFormat;
use crate::split::{SplitError, group};

fn partitions(count: u16) -> PartitionCount {
    PartitionCount::new(count).unwrap()
}

/// Groups a body; every batch is checked as storage checks it.
fn grouped(
    format: BodyFormat,
    body: &[u8],
    count: u16,
) -> Result<Vec<(u16, Vec<EnrichedRecord>, BatchDigest)>, SplitError> {
    let budget = Budget::new(limits::BODIES_BYTES_MAX);
    let enrichment = Enrichment::new(7, b"\"n\"", "::1");
    let grouped = group(format, body, Grouping::new(&enrichment, partitions(count), &budget))?;
    let batches = grouped.batches.iter().map(|batch| {
        let lines = batch.lines.bytes();
        let valid = ValidBatch::from_ndjson(lines.to_vec().into()).unwrap();
        assert_eq!((valid.record_count() as usize, &valid.bytes()[..]), (batch.record_count, lines));
        let text = std::str::from_utf8(lines).unwrap();
        let records = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (batch.partition.get(), records, batch.digest())
    });
    let batches = batches.collect();
    drop(grouped);
    assert_eq!(budget.in_use(), 0);
    Ok(batches)
}

fn rejected(format: BodyFormat, body: &[u8]) -> (usize, Vec<(usize, String)>) {
    let budget = Budget::new(limits::BODIES_BYTES_MAX);
    let enrichment = Enrichment::new(7, b"\"n\"", "::1");
    let grouped = group(format, body, Grouping::new(&enrichment, partitions(4), &budget)).unwrap();
    let listed = grouped.rejections.listed.iter();
    let listed = listed.map(|rejected| (rejected.index, format!("{}: {}", rejected.field, rejected.error)));
    (grouped.received(), listed.collect())
}

#[test]
fn records_go_to_their_services_partition_in_their_order() {
    let services: Vec<String> = (0..40).map(|n| format!("service-{}", n % 13)).collect();
    let body: Vec<_> = services
        .iter()
        .enumerate()
        .map(|(n, service)| format!(r#"{{"timestamp":{n},"service":"{service}","message":"m"}}"#))
        .collect();
    let batches = grouped(BodyFormat::Json, format!("[{}]", body.join(",")).as_bytes(), 7).unwrap();
    let mut count = 0;
    for (partition, records, digest) in batches {
        let mut text = String::new();
        let mut last = None;
        for record in &records {
            let expected = route::partition_of(&Tenant::default(), record.service.as_bytes(), partitions(7));
            assert_eq!(expected.get(), partition);
            assert!(last < Some(record.timestamp));
            last = Some(record.timestamp);
            text.push_str(&body[record.timestamp as usize]);
        }
        count += records.len();
        assert_eq!(digest, BatchDigest::of(text.as_bytes()), "the digest is that of the client's own texts");
    }
    assert_eq!(count, 40);
}

#[test]
fn a_disguised_service_goes_where_the_plain_one_goes() {
    let body = br#"[{"service":"a","message":"1"},{"service":"\u0061","message":"2"},{"message":"3"},{"service":null,"message":"4"},{"service":"unknown_service","message":"5"}]"#;
    let batches = grouped(BodyFormat::Json, body, 1024).unwrap();
    let messages: Vec<Vec<_>> = batches
        .iter()
        .map(|(_, records, _)| records.iter().map(|record| record.message.as_str()).collect())
        .collect();
    assert_eq!(messages, [&["1", "2"][..], &["3", "4", "5"]]);
}

#[test]
fn the_digest_does_not_depend_on_the_format() {
    let (a, b) = (r#"{"service":"a", "message":"1"}"#, r#"{"message":"2","service":"a"}"#);
    let digests = |format, body: String| grouped(format, body.as_bytes(), 1).unwrap()[0].2;
    let array = digests(BodyFormat::Json, format!(" [ {a} ,{b}]\n"));
    assert_eq!(array, digests(BodyFormat::Ndjson, format!("{a}\r\n\n  {b}")));
    assert_ne!(array, digests(BodyFormat::Json, format!("[{b},{a}]")));
}

#[test]
fn one_record_needs_no_array() {
    let batches = grouped(BodyFormat::Json, b" {\"message\":\"m\"} ", 1).unwrap();
    assert_eq!(batches[0].1.len(), 1);
}

#[test]
fn bodies_without_records_or_of_other_shapes_are_refused() {
    let json = |body: &str| grouped(BodyFormat::Json, body.as_bytes(), 4).unwrap_err();
    for empty in ["", " \n", "[]", " [ ] "] {
        assert_eq!(json(empty), SplitError::Empty, "{empty:?}");
    }
    for other in ["1", "\"a\"", "null", "true"] {
        assert_eq!(json(other), SplitError::Shape, "{other:?}");
    }
    for bad in [
        "[",
        "[1",
        "[1,]",
        "[{]",
        "{}{}",
        "{\"message\":\"m\"}\n{\"message\":\"m\"}",
        "nul",
        "[1] x",
        "{",
        "x",
        "\u{feff}[]",
    ] {
        assert!(matches!(json(bad), SplitError::Syntax(_)), "{bad:?}: {}", json(bad));
    }
    assert_eq!(grouped(BodyFormat::Json, b"[\"\xff\"]", 4).unwrap_err(), SplitError::Utf8(2));
    assert!(matches!(json(&"[".repeat(1_000_000)), SplitError::Syntax(_)));
    for empty in ["", "\n", " \r\n\t\n"] {
        assert_eq!(
            grouped(BodyFormat::Ndjson, empty.as_bytes(), 4).unwrap_err(),
            SplitError::Empty,
            "{empty:?}"
        );
    }
}

#[test]
fn a_syntax_error_late_in_an_array_refuses_what_came_before() {
    let body = format!("[{}, {{\"message\":}}]", vec![r#"{"message":"m"}"#; 1_000].join(","));
    assert!(matches!(grouped(BodyFormat::Json, body.as_bytes(), 4), Err(SplitError::Syntax(_))));
}

#[test]
fn a_bad_line_costs_that_line() {
    let body = b"{\"message\":\"a\"}\n\n{\"message\":}\n[1]\n{\"message\":\"b\"} x\n{\"message\":\"\xff\"}\n{\"message\":\"\xc3\xa9\"}\r\n{}";
    let (received, rejected) = rejected(BodyFormat::Ndjson, body);
    assert_eq!(received, 2);
    let expected = [
        (2, ": the line is not JSON: a JSON value was expected at byte 11"),
        (3, ": a record has to be a JSON object"),
        (4, ": the line is not JSON: unexpected text after the value at byte 16"),
        (5, ": the line is not UTF-8"),
        (7, "message: is missing"),
    ];
    assert_eq!(rejected, expected.map(|(index, text)| (index, text.to_owned())));
}

#[test]
fn rejections_are_counted_beyond_those_that_are_listed() {
    let body = format!("[{}]", vec!["1"; REJECTED_LISTED_MAX + 5].join(","));
    let budget = Budget::new(1 << 20);
    let enrichment = Enrichment::new(7, b"\"n\"", "::1");
    let grouped =
        group(BodyFormat::Json, body.as_bytes(), Grouping::new(&enrichment, partitions(4), &budget)).unwrap();
    assert_eq!(
        (grouped.rejections.listed.len(), grouped.rejections.count),
        (REJECTED_LISTED_MAX, REJECTED_LISTED_MAX + 5)
    );
    assert_eq!((grouped.received(), grouped.batches.len()), (0, 0));
}

#[test]
fn requests_are_bounded_in_records_and_in_bytes() {
    let of = |record: &str, count: usize| {
        let budget = Budget::new(limits::BODIES_BYTES_MAX);
        let enrichment = Enrichment::new(7, b"\"n\"", "::1");
        let body = format!("{record}\n").repeat(count);
        group(BodyFormat::Ndjson, body.as_bytes(), Grouping::new(&enrichment, partitions(4), &budget))
            .map(|grouped| grouped.received())
    };
    assert_eq!(of(r#"{"message":""}"#, INGEST_RECORDS_MAX), Ok(INGEST_RECORDS_MAX));
    assert_eq!(of(r#"{"message":""}"#, INGEST_RECORDS_MAX + 1), Err(GroupError::TooMany.into()));
    assert_eq!(of("1", INGEST_RECORDS_MAX + 1), Err(GroupError::TooMany.into()));
    // 2 kB that become 130 kB: every label repeats the long name.
    let members: Vec<_> = (0..250).map(|n| format!("\"{n}\":1")).collect();
    let swelling = format!(r#"{{"message":"","{}":{{{}}}}}"#, "n".repeat(500), members.join(","));
    assert_eq!(of(&swelling, 100), Ok(100));
    assert_eq!(of(&swelling, 1_000), Err(GroupError::TooLarge.into()));
}

#[test]
fn a_record_that_enrichment_makes_too_long_is_rejected() {
    let longest = RECORD_BYTES_MAX - r#"{"message":"","timestamp":7,"service":"unknown_service","received_at":7,"ingested_node_id":"n","client_ip":"::1"}"#.len();
    let (fits, too_long) = ("m".repeat(longest), "m".repeat(longest + 1));
    assert_eq!(rejected(BodyFormat::Json, format!(r#"{{"message":"{fits}"}}"#).as_bytes()).0, 1);
    let (received, rejected) =
        rejected(BodyFormat::Json, format!(r#"{{"message":"{too_long}"}}"#).as_bytes());
    assert_eq!((received, rejected.len()), (0, 1));
}

#[test]
fn while_others_hold_all_bytes_records_wait_outside() {
    let budget = Budget::new(1 << 20);
    let mut other = budget.share();
    other.take(1 << 20).unwrap();
    let enrichment = Enrichment::new(7, b"\"n\"", "::1");
    for body in [&br#"{"message":"m"}"#[..], br#"{"message":"m","other":1}"#] {
        let result = group(BodyFormat::Json, body, Grouping::new(&enrichment, partitions(4), &budget));
        assert_eq!(result.err(), Some(SplitError::Group(GroupError::Busy(Busy))));
    }
}

/// Bytes that look like records, more or less.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        &b"{"[..],
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\n",
        b"\"message\":\"m\"",
        b"{\"message\":\"m\"}",
        b"\"service\":\"s\"",
        b"\"labels\":{",
        b"\"a\":1",
        b"\"\\ud800\"",
        b"\"",
        b"\xff",
        b"\xc3\xa9",
        b"null",
        b"1e5",
        b" ",
        b"\0",
    ]);
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_comes_is_taken_or_refused(body in body(), is_array: bool) {
        let body = if is_array { [b"[", &body[..], b"]"].concat() } else { body };
        for format in [BodyFormat::Json, BodyFormat::Ndjson] {
            // Storage's own check of the batches is in `grouped`.
            let _either = grouped(format, &body, 4);
        }
    }
}
