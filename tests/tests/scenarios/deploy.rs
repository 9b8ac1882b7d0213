//! The files in `deploy/` are ones that their programs take, and agree with one another and with the documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;
use tests::programs::{programs, workspace_dir};
use tests::tools::{self, Nginx, deploy_dir};

fn read(path: impl AsRef<Path>) -> String {
    let path = workspace_dir().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn succeeds(program: &str, arguments: &[&str]) {
    let output = tools::run(program, arguments);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// The alerts of the rules' file: their names and expressions.
pub(crate) fn alerts() -> BTreeMap<String, String> {
    let rules = read("deploy/prometheus/alerts.yml");
    let of = |line: &str, key: &str| line.trim().strip_prefix(key).map(|value| value.trim().to_owned());
    let names = rules.lines().filter_map(|line| of(line, "- alert:"));
    let unquoted = |text: String| text.trim_matches('\'').replace("''", "'");
    let expressions = rules.lines().filter_map(|line| of(line, "expr:")).map(unquoted);
    names.zip(expressions).collect()
}

/// The panels' queries of all dashboards, each with where it stands, as Grafana would ask them.
pub(crate) fn panel_queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for entry in fs::read_dir(deploy_dir().join("grafana/dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let dashboard: Value = serde_json::from_str(&read(&path)).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let place = format!("{}: {}", dashboard["title"], panel["title"]);
                let query = target["expr"].as_str().unwrap();
                let query = query.replace("$__rate_interval", "10s").replace("$instance", ".*");
                assert!(!query.contains('$'), "{place}: {query} has a variable that the test does not know");
                queries.push((place, query));
            }
        }
    }
    queries
}

#[test]
fn prometheus_takes_its_configuration_and_the_rules_do_what_they_should() {
    if !tools::are_there(&["promtool"]) {
        return;
    }
    let file = |name: &str| deploy_dir().join("prometheus").join(name).display().to_string();
    succeeds("promtool", &["check", "config", &file("prometheus.yml")]);
    succeeds("promtool", &["check", "rules", &file("alerts.yml")]);
    succeeds("promtool", &["test", "rules", &file("alerts_test.yml")]);
}

