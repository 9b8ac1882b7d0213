//! `cargo xtask up`: the whole system on this machine, until Ctrl-C.
//!
//! Invariant: whatever ends it, the ingest stops before storage does, so that no request meets a closed node.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::spin::{self, Host, HostChoice};
use crate::cargo::{self, Profile, Programs};
use crate::process::Process;
use crate::signals::StopSignals;
use crate::workspace::{self, shown};
use crate::{cluster, probe};

/// How long a part may take to answer its health check: ingest-host compiles the component at its first start.
const START_MAX: Duration = Duration::from_secs(120);
/// How long a part may take to stop: a little more than the parts' own time for requests under way.
const STOP_MAX: Duration = Duration::from_secs(12);
/// How long partitions that have copies may take to elect their first leaders.
const ELECTED_MAX: Duration = Duration::from_secs(15);
/// How often is looked whether all parts still run.
const WATCH: Duration = Duration::from_millis(100);

/// How to start the system.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArguments {
    /// What serves the ingest component [default: spin where 4.1 or later is on the PATH, else embedded]
    #[arg(long, value_enum)]
    host: Option<HostChoice>,
    /// Storage nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=cluster::NODES_MAX as i64))]
    nodes: u16,
    /// Copies of each partition
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    replicas: u16,
    /// Partitions: with one copy of each, dealt out to the nodes in equal runs
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    partitions: u16,
    /// Where the ingest listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The first storage node's port; the others take those after it
    #[arg(long, value_name = "PORT", default_value_t = 8081, value_parser = clap::value_parser!(u16).range(1..))]
    storage_port: u16,
    /// Where the nodes keep their data: DIR/node-1, DIR/node-2, …
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Delete these nodes' data first
    #[arg(long)]
    fresh: bool,
    /// Build with optimisations
    #[arg(long)]
    release: bool,
}

/// Builds and starts everything, and stops it when asked to.
///
/// # Errors
/// A port is taken, something does not compile, or a part died.
pub(crate) fn run(arguments: &UpArguments) -> anyhow::Result<()> {
    let plan = Plan::of(arguments)?;
    check_ports(&plan)?;
    let (host, remark) = spin::choose(arguments.host)?;
    if let Some(remark) = remark {
        eprintln!("Note: {remark}");
    }
    let component = cargo::build_component()?;
    let profile = if arguments.release { Profile::Release } else { Profile::Dev };
    let programs = match host {
        Host::Spin => Programs::build(&["storage"], profile)?,
        Host::Embedded => Programs::build(&["storage", "ingest-host"], profile)?,
    };
    if arguments.fresh {
        delete_data(&plan)?;
    }
    let mut signals = StopSignals::catch()?;
    let mut parts = Parts::default();
    let outcome = parts.start(&plan, host, &programs, &component, &mut signals).and_then(|()| {
        print_welcome(&plan, host, arguments);
        parts.watch(&mut signals)
    });
    eprintln!("Stopping.");
    parts.stop(&mut signals);
    outcome
}

/// What is started, and where.
struct Plan {
    listen: SocketAddr,
    nodes: Vec<Node>,
    variables: Vec<String>,
    replicas: u16,
}

/// A storage node.
struct Node {
    name: String,
    listen: SocketAddr,
    data: PathBuf,
    partitions: Vec<u16>,
}

