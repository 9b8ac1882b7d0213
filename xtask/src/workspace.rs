//! Where things are in the checkout.

use std::path::{Path, PathBuf};

/// The checkout's directory.
pub(crate) fn root() -> PathBuf {
    // `cargo run` says where the package is now; the directory of the build is for a binary that was started by hand.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}

/// The Spin manifest.
pub(crate) fn manifest() -> PathBuf {
    root().join("spin.toml")
}

/// The component's own target directory: a build inside of another's would wait for its lock for ever.
pub(crate) fn component_target_dir() -> PathBuf {
    root().join("target/component")
}

/// The compiled component, as spin.toml names it.
pub(crate) fn component() -> PathBuf {
    component_target_dir().join("wasm32-wasip2/release-wasm/ingest_wasm.wasm")
}

/// The logs of `up`.
pub(crate) fn log_dir() -> PathBuf {
    root().join(".edgelog/log")
}

/// What `setup-deploy` installs from PyPI.
pub(crate) fn deploy_tools_dir() -> PathBuf {
    root().join("target/deploy-tools")
}

/// What the benchmarks write; each begins with a directory of its own here, emptied.
pub(crate) fn bench_dir() -> PathBuf {
    root().join("target/bench")
}

/// The version before this one, as [`crate::commands::upgrade`] checks it out and compiles it.
pub(crate) fn upgrade_dir() -> PathBuf {
    root().join("target/upgrade")
}

/// `path` from the checkout's directory on, where it lies below it: what a user can paste.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
