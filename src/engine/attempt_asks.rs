//! What an attempt asks before it maps, and whose fault it is when nobody answers.

use crate::engine::asking::{AskFault, Asker, PROBE_PAUSE};
use crate::engine::backoff;
use crate::engine::delivery::{Attempt, Ended};
use crate::engine::dispatch::Fate;
use crate::engine::mapping::Stopped;
use crate::engine::shared::{later, now};
use crate::engine::window::Again;
use crate::engine::{Routes, refusal};
use crate::exchange::{Envelope, Phi, Timestamp};
use crate::fhir::Answers;
use crate::journal::{JournalError, Kept, SettleFault, Settlement};
use crate::metrics::Outcome;
use crate::route::RouteId;
use crate::target::{Fault, Setback};
use std::time::Duration;

impl Attempt<'_> {
    /// What the route wants to know: as kept by an earlier attempt, else asked now, and kept before anything is made of it.
    pub(super) async fn answers(&self, routes: &Routes, route: RouteId, envelope: &Envelope, program: &Option<String>, blocks: bool) -> Result<Answers, Ended> {
        let info = routes.set.info(route);
        if info.asks.is_empty() {
            return Ok(Answers::default());
        }
        let unread = |error: JournalError| match error {
            JournalError::Closed | JournalError::Failing => Ended::Unknown,
            _ => Ended::Again(self.pause()),
        };
        if let Some(kept) = self.shared.journal.answers(self.pending.id).await.map_err(unread)?
            && let Some(answers) = Answers::from_json(kept.expose())
        {
            return Ok(answers);
        }
        let asker = Asker { shared: self.shared, routes, route, message: self.pending.id.message, envelope, own: Some(self.lane) };
        let (fault, answers) = match asker.answers().await {
            Ok(answers) => return if self.keep(&answers).await { Ok(answers) } else { Err(Ended::Unknown) },
            Err(fault_and_answers) => fault_and_answers,
        };
        let retry_for = info.retry_for_seconds.map(Duration::from_secs);
        Err(match fault {
            AskFault::Stopped(Stopped { kind, text, told, unknown }) => {
                // So that one can see what it stopped at.
                if !self.keep(&answers).await {
                    return Err(Ended::Unknown);
                }
                let ended = self.dead_letter(kind, text, None, program.clone(), blocks, Some(told)).await;
                self.shared.unknown.count(envelope, self.pending.id.message, &unknown);
                ended
            }
            AskFault::Own(setback) => {
                let told = ((self.part.is_some() || self.pending.owed) && setback.fault == Fault::Message).then(|| refusal::of_words(&setback.summary, false));
                self.set_back(setback, &[], program.clone(), retry_for, blocks, told).await
            }
            AskFault::Other(setback) if setback.fault == Fault::Message => {
                let told = refusal::of_words(&setback.summary, false);
                self.dead_letter(setback.code, setback.summary, setback.detail, program.clone(), blocks, Some(told)).await
            }
            AskFault::Other(setback) => self.asked_in_vain(setback, program.clone(), retry_for, blocks).await,
            AskFault::NotBefore(until) if self.gives_up(retry_for, until) => {
                let summary = "given up: the server that the route asks is still away".to_owned();
                self.dead_letter("asked-in-vain", summary, None, program.clone(), blocks, None).await
            }
            AskFault::NotBefore(until) => Ended::Again(Again { not_before: until, ..self.pause() }),
            AskFault::Journal(error) => unread(error),
        })
    }

    /// Until when another target that the route asks is known to be away, if its answers are not kept already: with thousands that wait for it,
    /// none need be read and mapped to find that out.
    pub(super) async fn asked_is_away(&self) -> Option<Timestamp> {
        let routes = match &self.pending.program {
            Some(hash) => self.shared.routes_for(Some(hash)).await.ok()?,
            None => self.shared.routes(),
        };
        let info = routes.set.info(routes.set.named(&self.pending.route)?);
        if info.asks.is_empty() || self.lane.fate() == Fate::Condemned {
            return None;
        }
        let lanes = self.shared.lanes.load_full();
        let others = lanes.iter().filter(|lane| lane.name != self.lane.name && info.asks.contains(&lane.name));
        let until = others.filter_map(|lane| lane.breaker().waits(now(), PROBE_PAUSE)).max()?;
        let gives_up = self.gives_up(info.retry_for_seconds.map(Duration::from_secs), until);
        (!gives_up && matches!(self.shared.journal.answers(self.pending.id).await, Ok(None))).then_some(until)
    }

    /// The journal has it on the disk when this is true.
    async fn keep(&self, answers: &Answers) -> bool {
        loop {
            let kept = Kept::Answers { delivery: self.pending.id, answers: Phi::new(answers.to_json()) };
            match self.shared.journal.keep(kept).await {
                Ok(()) => return true,
                Err(SettleFault::Full) => tokio::time::sleep(Duration::from_secs(1)).await,
                Err(_) => return false,
            }
        }
    }

    /// Would the next attempt come too late for the route?
    fn gives_up(&self, retry_for: Option<Duration>, next: Timestamp) -> bool {
        matches!((retry_for, self.pending.first_attempt), (Some(retry_for), Some(first)) if next > later(first, retry_for))
    }

    /// Another target did not answer: this delivery's own is not at fault.
    async fn asked_in_vain(&self, setback: Setback, program: Option<String>, retry_for: Option<Duration>, blocks: bool) -> Ended {
        let wait = backoff::wait(backoff::WAIT_MIN, backoff::WAIT_MAX, self.pending.attempts, setback.retry_after);
        let again = Again { not_before: later(now(), wait), ambiguous: self.pending.ambiguous, program: program.clone(), target_at_fault: false };
        if self.gives_up(retry_for, again.not_before) {
            let summary = format!("given up after {} attempts: {}", self.pending.attempts + 1, setback.summary);
            return self.dead_letter(setback.code, summary, setback.detail, program, blocks, None).await;
        }
        let settlement = Settlement::Retry {
            not_before: again.not_before,
            ambiguous: again.ambiguous,
            code: setback.code.to_owned(),
            summary: setback.summary,
            detail: setback.detail,
            forget: Vec::new(),
        };
        if !self.settle(program, settlement).await {
            return Ended::Unknown;
        }
        self.count(Outcome::Transient);
        Ended::Again(again)
    }
}
