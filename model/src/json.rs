//! A strict JSON scanner (RFC 8259) that checks text and hands out slices of it, without decoding or copying.
//!
//! Invariant: what it accepts, every strict JSON parser accepts, save that a lone surrogate escape such as `\ud800`
//! passes (the grammar allows it; it decodes to U+FFFD). It must not know what a record is.
//!
//! Records keep the text that their client wrote: numbers keep their digits, strings their escapes.

use std::borrow::Cow;

use crate::bytes::plain_prefix_len;
use crate::limits::JSON_DEPTH_MAX;

/// Text that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {position}")]
pub struct JsonError {
    /// Bytes before the place of the error.
    pub position: usize,
    /// What was expected there, or what is wrong.
    pub reason: &'static str,
}

/// A string's text between its quotes, with its escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonStr<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> JsonStr<'a> {
    /// A string of which this is the valid text between the quotes.
    #[inline]
    pub(crate) fn from_raw(raw: &'a str, escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// The text as it stands between the quotes.
    pub fn raw(self) -> &'a str {
        self.raw
    }

    /// Whether the text holds escapes, so that it differs from its decoded form.
    pub fn is_escaped(self) -> bool {
        self.escaped
    }

    /// The string that is meant. A lone surrogate becomes U+FFFD.
    pub fn decode(self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }
}

/// A JSON value, as slices of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number's text: its digits are the client's.
    Number(&'a str),
    /// A string.
    String(JsonStr<'a>),
    /// An array's text, brackets included.
    Array(&'a str),
    /// An object's text, braces included.
    Object(Object<'a>),
}

/// An object's text, and what was seen while it was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// The text, braces included.
    pub raw: &'a str,
    /// How many members it has.
    pub members: usize,
    /// Whether every member's value is a string.
    pub all_strings: bool,
    /// Whether there is no white space between its tokens.
    pub compact: bool,
}

/// Walks JSON text from front to back.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
    /// White space skipped so far, in bytes.
    white_space: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, position: 0, depth: 0, white_space: 0 }
    }

    /// Bytes before the next token.
    #[inline]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes of white space between tokens so far: unchanged over a value means that the value is compact.
    pub fn white_space(&self) -> usize {
        self.white_space
    }

    /// The text from `start` to here.
    #[inline]
    pub fn text_since(&self, start: usize) -> &'a str {
        self.text.get(start..self.position).unwrap_or_default()
    }

    /// The text that is left.
    #[inline]
    pub fn remaining(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or_default()
    }

    /// Passes a value, compact and of so many bytes, that was found to be one by other means.
    #[inline]
    pub fn pass(&mut self, length: usize) {
        self.position += length;
    }

    /// The next byte, if there is one.
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    /// Skips white space.
    #[inline]
    pub fn skip_white_space(&mut self) {
        // As a rule there is none.
        if self.peek().is_some_and(|byte| byte <= b' ') {
            self.skip_some_white_space();
        }
    }

    fn skip_some_white_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.position += 1;
            self.white_space += 1;
        }
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.position += usize::from(next);
        next
    }

    /// Takes `literal` if it is next.
    #[inline]
    pub fn take_literal(&mut self, literal: &str) -> bool {
        let next = self.rest().starts_with(literal.as_bytes());
        if next {
            self.position += literal.len();
        }
        next
    }

    /// An error at this place.
    pub fn error<T>(&self, reason: &'static str) -> Result<T, JsonError> {
        Err(JsonError { position: self.position, reason })
    }

    /// Only white space may follow.
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.skip_white_space();
        if self.position == self.text.len() { Ok(()) } else { self.error("unexpected text after the value") }
    }

    /// Scans one value of any kind.
    #[inline]
    pub fn value(&mut self) -> Result<Value<'a>, JsonError> {
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'{') => Ok(Value::Object(self.object()?)),
            Some(b'[') => {
                let start = self.position;
                self.array()?;
                Ok(Value::Array(self.text_since(start)))
            }
            Some(b'-' | b'0'..=b'9') => Ok(Value::Number(self.number()?)),
            Some(b't') if self.take_literal("true") => Ok(Value::Bool(true)),
            Some(b'f') if self.take_literal("false") => Ok(Value::Bool(false)),
            Some(b'n') if self.take_literal("null") => Ok(Value::Null),
            Some(_) => self.error("a JSON value was expected"),
            None => self.error("the text ends where a JSON value was expected"),
        }
    }

    fn array(&mut self) -> Result<(), JsonError> {
        self.array_items(|scanner| scanner.value().map(drop))
    }

    /// Scans an object.
    pub fn object(&mut self) -> Result<Object<'a>, JsonError> {
        let start = self.position;
        let white_space = self.white_space;
        let (mut members, mut all_strings) = (0, true);
        self.object_members(|scanner, _name| {
            members += 1;
            all_strings &= matches!(scanner.value()?, Value::String(_));
            Ok::<(), JsonError>(())
        })?;
        let compact = self.white_space == white_space;
        Ok(Object { raw: self.text_since(start), members, all_strings, compact })
    }

    /// Scans an object; `member` is called with each name and has to scan the value behind it.
    #[inline]
    pub fn object_members<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(&mut Self, JsonStr<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.object_members_guessed(
            &mut member,
            |_, _| Ok(false),
            |member, scanner, name| member(scanner, name),
        )
    }

    /// As [`Self::object_members`], for who can guess what comes: `guess` is called before each name and may scan the
    /// name, the colon and the value by itself, and say so; a guess that is wrong must leave the scanner where it is.
    #[inline]
    pub fn object_members_guessed<C, E: From<JsonError>>(
        &mut self,
        context: &mut C,
        guess: impl Fn(&mut C, &mut Self) -> Result<bool, E>,
        member: impl Fn(&mut C, &mut Self, JsonStr<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.take(b'{') {
            return Ok(self.error("an object was expected")?);
        }
        self.descend()?;
        self.skip_white_space();
        if !self.take(b'}') {
            loop {
                if !guess(context, self)? {
                    let name = self.string()?;
                    self.skip_white_space();
                    if !self.take(b':') {
                        return Ok(self.error("a colon was expected after a member's name")?);
                    }
                    self.skip_white_space();
                    member(context, self, name)?;
                }
                self.skip_white_space();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Ok(self.error("a comma or a closing brace was expected")?);
                }
                self.skip_white_space();
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Scans an array; `item` is called at the start of each value and has to scan it.
    #[inline]
    pub fn array_items<E: From<JsonError>>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.take(b'[') {
            return Ok(self.error("an array was expected")?);
        }
        self.descend()?;
        self.skip_white_space();
        if !self.take(b']') {
            loop {
                item(self)?;
                self.skip_white_space();
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Ok(self.error("a comma or a closing bracket was expected")?);
                }
                self.skip_white_space();
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Scans a string.
    #[inline(always)]
    pub fn string(&mut self) -> Result<JsonStr<'a>, JsonError> {
        if !self.take(b'"') {
            return self.error("a string was expected");
        }
        let start = self.position;
        self.position += plain_prefix_len(self.rest());
        if self.peek() != Some(b'"') {
            return self.string_with_escapes(start);
        }
        let raw = self.text_since(start);
        self.position += 1;
        Ok(JsonStr { raw, escaped: false })
    }

    /// Scans the rest of a string that began at `start`, from something else than its end on.
    #[cold]
    fn string_with_escapes(&mut self, start: usize) -> Result<JsonStr<'a>, JsonError> {
        loop {
            match self.peek() {
                Some(b'"') => {
                    let raw = self.text_since(start);
                    self.position += 1;
                    return Ok(JsonStr { raw, escaped: true });
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return self.error("a control character in a string has to be escaped"),
                None => return self.error("the text ends within a string"),
            }
            self.position += plain_prefix_len(self.rest());
        }
    }

    /// Scans a number.
    #[inline]
    pub fn number(&mut self) -> Result<&'a str, JsonError> {
        let start = self.position;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _signed = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(self.text_since(start))
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.position..).unwrap_or_default()
    }

    fn descend(&mut self) -> Result<(), JsonError> {
        if self.depth == JSON_DEPTH_MAX {
            return self.error("arrays and objects are nested too deeply");
        }
        self.depth += 1;
        Ok(())
    }

    /// Scans an escape: the backslash and what belongs to it.
    fn escape(&mut self) -> Result<(), JsonError> {
        let length = match self.rest() {
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'\\', b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => 6,
            _ => return self.error("an escape is not valid"),
        };
        self.position += length;
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.position;
        while let Some(b'0'..=b'9') = self.peek() {
            self.position += 1;
        }
        if self.position == start { self.error("a digit was expected") } else { Ok(()) }
    }
}

