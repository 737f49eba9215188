//! Tree -> checked, compiled program. Every fault becomes a diagnostic, and checking goes on behind it.

mod arguments;
mod ask;
mod blame;
mod body;
mod choice;
mod constant;
mod depends;
mod expression;
mod extensions;
mod fhir_path;
mod function;
mod header;
mod heads;
mod identity;
mod idle;
mod index;
mod join;
mod manner;
mod message;
mod naming;
mod needs;
mod out_constant;
mod outgoing;
mod path;
mod primitives;
mod reach;
mod resources;
mod routes;
mod saves;
mod scope;
mod search;
mod table;
mod v2_maps;

use crate::diagnostic::{Diagnostic, Severity, Sources, Span};
use crate::fhir;
use crate::hl7v2::Structure;
use crate::route::code;
use crate::route::overlay;
use crate::route::program::{LoadOptions, Loaded, RouteInfo, RouteSet};
use crate::route::read;
use crate::route::scope::Lookup;
use crate::route::tree::{Body, Document, Head, Item, Key, RouteDoc, SystemsDoc, TableDoc, Target};
use crate::route::types::{Ty, V2Types};
use index::MapIndex;
use manner::{Manner, manners};
pub(crate) use path::same_type;
use scope::Scope;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use v2_maps::V2MapHead;

/// Faults that end the reading of a document as a whole.
const UNREAD: &[&str] = &["K100", "K101", "K102", "K103", "K104", "K106", "K108", "K109", "K115", "K117", "K118"];

/// What the checker says of something that it looked for in other documents and did not find.
const ABSENT: &[&str] = &["K212", "K401", "K504", "K704"];

/// Reads, checks and compiles all files of a route set: shipped ones first, then overlays, then the site's.
pub fn load(sources: Sources, options: &LoadOptions) -> Loaded {
    let mut diagnostics = Vec::new();
    let mut documents = Vec::new();
    for id in sources.ids() {
        let (more, faults) = read::read(&sources, id);
        documents.extend(more);
        diagnostics.extend(faults);
    }
    let (base, faults) = overlay::merge(&sources, documents.clone(), &options.overlays);
    diagnostics.extend(faults);
    let unread = diagnostics.iter().any(|d| UNREAD.contains(&d.code));
    let manners = manners(&base, options);

    let (code, infos, mut diagnostics, mut used, mut joins) = program(&sources, options, &base, diagnostics, &Manner::of_site(options), &manners);
    let mut set = RouteSet::new(hash(&sources, options), infos, code);
    // What is laid over for some routes only makes a program of its own for them.
    let mut others: Vec<&Manner> = manners.iter().map(|(_, manner)| manner).collect();
    others.dedup();
    for manner in others {
        let (documents, faults) = overlay::merge(&sources, documents.clone(), &manner.overlays);
        diagnostics.extend(faults);
        let (code, infos, all, more, other_joins) = program(&sources, options, &documents, diagnostics, manner, &manners);
        diagnostics = all;
        used.extend(more);
        joins.extend(other_joins);
        let names = manners.iter().filter(|(_, m)| m == manner).map(|(name, _)| name.as_str());
        set.vary(code, &infos, names);
    }
    // What seems to be missing may stand in the document that was given up, whose own fault is enough.
    diagnostics.retain(|d| !(unread && ABSENT.contains(&d.code)));
    let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
    if !failed {
        diagnostics.extend(idle::unused(&sources, &base, &used));
    }
    let diagnostics = in_file_order(diagnostics);
    joins.sort_unstable();
    joins.dedup();
    Loaded { set: (!failed).then(|| Arc::new(set)), diagnostics, sources, joins }
}

/// Sorted by place; what several programs say alike is told once.
fn in_file_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by_key(|d| (d.span.source, d.span.start));
    let mut once: Vec<Diagnostic> = Vec::with_capacity(diagnostics.len());
    for diagnostic in diagnostics {
        let here = once.iter().rev().take_while(|d| (d.span.source, d.span.start) == (diagnostic.span.source, diagnostic.span.start));
        if !here.into_iter().any(|d| *d == diagnostic) {
            once.push(diagnostic);
        }
    }
    once
}

/// A program, its routes, all that was found so far, the places of what it uses, and which head converts which expression.
type Program = (code::Code, Vec<RouteInfo>, Vec<Diagnostic>, BTreeSet<Span>, Vec<(Span, Span)>);

