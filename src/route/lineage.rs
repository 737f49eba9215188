//! Lineage: how a run's result came about. Never stored: a run is deterministic, so it is run again and recorded.

mod message;
mod values;

use crate::fhir::{Identity, Node};
use crate::hl7v2::{Address, Message, Part};
use crate::route::program::{Context, Finding, Output, RouteId, RouteSet, Stop};
use crate::route::run::{Birth, Fate, Leaf, Trace, leaves};
pub use message::MessageLineage;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A place in a route file: `routes/adt.yaml:12` and the column, from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// File and line.
    pub line: Arc<str>,
    /// Column.
    pub column: u32,
}

impl Spot {
    /// The file.
    pub fn file(&self) -> &str {
        self.line.rsplit_once(':').map_or(&self.line, |(file, _)| file)
    }

    /// The line's number, from 1.
    pub fn line_number(&self) -> usize {
        self.line.rsplit_once(':').and_then(|(_, n)| n.parse().ok()).unwrap_or(0)
    }
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What happened on the way from a v2 value to an element. Codes and texts are patient data.
#[derive(Clone, PartialEq)]
pub enum Step {
    /// A condition was asked.
    Condition {
        /// Its words.
        text: String,
        /// What it came to.
        holds: bool,
        /// Where it stands.
        at: Spot,
    },
    /// What stands before `??` had nothing, so what stands behind it was taken.
    Otherwise,
    /// A table was asked.
    Table {
        /// The table's name.
        table: Arc<str>,
        /// The code that was sent.
        code: String,
        /// What the row says; `None` without a row.
        found: Option<String>,
        /// Without a row: what `unmapped:` does.
        unmapped: Option<&'static str>,
    },
    /// The URI of an authority or coding system was looked for.
    System {
        /// What was sent.
        sent: String,
        /// The URI, if there is one.
        uri: Option<String>,
    },
    /// What a question of the route found was read.
    Asked {
        /// The question's name.
        name: String,
        /// How many resources it found.
        found: usize,
    },
    /// A conversion that changed or interpreted something.
    Converted(String),
    /// A conversion that failed, or a value that was left out.
    Failed(String),
    /// A map was called.
    Map(Arc<str>),
    /// A resource was made or met, and is referred to.
    Refers {
        /// Its name in this run.
        name: String,
        /// How it is saved.
        save: &'static str,
    },
    /// Nothing in the message identifies the resource; its identity was derived.
    Derived,
}

/// One stage of the way, from the route's own line to the innermost map's.
#[derive(Clone, PartialEq)]
pub struct Stage {
    /// `PID -> Patient`, or `route adt`.
    pub map: Arc<str>,
    /// The line; `None` where a map's value comes from no line.
    pub at: Option<Spot>,
    /// The v2 value that the line took.
    pub place: Option<Address>,
    /// What happened.
    pub steps: Vec<Step>,
}

/// An element of a resource.
#[derive(Clone, PartialEq)]
pub struct ElementLineage {
    /// `Patient.name[0].family`.
    pub path: String,
    /// Its value, as JSON has it; of a reference, the name of the resource.
    pub value: serde_json::Value,
    /// The v2 places whose content it is, with their bytes' range; none for a constant.
    pub from: Vec<(Address, Part)>,
    /// It only refers to a resource: the content of `from` is there, if anywhere.
    pub refers: bool,
    /// How it came about, outermost first.
    pub stages: Vec<Stage>,
}

/// What became of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the entry of this number of what is saved.
    Saved(usize),
    /// It is one with an earlier resource of that number in [`Lineage::resources`].
    Joined(usize),
    /// It was not made, for this reason.
    NotMade(&'static str),
    /// The run stopped.
    Stopped,
}

/// A resource of the run.
#[derive(Clone, PartialEq)]
pub struct ResourceLineage {
    /// Its name in the route: `patient`, `observation[2]`.
    pub name: String,
    /// `Patient`.
    pub resource_type: &'static str,
    /// How it is saved.
    pub save: &'static str,
    /// What makes it the same one next time.
    pub identity: Vec<Identity>,
    /// What became of it.
    pub outcome: Outcome,
    /// Its elements that hold a value.
    pub elements: Vec<ElementLineage>,
    /// Elements that the sender deleted with `""`.
    pub deletes: Vec<Deletion>,
}

/// An element that `""` deletes.
#[derive(Clone, PartialEq)]
pub struct Deletion {
    /// `Patient.maritalStatus`.
    pub path: String,
    /// Where the `""` stands.
    pub from: Vec<Address>,
    /// The map.
    pub map: Arc<str>,
    /// The line.
    pub at: Spot,
}

/// What a value of the message was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// No line read it.
    Unread,
    /// A line takes it away from the message that is made, or puts something else in its place.
    Dropped,
    /// It was read in conditions only.
    Condition,
    /// It is part of an identity only.
    Identity,
    /// It was read, and no element has it: a conversion failed, a table has no row, or something else went before.
    Lost,
    /// It was `""` and deletes an element.
    Deletes,
    /// An element holds it.
    Carried,
}

