//! What xtask starts its children through: `xtask run-child PARENT PROGRAM …`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

#[test]
fn a_child_ends_when_its_parent_is_killed() {
    // The shell stands in for xtask. Whoever still holds its standard output keeps the pipe open.
    let script = format!("{XTASK} run-child $$ sh -c 'echo started; exec sleep 600' & wait");
    let mut parent = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(parent.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    parent.kill().unwrap();
    parent.wait().unwrap();
    // The end of the pipe is the end of the child.
    assert_eq!(printed.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn a_child_does_not_start_when_its_parent_is_gone_already() {
    let output = Command::new(XTASK).args(["run-child", "1", "echo", "started"]).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(output.stdout, b"");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("the process that wanted echo is gone"), "{error}");
}

#[test]
fn a_child_gets_its_flags_and_its_status_is_that_of_the_program() {
    let parent = std::process::id().to_string();
    let status =
        Command::new(XTASK).args(["run-child", &parent, "sh", "-c", "exit 7", "--help"]).status().unwrap();
    assert_eq!(status.code(), Some(7));
}