impl Plan {
    fn of(arguments: &UpArguments) -> anyhow::Result<Self> {
        ensure!(arguments.listen.port() != 0, "--listen needs a port other than 0");
        let dealt = cluster::assign(arguments.partitions, arguments.nodes, arguments.replicas)?;
        let mut nodes = Vec::new();
        for (number, partitions) in (1..).zip(dealt) {
            let port = arguments.storage_port.checked_add(number - 1).filter(|port| *port < u16::MAX);
            let port = port.context("--storage-port leaves no room for the nodes' ports")?;
            nodes.push(Node {
                name: format!("storage-{number}"),
                listen: (Ipv4Addr::LOCALHOST, port).into(),
                data: arguments.data.join(format!("node-{number}")),
                partitions,
            });
        }
        let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.listen).collect();
        let listen = arguments.listen;
        if let Some(same) = addresses.iter().find(|address| collides(listen, **address)) {
            bail!(
                "--listen {listen} and a storage node both want port {}; give --storage-port another",
                same.port()
            );
        }
        Ok(Self {
            listen,
            variables: cluster::ingest_variables(&addresses, arguments.partitions)?,
            nodes,
            replicas: arguments.replicas,
        })
    }
}

fn collides(listen: SocketAddr, node: SocketAddr) -> bool {
    listen.port() == node.port() && (listen.ip() == node.ip() || listen.ip().is_unspecified())
}

/// Before anything is built, says which port is taken and how to choose another.
fn check_ports(plan: &Plan) -> anyhow::Result<()> {
    check_port(plan.listen, "the ingest", "--listen 127.0.0.1:9080")?;
    for node in &plan.nodes {
        check_port(node.listen, &node.name, "--storage-port 9081")?;
    }
    Ok(())
}

fn check_port(address: SocketAddr, who: &str, how: &str) -> anyhow::Result<()> {
    let Err(error) = TcpListener::bind(address) else { return Ok(()) };
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            bail!(
                "port {port} is taken, and {who} wants it. Stop what listens there, or choose another: `{how}`"
            )
        }
        io::ErrorKind::PermissionDenied => {
            bail!("{who} may not listen on port {port}: {error}. Choose one above 1023: `{how}`")
        }
        _ => bail!("{who} cannot listen on {address}: {error}. Choose another: `{how}`"),
    }
}

/// Deletes what the nodes would use, and nothing else.
fn delete_data(plan: &Plan) -> anyhow::Result<()> {
    for node in &plan.nodes {
        match std::fs::remove_dir_all(workspace::root().join(&node.data)) {
            Ok(()) => eprintln!("Deleted {}.", node.data.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("could not delete {}", node.data.display()));
            }
        }
    }
    Ok(())
}

/// What runs.
#[derive(Default)]
struct Parts {
    storage: Vec<Process>,
    ingest: Option<Process>,
}

impl Parts {
    /// Starts storage, then the ingest, and waits until each is healthy.
    fn start(
        &mut self,
        plan: &Plan,
        host: Host,
        programs: &Programs,
        component: &Path,
        signals: &mut StopSignals,
    ) -> anyhow::Result<()> {
        let log_dir = workspace::log_dir();
        let nodes: Vec<SocketAddr> = plan.nodes.iter().map(|node| node.listen).collect();
        for node in &plan.nodes {
            let data = workspace::root().join(&node.data);
            let arguments =
                cluster::storage_arguments(node.listen, &data, &node.partitions, &nodes, plan.replicas);
            self.storage.push(Process::start(&node.name, programs.path("storage")?, &arguments, &log_dir)?);
        }
        for (process, node) in self.storage.iter_mut().zip(&plan.nodes) {
            probe::wait_until_healthy(process, node.listen, "/healthz", START_MAX, &mut || signals.came())?;
        }
        let (program, arguments) = match host {
            Host::Spin => (PathBuf::from("spin"), spin_arguments(plan)),
            Host::Embedded => (programs.path("ingest-host")?.clone(), host_arguments(plan, component)),
        };
        let ingest = self.ingest.insert(Process::start("ingest", &program, &arguments, &log_dir)?);
        let address = probe::reachable(plan.listen);
        probe::wait_until_healthy(ingest, address, "/healthz", START_MAX, &mut || signals.came())?;
        // Partitions that have copies elect their leaders first; one that is alone is ready, or will not be.
        let deadline = Instant::now() + if plan.replicas > 1 { ELECTED_MAX } else { Duration::ZERO };
        for (process, node) in self.storage.iter_mut().zip(&plan.nodes) {
            warn_if_not_ready(process, node, deadline, signals)?;
        }
        Ok(())
    }

