//! What goes wrong below HTTP: each kind with its own word, and a sentence that says what to do.

use crate::target::fhir::connection::Connection;
use crate::target::fhir::http::{ANSWER_BYTES_MAX, Effect};
use crate::target::{Fault, Retry, Setback};
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::error::Error;

/// An HTTP error, reduced to a kind: its own text may hold the URL, or what a server sent.
pub(crate) fn failed(error: reqwest::Error, effect: Effect, connection: &Connection) -> Setback {
    let setback = if let Some(tls) = find::<TlsError>(&error) {
        // A certificate that was renewed on the disk meanwhile is taken for the next connection.
        connection.look_again();
        let (code, summary) = tls_words(tls);
        // The handshake, or the server's refusal of our certificate right after it: no request was read.
        let before = error.is_connect() || matches!(tls, TlsError::AlertReceived(_));
        if before { plain(Retry::Transient, code, summary) } else { silent(effect, code, summary) }
    } else if error.is_builder() {
        plain(Retry::Transient, "request", "the request could not be built".to_owned())
    } else if error.is_connect() {
        let (code, summary) = connect_words(&error);
        plain(Retry::Transient, code, summary.to_owned())
    } else if error.is_timeout() {
        silent(effect, "timeout", "the server did not answer in time".to_owned())
    } else {
        silent(effect, "connection-lost", "the connection ended before the answer was complete".to_owned())
    };
    let text = chain(&error.without_url()).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    setback.with_detail(text)
}

/// An answer that is not read to its end.
pub(crate) fn too_long(effect: Effect) -> Setback {
    silent(effect, "answer-too-long", format!("the server's answer is longer than {} MiB", ANSWER_BYTES_MAX >> 20))
}

/// Why TLS did not come about, and what to do.
fn tls_words(error: &TlsError) -> (&'static str, String) {
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
                ("tls-name", "the server's certificate is for another name than the target's URL has: use the name that is in the certificate")
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
        TlsError::InvalidMessage(_) => ("tls-none", "the server does not speak TLS on this port: is it `http://`?"),
        _ => ("tls", "TLS did not come about"),
    };
    (code, text.to_owned())
}

fn connect_words(error: &reqwest::Error) -> (&'static str, &'static str) {
    let says = |word: &str| chain(error).any(|e| e.to_string().contains(word));
    if says("dns error") {
        return ("dns", "the server's name is not known: check the target's URL, and the name server");
    }
    if says("proxy authentication required") {
        return ("proxy", "the proxy wants a user and a password: set `proxy: { url, user, password }`");
    }
    if says("tunnel error") || says("unsuccessful tunnel") {
        return ("proxy", "the proxy does not let this target through");
    }
    if error.is_timeout() {
        return ("connect-timeout", "the server did not take the connection in time");
    }
    ("connect", "the server could not be reached")
}

/// The error and what caused it; an I/O error's inside too, which `source` leaves out.
fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| {
        let e: &'e (dyn Error + 'static) = *e;
        match e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inside) => Some(inside as &(dyn Error + 'static)),
            None => e.source(),
        }
    })
}

fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    chain(error).find_map(|e| e.downcast_ref::<E>())
}

/// Sent, and no answer: for a write it may have happened.
fn silent(effect: Effect, code: &'static str, summary: String) -> Setback {
    plain(if effect == Effect::Writes { Retry::Ambiguous } else { Retry::Transient }, code, summary)
}

fn plain(retry: Retry, code: &'static str, summary: String) -> Setback {
    Setback { retry, fault: Fault::Target, retry_after: None, status: None, code, summary, detail: None, stale: Vec::new(), saved: Vec::new() }
}
