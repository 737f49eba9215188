//! From a frame to its acknowledgement: judge, key, store, answer.
//!
//! Never answers AA without a `Stored`, and never judges more than what Kiln needs to keep and route the message.

mod judged;

use crate::engine::acknowledgement::{Acknowledgement, Own};
use crate::engine::answering;
use crate::engine::batch::{Answered, BatchReply};
use crate::engine::files::taken;
use crate::engine::pacts::Refusal;
use crate::engine::shared::{Shared, exit_because_disk_failed, later, now};
use crate::engine::terms::Terms;
use crate::engine::{application_acknowledgements, backoff};
use crate::exchange::{MessageId, Phi, Row};
use crate::hl7v2::{
    AckCode, Acknowledged, Answer, BatchItem, Charset, Condition, Fault, Header, Location, Oddity, batch_items, batch_segment, holds_several, in_encoding_of,
    recode_answer,
};
use crate::journal::{AcknowledgementAttempt, Append, AppendFault, Disposition, JournalError, OwedState, Place, Sender, Stored, Told};
use crate::listener::{Ack, Intake, Received, Reply, SMALL_BYTES, Taken, WayBack};
use crate::metrics::ApplicationAck;
use crate::site::{Acknowledge, BatchAnswer, ListenerSite, ReturnTo, WhenFull};
use crate::target::MllpPeer;
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use judged::refused;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::coop::unconstrained;
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

/// What was seen of a message while it was answered.
#[derive(Default)]
struct Seen {
    /// Its own character set, if the transport wrote it in another.
    own_set: Option<Charset>,
    /// A route answers it.
    is_question: bool,
}

/// What the answer of a stored message depends on in enhanced mode.
struct Accepting<'a> {
    terms: &'a Terms,
    header: Option<&'a Header>,
    /// Why it is refused.
    faults: &'a [Fault],
    /// The same, where it is because it does not conform.
    invalid: Option<&'a Refusal>,
}

/// The shortest wait after a sender has answered CE, CR or worse to an application acknowledgement.
const REFUSED_WAIT_MIN: Duration = Duration::from_secs(1);

fn reply(acknowledgement: Acknowledgement) -> (Reply, &'static str) {
    let code = acknowledgement.ack_code().name();
    (Reply::Ack(acknowledgement.into_ack()), code)
}

impl Gate {
    pub(super) fn new(shared: Arc<Shared>, site: ListenerSite, own: Own, room: watch::Receiver<bool>, closing: CancellationToken) -> Self {
        Self { shared, site: ArcSwap::from_pointee(site), own, room, closing }
    }

