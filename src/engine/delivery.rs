//! One attempt at a delivery: parse, run, save, and what its outcome means.
//!
//! Never lets two saves of one identity be in flight together, and never settles before the target has promised.

use crate::engine::backoff;
use crate::engine::dispatch::{Fate, Lane, Slot, store, try_store};
use crate::engine::guard::Held;
use crate::engine::keys;
use crate::engine::mapping::{self, Stopped};
use crate::engine::pacts::{Part, Refusal};
use crate::engine::receipt;
use crate::engine::shared::{Shared, later, now};
use crate::engine::window::Again;
use crate::engine::{RoutesFault, TargetSetup, refusal, told};
use crate::exchange::{DeliveryId, Phi, Timestamp};
use crate::fhir::{KnownId, SaveMode, Saves};
use crate::hl7v2::{Fault as HlFault, Message};
use crate::journal::{AttemptRecord, DeliveryState, IdentityKey, JournalError, Learned, Pending, ServerId, Settle, SettleFault, Settlement};
use crate::metrics::Outcome;
use crate::route::AfterDeadLetter;
use crate::site::OnRemoval;
use crate::target::{Fault, Job, Receipt, Retry, Saved, Sent, Setback, Target};
use futures_util::FutureExt;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// How a delivery's turn ended, for the dispatcher.
pub(super) enum Ended {
    /// Settled for good.
    Settled,
    /// Settled for good, and the target is back after a time of faults.
    Recovered,
    /// A dead letter behind which later deliveries of a common key wait.
    Blocks,
    /// It will be tried again.
    Again(Again),
    /// An operator changed the queue before it was parked.
    Changed,
    /// The journal is gone; the next start knows.
    Unknown,
}

/// Whether a message was refused.
enum Refused {
    Yes,
    /// Something of it was done, or may have been: it is a dead letter like any other, and nobody is told.
    TooLate,
    /// The journal is gone.
    Unknown,
}

/// One attempt, from the stored message to the stored outcome. Catches panics: a defect costs one delivery, not the lane.
///
/// `doubted`: a process that was killed may have sent it, and the server may still be at it.
pub(super) async fn attempt(shared: &Shared, lane: &Lane, pending: &Pending, slot: Slot, doubted: bool) -> Ended {
    let mut attempt = Attempt { shared, lane, setup: lane.setup(), pending, doubted, began: std::time::Instant::now(), part: None };
    if pending.awaited.is_some() {
        let mut part = shared.pacts.join(pending.id.message);
        part.begin().await;
        // Only now: a refusal that was stored before has taken this delivery back.
        match still_waits(shared, pending.id).await {
            Ok(true) => attempt.part = Some(tokio::sync::Mutex::new(part)),
            Ok(false) => {
                lane.replies.end(pending.id);
                return Ended::Settled;
            }
            Err(JournalError::Closed | JournalError::Failing) => return Ended::Unknown,
            Err(_) => return Ended::Again(attempt.pause()),
        }
    }
    let ended = match AssertUnwindSafe(Box::pin(attempt.make(slot))).catch_unwind().await {
        Ok(ended) => ended,
        Err(_) => {
            let summary = "a defect in kiln: the attempt panicked; the log names the place".to_owned();
            attempt.dead_letter("defect", summary, None, None, false, None).await
        }
    };
    if !matches!(ended, Ended::Again(_) | Ended::Unknown) {
        lane.replies.end(pending.id);
    }
    // Whatever did not tell anything about the target leaves the probe to the next delivery.
    lane.breaker().return_probe(now());
    ended
}

/// Whether a delivery waits for its turn, as far as the journal knows.
async fn still_waits(shared: &Shared, id: DeliveryId) -> Result<bool, JournalError> {
    let record = shared.journal.show(id.message).await?;
    Ok(record.deliveries.iter().any(|d| d.id == id && d.state == DeliveryState::Pending))
}

/// What an attempt goes by.
pub(super) struct Attempt<'a> {
    pub(super) shared: &'a Shared,
    pub(super) lane: &'a Lane,
    setup: Arc<TargetSetup>,
    pub(super) pending: &'a Pending,
    /// It may have been under way when the process before this one was killed.
    doubted: bool,
    began: std::time::Instant,
    /// Its part in what its sender, who waits, is told.
    pub(super) part: Option<tokio::sync::Mutex<Part>>,
}

