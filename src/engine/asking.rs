//! Asking what a route wants to know before it maps: each question at its target, with the breaker's leave, a time limit and a cache.
//!
//! Never asks again what the journal keeps, and never lets one target's trouble count as another's.

use crate::engine::breaker::Permission;
use crate::engine::dispatch::Lane;
use crate::engine::mapping::{self, Stopped};
use crate::engine::pacts::Refusal;
use crate::engine::shared::{Shared, later, now};
use crate::engine::{Routes, refusal};
use crate::exchange::{Envelope, MessageId, Timestamp};
use crate::fhir::{Answered, Answers, Found, Question, Resume};
use crate::hl7v2::{AckCode, Fault as HlFault, Location};
use crate::journal::JournalError;
use crate::route::{Asking, RouteId};
use crate::target::{Fault, Retry, Setback};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Questions that one target is asked at the same time, besides those of its own deliveries.
pub(super) const ASKED_AT_ONCE_MAX: usize = 32;
/// Answers that are kept in memory for each target (`$cache`).
const CACHED_MAX: usize = 1_000;
/// A longer answer, as JSON, is not kept in memory.
const CACHED_BYTES_MAX: usize = 64 * 1_024;
/// How long to wait for another's probe.
pub(super) const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// What a run may ask for.
pub(super) struct Asker<'a> {
    pub(super) shared: &'a Shared,
    pub(super) routes: &'a Routes,
    pub(super) route: RouteId,
    pub(super) message: MessageId,
    pub(super) envelope: &'a Envelope,
    /// The lane of the delivery that asks: its breaker has given leave already, and hears of the outcome.
    pub(super) own: Option<&'a Lane>,
}

/// Why there are no answers.
pub(super) enum AskFault {
    /// The message's fault: nothing can be made of it.
    Stopped(Stopped),
    /// The delivery's own target failed, or refused the question.
    Own(Setback),
    /// Another target failed, or refused the question.
    Other(Setback),
    /// Another target is known to be away.
    NotBefore(Timestamp),
    /// The journal could not be read.
    Journal(JournalError),
}

