//! A finished resource against the recorder's notes: which line made which element, whatever was replaced, appended or removed since.

use crate::fhir::Node;
use crate::hl7v2::Part;
use crate::route::lineage::{Step, alike};
use crate::route::run::trace::{Birth, Inner, Put};

/// An element that holds a value.
pub(crate) struct Leaf<'t> {
    /// `Patient.name[0].family`.
    pub(crate) path: String,
    pub(crate) node: &'t Node,
    /// What it was made of.
    pub(crate) sources: Vec<Part>,
    /// How, outermost first.
    pub(crate) stages: Vec<&'t Birth>,
}

/// How an element came into an object.
#[derive(Clone, Copy)]
enum Origin<'t> {
    /// It is this node.
    Own(&'t Birth),
    /// It came as a part of this one.
    Within(&'t Birth),
}

type State<'t> = Vec<(&'static str, Vec<Origin<'t>>)>;

/// All elements of a resource that hold a value, in the resource's order.
pub(crate) fn leaves<'t>(body: &'t Node, root: &'t Birth, resource_type: &str) -> Vec<Leaf<'t>> {
    let mut walk = Walk { found: Vec::new(), stages: Vec::new(), translated: None };
    walk.birth(body, root, resource_type);
    walk.found
}

struct Walk<'t> {
    found: Vec<Leaf<'t>>,
    stages: Vec<&'t Birth>,
    /// How many stages there were when a table had replaced the first coding of what is walked.
    translated: Option<usize>,
}

impl<'t> Walk<'t> {
    /// A node with its own birth.
    fn birth(&mut self, node: &'t Node, birth: &'t Birth, path: &str) {
        self.stages.push(birth);
        let translated = self.translated.take();
        match (&birth.inner, node) {
            // A Coding is replaced as a whole.
            (_, node) if birth.translated && node.get("code").is_some() => self.within(node, path),
            (Inner::Child(child), node) => {
                self.translated = translated.or(birth.translated.then_some(self.stages.len()));
                self.birth(node, child, path);
            }
            (Inner::Lines(puts), Node::Object(elements)) => {
                let state = replay(puts);
                for (name, child) in elements {
                    if *name == "resourceType" {
                        continue;
                    }
                    let origins = state.iter().find(|(n, _)| n == name).map(|(_, o)| o.as_slice()).unwrap_or_default();
                    let path = format!("{path}.{name}");
                    match child {
                        Node::Text(_) if *name == "text" && origins.is_empty() && translated.is_some() => self.left(child, &state, &path),
                        Node::List(entries) => {
                            for (n, (entry, origin)) in pair(entries, origins).into_iter().enumerate() {
                                if let (0, "coding", Some(keep)) = (n, *name, translated) {
                                    self.cut(entry, keep, &format!("{path}[{n}]"));
                                    continue;
                                }
                                self.origin(entry, origin, &format!("{path}[{n}]"));
                            }
                        }
                        _ => self.origin(child, origins.first().copied(), &path),
                    }
                }
            }
            (_, node) => self.within(node, path),
        }
        self.stages.pop();
    }

    fn origin(&mut self, node: &'t Node, origin: Option<Origin<'t>>, path: &str) {
        match origin {
            // What a caller changed afterwards (a code by its table) is the caller's.
            Some(Origin::Own(birth)) if alike(&birth.node, node) || (is_object(&birth.node) && is_object(node)) => self.birth(node, birth, path),
            Some(Origin::Within(birth)) => {
                self.stages.push(birth);
                self.within(node, path);
                self.stages.pop();
            }
            _ => self.elsewhere(node, path),
        }
    }

    /// Parts of a node that was made at once.
    fn within(&mut self, node: &'t Node, path: &str) {
        match node {
            Node::Object(elements) => {
                for (name, child) in elements.iter().filter(|(name, _)| *name != "resourceType") {
                    self.within(child, &format!("{path}.{name}"));
                }
            }
            Node::List(entries) => {
                for (n, entry) in entries.iter().enumerate() {
                    self.within(entry, &format!("{path}[{n}]"));
                }
            }
            leaf => self.leaf(leaf, path),
        }
    }

    /// No line of this object made it: an outer stage did, the nearest that looked something up or read something.
    fn elsewhere(&mut self, node: &'t Node, path: &str) {
        let made = |b: &&Birth| !b.reads.is_empty() || b.steps.iter().any(|s| matches!(s, Step::Table { .. } | Step::Derived));
        let keep = self.stages.iter().rposition(made).map_or(self.stages.len(), |n| n + 1);
        self.cut(node, keep, path);
    }

    /// What the sender called a code that a table translated becomes the text.
    fn left(&mut self, node: &'t Node, state: &State<'t>, path: &str) {
        let coding = state.iter().find(|(n, _)| *n == "coding").and_then(|(_, o)| o.first());
        let own = match coding {
            Some(Origin::Own(Birth { inner: Inner::Lines(puts), .. })) => {
                let births = puts.iter().filter_map(|p| if let Put::Line { births, .. } = p { births.first() } else { None });
                births.rev().find(|b| alike(&b.node, node))
            }
            _ => None,
        };
        match own {
            Some(birth) => self.birth(node, birth, path),
            None => self.elsewhere(node, path),
        }
    }

