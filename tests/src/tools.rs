//! What the operator brings: nginx or Envoy before the ingests, Prometheus beside everything.
//!
//! They run by the files in `deploy/`, with addresses and times of the test's in place of their own. Where a program is
//! missing, a developer's test is skipped and says how to install it; on a build machine (`CI` is set) it fails.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::client::{Client, answer};
use crate::process::{Log, Port};
use crate::programs::workspace_dir;
use crate::wait::eventually;

/// How long a program may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);
/// Where Debian keeps servers, which is not on everybody's path.
const SYSTEM_DIRS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// The `deploy` directory.
pub fn deploy_dir() -> PathBuf {
    workspace_dir().join("deploy")
}

/// Where a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = workspace_dir().join("target/deploy-tools/bin");
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.iter().map(PathBuf::from)).chain([own]);
    dirs.map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Whether all of these programs are there; says what to do where one is missing.
///
/// # Panics
/// When one is missing on a build machine, where no test may be skipped.
pub fn are_there(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let advice = format!("{missing:?} is not installed: `cargo xtask setup-deploy` does that");
    let on_build_machine = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!on_build_machine, "{advice}");
    eprintln!("SKIPPED: {advice}");
    false
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be run.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(find(program).unwrap()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A program that serves until it is dropped.
#[derive(Debug)]
struct Server {
    child: Child,
    // Shown after the end.
    _log: Log,
}

impl Server {
    fn start(program: &str, arguments: &[&str], log: PathBuf) -> Self {
        let log = Log::new(log);
        let mut command = Command::new(find(program).unwrap());
        command.args(arguments).stdin(Stdio::null()).stdout(log.append()).stderr(log.append());
        Self { child: command.spawn().unwrap(), _log: log }
    }

    async fn answers(&mut self, what: &str, url: &str) {
        let client = Client::new();
        eventually(&format!("{what} answers"), START_MAX, async || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{what} ended: {ended:?}");
            client.get(url).await.ok().filter(|answer| answer.status < 500)
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// nginx before ingests, by `deploy/nginx/edgelog.conf`.
#[derive(Debug)]
pub struct Nginx {
    port: Port,
    _server: Server,
}

impl Nginx {
    /// Starts it before the ingests at these addresses.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(dir: &Path, ingests: &[SocketAddr]) -> Self {
        let port = Port::free();
        let conf = Self::configure(dir, port.address(), ingests);
        let mut server = Server::start("nginx", &["-e", "stderr", "-c", &conf], dir.join("nginx.log"));
        server.answers("nginx", &format!("http://{}/healthz", port.address())).await;
        Self { port, _server: server }
    }

    /// Writes its configuration; returns the file.
    ///
    /// # Panics
    /// When `deploy/nginx/edgelog.conf` is no longer as expected.
    pub fn configure(dir: &Path, listen: SocketAddr, ingests: &[SocketAddr]) -> String {
        let template = fs::read_to_string(deploy_dir().join("nginx/edgelog.conf")).unwrap();
        let is_server = |line: &&str| line.trim().starts_with("server ingest-");
        let settings = template.lines().find(is_server).and_then(|line| line.split_once(":8080")).unwrap().1;
        let servers: Vec<_> = ingests.iter().map(|ingest| format!("server {ingest}{settings}")).collect();
        let mut is_first = true;
        let lines = template.lines().filter_map(|line| match is_server(&line) {
            true if std::mem::take(&mut is_first) => Some(servers.join("\n")),
            true => None,
            false => Some(line.replace("listen 8080;", &format!("listen {listen};"))),
        });
        let conf = lines.collect::<Vec<_>>().join("\n");
        assert!(conf.contains(&format!("listen {listen};")));
        let temp = dir.display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {temp}/nginx-{what};\n"))
            .concat();
        let whole = format!(
            "daemon off; master_process off; pid {temp}/nginx.pid;\nevents {{ worker_connections 1024; }}\n\
             http {{\naccess_log off;\n{paths}{conf}\n}}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, whole).unwrap();
        file.display().to_string()
    }

    /// A URL of it: `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }
}

/// Envoy before ingests, by `deploy/envoy/envoy.yaml`.
#[derive(Debug)]
pub struct Envoy {
    port: Port,
    _server: Server,
}

impl Envoy {
    /// Starts it before the two ingests at these addresses.
    ///
    /// # Panics
    /// When it does not start, or `deploy/envoy/envoy.yaml` is no longer as expected.
    pub async fn start(dir: &Path, ingests: [SocketAddr; 2]) -> Self {
        let port = Port::free();
        let mut conf = fs::read_to_string(deploy_dir().join("envoy/envoy.yaml")).unwrap();
        let listener = "address: 0.0.0.0, port_value: 8080".to_owned();
        let own = |address: SocketAddr| format!("address: {}, port_value: {}", address.ip(), address.port());
        let mut replace = |from: String, to: String| {
            assert_eq!(conf.matches(&from).count(), 1, "{from}");
            conf = conf.replace(&from, &to);
        };
        replace(listener, own(port.address()));
        for (number, ingest) in (1..).zip(ingests) {
            replace(format!("address: ingest-{number}, port_value: 8080"), own(ingest));
        }
        let file = dir.join("envoy.yaml");
        fs::write(&file, conf).unwrap();
        let file = file.display().to_string();
        let arguments = ["-c", &file, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warn"];
        let mut server = Server::start("envoy", &arguments, dir.join("envoy.log"));
        server.answers("Envoy", &format!("http://{}/healthz", port.address())).await;
        Self { port, _server: server }
    }

    /// A URL of it: `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }
}

/// Prometheus, by `deploy/prometheus`, every second.
#[derive(Debug)]
pub struct Prometheus {
    port: Port,
    client: Client,
    _server: Server,
}

impl Prometheus {
    /// Starts it, to scrape these storage nodes and ingests. Alerts wait for a second where they wait for minutes.
    ///
    /// # Panics
    /// When it does not start, or `deploy/prometheus` is no longer as expected.
    pub async fn start(dir: &Path, storage: &[SocketAddr], ingests: &[SocketAddr]) -> Self {
        let rules = fs::read_to_string(deploy_dir().join("prometheus/alerts.yml")).unwrap();
        let hurried = rules.lines().map(|line| match line.split_once(" for: ") {
            Some((indent, _)) => format!("{indent} for: 1s\n"),
            None => format!("{line}\n"),
        });
        fs::write(dir.join("alerts.yml"), hurried.collect::<String>()).unwrap();
        let list = |addresses: &[SocketAddr]| {
            addresses.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ")
        };
        let config = fs::read_to_string(deploy_dir().join("prometheus/prometheus.yml")).unwrap();
        let config = config
            .replace("_interval: 15s", "_interval: 1s")
            .replace("\"storage-1:8081\", \"storage-2:8081\", \"storage-3:8081\"", &list(storage))
            .replace("\"ingest-1:8080\", \"ingest-2:8080\"", &list(ingests));
        assert!(!config.contains("15s") && !config.contains("storage-1:"), "{config}");
        let file = dir.join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let port = Port::free();
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.join("prometheus-data").display()),
            format!("--web.listen-address={}", port.address()),
            "--log.level=warn".to_owned(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut server = Server::start("prometheus", &arguments, dir.join("prometheus.log"));
        server.answers("Prometheus", &format!("http://{}/-/ready", port.address())).await;
        Self { port, client: Client::new(), _server: server }
    }

    async fn api(&self, path: &str, form: String) -> Value {
        let url = format!("http://{}/api/v1/{path}", self.port.address());
        let request = if form.is_empty() {
            self.client.request("GET", &url)
        } else {
            self.client.post(&url).header("content-type", "application/x-www-form-urlencoded").body(form)
        };
        let answer = answer(request).await.unwrap();
        let json: Value = answer.json();
        assert_eq!(json["status"], "success", "{path}: {json}");
        json["data"].clone()
    }

    /// The samples that a query finds now.
    ///
    /// # Panics
    /// When Prometheus does not understand it.
    pub async fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.api("query", format!("query={encoded}")).await;
        data["result"].as_array().unwrap().clone()
    }

    /// The alerts that fire now.
    pub async fn firing(&self) -> Vec<Value> {
        let data = self.api("alerts", String::new()).await;
        let alerts = data["alerts"].as_array().unwrap().clone();
        alerts.into_iter().filter(|alert| alert["state"] == "firing").collect()
    }

    /// The rules with their health.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.api("rules", String::new()).await;
        let groups = data["groups"].as_array().unwrap().clone();
        groups.into_iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}
