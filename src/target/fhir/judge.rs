//! Whose fault a status is (docs/guarantees.md, "Whose fault a failure is"), and when to come back.

use crate::fhir::value_set;
use crate::target::fhir::answer::Answer;
use crate::target::{Fault, Retry, Setback};
use std::time::Duration;

/// What the request was addressed to: decides what "not found" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The base URL (a Bundle), a type, `_search` or `metadata`.
    Endpoint,
    /// One resource by its id.
    Instance,
}

/// Retry, fault and word for a status that is not the promised one. `is_fhir`: the body is a FHIR resource.
///
/// Transient only where the server provably did nothing. A 500, 502 or 504 may have done it.
pub(crate) fn judge(status: u16, asked: Asked, is_fhir: bool) -> (Retry, Fault, &'static str) {
    use {Fault::*, Retry::*};
    let (retry, fault) = match status {
        200..=299 => return (Ambiguous, Target, if is_fhir { "not-promised" } else { "not-fhir" }),
        300..=399 => return (Transient, Target, "redirect"),
        401 | 403 | 405 | 407 | 408 | 415 | 425 | 429 => (Transient, Target),
        404 | 410 if asked == Asked::Instance && is_fhir => (Permanent, Message),
        404 | 410 => (Transient, Target),
        409 | 423 => (Transient, Race),
        413 => (Permanent, Message),
        400..=499 if is_fhir => (Permanent, Message),
        400..=499 => return (Transient, Target, "not-fhir"),
        501 | 503 => (Transient, Target),
        _ => (Ambiguous, Target),
    };
    (retry, fault, word(status))
}

/// A fixed word for a status.
pub(crate) fn word(status: u16) -> &'static str {
    match status {
        400 => "http-400",
        401 => "http-401",
        403 => "http-403",
        404 => "http-404",
        405 => "http-405",
        407 => "http-407",
        408 => "http-408",
        409 => "http-409",
        410 => "http-410",
        412 => "http-412",
        413 => "http-413",
        415 => "http-415",
        422 => "http-422",
        423 => "http-423",
        425 => "http-425",
        429 => "http-429",
        500 => "http-500",
        501 => "http-501",
        502 => "http-502",
        503 => "http-503",
        504 => "http-504",
        _ if (400..500).contains(&status) => "http-4xx",
        _ if (500..600).contains(&status) => "http-5xx",
        _ => "http-other",
    }
}

/// The setback for an answer that is not the promised one. `what` names the request without patient data: "the transaction".
pub(crate) fn setback(answer: &Answer, asked: Asked, what: &str) -> Setback {
    let (retry, fault, code) = judge(answer.status, asked, answer.is_fhir());
    let status = answer.status;
    let summary = match code {
        "not-fhir" => format!("the answer {status} to {what} is not FHIR; something other than the FHIR server seems to have given it"),
        "not-promised" => format!("the answer {status} to {what} is not what the interaction promises"),
        "redirect" => format!("the server redirects {what} ({status}); set the target's address to where it points"),
        _ => format!("the server answered {status} to {what}{}", issues(answer)),
    };
    answer.setback(retry, fault, code, summary)
}

/// A delete that the server refuses because other resources still refer to it: repeating it cannot help, and must not hold up what follows.
pub(crate) fn still_referred(answer: &Answer) -> Setback {
    let summary = format!("the server keeps a resource that was to be deleted, since others still refer to it{}", issues(answer));
    answer.setback(Retry::Permanent, Fault::Message, "still-referred", summary)
}

/// The issue codes of an OperationOutcome, as far as they are FHIR's own: ` (invalid, required)`. Anything else may be patient data.
fn issues(answer: &Answer) -> String {
    let known = value_set("issue-type");
    let mut codes: Vec<&str> = Vec::new();
    for code in answer.issues().filter_map(|i| i.get("code")).filter_map(|c| c.as_str()) {
        if known.is_some_and(|set| set.find(code).is_some()) && !codes.contains(&code) {
            codes.push(code);
        }
    }
    if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) }
}

/// Retry-After in seconds or as an HTTP date (RFC 9110, section 10.2.3); a date counts from the answer's own Date, so that clocks need not agree.
pub(crate) fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    /// No server's wish keeps a delivery longer than this.
    const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(WAIT_MAX));
    }
    let then = http_date(value)?;
    let now = date.and_then(http_date).unwrap_or_else(jiff::Timestamp::now);
    let seconds = u64::try_from(then.as_second().saturating_sub(now.as_second())).unwrap_or(0);
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}

fn http_date(text: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use {Asked::*, Fault::*, Retry::*};

    #[test]
    fn each_status_has_somebody_at_fault() {
        // status, asked, FHIR body: retry, fault, word
        for (status, asked, is_fhir, expected) in [
            (200, Endpoint, false, (Ambiguous, Target, "not-fhir")),
            (200, Endpoint, true, (Ambiguous, Target, "not-promised")),
            (302, Endpoint, false, (Transient, Target, "redirect")),
            (400, Endpoint, true, (Permanent, Message, "http-400")),
            (400, Endpoint, false, (Transient, Target, "not-fhir")),
            (401, Endpoint, true, (Transient, Target, "http-401")),
            (403, Instance, false, (Transient, Target, "http-403")),
            (404, Endpoint, true, (Transient, Target, "http-404")),
            (404, Instance, true, (Permanent, Message, "http-404")),
            (404, Instance, false, (Transient, Target, "http-404")),
            (405, Instance, true, (Transient, Target, "http-405")),
            (410, Instance, true, (Permanent, Message, "http-410")),
            (409, Endpoint, true, (Transient, Race, "http-409")),
            (412, Endpoint, true, (Permanent, Message, "http-412")),
            (413, Endpoint, false, (Permanent, Message, "http-413")),
            (415, Endpoint, true, (Transient, Target, "http-415")),
            (418, Endpoint, true, (Permanent, Message, "http-4xx")),
            (422, Endpoint, true, (Permanent, Message, "http-422")),
            (422, Endpoint, false, (Transient, Target, "not-fhir")),
            (423, Instance, false, (Transient, Race, "http-423")),
            (429, Endpoint, false, (Transient, Target, "http-429")),
            (500, Endpoint, true, (Ambiguous, Target, "http-500")),
            (502, Endpoint, false, (Ambiguous, Target, "http-502")),
            (503, Endpoint, false, (Transient, Target, "http-503")),
            (504, Endpoint, false, (Ambiguous, Target, "http-504")),
            (507, Endpoint, true, (Ambiguous, Target, "http-5xx")),
        ] {
            assert_eq!(judge(status, asked, is_fhir), expected, "{status} {asked:?} {is_fhir}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7", None), Some(Duration::from_secs(7)));
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:07 GMT", date), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", date), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999", None), Some(Duration::from_secs(86400)));
        assert_eq!(retry_after("soon", date), None);
    }
}
