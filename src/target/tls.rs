//! TLS towards a peer that is not reached by HTTP: rustls settings from a target's files, read again when they change; and words for what fails.

use crate::credential::{FileMark, Looked, read_file};
use crate::target::{Tls, TlsVersion};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore, version};
use rustls_platform_verifier::BuilderVerifierExt as _;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// How Kiln speaks TLS to one peer. Files that have changed are read again for the next connection.
pub(crate) struct ClientTls {
    tls: Tls,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ClientConfig>,
    marks: Vec<Option<FileMark>>,
    looked: Looked,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that names the file and says what is wrong.
    pub(crate) fn open(tls: Tls) -> Result<Self, String> {
        let marks = marks(&tls);
        let config = Arc::new(client_config(&tls)?);
        Ok(Self { tls, current: Mutex::new(Current { config, marks, looked: Looked::now() }) })
    }

    /// The settings for a new connection.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !current.marks.is_empty() && current.looked.is_due() {
            self.renew(&mut current);
        }
        Arc::clone(&current.config)
    }

    /// After a handshake that failed: a certificate that has been renewed on the disk is taken at once.
    pub(crate) fn look_again(&self) {
        self.renew(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn renew(&self, current: &mut Current) {
        let marks = marks(&self.tls);
        if marks == current.marks {
            return;
        }
        // Also where it fails: files that are half written change again, and are looked at again then.
        current.marks = marks;
        match client_config(&self.tls) {
            Ok(config) => {
                tracing::info!("certificates of a target have changed; new connections use them");
                current.config = Arc::new(config);
            }
            Err(what) => tracing::warn!("{what}; the last certificates that could be read are used"),
        }
    }
}

fn marks(tls: &Tls) -> Vec<Option<FileMark>> {
    tls.files().into_iter().map(FileMark::of).collect()
}

fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions: &[_] = match tls.minimum {
        TlsVersion::V12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V13 => &[&version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(|e| format!("TLS cannot be set up: {e}"))?;
    let builder = match &tls.ca {
        None => {
            builder.with_platform_verifier().map_err(|e| format!("the system's certificate authorities cannot be used ({e}): set `tls: {{ ca: FILE }}`"))?
        }
        Some(path) => {
            let text = read_file(path)?;
            let fault = |what: &str| format!("the file {} {what}; it takes PEM certificates, `-----BEGIN CERTIFICATE-----`", path.display());
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
                added.ok_or_else(|| fault("cannot be read as certificates"))?;
            }
            if roots.is_empty() {
                return Err(fault("holds no certificate"));
            }
            builder.with_root_certificates(roots)
        }
    };
    let Some((certificate, key)) = &tls.identity else { return Ok(builder.with_no_client_auth()) };
    let (chain, private) = (read_file(certificate)?, read_file(key)?);
    let missing = || format!("{} holds no PEM certificate, or {} no PEM private key without a passphrase", certificate.display(), key.display());
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|_| missing())?;
    let private = PrivateKeyDer::from_pem_slice(private.as_bytes()).map_err(|_| missing())?;
    if chain.is_empty() {
        return Err(missing());
    }
    builder.with_client_auth_cert(chain, private).map_err(|_| {
        format!("the certificate {} and the key {} do not belong together, or are of a kind that TLS cannot use", certificate.display(), key.display())
    })
}

/// Why TLS did not come about, and what to do.
pub(crate) fn tls_words(error: &TlsError) -> (&'static str, String) {
    use {AlertDescription as Alert, CertificateError as Fault};
    let (code, text) = match error {
        TlsError::InvalidCertificate(fault) => match fault {
            Fault::Expired | Fault::ExpiredContext { .. } => ("tls-expired", "the server's certificate has expired: its operator must renew it"),
            Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
                ("tls-not-yet", "the server's certificate is not valid yet: its clock or this machine's is wrong")
            }
            // A bad signature: an authority of the same name, with another key.
            Fault::UnknownIssuer | Fault::BadSignature => (
                "tls-issuer",
                "the server's certificate comes from an authority that is not trusted here: set `tls: { ca: FILE }` to the authority's certificate",
            ),
            Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
                ("tls-name", "the server's certificate is for another name than the target's address has: use the name that is in the certificate")
            }
            Fault::Revoked => ("tls-revoked", "the server's certificate has been revoked"),
            Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => ("tls-purpose", "the server's certificate is not meant for servers"),
            Fault::Other(_) => ("tls-certificate", "the server's certificate cannot be used: it names no host, or is an authority's own"),
            _ => ("tls-certificate", "the server's certificate is malformed"),
        },
        TlsError::AlertReceived(Alert::CertificateRequired) => {
            ("tls-client-certificate", "the server wants a client certificate: set `tls: { certificate: FILE, key: FILE }`")
        }
        TlsError::AlertReceived(
            Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::DecryptError
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied,
        ) => (
            "tls-client-certificate",
            "the server refuses Kiln's client certificate: it may have expired, or come from an authority that the server does not know",
        ),
        TlsError::AlertReceived(Alert::ProtocolVersion) | TlsError::PeerIncompatible(_) => {
            ("tls-version", "the server speaks no version of TLS, or no cipher, that this target allows (`tls: { minimum }`)")
        }
        TlsError::AlertReceived(Alert::HandshakeFailure) => {
            ("tls-refused", "the server refuses the TLS handshake: it may want a client certificate, or other ciphers")
        }
        TlsError::AlertReceived(_) => ("tls-refused", "the server ended the TLS handshake"),
        TlsError::InvalidMessage(_) => {
            ("tls-none", "the server does not speak TLS on this port; if it is meant without, write http:// (with mllp: leave tls out)")
        }
        _ => ("tls", "TLS did not come about"),
    };
    (code, text.to_owned())
}

/// The error and what caused it; an I/O error's inside too, which `source` leaves out.
pub(crate) fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| {
        let e: &'e (dyn Error + 'static) = *e;
        match e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inside) => Some(inside as &(dyn Error + 'static)),
            None => e.source(),
        }
    })
}

/// The first of that kind among an error and what caused it.
pub(crate) fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    chain(error).find_map(|e| e.downcast_ref::<E>())
}
