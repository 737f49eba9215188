//! What two route sets make differently of messages, grouped by kind of change. Groups hold no patient data; examples do only if asked to.

use crate::cli::test_compare::shown;
use crate::cli::test_messages;
use crate::cli::test_run::{Ran, finding};
use crate::fhir::{Aspect, Change, Disagreement, PathStep, disagreements, statements};
use crate::route::{Output, RouteSet, Stop};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a change is about, the most dangerous first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Identity,
    Save,
    Stop,
    Routing,
    Resource,
    Element,
    Finding,
}

impl Section {
    /// A heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Identity => "Identities: another resource would be found, or a second one made",
            Self::Save => "Ways of saving",
            Self::Stop => "Messages that stop, or stop no more",
            Self::Routing => "Routes and acknowledgements",
            Self::Resource => "Resources that come and go",
            Self::Element => "Elements",
            Self::Finding => "Findings",
        }
    }

    /// The word in JSON.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Save => "save",
            Self::Stop => "stop",
            Self::Routing => "routing",
            Self::Resource => "resource",
            Self::Element => "element",
            Self::Finding => "finding",
        }
    }
}

/// A kind of change: where, and how. Only names from routes and definitions, and codes of closed lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) section: Section,
    /// `Patient.telecom[].use`, `route adt`.
    pub(crate) place: String,
    /// `home -> mobile`, `appears`; empty where only the values differ.
    pub(crate) how: String,
}

/// One message that shows it.
#[derive(Clone, Debug)]
pub(crate) struct Example {
    pub(crate) message: u64,
    /// The values, where they were asked for.
    pub(crate) values: Option<(Option<Value>, Option<Value>)>,
}

/// How often, and where to look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) examples: Vec<Example>,
}

/// Examples that are kept of each kind.
const EXAMPLES_MAX: usize = 3;

/// Kinds that are kept. A site has dozens; more would come of places that no definition knows.
const KINDS_MAX: usize = 10_000;

/// All changes so far.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) kinds: BTreeMap<Kind, Tally>,
    /// Messages that were run.
    pub(crate) messages: u64,
    /// Those of them that come out differently.
    pub(crate) changed: u64,
    /// Changes of kinds for which there was no room.
    pub(crate) left_out: u64,
}

impl Changes {
    /// Adds a message's changes.
    pub(crate) fn add(&mut self, message: u64, found: Found) {
        self.messages += 1;
        self.changed += u64::from(!found.kinds.is_empty());
        for (kind, values) in found.kinds {
            self.count(kind, Tally { messages: 1, examples: vec![Example { message, values }] });
        }
    }

    /// Takes over what another thread found.
    pub(crate) fn merge(&mut self, other: Self) {
        self.messages += other.messages;
        self.changed += other.changed;
        self.left_out += other.left_out;
        for (kind, tally) in other.kinds {
            self.count(kind, tally);
        }
    }

    fn count(&mut self, kind: Kind, tally: Tally) {
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            self.left_out += tally.messages;
            return;
        }
        let known = self.kinds.entry(kind).or_default();
        known.messages += tally.messages;
        known.examples.extend(tally.examples);
        // The newest, whichever thread had them.
        known.examples.sort_by_key(|e| std::cmp::Reverse(e.message));
        known.examples.truncate(EXAMPLES_MAX);
    }

    /// The kinds of a section, most frequent first.
    pub(crate) fn of(&self, section: Section) -> Vec<(&Kind, &Tally)> {
        let mut found: Vec<_> = self.kinds.iter().filter(|(kind, _)| kind.section == section).collect();
        found.sort_by_key(|(kind, tally)| (std::cmp::Reverse(tally.messages), &kind.place, &kind.how));
        found
    }
}

/// Values before and after, of the first place where a message shows a kind.
type Values = Option<(Option<Value>, Option<Value>)>;

/// The changes of one message; each kind once.
#[derive(Default)]
pub(crate) struct Found {
    kinds: BTreeMap<Kind, Values>,
    keep_values: bool,
}

