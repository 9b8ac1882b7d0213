//! Formats and compressions by header; damaged, cut and exploding bodies.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use model::limits::INGEST_BODY_BYTES_MAX;
use proptest::prelude::*;

use super::*;

fn headers(name: &'static str, values: &[&str]) -> Headers {
    values.iter().map(|value| (name, (*value).to_owned())).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn decoded(encoding: ContentEncoding, body: &[u8], bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    let budget = Budget::new(crate::limits::BODIES_BYTES_MAX);
    let mut sent = Metered::new(&budget);
    sent.reserve(body.len(), body.len()).unwrap();
    sent.bytes_mut().extend_from_slice(body);
    let result = decode(encoding, sent, bytes_max, &budget).map(|out| out.bytes().to_vec());
    assert_eq!(budget.in_use(), 0, "all bytes came back");
    result
}

fn text() -> Vec<u8> {
    (0..5_000).map(|n| format!("{{\"message\":\"line {n}\"}}\n")).collect::<String>().into_bytes()
}

type Compress = fn(&[u8]) -> Vec<u8>;

const BOTH: [(ContentEncoding, Compress); 2] = [(ContentEncoding::Gzip, gzip), (ContentEncoding::Zstd, zstd)];

#[test]
fn the_format_is_named_by_the_content_type() {
    let format = |content_type: &str| BodyFormat::of(&headers("content-type", &[content_type]));
    assert_eq!(BodyFormat::of(&Headers::default()), Ok(BodyFormat::Json));
    for json in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""]
    {
        assert_eq!(format(json), Ok(BodyFormat::Json), "{json}");
    }
    for ndjson in ["application/x-ndjson", "application/ndjson", "application/jsonl; x=y"] {
        assert_eq!(format(ndjson), Ok(BodyFormat::Ndjson), "{ndjson}");
    }
    for other in
        ["text/plain", "application/x-www-form-urlencoded", "application/x-protobuf", "json", "\u{fffd}"]
    {
        assert!(matches!(format(other), Err(Unsupported::ContentType(_))), "{other}");
    }
    assert!(matches!(format("application/json; charset=latin1"), Err(Unsupported::Charset(_))));
}

