//! One TOML file beneath the environment and the flags: `--config FILE`.
//!
//! A key is a flag's name with underscores (`segment_bytes = "256MiB"`); its value becomes the flag's default, so that
//! the environment and the command line win over it, and every value is checked as the flag's is. Invariant: nothing
//! in the file is passed over: a key that is none, or a value that is wrong, is an error with its line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The largest file that is read: far above any real one.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a file may not set: it is how the file itself is found, or asks for something else than serving.
const NOT_IN_FILES: [&str; 3] = ["config", "help", "version"];

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read.
    #[error("the configuration {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// It is no TOML, or something in it is wrong.
    #[error("the configuration {} line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from one.
        line: usize,
        /// What is wrong, with the key.
        reason: String,
    },
}

/// One setting of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// The id of the argument that it is a default of.
    id: String,
    values: Vec<String>,
}

/// The command with what the file says as defaults.
///
/// # Errors
/// See [`FileError`].
pub fn beneath(command: Command, path: &Path) -> Result<Command, FileError> {
    let text = read(path)?;
    let settings = settings(&command, &text).map_err(|(position, reason)| FileError::Line {
        path: path.to_owned(),
        line: text.get(..position).unwrap_or(&text).matches('\n').count() + 1,
        reason,
    })?;
    let with = |command: Command, Setting { id, values }| {
        // clap keeps defaults for as long as the process lives; there is one file, and it is bounded.
        let values = values.into_iter().map(|value| &*Box::leak(value.into_boxed_str()));
        command.mut_arg(id, |argument| argument.default_values(values))
    };
    Ok(settings.into_iter().fold(command, with))
}

/// The keys that a file may have, with their argument.
pub fn keys(command: &Command) -> impl Iterator<Item = (String, &Arg)> {
    let named = |argument: &&Arg| {
        argument.get_long().is_some_and(|long| !NOT_IN_FILES.contains(&long)) && !argument.is_hide_set()
    };
    command.get_arguments().filter(named).map(|argument| (key_of(argument), argument))
}

fn key_of(argument: &Arg) -> String {
    argument.get_long().unwrap_or_default().replace('-', "_")
}

fn read(path: &Path) -> Result<String, FileError> {
    let failed = |reason: String| FileError::Read { path: path.to_owned(), reason };
    let length = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}

/// The settings of a file, or where and why it is wrong.
fn settings(command: &Command, text: &str) -> Result<Vec<Setting>, (usize, String)> {
    let table = DeTable::parse(text)
        .map_err(|error| (error.span().map_or(0, |span| span.start), error.message().trim().to_owned()))?;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let (position, name) = (key.span().start, key.get_ref().as_ref());
        let argument = keys(command).find(|(known, _)| known == name).map(|(_, argument)| argument);
        let argument = argument.ok_or_else(|| (position, unknown(command, name)))?;
        let setting = setting(argument, name, value).map_err(|reason| (value.span().start, reason))?;
        check(command, argument, &setting)
            .map_err(|reason| (value.span().start, format!("{name}: {reason}")))?;
        settings.push(setting);
    }
    Ok(settings)
}

fn unknown(command: &Command, name: &str) -> String {
    let near = keys(command).map(|(key, _)| key).min_by_key(|key| distance(key, name));
    let hint = near.filter(|key| distance(key, name) <= name.len() / 3 + 1);
    let hint = hint.map_or_else(String::new, |key| format!("; did you mean `{key}`?"));
    format!("unknown key `{name}`{hint}")
}

/// What a file's value is as an argument's.
fn setting(argument: &Arg, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Setting, String> {
    let id = argument.get_id().to_string();
    let is_flag = matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let values = match value.get_ref() {
        DeValue::Array(items) if takes_many(argument) => {
            items.iter().map(|item| scalar(name, item.get_ref())).collect::<Result<_, _>>()?
        }
        DeValue::Array(_) => return Err(format!("{name}: one value is wanted, not a list")),
        DeValue::Boolean(_) if !is_flag => return Err(format!("{name}: true or false is no value of it")),
        DeValue::Boolean(_) | DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) => {
            vec![scalar(name, value.get_ref())?]
        }
        _ => return Err(format!("{name}: a text, a number or a list is wanted")),
    };
    Ok(Setting { id, values })
}

fn takes_many(argument: &Arg) -> bool {
    argument.get_value_delimiter().is_some() || matches!(argument.get_action(), ArgAction::Append)
}

fn scalar(name: &str, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Ok(yes.to_string()),
        _ => Err(format!("{name}: a text or a decimal number is wanted")),
    }
}

/// Checks a setting as the flag's value would be, on a command line of this one flag.
fn check(command: &Command, argument: &Arg, setting: &Setting) -> Result<(), String> {
    // The environment says nothing of the file.
    let alone = command.clone().mut_args(|argument| argument.env(Resettable::Reset));
    let flag = format!("--{}", argument.get_long().unwrap_or_default());
    let is_flag = matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let arguments: Vec<String> = match setting.values.as_slice() {
        values if is_flag => {
            if values == ["true"] {
                vec![flag]
            } else {
                Vec::new()
            }
        }
        values => values.iter().map(|value| format!("{flag}={value}")).collect(),
    };
    match alone.try_get_matches_from(std::iter::once(command.get_name().to_owned()).chain(arguments)) {
        // What it needs may be given elsewhere: the whole is checked when it is put together.
        Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => Err(in_words(&error)),
        _ => Ok(()),
    }
}

/// What clap has to say of a value, without the flag's name.
fn in_words(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string);
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    match (error.kind(), context(ContextKind::ValidValue), std::error::Error::source(error)) {
        (ErrorKind::InvalidValue, Some(valid), _) => format!("`{value}` is none of {valid}"),
        (_, _, Some(source)) => format!("`{value}`: {source}"),
        _ => error.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// Writes the settings that are in force as a file could have them, each with where it comes from.
///
/// # Errors
/// The output's.
pub fn show(
    command: &Command,
    matches: &ArgMatches,
    file: Option<&Path>,
    out: &mut dyn Write,
) -> Result<(), ShowError> {
    let of_file = match file {
        Some(path) => settings(command, &read(path)?).unwrap_or_default(),
        None => Vec::new(),
    };
    for (key, argument) in keys(command) {
        let id = argument.get_id().as_str();
        let values: Vec<String> = matches
            .get_raw(id)
            .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment",
            _ if of_file.iter().any(|setting| setting.id == id) => "file",
            _ => "default",
        };
        if values.is_empty() {
            writeln!(out, "# {key} is not set")?;
        } else {
            writeln!(out, "{key} = {}  # {source}", shown(argument, &values))?;
        }
    }
    Ok(())
}

/// Why the settings could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The file went away meanwhile.
    #[error(transparent)]
    File(#[from] FileError),
    /// The output is gone.
    #[error("could not write the answer: {0}")]
    Output(#[from] io::Error),
}

fn shown(argument: &Arg, values: &[String]) -> String {
    let one = |value: &String| match value.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) if value == "true" || value == "false" => value.clone(),
        Err(_) => toml::Value::String(value.clone()).to_string(),
    };
    match values {
        [value] if !takes_many(argument) => one(value),
        // A default may be the whole list, with its commas.
        values => {
            let items: Vec<String> =
                values.iter().flat_map(|value| value.split(',')).map(str::to_owned).collect();
            format!("[{}]", items.iter().map(one).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Levenshtein's distance, for a hint.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (place, cb) in row.iter_mut().skip(1).zip(&b) {
            let cost = (diagonal + usize::from(ca != *cb)).min(*place + 1).min(left + 1);
            diagonal = *place;
            *place = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
