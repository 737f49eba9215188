//! TLS on a listener: its certificate by the name that a client asks for, and which clients may come in. Files that change are read again for
//! new connections; those that are open stay.

use crate::credential::{FileMark, Looked, TlsVersion, certificates, private_key, revocations};
use crate::listener::client_name::{ClientName, NamedClients};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error as TlsError, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::ServerName;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// TLS of a listener, as the site file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Files with a certificate (and its chain) and its private key, both PEM; never none. A client that names a host (SNI, RFC 6066 section 3)
    /// gets the first that is for this host, others the first of all.
    pub identities: Vec<(PathBuf, PathBuf)>,
    /// The oldest version that is spoken.
    pub minimum: TlsVersion,
    /// Which clients may come in; `None`: also those without a certificate.
    pub clients: Option<Clients>,
}

/// Clients that must have a certificate (mutual TLS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// A file of PEM certificates: the authorities that sign certificates of clients.
    pub ca: PathBuf,
    /// A file of PEM revocation lists (RFC 5280 section 5). With it a certificate of an authority without a list is refused.
    pub revoked: Option<PathBuf>,
    /// Whom of them to let in; empty for all.
    pub names: Vec<ClientName>,
}

impl ServerTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// A sentence that names the file and says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.config().map(|_| ())
    }

    /// All files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let identities = self.identities.iter().flat_map(|(certificate, key)| [certificate.as_path(), key.as_path()]);
        let clients = self.clients.iter().flat_map(|c| [Some(c.ca.as_path()), c.revoked.as_deref()]).flatten();
        identities.chain(clients).collect()
    }

    fn config(&self) -> Result<ServerConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions: &[&SupportedProtocolVersion] = match self.minimum {
            TlsVersion::V12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::V13 => &[&version::TLS13],
        };
        let identities = self.identities.iter().map(|(certificate, key)| Identity::read(certificate, key, &provider)).collect::<Result<Vec<_>, _>>()?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
        let builder = builder.map_err(|_| "this version of TLS cannot be spoken here".to_owned())?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::new(clients.verifier(provider)?)),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Identities(identities)));
        if self.clients.is_some() {
            // A session that is taken up again would skip the look at the certificate, which may have been revoked since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }
}

impl Clients {
    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<NamedClients, String> {
        let unusable = |path: &Path, what: &str| format!("the file {} holds {what} that cannot be used", path.display());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|_| unusable(&self.ca, "an authority's certificate"))?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if let Some(path) = &self.revoked {
            builder = builder.with_crls(revocations(path)?);
        }
        let chain = builder.build().map_err(|_| unusable(self.revoked.as_deref().unwrap_or(&self.ca), "a list"))?;
        Ok(NamedClients { chain, names: self.names.clone() })
    }
}

#[derive(Debug)]
struct Identity(Arc<CertifiedKey>);

impl Identity {
    fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Self, String> {
        let (chain, private) = (certificates(certificate)?, private_key(key)?);
        let pair = CertifiedKey::from_der(chain, private, provider).map_err(|_| {
            format!("the certificate {} and the key {} do not belong together, or are of a kind that TLS cannot use", certificate.display(), key.display())
        })?;
        Ok(Self(Arc::new(pair)))
    }

    fn is_for(&self, host: &str) -> bool {
        let (Ok(host), Ok(certificate)) = (ServerName::try_from(host), self.0.end_entity_cert()) else { return false };
        ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &host).is_ok())
    }
}

#[derive(Debug)]
struct Identities(Vec<Identity>);

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Of an RSA and an EC certificate for one host, the one that the client can check.
        let usable = |identity: &&Identity| identity.0.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = hello.server_name().and_then(|host| self.0.iter().filter(usable).find(|identity| identity.is_for(host)));
        named.or_else(|| self.0.iter().find(usable)).map(|identity| Arc::clone(&identity.0))
    }
}

/// TLS in use.
pub(super) struct HeldTls {
    settings: ServerTls,
    held: Mutex<Held>,
}

struct Held {
    config: Arc<ServerConfig>,
    marks: Vec<Option<FileMark>>,
    looked: Looked,
}

impl HeldTls {
    pub(super) fn open(settings: ServerTls) -> Result<Self, String> {
        // The marks come first: a file that changes in between is then read once more.
        let marks = marks(&settings);
        let config = Arc::new(settings.config()?);
        Ok(Self { settings, held: Mutex::new(Held { config, marks, looked: Looked::now() }) })
    }

    /// What the next handshake uses. Files that cannot be used at the moment (half of an exchange) leave the last ones in force.
    pub(super) fn current(&self, listener: &str) -> Arc<ServerConfig> {
        // Whole values are put in one step.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked.is_due() {
            let marks = marks(&self.settings);
            if marks != held.marks {
                held.marks = marks;
                match self.settings.config() {
                    Ok(config) => {
                        tracing::info!(listener, "certificates of a listener have changed; new connections use them");
                        held.config = Arc::new(config);
                    }
                    Err(what) => tracing::warn!(listener, "{what}; the last certificates that could be read are used"),
                }
            }
        }
        Arc::clone(&held.config)
    }
}

fn marks(settings: &ServerTls) -> Vec<Option<FileMark>> {
    settings.files().into_iter().map(FileMark::of).collect()
}

/// What went wrong in a handshake, for whoever runs the listener. Nothing of what the peer said.
pub(super) fn reason(error: &std::io::Error) -> &'static str {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return "it closed the connection";
    };
    match tls {
        TlsError::NoCertificatesPresented => "it showed no certificate, and `tls: { clients }` wants one",
        TlsError::InvalidCertificate(fault) => match fault {
            CertificateError::ApplicationVerificationFailure => "no name of its certificate is in `tls: { clients: { names } }`",
            CertificateError::UnknownIssuer => "no authority of `tls: { clients: { ca } }` signed its certificate",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "its certificate is not valid yet; or a clock is wrong",
            CertificateError::Revoked => "its certificate was revoked",
            CertificateError::UnknownRevocationStatus => "`tls: { clients: { revoked } }` has no list of its certificate's authority",
            CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => "the revocation list has expired: get a new one",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "its certificate is not one for clients",
            _ => "its certificate cannot be used",
        },
        TlsError::PeerIncompatible(_) => "no version of TLS, or no cipher, in common",
        TlsError::InvalidMessage(_) => "it does not speak TLS",
        TlsError::AlertReceived(_) => "it ended the handshake: mostly it does not trust this listener's certificate, or wants another name in it",
        _ => "it broke the rules of TLS",
    }
}

/// True if the certificate itself was fine, and nobody of its names may come in.
pub(super) fn is_unnamed(error: &std::io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    matches!(tls, Some(TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure)))
}
