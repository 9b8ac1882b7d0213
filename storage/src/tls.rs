//! TLS between the nodes of a cluster: what an operator's three files are, and whom a node talks to by them.
//!
//! Invariants: both sides show a certificate of the cluster's own authority, and who calls also checks that the other's
//! is for the host that was called; without all of that nothing is said. A handshake takes a bounded time. Must not know
//! what is said, nor of the cluster's secret, which is shown besides.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFlags;

/// Bytes of one of the files: far above any chain of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a node needs to talk to others by TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeTls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    own: Arc<Own>,
}

/// The node's own certificate, and what tells whether others will take it.
#[derive(Debug)]
struct Own {
    chain: Vec<CertificateDer<'static>>,
    verifier: Arc<WebPkiServerVerifier>,
}

/// Why there can be no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only some of the files are named.
    #[error(
        "--cluster-cert, --cluster-key and --cluster-ca belong together: {missing} is missing (give all three, or none)"
    )]
    Incomplete {
        /// The flag that is missing.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("{flag} {}: {source}", path.display())]
    Read {
        /// What it was given as.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{flag} {}: {reason}", path.display())]
    Content {
        /// What it was given as.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The library does not take them together.
    #[error("the node's certificate and key: {0}")]
    Unusable(rustls::Error),
}

impl NodeTls {
    /// What the files hold; `None` when none are named.
    ///
    /// # Errors
    /// When others would not take what they hold, as far as that can be known here.
    pub fn of(flags: &TlsFlags) -> Result<Option<Self>, TlsError> {
        let TlsFlags { cluster_cert, cluster_key, cluster_ca } = flags;
        match (cluster_cert, cluster_key, cluster_ca) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), Some(ca)) => Self::read(cert, key, ca).map(Some),
            (None, ..) => Err(TlsError::Incomplete { missing: CERT }),
            (_, None, _) => Err(TlsError::Incomplete { missing: KEY }),
            (.., None) => Err(TlsError::Incomplete { missing: CA }),
        }
    }

    fn read(cert: &Path, key: &Path, ca: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(CERT, cert)?;
        let private_key = private_key(key)?;
        let roots = Arc::new(roots(ca)?);
        let bad_roots = |error: &dyn Error| content(CA, ca, error.to_string());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| bad_roots(&error))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| bad_roots(&error))?;
        // The others would refuse it, each with a line in its log; here the operator looks.
        if let Some((own, more)) = chain.split_first() {
            let checked = clients.verify_client_cert(own, more, UnixTime::now());
            checked
                .map_err(|error| content(CERT, cert, format!("the other nodes will not take it: {error}")))?;
        }
        Ok(Self {
            server: Arc::new(server(&provider, clients, &chain, &private_key)?),
            client: Arc::new(client(&provider, roots, &chain, &private_key)?),
            own: Arc::new(Own { chain, verifier }),
        })
    }

    /// What takes connections of other nodes.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }

    /// What connects to other nodes.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// Whether those who call this node at `host` will take its certificate.
    ///
    /// # Errors
    /// In words: why they will not.
    pub fn is_for(&self, host: &str) -> Result<(), String> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare).map_err(|error| error.to_string())?;
        let Some((own, more)) = self.own.chain.split_first() else { return Ok(()) };
        let checked = self.own.verifier.verify_server_cert(own, more, &name, &[], UnixTime::now());
        checked.map(drop).map_err(|error| error.to_string())
    }
}

const CERT: &str = "--cluster-cert";
const KEY: &str = "--cluster-key";
const CA: &str = "--cluster-ca";

fn server(
    provider: &Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(TlsError::Unusable)
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ClientConfig, TlsError> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.to_vec(), key.clone_key())
        .map_err(TlsError::Unusable)
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CA, path)? {
        roots.add(certificate).map_err(|error| content(CA, path, error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = bytes(flag, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| content(flag, path, format!("it is no PEM: {error}")))?;
    if all.is_empty() {
        return Err(content(flag, path, "there is no certificate in it (PEM is wanted)".to_owned()));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = bytes(KEY, path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        content(
            KEY,
            path,
            match error {
                pem::Error::NoItemsFound => "there is no private key in it (PEM is wanted)".to_owned(),
                other => format!("it is no PEM: {other}"),
            },
        )
    })
}

fn bytes(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { flag, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(content(flag, path, format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn content(flag: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::Content { flag, path: path.to_owned(), reason }
}

/// What TLS had against a connection, if that is why it failed. It may lie within errors of several layers, and one of
/// the system within itself.
pub(crate) fn cause_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &'e (dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
#[path = "tls_tests.rs"]
pub(crate) mod tests;