    /// The first stages made it.
    fn cut(&mut self, node: &'t Node, keep: usize, path: &str) {
        let rest = self.stages.split_off(keep);
        self.within(node, path);
        self.stages.extend(rest);
    }

    fn leaf(&mut self, node: &'t Node, path: &str) {
        let sources = self.stages.last().map(|b| sources(b)).unwrap_or_default();
        // The outermost stage is the resource itself; it says something only where nothing else does, or where it did something.
        let tells = |n: usize, b: &Birth| n > 0 || self.stages.len() == 1 || !b.steps.is_empty();
        let stages = self.stages.iter().enumerate().filter(|(n, b)| tells(*n, b)).map(|(_, b)| *b).collect();
        self.found.push(Leaf { path: path.to_owned(), node, sources, stages });
    }
}

fn is_object(node: &Node) -> bool {
    matches!(node, Node::Object(_))
}

/// What a node was made of: what it read, else what was converted, else what its lines read.
fn sources(birth: &Birth) -> Vec<Part> {
    if !birth.reads.is_empty() {
        return birth.reads.clone();
    }
    let mut found = Vec::new();
    match &birth.inner {
        Inner::Leaf => found.extend(birth.part),
        Inner::Child(child) => found.extend(sources(child)),
        Inner::Lines(puts) => collect(puts, &mut found),
    }
    found
}

fn collect(puts: &[Put], found: &mut Vec<Part>) {
    for put in puts {
        match put {
            Put::Line { births, .. } => births.iter().for_each(|b| found.extend(sources(b))),
            Put::Taken(birth) => found.extend(sources(birth)),
            Put::Merged(puts) => collect(puts, found),
            Put::Remove { .. } => {}
        }
    }
}

/// The entries of a list with their origins: by place, or by content where some are gone.
fn pair<'t>(entries: &'t [Node], origins: &[Origin<'t>]) -> Vec<(&'t Node, Option<Origin<'t>>)> {
    if entries.len() == origins.len() {
        return entries.iter().zip(origins.iter().copied().map(Some)).collect();
    }
    let mut left: Vec<Option<Origin<'t>>> = origins.iter().copied().map(Some).collect();
    let mut take = |entry: &Node| {
        let fits = |o: &Option<Origin<'t>>| matches!(o, Some(Origin::Own(b)) if alike(&b.node, entry)) || matches!(o, Some(Origin::Within(_)));
        left.iter_mut().find(|o| fits(o)).and_then(Option::take)
    };
    entries.iter().map(|entry| (entry, take(entry))).collect()
}

/// The elements of an object after all changes, as `Building` makes them.
fn replay(puts: &[Put]) -> State<'_> {
    let mut state: State<'_> = Vec::new();
    for put in puts {
        match put {
            Put::Line { name, list: true, append, births, .. } => {
                let own = births.iter().map(Origin::Own);
                match state.iter_mut().find(|(n, _)| n == name) {
                    Some((_, origins)) if *append => origins.extend(own),
                    Some((_, origins)) => *origins = own.collect(),
                    None => state.push((name, own.collect())),
                }
            }
            Put::Line { branches, births, .. } => {
                let Some(birth) = births.first() else { continue };
                if !branches.is_empty() {
                    state.retain(|(n, _)| *n == birth.name || !branches.contains(n));
                }
                match state.iter_mut().find(|(n, _)| *n == birth.name) {
                    Some((_, origins)) => *origins = vec![Origin::Own(birth)],
                    None => state.push((birth.name, vec![Origin::Own(birth)])),
                }
            }
            Put::Remove { name, branches } => state.retain(|(n, _)| n != name && !branches.contains(n)),
            Put::Taken(birth) => state.extend(elements(birth)),
            Put::Merged(puts) => {
                for (name, more) in replay(puts) {
                    match state.iter_mut().find(|(n, _)| *n == name) {
                        // Lists append, what is single stays: whether it is a list, the entries of the finished one tell.
                        Some((_, origins)) => origins.extend(more),
                        None => state.push((name, more)),
                    }
                }
            }
        }
    }
    state
}

fn elements(birth: &Birth) -> State<'_> {
    match (&birth.inner, &birth.node) {
        (Inner::Child(child), _) => elements(child),
        (Inner::Lines(puts), _) => replay(puts),
        (Inner::Leaf, Node::Object(elements)) => {
            let many = |node: &Node| if let Node::List(entries) = node { entries.len() } else { 1 };
            elements.iter().map(|(name, node)| (*name, vec![Origin::Within(birth); many(node)])).collect()
        }
        (Inner::Leaf, _) => Vec::new(),
    }
}