impl Found {
    /// What differs between two runs of one message.
    pub(crate) fn between(old: &Ran, old_set: &RouteSet, new: &Ran, new_set: &RouteSet, keep_values: bool) -> Self {
        let mut found = Self { kinds: BTreeMap::new(), keep_values };
        let word = |ran: &Ran| crate::cli::journal::disposition_word(&ran.disposition);
        found.words(Section::Routing, "message", word(old), word(new));
        let ack = |ran: &Ran| ran.fault.as_ref().map_or_else(|| "AA".to_owned(), |f| format!("AR {} at {}", f.code, f.location.path()));
        found.words(Section::Routing, "ACK", &ack(old), &ack(new));
        let by_name = |ran: &Ran, set: &RouteSet| -> Vec<(String, usize)> {
            ran.routes.iter().enumerate().map(|(n, (route, _))| (set.info(*route).name.to_string(), n)).collect()
        };
        let (a, b) = (by_name(old, old_set), by_name(new, new_set));
        for (name, n) in &a {
            let Some((_, made)) = old.routes.get(*n) else { continue };
            let place = format!("route {name}");
            match b.iter().find(|(other, _)| other == name).and_then(|(_, m)| new.routes.get(*m)) {
                Some((route, now)) => {
                    if let Some((before, _)) = old.routes.get(*n) {
                        let targets = |set: &RouteSet, route| set.info(route).targets.join(", ");
                        found.words(Section::Routing, &format!("targets of {place}"), &targets(old_set, *before), &targets(new_set, *route));
                    }
                    found.route(&place, made, now);
                }
                None => {
                    found.put(Section::Routing, place, "no longer takes it", None);
                    found.all(made, "disappears");
                }
            }
        }
        for (name, m) in b.iter().filter(|(name, _)| !a.iter().any(|(other, _)| other == name)) {
            found.put(Section::Routing, format!("route {name}"), "takes it", None);
            if let Some((_, made)) = new.routes.get(*m) {
                found.all(made, "appears");
                if let Err(stop) = made {
                    found.put(Section::Stop, format!("route {name}"), format!("stops: {}", reason(stop)), None);
                }
            }
        }
        found
    }

    fn put(&mut self, section: Section, place: impl Into<String>, how: impl Into<String>, values: Values) {
        let values = values.filter(|_| self.keep_values);
        self.kinds.entry(Kind { section, place: place.into(), how: how.into() }).or_insert(values);
    }

    /// A change of words that come from routes and not from messages.
    fn words(&mut self, section: Section, place: &str, old: &str, new: &str) {
        if old != new {
            self.put(section, place, format!("{old} -> {new}"), None);
        }
    }

    /// Every resource of a route that another set does not run.
    fn all(&mut self, made: &Result<Output, Stop>, how: &str) {
        let Ok(output) = made else { return };
        for save in &output.saves.entries {
            self.put(Section::Resource, resource(&save.name, save.resource_type), how, None);
        }
        if !output.drafts.is_empty() {
            self.put(Section::Resource, "message", how, None);
        }
    }

    fn route(&mut self, place: &str, old: &Result<Output, Stop>, new: &Result<Output, Stop>) {
        match (old, new) {
            (Ok(a), Ok(b)) => {
                if a.saves != b.saves {
                    for d in disagreements(&statements(&a.saves), &statements(&b.saves)) {
                        self.disagreement(d);
                    }
                }
                if a.drafts != b.drafts {
                    self.messages(&test_messages::statements(&a.drafts), &test_messages::statements(&b.drafts));
                }
                self.findings(a, b);
            }
            (Ok(_), Err(stop)) => self.put(Section::Stop, place, format!("now stops: {}", reason(stop)), None),
            (Err(stop), Ok(_)) => self.put(Section::Stop, place, format!("no longer stops: {}", reason(stop)), None),
            (Err(a), Err(b)) => {
                if (a.kind, &a.places) != (b.kind, &b.places) {
                    self.put(Section::Stop, place, format!("stops for another reason: {} -> {}", reason(a), reason(b)), None);
                }
            }
        }
    }

    fn messages(&mut self, old: &[Value], new: &[Value]) {
        for d in test_messages::differences(old, new) {
            // Whole messages and segments come and go as resources do.
            let whole = d.place.as_ref().is_none_or(|place| place.field.is_none() && d.change != Change::Changed);
            let section = if whole { Section::Resource } else { Section::Element };
            self.put(section, d.shape(), changed(d.change, None), Some((d.old, d.new)));
        }
    }

    fn findings(&mut self, old: &Output, new: &Output) {
        let all = |output: &Output| -> BTreeSet<String> { output.findings.iter().map(finding).collect() };
        let (a, b) = (all(old), all(new));
        for gone in a.difference(&b) {
            self.put(Section::Finding, gone.as_str(), "disappears", None);
        }
        for came in b.difference(&a) {
            self.put(Section::Finding, came.as_str(), "appears", None);
        }
    }

