use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::Method;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::*;
use crate::http::{Server, ServerOptions};
use crate::outbound::CallError;
use crate::raft::{NodeClient, Secret};

/// An authority, and the directory that its certificates lie in.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    /// The files of a node that is called by this name.
    pub(crate) fn files(&self, host: &str) -> TlsFlags {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |what: &str| self.dir.path().join(format!("{host}.{what}"));
        std::fs::write(path("cert"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        TlsFlags {
            cluster_cert: Some(path("cert")),
            cluster_key: Some(path("key")),
            cluster_ca: Some(self.dir.path().join("ca")),
        }
    }

    pub(crate) fn node(&self, host: &str) -> NodeTls {
        NodeTls::of(&self.files(host)).unwrap().unwrap()
    }
}

/// A server, until it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Served {
    fn start(tls: &NodeTls, connections_max: usize) -> Self {
        let router = Router::new().route("/", get(|| async { "heard" }));
        Self::of(router, Some(tls), connections_max)
    }

    /// In the open, where there is no TLS.
    pub(crate) fn of(router: Router, tls: Option<&NodeTls>, connections_max: usize) -> Self {
        let options = ServerOptions {
            connections_max,
            header_timeout: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(1),
        };
        let server = Server::bind(([127, 0, 0, 1], 0).into(), options).unwrap().listen().unwrap();
        let address = server.local_address().unwrap();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(server.with_tls(tls).serve(router, async { stopped.await.unwrap_or_default() }));
        Self { address, _stop: stop }
    }

    async fn called(&self, tls: Option<&NodeTls>, host: &str) -> Result<Vec<u8>, CallError> {
        let client = NodeClient::new(Secret::none(), tls);
        let url = format!("{}://{host}:{}/", client.scheme().as_str(), self.address.port());
        let answer = client.call(Method::GET, &url, Vec::new(), Duration::from_secs(10), 100).await;
        answer.map(|bytes| bytes.to_vec())
    }
}

fn refused(files: &TlsFlags) -> String {
    NodeTls::of(files).unwrap_err().to_string()
}

fn assert_says(said: &str, expected: &str) {
    assert!(said.contains(expected), "{said}");
}

#[test]
fn files_that_others_would_not_take_are_refused_by_name() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let files = ours.files("127.0.0.1");
    assert!(NodeTls::of(&TlsFlags::default()).unwrap().is_none());
    for (incomplete, missing) in [
        (TlsFlags { cluster_cert: None, ..files.clone() }, "--cluster-cert is missing"),
        (TlsFlags { cluster_key: None, ..files.clone() }, "--cluster-key is missing"),
        (TlsFlags { cluster_ca: None, ..files.clone() }, "--cluster-ca is missing"),
    ] {
        assert_says(&refused(&incomplete), missing);
    }
    let write = |name: &str, text: &[u8]| {
        let path = ours.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let with_cert = |cert| TlsFlags { cluster_cert: cert, ..files.clone() };
    let with_key = |key| TlsFlags { cluster_key: key, ..files.clone() };
    let with_ca = |ca| TlsFlags { cluster_ca: ca, ..files.clone() };
    let nowhere = Some(ours.dir.path().join("nowhere"));
    assert_says(&refused(&with_cert(nowhere)), "nowhere: No such file");
    assert_says(&refused(&with_cert(files.cluster_key.clone())), "there is no certificate in it");
    assert_says(&refused(&with_key(files.cluster_cert.clone())), "there is no private key in it");
    let torn = b"-----BEGIN CERTIFICATE-----\nMIIB\n";
    assert_says(&refused(&with_ca(write("torn", torn))), "--cluster-ca");
    let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_says(&refused(&with_ca(write("garbage", garbage))), "garbage: ");
    assert_says(&refused(&with_cert(write("large", &vec![b' '; 2 << 20]))), "larger than");
    assert_says(&refused(&with_key(theirs.files("b").cluster_key)), "the node's certificate and key: ");
    assert_says(&refused(&with_ca(theirs.files("b").cluster_ca)), "the other nodes will not take it: ");
    let tls = ours.node("127.0.0.1");
    assert!(tls.is_for("127.0.0.1").is_ok() && tls.is_for("[::1]").is_err() && tls.is_for("b").is_err());
}

#[tokio::test]
async fn nodes_of_one_authority_talk_and_nobody_else_is_heard() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = ours.node("127.0.0.1");
    let served = Served::start(&server, 8);
    // By an address that is in the certificate, and by a certificate of its own.
    assert_eq!(served.called(Some(&ours.node("another")), "127.0.0.1").await.unwrap(), b"heard");
    let other_host = served.called(Some(&server), "localhost").await.unwrap_err();
    assert!(other_host.is_of_tls(), "{other_host}");
    assert_says(&other_host.to_string(), "not valid for name");
    let stranger = served.called(Some(&theirs.node("127.0.0.1")), "127.0.0.1").await.unwrap_err();
    assert!(stranger.is_of_tls(), "{stranger}");
    // Who trusts the node, and has a certificate of another authority to show, or none.
    let mut two_faced = theirs.node("127.0.0.1");
    let trusted = |provider: &Arc<CryptoProvider>| {
        let roots = Arc::new(roots(ours.files("x").cluster_ca.as_deref().unwrap()).unwrap());
        ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let files = theirs.files("y");
    let chain = certificates(CERT, files.cluster_cert.as_deref().unwrap()).unwrap();
    let key = private_key(files.cluster_key.as_deref().unwrap()).unwrap();
    for client in [
        trusted(&provider).with_client_auth_cert(chain, key).unwrap(),
        trusted(&provider).with_no_client_auth(),
    ] {
        two_faced.client = Arc::new(client);
        let refused = served.called(Some(&two_faced), "127.0.0.1").await.unwrap_err();
        assert!(matches!(refused, CallError::Unreachable(_)), "{refused}");
    }
    // In the open: what comes back, if anything does, is no answer to it.
    let open = served.called(None, "127.0.0.1").await.unwrap_err();
    assert!(matches!(open, CallError::Unreachable(_)), "{open}");
    assert_eq!(served.called(Some(&server), "127.0.0.1").await.unwrap(), b"heard");
}

#[tokio::test]
async fn who_is_silent_instead_of_agreeing_holds_a_connection_for_a_bounded_time() {
    let ours = Authority::new();
    let tls = ours.node("127.0.0.1");
    let served = Served::start(&tls, 1);
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    silent.write_all(b"\x16\x03").await.unwrap();
    let began = Instant::now();
    // The one connection is taken until then.
    assert_eq!(silent.read(&mut [0; 64]).await.unwrap_or_default(), 0);
    assert!(began.elapsed() >= crate::limits::TLS_HANDSHAKE_TIME_MAX / 2, "{:?}", began.elapsed());
    assert_eq!(served.called(Some(&tls), "127.0.0.1").await.unwrap(), b"heard");
}

#[tokio::test]
async fn a_node_that_takes_connections_and_does_not_agree_is_given_up_in_time() {
    let ours = Authority::new();
    let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = NodeClient::new(Secret::none(), Some(&ours.node("127.0.0.1")));
    let url = format!("https://{}/", frozen.local_addr().unwrap());
    let called = client.call(Method::GET, &url, Vec::new(), Duration::from_secs(60), 100);
    let error = timeout(Duration::from_secs(20), called).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn by_tls_nobody_is_called_in_the_open() {
    let ours = Authority::new();
    let client = NodeClient::new(Secret::none(), Some(&ours.node("127.0.0.1")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let error = client.call(Method::GET, &url, Vec::new(), Duration::from_secs(10), 100).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error}");
    assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err());
}
