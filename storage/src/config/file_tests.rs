use std::path::Path;

use clap::{Args as _, Command, FromArgMatches as _};

use super::*;
use crate::config::Settings;

fn command() -> Command {
    Settings::augment_args(Command::new("storage"))
}

/// The settings of a file with these arguments.
fn with_file(text: &str, arguments: &[&str]) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("storage.toml");
    fs::write(&path, text).unwrap();
    let command = beneath(command(), &path)
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))?;
    // The environment of whoever runs the tests is not asked.
    let command = command.mut_args(|argument| argument.env(Resettable::Reset));
    let matches =
        command.try_get_matches_from(["storage"].iter().chain(arguments)).map_err(|e| e.to_string())?;
    Ok(Settings::from_arg_matches(&matches).unwrap())
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    assert_eq!(with_file(text, &[]).unwrap_err(), expected);
}

#[test]
fn a_file_is_beneath_the_flags_and_above_the_defaults() {
    let text = "segment_bytes = \"1MiB\"\nretention_age = \"7d\"\npartitions = [2, 3]\nconnections = 7\n\
                notify_ingest = [\"http://a:1\", \"http://b:2\"]\nfsync = \"never\"\nlog = \"warn\"\nqueue_bytes = 1000";
    let settings = with_file(text, &["--segment-bytes", "2MiB"]).unwrap();
    let config = settings.config;
    assert_eq!(config.log.segment_bytes, 2 << 20, "the flag wins");
    assert_eq!(config.log.retention_age, Some(std::time::Duration::from_secs(7 * 24 * 3600)));
    assert_eq!(config.partitions_sorted().len(), 2);
    assert_eq!(config.http.connections, 7);
    assert_eq!(config.load.queue_bytes, 1000);
    assert_eq!(config.notify_ingest.len(), 2);
    assert_eq!(settings.log.filter, "warn");
    assert_eq!(config.load.queue_requests, 1024, "what the file does not say stays");
}

#[test]
fn the_environment_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("storage.toml");
    fs::write(&path, "connections = 7").unwrap();
    // A variable that this test can count on to be there, in the place of the setting's own.
    let name = "CARGO_PKG_VERSION_MINOR";
    let command = beneath(command(), &path).unwrap().mut_arg("connections", |argument| argument.env(name));
    let matches = command.try_get_matches_from(["storage"]);
    let given = std::env::var(name).unwrap();
    assert_eq!(matches.unwrap().get_one::<u32>("connections"), Some(&given.parse().unwrap()));
}

#[test]
fn what_is_wrong_in_a_file_is_named_by_key_and_line() {
    check_refused(
        "\n# sizes\nsegment_byte = \"1MiB\"\n",
        "the configuration FILE line 3: unknown key `segment_byte`; did you mean `segment_bytes`?",
    );
    check_refused(
        "[log]\nfsync = \"never\"",
        "the configuration FILE line 1: log: a text, a number or a list is wanted",
    );
    check_refused("xyzzy_plugh = 1", "the configuration FILE line 1: unknown key `xyzzy_plugh`");
    check_refused("config = \"other.toml\"", "the configuration FILE line 1: unknown key `config`");
    check_refused(
        "listen = \"127.0.0.1:1\"\nsegment_bytes = \"1 parsec\"",
        "the configuration FILE line 2: segment_bytes: `1 parsec`: unknown unit \"parsec\": a size is written like 256MiB or 10GB",
    );
    check_refused(
        "fsync = \"sometimes\"",
        "the configuration FILE line 1: fsync: `sometimes` is none of always, interval, never",
    );
    check_refused(
        "connections = true",
        "the configuration FILE line 1: connections: true or false is no value of it",
    );
    check_refused(
        "connections = [1]",
        "the configuration FILE line 1: connections: one value is wanted, not a list",
    );
    check_refused(
        "connections = 0",
        "the configuration FILE line 1: connections: `0`: 0 is not in 1..=65536",
    );
    assert!(with_file("a = 1\na = 2", &[]).unwrap_err().starts_with("the configuration FILE line 2: "));
    assert!(with_file("listen", &[]).unwrap_err().starts_with("the configuration FILE line 1: "));
    let missing = beneath(command(), Path::new("/nowhere/storage.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("the configuration /nowhere/storage.toml: "), "{missing}");
}

#[test]
fn what_is_shown_can_be_a_file_itself() {
    let command = command().mut_args(|argument| argument.env(Resettable::Reset));
    let matches = command.clone().try_get_matches_from(["storage", "--connections", "9"]).unwrap();
    let mut out = Vec::new();
    show(&command, &matches, None, &mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    for line in [
        "connections = 9  # flag",
        "segment_bytes = \"256MiB\"  # default",
        "partitions = [0, 1]  # default",
        "# retention_bytes is not set",
    ] {
        assert!(shown.lines().any(|own| own == line), "{line} in\n{shown}");
    }
    let settings = with_file(&shown, &[]).unwrap();
    assert_eq!(settings.config.http.connections, 9);
    assert_eq!(settings.config.log.log_options(), crate::log::LogOptions::default());
}

#[test]
fn every_setting_and_its_default_is_documented() {
    let operations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let table = telemetry::reference::settings(&command(), true);
    telemetry::reference::check_section(&operations, "settings-storage", &table).unwrap();
}
