//! Running a compiled route: message in, resources out. Total: no failure but a typed `Stop` with a place.

mod body;
mod coded;
mod contained;
mod convert;
mod evaluate;
mod fhir_value;
mod filter;
mod finish;
mod function;
mod identity;
mod lookup;
mod message;
mod moment;
mod one;
mod order;
mod out;
mod outgoing;
mod pieces;
mod question;
mod reference;
mod replay;
mod resource;
mod shared;
mod sheet;
mod systems;
mod text;
mod trace;
mod value;

use crate::exchange::Phi;
use crate::fhir::{Identity, Node, Save};
use crate::hl7v2::{Coding, Level, Message, NodeId, Part, Placement, Structure};
use crate::route::code::{Code, Let, Line, Needs, On, Path, Required, Route, Step, X};
use crate::route::program::{Context, Finding, Matches, Output, RouteId, RouteInfo, RouteSet, Stop, UnknownCode};
use crate::route::scope::Place;
use pieces::Pieces;
pub(crate) use replay::{Leaf, leaves};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::RwLock;
pub(crate) use trace::{Birth, DraftNotes, Fate, How, Source, Trace};
use value::{Value, Values};

/// Look-ups resolved so far: (structure, group, look-up) -> place. Shared by all runs of a set; each is resolved once.
pub(crate) type Places = RwLock<HashMap<(Structure, NodeId, usize), Option<std::sync::Arc<Place>>, rustc_hash::FxBuildHasher>>;

/// One run of one route over one message.
pub(crate) struct Run<'m> {
    pub(crate) code: &'m Code,
    pub(crate) route: &'m Route,
    pub(crate) route_name: &'m str,
    pub(crate) places: &'m Places,
    pub(crate) message: &'m Message,
    /// The message as text, where what was sent is read without a change.
    pub(crate) text: Option<&'m str>,
    /// May a slice of that text hold escape sequences?
    pub(crate) escapes: bool,
    /// May a component have more than one subcomponent?
    pub(crate) subcomponents: bool,
    pub(crate) structure: Option<Structure>,
    pub(crate) placement: Placement,
    pub(crate) context: &'m Context<'m>,
    pub(crate) findings: Vec<Finding>,
    /// Codes and authorities that were not known.
    pub(crate) unknown: RefCell<Vec<UnknownCode>>,
    pub(crate) made: Vec<Made<'m>>,
    pub(crate) zone: Option<Option<jiff::tz::TimeZone>>,
    /// The route's resources of this run: resource index -> entries of `made`.
    pub(crate) instances: Vec<Vec<Instance>>,
    pub(crate) stop: Option<Stop>,
    /// Where `""` deletes, for the resource being made.
    pub(crate) deletes: Vec<Vec<&'static str>>,
    /// Resources inside the one being made.
    pub(crate) contained: Vec<Node>,
    /// The value being converted.
    pub(crate) at: Option<Part>,
    /// Emptied lists for the next body.
    pub(crate) spare: Vec<Vec<(&'static str, Node)>>,
    /// The value whose components were asked for last, and the component whose subcomponents were.
    pub(crate) pieces: RefCell<Pieces>,
    /// URIs found so far: what was sent, the identifier's type, the URI.
    pub(crate) uris: Vec<KnownUri<'m>>,
    /// Units that were asked for, and whether UCUM has them.
    pub(crate) units: Vec<(std::borrow::Cow<'m, str>, bool)>,
    /// A segment, and which of its fields hold anything.
    fields: Cell<Option<(u32, u64)>>,
    /// `""` may stand somewhere.
    pub(crate) nulls: bool,
    /// What look-ups found last, by the number of the look-up.
    looked: RefCell<Vec<Option<lookup::Looked>>>,
    /// Which instances of the route's resources were nearest last, by the number of the resource.
    pub(crate) near: RefCell<Vec<Option<reference::Near>>>,
    /// A bit for each segment's name, and what a look-up for one that is not there finds.
    sent_names: u64,
    none: Rc<[u32]>,
    /// Where segments stand, by name; only for long messages.
    named: RefCell<Vec<(String, Rc<[u32]>)>>,
    /// How the message that is being made is written.
    pub(crate) coding: Coding,
    /// A letter of the message has no place in that coding.
    pub(crate) lossy: bool,
    /// What conditions with many candidates say, and the candidates by what is asked of them.
    pub(crate) plans: Vec<Rc<filter::Plan<'m>>>,
    pub(crate) indexes: Vec<filter::Indexed<'m>>,
    /// References that values became.
    pub(crate) referred: Vec<Referred<'m>>,
    /// How often something was asked that depends on where a value stands.
    pub(crate) local: Cell<u32>,
    /// What is left of [`WORK_MAX`].
    left: Cell<u64>,
    /// Notes how everything comes about, when somebody asks.
    pub(crate) trace: Option<&'m RefCell<Trace>>,
}

/// An authority or coding system that this run has looked up before.
pub(crate) struct KnownUri<'m> {
    /// Of all that was asked: most differ in it, so that it is compared first.
    pub(crate) hash: u64,
    pub(crate) sent: &'m [u8],
    pub(crate) kind: String,
    pub(crate) entity: bool,
    pub(crate) uri: Option<String>,
}