/// Compiles everything in one manner, and adds to what was found before. What is wrong with routes of another manner is told when their turn comes.
fn program(
    sources: &Sources,
    options: &LoadOptions,
    documents: &[Document],
    diagnostics: Vec<Diagnostic>,
    manner: &Manner,
    manners: &[(String, Manner)],
) -> Program {
    let site = Manner::of_site(options);
    let mut compiler = Compiler::new(sources, options);
    compiler.diagnostics = diagnostics;
    compiler.foreign = documents
        .iter()
        .filter_map(|d| if let Head::Route(route) = &d.head { Some(route.name.text.clone()) } else { None })
        .filter(|name| manners.iter().find(|(n, _)| n == name).map_or(&site, |(_, m)| m) != manner)
        .collect();
    compiler.collect(documents);
    for (path, datatype) in &manner.types {
        compiler.v2.name_field(path, datatype);
    }
    let (code, infos) = compiler.compile();
    let diagnostics = std::mem::take(&mut compiler.diagnostics);
    let joins = std::mem::take(&mut compiler.joins);
    (code, infos, diagnostics, compiler.used(), joins)
}

/// A hash over paths, texts, overlays and the version of Kiln: what decides a program.
fn hash(sources: &Sources, options: &LoadOptions) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    let parts = sources.ids().flat_map(|id| [sources.path(id), sources.text(id)]).chain(options.overlays.iter().map(String::as_str));
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// What a map's head promises, known before any body is compiled.
pub(crate) struct MapHead<'a> {
    pub(crate) source: String,
    pub(crate) from: Ty,
    pub(crate) target: &'a Target,
    /// The FHIR type that it makes; for a choice (`Observation.value[x]`) the type that holds the choice.
    pub(crate) ty: fhir::Type,
    /// The choice element, for `Observation.value[x]`.
    pub(crate) choice: Option<fhir::Element>,
    pub(crate) resource: Option<&'static str>,
    pub(crate) takes: Vec<(String, Ty, Option<Wanted>)>,
    pub(crate) body: &'a Body,
    pub(crate) span: Span,
    pub(crate) calls: Vec<usize>,
}

/// What an element wants from an expression.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The element's definition; `None` for a parameter or an identity.
    pub(crate) element: Option<fhir::Element>,
    pub(crate) types: Vec<fhir::Type>,
    /// The JSON name when there is no choice.
    pub(crate) name: &'static str,
    pub(crate) companion: &'static str,
    pub(crate) choice: Option<fhir::Element>,
    pub(crate) list: bool,
    /// `Patient.gender`.
    pub(crate) path: String,
}

impl Wanted {
    pub(crate) fn name_for(&self, ty: fhir::Type) -> &'static str {
        self.choice.map_or(self.name, |c| c.json_name(ty))
    }

    pub(crate) fn companion_for(&self, ty: fhir::Type) -> &'static str {
        self.choice.map_or(self.companion, |c| c.companion(ty))
    }

    pub(crate) fn binding(&self) -> Option<fhir::Binding> {
        self.element.and_then(|e| e.binding())
    }

    /// A bare type, for parameters and identities.
    pub(crate) fn bare(ty: fhir::Type) -> Self {
        Self { element: None, types: vec![ty], name: "value", companion: "_value", choice: None, list: true, path: ty.name().to_owned() }
    }
}

/// What `$with` passes, and the scope in which it was written.
pub(crate) struct With<'a> {
    pub(crate) items: Vec<(&'a Key, &'a Item)>,
    pub(crate) scope: Scope<'a>,
    pub(crate) used: Vec<bool>,
}

/// How many maps may be called one by the other.
const MAPS_DEEP_MAX: usize = 32;

