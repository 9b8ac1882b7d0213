//! Which host serves the component: Spin where a fit one is on the path, else `ingest-host`.

use std::process::Command;

use anyhow::bail;

/// The oldest Spin that knows the component's interfaces (`wasi:http@0.3.0`).
const SPIN_VERSION_MIN: (u32, u32) = (4, 1);

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum HostChoice {
    /// Spin, or an error
    Spin,
    /// ingest-host
    Embedded,
}

/// What serves the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The `spin` on the path.
    Spin,
    /// Our own `ingest-host`.
    Embedded,
}

/// The host to take, and what the user should know about that choice.
///
/// # Errors
/// Spin was asked for, and there is none that is fit.
pub(crate) fn choose(choice: Option<HostChoice>) -> anyhow::Result<(Host, Option<String>)> {
    if choice == Some(HostChoice::Embedded) {
        return Ok((Host::Embedded, None));
    }
    let output = Command::new("spin").arg("--version").output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    decide(choice, text.as_deref())
}

/// `version_text` is what `spin --version` printed, if there is a `spin`.
fn decide(choice: Option<HostChoice>, version_text: Option<&str>) -> anyhow::Result<(Host, Option<String>)> {
    let (major, minor) = SPIN_VERSION_MIN;
    let problem = match version_text {
        None => "there is no `spin` on the PATH".to_owned(),
        Some(text) => match version_of(text) {
            Some(version) if version >= SPIN_VERSION_MIN => return Ok((Host::Spin, None)),
            Some(_) => format!(
                "the `spin` on the PATH is too old ({text}): the component needs {major}.{minor} or later"
            ),
            None => format!("the `spin` on the PATH does not tell its version ({text:?})"),
        },
    };
    match (choice, version_text) {
        (Some(_), _) => bail!("--host spin: {problem}; https://spinframework.dev has it"),
        // Nobody asked for Spin and nobody has it: nothing to tell.
        (None, None) => Ok((Host::Embedded, None)),
        (None, Some(_)) => Ok((Host::Embedded, Some(format!("{problem}. ingest-host serves it instead.")))),
    }
}

/// Major and minor version out of `spin 4.1.0 (0a1b2c3 2026-05-01)`. What comes before a release counts as it.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let version = text.strip_prefix("spin ")?.split_ascii_whitespace().next()?;
    let mut numbers = version.split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_spin_prints() {
        assert_eq!(version_of("spin 4.1.0 (0a1b2c3 2026-05-01)"), Some((4, 1)));
        assert_eq!(version_of("spin 4.1.0-pre0 (0a1b2c3 2026-05-01)"), Some((4, 1)));
        assert_eq!(version_of("spin 10.0-rc.1"), Some((10, 0)));
        for odd in ["", "spin", "spin next", "spinach 4.1.0", "Spin is a model checker 6.5"] {
            assert_eq!(version_of(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_fit_spin_is_taken_unless_the_other_was_asked_for() {
        let fit = Some("spin 4.2.1 (abc 2026-01-01)");
        assert_eq!(decide(None, fit).unwrap(), (Host::Spin, None));
        assert_eq!(decide(Some(HostChoice::Spin), fit).unwrap(), (Host::Spin, None));
        assert_eq!(choose(Some(HostChoice::Embedded)).unwrap(), (Host::Embedded, None));
    }

    #[test]
    fn without_a_fit_spin_the_embedded_host_serves_and_an_old_one_is_named() {
        assert_eq!(decide(None, None).unwrap(), (Host::Embedded, None));
        let (host, remark) = decide(None, Some("spin 4.0.2 (abc 2026-01-01)")).unwrap();
        assert_eq!(host, Host::Embedded);
        assert!(remark.unwrap().contains("too old (spin 4.0.2"));
        let error = decide(Some(HostChoice::Spin), Some("spin 3.5.1")).unwrap_err().to_string();
        assert!(error.contains("needs 4.1 or later"), "{error}");
        assert!(decide(Some(HostChoice::Spin), None).is_err());
    }
}