/// What a map that makes resources made of a value.
pub(crate) struct Referred<'m> {
    pub(crate) map: usize,
    pub(crate) level: Level,
    pub(crate) sent: &'m [u8],
    pub(crate) node: Option<Node>,
}

/// A resource of this run, saved or only referred to.
pub(crate) struct Made<'m> {
    pub(crate) save: Save,
    /// `Reference.identifier` instead of an entry of its own.
    pub(crate) logical: bool,
    pub(crate) dropped: bool,
    /// What FHIR requires of it, and the route's lines set.
    pub(crate) required: &'m [Required],
    pub(crate) skip_when_missing: bool,
}

/// One resource of the route before its body is made.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) entry: usize,
    pub(crate) segment: Option<u32>,
}

/// Current values; most maps have one or two.
pub(crate) type Slots<'m> = smallvec::SmallVec<[Option<Value<'m>>; 2]>;

/// What a map or body sees: its current values, and what it was passed.
pub(crate) struct Env<'e, 'm> {
    pub(crate) slots: RefCell<Slots<'m>>,
    /// What was sent of the value in slot 0, once somebody asked.
    sent: Cell<Option<Needs>>,
    /// What `$let`s came to.
    remembered: RefCell<Vec<Remembered<'m>>>,
    /// Evaluated in the caller's environment, and only when used.
    pub(crate) arguments: &'m [X],
    pub(crate) caller: Option<&'e Env<'e, 'm>>,
}

/// What a `$let` came to.
struct Remembered<'m> {
    id: u32,
    reach: usize,
    values: Values<'m>,
    /// Something was asked that depends on where a value stands.
    local: bool,
}

impl<'e, 'm> Env<'e, 'm> {
    pub(crate) fn root() -> Self {
        Self { slots: RefCell::default(), sent: Cell::default(), remembered: RefCell::default(), arguments: &[], caller: None }
    }

    /// For a map: its source, and what the caller passes.
    pub(crate) fn map(source: Option<Value<'m>>, arguments: &'m [X], caller: Option<&'e Env<'e, 'm>>) -> Self {
        let mut slots = Slots::new();
        slots.push(source);
        Self { slots: RefCell::new(slots), sent: Cell::default(), remembered: RefCell::default(), arguments, caller }
    }

