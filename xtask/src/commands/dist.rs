//! `cargo xtask dist`: what a release consists of: the programs, the component, their checksums, and what is in them.

#![expect(clippy::indexing_slicing, reason = "of a JSON value what is not there is null")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cargo::{self, Profile, Programs};
use crate::workspace;

/// The packages whose programs are released.
const PROGRAMS: [&str; 3] = ["storage", "ingest-host", "loadgen"];
/// The package of the component.
const COMPONENT: &str = "ingest-wasm";
/// Files of the checkout that go along.
const FILES: [&str; 4] = ["spin.toml", "LICENSE", "CHANGELOG.md", "README.md"];
const SBOM: &str = "edgelog.cdx.json";
const SUMS: &str = "SHA256SUMS";

/// How to build it.
#[derive(Debug, clap::Args)]
pub(crate) struct DistArguments {
    /// Take the programs of a debug build: to see what comes out, not to release it
    #[arg(long)]
    debug: bool,
}

/// Builds everything and lays it out in `target/dist/edgelog-VERSION-TARGET`.
///
/// # Errors
/// Something does not compile, or a file cannot be written.
pub(crate) fn run(arguments: &DistArguments) -> anyhow::Result<()> {
    let component = cargo::build_component()?;
    let profile = if arguments.debug { Profile::Dev } else { Profile::Release };
    let programs = Programs::build(&PROGRAMS, profile)?;
    let metadata = metadata()?;
    let version = version_of(&metadata, PROGRAMS[0])?;
    let dir = workspace::root().join(format!("target/dist/edgelog-{version}-{}", host()?));
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("could not empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir)?;
    for name in PROGRAMS {
        copy(programs.path(name)?, &dir.join(name))?;
    }
    copy(&component, &dir.join("ingest_wasm.wasm"))?;
    for name in FILES {
        copy(&workspace::root().join(name), &dir.join(name))?;
    }
    let names: Vec<&str> = PROGRAMS.into_iter().chain([COMPONENT]).collect();
    fs::write(dir.join(SBOM), format!("{:#}\n", sbom(&metadata, &names)?))?;
    fs::write(dir.join(SUMS), sums(&dir)?)?;
    println!("{}", workspace::shown(&dir));
    print!("{}", fs::read_to_string(dir.join(SUMS))?);
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("could not copy {}", from.display()))?;
    Ok(())
}

fn metadata() -> anyhow::Result<Value> {
    let output = cargo::command(["metadata", "--format-version=1", "--locked"]).output()?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn host() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("-vV").output().context("could not run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// A line for each file, as `sha256sum --check` reads it.
fn sums(dir: &Path) -> anyhow::Result<String> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    let mut lines = String::new();
    for path in paths {
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        for byte in Sha256::digest(fs::read(&path)?) {
            write!(lines, "{byte:02x}")?;
        }
        writeln!(lines, "  {name}")?;
    }
    Ok(lines)
}

fn version_of(metadata: &Value, name: &str) -> anyhow::Result<String> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let package = packages.iter().find(|package| package["name"] == name);
    let version = package.and_then(|package| package["version"].as_str());
    Ok(version.with_context(|| format!("{name} is no package"))?.to_owned())
}

/// A CycloneDX document of all packages that are compiled into those of these names; what only builds or tests them is
/// left out.
fn sbom(metadata: &Value, names: &[&str]) -> anyhow::Result<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let needs: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| {
            let is_linked = |dep: &&Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let linked = list(&node["deps"]).iter().filter(is_linked).map(|dep| text(&dep["pkg"])).collect();
            (text(&node["id"]), linked)
        })
        .collect();
    let is_root =
        |package: &&Value| names.contains(&text(&package["name"]).as_str()) && package["source"].is_null();
    let roots: Vec<String> = packages.values().filter(is_root).map(|package| text(&package["id"])).collect();
    ensure!(roots.len() == names.len(), "{names:?} are not all packages of the workspace");
    let (mut reached, mut open) = (BTreeSet::new(), roots);
    while let Some(id) = open.pop() {
        if reached.insert(id.clone()) {
            open.extend(needs.get(&id).into_iter().flatten().cloned());
        }
    }
    let reference = |id: &String| packages.get(id).map(purl);
    let of_all =
        |ids: &BTreeSet<String>| ids.iter().filter_map(|id| packages.get(id)).map(component).collect();
    let components: Vec<Value> = of_all(&reached);
    let dependencies: Vec<Value> = reached
        .iter()
        .map(|id| {
            let on: Vec<String> = needs.get(id).into_iter().flatten().filter_map(reference).collect();
            json!({ "ref": reference(id), "dependsOn": on })
        })
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "name": "edgelog", "version": version_of(metadata, names.first().unwrap_or(&""))?,
            "licenses": [{ "expression": "Apache-2.0" }],
        } },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(package: &Value) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    });
    if let Some(license) = package["license"].as_str() {
        // Old packages write MIT/Apache-2.0.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    component
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sbom_has_what_is_linked_and_nothing_else() {
        let sbom = sbom(&metadata().unwrap(), &["storage", "ingest-host", "loadgen", "ingest-wasm"]).unwrap();
        let names: BTreeSet<&str> = sbom["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part["name"].as_str().unwrap())
            .collect();
        for linked in ["storage", "model", "axum", "zstd-sys", "wasmtime", "spin-sdk", "hdrhistogram"] {
            assert!(names.contains(linked), "{linked}");
        }
        for other in ["expect-test", "proptest", "xtask", "tests", "simd-json"] {
            assert!(!names.contains(other), "{other}");
        }
        let references: BTreeSet<&str> = sbom["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part["bom-ref"].as_str().unwrap())
            .collect();
        for dependency in sbom["dependencies"].as_array().unwrap() {
            assert!(references.contains(dependency["ref"].as_str().unwrap()));
            for on in dependency["dependsOn"].as_array().unwrap() {
                assert!(references.contains(on.as_str().unwrap()), "{on}");
            }
        }
    }

    #[test]
    fn checksums_are_those_of_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b"), "abc").unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n\
                        ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b\n";
        assert_eq!(sums(dir.path()).unwrap(), expected);
    }
}