impl Attempt<'_> {
    /// `slot` is given up as soon as the target has answered: while an outcome is being stored, the target can do something else.
    async fn make(&self, slot: Slot) -> Ended {
        if let Some(until) = self.asked_is_away().await {
            return Ended::Again(Again { not_before: until, ..self.pause() });
        }
        let envelope = match self.shared.journal.payload(self.pending.id.message).await {
            Ok(envelope) => envelope,
            Err(JournalError::Closed | JournalError::Failing) => return Ended::Unknown,
            // Nobody will read it at another try either, and what comes after it must not wait for ever.
            Err(error @ (JournalError::Damaged(_) | JournalError::Missing)) => {
                let blocks = self.shared.routes().waits_after_dead_letter(&self.pending.route);
                let summary = format!("the stored message cannot be read: {error}; `kiln journal verify` says what else is wrong");
                return self.dead_letter("damaged", summary, None, None, blocks, None).await;
            }
            Err(error) => {
                tracing::warn!(message_id = self.pending.id.message.0, %error, "could not read a message");
                return Ended::Again(self.pause());
            }
        };
        if self.pending.keys.len() > keys::ORDER_KEYS_MAX {
            let blocks = self.shared.routes().waits_after_dead_letter(&self.pending.route);
            let most = keys::ORDER_KEYS_MAX;
            let options = self.shared.routes().manner(&envelope.listener).parse_options();
            let parsed = Message::parse(envelope.bytes.expose().clone(), &options);
            let longest = parsed.as_ref().ok().and_then(Message::most_frequent);
            let longest = longest.map_or_else(String::new, |(name, times, first)| format!(" ({times} segments are {name}, from line {first} on)"));
            let summary = format!("the message names more than {most} patients and visits{longest}, so that its order among their messages cannot be kept");
            return self.dead_letter("too-large", summary, None, None, blocks, None).await;
        }
        if self.lane.fate() == Fate::Condemned {
            let summary = format!("the target {} was taken out of the site, which says `on-removal: dead-letter`", self.lane.name);
            return self.dead_letter("target-removed", summary, None, None, false, None).await;
        }
        // One that was not tried yet takes the routes of the day; where they have its route no more, the last set that had it.
        let current = self.shared.current.load_full();
        let retired = current.retired.get(&self.pending.route).filter(|_| current.routes.set.named(&self.pending.route).is_none());
        if let (None, Some(last), OnRemoval::DeadLetter) = (&self.pending.program, retired, current.on_removal) {
            let summary = format!("the route {} was taken away, and the site says `on-removal: dead-letter`", self.pending.route);
            return self.dead_letter("route-removed", summary, None, Some(last.clone()), false, None).await;
        }
        let routes = match self.shared.routes_for(self.pending.program.as_ref().or(retired).map(String::as_str)).await {
            Ok(routes) => routes,
            Err(RoutesFault::Journal(JournalError::Closed | JournalError::Failing)) => return Ended::Unknown,
            // Nothing is known about the set: that it cannot be read now is no reason to give the message up.
            Err(RoutesFault::Journal(error)) => {
                tracing::warn!(message_id = self.pending.id.message.0, %error, "could not read a route set");
                return Ended::Again(self.pause());
            }
            Err(fault) => return self.dead_letter("no-program", fault.to_string(), None, None, false, None).await,
        };
        let program = Some(routes.hash().to_owned());
        let Some(route) = routes.set.named(&self.pending.route) else {
            let summary = format!("the route {} is not in the route set that applies to this delivery", self.pending.route);
            return self.dead_letter("no-route", summary, None, program, false, None).await;
        };
        let info = routes.set.info(route);
        let blocks = info.after_dead_letter == AfterDeadLetter::Wait;
        let answers = match self.answers(&routes, route, &envelope, &program, blocks).await {
            Ok(answers) => answers,
            Err(ended) => return ended,
        };
        let mapped = match mapping::run(&routes, route, self.pending.id.message, &envelope, &answers) {
            Ok(output) => output,
            Err(Stopped { kind, text, told, unknown }) => {
                let ended = self.dead_letter(kind, text, None, program, blocks, Some(told)).await;
                self.shared.unknown.count(&envelope, self.pending.id.message, &unknown);
                return ended;
            }
        };
        for finding in &mapped.findings {
            self.shared.metrics.finding(finding.kind);
        }
        let sending = self.setup.send.unwrap_or_else(|| mapping::sending(info.send));
        let retry_for = info.retry_for_seconds.map(Duration::from_secs);
        let keys = self.identity_keys(&mapped.saves);
        let (held, known) = match self.hold(&mapped.saves, &keys).await {
            Ok(held_and_known) => held_and_known,
            Err(JournalError::Closed | JournalError::Failing) => return Ended::Unknown,
            Err(_) => return Ended::Again(self.pause()),
        };
        // A plain create has nothing by which a repetition could find it: the journal must know before it is sent that it may have happened.
        let creates = mapped.saves.entries.iter().any(|save| save.mode == SaveMode::Create);
        if creates && matches!(*self.setup.target, Target::Fhir(_)) {
            let begun = Settle { delivery: self.pending.id, at: now(), program: program.clone(), outcome: Settlement::Begun };
            if !store(self.shared, begun).await {
                return Ended::Unknown;
            }
        }
        let made = receipt::mark(routes.hash(), envelope.bytes.expose(), &answers);
        let (done, sent) = match self.earlier(&mapped, &made).await {
            Ok(earlier) => earlier,
            Err(JournalError::Closed | JournalError::Failing) => return Ended::Unknown,
            Err(_) => return Ended::Again(self.pause()),
        };
        if self.setup.replies.is_some() {
            self.lane.replies.begin(self.pending.id, self.pending.first_attempt.is_some());
        }
        let job = Job {
            delivery: self.pending.id,
            saves: &mapped.saves,
            drafts: &mapped.drafts,
            known: &known,
            done: &done,
            after_ambiguous: self.pending.ambiguous || (self.doubted && !creates),
            sent: &sent,
            answers: &self.lane.replies.answers(self.pending.id),
        };
        let outcome = if mapped.saves.entries.is_empty() && mapped.drafts.is_empty() {
            Ok(Receipt::default())
        } else {
            Box::pin(self.setup.target.deliver(job, sending)).await
        };
        drop(slot);
        let awaited = matches!(&outcome, Err(setback) if setback.fault == Fault::Awaited);
        let ended = match outcome {
            Ok(receipt) => {
                let ended = self.delivered(receipt, &mapped, &keys, program).await;
                self.shared.unknown.count(&envelope, self.pending.id.message, &mapped.unknown);
                ended
            }
            Err(setback) => {
                let told = ((self.part.is_some() || self.pending.owed) && setback.fault == Fault::Message)
                    .then(|| refusal::of_answer(setback.detail.as_ref().map(|d| d.expose().as_str()), &setback, &routes, route, &envelope, &answers));
                let detail = receipt::with_partial(setback.detail, &setback.saved, &setback.sent, &setback.about, &made);
                self.set_back(Setback { detail, ..setback }, &keys, program, retry_for, blocks, told).await
            }
        };
        drop(held);
        // What the answers were about is stored; one that is sent again gets new ones.
        if !awaited {
            self.lane.replies.forget(self.pending.id);
        }
        ended
    }

    /// Waits for the identities that are going to be written, and then asks what is known of all.
    async fn hold(&self, saves: &Saves, keys: &[Vec<IdentityKey>]) -> Result<(Held, Vec<Option<KnownId>>), JournalError> {
        // What exists and is only referred to needs no turn: else a hospital's one Organization would make all of its messages wait.
        let may_exist = saves.entries.iter().any(|save| save.mode == SaveMode::CreateIfNone);
        let exists = if may_exist { self.known(keys).await? } else { Vec::new() };
        let held = self.lane.guard.hold(self.pending.id, written_identities(saves, &exists, self.has_one_writer())).await;
        // Only now: what the delivery before learned is in the journal, since it held on until its outcome was stored.
        Ok((held, self.known(keys).await?))
    }

    /// A folder writes from one thread, each delivery on top of the one before, and a null target writes nothing: there, two that create
    /// the same thing if there is none cannot both find none.
    fn has_one_writer(&self) -> bool {
        !matches!(*self.setup.target, Target::Fhir(_))
    }

    /// The names under which the journal knows each entry's identities. Only a server gives ids that are worth knowing.
    fn identity_keys(&self, saves: &Saves) -> Vec<Vec<IdentityKey>> {
        if self.has_one_writer() {
            return vec![Vec::new(); saves.entries.len()];
        }
        let key = |resource_type: &str, system: &str, value: &str| self.shared.journal.identity_key(&self.lane.name, resource_type, system, value);
        saves.entries.iter().map(|save| save.identity.iter().map(|i| key(save.resource_type, &i.system, &i.value)).collect()).collect()
    }

    /// What earlier receipts told about each entry: the first of its identities that is known.
    async fn known(&self, keys: &[Vec<IdentityKey>]) -> Result<Vec<Option<KnownId>>, JournalError> {
        let all = keys.concat();
        if all.is_empty() {
            return Ok(vec![None; keys.len()]);
        }
        let mut found = self.shared.journal.known(&all).await?.into_iter();
        let of_entry = |keys: &Vec<IdentityKey>| {
            // Takes this entry's answers off the list, also those behind the first that is known.
            let answers: Vec<_> = found.by_ref().take(keys.len()).collect();
            answers.into_iter().flatten().next().map(|server| KnownId { id: server.id, etag: server.etag })
        };
        Ok(keys.iter().map(of_entry).collect())
    }

    /// What earlier attempts of this delivery saved already, and how far its messages have come.
    async fn earlier(&self, mapped: &crate::route::Output, made: &str) -> Result<(Vec<Saved>, Vec<Sent>), JournalError> {
        let remembers = match *self.setup.target {
            Target::Fhir(_) => self.pending.attempts > 0,
            // A replay begins to count anew, and yet does not send again what the receiver has taken.
            Target::V2(_) => self.pending.attempts > 0 || mapped.drafts.len() > 1,
            Target::Folder(_) | Target::Null => false,
        };
        if !remembers {
            return Ok((Vec::new(), Vec::new()));
        }
        let record = self.shared.journal.show(self.pending.id.message).await?;
        let Some(delivery) = record.deliveries.iter().find(|d| d.id == self.pending.id) else { return Ok((Vec::new(), Vec::new())) };
        // What was delivered once and is replayed is delivered anew.
        let from = delivery.attempts.iter().rposition(|attempt| attempt.outcome == "delivered").map_or(0, |n| n + 1);
        let replayed = delivery.attempts.iter().rposition(|attempt| attempt.outcome == "replayed").unwrap_or(0);
        let mut done = Vec::new();
        for (n, attempt) in delivery.attempts.iter().enumerate().skip(from) {
            let Some(detail) = &attempt.detail else { continue };
            let saved = receipt::read_partial(detail.expose(), &mapped.saves, made);
            // An operator means all of it. Only what nothing could find again is not made a second time.
            let plain = |s: &Saved| mapped.saves.entries.get(s.entry).is_some_and(|save| save.mode == SaveMode::Create);
            done.extend(saved.into_iter().filter(|s| n > replayed || replayed == 0 || plain(s)));
        }
        Ok((done, sent_before(delivery.attempts.iter().skip(from), Some(made))))
    }

    async fn delivered(&self, receipt: Receipt, mapped: &crate::route::Output, keys: &[Vec<IdentityKey>], program: Option<String>) -> Ended {
        let learned = receipt.saved.iter().flat_map(|saved| {
            let server = ServerId { id: saved.id.clone(), etag: saved.etag.clone() };
            keys.get(saved.entry).into_iter().flatten().map(move |identity| Learned { identity: *identity, server: server.clone() })
        });
        let outcome = Settlement::Delivered {
            receipt: Phi::new(receipt::json(&receipt, mapped)),
            learned: learned.collect(),
            forget: of_entries(keys, &receipt.stale),
            target_state: receipt.state,
        };
        // Where there was nothing to save, nobody has heard from the target.
        let recovered = !(mapped.saves.entries.is_empty() && mapped.drafts.is_empty()) && self.lane.breaker().succeeded();
        if recovered {
            self.shared.metrics.breaker(&self.lane.name, false);
            tracing::info!(target_name = %self.lane.name, "the target is back");
        }
        if !self.settle(program, outcome).await {
            return Ended::Unknown;
        }
        self.count(Outcome::Delivered);
        if recovered { Ended::Recovered } else { Ended::Settled }
    }

    pub(super) async fn set_back(
        &self,
        setback: Setback,
        keys: &[Vec<IdentityKey>],
        program: Option<String>,
        retry_for: Option<Duration>,
        blocks: bool,
        told: Option<Refusal>,
    ) -> Ended {
        let at = now();
        let attempts = self.pending.attempts;
        let (wait, outcome, target_at_fault) = match setback.fault {
            Fault::Message if !self.lane.breaker().refused(self.pending.id.message, setback.code, at) => {
                return self.dead_letter(setback.code, setback.summary, setback.detail, program, blocks, told).await;
            }
            Fault::Awaited => {
                self.is_there();
                (setback.retry_after.unwrap_or_default(), Outcome::Accepted, false)
            }
            Fault::Declined => {
                self.is_there();
                (backoff::wait(backoff::WAIT_MIN, backoff::WAIT_MAX, attempts, setback.retry_after), Outcome::Transient, false)
            }
            Fault::Race => {
                self.lane.breaker().succeeded();
                (backoff::wait(backoff::RACE_WAIT_MIN, backoff::RACE_WAIT_MAX, attempts, setback.retry_after), Outcome::Race, false)
            }
            fault => {
                // A refusal that everybody gets has opened the breaker already.
                if fault == Fault::Message || self.lane.breaker().failed(at, setback.retry_after) {
                    tracing::warn!(target_name = %self.lane.name, code = setback.code, "the breaker is open: only probes are sent until the target is back");
                }
                self.shared.metrics.breaker(&self.lane.name, self.lane.breaker().is_open());
                (backoff::wait(backoff::WAIT_MIN, backoff::WAIT_MAX, attempts, setback.retry_after), Outcome::Transient, true)
            }
        };
        let ambiguous = setback.retry == Retry::Ambiguous;
        // After an attempt that may have happened, the target gets its settle time before anybody reads what is there.
        let wait = if ambiguous { wait.max(self.setup.settle) } else { wait };
        let mut again = Again {
            not_before: later(at, wait),
            ambiguous: ambiguous || self.pending.ambiguous,
            program: program.clone(),
            target_at_fault: target_at_fault && !ambiguous,
        };
        if let (Some(retry_for), Some(first)) = (retry_for, self.pending.first_attempt)
            && setback.fault != Fault::Awaited
            && again.not_before > later(first, retry_for)
        {
            let summary = format!("given up after {} attempts in {} s: {}", attempts + 1, retry_for.as_secs(), setback.summary);
            return self.dead_letter(setback.code, summary, setback.detail, program, blocks, told).await;
        }
        tracing::debug!(target_name = %self.lane.name, message_id = self.pending.id.message.0, code = setback.code, attempts, "an attempt did not succeed");
        let settlement = Settlement::Retry {
            not_before: again.not_before,
            ambiguous: again.ambiguous,
            code: setback.code.to_owned(),
            summary: setback.summary,
            detail: setback.detail,
            forget: of_entries(keys, &setback.stale),
        };
        if !self.settle(program, settlement).await {
            return Ended::Unknown;
        }
        // Only now: what is told to wait must be found again after a restart. The answer may have been quicker.
        if setback.fault == Fault::Awaited && self.lane.replies.expect(self.pending.id, &setback.sent) {
            again.not_before = at;
        }
        self.count(if ambiguous { Outcome::Ambiguous } else { outcome });
        Ended::Again(again)
    }

    /// The target has answered, whatever it said: the breaker closes, and what waited for the target goes on.
    fn is_there(&self) {
        if self.lane.breaker().succeeded() {
            self.shared.metrics.breaker(&self.lane.name, false);
            self.lane.is_back();
        }
    }

    pub(super) async fn dead_letter(
        &self,
        code: &'static str,
        summary: String,
        detail: Option<Phi<String>>,
        program: Option<String>,
        blocks: bool,
        told: Option<Refusal>,
    ) -> Ended {
        let told = told.unwrap_or_else(|| refusal::of_words(&summary, true));
        let owed = self.pending.owed.then(|| told::write(&told));
        if self.pending.awaited == Some(true) {
            match self.refuse(code, &summary, detail.clone(), program.clone(), told).await {
                Refused::Yes => return Ended::Settled,
                Refused::TooLate => {}
                Refused::Unknown => return Ended::Unknown,
            }
        }
        let (message, number, attempts) = (self.pending.id.message.0, self.pending.id.number, self.pending.attempts);
        tracing::warn!(target_name = %self.lane.name, route = %self.pending.route, message_id = message, number, code, attempts, "a delivery was given up");
        let outcome = Settlement::DeadLetter { code: code.to_owned(), summary, detail, blocks, told: owed };
        if !self.settle(program, outcome).await {
            return Ended::Unknown;
        }
        self.count(Outcome::DeadLetter);
        if blocks { Ended::Blocks } else { Ended::Settled }
    }

    /// Makes the whole message a refused one, since its sender waits and nothing of it has been done; then the sender is told.
    async fn refuse(&self, code: &'static str, summary: &str, detail: Option<Phi<String>>, program: Option<String>, told: Refusal) -> Refused {
        let Some(part) = &self.part else { return Refused::TooLate };
        // What a process that was killed may have sent was the same, and met the same refusal.
        if self.pending.ambiguous {
            return Refused::TooLate;
        }
        let mut part = part.lock().await;
        part.alone().await;
        let err = told.faults.first().map_or(HlFault::INTERNAL, |fault| fault.code);
        let outcome = Settlement::Refused { code: code.to_owned(), summary: summary.to_owned(), detail, told: err };
        let at = Timestamp(now().0.max(self.pending.received.0));
        let stored = try_store(self.shared, Settle { delivery: self.pending.id, at, program, outcome }).await;
        part.refused(stored.is_ok().then_some(told));
        match stored {
            Ok(()) => {
                let (message, target) = (self.pending.id.message.0, &self.lane.name);
                tracing::info!(message_id = message, target_name = %target, code, "a message was refused: its sender is told, and its deliveries are withdrawn");
                self.count(Outcome::Refused);
                Refused::Yes
            }
            // Another of its deliveries was quicker with the same; or something of it was done.
            Err(SettleFault::TooLate | SettleFault::Unknown) => match still_waits(self.shared, self.pending.id).await {
                Ok(false) => Refused::Yes,
                Ok(true) | Err(_) => Refused::TooLate,
            },
            Err(SettleFault::Full | SettleFault::Failing | SettleFault::Closed) => Refused::Unknown,
        }
    }

    pub(super) async fn settle(&self, program: Option<String>, outcome: Settlement) -> bool {
        let at = Timestamp(now().0.max(self.pending.received.0));
        store(self.shared, Settle { delivery: self.pending.id, at, program, outcome }).await
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.shared.metrics.delivery(&self.lane.name, outcome, self.began.elapsed());
    }

    /// A pause that is not the delivery's fault; nothing was tried. It grows with each time.
    pub(super) fn pause(&self) -> Again {
        const PAUSE: Duration = Duration::from_secs(1);
        let wait = PAUSE + backoff::wait(PAUSE, backoff::WAIT_MAX, self.pending.attempts, None);
        Again { not_before: later(now(), wait), ambiguous: self.pending.ambiguous, program: self.pending.program.clone(), target_at_fault: false }
    }
}

