//! What is decided about a frame before it is stored: whether it is refused, by which keys and routes it goes on, and what its sender is told.

use crate::engine::intake::Gate;
use crate::engine::judge::{Door, Verdict, judge};
use crate::engine::mapping::{self, Stopped};
use crate::engine::pacts::Refusal;
use crate::engine::terms::{Outcome, Terms};
use crate::engine::{Routes, keys};
use crate::exchange::{ControlId, Envelope, Format, MessageId, Phi};
use crate::fhir::Answers;
use crate::hl7v2::{AckCode, Charset, Fault, Header, Version, event_structure, recode};
use crate::journal::{Disposition, NewDelivery};
use crate::listener::{Kind, Received};
use crate::route::RouteId;
use crate::site::{Acknowledge, ListenerSite};
use std::sync::Arc;
/// What was decided about a frame before it is stored.
pub(super) struct Judged {
    pub(super) envelope: Envelope,
    pub(super) disposition: Disposition,
    pub(super) deliveries: Vec<NewDelivery>,
    /// `None` if it cannot be read.
    pub(super) header: Option<Header>,
    /// Why it is refused.
    pub(super) fault: Option<Fault>,
    /// The same where a route cannot make anything of it: the sender waits for that.
    pub(super) unmapped: Option<Refusal>,
    /// The deliveries that the sender waits for.
    pub(super) awaited: Vec<u16>,
    /// The set that the deliveries keep, since it was tried already.
    pub(super) program: Option<String>,
    /// Which acknowledgements it gets.
    pub(super) terms: Terms,
    /// What is known of the application's, where that comes later.
    pub(super) outcome: Outcome,
    /// True if it is an acknowledgement itself.
    pub(super) answers: bool,
    /// The route that answers it, if it is a question.
    pub(super) question: Option<(Arc<Routes>, RouteId)>,
}

/// Why a message is refused at the door, the first reason first; nothing if it is not.
pub(super) fn refused<'a>(fault: Option<&'a Fault>, invalid: Option<&'a Refusal>) -> &'a [Fault] {
    fault.map_or_else(|| invalid.map_or(&[], |invalid| &invalid.faults), std::slice::from_ref)
}

impl Gate {
    /// What a transport wrote in a set of its choice becomes what the message says that it is. That set, and what stands in the way.
    pub(super) fn in_its_own_set(&self, received: &mut Received) -> (Option<Charset>, Option<Fault>) {
        let Some(written) = received.charset.filter(|_| !received.oversize) else { return (None, None) };
        let options = self.shared.routes().manner(&received.listener).parse_options();
        match recode(received.bytes.expose(), written, &options) {
            Ok((bytes, own)) => {
                received.bytes = Phi::new(bytes);
                (Some(own), None)
            }
            Err(fault) => (None, Some(fault)),
        }
    }

