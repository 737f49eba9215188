//! What the tests of security share: servers on Node, certificates made for the occasion, and a TLS front before a plain server.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

use rcgen::{BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};

/// A server of tests/servers; it ends when its standard input closes.
pub(crate) struct Node {
    child: Child,
    _life: ChildStdin,
    /// What it said of itself: its address.
    pub(crate) url: String,
    client: reqwest::Client,
}

impl Node {
    /// `None`, with the reason on standard error, where the packages are not installed.
    #[allow(clippy::print_stderr, reason = "a test that was skipped says so")]
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name);
        if !folder.join("node_modules").exists() {
            let reason = format!("tests/servers/{name} has no node_modules: run `npm ci` there");
            assert!(!std::env::var("KILN_E2E").is_ok_and(|set| !matches!(set.as_str(), "" | "0")), "{reason}");
            eprintln!("skipped: {reason}");
            return None;
        }
        let mut command = Command::new("node");
        command.args(["server.mjs", "--port", "0"]).args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("node is installed where its packages are");
        let life = child.stdin.take().expect("piped");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut url = String::new();
        out.read_line(&mut url).expect("the server says where it is");
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Some(Self { child, _life: life, url: url.trim().to_owned(), client: reqwest::Client::new() })
    }

    /// Its address without a path.
    pub(crate) fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("http://").split('/').next().expect("a host").parse().expect("an address")
    }

    /// `/__fault` and the like.
    pub(crate) async fn control(&self, what: &str, body: Value) -> Value {
        let url = format!("http://{}/__{what}", self.address());
        let text = self.client.post(url).body(body.to_string()).send().await.expect("the server is there").text().await.expect("a text");
        serde_json::from_str(&text).expect("JSON")
    }

    pub(crate) async fn count(&self, what: &str, key: &str) -> u64 {
        self.control(what, serde_json::json!({})).await[key].as_u64().expect("a number")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number that no other test has.
fn number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate and its key, PEM.
pub(crate) struct Pem {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        // Two authorities of one name would be told apart by their signatures only.
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("Authority {}", number()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// For a server of this name, good until this year.
    pub(crate) fn server(&self, name: &str, until: i32) -> Pem {
        self.leaf(name, until, ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(&self) -> Pem {
        self.leaf("kiln", 4000, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A client of this host and common name.
    pub(crate) fn named_client(&self, name: &str, common_name: &str) -> Pem {
        let mut params = params(name, 4000, ExtendedKeyUsagePurpose::ClientAuth);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        self.sign(params)
    }

    /// A client whose certificate has this serial number.
    pub(crate) fn numbered_client(&self, serial: u64) -> Pem {
        let mut params = params("kiln", 4000, ExtendedKeyUsagePurpose::ClientAuth);
        params.serial_number = Some(serial.into());
        self.sign(params)
    }

    /// A list of the certificates of these serial numbers, which are good no more.
    pub(crate) fn revocations(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| rcgen::RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(4000, 1, 1),
            crl_number: number().into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("signed").pem().expect("PEM")
    }

    fn leaf(&self, name: &str, until: i32, purpose: ExtendedKeyUsagePurpose) -> Pem {
        self.sign(params(name, until, purpose))
    }

    fn sign(&self, params: CertificateParams) -> Pem {
        let key = KeyPair::generate().expect("a key");
        Pem { certificate: params.signed_by(&key, &self.issuer).expect("signed").pem(), key: key.serialize_pem() }
    }
}

fn params(name: &str, until: i32, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    params.extended_key_usages = vec![purpose];
    params
}

/// What a TLS front asks for.
pub(crate) struct Front<'a> {
    pub(crate) identity: &'a Pem,
    /// Clients must have a certificate of one of these.
    pub(crate) clients: &'a [&'a Authority],
    /// No TLS 1.3.
    pub(crate) old: bool,
}

impl Front<'_> {
    /// Takes TLS connections and hands what is in them to the plain server. Its port.
    pub(crate) async fn before(self, behind: SocketAddr) -> u16 {
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let versions: &[_] = if self.old { &[&version::TLS12] } else { &[&version::TLS13, &version::TLS12] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).expect("versions");
        let builder = if self.clients.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            self.clients.iter().for_each(|a| roots.add(a.certificate.der().clone()).expect("an authority"));
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier"))
        };
        let chain = vec![CertificateDer::from_pem_slice(self.identity.certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(self.identity.key.as_bytes()).expect("a key");
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("a certificate and its key")));
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = socket.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let (Ok(mut front), Ok(mut back)) = (acceptor.accept(stream).await, TcpStream::connect(behind).await) {
                        let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
                    }
                });
            }
        });
        port
    }
}

/// Writes a text into a folder.
pub(crate) fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path
}
