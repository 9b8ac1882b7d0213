//! Runs the real program against a stand-in that misbehaves: its exit status and its report must say so.
//!
//! What a real ingest and storage do with the records is the business of the workspace's end-to-end tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

mod stand_in;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stand_in::{Fault, StandIn};

/// Every run but where a test says otherwise: 10 batches of 10 records, one after another, verified.
const BASIC: [&str; 13] = [
    "--json",
    "--total",
    "100",
    "--delay",
    "0",
    "--seed",
    "1",
    "--verify",
    "--settle-ms",
    "300",
    "--timeout-ms",
    "10000",
    "--retries=3",
];

struct Ran {
    code: Option<i32>,
    report: Value,
}

impl Ran {
    fn new(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no report: {stdout}{stderr}"));
        Self { code: output.status.code(), report }
    }

    /// Asserts on a number of the report by its path.
    #[track_caller]
    fn has(&self, pointer: &str, number: u64) -> &Self {
        assert_eq!(
            self.report.pointer(pointer).and_then(Value::as_u64),
            Some(number),
            "{pointer} in {}",
            self.report
        );
        self
    }

    /// Asserts that the run ended with `code` and that the report agrees.
    #[track_caller]
    fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.report);
        assert_eq!(self.report["ok"], code == 0, "{}", self.report);
        self
    }

    /// Asserts that some text of the report holds `part`.
    #[track_caller]
    fn says(&self, part: &str) -> &Self {
        assert!(self.report.to_string().contains(part), "{part} in {}", self.report);
        self
    }
}

fn command(stand_in: &StandIn, flags: &[&str]) -> Command {
    let mut command = loadgen(flags);
    command.args(["--url", &stand_in.url("/v1/logs"), "--storage", &stand_in.url("")]);
    command
}