/// What a line of a route took away from a message that is made, or replaced.
#[derive(Clone, PartialEq)]
pub struct Dropped {
    /// Its bytes: those of a segment, a field or a component.
    pub part: Part,
    /// The map.
    pub map: Arc<str>,
    /// The line.
    pub at: Spot,
}

/// A value of the message, as deep as it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueUse {
    /// Where it stands.
    pub place: Address,
    /// Its bytes.
    pub part: Part,
    /// What became of it.
    pub used: Use,
}

/// A line of a route file, and what it did in this run.
#[derive(Clone, PartialEq)]
pub struct LineUse {
    /// Where it stands.
    pub at: Spot,
    /// Its map.
    pub map: Arc<str>,
    /// The element that it makes.
    pub element: &'static str,
    /// How often it ran.
    pub ran: u64,
    /// How often it made something.
    pub made: u64,
    /// The places that it read, and what for: a condition, an identity, or its value ([`Use::Lost`]).
    pub read: Vec<(Address, Use)>,
    /// What happened where it made nothing.
    pub without: Vec<Step>,
}

/// A condition of a route file, and what it came to in this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUse {
    /// Where it stands.
    pub at: Spot,
    /// Its words.
    pub text: String,
    /// How often it held.
    pub held: u64,
    /// How often it did not.
    pub failed: u64,
}

/// How one run came about. Holds patient data.
pub struct Lineage {
    /// The route.
    pub route: Arc<str>,
    /// False if the route's own `when` does not hold.
    pub taken: bool,
    /// All resources in the order they were made.
    pub resources: Vec<ResourceLineage>,
    /// The messages that the route makes, in order.
    pub messages: Vec<MessageLineage>,
    /// What lines took away from the messages that are made: where it stands, its bytes, the map and the line.
    pub dropped: Vec<Dropped>,
    /// Every valued place of the message, in order. MSH-1 and MSH-2 are no values.
    pub values: Vec<ValueUse>,
    /// Every line that ran.
    pub lines: Vec<LineUse>,
    /// The v2 fields that its `order-by` reads.
    pub order_by: Vec<String>,
    /// Every condition that was asked.
    pub conditions: Vec<ConditionUse>,
    /// What the run noticed.
    pub findings: Vec<Finding>,
    /// Why it made nothing.
    pub stop: Option<Stop>,
}

impl RouteSet {
    /// Maps the message once more and records how each element came about.
    pub fn lineage(&self, route: RouteId, message: &Message, context: &Context<'_>) -> Lineage {
        let trace = RefCell::new(Trace::default());
        let (taken, result) = self.traced(route, message, context, &trace);
        let trace = trace.into_inner();
        let fields = Fields::of(message);
        let (output, stop) = match result {
            Ok(output) => (output, None),
            Err(stop) => (Output::default(), Some(stop)),
        };
        let resources = resources(&trace, &output, stop.is_some(), &fields);
        let messages = message::messages(&trace, stop.is_some(), &fields);
        let values = values::values(&trace, &resources, &messages, &fields);
        let lines = lines(&trace, &fields);
        let dropped = trace.drafts.dropped.iter().map(|(part, at, map)| Dropped { part: *part, map: Arc::clone(map), at: at.clone() }).collect();
        let conditions = trace.conditions.into_iter().map(|(at, (text, held, failed))| ConditionUse { at, text, held, failed }).collect();
        let order_by = self.program(route).iter().flat_map(|(_, _, route)| &route.order_by).flat_map(|o| o.places.iter().cloned()).collect();
        let (route, findings) = (Arc::clone(&self.info(route).name), output.findings);
        Lineage { route, taken, resources, messages, dropped, values, lines, order_by, conditions, findings, stop }
    }
}