    /// Reads what is needed and decides. Nothing is stored yet.
    pub(super) fn judge(&self, received: &Received, site: &ListenerSite, unwritable: Option<Fault>) -> Judged {
        let routes = self.shared.routes();
        let options = routes.manner(&received.listener).parse_options();
        let door = Door {
            listener: &received.listener,
            options,
            tolerate: site.tolerate,
            validate: site.validate.as_ref(),
            wide: !matches!(site.socket.kind, Kind::Mllp),
            unrouted: site.unrouted,
            frame_bytes_max: site.socket.frame_bytes_max,
        };
        let mut verdict = judge(received.bytes.expose(), received.oversize, &door, &routes.set);
        if let Some(fault) = unwritable {
            verdict.refuse_unread(fault);
        }
        let Verdict { header, message, disposition, taken, fault, answers, invalid, tolerated } = verdict;
        tolerated.iter().for_each(|oddity| self.shared.metrics.tolerated(&received.listener, oddity.switch()));
        let mut envelope = envelope(received, header.as_ref());
        let mut deliveries = Vec::new();
        if let Some(message) = &message {
            // What MSH-9 lacks may have been filled in.
            if !envelope.message_type.contains('^') {
                envelope.message_type = message.expose().message_type();
            }
            let secret = self.shared.journal.secret();
            deliveries = keys::deliveries(&routes, &taken, message.expose(), &received.listener, secret);
            envelope.order_keys = keys::order_keys(message.expose(), site.authority.as_deref(), &received.listener, secret);
        }
        let terms = Terms::of(&site.enhanced, header.as_ref(), received.bytes.expose(), answers);
        let mut judged = Judged {
            envelope,
            disposition,
            deliveries,
            header,
            fault,
            unmapped: None,
            awaited: Vec::new(),
            program: None,
            terms,
            outcome: Outcome::Done,
            answers,
            question: None,
        };
        if !invalid.is_empty() {
            self.shared.metrics.finding("not-conformant");
            judged.unmapped = Some(Refusal { code: AckCode::ApplicationError, faults: invalid });
            return judged;
        }
        if judged.fault.is_none() && !judged.answers {
            let replies = |route: &&RouteId| routes.set.info(**route).reply.is_some();
            judged.question = taken.iter().find(replies).map(|route| (Arc::clone(&routes), *route));
        }
        if judged.fault.is_some() || !judged.terms.wants_application() {
            return judged;
        }
        let two_stages = judged.terms.has_two_stages();
        match if two_stages { &site.enhanced.outcome } else { &site.acknowledge } {
            Acknowledge::Mapped => {
                let stopped = self.map(&judged.envelope, &routes, &taken);
                judged.program = Some(routes.hash().to_owned());
                match stopped {
                    None => {}
                    // It is taken all the same: its deliveries become dead letters, for somebody to look at, and the sender is told.
                    Some((_, told)) if two_stages => judged.outcome = Outcome::Failed(told),
                    Some((disposition, told)) => {
                        (judged.disposition, judged.unmapped, judged.program) = (disposition, Some(told), None);
                        judged.deliveries.clear();
                    }
                }
            }
            Acknowledge::Delivered { to, .. } => {
                let counts = |d: &NewDelivery| to.is_empty() || to.iter().any(|name| **name == *d.target);
                let awaited = (0..).zip(&judged.deliveries).filter(|(_, d)| counts(d)).map(|(n, _)| n).collect();
                if two_stages {
                    judged.outcome = Outcome::Deliveries(awaited);
                } else {
                    judged.awaited = awaited;
                }
            }
            Acknowledge::Stored => {}
        }
        judged
    }

    /// Runs every route that takes the message. What one of them stops at, the sender is told; what all can do is done later by the same set.
    fn map(&self, envelope: &Envelope, routes: &Routes, taken: &[RouteId]) -> Option<(Disposition, Refusal)> {
        // What a route asks is asked when it is delivered, or answered.
        for route in taken.iter().filter(|route| routes.set.info(**route).asks.is_empty() && routes.set.info(**route).reply.is_none()) {
            // The number is not known yet; a run tells by it only apart what has nothing else to be told apart by.
            if let Err(Stopped { kind, text, told, .. }) = mapping::run(routes, *route, MessageId(0), envelope, Answers::NONE) {
                let code = told.faults.first().map_or(Fault::INTERNAL, |fault| fault.code);
                tracing::info!(listener = %envelope.listener, route = %routes.set.info(*route).name, code = kind, "a message cannot be mapped: its sender is told");
                return Some((Disposition::Refused { code, text }, told));
            }
        }
        None
    }

    /// The type as a label: only what the dictionary knows, so that no sender can make up names.
    pub(super) fn type_label<'a>(&self, judged: &'a Judged) -> &'a str {
        let version = judged.header.as_ref().map_or(Version::V25, Header::version);
        let known = judged.envelope.message_type.as_str();
        if event_structure(version, known).is_some() { known } else { "other" }
    }
}

/// What is known of a frame without looking past its MSH. Without a header the sender's address is all there is.
fn envelope(received: &Received, header: Option<&Header>) -> Envelope {
    let text = |get: fn(&Header) -> std::borrow::Cow<'_, str>| header.map(|h| get(h).into_owned()).unwrap_or_default();
    Envelope {
        listener: Arc::clone(&received.listener),
        peer: received.peer.text(),
        received: received.received,
        format: Format::V2,
        message_type: header.map(Header::message_type).unwrap_or_default(),
        sending_application: text(Header::sending_application),
        sending_facility: text(Header::sending_facility),
        message_time: text(Header::message_time),
        control_id: header.map_or_else(ControlId::default, Header::control_id),
        order_keys: Vec::new(),
        bytes: received.bytes.clone(),
    }
}