    /// Until it is to stop, or a part has ended.
    fn watch(&mut self, signals: &mut StopSignals) -> anyhow::Result<()> {
        while !signals.came() {
            for process in self.ingest.iter_mut().chain(&mut self.storage) {
                process.check_runs()?;
            }
            std::thread::sleep(WATCH);
        }
        Ok(())
    }

    fn stop(&mut self, signals: &mut StopSignals) {
        for process in self.ingest.iter_mut().chain(&mut self.storage) {
            // Ctrl-C once more: do not wait.
            if let Err(error) = process.stop(STOP_MAX, &mut || signals.came()) {
                eprintln!("{} could not be stopped: {error}", process.name());
            }
        }
    }
}

/// A node with damage serves what is whole; who starts it should know.
fn warn_if_not_ready(
    process: &mut Process,
    node: &Node,
    deadline: Instant,
    signals: &mut StopSignals,
) -> anyhow::Result<()> {
    loop {
        let why = match probe::get(node.listen, "/readyz") {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => why_not(&answer.body),
            Err(error) => error.to_string(),
        };
        process.check_runs()?;
        ensure!(!signals.came(), "stopped before {} was ready", node.name);
        if Instant::now() >= deadline {
            eprintln!("Note: {} is not ready: {why}", node.name);
            return Ok(());
        }
        std::thread::sleep(WATCH);
    }
}

/// The reason in a problem document (RFC 9457), or all of what is none.
fn why_not(body: &str) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    let why = detail.unwrap_or(body).trim();
    why.strip_prefix("the node is not ready: ").unwrap_or(why).to_owned()
}

fn spin_arguments(plan: &Plan) -> Vec<OsString> {
    let mut arguments = vec!["up".into()];
    arguments.extend(common_arguments(plan));
    arguments
}

fn host_arguments(plan: &Plan, component: &Path) -> Vec<OsString> {
    let mut arguments = common_arguments(plan);
    arguments.extend(["--component".into(), component.into()]);
    arguments
}

fn common_arguments(plan: &Plan) -> Vec<OsString> {
    let mut arguments = vec![
        "--from".into(),
        workspace::manifest().into(),
        "--listen".into(),
        plan.listen.to_string().into(),
    ];
    arguments.extend(plan.variables.iter().flat_map(|variable| ["--variable".into(), variable.into()]));
    arguments
}

fn print_welcome(plan: &Plan, host: Host, arguments: &UpArguments) {
    let ingest = probe::reachable(plan.listen);
    let served_by = match host {
        Host::Spin => "Spin",
        Host::Embedded => "ingest-host",
    };
    println!("\nedgelog is up.\n");
    println!("  ingest     http://{ingest}  (served by {served_by})");
    for node in &plan.nodes {
        let list: Vec<String> = node.partitions.iter().map(u16::to_string).collect();
        println!(
            "  {}  http://{}  (partitions {}; data in {})",
            node.name,
            node.listen,
            list.join(", "),
            node.data.display()
        );
    }
    if let Some(first) = plan.nodes.first().filter(|_| plan.replicas > 1) {
        println!(
            "  leaders    http://{}/v1/cluster  ({} copies of each partition)",
            first.listen, plan.replicas
        );
    }
    println!("  logs       {}/*.log\n", shown(&workspace::log_dir()));
    println!("Try:");
    for command in commands_to_try(plan, arguments) {
        println!("  {command}");
    }
    println!("\nCtrl-C stops all of it. The data stays; `cargo xtask up --fresh` starts anew.");
}

