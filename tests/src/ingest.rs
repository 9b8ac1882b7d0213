//! An ingest: an `ingest-host` process that serves the component.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::client::Client;
use crate::process::{Log, Port, Process};
use crate::programs::programs;
use crate::wait::eventually;

/// How long an ingest may take from its announcement until it answers: it makes an instance.
const READY_MAX: Duration = Duration::from_secs(20);

/// An ingest, running or not. It comes back at the same address.
#[derive(Debug)]
pub struct Ingest {
    name: String,
    variables: Vec<(String, String)>,
    key_value: PathBuf,
    flags: Vec<String>,
    port: Port,
    client: Client,
    // Ends before its log is shown.
    process: Option<Process>,
    log: Log,
}

impl Ingest {
    /// An ingest with its key-value store and its log below `dir`, not started yet. Its node id is its name.
    pub fn new(dir: &Path, name: &str, variables: Vec<(String, String)>, flags: &[String]) -> Self {
        let mut all = vec![("node_id".to_owned(), name.to_owned())];
        all.extend(variables);
        Self {
            name: name.to_owned(),
            variables: all,
            key_value: dir.join(format!("{name}-key-value.db")),
            flags: flags.to_vec(),
            port: Port::free(),
            client: Client::new(),
            process: None,
            log: Log::new(dir.join(name).with_extension("log")),
        }
    }

    /// Its name, which is its node id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A URL of this ingest: `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.port.address()
    }

    /// The process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// What it printed so far, over all its lives.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Starts the ingest and waits until it is healthy.
    ///
    /// # Panics
    /// When it runs already or does not become healthy.
    pub async fn start(&mut self) {
        self.start_serving().await;
        let url = self.url("/healthz");
        let is_healthy = async || self.client.get(&url).await.ok().filter(|answer| answer.status == 200);
        eventually(&format!("{} is healthy", self.name), READY_MAX, is_healthy).await;
    }

    /// Starts the ingest and waits until it listens, whether its configuration is right or not.
    ///
    /// # Panics
    /// When it runs already or does not start.
    pub async fn start_serving(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let programs = programs();
        let mut arguments = vec![
            "--from".to_owned(),
            programs.manifest.display().to_string(),
            "--component".to_owned(),
            programs.component.display().to_string(),
            "--listen".to_owned(),
            self.port.address().to_string(),
            "--key-value".to_owned(),
            self.key_value.display().to_string(),
            "--cache-dir".to_owned(),
            programs.code_cache.display().to_string(),
        ];
        for (name, value) in &self.variables {
            arguments.extend(["--variable".to_owned(), format!("{name}={value}")]);
        }
        arguments.extend_from_slice(&self.flags);
        let (process, address) = Process::start(&programs.ingest_host, &arguments, &self.log).await;
        assert_eq!(address, self.port.address(), "{} listens where it was told to", self.name);
        self.process = Some(process);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name)).kill();
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name)).stop().await
    }
}
