//! A delivery attempt and how it ended.

use crate::exchange::{DeliveryId, Phi};
use crate::fhir::{KnownId, Saves};
use crate::hl7v2::{Answer, Draft};
use std::time::Duration;

/// What a target is asked to do once.
pub struct Job<'a> {
    /// Which delivery this is; the same on every attempt.
    pub delivery: DeliveryId,
    /// The resources and how to save them.
    pub saves: &'a Saves,
    /// Messages to write; a route makes resources or messages, never both.
    pub drafts: &'a [Draft],
    /// For each entry of `saves`, what an earlier receipt told about its identity.
    pub known: &'a [Option<KnownId>],
    /// Entries that an earlier attempt of this very delivery saved ([`Setback::saved`], all attempts together): they are not written again.
    pub done: &'a [Saved],
    /// True when an earlier attempt ended ambiguous: read before writing.
    pub after_ambiguous: bool,
    /// What became of messages in earlier attempts of this very delivery ([`Setback::sent`], all attempts together, in order).
    pub sent: &'a [Sent],
    /// Acknowledgements that came on another way than the answer to what was sent.
    pub answers: &'a [Answer],
}

/// A delivery that the target promises to have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// One for each entry that was saved or found.
    pub saved: Vec<Saved>,
    /// One for each message: its file, or its acknowledgement's code and its control ID, `AA 4711`.
    pub messages: Vec<String>,
    /// Indexes of entries whose known id turned out to be stale (404, 410, 412): the engine forgets them.
    pub stale: Vec<usize>,
    /// What a folder target must remember to find its place again after a crash; kept by the journal.
    pub state: Option<String>,
}

/// One resource's place on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Index into `Saves::entries`.
    pub entry: usize,
    /// `Patient`.
    pub resource_type: &'static str,
    /// The logical id.
    pub id: String,
    /// The ETag, where the target gives one.
    pub etag: Option<String>,
    /// HTTP status of this entry, 201 for created.
    pub status: u16,
}

/// How far a message of a delivery has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Index into [`Job::drafts`].
    pub draft: usize,
    /// Its MSH-10.
    pub control_id: String,
    /// MSA-1 of the last acknowledgement; empty if there was none.
    pub code: String,
    /// Where it stands.
    pub stage: Stage,
}

/// Where a message that was sent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The receiver has it for good: it is not sent again.
    Done,
    /// The receiver has it, or was not to say so; its application acknowledgement is awaited until this time, in ms since 1970.
    Awaited(i64),
    /// Nobody knows, or it was given up: the next attempt sends it.
    Open,
}

/// A delivery attempt that did not succeed.
#[derive(Debug)]
pub struct Setback {
    /// May it be tried again?
    pub retry: Retry,
    /// Who must change something before it can succeed.
    pub fault: Fault,
    /// The server's Retry-After.
    pub retry_after: Option<Duration>,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// A short, fixed word for logs and metrics, without patient data: `connect`, `timeout`, `http-422`, `not-fhir`.
    pub code: &'static str,
    /// What happened in a sentence without patient data.
    pub summary: String,
    /// What the server said (an OperationOutcome, a body): for the journal and the screen, never for logs.
    pub detail: Option<Phi<String>>,
    /// Indexes of entries whose known id turned out to be stale.
    pub stale: Vec<usize>,
    /// Entries that were saved before the failure: the engine keeps them and gives them back as [`Job::done`]. Batch and single save one by
    /// one; a transaction was accepted, but one entry met what somebody else had created in the same moment.
    pub saved: Vec<Saved>,
    /// Messages whose state this attempt has changed, as with `saved`.
    pub sent: Vec<Sent>,
    /// The entries of `saves` that the refused request held, in its order: `Bundle.entry[2]` in what the server said is the third of them.
    /// One for a request of its own; none where it is not known.
    pub about: Vec<usize>,
}

impl Setback {
    /// One of which nothing more is known.
    pub(crate) fn plain(retry: Retry, fault: Fault, code: &'static str, summary: impl Into<String>) -> Self {
        Self {
            retry,
            fault,
            retry_after: None,
            status: None,
            code,
            summary: summary.into(),
            detail: None,
            stale: Vec::new(),
            saved: Vec::new(),
            sent: Vec::new(),
            about: Vec::new(),
        }
    }
}

/// Whether an attempt may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The target provably did nothing.
    Transient,
    /// Sent, no answer: it may have happened. Only in a way that cannot make a second resource.
    Ambiguous,
    /// Repeating it cannot help.
    Permanent,
}

/// Whose fault a failure is (docs/guarantees.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Unreachable, refuses us, overloaded, not FHIR: the breaker opens, nothing goes to dead letters.
    Target,
    /// A race (409, 412 after If-Match, 423): ours to repeat.
    Race,
    /// The target said no to this message, and may say yes to it later: ours to repeat. It says nothing about other messages.
    Declined,
    /// Nobody's: the target has taken the message, and its word on what became of it is to come until [`Setback::retry_after`].
    Awaited,
    /// This message's content: a dead letter.
    Message,
}

/// The checker refuses such a question where it knows the target; a set that was stored with other targets may still come here.
pub(crate) fn cannot_be_searched() -> Setback {
    Setback {
        retry: Retry::Permanent,
        fault: Fault::Message,
        retry_after: None,
        status: None,
        code: "cannot-be-searched",
        summary: "only a FHIR server can be searched: the route must ask another target".to_owned(),
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
        sent: Vec::new(),
        about: Vec::new(),
    }
}

/// The checker refuses such a route where it knows the target; a set that was stored with other targets may still come here.
pub(crate) fn takes_no_messages(what: &str) -> Setback {
    Setback::plain(Retry::Permanent, Fault::Message, "takes-no-messages", format!("{what} takes resources, and this route makes messages"))
}

/// The other way round.
pub(crate) fn takes_no_resources() -> Setback {
    let summary = "a receiver of HL7 v2 takes messages, and this route makes resources";
    Setback::plain(Retry::Permanent, Fault::Message, "takes-no-resources", summary)
}
