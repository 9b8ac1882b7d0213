//! Runs a test in surroundings of its own: a small disk, or a network whose cables can be cut.
//!
//! The test's program is started once more under `unshare`, for that one test, and sees itself in there. Whatever is made
//! there ends with that process. Invariant: nothing outside is changed.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tells the program that it is inside, and where its directory is.
const INSIDE: &str = "EDGELOG_TEST_ISOLATED";
/// Where nodes listen: each has its own network, in which nobody else takes the port.
const NODE_PORT: u16 = 8081;
/// The network of the test itself and the cable of each node: documentation's own (RFC 5737).
const HUB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// Runs the test of this name in a process that alone sees the surroundings that `script` makes (with a directory as its
/// first argument); returns the directory there, and `None` here, where that process has passed.
///
/// # Panics
/// When the process fails, the surroundings cannot be had, or no test has this name.
pub fn run_inside(test: &str, namespaces: &[&str], script: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return Some(dir.into());
    }
    let program = std::env::current_exe().unwrap();
    assert_is_test(&program, test);
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(namespaces);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let script = format!("({script}) || exit 77; shift; exec \"$@\"");
    command.args(["sh", "-c", &script, "sh"]).arg(dir.path()).arg(program);
    command.args(["--exact", test, "--nocapture"]).env(INSIDE, dir.path());
    let status = command.status().expect("`unshare` of util-linux is needed");
    assert!(
        !matches!(status.code(), Some(1 | 77)),
        "the surroundings cannot be made here ({status}): run this as root, or where user namespaces are allowed"
    );
    assert!(status.success(), "{status}");
    None
}

/// A program that is asked for a test that it does not have runs none, and is content.
fn assert_is_test(program: &Path, test: &str) {
    let listed = Command::new(program).args(["--list", "--exact", test]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.lines().any(|line| line == format!("{test}: test")), "no test is named {test}: {listed}");
}

/// Runs the test of this name where `dir` is a disk of so many MiB.
///
/// # Panics
/// As [`run_inside`].
pub fn on_small_disk(test: &str, mebibytes: u32) -> Option<PathBuf> {
    run_inside(test, &["--mount"], &format!("mount -t tmpfs -o size={mebibytes}m tmpfs \"$1\""))
}

/// Takes what room a disk has, to the last byte, with a file.
///
/// # Panics
/// When the file cannot be made.
pub fn fill_up(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece in [1 << 20, 4096, 1] {
        while file.write(&vec![0; piece]).is_ok_and(|written| written > 0) {}
    }
}

/// Runs the test of this name in a network of its own; there, it has cables to so many nodes.
///
/// # Panics
/// As [`run_inside`].
pub fn in_own_network(test: &str, nodes: u8) -> Option<Network> {
    let script = "mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up";
    run_inside(test, &["--net", "--mount"], script)?;
    Some(Network::new(nodes))
}

/// A network of nodes, each with a cable to the test.
#[derive(Debug)]
pub struct Network {
    nodes: u8,
}

/// A node's end of its cable.
#[derive(Clone, Debug)]
pub struct Cable {
    /// The name of the network that the node sees.
    pub namespace: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Network {
    fn new(nodes: u8) -> Self {
        ip("link add hub type bridge");
        ip(&format!("addr add {HUB}/24 dev hub"));
        ip("link set hub up");
        let network = Self { nodes };
        for cable in network.cables() {
            let Cable { namespace, address } = cable;
            ip(&format!("netns add {namespace}"));
            ip(&format!("link add to-{namespace} type veth peer name eth0 netns {namespace}"));
            ip(&format!("link set to-{namespace} master hub up"));
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", address.ip()));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        network
    }

    /// The nodes' ends, in order.
    pub fn cables(&self) -> Vec<Cable> {
        let cable = |place: u8| Cable {
            namespace: format!("node-{}", place + 1),
            address: (Ipv4Addr::new(192, 0, 2, place + 1), NODE_PORT).into(),
        };
        (0..self.nodes).map(cable).collect()
    }

    /// From now on nothing that one node sends arrives at the other; what the other sends does.
    pub fn cut(&self, from: usize, to: usize) {
        let (from, to) = (&self.cables()[from], &self.cables()[to]);
        // Its packets go to a card that nobody has.
        ip(&format!(
            "-n {} neigh replace {} lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
            from.namespace,
            to.address.ip()
        ));
    }

    /// Takes a [`Self::cut`] back.
    pub fn heal(&self, from: usize, to: usize) {
        let (from, to) = (&self.cables()[from], &self.cables()[to]);
        ip(&format!("-n {} neigh del {} dev eth0", from.namespace, to.address.ip()));
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().expect("`ip` of iproute2 is needed");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A program and its arguments, started in a node's network.
pub fn in_namespace(namespace: &str, program: &Path, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
    // It becomes the program: signals meet that.
    let words = ["netns", "exec", namespace].map(str::to_owned);
    let program = program.display().to_string();
    ("ip".into(), words.into_iter().chain([program]).chain(arguments).collect())
}
