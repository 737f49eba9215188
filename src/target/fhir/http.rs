//! One HTTP request and its answer; what goes wrong below HTTP becomes a setback here.

use crate::exchange::Phi;
use crate::target::fhir::FhirTarget;
use crate::target::fhir::answer::Answer;
use crate::target::fhir::judge::retry_after;
use crate::target::{Fault, Retry, Setback};
use reqwest::RequestBuilder;
use reqwest::header::{ACCEPT, DATE, ETAG, HeaderMap, LOCATION, RETRY_AFTER};

/// An answer longer than this is not read further: no interaction of ours asks for so much.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Whether a request may change something on the server: decides what silence means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

impl FhirTarget {
    /// Sends and reads the answer to its end, whatever its status.
    pub(crate) async fn send(&self, request: RequestBuilder, effect: Effect) -> Result<Answer, Setback> {
        let response = request.header(ACCEPT, "application/fhir+json").send().await.map_err(|e| failed(e, effect))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = read(response, effect).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let header = |name| value(&headers, name);
        Ok(Answer {
            status,
            etag: header(ETAG),
            location: header(LOCATION),
            retry_after: header(RETRY_AFTER).and_then(|v| retry_after(&v, header(DATE).as_deref())),
            body: serde_json::from_slice(&bytes).ok(),
            text: Phi::new(text),
        })
    }
}

fn value(headers: &HeaderMap, name: reqwest::header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

async fn read(mut response: reqwest::Response, effect: Effect) -> Result<Vec<u8>, Setback> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(e, effect))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(silent(effect, "answer-too-long", format!("the server's answer is longer than {} MiB", ANSWER_BYTES_MAX >> 20)));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// reqwest's error, reduced to a kind: its own text may hold the URL, or what a server sent.
fn failed(error: reqwest::Error, effect: Effect) -> Setback {
    let setback = if error.is_builder() {
        plain(Retry::Transient, "request", "the request could not be built".to_owned())
    } else if error.is_connect() {
        plain(Retry::Transient, "connect", "the server could not be reached (name, TCP or TLS)".to_owned())
    } else if error.is_timeout() {
        silent(effect, "timeout", "the server did not answer in time".to_owned())
    } else {
        silent(effect, "connection-lost", "the connection ended before the answer was complete".to_owned())
    };
    let error = error.without_url();
    let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
    let text = std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ");
    setback.with_detail(text)
}

/// Sent, and no answer: for a write it may have happened.
fn silent(effect: Effect, code: &'static str, summary: String) -> Setback {
    plain(if effect == Effect::Writes { Retry::Ambiguous } else { Retry::Transient }, code, summary)
}

fn plain(retry: Retry, code: &'static str, summary: String) -> Setback {
    Setback { retry, fault: Fault::Target, retry_after: None, status: None, code, summary, detail: None, stale: Vec::new(), saved: Vec::new() }
}
