//! Where the programs and the component are, and that they are there.
//!
//! Invariant: however many tests run at once, a test run builds once. `cargo xtask test` builds before it starts the
//! tests and says where in `EDGELOG_BIN_DIR` and `EDGELOG_COMPONENT`; without these the first test builds, and the
//! others wait for it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where the programs are.
const BIN_DIR_VARIABLE: &str = "EDGELOG_BIN_DIR";
/// Where the component is.
const COMPONENT_VARIABLE: &str = "EDGELOG_COMPONENT";
/// nextest runs each test in a process of its own, and gives all of one run the same id.
const RUN_ID_VARIABLE: &str = "NEXTEST_RUN_ID";

/// The programs' paths.
#[derive(Debug)]
pub struct Programs {
    /// The storage daemon.
    pub storage: PathBuf,
    /// The host of the component.
    pub ingest_host: PathBuf,
    /// The load generator.
    pub loadgen: PathBuf,
    /// The compiled component.
    pub component: PathBuf,
    /// The Spin manifest.
    pub manifest: PathBuf,
    /// Where compiled code is kept between starts.
    pub code_cache: PathBuf,
}

/// The programs, built if need be.
///
/// # Panics
/// When they cannot be built; the message says what to do.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(find_or_build)
}

/// The checkout's directory.
pub fn workspace_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn find_or_build() -> Programs {
    // A test runs in its package's directory; who calls it stands in the checkout's.
    let given = |name: &str| std::env::var_os(name).map(|path| workspace_dir().join(path));
    let (bin_dir, component) = match (given(BIN_DIR_VARIABLE), given(COMPONENT_VARIABLE)) {
        (Some(bin_dir), Some(component)) => (bin_dir, component),
        (bin_dir, component) => {
            let built = build_once(bin_dir.is_none(), component.is_none());
            (bin_dir.unwrap_or(built.0), component.unwrap_or(built.1))
        }
    };
    let program = |name: &str| {
        let path = bin_dir.join(name);
        assert!(
            path.is_file(),
            "{} is not there: set {BIN_DIR_VARIABLE} rightly or not at all",
            path.display()
        );
        path
    };
    assert!(component.is_file(), "{} is not there: see {COMPONENT_VARIABLE}", component.display());
    let programs = Programs {
        storage: program("storage"),
        ingest_host: program("ingest-host"),
        loadgen: program("loadgen"),
        component,
        manifest: workspace_dir().join("spin.toml"),
        code_cache: tests_dir().join("code-cache"),
    };
    compile_once(&programs);
    programs
}

/// Has the component's code compiled and cached, unless that was done: it takes seconds of both cores, and two tests
/// that begin together would both do it.
fn compile_once(programs: &Programs) {
    let identity = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        format!("{} {} {:?}\n", path.display(), metadata.len(), metadata.modified().unwrap())
    };
    let wanted = identity(&programs.component) + &identity(&programs.ingest_host);
    let mut stamp = Stamp::lock("compiled");
    if stamp.text() == wanted {
        return;
    }
    let mut host = Command::new(&programs.ingest_host)
        .args(["--listen", "127.0.0.1:0", "--key-value", ":memory:", "--log", "warn"])
        .arg("--from")
        .arg(&programs.manifest)
        .arg("--component")
        .arg(&programs.component)
        .arg("--cache-dir")
        .arg(&programs.code_cache)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It says where it listens once the code is there; or ends, and says why on the test's standard error.
    let said = BufReader::new(host.stdout.take().unwrap()).lines().next();
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(said.is_some(), "the host does not start: its reason stands above");
    stamp.set(&wanted);
}

/// Builds what is asked for, unless another process of this test run has; returns the programs' directory and the
/// component's path.
fn build_once(programs: bool, component: bool) -> (PathBuf, PathBuf) {
    let profile_dir = profile_dir();
    let component_dir = workspace_dir().join("target/component");
    let component_path = component_dir.join("wasm32-wasip2/release-wasm/ingest_wasm.wasm");
    let mut stamp = Stamp::lock("built");
    let run_id = std::env::var(RUN_ID_VARIABLE).unwrap_or_default();
    let failed = format!("{run_id} failed");
    assert!(stamp.text() != failed || run_id.is_empty(), "the build failed: the first test shows why");
    if run_id.is_empty() || stamp.text() != run_id {
        // Until it is known better: the other tests of this run need not all try for themselves.
        stamp.set(&failed);
        if programs {
            build_programs(&profile_dir);
        }
        if component {
            build_component(&component_dir);
        }
        stamp.set(&run_id);
    }
    (profile_dir, component_path)
}

/// What the tests keep between runs.
fn tests_dir() -> PathBuf {
    workspace_dir().join("target/tests")
}

/// A file that tells what was done, and is locked as long as one of these is there.
struct Stamp(File);

impl Stamp {
    fn lock(name: &str) -> Self {
        fs::create_dir_all(tests_dir()).unwrap();
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(tests_dir().join(name)).unwrap();
        file.lock().unwrap();
        Self(file)
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        self.0.rewind().unwrap();
        self.0.read_to_string(&mut text).unwrap();
        text
    }

    fn set(&mut self, text: &str) {
        self.0.set_len(0).unwrap();
        self.0.rewind().unwrap();
        self.0.write_all(text.as_bytes()).unwrap();
    }
}

/// `target/debug` of `target/debug/deps/scenarios-0123456789abcdef`.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).expect("a test lies two directories deep").to_owned()
}

fn build_programs(profile_dir: &Path) {
    let target_dir = profile_dir.parent().unwrap();
    let mut command = cargo_build();
    command.args(["--bins", "-p", "storage", "-p", "ingest-host", "-p", "loadgen"]);
    command.arg("--target-dir").arg(target_dir);
    match profile_dir.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => {}
        profile => {
            command.args(["--profile", profile]);
        }
    }
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "the programs do not compile: cargo's reasons stand above");
}

fn build_component(target_dir: &Path) {
    let mut command = cargo_build();
    command.args(["-p", "ingest-wasm", "--profile", "release-wasm", "--target", "wasm32-wasip2"]);
    command.arg("--target-dir").arg(target_dir);
    let status = command.status().expect("cargo can be run");
    assert!(
        status.success(),
        "the component does not compile: cargo's reasons stand above. If the target is missing: cargo xtask setup-wasm"
    );
}

fn cargo_build() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("build").current_dir(workspace_dir()).stdin(Stdio::null());
    command
}
