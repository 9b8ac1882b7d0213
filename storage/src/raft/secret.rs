//! The secret that the nodes of a cluster share, and that none of them says.
//!
//! Invariants: it is in no log line and no answer; a wrong one takes as long to refuse as a nearly right one.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq as _;

/// Fewer bytes than this can be guessed.
const BYTES_MIN: usize = 16;

/// The shared secret; or none, among nodes that meet on one machine alone.
#[derive(Clone)]
pub struct Secret(Option<Arc<HeaderValue>>);

/// Why a secret's file is no use.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("the cluster's secret in {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// What it holds is no secret.
    #[error("the cluster's secret in {path} has to be one line of at least {BYTES_MIN} printable characters")]
    Weak {
        /// The file.
        path: String,
    },
}

impl Secret {
    /// No secret.
    pub fn none() -> Self {
        Self(None)
    }

    /// The secret in a file, without the white space around it.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| SecretError::Read { path: shown.clone(), source })?;
        let text = text.trim();
        let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value = HeaderValue::from_str(&format!("Bearer {text}"))
            .map_err(|_| SecretError::Weak { path: shown.clone() })?;
        value.set_sensitive(true);
        if text.len() < BYTES_MIN || !is_printable {
            return Err(SecretError::Weak { path: shown });
        }
        Ok(Self(Some(Arc::new(value))))
    }

    /// The header that shows that a node knows it.
    pub fn header(&self) -> Option<HeaderValue> {
        self.0.as_deref().cloned()
    }

    /// Whether a request shows that its sender knows it.
    pub fn is_shown_by(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.0 else { return true };
        let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        secret.as_bytes().ct_eq(shown).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(..)" } else { "Secret(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_itself_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let secret = Secret::read(&path).unwrap();
        let shows = |value: &str| {
            secret
                .is_shown_by(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())]))
        };
        assert!(shows("Bearer 0123456789abcdef"));
        for wrong in
            ["", "Bearer ", "Bearer 0123456789abcdeg", "Bearer 0123456789abcdef0", "0123456789abcdef"]
        {
            assert!(!shows(wrong), "{wrong}");
        }
        assert!(!secret.is_shown_by(&HeaderMap::new()) && Secret::none().is_shown_by(&HeaderMap::new()));
        assert!(!format!("{secret:?} {:?}", secret.header()).contains("0123"));
        for weak in ["", "short", "0123456789 abcdefg", "0123456789\u{e9}abcdef"] {
            std::fs::write(&path, weak).unwrap();
            assert!(matches!(Secret::read(&path), Err(SecretError::Weak { .. })), "{weak}");
        }
    }
}
