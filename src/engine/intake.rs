//! From a frame to its acknowledgement: judge, key, store, answer.
//!
//! Never answers AA without a `Stored`, and never judges more than what Kiln needs to keep and route the message.

use crate::engine::acknowledgement::{Acknowledgement, Own};
use crate::engine::judge::{Door, Verdict, judge};
use crate::engine::mapping::{self, Mapped};
use crate::engine::pacts::Refusal;
use crate::engine::shared::{Shared, exit_because_disk_failed, now};
use crate::engine::{Routes, keys};
use crate::exchange::{ControlId, Envelope, Format, MessageId, Phi};
use crate::hl7v2::{AckCode, Fault, Header, Location, Version, event_structure};
use crate::journal::{Append, AppendFault, Disposition, JournalError, NewDelivery};
use crate::listener::{Intake, Received, Reply};
use crate::route::RouteId;
use crate::site::{Acknowledge, ListenerSite, WhenFull};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The intake of one listener.
pub(super) struct Gate {
    shared: Arc<Shared>,
    /// Changed together with the routes.
    site: ArcSwap<ListenerSite>,
    own: Own,
    /// False while the journal's disk is below its low-water mark.
    room: watch::Receiver<bool>,
    /// Ends the listener: nobody waits longer for an outcome then.
    closing: CancellationToken,
}

/// What was decided about a frame before it is stored.
struct Judged {
    envelope: Envelope,
    disposition: Disposition,
    deliveries: Vec<NewDelivery>,
    /// `None` if it cannot be read.
    header: Option<Header>,
    /// Why it is refused.
    fault: Option<Fault>,
    /// The same where a route cannot make anything of it: the sender waits for that.
    unmapped: Option<Refusal>,
    /// The deliveries that the sender waits for.
    awaited: Vec<u16>,
    /// The set that the deliveries keep, since it was tried already.
    program: Option<String>,
    /// True if it is an acknowledgement itself, which is never acknowledged.
    answers: bool,
}

impl Gate {
    pub(super) fn new(shared: Arc<Shared>, site: ListenerSite, own: Own, room: watch::Receiver<bool>, closing: CancellationToken) -> Self {
        Self { shared, site: ArcSwap::from_pointee(site), own, room, closing }
    }

    /// Takes messages in by other rules from now on.
    pub(super) fn change(&self, site: ListenerSite) {
        self.site.store(Arc::new(site));
    }

    /// Reads what is needed and decides. Nothing is stored yet.
    fn judge(&self, received: &Received, site: &ListenerSite) -> Judged {
        let routes = self.shared.routes();
        let options = routes.manner(&received.listener).parse_options();
        let door = Door { listener: &received.listener, options, unrouted: site.unrouted, frame_bytes_max: site.socket.frame_bytes_max };
        let Verdict { header, message, disposition, taken, fault, answers } = judge(received.bytes.expose(), received.oversize, &door, &routes.set);
        let mut envelope = envelope(received, header.as_ref());
        let mut deliveries = Vec::new();
        if let Some(message) = &message {
            let secret = self.shared.journal.secret();
            deliveries = keys::deliveries(&routes, &taken, message.expose(), &received.listener, secret);
            envelope.order_keys = keys::order_keys(message.expose(), site.authority.as_deref(), &received.listener, secret);
        }
        let mut judged = Judged { envelope, disposition, deliveries, header, fault, unmapped: None, awaited: Vec::new(), program: None, answers };
        match &site.acknowledge {
            Acknowledge::Mapped if judged.fault.is_none() => self.map(&mut judged, &routes, &taken),
            Acknowledge::Delivered { to, .. } => {
                let counts = |d: &NewDelivery| to.is_empty() || to.iter().any(|name| **name == *d.target);
                judged.awaited = (0..).zip(&judged.deliveries).filter(|(_, d)| counts(d)).map(|(n, _)| n).collect();
            }
            Acknowledge::Stored | Acknowledge::Mapped => {}
        }
        judged
    }

    /// Runs every route that takes the message. What one of them stops at, the sender is told; what all can do is done later by the same set.
    fn map(&self, judged: &mut Judged, routes: &Routes, taken: &[RouteId]) {
        for route in taken {
            // The number is not known yet; a run tells by it only apart what has nothing else to be told apart by.
            if let Mapped::Stopped { kind, text, told } = mapping::run(routes, *route, MessageId(0), &judged.envelope) {
                let code = told.faults.first().map_or(Fault::INTERNAL, |fault| fault.code);
                tracing::info!(listener = %judged.envelope.listener, route = %routes.set.info(*route).name, code = kind, "a message was refused: it cannot be mapped");
                judged.disposition = Disposition::Refused { code, text };
                judged.deliveries.clear();
                judged.unmapped = Some(told);
                return;
            }
        }
        judged.program = Some(routes.hash().to_owned());
    }

