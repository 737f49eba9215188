//! v2 paths: the nearest segment, the field's type, components.

use crate::diagnostic::{Diagnostic, Span};
use crate::hl7v2::{self, Structure};
use crate::route::code::{Path, Root, Step, X};
use crate::route::compile::Compiler;
use crate::route::compile::expression::Compiled;
use crate::route::compile::scope::Scope;
use crate::route::names::intern;
use crate::route::scope::{Lookup, resolve};
use crate::route::tree::{Index, Key, PathStep};
use crate::route::types::{Ty, Typed};
use std::collections::HashSet;

impl<'a> Compiler<'a> {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn segment_path(
        &mut self,
        scope: &mut Scope<'a>,
        all: bool,
        anchors: &[Key],
        segment: &Key,
        index: Option<Index>,
        field: Option<u16>,
        tail: &[PathStep],
        span: Span,
    ) -> Compiled {
        if segment.text == "message" {
            return Compiled::new(X::Nothing, Typed::one(Ty::Message));
        }
        if !self.v2.is_segment(&segment.text) {
            if self.v2.is_datatype(&segment.text) {
                if field.is_none() && anchors.is_empty() {
                    return self.type_path(scope, segment, tail, span);
                }
                let fixed = format!("{}.{}", segment.text, field.unwrap_or(1));
                self.report(
                    Diagnostic::error("K201", span, format!("{} is a data type, so its parts are written with a point", segment.text))
                        .label("wrong notation")
                        .help(format!("write {fixed}"))
                        .fix(fixed),
                );
                return Compiled::nothing();
            }
            self.unknown_segment(segment);
            return Compiled::nothing();
        }
        if scope.pure_value {
            self.report(
                Diagnostic::error("K208", span, format!("a map of a data type cannot see {}", segment.text))
                    .label("only the value itself, its parameters, sender(), event() and received() are in reach")
                    .help("take it as a parameter: `$takes` here, `$with` where the map is used"),
            );
            return Compiled::nothing();
        }
        for anchor in anchors {
            if !self.v2.is_segment(&anchor.text) && !anchor.text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
                self.unknown_segment(anchor);
            }
        }
        let name = intern(&segment.text);
        let written = written(anchors, name, index, field, tail);

