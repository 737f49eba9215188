//! Clients by the names of their certificates: subject alternative names (RFC 5280 section 4.2.1.6), and the subject's common name.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A client that may come in: a host, an e-mail address, a URI, an IP address or a common name, as its certificate has it.
/// `*.lab.example` stands for any one label before `.lab.example`. Upper and lower case of ASCII are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName(String);

impl FromStr for ClientName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match text.strip_prefix("*.").unwrap_or(text) {
            "" => Err("a client's name is empty"),
            rest if rest.contains('*') => Err("`*` stands for the first label only, as in *.lab.example"),
            _ => Ok(Self(text.to_ascii_lowercase())),
        }
    }
}

impl ClientName {
    /// True if this is a name of a certificate.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match self.0.strip_prefix('*') {
            Some(end) => name.strip_suffix(end).is_some_and(|label| !label.is_empty() && !label.contains('.')),
            None => name == self.0,
        }
    }
}

/// All names of a certificate; none if it cannot be read.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let mut names: Vec<String> = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        names.extend(extension.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => Some((*text).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        }));
    }
    names
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Takes a certificate that an authority signed for one of these names; without names, for anybody.
#[derive(Debug)]
pub(super) struct NamedClients {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) names: Vec<ClientName>,
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(&self, leaf: &CertificateDer<'_>, between: &[CertificateDer<'_>], now: UnixTime) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, between, now)?;
        let known = self.names.is_empty() || names(leaf).iter().any(|name| self.names.iter().any(|allowed| allowed.matches(name)));
        // The client is told `access_denied` (RFC 8446 section 6.2): its certificate is good, and does not open this door.
        if known { Ok(verified) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_itself_and_a_star_for_one_label() {
        let cases = [
            ("lab.example", "LAB.example", true),
            ("lab.example", "xlab.example", false),
            ("*.lab.example", "a.lab.example", true),
            ("*.lab.example", "lab.example", false),
            ("*.lab.example", ".lab.example", false),
            ("*.lab.example", "a.b.lab.example", false),
            ("Lab System 1", "lab system 1", true),
        ];
        for (allowed, name, expected) in cases {
            assert_eq!(allowed.parse::<ClientName>().expect("a name").matches(name), expected, "{allowed} {name}");
        }
        for wrong in ["", " ", "*.", "a*.example", "*.*.example"] {
            assert!(wrong.parse::<ClientName>().is_err(), "{wrong}");
        }
    }
}