    pub(crate) fn slot(&self, n: usize) -> Option<Value<'m>> {
        self.slots.borrow().get(n).cloned().flatten()
    }

    /// The v2 part in a slot, if that is what it holds.
    pub(crate) fn part(&self, n: usize) -> Option<Part> {
        match self.slots.borrow().get(n) {
            Some(Some(Value::Part(part))) => Some(*part),
            _ => None,
        }
    }

    /// The segment in a slot, if that is what it holds.
    pub(crate) fn whole_segment(&self, n: usize) -> Option<u32> {
        match self.slots.borrow().get(n) {
            Some(Some(Value::Segment(segment))) => Some(*segment),
            _ => None,
        }
    }

    /// The segment that a slot's value is, or stands in.
    pub(crate) fn segment(&self, n: usize, message: &Message) -> Option<u32> {
        self.slots.borrow().get(n).and_then(Option::as_ref).and_then(|value| value.segment(message))
    }

    /// Is it known that nothing was sent where a path begins that starts from slot 0?
    pub(crate) fn lacks(&self, path: &Path) -> bool {
        let Some(sent) = self.sent.get() else { return false };
        let lacks = |bits: u64, n: u16| n < 64 && bits & (1 << n) == 0;
        match (path.field, path.steps.first()) {
            (Some(field), _) => lacks(sent.fields, field),
            (None, Some(Step::Down(n))) => lacks(sent.pieces, *n),
            _ => false,
        }
    }

    /// The group in a slot, if that is what it holds.
    pub(crate) fn group(&self, n: usize) -> Option<Rc<[Value<'m>]>> {
        match self.slots.borrow().get(n) {
            Some(Some(Value::Group(group))) => Some(Rc::clone(group)),
            _ => None,
        }
    }

    /// What a `$let` came to, and whether that depends on where a value stands.
    fn remembered(&self, id: u32) -> Option<(Values<'m>, bool)> {
        self.remembered.borrow().iter().find(|r| r.id == id).map(|r| (r.values.clone(), r.local))
    }

    fn remember(&self, named: &Let, values: &Values<'m>, local: bool) {
        self.remembered.borrow_mut().push(Remembered { id: named.id, reach: named.reach, values: values.clone(), local });
    }

    /// Puts a value into a slot and gives back what was there.
    pub(crate) fn set(&self, n: usize, value: Option<Value<'m>>) -> Option<Value<'m>> {
        if n == 0 {
            self.sent.set(None);
        }
        // What was read from that slot may be something else now.
        self.remembered.borrow_mut().retain(|r| r.reach <= n);
        let mut slots = self.slots.borrow_mut();
        if slots.len() <= n {
            slots.resize_with(n + 1, || None);
        }
        slots.get_mut(n).and_then(|s| std::mem::replace(s, value))
    }
}

impl RouteSet {
    pub(crate) fn new(hash: String, routes: Vec<RouteInfo>, code: Code) -> Self {
        let homes = vec![None; routes.len()];
        Self { hash, routes, code, places: Places::default(), variants: Vec::new(), homes }
    }

    /// The routes that want the message: `on`, `from` and `when`. `otherwise` counts when no other names the type.
    pub fn matching(&self, listener: &str, message: &Message) -> Matches {
        let kind = message.message_type();
        let mut parts = kind.split('^');
        let (code, event) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let structure = message.structure_id();
        let named = |on: &On| match on {
            On::Event { code: c, event: e, structure: s } => {
                c == code && e.as_ref().is_none_or(|e| e == event) && s.as_ref().is_none_or(|s| structure.is_some_and(|id| id == s))
            }
            On::Resource(_) | On::Otherwise => false,
        };
        let from = |route: &Route| listener.is_empty() || route.from.is_empty() || route.from.iter().any(|f| f == listener);
        let mut wanting = self.code.by_event.naming(code, event);
        let mut otherwise = self.code.by_event.otherwise.clone();
        // What is laid over one route may change what it takes.
        for candidates in [&mut wanting, &mut otherwise] {
            candidates.extend(self.homes.iter().enumerate().filter(|(_, home)| home.is_some()).map(|(n, _)| n));
            candidates.sort_unstable();
            candidates.dedup();
        }
        let routed = |n: &usize| self.program(RouteId(*n)).map(|(_, _, route)| route);
        wanting.retain(|n| routed(n).is_some_and(|route| from(route) && route.on.iter().any(named)));
        if wanting.is_empty() {
            wanting = otherwise;
            wanting.retain(|n| routed(n).is_some_and(|route| from(route) && route.on.contains(&On::Otherwise)));
        }
        let mut matches = Matches::default();
        for n in wanting {
            let Some((_, _, route)) = self.program(RouteId(n)) else { continue };
            let holds = match &route.when {
                None => true,
                Some(when) => {
                    let context = Context {
                        received: crate::exchange::Timestamp(0),
                        zone: None,
                        authority: None,
                        message: crate::exchange::MessageId(0),
                        listener,
                        answers: crate::fhir::Answers::NONE,
                    };
                    let Some(mut run) = self.start(RouteId(n), message, &context) else { continue };
                    run.holds(when, &Env::root())
                }
            };
            if holds { matches.taken.push(RouteId(n)) } else { matches.filtered = true }
        }
        matches
    }

