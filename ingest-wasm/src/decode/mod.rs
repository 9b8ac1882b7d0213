//! From a request's body as sent to plain JSON text: which format and which compression it has, and taking the
//! compression off.
//!
//! Invariant: nothing that is decoded exceeds `bytes_max`, however little was sent; a compressed body that is cut
//! short, damaged or followed by garbage is an error. This module must not know what JSON is.

mod gzip;
mod zstd;

use crate::budget::{Budget, Busy, Metered};
use crate::message::Headers;

/// How the records of a body are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// A JSON array of records, or a single record.
    Json,
    /// One record a line.
    Ndjson,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    /// Not at all.
    Identity,
    /// gzip (RFC 1952), of one or more members.
    Gzip,
    /// Zstandard (RFC 8878), of one or more frames.
    Zstd,
}

/// A header that names something which is not understood: 415.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The media type.
    #[error(
        "the content type {0:?} is not taken: send application/json, or application/x-ndjson for one record a line"
    )]
    ContentType(String),
    /// The text's encoding.
    #[error("the charset {0:?} is not taken: JSON is UTF-8")]
    Charset(String),
    /// The compression.
    #[error("the content encoding {0:?} is not taken: send gzip, zstd or identity, and one only")]
    ContentEncoding(String),
}

/// Why a compressed body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not what its header says, or not all of it.
    #[error("the {encoding} body cannot be decompressed: {reason}")]
    Damaged {
        /// The compression.
        encoding: &'static str,
        /// What was found.
        reason: String,
    },
    /// It decompresses to more than is taken.
    #[error("the body is larger than {0} bytes when decompressed")]
    TooLarge(usize),
    /// There is no room for it now.
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl BodyFormat {
    /// The format that `Content-Type` names; JSON when it names none.
    ///
    /// # Errors
    /// When it names another.
    pub fn of(headers: &Headers) -> Result<Self, Unsupported> {
        let content_type = headers.first("content-type").unwrap_or_default();
        let mut parts = content_type.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let format = match media_type.to_ascii_lowercase().as_str() {
            "" | "application/json" => Self::Json,
            // The first is ours; the others are what shippers call the same.
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines" => Self::Ndjson,
            _ => return Err(Unsupported::ContentType(media_type.to_owned())),
        };
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            let charset = value.trim().trim_matches('"');
            let is_utf8 = ["utf-8", "utf8", "us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name));
            if name.trim().eq_ignore_ascii_case("charset") && !is_utf8 {
                return Err(Unsupported::Charset(charset.to_owned()));
            }
        }
        Ok(format)
    }
}

impl ContentEncoding {
    /// The compression that `Content-Encoding` names.
    ///
    /// # Errors
    /// When it names another, or several within one another.
    pub fn of(headers: &Headers) -> Result<Self, Unsupported> {
        let mut encoding = Self::Identity;
        for name in headers.list("content-encoding") {
            let named = match name.to_ascii_lowercase().as_str() {
                "identity" => continue,
                "gzip" | "x-gzip" => Self::Gzip,
                "zstd" => Self::Zstd,
                _ => return Err(Unsupported::ContentEncoding(name.to_owned())),
            };
            if encoding != Self::Identity {
                let all: Vec<&str> = headers.list("content-encoding").collect();
                return Err(Unsupported::ContentEncoding(all.join(", ")));
            }
            encoding = named;
        }
        Ok(encoding)
    }
}

/// Takes the compression off a body.
///
/// # Errors
/// When it is damaged, or decompresses to more than `bytes_max` bytes; when there is no room for it.
pub fn decode<'b>(
    encoding: ContentEncoding,
    body: Metered<'b>,
    bytes_max: usize,
    budget: &'b Budget,
) -> Result<Metered<'b>, DecodeError> {
    match encoding {
        ContentEncoding::Identity => Ok(body),
        ContentEncoding::Gzip => gzip::decode(body.bytes(), bytes_max, budget),
        ContentEncoding::Zstd => zstd::decode(body.bytes(), bytes_max, budget),
    }
}

#[cfg(test)]
mod tests;
