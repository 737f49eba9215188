//! From a stored message to what a target is to save.

use crate::engine::pacts::Refusal;
use crate::engine::{Routes, refusal};
use crate::exchange::{Envelope, MessageId};
use crate::fhir::Answers;
use crate::hl7v2::{AckCode, Message};
use crate::route::{Asking, Context, Output, RouteId, Send, Stop, UnknownCode};
use crate::target::Sending;
use std::panic::AssertUnwindSafe;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs a route over a stored message: resources and how to save them, or messages; perhaps none. A panic is a defect of Kiln and costs this
/// delivery only.
pub(super) fn run(routes: &Routes, route: RouteId, message: MessageId, envelope: &Envelope, answers: &Answers) -> Result<Output, Stopped> {
    over(routes, message, envelope, answers, |parsed, context| routes.set.run(route, parsed, context))
}

/// Why nothing can be made of a message: a dead letter.
pub(super) struct Stopped {
    /// A stable word.
    pub(super) kind: &'static str,
    /// A sentence without patient data.
    pub(super) text: String,
    /// What its sender is told, if the sender waits.
    pub(super) told: Refusal,
    /// Codes that were not known; one of them may be the reason.
    pub(super) unknown: Vec<UnknownCode>,
}

/// What the route asks next, after what it has been answered.
pub(super) fn question(routes: &Routes, route: RouteId, message: MessageId, envelope: &Envelope, answers: &Answers) -> Result<Option<Asking>, Stopped> {
    over(routes, message, envelope, answers, |parsed, context| routes.set.question(route, parsed, context))
}

fn over<T>(
    routes: &Routes,
    message: MessageId,
    envelope: &Envelope,
    answers: &Answers,
    work: impl FnOnce(&Message, &Context<'_>) -> Result<T, Stop>,
) -> Result<T, Stopped> {
    let manner = routes.manner(&envelope.listener);
    let context = Context { received: envelope.received, zone: manner.zone(), authority: manner.authority(), message, listener: &envelope.listener, answers };
    let map = || {
        let parsed = Message::parse(envelope.bytes.expose().clone(), &manner.parse_options()).map_err(|fault| {
            let told = Refusal { code: AckCode::ApplicationReject, faults: vec![fault.clone()] };
            Stopped { kind: "unreadable", text: fault.to_string(), told, unknown: Vec::new() }
        })?;
        work(&parsed, &context).map_err(|mut stop| {
            let unknown = std::mem::take(&mut stop.unknown);
            Stopped { kind: stop.kind, text: sentence(&stop), told: refusal::of_stop(&stop), unknown }
        })
    };
    std::panic::catch_unwind(AssertUnwindSafe(|| aside(envelope.bytes.expose().len(), map))).unwrap_or_else(|_| {
        let text = "a defect in kiln: the run of the route panicked; the log names the place".to_owned();
        Err(Stopped { kind: "defect", told: refusal::of_words("a defect in kiln", true), text, unknown: Vec::new() })
    })
}

/// What a route makes of a stored message and of what it was answered, as a delivery makes it: for whoever asks what was or would be sent. `None` if the set has no such
/// route; `Err` is why nothing can be made.
pub fn remake(routes: &Routes, route: &str, message: MessageId, envelope: &Envelope, answers: &Answers) -> Option<Result<Output, String>> {
    let route = routes.set.named(route)?;
    Some(run(routes, route, message, envelope, answers).map_err(|Stopped { kind, text, .. }| format!("{kind}: {text}")))
}

/// A long message can take seconds. Meanwhile this thread's other tasks, connections among them, must go on elsewhere.
fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    const LONG: usize = 64 * 1_024;
    let others_can_help = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes > LONG && others_can_help { tokio::task::block_in_place(work) } else { work() }
}

/// What stopped a run, with the fields that were missing and the line of the route.
fn sentence(stop: &Stop) -> String {
    let mut text = stop.text.clone();
    let places = stop.places.join(", ");
    if !text.contains(&places) {
        text.push_str(&format!(" ({places})"));
    }
    if !stop.line.is_empty() {
        text.push_str(&format!(" at {}", stop.line));
    }
    text
}

/// `send:` of a route in the words of a target.
pub(super) fn sending(send: Send) -> Sending {
    match send {
        Send::Transaction => Sending::Transaction,
        Send::Batch => Sending::Batch,
        Send::Single => Sending::Single,
    }
}
