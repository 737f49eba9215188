//! One HTTP request and its answer, let in by what the target has, and once more with fresh credentials after a 401.

use crate::exchange::Phi;
use crate::fhir::Json;
use crate::target::Setback;
use crate::target::fhir::FhirTarget;
use crate::target::fhir::answer::Answer;
use crate::target::fhir::connection::Connection;
use crate::target::fhir::failure::{failed, too_long};
use crate::target::fhir::judge::retry_after;
use crate::target::fhir::pieces::Pieces;
use reqwest::header::{ACCEPT, CACHE_CONTROL, DATE, ETAG, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Body, RequestBuilder};

/// An answer longer than this is not read further: no interaction of ours asks for so much.
pub(crate) const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Whether a request may change something on the server: decides what silence means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

impl FhirTarget {
    /// Sends and reads the answer to its end, whatever its status.
    ///
    /// A 401 says that nothing was done: the request is sent once more if there are other credentials than those that were refused.
    pub(crate) async fn send(&self, request: RequestBuilder, effect: Effect) -> Result<Answer, Setback> {
        let request = request.header(ACCEPT, HeaderValue::from_static("application/fhir+json"));
        // HAPI gives a search's result of the last minute again unless it is told not to: what was written since would be missing.
        let request = if effect == Effect::Reads { request.header(CACHE_CONTROL, HeaderValue::from_static("no-cache")) } else { request };
        let again = request.try_clone();
        self.either(request, again, effect).await
    }

    /// The same with JSON as its body, which is not copied.
    pub(crate) async fn send_json(&self, request: RequestBuilder, body: Json, effect: Effect) -> Result<Answer, Setback> {
        let request = request.header(ACCEPT, HeaderValue::from_static("application/fhir+json"));
        let body = Pieces::of(body);
        let again = request.try_clone().map(|again| again.body(Body::wrap(body.clone())));
        self.either(request.body(Body::wrap(body)), again, effect).await
    }

    /// Sends the one, and after a 401 the other.
    async fn either(&self, request: RequestBuilder, again: Option<RequestBuilder>, effect: Effect) -> Result<Answer, Setback> {
        let headers = self.access.headers(&self.client).await?;
        let answer = self.paced(request.headers(headers.clone()), effect).await?;
        if answer.status == 401
            && let Some(again) = again
            && let Some(fresh) = Box::pin(self.access.renewed(&headers, &self.client)).await?
        {
            return self.paced(again.headers(fresh), effect).await;
        }
        Ok(answer)
    }

    async fn paced(&self, request: RequestBuilder, effect: Effect) -> Result<Answer, Setback> {
        if let Some(pace) = &self.pace {
            pace.turn().await;
        }
        let answer = exchange(&self.client, request, effect).await;
        if let Ok(answer) = &answer {
            self.was_reached();
            if answer.is_success() && answer.is_fhir() {
                self.was_proven();
            }
        }
        answer
    }
}

/// One request as it is, and its whole answer.
pub(crate) async fn exchange(connection: &Connection, request: RequestBuilder, effect: Effect) -> Result<Answer, Setback> {
    let response = request.send().await.map_err(|e| failed(e, effect, connection))?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let bytes = read(response, effect, connection).await?;
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

fn value(headers: &HeaderMap, name: reqwest::header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

async fn read(mut response: reqwest::Response, effect: Effect, connection: &Connection) -> Result<Vec<u8>, Setback> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(e, effect, connection))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(too_long(effect));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
