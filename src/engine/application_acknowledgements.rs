//! Tells senders in enhanced mode what came of their messages: application acknowledgements, by the connection that the message came by, a later
//! one of the same sender, or a connection to an address of its own, until they are accepted or have waited too long.
//!
//! Holds nothing that must survive: what is to be told is the journal's word, and stays it until it was told.

use crate::engine::acknowledgement::Acknowledgement;
use crate::engine::backoff;
use crate::engine::peer::{self, PeerFault};
use crate::engine::shared::{Shared, later, now};
use crate::engine::told;
use crate::exchange::{Phi, Timestamp};
use crate::hl7v2::{AckCode, Condition, Header};
use crate::journal::{AcknowledgementAttempt, JournalError, OwedRecord, Sender, Told};
use crate::metrics::ApplicationAck;
use crate::site::{Enhanced, ReturnTo};
use crate::target::MllpPeer;
use futures_util::future::join_all;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Senders that are told something at the same time.
const JOBS_MAX: usize = 32;
/// Acknowledgements of one sender that are in memory at once; the rest of them is on the disk.
const PAGE: usize = 100;
/// How long a connection may take to send one, its own answers before it included.
const SEND_WAIT: Duration = Duration::from_secs(30);
/// After a fault of the journal.
const PAUSE: Duration = Duration::from_secs(1);
/// After an address has left one unanswered, before it is sent another.
const UNANSWERED_PAUSE: Duration = Duration::from_millis(250);
/// No look is put off for longer: what is a time of the wall clock may have jumped.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// An acknowledgement that is ready to be sent.
struct PreparedAcknowledgement {
    record: OwedRecord,
    code: AckCode,
    control_id: String,
    bytes: Vec<u8>,
}