    /// Waits until what a sender waits for has come to an end. `None`: it takes too long, or the daemon stops. Delivery goes on then, and
    /// who sends the message again waits for the same.
    async fn outcome(&self, id: MessageId, wait: Duration) -> Option<Result<(), Refusal>> {
        /// Looks again also without news: an operator may have skipped a delivery.
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        let deadline = tokio::time::Instant::now() + wait;
        let part = self.shared.pacts.join(id);
        loop {
            // Asked for before the look, so that nothing goes unnoticed in between.
            let news = part.news();
            match self.shared.journal.show(id).await {
                Ok(record) => match record.disposition {
                    Disposition::Refused { code, text } => {
                        let stored = || Refusal { code: AckCode::ApplicationError, faults: vec![Fault::new(Location::default(), code, text)] };
                        return Some(Err(part.refusal().unwrap_or_else(stored)));
                    }
                    _ if record.awaited.is_empty() => return Some(Ok(())),
                    _ => {}
                },
                Err(JournalError::Closed | JournalError::Failing) => return None,
                Err(_) => {}
            }
            let look_again = deadline.min(tokio::time::Instant::now() + LOOK_EVERY);
            tokio::select! {
                () = news => {}
                () = self.closing.cancelled() => return None,
                () = tokio::time::sleep_until(look_again) => {
                    if tokio::time::Instant::now() >= deadline {
                        return None;
                    }
                }
            }
        }
    }

    /// The type as a label: only what the dictionary knows, so that no sender can make up names.
    fn type_label<'a>(&self, judged: &'a Judged) -> &'a str {
        let version = judged.header.as_ref().map_or(Version::V25, Header::version);
        let known = judged.envelope.message_type.as_str();
        if event_structure(version, known).is_some() { known } else { "other" }
    }

    async fn answer(&self, mut received: Received) -> (Reply, &'static str) {
        // Until it is stored, the routes and settings that it was judged by stay in force.
        let steady = self.shared.swap.read().await;
        let site = self.site.load_full();
        received.listener = Arc::clone(&site.socket.name);
        let listener = &*received.listener;
        let judged = self.judge(&received, &site);
        self.shared.metrics.received(listener, self.type_label(&judged), received.received.0 as f64 / 1_000.0);
        let append = Append {
            envelope: judged.envelope,
            disposition: judged.disposition,
            deliveries: judged.deliveries,
            duplicate_window: if judged.fault.is_some() || judged.unmapped.is_some() { None } else { site.duplicates },
            awaited: judged.awaited,
            program: judged.program,
        };
        let appended = self.shared.journal.append(append).await;
        drop(steady);
        let acknowledgement = match appended {
            Ok(stored) => {
                if stored.is_duplicate() {
                    self.shared.metrics.duplicate(listener);
                }
                if stored.same_control_id_other_content() {
                    self.shared.metrics.finding("control-id-reused");
                    tracing::warn!(listener, message_id = stored.id().0, "the sender used this control id before, for other content");
                }
                let wait = match &site.acknowledge {
                    Acknowledge::Delivered { wait, .. } if judged.fault.is_none() && !judged.answers => Some(*wait),
                    _ => None,
                };
                let later = match wait {
                    Some(wait) => self.outcome(stored.id(), wait).await,
                    None => Some(judged.unmapped.map_or(Ok(()), Err)),
                };
                match (&judged.header, &judged.fault) {
                    (Some(header), None) => match later {
                        Some(Ok(())) => Acknowledgement::accept(&stored, header),
                        Some(Err(refusal)) => Acknowledgement::refuse_later(&stored, header, &refusal),
                        None => {
                            tracing::info!(
                                listener,
                                message_id = stored.id().0,
                                "not delivered in time: closed the connection without an answer; delivery goes on"
                            );
                            return (Reply::Close, "none");
                        }
                    },
                    (header, Some(fault)) => Acknowledgement::refuse(&stored, header.as_ref(), fault, &self.own),
                    (None, None) => unreachable!("a message without a readable header was refused"),
                }
            }
            Err(AppendFault::Full | AppendFault::TooMuchBacklog) if site.when_full == WhenFull::Nak => {
                Acknowledgement::cannot_store(now(), judged.header.as_ref(), &self.own)
            }
            Err(AppendFault::Failing) => exit_because_disk_failed(),
            Err(fault) => {
                tracing::warn!(listener, %fault, "a message could not be stored: closed the connection without an answer");
                return (Reply::Close, "none");
            }
        };
        if judged.answers {
            return (Reply::Silent, "none");
        }
        let code = acknowledgement.code();
        (Reply::Ack(Phi::new(acknowledgement.into_bytes().into())), code)
    }
}

impl Intake for Gate {
    async fn take(&self, received: Received) -> Reply {
        let began = std::time::Instant::now();
        let listener = Arc::clone(&received.listener);
        let (reply, code) = self.answer(received).await;
        self.shared.metrics.acknowledged(&listener, code, began.elapsed());
        reply
    }

    fn has_room(&self) -> bool {
        self.site.load().when_full == WhenFull::Nak || *self.room.borrow()
    }

    async fn room(&self) {
        if self.site.load().when_full == WhenFull::Nak {
            return;
        }
        let mut room = self.room.clone();
        if room.wait_for(|room| *room).await.is_err() {
            // The engine is gone; the listeners are about to be told.
            std::future::pending::<()>().await;
        }
    }
}

/// What is known of a frame without looking past its MSH. Without a header the sender's address is all there is.
fn envelope(received: &Received, header: Option<&Header>) -> Envelope {
    let text = |get: fn(&Header) -> std::borrow::Cow<'_, str>| header.map(|h| get(h).into_owned()).unwrap_or_default();
    Envelope {
        listener: Arc::clone(&received.listener),
        peer: received.peer.to_string(),
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