/// Finds the field that a part stands in.
struct Fields<'m> {
    message: &'m Message,
    starts: Vec<(u32, usize, u16)>,
    segments: Vec<Address>,
}

impl<'m> Fields<'m> {
    fn of(message: &'m Message) -> Self {
        let mut starts = Vec::new();
        for segment in 0..message.segment_count() {
            for n in 1..=message.field_count(segment) {
                let part = message.field(segment, n);
                if let (false, Ok(field)) = (part.is_empty(), u16::try_from(n)) {
                    starts.push((part.start, segment, field));
                }
            }
        }
        starts.sort_unstable();
        Self { message, starts, segments: message.segment_addresses() }
    }

    fn address(&self, part: Part) -> Address {
        let at = self.starts.partition_point(|(start, ..)| *start <= part.start);
        match at.checked_sub(1).and_then(|n| self.starts.get(n)) {
            Some((_, segment, field)) => self.within(*segment, *field, part),
            None => self.message.address_of_segment(0),
        }
    }

    fn within(&self, segment: usize, field: u16, part: Part) -> Address {
        let of_segment = self.segments.get(segment).cloned().unwrap_or_else(|| self.message.address_of_segment(segment));
        self.message.address_within(of_segment, segment, field, part)
    }
}

fn resources(trace: &Trace, output: &Output, stopped: bool, fields: &Fields<'_>) -> Vec<ResourceLineage> {
    let order: Vec<usize> = trace.resources.keys().copied().collect();
    let place = |entry: usize| order.iter().position(|e| *e == entry).unwrap_or(0);
    let again = described_again(trace);
    let mut found = Vec::new();
    for (entry, record) in &trace.resources {
        let fate = trace.fates.get(*entry).copied().unwrap_or(Fate::Gone);
        let why = if record.why_gone.is_empty() { "a resource or element that it needs was left out" } else { record.why_gone };
        let outcome = match fate {
            _ if !record.why_gone.is_empty() => Outcome::NotMade(why),
            _ if stopped => Outcome::Stopped,
            Fate::Saved(n) => Outcome::Saved(n),
            Fate::Joined(other) => Outcome::Joined(place(other)),
            Fate::Gone => Outcome::NotMade(why),
        };
        let saved = match outcome {
            Outcome::Saved(n) => output.saves.entries.get(n),
            _ => None,
        };
        let body = match (saved, outcome) {
            (Some(save), _) => Some(&save.body),
            (None, Outcome::Stopped) => Some(&record.root.node),
            _ => None,
        };
        let name = |n: usize| match stopped {
            false => output.saves.entries.get(n).map_or_else(String::new, |s| s.name.clone()),
            true => trace.names.get(&n).map_or_else(String::new, |f| f.name.clone()),
        };
        let facts = trace.names.get(entry);
        let resource_type = facts.map_or("", |f| f.resource_type);
        let mut elements = Vec::new();
        if let Some(body) = body {
            for leaf in leaves(body, &record.root, resource_type) {
                elements.push(element(leaf, fields, &name));
            }
            // Described again in the same words: it is made once, and carries both.
            for root in again.get(entry).into_iter().flatten() {
                for leaf in leaves(&root.node, root, resource_type) {
                    let Some(known) = elements.iter_mut().find(|e| e.path == leaf.path) else { continue };
                    for part in leaf.sources {
                        if !known.from.iter().any(|(_, p)| *p == part) {
                            known.from.push((fields.address(part), part));
                        }
                    }
                }
            }
        }
        let deletes = trace.deletes.iter().filter(|d| d.0 == *entry).map(|(_, element, at, map, parts)| Deletion {
            path: format!("{resource_type}.{element}"),
            from: parts.iter().map(|p| fields.address(*p)).collect(),
            map: Arc::clone(map),
            at: at.clone(),
        });
        found.push(ResourceLineage {
            name: facts.map_or_else(String::new, |f| f.name.clone()),
            resource_type,
            save: facts.map_or("", |f| f.save),
            identity: saved.map_or_else(Vec::new, |s| s.identity.clone()),
            outcome,
            elements,
            deletes: deletes.collect(),
        });
    }
    found
}