impl Asker<'_> {
    /// Asks everything that the route wants to know.
    pub(super) async fn answers(&self) -> Result<Answers, (AskFault, Answers)> {
        let mut answers = Answers::default();
        loop {
            let asking = match mapping::question(self.routes, self.route, self.message, self.envelope, &answers) {
                Ok(Some(asking)) => asking,
                Ok(None) => return Ok(answers),
                Err(stopped) => return Err((AskFault::Stopped(stopped), answers)),
            };
            let answer = match &asking.question {
                None => None,
                Some(question) => match self.ask(&asking, question, answers.entries.len()).await {
                    Ok(found) => Some((question.clone(), found)),
                    Err(fault) => return Err((fault, answers)),
                },
            };
            answers.entries.push(Answered { name: asking.name.to_string(), target: asking.target.to_string(), answer });
        }
    }

    async fn ask(&self, asking: &Asking, question: &Question, nth: usize) -> Result<Found, AskFault> {
        let lanes = self.shared.lanes.load_full();
        let Some(lane) = lanes.iter().find(|lane| *lane.name == *asking.target) else {
            let text = format!("`{}` asks the target {}, which the site does not have", asking.name, asking.target);
            return Err(AskFault::Stopped(Stopped { kind: "no-target", told: refusal::of_words(&text, true), text, unknown: Vec::new() }));
        };
        let replies = self.routes.set.info(self.route).reply.is_some();
        let (question, resume) = match &question.continues {
            Some(pointer) => self.continuation(pointer, &asking.name).await?,
            None => (question.clone(), None),
        };
        let cached = asking.cache.filter(|_| resume.is_none());
        let mut found = match cached.and_then(|_| lane.answers.get(&question, now())) {
            Some(found) => found,
            None => {
                let found = self.ask_target(lane, asking, &question, resume.as_ref()).await?;
                if let Some(age) = cached {
                    lane.answers.put(&question, &found, later(now(), age));
                }
                found
            }
        };
        found.more = found.resume.as_ref().filter(|_| replies).map(|_| pointer(self.shared.journal.secret(), self.message, nth));
        Ok(found)
    }

    async fn ask_target(&self, lane: &Arc<Lane>, asking: &Asking, question: &Question, resume: Option<&Resume>) -> Result<Found, AskFault> {
        let own = self.own.is_some_and(|own| std::ptr::eq(own, &**lane));
        if own {
            return once(lane, asking, question, resume).await.map_err(AskFault::Own);
        }
        let permission = lane.breaker().permission(now());
        match permission {
            Permission::Yes | Permission::Probe => {}
            Permission::NotBefore(until) => return Err(AskFault::NotBefore(until)),
            Permission::AwaitProbe => return Err(AskFault::NotBefore(later(now(), PROBE_PAUSE))),
        }
        let asked = {
            // Whoever is dropped while it asks must not leave the breaker waiting for a probe.
            let _probe = Probe(lane);
            let _turn = lane.asking.acquire().await;
            let mut asked = once(lane, asking, question, resume).await;
            match &mut asked {
                Ok(_) => {
                    if lane.breaker().succeeded() {
                        self.shared.metrics.breaker(&lane.name, false);
                        tracing::info!(target_name = %lane.name, "the target is back");
                        lane.is_back();
                    }
                }
                Err(setback) if setback.fault == Fault::Target => {
                    if lane.breaker().failed(now(), setback.retry_after) {
                        tracing::warn!(target_name = %lane.name, code = setback.code, "the breaker is open: only probes are sent until the target is back");
                    }
                    self.shared.metrics.breaker(&lane.name, lane.breaker().is_open());
                }
                // What it refuses to everybody in the same way is its own fault. What Kiln makes of an answer, and no status, says nothing about it.
                Err(setback) if setback.fault == Fault::Message && setback.status.is_some() => {
                    if lane.breaker().refused(self.message, setback.code, now()) {
                        tracing::warn!(target_name = %lane.name, code = setback.code, "the breaker is open: only probes are sent until the target is back");
                        setback.fault = Fault::Target;
                    }
                    self.shared.metrics.breaker(&lane.name, lane.breaker().is_open());
                }
                Err(_) => {}
            }
            asked
        };
        asked.map_err(AskFault::Other)
    }

    /// The question that an earlier answer was given to, and where that ended. Only who asked it may go on.
    async fn continuation(&self, pointer: &str, name: &str) -> Result<(Question, Option<Resume>), AskFault> {
        let unknown = || {
            let text = "the continuation pointer leads nowhere: it is not of an answer to this sender, or that answer is no longer kept; ask again without it";
            let fault = HlFault::new(Location::field("DSC", 1), HlFault::UNKNOWN_KEY, text);
            AskFault::Stopped(Stopped {
                kind: "no-continuation",
                text: text.to_owned(),
                told: Refusal { code: AckCode::ApplicationError, faults: vec![fault] },
                unknown: Vec::new(),
            })
        };
        let Some((message, nth)) = read_pointer(self.shared.journal.secret(), pointer) else { return Err(unknown()) };
        let journal = &self.shared.journal;
        let (reply, asked) = match (journal.reply(message).await, journal.payload(message).await) {
            (Ok(Some(reply)), Ok(asked)) => (reply, asked),
            (Ok(None) | Err(JournalError::Missing), _) | (_, Err(JournalError::Missing)) => return Err(unknown()),
            (Err(error), _) | (_, Err(error)) => return Err(AskFault::Journal(error)),
        };
        let sender = |e: &Envelope| (e.listener.clone(), e.sending_application.clone(), e.sending_facility.clone());
        let entry = Answers::from_json(reply.answers.expose()).and_then(|answers| answers.entries.into_iter().nth(nth));
        let answer = entry.filter(|entry| entry.name == name && reply.route == *self.routes.set.info(self.route).name).and_then(|entry| entry.answer);
        match answer {
            Some((mut question, Found { resume: Some(resume), .. })) if sender(&asked) == sender(self.envelope) => {
                question.continues = Some(pointer.to_owned());
                Ok((question, Some(resume)))
            }
            _ => Err(unknown()),
        }
    }
}

/// Gives the probe back, however the asking ends.
struct Probe<'a>(&'a Lane);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.breaker().return_probe(now());
    }
}

