//! What parameters mean, and which are refused.

use super::super::filter::LabelValue;
use super::*;

const NOW: u64 = 1_700_000_000_000;

fn parse(parameters: &[(&str, &str)]) -> Result<Query, String> {
    Query::parse(parameters.iter().copied(), NOW).map_err(|error| error.name)
}

#[test]
fn a_query_without_parameters_asks_for_the_newest_of_everything() {
    let query = parse(&[]).unwrap();
    assert!(query.filter.services.is_empty() && !query.filter.looks_at_text());
    assert_eq!((query.filter.from_ms, query.filter.to_ms), (0, u64::MAX));
    assert_eq!((query.limit, query.direction), (QUERY_LIMIT_DEFAULT, Direction::Backward));
}

#[test]
fn filters_may_be_repeated_and_blank_ones_are_none() {
    let query = parse(&[
        ("service", "a"),
        ("service", "b"),
        ("level", ""),
        ("level", "Warn"),
        ("contains", ""),
        ("contains", "x"),
        ("contains", "y"),
        ("from", "-1s"),
        ("label.a!", "1"),
    ])
    .unwrap();
    assert_eq!(
        (&*query.filter.services, &*query.filter.levels),
        (&["a".into(), "b".into()][..], &["warn".into()][..])
    );
    assert_eq!((query.filter.lines.len(), query.filter.labels.len()), (2, 1));
    assert_eq!(query.filter.from_ms, NOW - 1000);
}

#[test]
fn label_filters_are_cut_at_the_first_equals_sign() {
    let label = |name: &str, value: &str| {
        let label = parse(&[(name, value)]).unwrap().filter.labels.remove(0);
        let wanted = match label.wanted {
            LabelValue::Equal(value) => format!("={}", value.text()),
            LabelValue::Matching(_) => "~".to_owned(),
        };
        (label.name, wanted, label.is_negated)
    };
    assert_eq!(label("label.a", "v"), ("a".into(), "=v".into(), false));
    assert_eq!(label("label.a!", "v"), ("a".into(), "=v".into(), true));
    assert_eq!(label("label.a.b", "~v.*"), ("a.b".into(), "~".into(), false));
    assert_eq!(label("label.a!", "~v"), ("a".into(), "~".into(), true));
    assert_eq!(label("label.a", "\\~v"), ("a".into(), "=~v".into(), false));
    assert_eq!(label("label.a", "\\v"), ("a".into(), "=\\v".into(), false));
    assert_eq!(label("label.a", ""), ("a".into(), "=".into(), false));
}

#[test]
fn the_error_names_the_parameter_at_fault() {
    for (name, value) in [
        ("servce", "a"),
        ("limit", ""),
        ("limit", "-1"),
        ("limit", "10001"),
        ("limit", "1.0"),
        ("partition", "1024"),
        ("from", "yesterday"),
        ("direction", "up"),
        ("order", "size"),
        ("order", "arrival"),
        ("cursor", "x"),
        ("cursor", "f1.0.0"),
        ("fields", "all"),
        ("regex", "("),
        ("not_regex", r"\w{1000}{1000}"),
        ("label.", "a"),
        ("label.a", "~("),
        ("not_service", "a"),
        ("last", "5"),
    ] {
        assert_eq!(parse(&[(name, value)]).unwrap_err(), name, "{name}={value}");
    }
    assert_eq!(parse(&[("limit", "1"), ("limit", "1")]).unwrap_err(), "limit");
    let many = vec![("contains", "x"); limits::QUERY_FILTERS_MAX + 1];
    assert_eq!(parse(&many).unwrap_err(), "contains");
}

#[test]
fn other_queries_take_what_is_theirs() {
    let histogram = HistogramQuery::parse([("step", "10s"), ("to", "now"), ("level", "a")], NOW).unwrap();
    assert_eq!((histogram.cut, histogram.has_begin, histogram.has_end), (Cut::Step(10_000), false, true));
    for bad in [
        [("buckets", "0"), ("level", "")],
        [("buckets", "5"), ("step", "1s")],
        [("step", "0s"), ("limit", "1")],
    ] {
        assert!(HistogramQuery::parse(bad, NOW).is_err());
    }
    assert!(CountQuery::parse([("service", "a"), ("limit", "5")], Some(10), NOW).is_ok());
    assert_eq!(CountQuery::parse([("limit", "5")], None, NOW).unwrap_err().name, "limit");
    assert_eq!(CountQuery::parse([("contains", "5")], None, NOW).unwrap_err().name, "contains");
    let tail = TailQuery::parse([("last", "0"), ("regex", "a"), ("label.a", "b")]).unwrap();
    assert_eq!((tail.last, tail.filter.lines.len()), (0, 1));
    assert_eq!(TailQuery::parse([("from", "now")]).unwrap_err().name, "from");
    let context = ContextQuery::parse([("partition", "1"), ("offset", "7"), ("service", "same")]).unwrap();
    assert!(context.same_service && context.before == limits::CONTEXT_DEFAULT);
    assert_eq!(ContextQuery::parse([("partition", "1")]).unwrap_err().name, "offset");
    assert_eq!(ContextQuery::parse([("offset", "1")]).unwrap_err().name, "partition");
}