    fn disagreement(&mut self, d: Disagreement) {
        let (old, new) = (d.difference.old.clone(), d.difference.new.clone());
        let text = |v: &Option<Value>| v.as_ref().map_or("nothing".to_owned(), |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        let change = d.difference.change;
        match d.aspect {
            Aspect::Presence => {
                let how = if change == Change::Added { "appears" } else { "disappears" };
                self.put(Section::Resource, resource(&d.name, &d.resource_type), how, Some((old, new)));
            }
            Aspect::Identity => {
                let how = identity(change, old.as_ref(), new.as_ref());
                self.put(Section::Identity, resource(&d.name, &d.resource_type), how, Some((old, new)));
            }
            Aspect::Save => {
                // These words are the route's; `initial` may hold a message's values.
                let words = matches!(d.difference.path.first(), Some(PathStep::Element(key)) if matches!(key.as_str(), "save" | "merge" | "deletes"));
                let place = format!("{}: {}", resource(&d.name, &d.resource_type), d.difference.shape());
                let how = if words { changed(change, Some((text(&old), text(&new)))) } else { changed(change, None) };
                self.put(Section::Save, place, how, Some((old, new)));
            }
            Aspect::Element => {
                let shape = d.difference.shape();
                let place =
                    if shape.is_empty() || shape.starts_with('[') { format!("{}{shape}", d.resource_type) } else { format!("{}.{shape}", d.resource_type) };
                let how = changed(change, d.difference.closed.then(|| (text(&old), text(&new))));
                self.put(Section::Element, place, how, Some((old, new)));
            }
        }
    }
}

/// `appears`, `home -> mobile`, `changes`.
fn changed(change: Change, values: Option<(String, String)>) -> String {
    match (change, values) {
        (Change::Changed, Some((old, new))) => format!("{old} -> {new}"),
        (Change::Changed, None) => "changes".to_owned(),
        (Change::Added, Some((_, new))) => format!("appears: {new}"),
        (Change::Added, None) => "appears".to_owned(),
        (Change::Removed, Some((old, _))) => format!("disappears: {old}"),
        (Change::Removed, None) => "disappears".to_owned(),
        (Change::Reordered, _) => "has another order".to_owned(),
    }
}

/// What of an identity changed. Neither systems nor values are named: a system may be made of what the sender wrote.
fn identity(change: Change, old: Option<&Value>, new: Option<&Value>) -> &'static str {
    let parts = |v: Option<&Value>| v.and_then(Value::as_str).and_then(|v| v.split_once('|')).map(|(s, v)| (s.to_owned(), v.to_owned()));
    match (change, parts(old), parts(new)) {
        (Change::Changed, Some((a, x)), Some((b, y))) if a != b && x == y => "another system",
        (Change::Changed, Some((a, _)), Some((b, _))) if a == b => "another value",
        (Change::Changed, ..) => "another system and value",
        (Change::Added, ..) => "one more identifier",
        (Change::Removed, ..) => "one identifier less",
        (Change::Reordered, ..) => "another order of identifiers",
    }
}

/// `observation (Observation)`: the numbers of repeated ones say nothing here.
fn resource(name: &str, kind: &str) -> String {
    let base = name.split(['[', '#']).next().unwrap_or(name);
    if base.eq_ignore_ascii_case(kind) { kind.to_owned() } else { format!("{base} ({kind})") }
}

/// `no-identity (PID-3)`.
fn reason(stop: &Stop) -> String {
    if stop.places.is_empty() { stop.kind.to_owned() } else { format!("{} ({})", stop.kind, stop.places.join(", ")) }
}

/// A kind for machines.
pub(crate) fn kind_json(kind: &Kind, tally: &Tally) -> Value {
    let examples: Vec<_> = tally
        .examples
        .iter()
        .map(|e| match &e.values {
            Some((old, new)) => json!({ "message": e.message, "running": old, "draft": new }),
            None => json!({ "message": e.message }),
        })
        .collect();
    json!({ "section": kind.section.word(), "place": kind.place, "change": kind.how, "messages": tally.messages, "examples": examples })
}

/// `#1042`, with values where they were asked for: `#1042 "Meier" -> "Maier"`.
pub(crate) fn example_text(example: &Example) -> String {
    match &example.values {
        Some((old, new)) => format!("#{} {} -> {}", example.message, shown(old.as_ref()), shown(new.as_ref())),
        None => format!("#{}", example.message),
    }
}
