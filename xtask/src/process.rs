//! The processes that xtask starts: their logs, their end, and that none outlives it.
//!
//! Invariant: a child ends when xtask does, however it ends. Each child is the head of a process group of its own, so
//! that Ctrl-C in the terminal reaches xtask alone, which then stops its children in order. It must not know what the
//! programs are.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::workspace::shown;

/// How often something is looked at that cannot be waited for.
const POLL: Duration = Duration::from_millis(5);
/// Lines of a log that are shown when its process has died.
const TAIL_LINES: usize = 25;
/// How much of a log's end is read for them.
const TAIL_BYTES: usize = 16 << 10;

/// What the hidden task `run-child` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct ChildArguments {
    /// The process to end with.
    parent: u32,
    /// The program, and what it is told.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Turns this process into the program that it is told, one which gets SIGTERM when its parent is gone.
///
/// `Command` could ask for that signal only through `pre_exec`, which is unsafe; a process of its own in between asks
/// for itself, and keeps it over `exec`.
pub(crate) fn become_child(arguments: &ChildArguments) -> anyhow::Result<()> {
    let [program, rest @ ..] = arguments.command.as_slice() else {
        bail!("no program to run");
    };
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    // The parent may have died before that, and would never be reported any more.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent != i32::try_from(arguments.parent).ok() {
        bail!("the process that wanted {} is gone", program.display());
    }
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("could not run {}", program.display()))
}

/// A child. When it is dropped, it is killed.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program`; everything it prints goes to `LOG_DIR/NAME.log`, which is begun anew.
    ///
    /// It has to be called from the main thread: a child is ended with the *thread* that started it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[OsString],
        log_dir: &Path,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(log_dir).with_context(|| format!("could not make {}", log_dir.display()))?;
        let log = log_dir.join(name).with_extension("log");
        let file = File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
        let child = Command::new(std::env::current_exe().context("where is xtask?")?)
            .arg("run-child")
            .arg(std::process::id().to_string())
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log, ended: None })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has printed `listening on http://ADDRESS`.
    ///
    /// # Errors
    /// It has ended, or took too long.
    pub(crate) fn announced_address(&mut self, longest: Duration) -> anyhow::Result<SocketAddr> {
        let deadline = Instant::now() + longest;
        loop {
            // The log is short yet: this is how it begins.
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(address) = text.lines().find_map(announced_in) {
                return address.with_context(|| format!("what {} announced is no address", self.name));
            }
            self.check_runs()?;
            if Instant::now() > deadline {
                bail!("{} has not begun to listen after {longest:?}; {}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Fails if it has ended, with the end of its log.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn check_runs(&mut self) -> anyhow::Result<()> {
        match self.has_ended()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status}); {}", self.name, self.log_tail()),
        }
    }

    /// Asks it to stop, and kills it if it has not after `grace`, or as soon as `hurry` says so.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn stop(
        &mut self,
        grace: Duration,
        hurry: &mut dyn FnMut() -> bool,
    ) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + grace;
        self.signal(Signal::TERM)?;
        loop {
            if let Some(status) = self.has_ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline || hurry() {
                return self.kill();
            }
            std::thread::sleep(POLL);
        }
    }

    /// Kills it, as `kill -9` does.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.reap()
    }

    /// The end of its log, with a heading.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let end = text.get(text.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
        let end = String::from_utf8_lossy(end);
        let lines: Vec<&str> = end.lines().collect();
        let last = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
        if last.is_empty() {
            return format!("its log {} is empty", shown(&self.log));
        }
        format!("its log {} ends:\n  {}", shown(&self.log), last.join("\n  "))
    }

    fn has_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_some() {
            return Ok(self.ended);
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if rustix::process::waitid(WaitId::Pid(self.pid()), options)?.is_none() {
            return Ok(None);
        }
        // It has ended but keeps its id until it is reaped: what it started itself can still be reached through it.
        self.signal(Signal::KILL)?;
        self.reap().map(Some)
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// To it and what it started.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        match rustix::process::kill_process_group(self.pid(), signal) {
            // It is there as long as it has not been reaped; a group of zombies alone may say that it is not.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error was reported already, or nobody waits for one; the child ends with xtask at the latest.
        self.kill().ok();
    }
}

/// The address in a line `listening on http://ADDRESS`.
fn announced_in(line: &str) -> Option<Result<SocketAddr, std::net::AddrParseError>> {
    line.strip_prefix("listening on http://").map(|address| address.trim_end_matches('/').parse())
}

#[cfg(test)]
mod tests {
    use super::announced_in;

    #[test]
    fn the_address_is_what_follows_the_announcement() {
        assert_eq!(
            announced_in("listening on http://127.0.0.1:8081"),
            Some(Ok(([127, 0, 0, 1], 8081).into()))
        );
        assert_eq!(announced_in("INFO listening on http://127.0.0.1:8081"), None);
        assert!(announced_in("listening on http://nowhere").is_some_and(|address| address.is_err()));
    }
}