/// How far the messages of a delivery have come: what counts is said since it was last done as a whole, and of messages that are made in the
/// same way (`made`; without it, in any).
pub(super) fn sent_before<'a>(attempts: impl Iterator<Item = &'a AttemptRecord>, made: Option<&str>) -> Vec<Sent> {
    let mut sent = Vec::new();
    for attempt in attempts {
        if attempt.outcome == "delivered" {
            sent.clear();
        }
        sent.extend(attempt.detail.iter().flat_map(|detail| receipt::read_sent(detail.expose(), made)));
    }
    sent
}

/// The identities that are going to be written, hashed for the guard. `exists` says, by entry, what is known to exist already.
fn written_identities(saves: &Saves, exists: &[Option<KnownId>], one_writer: bool) -> Vec<u64> {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let is_written = |n: usize, mode: SaveMode| match mode {
        SaveMode::Find => false,
        SaveMode::CreateIfNone => !one_writer && !exists.get(n).is_some_and(Option::is_some),
        SaveMode::Create | SaveMode::Update | SaveMode::Merge | SaveMode::Patch | SaveMode::Put | SaveMode::Delete => true,
    };
    let written = saves.entries.iter().enumerate().filter(|(n, save)| is_written(*n, save.mode));
    written.flat_map(|(_, save)| save.identity.iter().map(|i| HASHER.hash_one((save.resource_type, &i.system, &i.value)))).collect()
}

fn of_entries(keys: &[Vec<IdentityKey>], entries: &[usize]) -> Vec<IdentityKey> {
    entries.iter().filter_map(|entry| keys.get(*entry)).flatten().copied().collect()
}
