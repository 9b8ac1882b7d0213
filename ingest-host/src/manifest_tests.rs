//! What a manifest is accepted or refused for.

use super::{ManifestError, Route, parse};

const MANIFEST: &str = r#"
spin_manifest_version = 2
[application]
name = "edgelog"
version = "0.1.0"
[variables]
node_id = { default = "ingest-1" }
token = { required = true, secret = true }
[[trigger.http]]
route = "/..."
component = "ingest"
[component.ingest]
source = "ingest.wasm"
allowed_outbound_hosts = ["{{ storage }}", "http://127.0.0.1:*"]
key_value_stores = ["default"]
[component.ingest.variables]
node_id = "{{ node_id }}"
[component.ingest.build]
command = "cargo build"
"#;

fn error_of(manifest: &str) -> String {
    match parse(manifest) {
        Ok(_) => String::from("accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn everything_that_the_host_needs_is_read() {
    let manifest = parse(MANIFEST).unwrap();
    assert_eq!(manifest.application, "edgelog");
    assert_eq!(manifest.variables["node_id"].default.as_deref(), Some("ingest-1"));
    assert!(manifest.variables["token"].required);
    assert_eq!(manifest.route, Route::Below(String::new()));
    assert_eq!(manifest.component.id, "ingest");
    assert_eq!(manifest.component.source, "ingest.wasm");
    assert_eq!(manifest.component.allowed_outbound_hosts, ["{{ storage }}", "http://127.0.0.1:*"]);
    assert_eq!(manifest.component.key_value_stores, ["default"]);
    assert_eq!(manifest.component.variables["node_id"], "{{ node_id }}");
    assert!(manifest.ignored_keys.is_empty());
}

#[test]
fn keys_that_only_spin_honours_are_reported() {
    let manifest = format!("{MANIFEST}[component.ingest.environment]\nA = \"b\"\n");
    assert_eq!(parse(&manifest).unwrap().ignored_keys, ["component.ingest.environment"]);
}

#[test]
fn errors_name_the_key_at_fault() {
    let with = |from: &str, to: &str| error_of(&MANIFEST.replace(from, to));
    assert!(with("spin_manifest_version = 2", "spin_manifest_version = 1").contains("spin_manifest_version"));
    assert!(with("source = \"ingest.wasm\"", "").contains("`source`"));
    assert!(with("name = \"edgelog\"", "").contains("`name`"));
    assert!(with("default = \"ingest-1\"", "").contains("`variables.node_id`"));
    assert!(with("required = true", "required = true, default = \"x\"").contains("`variables.token`"));
    assert!(with("component = \"ingest\"", "component = \"other\"").contains("[component.other]"));
    assert!(with("route = \"/...\"", "route = \"api\"").contains("trigger.http.route"));
    assert!(with("key_value_stores = [\"default\"]", "key_value_stores = 1").contains("key_value_stores"));
}

#[test]
fn there_must_be_exactly_one_http_trigger() {
    let none = MANIFEST.replace("[[trigger.http]]", "[[trigger.redis]]");
    assert!(matches!(parse(&none), Err(ManifestError::Triggers(0))));
    let two = format!("{MANIFEST}[[trigger.http]]\nroute = \"/b\"\ncomponent = \"ingest\"\n");
    assert!(matches!(parse(&two), Err(ManifestError::Triggers(2))));
}

#[test]
fn routes_match_whole_path_segments() {
    let everything = Route::parse("/...").unwrap();
    assert!(everything.matches("/") && everything.matches("/v1/logs"));
    let below = Route::parse("/v1/...").unwrap();
    assert!(below.matches("/v1") && below.matches("/v1/") && below.matches("/v1/logs"));
    assert!(!below.matches("/v10") && !below.matches("/"));
    let exact = Route::parse("/v1").unwrap();
    assert!(exact.matches("/v1") && !exact.matches("/v1/logs"));
}