#[test]
fn nginx_takes_its_configuration() {
    if !tools::are_there(&["nginx"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let address = |port| ([127, 0, 0, 1], port).into();
    let conf = Nginx::configure(dir.path(), address(8080), &[address(1), address(2), address(3)]);
    succeeds("nginx", &["-t", "-e", "stderr", "-c", &conf]);
}

#[test]
fn envoy_takes_its_configuration() {
    if !tools::are_there(&["envoy"]) {
        return;
    }
    let file = deploy_dir().join("envoy/envoy.yaml").display().to_string();
    succeeds("envoy", &["--mode", "validate", "-c", &file]);
}

#[test]
fn hadolint_has_nothing_to_say_of_the_images() {
    if !tools::are_there(&["hadolint"]) {
        return;
    }
    succeeds("hadolint", &[&deploy_dir().join("Dockerfile").display().to_string()]);
}

#[test]
fn docker_compose_takes_the_stack() {
    if !tools::are_there(&["docker-compose"]) {
        return;
    }
    let file = deploy_dir().join("compose.yml").display().to_string();
    succeeds("docker-compose", &["-f", &file, "config", "--quiet"]);
}

#[test]
fn kubernetes_takes_the_manifests() {
    if !tools::are_there(&["kubernetes-validate"]) {
        return;
    }
    let dir = deploy_dir().join("kubernetes");
    let files: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path().display().to_string()).collect();
    let arguments: Vec<&str> = ["--strict"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let output = tools::run("kubernetes-validate", &arguments);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Of what is not Kubernetes' own it has no schema, and says so.
    let unknown: Vec<&str> = said.lines().filter(|line| line.contains("Couldn't find schema")).collect();
    assert!(unknown.iter().all(|line| line.contains("SpinApp")) && unknown.len() == 1, "{said}");
    assert_eq!(said.matches(" passed for resource ").count(), 6, "{said}");
}

#[test]
fn systemd_takes_the_units() {
    if !tools::are_there(&["systemd-analyze"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (unit, program, path) in [
        ("edgelog-storage.service", "/usr/local/bin/storage", &programs().storage),
        ("edgelog-ingest.service", "/usr/local/bin/ingest-host", &programs().ingest_host),
    ] {
        let text = read(format!("deploy/systemd/{unit}"));
        assert!(text.contains(&format!("ExecStart={program} ")), "{unit}");
        let copy = dir.path().join(unit);
        // It looks whether the program is there.
        fs::write(&copy, text.replace(program, &path.display().to_string())).unwrap();
        succeeds("systemd-analyze", &["verify", "--recursive-errors=no", &copy.display().to_string()]);
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let operations = read("docs/operations.md");
    let headings: BTreeSet<&str> =
        operations.lines().filter_map(|line| line.strip_prefix("### Edgelog")).collect();
    let alerts = alerts();
    let names: BTreeSet<&str> = alerts.keys().map(|name| name.strip_prefix("Edgelog").unwrap()).collect();
    assert_eq!(names, headings);
    let rules = read("deploy/prometheus/alerts.yml");
    for name in alerts.keys() {
        // A heading's anchor on the site is its lower case.
        let anchor = format!("docs/operations.md#{}\"", name.to_lowercase());
        assert_eq!(rules.matches(&anchor).count(), 1, "{name} leads to its heading");
    }
}

#[test]
fn every_metric_that_is_asked_for_is_documented() {
    let operations = read("docs/operations.md");
    let documented: BTreeSet<&str> = operations
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name)
        .collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_ours =
        |word: &&str| ["storage_", "ingest_", "process_", "edgelog_"].iter().any(|p| word.starts_with(p));
    // A label.
    let others = ["ingest_node"];
    let of_histograms = ["_bucket", "_sum", "_count"];
    for (place, query) in panel_queries().into_iter().chain(alerts()) {
        for word in query.split(|c: char| !is_part(c)).filter(is_ours) {
            let base = of_histograms.iter().find_map(|ending| word.strip_suffix(ending)).unwrap_or(word);
            let is_known = documented.contains(word) || documented.contains(base) || others.contains(&word);
            assert!(is_known, "{place}: {word} is no metric");
        }
    }
}

#[test]
fn dashboards_are_whole() {
    let mut uids = BTreeSet::new();
    for name in ["overview", "ingest", "storage", "cluster"] {
        let dashboard: Value =
            serde_json::from_str(&read(format!("deploy/grafana/dashboards/{name}.json"))).unwrap();
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()));
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: each panel has an id of its own");
        for panel in panels {
            assert_eq!(panel["datasource"]["uid"], "prometheus", "{name}: the one that is provisioned");
            assert!(panel["gridPos"]["x"].as_u64().unwrap() + panel["gridPos"]["w"].as_u64().unwrap() <= 24);
        }
    }
    assert!(read("deploy/grafana/provisioning/datasources/prometheus.yml").contains("uid: prometheus"));
}

#[test]
fn the_kubernetes_examples_settings_are_ones_that_storage_takes() {
    let manifest = read("deploy/kubernetes/edgelog.yaml");
    let (_, rest) = manifest.split_once("storage.toml: |\n").unwrap();
    let toml: String = rest
        .lines()
        .take_while(|line| line.starts_with("    "))
        .map(|line| format!("{}\n", line.trim()))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("storage.toml");
    fs::write(&file, toml).unwrap();
    let output = std::process::Command::new(&programs().storage)
        .args(["config", "check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("replicas = 3  # file"), "{shown}");
}

/// The seconds after the first `key`, of a setting or of what a file says.
fn seconds_after(text: &str, key: &str) -> u64 {
    let (_, rest) = text.split_once(key).unwrap_or_else(|| panic!("{key} in {text}"));
    let number: String =
        rest.trim_start_matches([' ', '=', ':', '"']).chars().take_while(char::is_ascii_digit).collect();
    let unit = rest.trim_start_matches([' ', '=', ':', '"']).trim_start_matches(number.as_str());
    assert!(unit.starts_with(['s', '\n', '"']) && !number.is_empty(), "{key}{rest:.20} is in seconds");
    number.parse().unwrap()
}

#[test]
fn nodes_are_given_the_time_that_they_take_to_stop() {
    let output = std::process::Command::new(&programs().storage).args(["config", "check"]).output().unwrap();
    let defaults = String::from_utf8(output.stdout).unwrap();
    let kubernetes = read("deploy/kubernetes/edgelog.yaml");
    let of_default = |key: &str| seconds_after(&defaults, &format!("\n{key} = "));
    // Handing over takes two election timeouts at most.
    let (grace, hand_over) = (of_default("shutdown_grace"), of_default("election_timeout") * 2);
    for (file, key, drain) in [
        ("systemd/edgelog-storage.service", "\nTimeoutStopSec", of_default("drain")),
        ("compose.yml", "stop_grace_period", of_default("drain")),
        ("kubernetes/edgelog.yaml", "terminationGracePeriodSeconds", seconds_after(&kubernetes, "drain = ")),
    ] {
        let text = read(format!("deploy/{file}"));
        let given = seconds_after(&text, key);
        // The logs are closed after that.
        assert!(given >= drain + hand_over + grace + 5, "{file}: {given} s");
        for setting in ["--drain", "--election-timeout", "--shutdown-grace"] {
            assert!(text.contains(setting), "{file}: whoever changes {setting} has to change {key}");
        }
    }
}

#[test]
fn the_settings_in_compose_are_ones_that_the_programs_and_the_application_know() {
    let compose = read("deploy/compose.yml") + &read("deploy/Dockerfile");
    let operations = read("docs/operations.md");
    let spin = read("spin.toml");
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let mut seen = 0;
    for word in compose.split(|c: char| !is_part(c)) {
        if word.starts_with("EDGELOG_") {
            assert!(operations.contains(&format!("`{word}`")), "{word} is no setting");
            seen += 1;
        } else if let Some(variable) = word.strip_prefix("SPIN_VARIABLE_") {
            assert!(spin.contains(&format!("\n{} = {{", variable.to_lowercase())), "{word} is no variable");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}
