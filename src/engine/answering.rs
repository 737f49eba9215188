//! Answers to questions: a route with `reply` makes one of what it asks, and the sender gets it on the connection instead of an acknowledgement.
//!
//! Never delivers anything, and never leaves a question without an answer: what stands in the way is an answer in error.

use crate::engine::acknowledgement::hl7_time;
use crate::engine::asking::{AskFault, Asker, too_slow};
use crate::engine::mapping::{self, Stopped};
use crate::engine::pacts::Refusal;
use crate::engine::shared::{Shared, now};
use crate::engine::{Routes, refusal};
use crate::exchange::{Envelope, Phi};
use crate::fhir::Answers;
use crate::hl7v2::{AckCode, AckRequest, Answer, Header, Message, answer_in_error};
use crate::journal::{Kept, ReplyRecord, SettleFault, Stored};
use crate::listener::Ack;
use crate::route::RouteId;
use crate::target::Setback;
use bytes::Bytes;
use std::time::Duration;

/// So long a question's sender waits at most; then the answer is that it took too long. Less than what is left to a daemon that stops.
pub(super) const REPLY_TIME: Duration = Duration::from_secs(15);

/// A question that is to be answered.
pub(super) struct Question<'a> {
    pub(super) routes: &'a Routes,
    pub(super) route: RouteId,
    pub(super) envelope: &'a Envelope,
    pub(super) header: &'a Header,
}

/// The answer to a stored question. It is kept before it leaves, so that a repetition gets the same, and a continuation finds where
/// it ended. `None`: it could not be kept, and whoever asks again may have more luck.
pub(super) async fn answer(shared: &Shared, stored: &Stored, question: &Question<'_>) -> Option<Ack> {
    let message = stored.id();
    if stored.is_duplicate()
        && let Ok(Some(reply)) = shared.journal.reply(message).await
    {
        return Some(ack(reply.bytes));
    }
    let (made, answers) = tokio::time::timeout(REPLY_TIME, make(shared, stored, question))
        .await
        .unwrap_or_else(|_| (Err(of_setback(&too_slow("the question", REPLY_TIME))), Answers::default()));
    let route = &question.routes.set.info(question.route).name;
    let bytes = match made {
        Ok(bytes) => bytes,
        Err(refusal) => {
            let code = refusal.faults.first().map_or(0, |fault| fault.code);
            tracing::info!(message_id = message.0, %route, code, "a question was answered in error");
            in_error(stored, question, &refusal)
        }
    };
    let bytes = Phi::new(Bytes::from(bytes));
    let reply = ReplyRecord {
        at: now(),
        program: question.routes.hash().to_owned(),
        route: route.to_string(),
        answers: Phi::new(answers.to_json()),
        bytes: bytes.clone(),
    };
    match shared.journal.keep(Kept::Reply { message, reply }).await {
        Ok(()) => Some(ack(bytes)),
        Err(SettleFault::Failing) => crate::engine::shared::exit_because_disk_failed(),
        Err(fault) => {
            tracing::warn!(message_id = message.0, %fault, "an answer could not be kept: closed the connection without it");
            None
        }
    }
}

/// Asks what the route wants to know and makes the answer; with what was found, as far as that went.
async fn make(shared: &Shared, stored: &Stored, question: &Question<'_>) -> (Result<Vec<u8>, Refusal>, Answers) {
    let Question { routes, route, envelope, .. } = *question;
    let asker = Asker { shared, routes, route, message: stored.id(), envelope, own: None };
    let answers = match asker.answers().await {
        Ok(answers) => answers,
        Err((fault, answers)) => {
            let refusal = match fault {
                AskFault::Stopped(Stopped { told, .. }) => told,
                AskFault::Own(setback) | AskFault::Other(setback) => of_setback(&setback),
                AskFault::NotBefore(_) => of_words("the server that has the answer is away; ask again later"),
                AskFault::Journal(_) => of_words("the journal could not be read; ask again later"),
            };
            return (Err(refusal), answers);
        }
    };
    let made = match mapping::run(routes, route, stored.id(), envelope, &answers) {
        Ok(output) => {
            output.findings.iter().for_each(|finding| shared.metrics.finding(finding.kind));
            output.drafts.into_iter().next().map(|draft| draft.bytes).ok_or_else(|| of_words("the route makes no answer to this question"))
        }
        Err(Stopped { told, .. }) => Err(told),
    };
    (made, answers)
}

/// MSA and QAK say AE, ERR what is wrong, and the question comes back as it was sent (HL7 chapter 5, section 5.4).
fn in_error(stored: &Stored, question: &Question<'_>, refusal: &Refusal) -> Vec<u8> {
    let options = question.routes.manner(&question.envelope.listener).parse_options();
    let parsed = Message::parse(question.envelope.bytes.expose().clone(), &options).ok();
    let info = question.routes.set.info(question.route);
    let (time, control_id) = (hl7_time(stored.received()), format!("K{}", stored.id().0));
    let request = AckRequest {
        header: Some(question.header),
        code: refusal.code,
        faults: &refusal.faults,
        time: &time,
        control_id: &control_id,
        application: "",
        facility: "",
        conditions: None,
    };
    answer_in_error(&request, info.reply.as_deref().unwrap_or("RSP"), parsed.as_ref())
}

fn of_setback(setback: &Setback) -> Refusal {
    of_words(&setback.summary)
}

/// The sender can do nothing about it now, and may ask again.
fn of_words(text: &str) -> Refusal {
    Refusal { code: AckCode::ApplicationError, ..refusal::of_words(text, false) }
}

/// What a route made says for itself what it is; without a word it is an answer, which is AA.
fn ack(bytes: Phi<Bytes>) -> Ack {
    let code = Answer::read(bytes.expose()).and_then(|answer| answer.ack_code()).unwrap_or(AckCode::ApplicationAccept);
    Ack { bytes, code }
}
