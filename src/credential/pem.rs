//! Files of PEM (RFC 7468): certificates, a private key, revocation lists.

use crate::credential::read_file;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::path::Path;

/// All certificates of a file, in their order; at least one.
///
/// # Errors
/// A sentence that names the file and says what is wrong.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    all(path, "certificate", "-----BEGIN CERTIFICATE-----")
}

/// All revocation lists of a file; at least one.
///
/// # Errors
/// As [`certificates`].
pub(crate) fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    all(path, "revocation list", "-----BEGIN X509 CRL-----")
}

/// The private key of a file.
///
/// # Errors
/// As [`certificates`]. Nothing of the key.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read_file(path)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| format!("the file {} holds no PEM private key without a passphrase", path.display()))
}

fn all<T: PemObject>(path: &Path, what: &str, begins: &str) -> Result<Vec<T>, String> {
    let text = read_file(path)?;
    let fault = |found: &str| format!("the file {} {found}; it takes PEM, `{begins}`", path.display());
    let found: Vec<T> = T::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|_| fault(&format!("cannot be read as a {what}")))?;
    if found.is_empty() { Err(fault(&format!("holds no {what}"))) } else { Ok(found) }
}
