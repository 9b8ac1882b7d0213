//! One process of edgelog: its start, the address that it prints, signals, its log and its end.
//!
//! Invariant: a process ends with its [`Process`], and its log is shown when the test fails. It must not know which
//! program it runs.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::net::TcpSocket;

use crate::wait::eventually;

/// How long a process may take to say where it listens. The first host to start compiles the component.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a process may take to end after SIGTERM: its own grace, and a margin for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Bytes of a log's end that are shown.
const LOG_SHOWN_BYTES_MAX: usize = 16 << 10;

/// A port that is this test's alone, whether something listens on it or not.
///
/// A socket that is bound and never listens holds it: the system gives the port to no other process, neither to
/// listen on nor to connect from, and a program that binds it by name (with `SO_REUSEADDR`, as servers do) still
/// may. So a node can come back at its address, and a dead one refuses connections.
#[derive(Debug)]
pub struct Port {
    _socket: TcpSocket,
    address: SocketAddr,
}

impl Port {
    /// A free port.
    pub fn free() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        Self { _socket: socket, address }
    }

    /// The port with its host.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What a process and those that follow it at its place print.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// A log in this file.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What was printed so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    pub(crate) fn append(&self) -> File {
        OpenOptions::new().create(true).append(true).open(&self.path).unwrap()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let text = self.text();
        if std::thread::panicking() {
            let mut start = text.len().saturating_sub(LOG_SHOWN_BYTES_MAX);
            while !text.is_char_boundary(start) {
                start += 1;
            }
            eprintln!(
                "--- {} (the last {} bytes)\n{}",
                self.path.display(),
                text.len() - start,
                &text[start..]
            );
        } else {
            // Whatever the scenario did to it: nothing from network or disk may make a process panic.
            assert!(!text.contains("panicked at"), "a panic in {}:\n{text}", self.path.display());
        }
    }
}

/// A process that runs.
#[derive(Debug)]
pub struct Process {
    child: Child,
    addresses: mpsc::Receiver<SocketAddr>,
}

impl Process {
    /// Starts the program with its log in `log`, and waits until it says where it listens.
    ///
    /// # Panics
    /// When it ends or stays silent instead.
    pub async fn start(program: &Path, arguments: &[String], log: &Log) -> (Self, SocketAddr) {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.append())
            // What an operator set for edgelog in this shell is not for the tests.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| !is_setting(&name.to_string_lossy())))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let addresses = listen_to(child.stdout.take().unwrap());
        let mut process = Self { child, addresses };
        let what = format!("{} says where it listens", program.display());
        let address = eventually(&what, START_MAX, async || {
            let ended = process.child.try_wait().unwrap();
            let address = process.addresses.try_recv().ok();
            assert!(address.is_some() || ended.is_none(), "{what}: it ended: {ended:?}");
            address
        })
        .await;
        (process, address)
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops its threads, and waits until none of them runs any more: a signal alone is only on its way to them.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::Pid(Pid::from_child(&self.child)), stopped).unwrap();
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it as `kill -9` does, and waits for that.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it with SIGTERM, and waits for that.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        eventually("a process ends after SIGTERM", STOP_MAX, async || self.child.try_wait().unwrap()).await
    }

    /// The most memory that it has had, in bytes.
    pub fn memory_bytes_max(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak is in /proc");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kibibytes << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn is_setting(name: &str) -> bool {
    ["EDGELOG_STORAGE_", "EDGELOG_INGEST_", "SPIN_VARIABLE_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Reads all that a process prints, so that it never waits for a reader, and picks the addresses from it.
fn listen_to(stdout: ChildStdout) -> mpsc::Receiver<SocketAddr> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            let Some(address) = line.strip_prefix("listening on http://") else { continue };
            // Nobody may be waiting any more.
            sender.try_send(address.trim_end_matches('/').parse().unwrap()).ok();
        }
    });
    receiver
}