/// The later descriptions of resources that say the same, by the entry of the first.
fn described_again(trace: &Trace) -> HashMap<usize, Vec<&Birth>> {
    let mut found: HashMap<usize, Vec<&Birth>> = HashMap::new();
    for (entry, root) in &trace.again {
        found.entry(*entry).or_default().push(root);
    }
    for (n, other) in &trace.resources {
        if let Some(Fate::Joined(first)) = trace.fates.get(*n)
            && trace.resources.get(first).is_some_and(|r| alike(&other.root.node, &r.root.node))
        {
            found.entry(*first).or_default().push(&other.root);
        }
    }
    found
}

fn element(leaf: Leaf<'_>, fields: &Fields<'_>, name: &dyn Fn(usize) -> String) -> ElementLineage {
    let value = leaf.node.to_value(name);
    // The id of what is contained is a name within the resource that Kiln gives it.
    let named = leaf.path.contains(".contained[") && leaf.path.ends_with("].id");
    let from = leaf.sources.iter().filter(|_| !named).map(|p| (fields.address(*p), *p)).collect();
    let mut stages: Vec<Stage> = Vec::new();
    for birth in &leaf.stages {
        let stage = Stage { map: Arc::clone(&birth.head), at: birth.spot.clone(), place: birth.part.map(|p| fields.address(p)), steps: birth.steps.clone() };
        match stages.last_mut() {
            // A map as a whole and then its line, or one line in two steps: one stage says all.
            Some(last) if last.map == stage.map && (last.at.is_none() || last.at == stage.at) => {
                last.at = stage.at;
                last.place = stage.place.or(last.place.take());
                for step in stage.steps {
                    if !last.steps.contains(&step) {
                        last.steps.push(step);
                    }
                }
            }
            _ => stages.push(stage),
        }
    }
    let refers = leaf.path.ends_with(".reference");
    ElementLineage { path: leaf.path, value, from, refers, stages }
}

fn lines(trace: &Trace, fields: &Fields<'_>) -> Vec<LineUse> {
    let mut lines: BTreeMap<Spot, LineUse> = BTreeMap::new();
    for run in &trace.runs {
        let line = lines.entry(run.spot.clone()).or_insert_with(|| LineUse {
            at: run.spot.clone(),
            map: Arc::clone(&run.head),
            element: run.name,
            ran: 0,
            made: 0,
            read: Vec::new(),
            without: Vec::new(),
        });
        line.ran += 1;
        line.made += u64::from(run.made > 0);
        if run.made == 0 {
            for step in &run.steps {
                if line.without.len() < STEPS_MAX && !line.without.contains(step) {
                    line.without.push(step.clone());
                }
            }
        }
    }
    let mut seen = HashSet::new();
    for read in &trace.reads {
        let Some(run) = read.run.and_then(|n| trace.runs.get(n)) else { continue };
        if seen.insert((&run.spot, read.part, read.how))
            && let Some(line) = lines.get_mut(&run.spot)
        {
            line.read.push((fields.address(read.part), values::purpose(read.how)));
        }
    }
    lines.into_values().collect()
}

/// What a line says of where it made nothing; enough for any reader.
const STEPS_MAX: usize = 50;

/// Equal but for the numbers of links, which change at the end of a run.
pub(crate) fn alike(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::Link(_), Node::Link(_)) => true,
        (Node::Object(a), Node::Object(b)) => a.len() == b.len() && a.iter().zip(b).all(|((n, a), (m, b))| n == m && alike(a, b)),
        (Node::List(a), Node::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (a, b) => a == b,
    }
}