    /// Takes messages in by other rules from now on. `peer`: where senders are told what came of their messages, if that is an address.
    pub(super) fn change(&self, site: ListenerSite, peer: Option<MllpPeer>) {
        self.shared.lines.set(&site.socket.name, &site.enhanced, peer);
        self.site.store(Arc::new(site));
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

    /// An application acknowledgement of something that Kiln sent ends that delivery, before it is stored as a message: who sends it may
    /// forget it once it is answered.
    async fn hand_to_its_delivery(&self, received: &Received) {
        let name = Arc::clone(&self.site.load().socket.name);
        let mut answer = None;
        for lane in self.shared.lanes.load_full().iter().filter(|lane| lane.setup().replies.as_ref() == Some(&name)) {
            let read = answer.get_or_insert_with(|| Answer::read(received.bytes.expose()));
            let Some(answer) = read else { return };
            if lane.replies.arrived(answer.clone()).await {
                return;
            }
        }
    }

    /// The answer, and its code. `seen` says what the message turned out to be.
    async fn answer(&self, mut received: Received, seen: &mut Seen) -> (Reply, &'static str) {
        self.hand_to_its_delivery(&received).await;
        // Until it is stored, the routes and settings that it was judged by stay in force.
        let steady = self.shared.swap.read().await;
        let site = self.site.load_full();
        received.listener = Arc::clone(&site.socket.name);
        let unwritable;
        (seen.own_set, unwritable) = self.in_its_own_set(&mut received);
        let listener = &*received.listener;
        let judged = self.judge(&received, &site, unwritable);
        self.shared.metrics.received(listener, self.type_label(&judged), received.received.0 as f64 / 1_000.0);
        // A question gets its answer at once, whatever it says about acknowledgements.
        let two_stages = judged.terms.has_two_stages() && judged.question.is_none();
        let answers = judged.answers;
        let owed = if judged.question.is_some() {
            None
        } else {
            judged.terms.owed(refused(judged.fault.as_ref(), judged.unmapped.as_ref()).first(), judged.outcome, received.back.as_ref())
        };
        if two_stages
            && judged.terms.wants_application()
            && site.enhanced.to == ReturnTo::Connection
            && let Some(back) = &received.back
        {
            let whom = Sender::of(&judged.envelope);
            // What this sender is still owed from earlier connections can be told now.
            if self.shared.lines.keep(&whom, &back.line) {
                self.shared.journal.look_for(whom);
            }
        }
        let envelope = judged.question.as_ref().map(|_| judged.envelope.clone());
        let append = Append {
            envelope: judged.envelope,
            disposition: judged.disposition,
            deliveries: judged.deliveries,
            duplicate_window: if judged.fault.is_some() || judged.unmapped.is_some() { None } else { site.duplicates },
            awaited: judged.awaited,
            owed,
            program: judged.program,
            // Who is told that it cannot be stored may send the next one.
            row: received.row.as_ref().filter(|_| site.when_full != WhenFull::Nak).map(Row::join),
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
                if let Some(msa) = &judged.terms.acknowledged {
                    self.heard(msa, &received.listener).await;
                }
                if let (Some((routes, route)), Some(envelope), Some(header), None) = (&judged.question, &envelope, &judged.header, &judged.unmapped) {
                    let question = answering::Question { routes, route: *route, envelope, header };
                    seen.is_question = true;
                    return match Box::pin(answering::answer(&self.shared, &stored, &question)).await {
                        Some(ack) => {
                            let code = ack.code.name();
                            (Reply::Ack(ack), code)
                        }
                        None => (Reply::Close, "none"),
                    };
                }
                if two_stages {
                    let faults = refused(judged.fault.as_ref(), judged.unmapped.as_ref());
                    let accepting = Accepting { terms: &judged.terms, header: judged.header.as_ref(), faults, invalid: judged.unmapped.as_ref() };
                    return self.accept(&stored, &accepting, &site, received.back.as_ref()).await;
                }
                let wait = match &site.acknowledge {
                    Acknowledge::Delivered { wait, .. } if judged.fault.is_none() && judged.unmapped.is_none() && judged.terms.wants_application() => {
                        Some(*wait)
                    }
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
                match judged.terms.cannot_store() {
                    Some(code) => Acknowledgement::cannot_store(now(), judged.header.as_ref(), code, &self.own),
                    None if answers => return (Reply::Silent, "none"),
                    // Nobody may be told; but nothing is kept, and silence would mean that it is.
                    None => return (Reply::Close, "none"),
                }
            }
            Err(AppendFault::Failing) => exit_because_disk_failed(),
            Err(fault) => {
                tracing::warn!(listener, %fault, "a message could not be stored: closed the connection without an answer");
                return (Reply::Close, "none");
            }
        };
        let code = acknowledgement.ack_code();
        if !two_stages && !judged.terms.conditions.application.asks(code.is_positive()) {
            return (Reply::Silent, "none");
        }
        reply(acknowledgement)
    }

    /// The first of two acknowledgements, which says whether the message is kept. What comes of it is told later.
    async fn accept(&self, stored: &Stored, judged: &Accepting<'_>, site: &ListenerSite, back: Option<&WayBack>) -> (Reply, &'static str) {
        let Accepting { terms, header, faults, invalid } = judged;
        match (header, faults.first()) {
            (header, Some(fault)) => match terms.accept(Some(fault)) {
                Some(code) => reply(Acknowledgement::commit_refusal(stored, *header, code, faults, &self.own)),
                // The application's acknowledgement is the only one that may tell it.
                None if terms.conditions.application.asks(false) => match (header, invalid) {
                    (Some(header), Some(invalid)) => reply(Acknowledgement::refuse_later(stored, header, invalid)),
                    _ => reply(Acknowledgement::refuse(stored, *header, fault, &self.own)),
                },
                None => (Reply::Silent, "none"),
            },
            (Some(header), None) => {
                if stored.is_duplicate()
                    && terms.wants_application()
                    && let Some(told) = self.told_again(stored.id(), site, back).await
                {
                    return told;
                }
                match terms.accept(None) {
                    Some(_) => reply(Acknowledgement::commit(stored, header)),
                    None => (Reply::Silent, "none"),
                }
            }
            (None, None) => unreachable!("a message without a readable header was refused"),
        }
    }

    /// A message came again whose sender is owed an application acknowledgement: whoever polls gets it as the answer; to everybody else it is
    /// sent once more, after the answer.
    async fn told_again(&self, message: MessageId, site: &ListenerSite, back: Option<&WayBack>) -> Option<(Reply, &'static str)> {
        let journal = &self.shared.journal;
        let tell = |note: &str, outcome| journal.tell(AcknowledgementAttempt { message, at: now(), note: note.to_owned(), outcome });
        if site.enhanced.to != ReturnTo::Poll {
            let place = back.map(|back| Place { line: back.line.number(), frames: back.frames });
            // Where nothing is owed or wanted there is nothing to repeat.
            let _ = tell("the message came again", Told::Again(place)).await;
            return None;
        }
        let record = journal.owed(message).await.ok().flatten()?;
        if matches!(record.state, OwedState::Open | OwedState::NotWanted) {
            return None;
        }
        let (code, _, bytes) = application_acknowledgements::application(&self.shared, &record, &site.enhanced).await.ok()?;
        let sent = (code.name(), Phi::new(bytes.clone()));
        let outcome = if site.enhanced.own == Condition::Always {
            Told::Later { not_before: later(now(), site.enhanced.accept_wait), sent: Some(sent) }
        } else {
            Told::Sent(sent.0, sent.1)
        };
        // It is the answer whether it was the first time or not.
        let _ = tell("the sender asked for it", outcome).await;
        self.shared.metrics.told(&site.socket.name, ApplicationAck::Sent);
        Some((Reply::Ack(Ack { bytes: Phi::new(bytes.into()), code }), code.name()))
    }

    /// An acknowledgement came: perhaps of one of ours.
    async fn heard(&self, msa: &Acknowledged, listener: &Arc<str>) {
        let (Some(message), Some(code)) = (Acknowledgement::message_of(&msa.control_id.0), msa.code) else { return };
        let outcome = if code.is_positive() {
            Told::Accepted { listener: Arc::clone(listener), sent: None }
        } else {
            let Ok(Some(record)) = self.shared.journal.owed(message).await else { return };
            let wait = backoff::wait(REFUSED_WAIT_MIN, backoff::WAIT_MAX, record.attempts, None);
            Told::Declined { listener: Arc::clone(listener), not_before: later(now(), REFUSED_WAIT_MIN + wait) }
        };
        let note = format!("the sender answered {}", code.name());
        // Of what was not sent, or is done, nothing can be said.
        if self.shared.journal.tell(AcknowledgementAttempt { message, at: now(), note, outcome }).await.is_ok() {
            self.shared.metrics.told(listener, if code.is_positive() { ApplicationAck::Accepted } else { ApplicationAck::Failed });
        }
    }
}

impl Gate {
    /// Takes one message.
    async fn take_one(&self, received: Received) -> Answered {
        let began = std::time::Instant::now();
        let (listener, wanted, mut seen) = (Arc::clone(&received.listener), received.charset, Seen::default());
        let (reply, code) = self.answer(received, &mut seen).await;
        self.shared.metrics.acknowledged(&listener, code, began.elapsed());
        let reply = match (reply, seen.own_set, wanted) {
            (Reply::Ack(ack), Some(own), Some(wanted)) => {
                let bytes = Phi::new(recode_answer(ack.bytes.expose(), own, wanted));
                Reply::Ack(Ack { bytes, ..ack })
            }
            (reply, ..) => reply,
        };
        Answered { reply, is_asked_for: seen.is_question }
    }