        // The path that is being iterated means the current value.
        if anchors.is_empty() && !all && index.is_none() {
            let current = scope.entries.iter().enumerate().rev().find(|(_, e)| match (&e.path, field) {
                (Some((s, f)), Some(n)) => s == name && *f == n,
                _ => false,
            });
            if let Some((slot, entry)) = current {
                let typed = Typed { ty: entry.ty.clone(), many: entry.group };
                let origin = entry.path.clone();
                let mut compiled = self.steps(Path { root: Root::Slot(slot), field: None, steps: Vec::new() }, typed, tail, span);
                compiled.origin = origin;
                compiled.segment = Some(name);
                compiled.places = vec![written];
                return compiled;
            }
        }
        let nearest = scope.entries.iter().enumerate().rev().find(|(_, e)| e.segment == Some(name)).map(|(n, e)| (n, matches!(e.ty, Ty::Segment(_)), e.group));
        let (root, mut many) = match nearest {
            Some((slot, is_segment, group)) if anchors.is_empty() && !all && index.is_none() => {
                (if is_segment { Root::Slot(slot) } else { Root::SegmentOf(slot) }, group)
            }
            _ => {
                let lookup = Lookup { all, anchors: anchors.iter().map(|a| a.text.clone()).collect(), segment: name.to_owned() };
                let lookup = self.lookup(lookup);
                let from = scope.segment();
                let many = self.lookup_is_many(from.map(|(_, s)| s), lookup, index.is_some(), span);
                (Root::Lookup { lookup, from: from.map(|(slot, _)| slot), index }, many && index.is_none())
            }
        };
        let Some(n) = field else {
            if let Some(step) = tail.first() {
                let fixed = match step {
                    PathStep::Component(c) => format!("{name}-{c}"),
                    _ => name.to_owned(),
                };
                self.report(
                    Diagnostic::error("K201", span, format!("{name} is a segment, so its fields are written with a hyphen"))
                        .label("wrong notation")
                        .help(format!("write {fixed}"))
                        .fix(fixed),
                );
                return Compiled::nothing();
            }
            let mut compiled = Compiled::new(X::Path(Path { root, field: None, steps: Vec::new() }), Typed { ty: Ty::Segment(name), many });
            compiled.segment = Some(name);
            compiled.places = vec![written];
            return compiled;
        };
        let Some(facts) = self.v2.field(name, n) else {
            self.unknown_field(name, n, span);
            return Compiled::nothing();
        };
        many |= facts.repeats;
        let typed = Typed { ty: Ty::V2 { datatype: facts.datatype, table: facts.table }, many };
        let mut compiled = self.steps(Path { root, field: Some(n), steps: Vec::new() }, typed, tail, span);
        compiled.origin = Some((name.to_owned(), n));
        compiled.segment = Some(name);
        compiled.places = vec![written];
        compiled
    }

    /// `CX.4.1`: a part of the current value of that type.
    pub(crate) fn type_path(&mut self, scope: &mut Scope<'a>, name: &Key, tail: &[PathStep], span: Span) -> Compiled {
        if crate::fhir::type_named(&name.text).is_some() && !self.v2.is_datatype(&name.text) {
            return self.fhir_type_path(scope, name, tail, span);
        }
        let current = scope.entries.iter().enumerate().rev().find(|(_, e)| matches!(&e.ty, Ty::V2 { datatype, .. } if same_type(datatype, &name.text)));
        if let Some((slot, entry)) = current {
            let typed = Typed { ty: entry.ty.clone(), many: entry.group };
            let mut compiled = self.steps(Path { root: Root::Slot(slot), field: None, steps: Vec::new() }, typed, tail, span);
            compiled.places = vec![written(&[], &name.text, None, None, tail)];
            compiled.segment = scope.entries[slot].segment;
            return compiled;
        }
        if self.v2.is_segment(&name.text) {
            let mut fixed = name.text.clone();
            for (n, step) in tail.iter().enumerate() {
                match step {
                    PathStep::Component(c) => fixed.push_str(&format!("{}{c}", if n == 0 { "-" } else { "." })),
                    PathStep::Element(e) => fixed.push_str(&format!(".{e}")),
                    PathStep::Index(_) => {}
                }
            }
            self.report(
                Diagnostic::error("K201", span, format!("{} is a segment, so its fields are written with a hyphen", name.text))
                    .label("wrong notation")
                    .help(format!("write {fixed}"))
                    .fix(fixed),
            );
        } else if self.v2.is_datatype(&name.text) {
            let current: Vec<String> = scope.entries.iter().map(|e| e.ty.name()).collect();
            self.report(
                Diagnostic::error("K206", span, format!("no current value here is a {}", name.text))
                    .label("not the type of what is being mapped")
                    .help(if current.is_empty() { "begin the path with a segment".to_owned() } else { format!("in reach: {}", current.join(", ")) }),
            );
        } else {
            self.unknown_segment(name);
        }
        Compiled::nothing()
    }

    fn steps(&mut self, mut path: Path, mut typed: Typed, tail: &[PathStep], span: Span) -> Compiled {
        for step in tail {
            match step {
                PathStep::Component(n) => {
                    typed.ty = self.component_type(&typed.ty, *n, span);
                    path.steps.push(Step::Down(*n));
                }
                PathStep::Index(index) => {
                    typed.many = false;
                    path.steps.push(Step::Index(*index));
                }
                PathStep::Element(name) => self.no_element(&typed.ty.clone(), name, span),
            }
        }
        Compiled::new(X::Path(path), typed)
    }

    pub(crate) fn component_type(&mut self, ty: &Ty, n: u16, span: Span) -> Ty {
        let Ty::V2 { datatype, .. } = ty else {
            if *ty != Ty::Nothing && !matches!(ty, Ty::Text) {
                self.report(Diagnostic::error("K204", span, format!("{} has no components", ty.name())).label(format!("component {n} of what?")));
            }
            return Ty::Nothing;
        };
        if *datatype == "varies" {
            return Ty::V2 { datatype: "ST", table: None };
        }
        match self.v2.component(datatype, n) {
            Some(facts) => Ty::V2 { datatype: facts.datatype, table: facts.table },
            None => {
                let count = (1..=60).rev().find(|c| self.v2.component(datatype, *c).is_some()).unwrap_or(1);
                self.report(
                    Diagnostic::error("K204", span, format!("{datatype} has no component {n}"))
                        .label("no such component in any version")
                        .help(format!("{datatype} has {count} component{}", if count == 1 { "" } else { "s" })),
                );
                Ty::Nothing
            }
        }
    }

    pub(crate) fn unknown_segment(&mut self, segment: &Key) {
        if segment.text.starts_with('Z') && segment.text.len() == 3 {
            self.report(
                Diagnostic::error("K212", segment.span, format!("the Z-segment {} is not declared", segment.text))
                    .label("a site's own segment")
                    .help(format!("declare it: `segment: {}` with `after:` and `fields:`", segment.text)),
            );
            return;
        }
        let help = self.suggest_segment(segment);
        self.report(Diagnostic::error("K202", segment.span, format!("there is no segment {}", segment.text)).label("in no version of HL7 v2").help(help));
    }

    pub(crate) fn unknown_field(&mut self, segment: &'static str, n: u16, span: Span) {
        let count = (1..=120).rev().find(|c| self.v2.field(segment, *c).is_some()).unwrap_or(0);
        let message = format!("{segment} has no field {n}");
        let help = match hl7v2::newest_segment(segment) {
            Some(_) if n > count => format!("{segment} has {count} fields in the newest version"),
            Some(_) => format!("{segment}-{n} was withdrawn before it had a data type"),
            None => format!("add field {n} to the declaration `segment: {segment}`"),
        };
        self.report(Diagnostic::error("K203", span, message).label("no such field in any version").help(help));
    }

    pub(crate) fn lookup(&mut self, lookup: Lookup) -> usize {
        if let Some(known) = self.lookup_index.get(&lookup) {
            return *known;
        }
        self.lookups.push(lookup.clone());
        self.lookup_index.insert(lookup, self.lookups.len() - 1);
        self.lookups.len() - 1
    }

    /// May the look-up yield more than one segment, in any structure that the routes take? Says so too where two places tie.
    fn lookup_is_many(&mut self, from: Option<&'static str>, lookup: usize, indexed: bool, span: Span) -> bool {
        let key = (from.map(str::to_owned), lookup);
        if let Some(known) = self.many.get(&key).copied() {
            self.tied_again(&key, indexed, span);
            return known;
        }
        let wanted = self.lookups[lookup].clone();
        let mut many = wanted.all;
        let mut ties = Vec::new();
        let mut found = false;
        // A segment that stands in several groups (OBX) is judged by the group that suits best: which one a map is called from is not known here,
        // and where it yields more than one all the same, the run reports what it did not carry.
        for structure in self.structures.clone() {
            let places: Vec<_> = contexts(structure, from).filter_map(|context| resolve(structure, context, &wanted)).collect();
            found |= !places.is_empty();
            many |= !places.is_empty() && places.iter().all(|p| p.many);
            if !places.is_empty() && places.iter().all(|p| p.tied) {
                ties.push(structure);
            }
        }
        if !ties.is_empty() && !wanted.all {
            self.ties.insert(key.clone(), ties);
            self.tied_again(&key, indexed, span);
        }
        if !found && from.is_some() && !self.structures.is_empty() && hl7v2::newest_segment(&wanted.segment).is_some() {
            let reachable = self.structures.iter().any(|s| contexts(*s, from).next().is_some());
            if reachable {
                self.report(
                    Diagnostic::warning("K209", span, format!("no message that the routes take has {} near {}", wanted.segment, from.unwrap_or("the message")))
                        .label("only senders that break the structure send it"),
                );
            }
        }
        self.many.insert(key, many);
        many
    }

    /// Remembers a path that ties somewhere. Whether that matters is known when the routes that use its map are.
    fn tied_again(&mut self, key: &(Option<String>, usize), indexed: bool, span: Span) {
        if let (Some(structures), false) = (self.ties.get(key), indexed) {
            self.tied.push(Tied { lookup: key.1, structures: structures.clone(), map: self.current_map, span });
        }
    }

    /// K207, once for each way to look: in a map, if a route that uses it takes a message of such a structure; in a route, always.
    pub(crate) fn check_ties(&mut self) {
        let mut told = HashSet::new();
        for tied in std::mem::take(&mut self.tied) {
            let reached = |structure: &&Structure| tied.map.is_none_or(|map| self.reach.get(&map).is_some_and(|taken| taken.contains(*structure)));
            let Some(structure) = tied.structures.iter().find(reached).copied() else { continue };
            if !told.insert((tied.map, tied.lookup)) {
                continue;
            }
            let segment = self.lookups[tied.lookup].segment.clone();
            let message = format!("{segment} stands in two places of equal rank in {} {}", structure.id(), structure.version().name());
            self.report(
                Diagnostic::warning("K207", tied.span, message)
                    .label("both are meant")
                    .help(format!("say which with an anchor, such as PID.{segment} or PV1.{segment}")),
            );
        }
    }

    /// A route calls these maps, and they call others: all of them meet its messages.
    pub(crate) fn reaches(&mut self, called: &[usize]) {
        let mut open = called.to_vec();
        let mut seen = HashSet::new();
        while let Some(map) = open.pop() {
            if !seen.insert(map) {
                continue;
            }
            let taken = self.reach.entry(map).or_default();
            for structure in &self.structures {
                if !taken.contains(structure) {
                    taken.push(*structure);
                }
            }
            open.extend(self.maps.get(map).iter().flat_map(|m| &m.calls));
        }
    }
}

