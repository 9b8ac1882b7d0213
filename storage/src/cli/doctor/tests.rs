use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;

use clap::{Args as _, Command, FromArgMatches as _};

use super::*;
use crate::tls::tests::Authority;

/// What the doctor finds with these arguments, and how it ends.
fn examine(data: &Path, more: &[&str]) -> (Outcome, Vec<serde_json::Value>) {
    let command = DoctorArgs::augment_args(Command::new("doctor"));
    let data = data.display().to_string();
    let mut arguments = vec!["doctor", "--json", "--data", &data];
    if !more.contains(&"--listen") {
        arguments.extend(["--listen", "127.0.0.1:0"]);
    }
    let matches = command.try_get_matches_from(arguments.iter().chain(more)).unwrap();
    let args = DoctorArgs::from_arg_matches(&matches).unwrap();
    let mut out = Vec::new();
    let outcome = doctor(&args, &mut out).unwrap();
    (outcome, serde_json::from_slice(&out).unwrap())
}

#[track_caller]
fn finding<'f>(findings: &'f [serde_json::Value], check: &str) -> &'f serde_json::Value {
    findings
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("{check} in {findings:#?}"))
}

#[test]
fn a_good_machine_is_sound_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (outcome, findings) = examine(&dir.path().join("node-1"), &[]);
    assert_eq!(outcome, Outcome::Sound, "{findings:#?}");
    for check in
        ["settings", "port", "clock", "directory", "fsync", "room", "file system", "open files", "memory"]
    {
        assert_ne!(finding(&findings, check)["state"], "failure");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_port_that_another_program_has_is_a_failure_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    // It ends each connection without an answer.
    std::thread::spawn(move || {
        for stream in other.incoming() {
            drop(stream);
        }
    });
    let (outcome, findings) = examine(dir.path(), &["--listen", &address]);
    assert_eq!(outcome, Outcome::Damaged);
    let port = finding(&findings, "port");
    assert_eq!(port["state"], "failure");
    assert!(port["advice"].as_str().unwrap().contains("ss -ltnp"), "{port}");
}

#[test]
fn a_data_directory_that_is_none_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let (outcome, findings) = examine(&file, &[]);
    assert_eq!(outcome, Outcome::Damaged);
    assert_eq!(finding(&findings, "directory")["state"], "failure");
}

#[test]
fn a_partition_whose_file_cannot_be_opened_is_a_failure_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let partition = dir.path().join("partition-0");
    std::fs::create_dir(&partition).unwrap();
    std::fs::write(partition.join("00000000000000000000.jsonl"), "").unwrap();
    let (outcome, _) = examine(dir.path(), &[]);
    assert_eq!(outcome, Outcome::Sound);
    // A list of a partition that is a file fails whoever asks, the superuser included.
    std::fs::write(dir.path().join("partition-1"), "").unwrap();
    let (outcome, findings) = examine(dir.path(), &[]);
    assert_eq!(outcome, Outcome::Damaged);
    assert!(finding(&findings, "directory")["seen"].as_str().unwrap().contains("partition-1"));
}

#[test]
fn peers_are_asked_for_their_clocks() {
    let dir = tempfile::tempdir().unwrap();
    let peer = |date: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
                assert!(head.any(|line| line.unwrap().is_empty()), "a request's head ends");
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: {date}\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
            }
        });
        url
    };
    let late = peer("Thu, 01 Jan 2026 00:00:00 GMT");
    let (outcome, findings) = examine(dir.path(), &["--peer", &late]);
    assert_eq!((outcome, &finding(&findings, "peer")["state"]), (Outcome::Damaged, &"failure".into()));
    let now: &'static str = Box::leak(
        jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&jiff::Timestamp::now())
            .unwrap()
            .into_boxed_str(),
    );
    let (outcome, findings) = examine(dir.path(), &["--peer", &peer(now)]);
    assert_eq!((outcome, &finding(&findings, "peer")["state"]), (Outcome::Sound, &"ok".into()));
    // Nobody there: a warning, for this node can serve all the same.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (outcome, findings) = examine(dir.path(), &["--peer", &format!("http://{nobody}")]);
    assert_eq!((outcome, &finding(&findings, "peer")["state"]), (Outcome::Sound, &"warning".into()));
}

#[test]
fn certificates_that_are_of_no_use_are_a_failure_that_names_the_file_whether_there_are_replicas_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let (_, findings) = examine(dir.path(), &[]);
    assert!(findings.iter().all(|finding| finding["check"] != "certificate"), "there is nothing to look at");
    let authority = Authority::new();
    let files = authority.files("127.0.0.1");
    let named = |path: Option<std::path::PathBuf>| path.unwrap().display().to_string();
    let (cert, key, ca) = (named(files.cluster_cert), named(files.cluster_key), named(files.cluster_ca));
    let whole = ["--cluster-cert", &cert, "--cluster-key", &key, "--cluster-ca", &ca];
    for replicas in ["1", "3"] {
        let examine = |flags: &[&str]| {
            let (outcome, findings) = examine(dir.path(), &[&["--replicas", replicas], flags].concat());
            let seen = finding(&findings, "certificate");
            (outcome, seen["state"].clone(), seen["seen"].as_str().unwrap().to_owned())
        };
        let (outcome, state, seen) = examine(&whole);
        assert_eq!((outcome, state), (Outcome::Sound, "ok".into()), "{seen}");
        let (outcome, state, seen) = examine(&whole[..4]);
        assert_eq!((outcome, state), (Outcome::Damaged, "failure".into()), "{seen}");
        assert!(seen.contains("--cluster-ca is missing"), "{seen}");
        let (outcome, state, seen) = examine(&[&whole[..4], &["--cluster-ca", &key]].concat());
        assert_eq!((outcome, state), (Outcome::Damaged, "failure".into()), "{seen}");
        assert!(seen.contains(&format!("--cluster-ca {key}: there is no certificate in it")), "{seen}");
    }
}
