//! What goes wrong below HTTP: each kind with its own word, and a sentence that says what to do.

use crate::target::fhir::connection::Connection;
use crate::target::fhir::http::{ANSWER_BYTES_MAX, Effect};
use crate::target::tls::{chain, find, tls_words};
use crate::target::{Fault, Retry, Setback};
use rustls::Error as TlsError;

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

/// Sent, and no answer: for a write it may have happened.
fn silent(effect: Effect, code: &'static str, summary: String) -> Setback {
    plain(if effect == Effect::Writes { Retry::Ambiguous } else { Retry::Transient }, code, summary)
}

fn plain(retry: Retry, code: &'static str, summary: String) -> Setback {
    Setback {
        retry,
        fault: Fault::Target,
        retry_after: None,
        status: None,
        code,
        summary,
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
        sent: Vec::new(),
        about: Vec::new(),
    }
}