pub(crate) struct Compiler<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) options: &'a LoadOptions,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) v2: V2Types,
    pub(crate) maps: Vec<MapHead<'a>>,
    map_index: MapIndex,
    pub(crate) table_docs: Vec<&'a TableDoc>,
    pub(crate) tables: Vec<code::Table>,
    /// Tables without `unmapped:`.
    pub(crate) undecided: Vec<bool>,
    pub(crate) systems_docs: Vec<&'a SystemsDoc>,
    pub(crate) route_docs: Vec<&'a RouteDoc>,
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) lookup_index: HashMap<Lookup, usize>,
    pub(crate) structures: Vec<Structure>,
    pub(crate) many: HashMap<(Option<String>, usize), bool>,
    /// Which look-ups tie in which structures, and the paths that look so.
    pub(crate) ties: HashMap<(Option<String>, usize), Vec<Structure>>,
    pub(crate) tied: Vec<path::Tied>,
    /// The structures of the routes that use a map.
    pub(crate) reach: HashMap<usize, Vec<Structure>>,
    /// The map being compiled, for the call graph.
    pub(crate) current_map: Option<usize>,
    /// Maps whose target is v2, and the one being compiled.
    pub(crate) v2_maps: Vec<V2MapHead<'a>>,
    pub(crate) current_v2_map: Option<usize>,
    /// `$with` of the bodies around, innermost last.
    pub(crate) with: Vec<With<'a>>,
    /// Routes that this program does not run: they are compiled in another manner, and judged there.
    pub(crate) foreign: HashSet<String>,
    /// The maps that routes call themselves.
    pub(crate) called: Vec<usize>,
    /// The places of maps, tables and names that something uses.
    pub(crate) used: BTreeSet<Span>,
    /// The events that messages of the route being compiled may have; empty where that is open.
    pub(crate) events: Vec<String>,
    /// How many names of `$let` the use being compiled has stood for so far.
    pub(crate) expansions: usize,
    /// An expression holds `null`.
    pub(crate) says_null: bool,
    /// How many maps and resources were begun, each a scope's unit.
    units: usize,
    /// `$let`s that are remembered, by unit, place, and the `$with` around their use.
    pub(crate) named: HashMap<(usize, Span, Option<Span>), Arc<crate::route::code::Let>>,
    /// Which map or table converts which expression: the place of the one, and of the other's head.
    pub(crate) joins: Vec<(Span, Span)>,
    /// Where the route being compiled refers to what its questions find.
    pub(crate) referred: Vec<(Span, usize)>,
}

impl<'a> Compiler<'a> {
    fn new(sources: &'a Sources, options: &'a LoadOptions) -> Self {
        Self {
            sources,
            options,
            diagnostics: Vec::new(),
            v2: V2Types::default(),
            maps: Vec::new(),
            map_index: MapIndex::default(),
            table_docs: Vec::new(),
            tables: Vec::new(),
            undecided: Vec::new(),
            systems_docs: Vec::new(),
            route_docs: Vec::new(),
            lookups: Vec::new(),
            lookup_index: HashMap::new(),
            structures: Vec::new(),
            many: HashMap::new(),
            ties: HashMap::new(),
            tied: Vec::new(),
            reach: HashMap::new(),
            current_map: None,
            v2_maps: Vec::new(),
            current_v2_map: None,
            with: Vec::new(),
            foreign: HashSet::new(),
            called: Vec::new(),
            used: BTreeSet::new(),
            events: Vec::new(),
            expansions: 0,
            says_null: false,
            units: 0,
            named: HashMap::new(),
            joins: Vec::new(),
            referred: Vec::new(),
        }
    }

    /// The number of the next map or resource.
    pub(crate) fn unit(&mut self) -> usize {
        self.units += 1;
        self.units
    }

    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// `routes/siu.yaml:12`.
    pub(crate) fn line(&self, span: Span) -> code::Line {
        let (line, _) = self.sources.line_column(span);
        Arc::from(format!("{}:{line}", self.sources.path(span.source)))
    }

    /// The same with the column, from 1.
    pub(crate) fn spot(&self, span: Span) -> (code::Line, u32) {
        let (line, column) = self.sources.line_column(span);
        (Arc::from(format!("{}:{line}", self.sources.path(span.source))), u32::try_from(column).unwrap_or(u32::MAX))
    }

    fn compile(&mut self) -> (code::Code, Vec<RouteInfo>) {
        self.compile_tables();
        let systems = self.compile_systems();
        let mut maps = Vec::new();
        for n in 0..self.maps.len() {
            let map = self.compile_map(n);
            maps.push(map);
        }
        self.check_recursion();
        let v2_maps = self.compile_v2_maps();
        let (routes, infos) = self.compile_routes(&maps);
        self.check_ties();
        let code = code::Code {
            by_event: code::ByEvent::new(&routes),
            routes,
            maps,
            v2_maps,
            tables: std::mem::take(&mut self.tables),
            systems,
            lookups: std::mem::take(&mut self.lookups),
            says_null: self.says_null,
            segment_places: self.v2.places.clone(),
        };
        (code, infos)
    }