/// Appends `value`'s text to `out` without the white space between its tokens. `value` has to be valid JSON.
pub fn append_compact(out: &mut Vec<u8>, value: &str) {
    let mut scanner = Scanner::new(value);
    while let Some(byte) = scanner.peek() {
        if byte == b'"' {
            let start = scanner.position;
            // Valid text has no bad string; were there one, its rest would be copied as it stands.
            let end = scanner.string().map_or(value.len(), |_| scanner.position);
            out.extend_from_slice(value.as_bytes().get(start..end).unwrap_or_default());
            scanner.position = end;
        } else {
            if !byte.is_ascii_whitespace() {
                out.push(byte);
            }
            scanner.position += 1;
        }
    }
}

/// Appends `text` to `out` as a JSON string, quotes included.
pub fn append_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_prefix_len(rest));
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.extend([control >> 4, control & 15].map(|digit| match digit {
                    0..=9 => b'0' + digit,
                    _ => b'a' + digit - 10,
                }));
            }
        }
        rest = after;
    }
    out.push(b'"');
}

/// Decodes the escapes of a scanned string.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, after)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = after.chars();
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => {
                let (decoded, length) = unescape_unicode(after);
                out.push(decoded);
                rest = after.get(length..).unwrap_or_default();
                continue;
            }
            Some(itself) => out.push(itself),
            None => break,
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

/// Decodes `uXXXX`, or a pair `uXXXX\uXXXX` of surrogates; returns the character and the length of its text.
fn unescape_unicode(text: &str) -> (char, usize) {
    let unit = |at: usize| {
        let marked = text.get(at..at + 5)?;
        u32::from_str_radix(marked.strip_prefix('u')?, 16).ok()
    };
    let first = unit(0).unwrap_or(0xfffd);
    if let 0xd800..=0xdbff = first
        && text.get(5..6) == Some("\\")
        && let Some(second @ 0xdc00..=0xdfff) = unit(6)
    {
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 5)
}

#[cfg(test)]
mod tests;