fn loadgen(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs against a stand-in with these faults.
fn run(faults: &[(usize, Fault)]) -> Ran {
    let stand_in = StandIn::start(faults.iter().copied());
    Ran::new(&command(&stand_in, &BASIC).output().unwrap())
}

#[test]
fn a_run_without_faults_is_verified() {
    let ran = run(&[]);
    ran.ends_with(0)
        .has("/records/sent", 100)
        .has("/records/acked", 100)
        .has("/batches", 10)
        .has("/retries", 0);
    ran.has("/answers/200", 10)
        .has("/durability/leader", 10)
        .has("/verify/acked", 100)
        .has("/verify/foreign", 0);
}

#[test]
fn many_connections_ndjson_and_minimal_answers_are_verified_too() {
    let stand_in = StandIn::start([]);
    let mut command = command(&stand_in, &BASIC);
    command.args(["--connections", "4", "--ndjson", "--minimal", "--profile", "rich", "--batch", "7"]);
    let ran = Ran::new(&command.output().unwrap());
    ran.ends_with(0).has("/answers/204", 15).has("/verify/acked", 100);
    assert_eq!(stand_in.content_types(), ["application/x-ndjson"; 15]);
}

#[test]
fn a_second_run_of_the_same_corpus_is_not_taken_for_doubled() {
    let stand_in = StandIn::start([]);
    for _ in 0..2 {
        let mut command = command(&stand_in, &BASIC);
        command.args(["--start-timestamp", "1700000000000"]);
        Ran::new(&command.output().unwrap()).ends_with(0).has("/verify/acked", 100).has("/verify/foreign", 0);
    }
}

#[test]
fn records_that_were_acked_and_not_stored_are_missing() {
    run(&[(3, Fault::Lost)])
        .ends_with(1)
        .has("/records/acked", 100)
        .has("/verify/missing", 10)
        .says("missing: {");
}

#[test]
fn records_that_are_stored_twice_are_doubled() {
    run(&[(3, Fault::StoredTwice)])
        .ends_with(1)
        .has("/verify/doubled", 10)
        .has("/verify/missing", 0)
        .says("doubled: {");
}

#[test]
fn records_in_the_wrong_order_are_found_with_one_connection() {
    let ran = run(&[(0, Fault::StoredReversed)]);
    assert!(ran.ends_with(1).report["verify"]["out_of_order"].as_u64() > Some(0));
}

#[test]
fn records_without_what_the_ingest_adds_are_found() {
    run(&[(3, Fault::StoredBare)]).ends_with(1).has("/verify/unenriched", 10).has("/verify/missing", 0);
}

#[test]
fn a_rejected_record_fails_the_run_and_is_not_expected_in_storage() {
    let ran = run(&[(3, Fault::Rejected(4))]);
    ran.ends_with(1).has("/records/acked", 99).has("/records/rejected", 1).says("too rude");
    ran.has("/verify/acked", 99).has("/verify/missing", 0).has("/verify/unexpected", 0);
}

#[test]
fn a_record_that_is_stored_although_it_was_rejected_is_found() {
    run(&[(3, Fault::RejectedYetStored(4))]).ends_with(1).has("/verify/unexpected", 1);
}

#[test]
fn a_refused_batch_is_not_tried_again() {
    let ran = run(&[(3, Fault::Refused)]);
    ran.ends_with(1)
        .has("/records/rejected", 10)
        .has("/answers/400", 1)
        .has("/retries", 0)
        .says("no record is valid");
    ran.has("/verify/missing", 0);
}

#[test]
fn an_answer_that_does_not_account_for_every_record_fails_the_batch() {
    let ran = run(&[(3, Fault::Miscounted)]);
    ran.ends_with(1).has("/records/acked", 90).has("/records/failed", 10).has("/verify/in_doubt_stored", 10);
}

#[test]
fn a_queued_batch_is_waited_for() {
    let ran = run(&[(3, Fault::Queued)]);
    ran.ends_with(0).has("/answers/202", 1).has("/durability/edge", 1).has("/verify/acked", 100);
}

#[test]
fn a_closed_connection_is_retried_with_the_same_key() {
    for fault in [Fault::ClosedBefore, Fault::ClosedAfter] {
        let ran = run(&[(3, fault)]);
        ran.ends_with(0).has("/retries", 1).has("/unanswered/broken", 1).has("/verify/acked", 100);
    }
}

#[test]
fn a_server_that_forgets_the_key_of_a_retried_batch_doubles_it() {
    run(&[(3, Fault::ClosedAfterAndForgotten)])
        .ends_with(1)
        .has("/records/acked", 100)
        .has("/verify/doubled", 10);
}

#[test]
fn a_busy_server_is_tried_again_and_given_up_in_the_end() {
    let ran = run(&[(3, Fault::Busy(3))]);
    ran.ends_with(0).has("/answers/503", 3).has("/retries", 3).has("/records/acked", 100);
    let ran = run(&[(3, Fault::Busy(4))]);
    ran.ends_with(1)
        .has("/answers/503", 4)
        .has("/records/failed", 10)
        .says("come again")
        .has("/verify/missing", 0);
}

#[test]
fn an_answer_that_never_comes_is_given_up_after_the_time_out() {
    let stand_in = StandIn::start([(3, Fault::Silent)]);
    let mut command = command(&stand_in, &["--json", "--total", "100", "--delay", "0", "--retries", "1"]);
    let ran = Ran::new(&command.args(["--timeout-ms", "200"]).output().unwrap());
    ran.ends_with(1).has("/unanswered/timeout", 2).has("/records/failed", 10).has("/records/acked", 90);
}

#[test]
fn nobody_listening_fails_every_record() {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let url = format!("http://{free}/v1/logs");
    let ran =
        Ran::new(&loadgen(&["--json", "--delay", "0", "--retries", "0", "--url", &url]).output().unwrap());
    ran.ends_with(1).has("/records/failed", 100).has("/unanswered/connect", 10).says("cannot connect");
}

#[test]
fn a_read_that_breaks_off_is_repeated_and_counts_once() {
    let stand_in = StandIn::start([]);
    stand_in.break_reads(3);
    let ran = Ran::new(&command(&stand_in, &BASIC).output().unwrap());
    ran.ends_with(0).has("/verify/acked", 100).has("/verify/foreign", 0);
}

#[test]
fn a_storage_node_that_stays_broken_fails_the_verification() {
    let stand_in = StandIn::start([]);
    stand_in.break_reads(usize::MAX);
    let ran = Ran::new(&command(&stand_in, &BASIC).output().unwrap());
    ran.ends_with(1).has("/records/acked", 100).says("unreadable").says("no whole answer");
}

#[test]
fn a_storage_node_that_is_not_there_before_the_run_stops_it() {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let output = loadgen(&["--verify", "--storage", &format!("http://{free}")]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("storage node") && stderr.contains("cannot connect"), "{stderr}");
}

#[test]
fn records_of_other_writers_from_before_the_run_are_not_read_and_later_ones_are_ignored() {
    let stand_in = StandIn::start([(3, Fault::Silent)]);
    let other = r#"{"timestamp":1,"service":"s","message":"m","received_at":2,"ingested_node_id":"n","client_ip":"c"}"#;
    stand_in.store_line(0, "not a record, but before the run");
    let mut child = command(&stand_in, &BASIC);
    let child = child.args(["--timeout-ms", "300", "--retries", "0"]).spawn().unwrap();
    stand_in.wait_for_silent_batch();
    stand_in.store_line(0, other);
    let ran = Ran::new(&child.wait_with_output().unwrap());
    ran.ends_with(1).has("/verify/foreign", 1).has("/verify/malformed", 0).has("/verify/missing", 0);
}

#[test]
fn ctrl_c_stops_the_run_and_still_reports() {
    let stand_in = StandIn::start([(3, Fault::Silent)]);
    let child = command(&stand_in, &BASIC).spawn().unwrap();
    stand_in.wait_for_silent_batch();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ran = Ran::new(&child.wait_with_output().unwrap());
    ran.ends_with(130).has("/records/acked", 30).has("/records/failed", 10).has("/records/sent", 40);
    ran.has("/verify/acked", 30).has("/verify/missing", 0);
    assert_eq!(ran.report["interrupted"], true);
}

#[test]
fn rate_and_delay_slow_the_run_down() {
    let stand_in = StandIn::start([]);
    for (flags, least) in [
        // Nine batches after the first, one each 25 ms.
        (["--rate", "400", "--delay", "0"], Duration::from_millis(225)),
        // Nine pauses.
        (["--connections", "1", "--delay", "20"], Duration::from_millis(180)),
    ] {
        let started = Instant::now();
        let ran = Ran::new(&command(&stand_in, &["--json"]).args(flags).output().unwrap());
        ran.ends_with(0).has("/records/acked", 100);
        assert!(started.elapsed() >= least, "{flags:?} took {:?}", started.elapsed());
    }
}

#[test]
fn the_text_summary_names_the_seed_and_the_outcome() {
    let stand_in = StandIn::start([]);
    let output = command(&stand_in, &["--delay", "0", "--seed", "77", "--verify"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("corpus      seed 77, plain, 4 services, from "), "{text}");
    assert!(text.ends_with("verify      all 100 acked records are stored, each once\nok\n"), "{text}");
}

#[test]
fn a_corpus_file_depends_on_seed_profile_and_start_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("corpus.ndjson");
    let fixed = ["--total", "500", "--seed", "3", "--start-timestamp", "1700000000000", "--profile", "rich"];
    let status =
        loadgen(&fixed).args(["--batch", "7", "--connections", "5", "--out"]).arg(&file).status().unwrap();
    assert!(status.success());
    let written = std::fs::read(&file).unwrap();
    assert_eq!(loadgen(&fixed).args(["--out", "-"]).output().unwrap().stdout, written);
    assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 500);
}