/// Three commands, whose flags fit this start.
fn commands_to_try(plan: &Plan, arguments: &UpArguments) -> [String; 3] {
    let port = plan.listen.port();
    let host = match plan.listen.ip() {
        IpAddr::V4(ip) if ip.is_loopback() || ip.is_unspecified() => format!("localhost:{port}"),
        _ => plan.listen.to_string(),
    };
    let url = if host == "localhost:8080" { String::new() } else { format!(" --url http://{host}/v1/logs") };
    [
        format!("cargo run -p loadgen -- --total 1000 --batch 50 --delay 20{url}"),
        format!("curl '{host}/v1/logs?service=auth_service&limit=5'"),
        format!("tail -qn 1 {}/node-*/partition-*/*.jsonl", arguments.data.display()),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: UpArguments,
    }

    fn parse(flags: &[&str]) -> UpArguments {
        Line::parse_from(["up"].iter().chain(flags)).up
    }

    #[test]
    fn by_default_two_nodes_hold_four_partitions_on_the_published_ports() {
        let plan = Plan::of(&parse(&[])).unwrap();
        assert_eq!(plan.listen, ([127, 0, 0, 1], 8080).into());
        let nodes: Vec<_> = plan
            .nodes
            .iter()
            .map(|n| (n.listen.port(), n.data.to_str().unwrap(), n.partitions.as_slice()))
            .collect();
        assert_eq!(nodes, [(8081, "data/node-1", &[0, 1][..]), (8082, "data/node-2", &[2, 3])]);
    }

    #[test]
    fn why_a_node_is_not_ready_is_told_in_words() {
        let problem = r#"{"status":503,"detail":"the node is not ready: partition 0 has no leader"}"#;
        assert_eq!(why_not(problem), "partition 0 has no leader");
        assert_eq!(why_not("busy\n"), "busy");
        assert_eq!(why_not("{}"), "{}");
    }

    #[test]
    fn with_copies_no_node_is_left_out() {
        let plan = Plan::of(&parse(&["--nodes", "3", "--replicas", "3"])).unwrap();
        assert!(plan.nodes.iter().all(|node| node.partitions == [0, 1, 2, 3]) && plan.nodes.len() == 3);
        assert!(Plan::of(&parse(&["--replicas", "3"])).is_err(), "of two nodes by default");
    }

    #[test]
    fn the_commands_to_try_fit_the_flags() {
        let up = parse(&[]);
        let default = commands_to_try(&Plan::of(&up).unwrap(), &up);
        assert_eq!(default[0], "cargo run -p loadgen -- --total 1000 --batch 50 --delay 20");
        assert_eq!(default[1], "curl 'localhost:8080/v1/logs?service=auth_service&limit=5'");
        let up = parse(&["--listen", "0.0.0.0:9000", "--data", "/tmp/d"]);
        let other = commands_to_try(&Plan::of(&up).unwrap(), &up);
        assert!(other[0].ends_with(" --url http://localhost:9000/v1/logs"));
        assert_eq!(other[2], "tail -qn 1 /tmp/d/node-*/partition-*/*.jsonl");
    }

    #[test]
    fn ports_that_cannot_be_are_refused_before_anything_is_built() {
        for flags in
            [&["--listen", "127.0.0.1:8082"][..], &["--listen", "0.0.0.0:8081"], &["--storage-port", "65535"]]
        {
            assert!(Plan::of(&parse(flags)).is_err(), "{flags:?}");
        }
        assert!(Plan::of(&parse(&["--listen", "127.0.0.2:8081"])).is_ok());
    }

    #[test]
    fn a_taken_port_is_named_with_who_wants_it() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = holder.local_addr().unwrap();
        let error = check_port(address, "storage-1", "--storage-port 9081").unwrap_err().to_string();
        assert!(
            error.contains(&format!("port {} is taken, and storage-1 wants it", address.port())),
            "{error}"
        );
        assert!(error.contains("--storage-port 9081"));
        drop(holder);
        check_port(address, "storage-1", "").unwrap();
    }
}
