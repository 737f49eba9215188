//! What a checked route set offers to the engine and the command line.

use crate::diagnostic::{Diagnostic, Sources, Span};
use crate::exchange::{MessageId, Phi, Timestamp};
use crate::fhir::{Answers, Question, Saves};
use crate::hl7v2::Draft;
use crate::route::code::{Code, Route};
use crate::route::run::Places;
use std::sync::Arc;
use std::time::Duration;

/// What the checker knows about the site.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Listener names; empty means "not known", then `from` is not checked.
    pub listeners: Vec<String>,
    /// Target names; empty means "not known", then `to` is not checked.
    pub targets: Vec<String>,
    /// Those of the targets that take FHIR resources and no messages.
    pub resources_only: Vec<String>,
    /// Those of the targets that take HL7 v2 messages and no resources.
    pub messages_only: Vec<String>,
    /// Those of the targets that cannot be searched.
    pub not_searchable: Vec<String>,
    /// Those of the targets that take no patches.
    pub no_patches: Vec<String>,
    /// Overlays that the whole site uses (`use:` in kiln.yaml).
    pub overlays: Vec<String>,
}

/// The result of loading: always a list of diagnostics, and a set when none of them is an error.
pub struct Loaded {
    /// The compiled set; `None` if there is any error.
    pub set: Option<Arc<RouteSet>>,
    /// Everything that was found, in file order.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that the diagnostics point into.
    pub sources: Sources,
    /// For an editor: expressions, and the head of the map or table that converts their values.
    pub joins: Vec<(Span, Span)>,
}

/// A compiled, immutable set of routes. Cheap to share; a delivery keeps the one that it began with.
pub struct RouteSet {
    pub(crate) hash: String,
    pub(crate) routes: Vec<RouteInfo>,
    pub(crate) code: Code,
    pub(crate) places: Places,
    /// Programs of routes that say `use:` or `types:`; each has all maps in its own manner.
    pub(crate) variants: Vec<(Code, Places)>,
    /// By route: the variant that it runs in, and its place there.
    pub(crate) homes: Vec<Option<(usize, usize)>>,
}

/// Which route of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(pub usize);

/// What the engine needs to know of a route without running it.
#[derive(Clone, Debug)]
pub struct RouteInfo {
    /// Its name.
    pub name: Arc<str>,
    /// The names of its targets.
    pub targets: Vec<Arc<str>>,
    /// True if it makes messages, not resources.
    pub messages: bool,
    /// The target of each of its questions, in order.
    pub asks: Vec<Arc<str>>,
    /// The type of the answer that it makes for whoever sent the message: `RSP^K22^RSP_K21`.
    pub reply: Option<Arc<str>>,
    /// How a FHIR target is to be written.
    pub send: Send,
    /// How long a delivery is retried, in seconds; `None` means the target's default.
    pub retry_for_seconds: Option<u64>,
    /// What the patient's later messages do after a dead letter.
    pub after_dead_letter: AfterDeadLetter,
}

/// `send:` of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Send {
    /// One transaction Bundle per message.
    #[default]
    Transaction,
    /// One batch Bundle per message.
    Batch,
    /// One request per resource, in reference order.
    Single,
}

/// `after-dead-letter:` of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AfterDeadLetter {
    /// The patient's later messages wait.
    Wait,
    /// They go on.
    #[default]
    GoOn,
}

/// Which routes want a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// Routes whose `on`, `from` and `when` all hold.
    pub taken: Vec<RouteId>,
    /// True if some route named the message type and its `when` was false.
    pub filtered: bool,
}

/// A value of a route's `order-by`: deliveries that share one are never under way together. Holds patient data.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OrderValue {
    /// The segment and field that an identifier (CX or EI) stands in.
    pub place: Option<(String, u16)>,
    /// The identifier's value, or the text.
    pub value: String,
    /// For an identifier: the namespace of its assigning authority, or its universal id; perhaps empty.
    pub assigner: Option<String>,
}

