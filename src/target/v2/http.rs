//! Messages over HTTP: a POST of `application/hl7-v2`, and the acknowledgement in the answer's body, as HAPI's "HL7 over HTTP" has it
//! (<https://hapifhir.github.io/hapi-hl7v2/hapi-hl7overhttp/specification.html>).

use crate::hl7v2::{Answer, Charset, Draft};
use crate::target::fhir::access::Access;
use crate::target::fhir::connection::Connection;
use crate::target::fhir::http::{Effect, exchange};
use crate::target::fhir::judge::word;
use crate::target::v2::Ended;
use crate::target::v2::rules::{Asked, Meaning, Rules};
use crate::target::{Fault, HttpConfig, Retry, Setback, TargetError};
use reqwest::header::{ACCEPT, CONTENT_TYPE};

/// Posts messages to one URL.
pub struct HttpSender {
    client: Connection,
    access: Access,
    url: String,
}

/// What a server answered: its status, and its body as text.
type Posted = (u16, Option<std::time::Duration>, String);

impl HttpSender {
    /// Checks the settings and reads secrets and certificates; asks the server nothing.
    ///
    /// # Errors
    /// A setting that cannot work.
    pub fn open(config: &HttpConfig) -> Result<Self, TargetError> {
        let fine = reqwest::Url::parse(&config.url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !fine {
            return Err(TargetError::Setting(format!("'{}' is not a URL of HTTP", config.url)));
        }
        Ok(Self { client: Connection::open(config)?, access: Access::open(config, &config.url)?, url: config.url.clone() })
    }

    /// Posts a message that is written in that character set; gives the status and the body, whatever they are. Once more after a 401, where there are other credentials.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn post(&self, message: &[u8], charset: Charset) -> Result<(u16, String), Setback> {
        self.posted(message, charset).await.map(|(status, _, body)| (status, body))
    }

    async fn posted(&self, message: &[u8], charset: Charset) -> Result<Posted, Setback> {
        let request = || {
            let kind = format!("application/hl7-v2; charset={}", charset.http_name());
            self.client.post(&self.url).header(CONTENT_TYPE, kind).header(ACCEPT, "application/hl7-v2").body(message.to_vec())
        };
        let headers = self.access.headers(&self.client).await?;
        let mut answer = exchange(&self.client, request().headers(headers.clone()), Effect::Writes).await?;
        if answer.status == 401
            && let Some(fresh) = Box::pin(self.access.renewed(&headers, &self.client)).await?
        {
            answer = exchange(&self.client, request().headers(fresh), Effect::Writes).await?;
        }
        Ok((answer.status, answer.retry_after, answer.text.into_exposed()))
    }

    /// Sends one message. What its body says counts, whatever the status; without an acknowledgement the status says whose fault it is.
    pub(crate) async fn send(&self, draft: &Draft, asked: &Asked, rules: &Rules) -> Result<Ended, Setback> {
        let (status, retry_after, body) = self.posted(&draft.bytes, draft.charset).await?;
        let with_status = |setback: Setback| Setback { status: Some(status), retry_after, ..setback };
        let Some(answer) = Answer::read(body.as_bytes()) else {
            let elsewhere = asked.application && asked.enhanced && rules.replies;
            // 202 and 204: taken, and nothing to say (yet).
            if matches!(status, 202 | 204) && !asked.accept && elsewhere {
                return Ok(Ended::Awaited(String::new()));
            }
            return Err(with_status(without_acknowledgement(status)).with_answer(body.as_bytes()));
        };
        if !answer.answers(asked.control_id.as_bytes()) {
            let summary = "the acknowledgement is for another message (MSA-2 is not this MSH-10): whether this one was accepted is not known";
            return Err(with_status(Setback::plain(Retry::Ambiguous, Fault::Target, "ack-other", summary)).with_answer(body.as_bytes()));
        }
        match rules.first(&answer, asked) {
            Meaning::Done(code) => Ok(Ended::Done(code)),
            Meaning::Accepted(code) if rules.replies => Ok(Ended::Awaited(code)),
            Meaning::Accepted(_) => {
                let summary = "the receiver accepted the message (CA) and has no way to send the application acknowledgement that MSH-16 asks for: \
                    set `replies: LISTENER`, or `expect: accept`, at the target";
                Err(with_status(Setback::plain(Retry::Permanent, Fault::Message, "no-way-for-acknowledgement", summary)))
            }
            Meaning::Refused(setback) => Err(with_status(*setback).with_answer(body.as_bytes())),
        }
    }
}

/// An answer that holds no acknowledgement: nothing was done only where the status says so.
fn without_acknowledgement(status: u16) -> Setback {
    use {Fault::*, Retry::*};
    let (retry, fault, code) = match status {
        200..=299 => (Ambiguous, Target, "ack-garbage"),
        300..=399 => (Transient, Target, "redirect"),
        400 | 413 | 422 => (Permanent, Message, word(status)),
        400..=499 | 501 | 503 => (Transient, Target, word(status)),
        _ => (Ambiguous, Target, word(status)),
    };
    let summary = match status {
        200..=299 => format!("the answer {status} holds no acknowledgement (no MSA segment): whether the message was accepted is not known"),
        300..=399 => format!("the server redirects the message ({status}): set the target's address to where it points"),
        _ => format!("the server answered {status} without an acknowledgement"),
    };
    Setback::plain(retry, fault, code, summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_acknowledgement_says_whose_fault_it_is() {
        use {Fault::*, Retry::*};
        for (statuses, expected) in [
            (200..300, (Ambiguous, Target, "ack-garbage")),
            (300..400, (Transient, Target, "redirect")),
            (400..401, (Permanent, Message, "http-400")),
            (401..402, (Transient, Target, "http-401")),
            (403..404, (Transient, Target, "http-403")),
            (404..405, (Transient, Target, "http-404")),
            (408..409, (Transient, Target, "http-408")),
            (413..414, (Permanent, Message, "http-413")),
            (415..416, (Transient, Target, "http-415")),
            (422..423, (Permanent, Message, "http-422")),
            (429..430, (Transient, Target, "http-429")),
            (500..501, (Ambiguous, Target, "http-500")),
            (501..502, (Transient, Target, "http-501")),
            (502..503, (Ambiguous, Target, "http-502")),
            (503..504, (Transient, Target, "http-503")),
            (504..505, (Ambiguous, Target, "http-504")),
        ] {
            for status in statuses {
                let setback = without_acknowledgement(status);
                assert_eq!((setback.retry, setback.fault, setback.code), expected, "{status}");
            }
        }
    }
}
