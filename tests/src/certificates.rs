//! Certificates for nodes that talk by TLS, of an authority that is made for one test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority, with its files in one directory.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Authority {
    /// An authority that nobody has heard of before.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn new(dir: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir: dir.to_owned() }
    }

    /// The flags with which a node of this name talks to others, who call it at this host.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn flags(&self, name: &str, host: &str) -> [(&'static str, String); 3] {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let write = |what: &str, pem: String| {
            let path = self.dir.join(format!("{name}.{what}.pem"));
            std::fs::write(&path, pem).unwrap();
            path.display().to_string()
        };
        [
            ("--cluster-cert", write("cert", certificate.pem())),
            ("--cluster-key", write("key", key.serialize_pem())),
            ("--cluster-ca", self.dir.join("ca.pem").display().to_string()),
        ]
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("dir", &self.dir).finish_non_exhaustive()
    }
}
