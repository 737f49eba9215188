//! From a stored message to what a target is to save.

use crate::engine::pacts::Refusal;
use crate::engine::{Routes, refusal};
use crate::exchange::{Envelope, MessageId};
use crate::hl7v2::{AckCode, Message};
use crate::route::{Context, Output, RouteId, Send, Stop};
use crate::target::Sending;
use std::panic::AssertUnwindSafe;
use tokio::runtime::{Handle, RuntimeFlavor};

/// What a run came to.
pub(super) enum Mapped {
    /// Resources and how to save them; perhaps none.
    Made(Output),
    /// Nothing can be made of this message: a dead letter.
    Stopped {
        /// A stable word.
        kind: &'static str,
        /// A sentence without patient data.
        text: String,
        /// What its sender is told, if the sender waits.
        told: Refusal,
    },
}

/// Runs a route over a stored message. A panic is a defect of Kiln and costs this delivery only.
pub(super) fn run(routes: &Routes, route: RouteId, message: MessageId, envelope: &Envelope) -> Mapped {
    let manner = routes.manner(&envelope.listener);
    let context = Context { received: envelope.received, zone: manner.zone(), authority: manner.authority(), message, listener: &envelope.listener };
    let map = || {
        let parsed = Message::parse(envelope.bytes.expose().clone(), &manner.parse_options()).map_err(|fault| {
            let told = Refusal { code: AckCode::ApplicationReject, faults: vec![fault.clone()] };
            ("unreadable", fault.to_string(), told)
        })?;
        routes.set.run(route, &parsed, &context).map_err(|stop| (stop.kind, sentence(&stop), refusal::of_stop(&stop)))
    };
    match std::panic::catch_unwind(AssertUnwindSafe(|| aside(envelope.bytes.expose().len(), map))) {
        Ok(Ok(output)) => Mapped::Made(output),
        Ok(Err((kind, text, told))) => Mapped::Stopped { kind, text, told },
        Err(_) => {
            let text = "a defect in kiln: the run of the route panicked; the log names the place".to_owned();
            Mapped::Stopped { kind: "defect", told: refusal::of_words("a defect in kiln", true), text }
        }
    }
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
