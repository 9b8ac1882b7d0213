//! A storage node: a `storage` process, its data directory, and what can happen to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::client::Client;
use crate::isolated::{Cable, in_namespace};
use crate::process::{Log, Port, Process};
use crate::programs::programs;
use crate::wait::eventually;

/// How long a node may take from its announcement until it is ready: a recovery of what a test has written.
const READY_MAX: Duration = Duration::from_secs(20);

/// Where a node listens.
#[derive(Debug)]
enum Place {
    /// On this machine's loopback.
    Here(Port),
    /// In a network of its own.
    There(Cable),
}

/// A storage node, running or not. It comes back at the same address, with the same data.
#[derive(Debug)]
pub struct Node {
    name: String,
    partitions: Vec<u16>,
    data_dir: PathBuf,
    flags: Vec<String>,
    /// What runs instead of the program that is tested.
    other_program: Option<PathBuf>,
    place: Place,
    client: Client,
    // Ends before its log is shown.
    process: Option<Process>,
    log: Log,
}

impl Node {
    /// A node with its data and its log below `dir`, not started yet.
    pub fn new(dir: &Path, name: &str, partitions: Vec<u16>, flags: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            partitions,
            data_dir: dir.join(name),
            flags: flags.to_vec(),
            other_program: None,
            place: Place::Here(Port::free()),
            client: Client::new(),
            process: None,
            log: Log::new(dir.join(name).with_extension("log")),
        }
    }

    /// The node has its data, and not its log, below this directory.
    #[must_use]
    pub fn with_data_in(mut self, dir: &Path) -> Self {
        self.data_dir = dir.join(&self.name);
        self
    }

    /// The node runs this program instead of the one that is tested, until it is upgraded.
    #[must_use]
    pub fn with_program(mut self, program: &Path) -> Self {
        self.other_program = Some(program.to_owned());
        self
    }

    /// From the next start on the node runs the program that is tested.
    pub fn upgrade(&mut self) {
        self.other_program = None;
    }

    /// The node is started at the end of this cable.
    #[must_use]
    pub fn at(mut self, cable: Cable) -> Self {
        self.place = Place::There(cable);
        self
    }

    /// The partitions it holds, in order.
    pub fn partitions(&self) -> &[u16] {
        &self.partitions
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A URL of this node: `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match &self.place {
            Place::Here(port) => port.address(),
            Place::There(cable) => cable.address,
        }
    }

    /// One more flag from the next start on.
    pub fn add_flag(&mut self, name: &str, value: &str) {
        self.flags.extend([name.to_owned(), value.to_owned()]);
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The directory of one partition.
    pub fn partition_dir(&self, partition: u16) -> PathBuf {
        self.data_dir.join(format!("partition-{partition}"))
    }

    /// The process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Whether it was started and not ended.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// What it printed so far, over all its lives.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Starts the node and waits until it is ready.
    ///
    /// # Panics
    /// When it runs already or does not become ready.
    pub async fn start(&mut self) {
        self.start_serving().await;
        self.ready().await;
    }

    /// Starts the node and waits until it listens, whether it is ready or not.
    ///
    /// # Panics
    /// When it runs already or does not start.
    pub async fn start_serving(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let partitions: Vec<String> = self.partitions.iter().map(u16::to_string).collect();
        let mut arguments = vec![
            "--listen".to_owned(),
            self.address().to_string(),
            "--data".to_owned(),
            self.data_dir.display().to_string(),
            "--partitions".to_owned(),
            partitions.join(","),
        ];
        arguments.extend_from_slice(&self.flags);
        let storage = self.other_program.as_ref().unwrap_or(&programs().storage);
        let (program, arguments) = match &self.place {
            Place::Here(_) => (storage.clone(), arguments),
            Place::There(cable) => in_namespace(&cable.namespace, storage, arguments),
        };
        let (process, address) = Process::start(&program, &arguments, &self.log).await;
        assert_eq!(address, self.address(), "{} listens where it was told to", self.name);
        self.process = Some(process);
    }

    /// Waits until the node is ready.
    ///
    /// # Panics
    /// When it does not become so.
    pub async fn ready(&self) {
        let url = self.url("/readyz");
        let what = format!("{} is ready", self.name);
        let is_ready = async || self.client.get(&url).await.ok().filter(|answer| answer.status == 200);
        eventually(&what, READY_MAX, is_ready).await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name)).kill();
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name)).stop().await
    }

    /// Stops its threads without ending it: connections are taken by the system and answered by nobody.
    pub fn pause(&self) {
        self.process().pause();
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.process().resume();
    }
}