async fn once(lane: &Lane, asking: &Asking, question: &Question, resume: Option<&Resume>) -> Result<Found, Setback> {
    let setup = lane.setup();
    let asked = setup.target.ask(question, resume);
    match asking.timeout {
        None => asked.await,
        Some(limit) => tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(too_slow(&asking.name, limit))),
    }
}

pub(super) fn too_slow(name: &str, limit: Duration) -> Setback {
    Setback {
        retry: Retry::Transient,
        fault: Fault::Target,
        retry_after: None,
        status: None,
        code: "timeout",
        summary: format!("`{name}` was not answered within {} s", limit.as_secs()),
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
        sent: Vec::new(),
        about: Vec::new(),
    }
}

/// A name for where the answer to question `nth` of a message ends, which nobody can make up.
fn pointer(secret: &[u8; 32], message: MessageId, nth: usize) -> String {
    let proof = blake3::keyed_hash(secret, format!("continuation|{}|{nth}", message.0).as_bytes()).to_hex();
    format!("{}.{nth}.{}", message.0, proof.get(..16).unwrap_or_default())
}

fn read_pointer(secret: &[u8; 32], text: &str) -> Option<(MessageId, usize)> {
    let mut parts = text.splitn(3, '.');
    let (message, nth) = (MessageId(parts.next()?.parse().ok()?), parts.next()?.parse().ok()?);
    (pointer(secret, message, nth) == text).then_some((message, nth))
}

/// Answers of one target that routes said may be used again (`$cache`).
#[derive(Default)]
pub(super) struct Cache(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    answers: HashMap<String, (Timestamp, Found)>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl Cache {
    fn get(&self, question: &Question, at: Timestamp) -> Option<Found> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.answers.get(&question.written()).filter(|(until, _)| *until > at).map(|(_, found)| found.clone())
    }

    fn put(&self, question: &Question, found: &Found, until: Timestamp) {
        if serde_json::to_string(found).is_ok_and(|text| text.len() > CACHED_BYTES_MAX) {
            return;
        }
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = question.written();
        if cached.answers.insert(key.clone(), (until, found.clone())).is_none() {
            cached.order.push_back(key);
        }
        while cached.order.len() > CACHED_MAX
            && let Some(oldest) = cached.order.pop_front()
        {
            cached.answers.remove(&oldest);
        }
    }

    /// Another target may answer otherwise.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Cached::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str) -> Question {
        Question { resource_type: "Patient".to_owned(), parameters: vec![("name".to_owned(), name.to_owned())], ..Question::default() }
    }

    #[test]
    fn an_answer_stands_for_its_question_until_its_time() {
        let cache = Cache::default();
        let found = Found { total: Some(7), ..Found::default() };
        cache.put(&question("a"), &found, Timestamp(1_000));
        assert_eq!(cache.get(&question("a"), Timestamp(999)), Some(found));
        assert_eq!(cache.get(&question("a"), Timestamp(1_000)), None);
        assert_eq!(cache.get(&question("b"), Timestamp(0)), None);
    }

    #[test]
    fn the_cache_is_bounded_in_number_and_size() {
        let cache = Cache::default();
        for n in 0..=CACHED_MAX {
            cache.put(&question(&n.to_string()), &Found::default(), Timestamp(1));
        }
        assert_eq!(cache.get(&question("0"), Timestamp(0)), None, "the oldest makes room");
        assert!(cache.get(&question(&CACHED_MAX.to_string()), Timestamp(0)).is_some());
        let long = Found { matches: vec!["x".repeat(CACHED_BYTES_MAX).into()], ..Found::default() };
        cache.put(&question("long"), &long, Timestamp(1));
        assert_eq!(cache.get(&question("long"), Timestamp(0)), None);
    }

    #[test]
    fn nobody_can_make_up_a_pointer() {
        let secret = [7; 32];
        let text = pointer(&secret, MessageId(12), 0);
        assert_eq!(read_pointer(&secret, &text), Some((MessageId(12), 0)));
        assert_eq!(read_pointer(&[8; 32], &text), None);
        assert_eq!(read_pointer(&secret, &text.replacen("12", "13", 1)), None);
        assert_eq!(read_pointer(&secret, "12"), None);
    }
}
