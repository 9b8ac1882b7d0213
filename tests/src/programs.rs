//! Where the programs and the component are, and that they are there.
//!
//! Invariant: however many tests run at once, a test run builds once. `cargo xtask test` builds before it starts the
//! tests and says where in `EDGELOG_BIN_DIR` and `EDGELOG_COMPONENT`; without these the first test builds, and the
//! others wait for it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
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
    Programs {
        storage: program("storage"),
        ingest_host: program("ingest-host"),
        loadgen: program("loadgen"),
        component,
        manifest: workspace_dir().join("spin.toml"),
        code_cache: workspace_dir().join("target/tests/code-cache"),
    }
}

/// Builds what is asked for, unless another process of this test run has; returns the programs' directory and the
/// component's path.
fn build_once(programs: bool, component: bool) -> (PathBuf, PathBuf) {
    let profile_dir = profile_dir();
    let component_dir = workspace_dir().join("target/component");
    let component_path = component_dir.join("wasm32-wasip2/release-wasm/ingest_wasm.wasm");
    let mut stamp = lock_stamp();
    let run_id = std::env::var(RUN_ID_VARIABLE).ok();
    let mut built_by = String::new();
    stamp.read_to_string(&mut built_by).unwrap();
    if run_id.as_ref() != Some(&built_by) || built_by.is_empty() {
        if programs {
            build_programs(&profile_dir);
        }
        if component {
            build_component(&component_dir);
        }
        stamp.set_len(0).unwrap();
        stamp.rewind().unwrap();
        stamp.write_all(run_id.unwrap_or_default().as_bytes()).unwrap();
    }
    // The lock goes with the file.
    (profile_dir, component_path)
}

/// Opens the file that tells which test run built last, and holds its lock.
fn lock_stamp() -> File {
    let dir = workspace_dir().join("target/tests");
    fs::create_dir_all(&dir).unwrap();
    let stamp = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("built"))
        .unwrap();
    stamp.lock().unwrap();
    stamp
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
