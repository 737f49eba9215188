//! What a server answered, and what its parts mean.

use crate::exchange::Phi;
use crate::target::{Fault, Retry, Setback};
use serde_json::Value;
use std::time::Duration;

/// How much of an answer is kept with a setback.
const DETAIL_BYTES_MAX: usize = 64 * 1024;

/// An HTTP answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// The body as JSON, if it is.
    pub(crate) body: Option<Value>,
    /// The body as text.
    pub(crate) text: Phi<String>,
}

/// Where an interaction's resource is now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: Option<String>,
    pub(crate) etag: Option<String>,
    pub(crate) status: u16,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn resource_type(&self) -> Option<&str> {
        self.body.as_ref()?.get("resourceType")?.as_str()
    }

    pub(crate) fn is_fhir(&self) -> bool {
        self.resource_type().is_some()
    }

    /// The issues of an OperationOutcome.
    pub(crate) fn issues(&self) -> impl Iterator<Item = &Value> {
        let body = self.body.as_ref().filter(|_| self.resource_type() == Some("OperationOutcome"));
        body.and_then(|b| b.get("issue")).and_then(Value::as_array).into_iter().flatten()
    }

    /// A setback that keeps this answer.
    pub(crate) fn setback(&self, retry: Retry, fault: Fault, code: &'static str, summary: impl Into<String>) -> Setback {
        let text = self.text.expose();
        let cut = text.floor_char_boundary(DETAIL_BYTES_MAX);
        Setback {
            retry,
            fault,
            retry_after: self.retry_after,
            status: Some(self.status),
            code,
            summary: summary.into(),
            detail: (cut > 0).then(|| Phi::new(text[..cut].to_owned())),
            stale: Vec::new(),
            saved: Vec::new(),
            sent: Vec::new(),
            about: Vec::new(),
        }
    }

    /// Where a single interaction's resource is: from Location and ETag, else from the body.
    pub(crate) fn place(&self) -> Place {
        let mut place = place(self.location.as_deref(), self.etag.as_deref(), self.body.as_ref());
        place.status = self.status;
        place
    }

    /// The entries of a `transaction-response` or `batch-response`, if that is what it is and it has as many entries as the request.
    pub(crate) fn entries(&self, bundle_type: &str, count: usize) -> Option<Vec<Value>> {
        let body = self.body.as_ref().filter(|_| self.is_success() && self.resource_type() == Some("Bundle"))?;
        let entries = body.get("entry").and_then(Value::as_array)?;
        (body.get("type").and_then(Value::as_str) == Some(bundle_type) && entries.len() == count).then(|| entries.clone())
    }
}

/// Where an entry of a response Bundle says that its resource is. A status that cannot be read is 0.
pub(crate) fn entry_place(entry: &Value) -> Place {
    let response = entry.get("response");
    let text = |key: &str| response.and_then(|r| r.get(key)).and_then(Value::as_str);
    let mut place = place(text("location"), text("etag"), entry.get("resource"));
    place.status = text("status").and_then(|s| s.split_whitespace().next()).and_then(|s| s.parse().ok()).unwrap_or(0);
    place
}

/// `https://h/fhir/Patient/12/_history/3`, `Patient/12/_history/3`, `Patient/12`.
fn place(location: Option<&str>, etag: Option<&str>, resource: Option<&Value>) -> Place {
    let (path, version) = match location.map(|l| l.split_once("/_history/").map_or((l, None), |(path, version)| (path, Some(version)))) {
        Some((path, version)) => (Some(path), version),
        None => (None, None),
    };
    let resource = resource.filter(|r| r.get("resourceType").and_then(Value::as_str).is_some_and(|t| t != "OperationOutcome"));
    let body_id = resource.and_then(|r| r.get("id")).and_then(Value::as_str);
    let body_version = resource.and_then(|r| r.pointer("/meta/versionId")).and_then(Value::as_str);
    let id = path.and_then(|p| p.trim_end_matches('/').rsplit('/').next()).filter(|id| is_id(id)).or(body_id).map(str::to_owned);
    // HAPI's Bundles say `2` where its header says `W/"2"`.
    let etag =
        etag.map(|e| if e.contains('"') { e.to_owned() } else { format!("W/\"{e}\"") }).or_else(|| version.or(body_version).map(|v| format!("W/\"{v}\"")));
    Place { id, etag, status: 0 }
}

/// A logical id (<https://hl7.org/fhir/R4/datatypes.html#id>).
pub(crate) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_read_from_what_servers_say() {
        for (entry, id, etag, status) in [
            (json!({"response": {"status": "201 Created", "location": "Patient/12/_history/1", "etag": "W/\"1\""}}), Some("12"), Some("W/\"1\""), 201),
            (json!({"response": {"status": "200", "location": "https://h.example/fhir/Patient/12/_history/4"}}), Some("12"), Some("W/\"4\""), 200),
            (json!({"response": {"status": "200 OK", "location": "Patient/12/_history/5", "etag": "5"}}), Some("12"), Some("W/\"5\""), 200),
            (json!({"response": {"status": "201", "location": "Patient/12"}}), Some("12"), None, 201),
            (
                json!({"resource": {"resourceType": "Patient", "id": "a-1", "meta": {"versionId": "7"}}, "response": {"status": "200"}}),
                Some("a-1"),
                Some("W/\"7\""),
                200,
            ),
            (json!({"resource": {"resourceType": "OperationOutcome", "id": "x"}, "response": {"status": "204 No Content"}}), None, None, 204),
            (json!({}), None, None, 0),
        ] {
            let expected = Place { id: id.map(str::to_owned), etag: etag.map(str::to_owned), status };
            assert_eq!(entry_place(&entry), expected, "{entry}");
        }
    }
}
