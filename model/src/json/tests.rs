use proptest::prelude::*;

use super::*;

fn is_json(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.skip_white_space();
    scanner.value().and_then(|_| scanner.end()).is_ok()
}

fn string_of(text: &str) -> JsonStr<'_> {
    Scanner::new(text).string().unwrap()
}

#[test]
fn strings_decode_as_they_are_meant() {
    let cases = [
        (r#""plain""#, "plain"),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u0041\u00e9\u0000""#, "Aé\0"),
        (r#""\ud83d\ude00!""#, "😀!"),
        (r#""\ud800""#, "\u{fffd}"),
        (r#""\ud800x""#, "\u{fffd}x"),
        (r#""\ud800\u0041""#, "\u{fffd}A"),
        (r#""\udc00\ud800""#, "\u{fffd}\u{fffd}"),
        (r#""\ud800\ud83d\ude00""#, "\u{fffd}😀"),
    ];
    for (text, meant) in cases {
        assert_eq!(string_of(text).decode(), meant, "{text}");
    }
}

#[test]
fn text_that_is_not_json_is_refused_at_its_place() {
    let cases = [
        ("", 0),
        ("tru", 0),
        ("01", 1),
        ("-", 1),
        ("1.", 2),
        ("1e+", 3),
        ("\"a", 2),
        ("\"a\u{1}\"", 2),
        ("\"\\x\"", 1),
        ("\"\\u12g4\"", 1),
        ("[1,]", 3),
        ("[1 2]", 3),
        ("{\"a\" 1}", 5),
        ("{\"a\":1,}", 7),
        ("{a:1}", 1),
        ("1 2", 2),
    ];
    for (text, position) in cases {
        let mut scanner = Scanner::new(text);
        let error = scanner.value().and_then(|_| scanner.end()).unwrap_err();
        assert_eq!(error.position, position, "{text:?}: {error}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(is_json(&nested(JSON_DEPTH_MAX)));
    assert!(!is_json(&nested(JSON_DEPTH_MAX + 1)));
    assert!(!is_json(&"[".repeat(1_000_000)));
}

#[test]
fn an_object_tells_whether_it_is_compact_and_all_strings() {
    let object = |text| match Scanner::new(text).value().unwrap() {
        Value::Object(object) => (object.members, object.all_strings, object.compact),
        other => panic!("{other:?}"),
    };
    assert_eq!(object(r#"{"a":"x y","b":"z"}"#), (2, true, true));
    assert_eq!(object(r#"{"a":1}"#), (1, false, true));
    assert_eq!(object("{\"a\":\n\"x\"}"), (1, true, false));
    assert_eq!(object("{}"), (0, true, true));
}

#[test]
fn a_right_guess_takes_a_member_and_a_wrong_one_changes_nothing() {
    let guess = |text| {
        let mut seen = Vec::new();
        let result = Scanner::new(text).object_members_guessed(
            &mut seen,
            |seen, scanner| {
                let is_right = scanner.take_literal("\"a\":1");
                seen.extend(is_right.then(|| "guessed".to_owned()));
                Ok(is_right)
            },
            |seen, scanner, name| {
                seen.push(name.raw().to_owned());
                scanner.value().map(drop)
            },
        );
        result.map(|()| seen)
    };
    assert_eq!(
        guess(r#"{"b":2,"a":1 , "a":2,"c":{"a":1},"a":1}"#).unwrap(),
        ["b", "guessed", "a", "c", "guessed"]
    );
    assert!(guess("{}").unwrap().is_empty());
    for bad in [r#"{"a":1"#, r#"{"a":12}"#, r#"{"a":1,}"#, r#"{"a":1 "b":2}"#] {
        assert!(guess(bad).is_err(), "{bad}");
    }
}

/// Text that is JSON or nearly so.
fn near_json() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            " ",
            "\n",
            "\"",
            "\"a\"",
            "\"\\u00e9\"",
            "\"\\n\"",
            "1",
            "-0",
            "1.5e3",
            "01",
            "true",
            "null",
            "nul",
            "\\",
            "\"é\"",
            "\u{0}",
        ])
        .prop_map(str::to_owned),
        any::<String>().prop_map(|text| {
            let mut out = Vec::new();
            append_string(&mut out, &text);
            String::from_utf8(out).unwrap()
        }),
    ];
    prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn accepts_exactly_what_serde_json_accepts(text in near_json()) {
        let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        prop_assert_eq!(is_json(&text), theirs, "{:?}", text);
    }

    #[test]
    fn accepts_every_value_and_compacts_it_without_changing_it(value in json_value()) {
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert!(is_json(&pretty));
        let mut compact = Vec::new();
        append_compact(&mut compact, &pretty);
        prop_assert_eq!(String::from_utf8(compact).unwrap(), serde_json::to_string(&value).unwrap());
    }

    #[test]
    fn a_string_comes_back_from_its_json_text(text: String) {
        let mut json = Vec::new();
        append_string(&mut json, &text);
        let json = String::from_utf8(json).unwrap();
        prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
        prop_assert!(json.bytes().all(|byte| byte >= 0x20));
        prop_assert_eq!(string_of(&json).decode(), text.as_str());
        let theirs = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(string_of(&theirs).decode(), text.as_str());
    }

    #[test]
    fn the_fast_scan_finds_the_same_place_as_a_byte_at_a_time(bytes: Vec<u8>) {
        let naive = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(bytes.len());
        prop_assert_eq!(plain_prefix_len(&bytes), naive);
    }
}