#[test]
fn one_known_compression_is_taken() {
    let encoding = |values: &[&str]| ContentEncoding::of(&headers("content-encoding", values));
    assert_eq!(encoding(&[]), Ok(ContentEncoding::Identity));
    assert_eq!(encoding(&["identity"]), Ok(ContentEncoding::Identity));
    assert_eq!(encoding(&[""]), Ok(ContentEncoding::Identity));
    assert_eq!(encoding(&["GZIP"]), Ok(ContentEncoding::Gzip));
    assert_eq!(encoding(&["identity, x-gzip"]), Ok(ContentEncoding::Gzip));
    assert_eq!(encoding(&["zstd"]), Ok(ContentEncoding::Zstd));
    for bad in [&["br"][..], &["deflate"], &["gzip, gzip"], &["gzip", "zstd"], &["gzip,br"], &["\u{fffd}"]] {
        assert!(encoding(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn bodies_are_decoded_also_of_several_parts() {
    for (encoding, compress) in BOTH {
        let text = text();
        assert_eq!(decoded(encoding, &compress(&text), text.len()).unwrap(), text);
        let (head, tail) = text.split_at(1_000);
        let parts = [compress(head), compress(b""), compress(tail)].concat();
        assert_eq!(decoded(encoding, &parts, text.len()).unwrap(), text, "{encoding:?}");
    }
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(b"x")].concat();
    assert_eq!(decoded(ContentEncoding::Zstd, &skippable, 1).unwrap(), b"x");
}

#[test]
fn every_prefix_is_an_error() {
    for (encoding, compress) in BOTH {
        let body = compress(&text());
        for length in 0..body.len() {
            let error = decoded(encoding, &body[..length], INGEST_BODY_BYTES_MAX).unwrap_err();
            assert!(matches!(error, DecodeError::Damaged { .. }), "{encoding:?} {length}: {error}");
        }
    }
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2];
    assert!(decoded(ContentEncoding::Zstd, &skippable, 1).is_err());
}

#[test]
fn garbage_behind_the_body_is_an_error() {
    for (encoding, compress) in BOTH {
        for garbage in [&b"\0"[..], b"garbage", b"{\"message\":\"x\"}"] {
            let body = [&compress(&text()), garbage].concat();
            assert!(decoded(encoding, &body, INGEST_BODY_BYTES_MAX).is_err(), "{encoding:?} {garbage:?}");
        }
    }
}

#[test]
fn the_limit_is_exact_and_stops_bombs() {
    for (encoding, compress) in BOTH {
        let text = text();
        let body = compress(&text);
        assert_eq!(decoded(encoding, &body, text.len()).unwrap().len(), text.len());
        assert_eq!(decoded(encoding, &body, text.len() - 1), Err(DecodeError::TooLarge(text.len() - 1)));
        // 256 MiB of zeros, in one part and in many: either is some hundred kilobytes.
        let zeros = vec![0; 1 << 20];
        let many = compress(&zeros).repeat(256);
        assert_eq!(
            decoded(encoding, &many, INGEST_BODY_BYTES_MAX),
            Err(DecodeError::TooLarge(INGEST_BODY_BYTES_MAX))
        );
        let one = compress(&zeros.repeat(64));
        assert_eq!(
            decoded(encoding, &one, INGEST_BODY_BYTES_MAX),
            Err(DecodeError::TooLarge(INGEST_BODY_BYTES_MAX))
        );
    }
}

#[test]
fn a_stream_that_does_not_announce_its_size_is_stopped_too() {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_contentsize(false).unwrap();
    for _ in 0..64 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert_eq!(decoded(ContentEncoding::Zstd, &bomb, 1 << 20), Err(DecodeError::TooLarge(1 << 20)));
}

#[test]
fn a_frame_of_another_size_than_it_announces_is_damaged() {
    let mut body = ::zstd::bulk::compress(b"0123456789", 1).unwrap();
    // Behind the magic number and the descriptor of a frame that is one segment: its size, in one byte.
    assert_eq!(body[4..6], [0x20, 10]);
    assert_eq!(decoded(ContentEncoding::Zstd, &body, 100).unwrap(), b"0123456789");
    body[5] = 11;
    assert!(matches!(decoded(ContentEncoding::Zstd, &body, 100), Err(DecodeError::Damaged { .. })));
}

#[test]
fn a_window_larger_than_any_body_is_refused() {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&text()).unwrap();
    let body = encoder.finish().unwrap();
    assert!(matches!(
        decoded(ContentEncoding::Zstd, &body, INGEST_BODY_BYTES_MAX),
        Err(DecodeError::Damaged { .. })
    ));
}

#[test]
fn while_others_hold_all_bytes_nothing_is_decoded() {
    let budget = Budget::new(1 << 20);
    let mut other = budget.share();
    other.take(1 << 20).unwrap();
    for (encoding, compress) in BOTH {
        let body = compress(&text());
        let empty_handed = match encoding {
            ContentEncoding::Gzip => gzip::decode(&body, 1 << 20, &budget),
            _ => zstd::decode(&body, 1 << 20, &budget),
        };
        assert_eq!(empty_handed.unwrap_err(), DecodeError::Busy(Busy));
    }
    assert_eq!(budget.in_use(), 1 << 20);
}

proptest! {
    #[test]
    fn what_was_compressed_comes_back(text: Vec<u8>) {
        for (encoding, compress) in BOTH {
            prop_assert_eq!(decoded(encoding, &compress(&text), INGEST_BODY_BYTES_MAX).unwrap(), &text[..]);
        }
    }

    #[test]
    fn damage_is_found_and_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4)) {
        let text = text();
        for (encoding, compress) in BOTH {
            let mut body = compress(&text);
            for (place, change) in &changes {
                let place = place.index(body.len());
                body[place] ^= change;
            }
            // Changes may cancel out, and gzip has header fields that say nothing of the content.
            if let Ok(out) = decoded(encoding, &body, INGEST_BODY_BYTES_MAX) {
                prop_assert_eq!(out, &text[..], "{:?}", encoding);
            }
        }
    }
}
