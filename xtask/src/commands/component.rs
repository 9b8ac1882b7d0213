//! `setup-wasm` and `build-component`.

use crate::{cargo, toolchain, workspace};

/// Installs the target that the component is compiled for.
///
/// # Errors
/// It could not be installed; says what to do.
pub(crate) fn setup_wasm() -> anyhow::Result<()> {
    toolchain::ensure_wasm_target()?;
    println!("The target {} is installed.", toolchain::WASM_TARGET);
    Ok(())
}

/// Compiles the component.
///
/// # Errors
/// It does not compile.
pub(crate) fn build() -> anyhow::Result<()> {
    let component = cargo::build_component()?;
    let bytes = std::fs::metadata(&component)?.len();
    println!("{} ({} kB)", workspace::shown(&component), bytes / 1000);
    Ok(())
}
