//! All lines and conditions of a route set that can run: what a coverage is measured against, and why a value went nowhere.

mod message;

use crate::route::code::{Body, Code, Item, Join, Map, Route, Said, SaveX, X};
use crate::route::lineage::Spot;
use crate::route::program::{RouteId, RouteSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A line that can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeLine {
    /// Where it stands.
    pub at: Spot,
    /// `PID -> Patient`, or `route adt`.
    pub map: Arc<str>,
    /// `Patient.birthDate`.
    pub element: String,
    /// The v2 places that it reads, as written: `PID-7`, `CX.4`.
    pub places: Vec<String>,
    /// The conditions around it, outermost first; all must hold.
    pub under: Vec<Spot>,
}

/// A condition that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeCondition {
    /// Where it stands.
    pub at: Spot,
    /// `PID -> Patient`, or `route adt`.
    pub map: Arc<str>,
    /// Its words.
    pub text: String,
}

/// What can run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The lines in the order of files.
    pub lines: Vec<CodeLine>,
    /// The conditions in the order of files.
    pub conditions: Vec<CodeCondition>,
}

impl RouteSet {
    /// What one route can run: its own lines, and those of all maps that it reaches.
    pub fn survey(&self, route: RouteId) -> Survey {
        let Some((code, _, routed)) = self.program(route) else { return Survey::default() };
        let mut walk = Walk::new(code);
        walk.route(routed, &self.info(route).name);
        walk.reached();
        walk.survey()
    }

    /// What the whole set can run, maps that no route reaches included.
    pub fn survey_all(&self) -> Survey {
        let mut walk = Walk::new(&self.code);
        walk.wanted = (0..self.code.maps.len()).collect();
        walk.wanted_v2 = (0..self.code.v2_maps.len()).collect();
        walk.reached();
        for (id, info) in self.routes() {
            let Some((code, _, route)) = self.program(id) else { continue };
            // A route with overlays of its own has maps of its own.
            if !std::ptr::eq(walk.code, code) {
                walk.code = code;
                walk.seen.clear();
                walk.seen_v2.clear();
            }
            walk.route(route, &info.name);
            walk.reached();
        }
        walk.survey()
    }
}

struct Walk<'c> {
    code: &'c Code,
    wanted: Vec<usize>,
    seen: BTreeSet<usize>,
    /// The same for maps to v2.
    wanted_v2: Vec<usize>,
    seen_v2: BTreeSet<usize>,
    head: Arc<str>,
    under: Vec<Spot>,
    lines: BTreeMap<Spot, CodeLine>,
    conditions: BTreeMap<Spot, CodeCondition>,
}

impl<'c> Walk<'c> {
    fn new(code: &'c Code) -> Self {
        Self {
            code,
            wanted: Vec::new(),
            seen: BTreeSet::new(),
            wanted_v2: Vec::new(),
            seen_v2: BTreeSet::new(),
            head: Arc::from(""),
            under: Vec::new(),
            lines: BTreeMap::new(),
            conditions: BTreeMap::new(),
        }
    }

    fn survey(self) -> Survey {
        Survey { lines: self.lines.into_values().collect(), conditions: self.conditions.into_values().collect() }
    }

    fn route(&mut self, route: &'c Route, name: &str) {
        self.head = Arc::from(format!("route {name}"));
        route.when.iter().for_each(|x| self.x(x));
        for resource in &route.resources {
            if let Some((each, by)) = &resource.each {
                self.x(each);
                by.iter().for_each(|x| self.x(x));
            }
            let around = self.under.len();
            resource.when.iter().for_each(|x| self.condition(x));
            self.body(&resource.body);
            self.save(&resource.save);
            self.under.truncate(around);
            self.wanted.extend(resource.maps.iter().map(|(_, map)| *map));
        }
        route.message.iter().for_each(|m| self.message(m));
    }

    /// The maps that are called, and those that they call.
    fn reached(&mut self) {
        while let Some(n) = self.wanted.pop() {
            if !self.seen.insert(n) {
                continue;
            }
            let Some(Map { head, body, save, .. }) = self.code.maps.get(n) else { continue };
            self.head = Arc::clone(head);
            self.body(body);
            save.iter().for_each(|s| self.save(s));
        }
        while let Some(n) = self.wanted_v2.pop() {
            if self.seen_v2.insert(n) {
                self.v2_map(n);
            }
        }
    }

    fn save(&mut self, save: &'c SaveX) {
        save.by.iter().for_each(|x| self.x(x));
        save.initial.iter().for_each(|b| self.body(b));
    }

    fn condition(&mut self, x: &'c X) {
        self.x(x);
        if let X::Said(_, said) = x {
            self.under.push(spot(said));
        }
    }

    fn body(&mut self, body: &'c Body) {
        let around = self.under.len();
        if let Some((each, by)) = &body.each {
            self.x(each);
            by.iter().for_each(|x| self.x(x));
        }
        body.when.iter().for_each(|x| self.condition(x));
        body.from_values.iter().chain(&body.from).for_each(|x| self.x(x));
        self.wanted.extend(body.from_resource);
        body.first.iter().for_each(|i| self.item(i));
        body.value.iter().for_each(|i| self.item(i));
        for line in &body.lines {
            // `nothing` takes away; there is nothing for it to make.
            if matches!(&line.item, Item::Constant("url", _)) && body.url.is_some() || matches!(line.item, Item::Nothing) {
                continue;
            }
            let at = Spot { line: Arc::clone(&line.line), column: line.column };
            let element = format!("{}.{}", body.path, line.name);
            let known = CodeLine { at: at.clone(), map: Arc::clone(&self.head), element, places: line.places.clone(), under: self.under.clone() };
            self.lines.entry(at).or_insert(known);
            self.item(&line.item);
        }
        self.under.truncate(around);
    }

    fn item(&mut self, item: &'c Item) {
        match item {
            Item::X(x) => self.x(x),
            Item::Body(_, body) => self.body(body),
            Item::List(items) => items.iter().for_each(|i| self.item(i)),
            Item::Extension(_, inner) => self.item(inner),
            Item::Constant(..) | Item::Nothing => {}
        }
    }

    fn x(&mut self, x: &'c X) {
        if let X::Said(_, said) = x {
            let at = spot(said);
            self.conditions.entry(at.clone()).or_insert(CodeCondition { at, map: Arc::clone(&self.head), text: said.text.clone() });
        }
        x.children().into_iter().for_each(|inner| self.x(inner));
        match x {
            X::Via(_, table, _) => self.table(*table),
            X::Convert(_, conversion) => self.join(&conversion.join),
            X::Out(_, join) => self.out(join),
            X::Body(body, _) => self.body(body),
            X::OutBody(body) => self.value_body(body),
            _ => {}
        }
    }

    fn join(&mut self, join: &'c Join) {
        match join {
            Join::Map { map, arguments, .. } | Join::Reference { map, arguments, .. } => {
                self.wanted.push(*map);
                arguments.iter().for_each(|x| self.x(x));
            }
            Join::Varies(joins) => joins.values().for_each(|(join, _)| self.join(join)),
            Join::Table(table) | Join::BooleanTable(table) => self.table(*table),
            _ => {}
        }
    }

    fn table(&mut self, table: usize) {
        let senders = self.code.tables.get(table).map(|t| t.senders.as_slice()).unwrap_or_default();
        senders.iter().for_each(|(when, _)| self.x(when));
    }
}

fn spot(said: &Said) -> Spot {
    Spot { line: Arc::clone(&said.line), column: said.column }
}