/// Why an address is left alone for a while, and at which acknowledgement that showed.
struct Interrupted {
    record: OwedRecord,
    /// What was sent of it, its MSA-1 and its bytes, if it was sent.
    sent: Option<(&'static str, Phi<Vec<u8>>)>,
    fault: PeerFault,
}

/// An address that could not be reached: how often, and until when it is left alone.
type Paused = HashMap<String, (u32, Timestamp)>;

/// One for an engine.
pub(super) struct ApplicationAcknowledgements {
    shared: Arc<Shared>,
    paused: Mutex<Paused>,
}

impl ApplicationAcknowledgements {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, paused: Mutex::default() })
    }

    /// Works until `closing`.
    pub(super) async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut todo = match closing.run_until_cancelled(self.everyone()).await {
            Some(everyone) => everyone,
            None => return,
        };
        let mut looks: HashMap<Sender, Timestamp> = HashMap::new();
        let mut jobs: JoinSet<(Sender, Option<Timestamp>)> = JoinSet::new();
        let mut busy: BTreeSet<Sender> = BTreeSet::new();
        loop {
            let at = now();
            todo.extend(looks.extract_if(|_, time| *time <= at).map(|(whom, _)| whom));
            // One at a time for each sender; what comes meanwhile is looked at afterwards.
            let ready: Vec<_> = todo.iter().filter(|whom| !busy.contains(*whom)).take(JOBS_MAX.saturating_sub(jobs.len())).cloned().collect();
            for whom in ready {
                todo.remove(&whom);
                busy.insert(whom.clone());
                let application_acknowledgements = Arc::clone(&self);
                jobs.spawn(async move {
                    let next = application_acknowledgements.tell_all(&whom).await;
                    (whom, next)
                });
            }
            let next = looks.values().min().map_or(LOOK_EVERY, |time| Duration::from_millis(u64::try_from(time.0 - now().0).unwrap_or(0)).min(LOOK_EVERY));
            tokio::select! {
                () = closing.cancelled() => return,
                whom = self.shared.journal.news_for() => todo.extend(whom),
                Some(done) = jobs.join_next(), if !jobs.is_empty() => match done {
                    Ok((whom, time)) => {
                        busy.remove(&whom);
                        if let Some(time) = time {
                            looks.insert(whom, time);
                        }
                    }
                    // A defect costs one job; whose it was is found again on the disk.
                    Err(error) => {
                        tracing::error!(panicked = error.is_panic(), "telling senders what came of their messages stopped, and begins anew");
                        jobs.shutdown().await;
                        busy.clear();
                        sleep(PAUSE).await;
                        todo = self.everyone().await;
                    }
                },
                () = sleep(next), if !looks.is_empty() => {}
            }
        }
    }

    /// All to whom something is to be told.
    async fn everyone(&self) -> BTreeSet<Sender> {
        loop {
            match self.shared.journal.senders_owed().await {
                Ok(everyone) => return everyone,
                Err(error) => {
                    tracing::warn!(%error, "could not read whom something is to be told");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Tells one sender what can be told now. When to look again, if there is a reason to.
    async fn tell_all(&self, whom: &Sender) -> Option<Timestamp> {
        let settings = self.shared.lines.settings(&whom.listener);
        let mut again = Again(None);
        let mut after = None;
        let unread = |error: JournalError| match error {
            JournalError::Closed | JournalError::Failing => None,
            error => {
                tracing::warn!(%error, "could not read what is to be told");
                Some(later(now(), PAUSE))
            }
        };
        loop {
            let page = match self.shared.journal.due(whom, after, now(), PAGE).await {
                Ok(page) => page,
                Err(error) => return unread(error),
            };
            let Some(last) = page.last() else { break };
            after = Some(last.message);
            let full = page.len() == PAGE;
            let ready = self.ready(whom, page, &settings, &mut again).await;
            let went = match &settings.to {
                // Whoever asks is told (intake). What has waited too long is given up, and where the oldest have not, the rest need not be read.
                ReturnTo::Poll => ready.is_empty(),
                ReturnTo::Connection => self.by_line(whom, ready, &settings, &mut again).await,
                ReturnTo::Address(_) => self.by_address(whom, ready, &settings, &mut again).await,
            };
            if !went || !full {
                break;
            }
        }
        match self.shared.journal.next_due(whom, now()).await {
            Ok(next) => next.into_iter().for_each(|time| again.at(time)),
            Err(error) => again.at(unread(error)?),
        }
        again.0
    }

    /// Those of a page that have not waited too long. The others are given up.
    async fn ready(&self, whom: &Sender, page: Vec<OwedRecord>, settings: &Enhanced, again: &mut Again) -> Vec<OwedRecord> {
        let at = now();
        let mut ready = Vec::new();
        for record in page {
            let until = later(record.decided.unwrap_or(at), settings.retry_for);
            if until <= at {
                let note = match settings.to {
                    ReturnTo::Poll => "nobody asked for it in time",
                    ReturnTo::Connection | ReturnTo::Address(_) if record.code.is_some() => "it was not accepted in time",
                    ReturnTo::Connection => "the sender was not connected for too long",
                    ReturnTo::Address(_) => "the sender was not reached for too long",
                };
                tracing::warn!(message_id = record.message.0, note, "an application acknowledgement was given up");
                self.store(&record, Told::GivenUp, note).await;
                self.shared.metrics.told(&whom.listener, ApplicationAck::GivenUp);
                continue;
            }
            again.at(until);
            ready.push(record);
        }
        ready
    }

    /// Sends by connections that the sender has opened. False if it has none.
    async fn by_line(&self, whom: &Sender, ready: Vec<OwedRecord>, settings: &Enhanced, again: &mut Again) -> bool {
        if ready.is_empty() {
            return true;
        }
        let found = ready.into_iter().filter_map(|record| {
            let line = self.shared.lines.find(record.line.map(|place| place.line), whom)?;
            // On its own connection it comes after the message's own answer.
            let frames = record.line.filter(|place| place.line == line.number()).map_or(0, |place| place.frames);
            Some((record, line, frames))
        });
        let found: Vec<_> = found.collect();
        let all =
            join_all(found.into_iter().map(|(record, line, frames)| async move { self.prepare(record, settings).await.map(|one| (one, line, frames)) })).await;
        let sent = all.into_iter().flatten().map(|(one, line, frames)| async move {
            let bytes = Phi::new(one.bytes.clone().into());
            let sent = timeout(SEND_WAIT, line.send(frames, bytes)).await;
            match sent {
                Ok(Ok(())) => Ok(self.sent(one, whom, settings, "sent on the sender's connection").await),
                // There may be another connection by now, or there will be.
                Ok(Err(_)) | Err(_) => Err(later(now(), PAUSE)),
            }
        });
        // The futures begin in order, so that the frames do.
        let sent = join_all(sent).await;
        let any = sent.iter().any(Result::is_ok);
        sent.into_iter().filter_map(|result| result.unwrap_or_else(Some)).for_each(|time| again.at(time));
        any
    }

    /// Sends to the sender's address. False if that does not work now.
    async fn by_address(&self, whom: &Sender, ready: Vec<OwedRecord>, settings: &Enhanced, again: &mut Again) -> bool {
        if ready.is_empty() {
            return true;
        }
        let Some(peer) = self.shared.lines.peer(&whom.listener) else { return false };
        let address = peer.address();
        if let Some((_, until)) = self.paused().get(address).copied().filter(|(_, until)| *until > now()) {
            again.at(until);
            return false;
        }
        let mut prepared: Vec<_> = join_all(ready.into_iter().map(|record| self.prepare(record, settings))).await.into_iter().flatten().collect();
        // What was tried before may hold up whatever comes behind it.
        prepared.sort_by_key(|one| one.record.code.is_some());
        let went = if settings.own == Condition::Always {
            self.one_by_one(whom, &peer, prepared, settings, again).await
        } else {
            self.all_at_once(whom, &peer, prepared, settings, again).await
        };
        let Err(Interrupted { record, sent, fault }) = went else {
            self.paused().remove(address);
            return true;
        };
        let until = match sent {
            None => self.pause(address),
            Some(_) => later(now(), UNANSWERED_PAUSE),
        };
        tracing::warn!(listener = %whom.listener, message_id = record.message.0, fault = %fault, "an application acknowledgement could not be sent; it is tried again");
        let not_before = match sent {
            // It stays the first: the address waits, not the acknowledgement.
            None => now(),
            // It may be this one that is never answered: the next time, those behind it go first.
            Some(_) => later(until, backoff::wait(backoff::WAIT_MIN, backoff::WAIT_MAX, record.attempts, None)),
        };
        self.put_off(whom, &record, not_before, sent, &fault).await;
        again.at(until);
        false
    }

    /// It was not accepted, and is told again, not before that time.
    async fn put_off(&self, whom: &Sender, record: &OwedRecord, not_before: Timestamp, sent: Option<(&'static str, Phi<Vec<u8>>)>, fault: &PeerFault) {
        self.store(record, Told::Later { not_before, sent }, &fault.to_string()).await;
        self.shared.metrics.told(&whom.listener, ApplicationAck::Failed);
    }

    /// Each waits for its own accept acknowledgement.
    async fn one_by_one(
        &self,
        whom: &Sender,
        peer: &MllpPeer,
        prepared: Vec<PreparedAcknowledgement>,
        settings: &Enhanced,
        again: &mut Again,
    ) -> Result<(), Interrupted> {
        let mut kept = None;
        for one in prepared {
            // A peer may close its side after each message: then one more connection is tried.
            let fresh = kept.is_none();
            let mut open = match kept.take() {
                Some(open) => open,
                None => peer::connect(peer).await.map_err(|fault| Interrupted { record: one.record.clone(), sent: None, fault })?,
            };
            let mut heard = peer::ask(&mut open, &one.bytes, &one.control_id, settings.accept_wait).await;
            if heard == Err(PeerFault::Closed) && !fresh {
                open = peer::connect(peer).await.map_err(|fault| Interrupted { record: one.record.clone(), sent: None, fault })?;
                heard = peer::ask(&mut open, &one.bytes, &one.control_id, settings.accept_wait).await;
            }
            let sent = Some((one.code.name(), Phi::new(one.bytes)));
            match heard {
                Ok(()) => {
                    let outcome = Told::Accepted { listener: Arc::clone(&whom.listener), sent };
                    self.store(&one.record, outcome, &format!("accepted by {}", peer.address())).await;
                    self.count(&whom.listener, one.code, ApplicationAck::Accepted);
                }
                Err(fault) if fault.is_of_the_message() => {
                    let until = later(now(), backoff::wait(backoff::WAIT_MIN, backoff::WAIT_MAX, one.record.attempts, None));
                    self.put_off(whom, &one.record, until, sent, &fault).await;
                    again.at(until);
                }
                Err(fault) => return Err(Interrupted { record: one.record, sent, fault }),
            }
            kept = Some(open);
        }
        Ok(())
    }

    /// Nobody says whether they arrived: they count as sent once the peer has not refused to read them.
    async fn all_at_once(
        &self,
        whom: &Sender,
        peer: &MllpPeer,
        prepared: Vec<PreparedAcknowledgement>,
        settings: &Enhanced,
        again: &mut Again,
    ) -> Result<(), Interrupted> {
        let Some(first) = prepared.first().map(|one| one.record.clone()) else { return Ok(()) };
        let told = async {
            let connection = peer::connect(peer).await?;
            peer::tell(connection, prepared.iter().map(|one| one.bytes.as_slice())).await
        };
        // Which of them the peer has read nobody knows: all of them are sent again.
        told.await.map_err(|fault| Interrupted { record: first, sent: None, fault })?;
        let note = format!("sent to {}", peer.address());
        let sent = join_all(prepared.into_iter().map(|one| self.sent(one, whom, settings, &note))).await;
        sent.into_iter().flatten().for_each(|time| again.at(time));
        Ok(())
    }

    /// It is on its way: done, or if the sender is to say that it has it, to be sent once more after a while.
    async fn sent(&self, one: PreparedAcknowledgement, whom: &Sender, settings: &Enhanced, note: &str) -> Option<Timestamp> {
        let bytes = Phi::new(one.bytes);
        self.count(&whom.listener, one.code, ApplicationAck::Sent);
        if settings.own == Condition::Always {
            let not_before = later(now(), settings.accept_wait);
            self.store(&one.record, Told::Later { not_before, sent: Some((one.code.name(), bytes)) }, note).await;
            return Some(not_before);
        }
        self.store(&one.record, Told::Sent(one.code.name(), bytes), note).await;
        None
    }

    async fn store(&self, record: &OwedRecord, outcome: Told, note: &str) {
        let telling = AcknowledgementAttempt { message: record.message, at: now(), note: note.to_owned(), outcome };
        // What is not stored is told once more: that is all.
        if let Err(fault) = self.shared.journal.tell(telling).await {
            tracing::debug!(message_id = record.message.0, %fault, "could not store that a sender was told");
        }
    }

    fn count(&self, listener: &str, code: AckCode, what: ApplicationAck) {
        self.shared.metrics.acknowledged_later(listener, code.name());
        self.shared.metrics.told(listener, what);
    }

    async fn prepare(&self, record: OwedRecord, settings: &Enhanced) -> Option<PreparedAcknowledgement> {
        let made = application(&self.shared, &record, settings).await;
        if let Err(error) = &made {
            tracing::warn!(message_id = record.message.0, %error, "could not read a message that is to be acknowledged");
        }
        let (code, control_id, bytes) = made.ok()?;
        Some(PreparedAcknowledgement { record, code, control_id, bytes })
    }

    fn paused(&self) -> std::sync::MutexGuard<'_, Paused> {
        // Finished values: whole whatever happened to a holder.
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self, address: &str) -> Timestamp {
        let mut paused = self.paused();
        let (attempts, until) = paused.entry(address.to_owned()).or_insert((0, Timestamp(0)));
        *until = later(now(), backoff::wait(backoff::WAIT_MIN, backoff::WAIT_MAX, *attempts, None));
        *attempts += 1;
        *until
    }
}

/// The earliest of some times.
struct Again(Option<Timestamp>);

impl Again {
    fn at(&mut self, time: Timestamp) {
        self.0 = Some(self.0.map_or(time, |earlier| earlier.min(time)));
    }
}

/// The application acknowledgement of a message: its code, its MSH-10 and its bytes, the same each time.
pub(super) async fn application(shared: &Shared, record: &OwedRecord, settings: &Enhanced) -> Result<(AckCode, String, Vec<u8>), JournalError> {
    let control_id = Acknowledgement::application_control_id(record.message);
    if let (Some(code), Some(bytes)) = (record.code.as_deref().and_then(AckCode::named), &record.bytes) {
        return Ok((code, control_id, bytes.expose().clone()));
    }
    // Its sender knows it as it was sent, not as an operator edited it.
    let envelope = shared.journal.received(record.message).await?;
    let header = Header::read(envelope.bytes.expose()).map_err(|_| JournalError::Damaged("its MSH cannot be read".to_owned()))?;
    let refusal = (record.positive != Some(true)).then(|| told::read(record.told.as_deref()));
    let made = Acknowledgement::application(record, &header, refusal.as_ref(), settings.own);
    Ok((made.ack_code(), control_id, made.into_bytes()))
}