    /// Maps the message by one route.
    ///
    /// # Errors
    /// A [`Stop`] when FHIR requires what the message does not have, when nothing identifies a resource, or when a table refuses a code.
    pub fn run(&self, route: RouteId, message: &Message, context: &Context<'_>) -> Result<Output, Stop> {
        let Some(run) = self.start(route, message, context) else {
            return Err(Stop {
                kind: "no-route",
                text: "the route set has no such route".to_owned(),
                places: Vec::new(),
                unknown: Vec::new(),
                line: String::new(),
            });
        };
        run.either()
    }

    /// The same with notes; first, whether the route's own `when` holds.
    pub(crate) fn traced<'m>(&'m self, id: RouteId, message: &'m Message, context: &'m Context<'m>, trace: &'m RefCell<Trace>) -> (bool, Result<Output, Stop>) {
        let Some(mut run) = self.start(id, message, context) else { return (false, self.run(id, message, context)) };
        run.trace = Some(trace);
        let head = std::sync::Arc::from(format!("route {}", run.route_name));
        run.note(|t| t.enter(&head));
        let route = run.route;
        let taken = route.when.as_ref().is_none_or(|when| run.holds(when, &Env::root()));
        if !route.order_by.is_empty() {
            let asked = run.noted(|t| t.ask());
            run.order_values();
            run.note(|t| asked.iter().for_each(|mark| t.answered(*mark)));
        }
        (taken, run.either())
    }

    fn start<'m>(&'m self, id: RouteId, message: &'m Message, context: &'m Context<'m>) -> Option<Run<'m>> {
        let (code, places, route) = self.program(id)?;
        let structure = message.structure();
        let extra: Vec<(&str, &str)> = code.segment_places.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let placement = match structure {
            Some(structure) => message.place(structure, &extra),
            None => Placement::flat(message.segment_count()),
        };
        Some(Run {
            code,
            route,
            route_name: self.routes.get(id.0).map_or("", |r| &r.name),
            places,
            message,
            text: message.as_utf8(),
            escapes: message.has_escapes(),
            subcomponents: message.has_subcomponents(),
            structure,
            placement,
            context,
            findings: Vec::new(),
            unknown: RefCell::default(),
            made: Vec::new(),
            zone: None,
            instances: Vec::new(),
            stop: None,
            deletes: Vec::new(),
            contained: Vec::new(),
            at: None,
            spare: Vec::new(),
            pieces: RefCell::default(),
            uris: Vec::new(),
            units: Vec::new(),
            fields: Cell::default(),
            nulls: code.says_null || message.has_nulls(),
            looked: RefCell::default(),
            near: RefCell::default(),
            sent_names: (0..message.segment_count()).fold(0, |bits, n| bits | lookup::bit(message.segment_name(n))),
            none: Rc::default(),
            named: RefCell::default(),
            plans: Vec::new(),
            indexes: Vec::new(),
            referred: Vec::new(),
            local: Cell::default(),
            left: Cell::new(WORK_MAX),
            coding: message.coding(),
            lossy: false,
            trace: None,
        })
    }
}

impl<'m> Run<'m> {
    /// Resources or messages, as the route says.
    fn either(self) -> Result<Output, Stop> {
        let route = self.route;
        if let Some(why) = route.refused {
            let text = format!(
                "route {} is right, and {why}: take it out of the site, or let other routes have its messages (`on`, `when`), and replay this one later",
                self.route_name
            );
            return Err(Stop { kind: "not-yet", text, places: Vec::new(), unknown: Vec::new(), line: route.line.to_string() });
        }
        self.check_answered()?;
        match &route.message {
            Some(message) => self.messages(message),
            None => self.route(),
        }
    }

    /// Notes something, if somebody asked for it.
    #[inline]
    pub(crate) fn note(&self, what: impl FnOnce(&mut Trace)) {
        if let Some(trace) = self.trace {
            what(&mut trace.borrow_mut());
        }
    }