/// A path that ties in some structures, and the map that it stands in.
pub(crate) struct Tied {
    lookup: usize,
    structures: Vec<Structure>,
    map: Option<usize>,
    span: Span,
}

/// The groups that hold a segment of that name; the message itself when there is none.
pub(crate) fn contexts(structure: hl7v2::Structure, from: Option<&str>) -> impl Iterator<Item = hl7v2::NodeId> {
    let mut groups: Vec<hl7v2::NodeId> = Vec::new();
    match from {
        None => groups.push(hl7v2::NodeId(0)),
        Some(name) => {
            let mut open = vec![hl7v2::NodeId(0)];
            while let Some(group) = open.pop() {
                for child in structure.children(group) {
                    let node = structure.node(child);
                    if node.is_group {
                        open.push(child);
                    } else if node.name == name && !groups.contains(&group) {
                        groups.push(group);
                    }
                }
            }
        }
    }
    groups.into_iter()
}

/// CE, CNE and CWE are one family; so are the times.
pub(crate) fn same_type(a: &str, b: &str) -> bool {
    fn family(name: &str) -> &str {
        match name {
            "CE" | "CNE" | "CF" => "CWE",
            "TS" => "DTM",
            other => other,
        }
    }
    family(a) == family(b)
}

fn written(anchors: &[Key], name: &str, index: Option<Index>, field: Option<u16>, tail: &[PathStep]) -> String {
    let mut text = String::new();
    for anchor in anchors {
        text.push_str(&anchor.text);
        text.push('.');
    }
    text.push_str(name);
    let show = |index: &Index| match index {
        Index::Nth(n) => format!("[{n}]"),
        Index::Last => "[last]".to_owned(),
    };
    if let Some(index) = &index {
        text.push_str(&show(index));
    }
    if let Some(field) = field {
        text.push_str(&format!("-{field}"));
    }
    for step in tail {
        match step {
            PathStep::Component(n) => text.push_str(&format!(".{n}")),
            PathStep::Element(e) => text.push_str(&format!(".{e}")),
            PathStep::Index(index) => text.push_str(&show(index)),
        }
    }
    text
}