    fn compile_map(&mut self, n: usize) -> code::Map {
        let (body, ty, from, resource, choice) = {
            let head = &self.maps[n];
            (head.body, head.ty, head.from.clone(), head.resource, head.choice)
        };
        let head: Arc<str> = Arc::from(self.map_name(n));
        self.current_map = Some(n);
        let mut scope = Scope { unit: self.unit(), ..Scope::for_map(&from, &self.maps[n].takes) };
        let path = match choice {
            Some(_) => ty.name().to_owned(),
            None if self.maps[n].target.element.is_empty() => ty.name().to_owned(),
            None => format!("{}.{}", self.maps[n].target.name, self.maps[n].target.element.join(".")),
        };
        let check_required = resource.is_none() && choice.is_none();
        let compiled = self.body(&mut scope, body, ty, &path, check_required);
        let save = match (&body.save, resource) {
            (Some(save), Some(resource)) => {
                Some(self.save(&mut scope, save, body.missing.as_ref(), &body.merge, body.initial.as_deref(), resource, &[&compiled], Some(self.maps[n].span)))
            }
            _ => None,
        };
        self.current_map = None;
        code::Map { head, resource, choice: choice.is_some(), body: compiled, save }
    }

    pub(crate) fn map_name(&self, n: usize) -> String {
        let head = &self.maps[n];
        format!("{} -> {}", head.source, head.target.written())
    }

    /// Maps call maps as a tree, never in a circle, and not so deep that a run could exhaust its thread's stack.
    fn check_recursion(&mut self) {
        /// How many maps are called one by the other, from each on; 0 while that is being found out.
        type Depths = Vec<Option<usize>>;
        fn visit(maps: &[MapHead<'_>], n: usize, depths: &mut Depths, circle: &mut Option<usize>) {
            depths[n] = Some(0);
            let mut depth = 1;
            for next in &maps[n].calls {
                match depths[*next] {
                    None => visit(maps, *next, depths, circle),
                    Some(0) => *circle = Some(*next),
                    Some(_) => {}
                }
                depth = depth.max(1 + depths[*next].unwrap_or(0));
            }
            depths[n] = Some(depth);
        }
        let mut depths = vec![None; self.maps.len()];
        for n in 0..self.maps.len() {
            let mut circle = None;
            if depths[n].is_none() {
                visit(&self.maps, n, &mut depths, &mut circle);
            }
            if let Some(n) = circle {
                let span = self.maps[n].span;
                let message = format!("the map {} leads back to itself", self.map_name(n));
                self.report(Diagnostic::error("K410", span, message).label("maps may not recurse").help("name another map with `as`, or write the lines here"));
            } else if depths[n] == Some(MAPS_DEEP_MAX + 1) {
                let span = self.maps[n].span;
                let message = format!("the map {} leads to a map that leads to a map, more than {MAPS_DEEP_MAX} deep", self.map_name(n));
                self.report(Diagnostic::error("K116", span, message).label("the chain of maps gets too long here").help("let one map do what several do"));
            }
        }
    }

    pub(crate) fn suggest_source(&self, name: &str) -> String {
        let mut names = self.v2.segment_names();
        names.extend(crate::hl7v2::datatype_ids().map(str::to_owned));
        match crate::diagnostic::suggest(name, names.iter().map(String::as_str)) {
            Some(other) => format!("did you mean {other}?"),
            None => "declare a site's own with `segment:` or `datatype:`".to_owned(),
        }
    }

    pub(crate) fn suggest_element(&self, ty: fhir::Type, name: &str) -> String {
        let names: Vec<&str> = ty.elements().map(|e| e.name()).collect();
        if let Some((outer, inner)) = name.split_once('.').filter(|(outer, _)| names.contains(outer)) {
            return format!("an element inside another stands in its body: `{outer}: {{ {inner}: ... }}`");
        }
        match crate::diagnostic::suggest(name, names.iter().copied()) {
            Some(other) => format!("did you mean {other}?"),
            None => format!("{} has: {}", ty.name(), names.join(", ")),
        }
    }
}