/// What a run may know about its surroundings; it reads no clock and no environment.
pub struct Context<'a> {
    /// When the message was received.
    pub received: Timestamp,
    /// The listener's time zone, for times that carry none (IANA name, `Europe/Berlin`); `None` means UTC.
    pub zone: Option<&'a str>,
    /// The listener's `authority:` for identifiers without CX.4, as an HD in v2 form (`HOSP` or `HOSP&1.2.3&ISO`).
    pub authority: Option<&'a str>,
    /// The journal's number of the message; part of derived identities together with the control ID.
    pub message: MessageId,
    /// The listener's name.
    pub listener: &'a str,
    /// What the route's questions found, as far as they were asked.
    pub answers: &'a Answers,
}

/// A question of a route, ready to be asked.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Its name in the route.
    pub name: Arc<str>,
    /// The target to ask.
    pub target: Arc<str>,
    /// The search; nothing if there is nothing to ask: it counts as answered, with nothing found.
    pub question: Option<Question>,
    /// For so long an earlier answer to the same question will do.
    pub cache: Option<Duration>,
    /// So long an answer is waited for; without it, as long as the target waits.
    pub timeout: Option<Duration>,
}

/// What a run made.
#[derive(Default)]
pub struct Output {
    /// The resources and how to save them; none where the route makes messages.
    pub saves: Saves,
    /// The messages of a route with `message:`, in order.
    pub drafts: Vec<Draft>,
    /// What was noticed on the way; never changes the acknowledgement.
    pub findings: Vec<Finding>,
    /// Codes that a table and authorities that no naming system knows, each once.
    pub unknown: Vec<UnknownCode>,
}

/// A code that a table does not know, or an authority or coding system that no `systems:` document knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCode {
    /// The table's name; `None` for the naming systems.
    pub table: Option<Arc<str>>,
    /// The code, or the namespace; of an authority that names only a universal ID, that.
    pub code: Phi<String>,
    /// The v2 place, such as `PV1-14`; empty where it is not known.
    pub place: String,
}

/// Something that an analyst should look at: a failed conversion, an unknown code, a value that was not carried. No patient data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A stable word: `conversion`, `unmapped-code`, `not-carried`, `missing-authority`.
    pub kind: &'static str,
    /// A sentence without patient data.
    pub text: String,
    /// The v2 place, such as `PID-7`.
    pub place: String,
    /// `routes/segments/pid-patient.yaml:12`.
    pub line: String,
}

/// Why a route made nothing although it had to: the delivery becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// A stable word: `required-empty`, `no-identity`, `unmapped-code`.
    pub kind: &'static str,
    /// A sentence without patient data that says what to do.
    pub text: String,
    /// The v2 fields that were missing, such as `PID-3`.
    pub places: Vec<String>,
    /// Codes that were not known, each once; one of them may be the reason.
    pub unknown: Vec<UnknownCode>,
    /// File and line of the route.
    pub line: String,
}

impl RouteSet {
    /// A hash over all sources and the version of Kiln, in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Routes of these names run in a program of their own.
    pub(crate) fn vary<'n>(&mut self, code: Code, infos: &[RouteInfo], names: impl Iterator<Item = &'n str>) {
        let variant = self.variants.len();
        for name in names {
            let place = infos.iter().position(|i| &*i.name == name);
            if let (Some(at), Some(place)) = (self.routes.iter().position(|r| &*r.name == name), place)
                && let (Some(home), Some(info)) = (self.homes.get_mut(at), infos.get(place))
            {
                *home = Some((variant, place));
                self.routes[at] = info.clone();
            }
        }
        self.variants.push((code, Places::default()));
    }

    /// The program that a route runs in: its code, the look-ups that are resolved so far, and the route in it.
    pub(crate) fn program(&self, route: RouteId) -> Option<(&Code, &Places, &Route)> {
        let (code, places, at) = match self.homes.get(route.0).copied().flatten() {
            Some((variant, at)) => self.variants.get(variant).map(|(code, places)| (code, places, at))?,
            None => (&self.code, &self.places, route.0),
        };
        Some((code, places, code.routes.get(at)?))
    }

    /// All routes.
    pub fn routes(&self) -> impl Iterator<Item = (RouteId, &RouteInfo)> {
        self.routes.iter().enumerate().map(|(n, r)| (RouteId(n), r))
    }

    /// The route of that name.
    pub fn named(&self, name: &str) -> Option<RouteId> {
        self.routes.iter().position(|r| &*r.name == name).map(RouteId)
    }

    /// A route's facts.
    pub fn info(&self, route: RouteId) -> &RouteInfo {
        &self.routes[route.0]
    }
}
