//! On what terms a message is acknowledged: what MSH-15, MSH-16 and the listener say, before anything is stored.

use crate::engine::pacts::Refusal;
use crate::engine::told;
use crate::hl7v2::{AckCode, Acknowledged, Condition, Conditions, Fault, Header};
use crate::journal::{Depends, Owed, Place, Wanted};
use crate::listener::WayBack;
use crate::site::{Enhanced, Mode};

/// Which acknowledgements a message gets.
pub(super) struct Terms {
    pub(super) conditions: Conditions,
    /// What its MSA says, if it is an acknowledgement itself.
    pub(super) acknowledged: Option<Acknowledged>,
}

impl Terms {
    /// `answers`: it is an acknowledgement itself. `header`: nothing if it cannot be read.
    pub(super) fn of(site: &Enhanced, header: Option<&Header>, message: &[u8], answers: bool) -> Self {
        let sent = header.and_then(Conditions::of);
        let acknowledged = header.filter(|_| answers).and_then(|_| Acknowledged::read(message));
        if answers {
            return Self { conditions: Self::of_an_acknowledgement(site, sent, acknowledged.as_ref()), acknowledged };
        }
        let always = Conditions { accept: Condition::Always, application: Condition::Always };
        let conditions = match (site.mode, sent) {
            (Mode::Original, _) | (Mode::AsSent, None) => Conditions::ORIGINAL,
            (Mode::AsSent | Mode::Enhanced, Some(sent)) => site.forced(sent),
            (Mode::Enhanced, None) => site.forced(always),
        };
        Self { conditions, acknowledged }
    }

    /// An acknowledgement never gets an application acknowledgement, and an accept acknowledgement only if it asks for one itself; CA, CE and CR
    /// get nothing at all. Otherwise two sides would thank each other for ever.
    fn of_an_acknowledgement(site: &Enhanced, sent: Option<Conditions>, msa: Option<&Acknowledged>) -> Conditions {
        let ends = msa.is_some_and(|msa| matches!(msa.code, Some(AckCode::CommitAccept | AckCode::CommitError | AckCode::CommitReject)));
        let accept = sent.filter(|_| site.mode != Mode::Original && !ends).map_or(Condition::Never, |sent| sent.accept);
        Conditions { accept, application: Condition::Never }
    }

    /// True if an accept acknowledgement comes first, and the application's later.
    pub(super) fn has_two_stages(&self) -> bool {
        self.conditions.has_two_stages()
    }

    /// True if its sender waits for the application's acknowledgement, now or later.
    pub(super) fn wants_application(&self) -> bool {
        self.conditions.application != Condition::Never
    }

    /// The accept acknowledgement, if its sender wants one of this kind: CA, or for a fault CE or CR.
    pub(super) fn accept(&self, fault: Option<&Fault>) -> Option<AckCode> {
        let code = fault.map_or(AckCode::CommitAccept, |fault| AckCode::commit_refusal(fault.code));
        (self.has_two_stages() && self.conditions.accept.asks(code.is_positive())).then_some(code)
    }

    /// What a sender is told whose message cannot be kept; `None` if it wants to hear nothing.
    pub(super) fn cannot_store(&self) -> Option<AckCode> {
        match self.conditions {
            conditions if conditions.has_two_stages() && conditions.accept.asks(false) => Some(AckCode::CommitError),
            conditions if conditions.application.asks(false) => Some(AckCode::ApplicationReject),
            _ => None,
        }
    }

    /// What the journal keeps of it; nothing where all is said at once.
    pub(super) fn owed(&self, fault: Option<&Fault>, outcome: Outcome, back: Option<&WayBack>) -> Option<Owed> {
        if !self.has_two_stages() {
            return None;
        }
        let wanted = match self.conditions.application {
            // What was not accepted is not processed.
            _ if fault.is_some() => Wanted::Never,
            Condition::Always => Wanted::Always,
            Condition::Never => Wanted::Never,
            Condition::Error => Wanted::Failure,
            Condition::Success => Wanted::Success,
        };
        let depends = match outcome {
            Outcome::Done => Depends::Done,
            Outcome::Failed(refusal) => Depends::Failed(told::write(&refusal)),
            Outcome::Deliveries(numbers) => Depends::Deliveries(numbers),
        };
        let line = back.map(|back| Place { line: back.line.number(), frames: back.frames });
        Some(Owed { accept: self.accept(fault).map(AckCode::name), wanted, depends, line })
    }
}

/// What is known when a message is stored of what its application acknowledgement will say.
pub(super) enum Outcome {
    /// It is positive.
    Done,
    /// A route cannot make anything of it.
    Failed(Refusal),
    /// These deliveries decide.
    Deliveries(Vec<u16>),
}