    /// Takes what a frame holds, each message for itself: stored in order, many in one commit.
    async fn take_several(&self, received: Received, manner: BatchAnswer) -> Reply {
        /// So many messages of a long frame are under way at once.
        const AT_ONCE: usize = 256;
        let items = batch_items(received.bytes.expose());
        let listener = &*received.listener;
        let is_batch = items.iter().any(|item| matches!(item, BatchItem::Opened(..) | BatchItem::Closed(_)));
        let part = |item: &BatchItem| match item {
            BatchItem::Message(part) | BatchItem::Stray(part) => Some(Received { bytes: Phi::new(part.bytes.clone()), ..received.clone() }),
            BatchItem::Opened(..) | BatchItem::Closed(_) => None,
        };
        let parts: Vec<Received> = items.iter().filter_map(part).collect();
        // At its first turn each goes as far as the journal's queue, so that they are stored in their order, and before those of the next frame:
        // that comes at once behind a short one, and behind a long one only after its reply.
        let at_once = if received.bytes.expose().len() < SMALL_BYTES { items.len().max(1) } else { AT_ONCE };
        let answered: Vec<_> = stream::iter(parts.into_iter().map(|part| unconstrained(self.take_one(part)))).buffered(at_once).collect().await;
        if !is_batch {
            answered.iter().skip(1).for_each(|_| self.shared.metrics.tolerated(listener, Oddity::Concatenated.switch()));
        }
        for closed in items.iter().filter_map(|item| if let BatchItem::Closed(closed) = item { Some(closed) } else { None }) {
            for flaw in &closed.flaws {
                self.shared.metrics.finding(flaw.kind());
                tracing::warn!(listener, peer = %received.peer, messages = answered.len(), "a batch is not what it says: {}", flaw.fault(closed.wrapper).sentence());
            }
        }
        BatchReply { items: &items, manner, own: &self.own }.assemble(answered)
    }
}

impl Intake for Gate {
    async fn take(&self, received: Received) -> Reply {
        let (manner, concatenated) = {
            let site = self.site.load();
            (site.batch, site.tolerate.concatenated)
        };
        let bytes = received.bytes.expose();
        let several = !received.oversize
            && match batch_segment(bytes) {
                Some(_) => manner != BatchAnswer::Refuse,
                None => concatenated && holds_several(bytes),
            };
        let frame = Charset::told_by(bytes).map(|_| bytes.clone());
        let reply = if several {
            // A frame with one message is the rule, and its future shall not be larger for those with several.
            Box::pin(self.take_several(received, manner)).await
        } else {
            self.take_one(received).await.reply
        };
        match frame {
            Some(frame) => encoded(reply, &frame),
            None => reply,
        }
    }

    fn newest(&self) -> u64 {
        self.shared.journal.newest().0
    }

    async fn taken(&self, file: &str, since: u64) -> Option<Vec<Taken>> {
        let listener = Arc::clone(&self.site.load().socket.name);
        let peers = self.shared.journal.peers_after(MessageId(since), &listener, &format!("{file}#")).await;
        let peers = peers.inspect_err(|error| tracing::warn!(%listener, %error, "what was stored of a file cannot be read; it is tried again")).ok()?;
        Some(peers.iter().filter_map(|(peer, refused)| taken(peer, *refused)).filter(|(name, _)| name == file).map(|(_, taken)| taken).collect())
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

/// The reply to a frame in UTF-16 or UTF-32, in the same.
fn encoded(reply: Reply, frame: &Bytes) -> Reply {
    let encoded = |ack: Ack| Ack { bytes: Phi::new(in_encoding_of(frame, ack.bytes.into_exposed())), ..ack };
    match reply {
        Reply::Ack(ack) => Reply::Ack(encoded(ack)),
        Reply::Acks(all) => Reply::Acks(all.into_iter().map(encoded).collect()),
        Reply::Silent | Reply::Close => reply,
    }
}
