//! Which hosts the component may call: `allowed_outbound_hosts` after template expansion.
//!
//! Invariant: what no entry allows is denied; an entry that cannot be understood stops the start and allows
//! nothing. It must not know of sockets: it judges a scheme, a host and a port.

use model::outbound::OutboundHost;

use crate::variables::{ApplicationVariables, VariableError};

/// The hosts that a component may call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AllowedHosts {
    entries: Vec<OutboundHost>,
}

/// Why an entry cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AllowedHostsError {
    /// The entry's template cannot be expanded.
    #[error("`allowed_outbound_hosts`: {0}")]
    Template(#[from] VariableError),
    /// The entry is not `scheme://host[:port]`.
    #[error("`allowed_outbound_hosts` entry {entry:?} {reason}")]
    Entry {
        /// The entry, expanded.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl AllowedHosts {
    /// Expands and parses the entries of a component. An entry that expands to nothing is skipped.
    ///
    /// # Errors
    /// [`AllowedHostsError`], naming the entry.
    pub(crate) fn new(
        templates: &[String],
        variables: &ApplicationVariables,
    ) -> Result<Self, AllowedHostsError> {
        let mut entries = Vec::with_capacity(templates.len());
        for template in templates {
            let expanded = variables.expand(template)?;
            let entry = expanded.trim();
            if entry.is_empty() {
                continue;
            }
            entries.push(
                OutboundHost::parse(entry)
                    .map_err(|reason| AllowedHostsError::Entry { entry: entry.to_owned(), reason })?,
            );
        }
        Ok(Self { entries })
    }

    /// Whether a request may go to this address. Scheme and host are compared without regard to case.
    pub(crate) fn allow(&self, scheme: &str, host: &str, port: u16) -> bool {
        self.entries.iter().any(|entry| entry.allows(scheme, host, port))
    }
}

#[cfg(test)]
mod tests {
    use super::{AllowedHosts, AllowedHostsError};
    use crate::manifest::VariableDeclaration;
    use crate::variables::ApplicationVariables;
    use std::collections::BTreeMap;

    fn parse(entries: &[&str]) -> Result<AllowedHosts, AllowedHostsError> {
        let default = |value: &str| VariableDeclaration {
            default: Some(value.to_owned()),
            ..VariableDeclaration::default()
        };
        let declared = BTreeMap::from([
            ("storage".to_owned(), default("http://10.0.0.1:8081")),
            ("empty".to_owned(), default("")),
        ]);
        let variables = ApplicationVariables::resolve(&declared, &[], |_| None).unwrap();
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        AllowedHosts::new(&entries, &variables)
    }

    #[test]
    fn without_entries_nothing_is_allowed() {
        assert!(!parse(&[]).unwrap().allow("http", "127.0.0.1", 80));
    }

    #[test]
    fn templates_are_expanded_and_empty_ones_skipped() {
        let hosts = parse(&["{{ empty }}", "{{ storage }}"]).unwrap();
        assert!(hosts.allow("http", "10.0.0.1", 8081));
        assert!(!hosts.allow("http", "10.0.0.1", 80));
    }

    #[test]
    fn networks_are_allowed_as_spin_has_them() {
        let hosts = parse(&["http://10.0.0.0/24:8081"]).unwrap();
        assert!(hosts.allow("http", "10.0.0.7", 8081));
        assert!(!hosts.allow("http", "10.0.1.7", 8081));
    }

    #[test]
    fn an_entry_that_cannot_be_understood_is_named() {
        let error = parse(&["{{ storage }}", "http://a/path"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "`allowed_outbound_hosts` entry \"http://a/path\" has a path, or a network that is none"
        );
        assert!(matches!(parse(&["{{ nope }}"]), Err(AllowedHostsError::Template(_))));
    }
}
