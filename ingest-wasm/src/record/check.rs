//! Applies the rules to a scanned record: whether it is taken, and what has to change.

use std::borrow::Cow;

use model::json::{JsonStr, Value};
use model::limits::{LEVEL_BYTES_MAX, RECORD_BYTES_MAX, SERVICE_BYTES_MAX, TIMESTAMP_MS_MAX};
use model::line::whole_number;

use super::labels::{self, Label};
use super::scan::{Labels, Scanned};
use super::{Fault, UNKNOWN_SERVICE};
use crate::timestamp::parse_rfc3339;

/// What a record's line is made of.
#[derive(Clone, Debug)]
pub struct Checked<'a> {
    pub(super) timestamp: Timestamp<'a>,
    pub(super) service: Service<'a>,
    /// The level's text between its quotes, or the digits of a number.
    pub(super) level: Option<&'a str>,
    /// The message's text between its quotes.
    pub(super) message: &'a str,
    /// The labels to be written, if the record cannot stay as it is.
    pub(super) rewritten: Option<Vec<Label<'a>>>,
}

/// When a record happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timestamp<'a> {
    /// The digits of whole milliseconds, as sent.
    Digits(&'a str),
    /// Milliseconds that were given otherwise.
    Milliseconds(u64),
    /// Not said: when it was received.
    Absent,
}

/// What logged a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service<'a> {
    /// This text.
    Named(JsonStr<'a>),
    /// Not said.
    Unknown,
}

impl<'a> Service<'a> {
    /// The name's text between its quotes.
    pub fn raw(self) -> &'a str {
        match self {
            Self::Named(name) => name.raw(),
            Self::Unknown => UNKNOWN_SERVICE,
        }
    }

    /// The name.
    pub fn decode(self) -> Cow<'a, str> {
        match self {
            Self::Named(name) => name.decode(),
            Self::Unknown => Cow::Borrowed(UNKNOWN_SERVICE),
        }
    }
}

impl<'a> Checked<'a> {
    /// What logged the record.
    pub fn service(&self) -> Service<'a> {
        self.service
    }
}

impl<'a> Scanned<'a> {
    /// Applies the rules.
    ///
    /// # Errors
    /// Names the first field at fault.
    pub fn check(&self) -> Result<Checked<'a>, Fault> {
        if self.text.len() > RECORD_BYTES_MAX {
            return Err(too_long());
        }
        if let Some(field) = self.twice {
            return Err(Fault::new(field, "appears twice"));
        }
        // A field that is there but has to be written otherwise, rather than a field that is missing.
        let mut is_rewritten = self.is_disguised || !self.others.is_empty();
        let timestamp = self.check_timestamp()?;
        is_rewritten |= self.timestamp.is_some() && !matches!(timestamp, Timestamp::Digits(_));
        let service = self.check_service()?;
        is_rewritten |= self.service.is_some() && service == Service::Unknown;
        let level = self.check_level()?;
        is_rewritten |= matches!(self.level, Some(Value::Number(_)));
        let message = match self.message {
            Some(Value::String(text)) => text.raw(),
            Some(_) => return Err(Fault::new("message", "has to be a string")),
            None => return Err(Fault::new("message", "is missing")),
        };
        match self.labels {
            Labels::Absent => {}
            // Readers of stored lines expect an object or nothing.
            Labels::Other(Value::Null) => is_rewritten = true,
            Labels::Object => is_rewritten |= !labels::can_stay(&self.label_members)?,
            Labels::Other(_) => return Err(Fault::new("labels", "has to be an object")),
        }
        let rewritten =
            if is_rewritten { Some(labels::collect(&self.label_members, &self.others)?) } else { None };
        Ok(Checked { timestamp, service, level, message, rewritten })
    }

    fn check_timestamp(&self) -> Result<Timestamp<'a>, Fault> {
        match self.timestamp {
            None | Some(Value::Null) => return Ok(Timestamp::Absent),
            Some(Value::Number(digits)) if whole_number(digits).is_some_and(|ms| ms <= TIMESTAMP_MS_MAX) => {
                return Ok(Timestamp::Digits(digits));
            }
            Some(Value::String(text)) => {
                let ms = parse_rfc3339(&text.decode()).and_then(|ms| u64::try_from(ms).ok());
                if let Some(ms) = ms.filter(|ms| *ms <= TIMESTAMP_MS_MAX) {
                    return Ok(Timestamp::Milliseconds(ms));
                }
            }
            Some(_) => {}
        }
        let error = "has to be whole Unix milliseconds or an RFC 3339 text, from 1970 to the year 9999";
        Err(Fault::new("timestamp", error))
    }

    fn check_service(&self) -> Result<Service<'a>, Fault> {
        match self.service {
            None | Some(Value::Null) => Ok(Service::Unknown),
            Some(Value::String(name)) if name.raw().is_empty() => Ok(Service::Unknown),
            Some(Value::String(name)) if is_longer(name, SERVICE_BYTES_MAX) => {
                Err(Fault::new("service", format!("has more than {SERVICE_BYTES_MAX} bytes")))
            }
            Some(Value::String(name)) => Ok(Service::Named(name)),
            Some(_) => Err(Fault::new("service", "has to be a string")),
        }
    }

    fn check_level(&self) -> Result<Option<&'a str>, Fault> {
        let (text, is_long) = match self.level {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(level)) => (level.raw(), is_longer(level, LEVEL_BYTES_MAX)),
            Some(Value::Number(digits)) => (digits, digits.len() > LEVEL_BYTES_MAX),
            Some(_) => return Err(Fault::new("level", "has to be a string or a number")),
        };
        if is_long {
            return Err(Fault::new("level", format!("has more than {LEVEL_BYTES_MAX} bytes")));
        }
        Ok(Some(text))
    }
}

/// Whether a text has more bytes than this. Escapes are never shorter than what they stand for.
pub(super) fn is_longer(text: JsonStr<'_>, bytes_max: usize) -> bool {
    text.raw().len() > bytes_max && text.decode().len() > bytes_max
}

/// The fault of a record whose line would be too long.
pub(super) fn too_long() -> Fault {
    Fault::new("", format!("the record has more than {RECORD_BYTES_MAX} bytes"))
}
