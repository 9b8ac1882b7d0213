//! A body's text, cut into records: a JSON array, a single object, or one record a line.
//!
//! In an array a syntax error refuses everything, for what follows it cannot be told apart; where each record has its
//! line, it costs that record alone.

use memchr::memchr;
use model::json::{JsonError, Scanner};
use model::usual::usual_record;

use crate::batch::{GroupError, Grouped, Grouping};
use crate::decode::BodyFormat;
use crate::record::{self, Fault, Scanned};

/// Why none of a body's records is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// It is not JSON.
    #[error("the body is not JSON: {0}")]
    Syntax(JsonError),
    /// It is JSON of another shape.
    #[error("the body is neither a JSON array of records nor one record")]
    Shape,
    /// It is not text.
    #[error("the body is not UTF-8 at byte {0}")]
    Utf8(usize),
    /// There are no records in it.
    #[error("the body has no records")]
    Empty,
    /// Too many, too long, or not now.
    #[error(transparent)]
    Group(#[from] GroupError),
}

impl From<JsonError> for SplitError {
    fn from(error: JsonError) -> Self {
        Self::Syntax(error)
    }
}

/// Groups the records of a body.
///
/// # Errors
/// When none of them is to be taken, whatever is wrong with single ones.
pub fn group<'a, 'b>(
    format: BodyFormat,
    body: &'a [u8],
    mut grouping: Grouping<'a, 'b>,
) -> Result<Grouped<'b>, SplitError> {
    let count = match format {
        BodyFormat::Json => group_json(body, &mut grouping)?,
        BodyFormat::Ndjson => group_lines(body, &mut grouping)?,
    };
    if count == 0 { Err(SplitError::Empty) } else { Ok(grouping.finish()) }
}

fn group_json<'a>(body: &'a [u8], grouping: &mut Grouping<'a, '_>) -> Result<usize, SplitError> {
    let text = simdutf8::compat::from_utf8(body).map_err(|error| SplitError::Utf8(error.valid_up_to()))?;
    let mut scanner = Scanner::new(text);
    scanner.skip_white_space();
    let mut record = Scanned::default();
    let mut count = 0;
    let mut take = |scanner: &mut Scanner<'a>| -> Result<(), SplitError> {
        if let Some(usual) = usual_record(scanner.remaining()) {
            scanner.pass(usual.text.len());
            grouping.add_usual(count, &usual, text.len() - scanner.position())?;
        } else if record::scan(scanner, &mut record)? {
            grouping.add(count, &record, text.len() - scanner.position())?;
        } else {
            grouping.reject(count, &not_an_object())?;
        }
        count += 1;
        Ok(())
    };
    match scanner.peek() {
        Some(b'[') => scanner.array_items(take)?,
        Some(b'{') => take(&mut scanner)?,
        None => return Err(SplitError::Empty),
        Some(_) => {
            scanner.value()?;
            scanner.end()?;
            return Err(SplitError::Shape);
        }
    }
    scanner.end()?;
    Ok(count)
}

fn group_lines<'a>(body: &'a [u8], grouping: &mut Grouping<'a, '_>) -> Result<usize, SplitError> {
    // As a rule all of it is text, and need not be looked at line by line.
    let whole = simdutf8::basic::from_utf8(body).ok();
    let mut record = Scanned::default();
    let (mut start, mut line_number, mut count) = (0, 0, 0);
    while let Some(rest) = body.get(start..).filter(|rest| !rest.is_empty()) {
        let end = memchr(b'\n', rest).map_or(body.len(), |length| start + length);
        let line = match whole {
            Some(text) => text.get(start..end),
            None => body.get(start..end).and_then(|line| std::str::from_utf8(line).ok()),
        };
        let bytes_left = body.len().saturating_sub(end);
        match line {
            Some(line) => {
                count += usize::from(take_line(line, line_number, &mut record, grouping, bytes_left)?)
            }
            None => {
                grouping.reject(line_number, &Fault::new("", "the line is not UTF-8"))?;
                count += 1;
            }
        }
        line_number += 1;
        start = end + 1;
    }
    Ok(count)
}

/// Takes or rejects what stands in a line; `false` if nothing does.
fn take_line<'a>(
    line: &'a str,
    line_number: usize,
    record: &mut Scanned<'a>,
    grouping: &mut Grouping<'a, '_>,
    bytes_left: usize,
) -> Result<bool, GroupError> {
    if let Some(usual) = usual_record(line)
        && usual.text.len() == line.len()
    {
        grouping.add_usual(line_number, &usual, bytes_left)?;
        return Ok(true);
    }
    let mut scanner = Scanner::new(line);
    scanner.skip_white_space();
    if scanner.peek().is_none() {
        return Ok(false);
    }
    let scanned = record::scan(&mut scanner, record).and_then(|is_object| scanner.end().map(|()| is_object));
    match scanned {
        Ok(true) => grouping.add(line_number, record, bytes_left)?,
        Ok(false) => grouping.reject(line_number, &not_an_object())?,
        Err(error) => {
            grouping.reject(line_number, &Fault::new("", format!("the line is not JSON: {error}")))?
        }
    }
    Ok(true)
}

fn not_an_object() -> Fault {
    Fault::new("", "a record has to be a JSON object")
}
