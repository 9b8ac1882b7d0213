//! The tables of metrics and settings in the documentation, from what `/metrics` shows and what the command line is; a
//! test of each daemon compares the two.
//!
//! Must not know which metrics and settings there are.

use std::collections::{BTreeMap, BTreeSet};

use clap::Command;

/// One metric, as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// The metrics of an OpenMetrics text as the rows of a Markdown table, in the order of their names: name (with the
/// ending that a query needs), type, labels, meaning. The unit is in the name.
///
/// A metric whose label sets are not there yet has no labels here: the text has to be one of a daemon that has done
/// everything once.
pub fn table(text: &str) -> String {
    let mut rows = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for (name, Shown { kind, help, labels }) in shown(text) {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let ending = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let kind = if kind == "info" { "gauge" } else { &kind };
        let help = help.trim_end_matches('.').replace('|', "\\|");
        rows += &format!("| `{name}{ending}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    rows
}

fn shown(text: &str) -> BTreeMap<String, Shown> {
    let mut metrics: BTreeMap<String, Shown> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            metrics.entry(current.clone()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if !line.starts_with('#')
            && let Some((_, rest)) = line.split_once('{')
        {
            let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
            // No label's value here has a comma or a quote.
            let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            // A histogram's own.
            let names = names.filter(|name| *name != "le").map(str::to_owned);
            metrics.entry(current.clone()).or_default().labels.extend(names);
        }
    }
    metrics
}

/// The settings of a program as the rows of a Markdown table: flag, environment, default, meaning. With `has_file`, a
/// flag's name with underscores is a key of its configuration file too.
pub fn settings(command: &Command, has_file: bool) -> String {
    let mut rows = String::from("| flag | environment | default | meaning |\n|---|---|---|---|\n");
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long().filter(|long| !matches!(*long, "help" | "version")) else {
            continue;
        };
        let code = |text: &str| format!("`{text}`");
        let env = argument.get_env().map_or_else(String::new, |name| code(&name.to_string_lossy()));
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = if defaults.is_empty() { "–".to_owned() } else { code(&defaults.join(",")) };
        let values: Vec<_> =
            argument.get_possible_values().iter().map(|value| code(value.get_name())).collect();
        let is_flag = matches!(argument.get_action(), clap::ArgAction::SetTrue);
        let values =
            if values.is_empty() || is_flag { String::new() } else { format!(": {}", values.join(", ")) };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        let help = help.trim_end_matches('.');
        let default = if is_flag { "off".to_owned() } else { default };
        rows += &format!("| `--{long}` | {env} | {default} | {help}{values} |\n");
    }
    if has_file {
        rows += "\nIn the file a key is the flag's name with underscores: `segment_bytes = \"256MiB\"`, `partitions = [0, 1]`.\n";
    }
    rows
}

/// What stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` in a document; `None` without such marks.
pub fn section<'d>(document: &'d str, name: &str) -> Option<&'d str> {
    let (_, rest) = document.split_once(&format!("<!-- {name}:begin -->\n"))?;
    Some(rest.split_once(&format!("<!-- {name}:end -->"))?.0)
}

/// The document with another text there.
pub fn with_section(document: &str, name: &str, text: &str) -> Option<String> {
    let old = section(document, name)?;
    let begin = old.as_ptr() as usize - document.as_ptr() as usize;
    let (before, after) = (document.get(..begin)?, document.get(begin + old.len()..)?);
    Some(format!("{before}{text}{after}"))
}

/// Compares a section of a document with what it has to be. With `UPDATE_DOCS` in the environment the document is
/// written anew instead.
///
/// # Errors
/// In words: what differs, and what to do.
pub fn check_section(path: &std::path::Path, name: &str, expected: &str) -> Result<(), String> {
    let document = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found = section(&document, name).ok_or_else(|| format!("{} has no {name}", path.display()))?;
    if found == expected {
        return Ok(());
    }
    if std::env::var_os("UPDATE_DOCS").is_some()
        && let Some(updated) = with_section(&document, name, expected)
    {
        return std::fs::write(path, updated).map_err(|error| error.to_string());
    }
    let lacks: Vec<&str> =
        expected.lines().filter(|line| !found.lines().any(|other| other == *line)).collect();
    let too_much: Vec<&str> =
        found.lines().filter(|line| !expected.lines().any(|other| other == *line)).collect();
    Err(format!(
        "{} ({name}) is not what the program shows.\nIt lacks:\n{}\nIt has too much:\n{}\n\
         Run the test again with UPDATE_DOCS=1 in the environment to write it.",
        path.display(),
        lacks.join("\n"),
        too_much.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_each_metric_once_with_its_labels() {
        let text = "# HELP b_x B, in x.\n# TYPE b_x counter\n# UNIT b_x x\nb_x_total{a=\"1\",c=\"}\"} 1\nb_x_total{a=\"2\",d=\"\"} 1\n\
                    # HELP a A.\n# TYPE a histogram\na_bucket{le=\"+Inf\",route=\"r\"} 1\n# EOF\n";
        let expected = "| metric | type | labels | meaning |\n|---|---|---|---|\n| `a` | histogram | `route` | A |\n\
                        | `b_x_total` | counter | `a`, `c`, `d` | B, in x |\n";
        assert_eq!(table(text), expected);
    }

    #[test]
    fn a_section_is_replaced_and_nothing_else() {
        let document = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb";
        assert_eq!(section(document, "x"), Some("old\n"));
        assert_eq!(section(document, "y"), None);
        let expected = "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb";
        assert_eq!(with_section(document, "x", "new\n").as_deref(), Some(expected));
    }
}