    /// Asks the notes something, if there are any.
    #[inline]
    pub(crate) fn noted<T>(&self, what: impl FnOnce(&mut Trace) -> T) -> Option<T> {
        self.trace.map(|trace| what(&mut trace.borrow_mut()))
    }

    /// What was sent of the value in slot 0.
    pub(crate) fn sent(&self, env: &Env<'_, 'm>) -> Needs {
        if let Some(known) = env.sent.get() {
            return known;
        }
        let sent = match env.slots.borrow().first() {
            Some(Some(Value::Segment(segment))) => Needs { fields: self.sent_fields(*segment) | 1, ..Needs::ANYTHING },
            Some(Some(Value::Part(part))) => Needs { pieces: self.sent_pieces(*part) | 1, ..Needs::ANYTHING },
            _ => Needs::ANYTHING,
        };
        env.sent.set(Some(sent));
        sent
    }

    /// Which fields of a segment hold anything. The maps of a resource ask of one segment.
    fn sent_fields(&self, segment: u32) -> u64 {
        match self.fields.get() {
            Some((known, sent)) if known == segment => sent,
            _ => {
                let sent = self.message.sent_fields(segment as usize);
                self.fields.set(Some((segment, sent)));
                sent
            }
        }
    }

    /// Counts work. False when the run has done as much as one may: then everything yields nothing, so that it ends soon.
    pub(crate) fn spend(&self, work: u64) -> bool {
        let left = self.left.get().saturating_sub(work);
        self.left.set(left);
        left > 0
    }

    /// What is being made would be something else where the same value stands elsewhere.
    pub(crate) fn depends_on_place(&self) {
        self.local.set(self.local.get().wrapping_add(1));
    }

    pub(crate) fn finding(&mut self, kind: &'static str, text: impl Into<String>, place: &str, line: &Line) {
        self.depends_on_place();
        // A map of a data type knows its value only as XTN.2; which field that was, the value itself tells.
        let place = match self.at {
            Some(part) if !place.is_empty() && !place.contains('-') => {
                let (segment, field) = self.message.place_of(part);
                format!("{}-{field} ({place})", self.message.segment_name(segment))
            }
            _ => place.to_owned(),
        };
        let finding = Finding { kind, text: text.into(), place, line: line.to_string() };
        if self.findings.len() < MOST_FINDINGS && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Remembers a code that a table, or an authority that no naming system knows.
    pub(crate) fn not_known(&self, table: Option<&std::sync::Arc<str>>, code: &str, place: &str) {
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() >= MOST_FINDINGS || unknown.iter().any(|u| u.table.as_ref() == table && u.code.expose() == code) {
            return;
        }
        let place = match self.at {
            Some(part) if !place.contains('-') => {
                let (segment, field) = self.message.place_of(part);
                format!("{}-{field}", self.message.segment_name(segment))
            }
            _ => place.to_owned(),
        };
        unknown.push(UnknownCode { table: table.cloned(), code: Phi::new(code.to_owned()), place });
    }

    /// Remembers the first reason to stop; the run goes on so that nothing is half made, and reports it at the end.
    pub(crate) fn halt(&mut self, kind: &'static str, text: impl Into<String>, places: Vec<String>, line: &Line) {
        self.depends_on_place();
        if self.stop.is_none() {
            self.stop = Some(Stop { kind, text: text.into(), places, unknown: Vec::new(), line: line.to_string() });
        }
    }
}

/// How much one run may do, in segments looked at: some seconds. A route over a message with a hundred thousand visits could take hours,
/// and hold up its patient for as long; it becomes a dead letter instead.
const WORK_MAX: u64 = 500_000_000;

/// What evaluating an expression counts for, beside what it looks at.
const EVALUATION: u64 = 10;

/// A message that breaks every rule must not fill the memory with findings.
const MOST_FINDINGS: usize = 200;

/// `system|value` of an Identifier that has both.
pub(crate) fn identity_of(node: &Node) -> Option<Identity> {
    let Node::Object(elements) = node else { return None };
    let text = |name: &str| {
        elements.iter().find(|(n, _)| *n == name).and_then(|(_, v)| match v {
            Node::Text(t) if !t.is_empty() => Some(t.clone()),
            _ => None,
        })
    };
    Some(Identity { system: text("system")?, value: text("value")? })
}
