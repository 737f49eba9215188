//! What the compiled routes write: each element with the v2 places that it comes from, followed through all maps that are called.

use crate::fhir::Node;
use crate::hl7v2;
use crate::route::code::table_system;
use crate::route::code::{Body, BodyLine, Code, Conversion, Function, Item, Join, Route, X};
use crate::route::guide::at::At;
use crate::route::guide::reader::{Env, Places, Reader, Sym};
use crate::route::lineage::Spot;
use crate::route::program::{RouteId, RouteSet};
use std::collections::HashSet;
use std::sync::Arc;

/// An element that some line writes.
pub(crate) struct Fact {
    /// Where it stands in FHIR.
    pub(crate) at: At,
    /// The v2 places whose content it is: `PID-5.1`, `XPN.2`.
    pub(crate) places: Places,
    /// The v2 places that it hangs on: what is iterated around it, and what conditions ask.
    pub(crate) asked: Places,
    /// What it is, if the route file says so.
    pub(crate) constant: Option<String>,
    /// A reference to a resource of the route.
    pub(crate) refers: bool,
    /// The line of the route, or of a map of its segments; of a type's map its own line.
    pub(crate) spot: Spot,
    /// The route that does it; none for what a type's map does wherever it is called.
    pub(crate) route: Option<RouteId>,
    /// Of a map by itself, the type that it is from.
    pub(crate) source: Option<String>,
    /// The conversion is the language's own, of all parts of the value.
    pub(crate) whole: bool,
}

/// All of them.
pub(crate) struct Facts {
    pub(crate) list: Vec<Fact>,
}

impl Facts {
    /// Of all routes of a set, and of the maps that they reach.
    pub(crate) fn of(set: &RouteSet) -> Self {
        let mut list = Vec::new();
        let mut reached: HashSet<usize> = HashSet::new();
        for (id, info) in set.routes() {
            let Some((code, _, route)) = set.program(id) else { continue };
            let mut walk = Walk::new(code, Some(id), Some(route));
            walk.head = Arc::from(format!("route {}", info.name));
            walk.route(route);
            list.append(&mut walk.facts);
            if std::ptr::eq(code, &set.code) {
                reached.extend(walk.reached);
            }
        }
        let mut maps: Vec<usize> = reached.into_iter().collect();
        maps.sort_unstable();
        for map in maps {
            let mut walk = Walk::new(&set.code, None, None);
            walk.map(map);
            list.append(&mut walk.facts);
        }
        Self { list }
    }
}

/// Maps call maps; this is deeper than any that end.
const DEPTH_MAX: usize = 12;

struct Walk<'c> {
    code: &'c Code,
    id: Option<RouteId>,
    routed: Option<&'c Route>,
    head: Arc<str>,
    facts: Vec<Fact>,
    seen: HashSet<String>,
    reached: HashSet<usize>,
    /// The maps that are being followed.
    calls: Vec<usize>,
    spot: Option<Spot>,
    /// How many maps of values lie between the route or segment's map and here: their lines are not told.
    within: usize,
    around: Vec<String>,
    /// Of a map by itself, what it is from.
    source: Option<String>,
    whole: bool,
}

impl<'c> Walk<'c> {
    fn new(code: &'c Code, id: Option<RouteId>, routed: Option<&'c Route>) -> Self {
        Self {
            code,
            id,
            routed,
            head: Arc::from(""),
            facts: Vec::new(),
            seen: HashSet::new(),
            reached: HashSet::new(),
            calls: Vec::new(),
            spot: None,
            within: 0,
            around: Vec::new(),
            source: None,
            whole: false,
        }
    }

    fn reader(&self) -> Reader<'c> {
        Reader { code: self.code }
    }

    fn route(&mut self, route: &'c Route) {
        for resource in &route.resources {
            let Some(at) = At::root(resource.resource_type) else { continue };
            let mut env = Env { slots: Vec::new(), arguments: &[], caller: None };
            self.around.clear();
            if let Some((each, _)) = &resource.each {
                let each = self.reader().eval(each, &env);
                self.around.extend(each.places.iter().cloned());
                env.set(0, each.places);
            }
            let mark = self.around.len();
            for (_, map) in &resource.maps {
                let Some(called) = self.code.maps.get(*map) else { continue };
                self.reached.insert(*map);
                let source = source(&called.head);
                let mut inner = Env { slots: Vec::new(), arguments: &[], caller: None };
                inner.set(0, Places::from([source.to_owned()]));
                self.around.push(source.to_owned());
                if let Some(when) = &resource.when {
                    let asked = self.reader().eval(when, &env);
                    self.around.extend(asked.all());
                }
                self.lines(&called.body, &inner, &at);
                self.around.truncate(mark);
            }
            self.body(&resource.body, env.clone(), &at, Form::Element);
            if let Some(initial) = &resource.save.initial {
                self.body(initial, env, &at, Form::Element);
            }
        }
    }

    /// A map by itself, whoever calls it.
    fn map(&mut self, n: usize) {
        let Some(map) = self.code.maps.get(n) else { return };
        let Some((source, target)) = map.head.split_once(" -> ") else { return };
        let Some(mut at) = At::root(target.split(['-', '.']).next().unwrap_or(target)) else { return };
        let mut steps: Vec<&str> = target.split('-').next().unwrap_or(target).split('.').skip(1).collect();
        if map.choice {
            steps.pop();
        }
        for step in steps {
            at = at.step(step);
        }
        let mut env = Env { slots: Vec::new(), arguments: &[], caller: None };
        env.set(0, Places::from([source.to_owned()]));
        self.around = vec![source.to_owned()];
        self.source = Some(source.to_owned());
        self.body(&map.body, env, &at, Form::Element);
    }

    /// What the body makes at this place; `form` says what its lines are elements of.
    fn body(&mut self, body: &'c Body, mut env: Env<'_, 'c>, at: &At, form: Form) {
        let mark = self.around.len();
        if let Some((each, by)) = &body.each {
            let each = self.reader().eval(each, &env);
            self.around.extend(each.places.iter().cloned().chain(each.asked));
            env.set(body.slot, each.places);
            if let Some(by) = by {
                let by = self.reader().eval(by, &env);
                self.around.extend(by.all());
            }
        }
        if let Some(when) = &body.when {
            let asked = self.reader().eval(when, &env);
            self.around.extend(asked.all());
        }
        if let (Some(values), Some(from)) = (&body.from_values, &body.from) {
            let values = self.reader().eval(values, &env);
            self.around.extend(values.places.iter().cloned().chain(values.asked));
            env.set(body.slot + usize::from(body.each.is_some()), values.places);
            values.constants.iter().for_each(|node| self.constant(node, at, &Places::new()));
            self.emit(from, &env, at);
        }
        for item in body.first.iter().chain(body.value.as_deref()) {
            match item {
                Item::Body(own, inner) if *own == "value" => self.body(inner, env.clone(), at, form),
                _ => self.item(item, &env, at),
            }
        }
        if !body.lines.is_empty() {
            let at = match form {
                Form::Choice => at.parent(),
                Form::Element => element(at, body),
                Form::Resource(resource) => at.resource(resource),
            };
            let at = match body.from_resource.and_then(|n| self.code.maps.get(n)).and_then(|m| m.resource) {
                Some(resource) => at.resource(resource),
                None => at,
            };
            // A body is made only if one of its expressions yields something, so its constants hang on all of them.
            if !at.steps.is_empty() {
                let read: Vec<String> = body.lines.iter().flat_map(|l| self.reader().item(&l.item, &env).all()).collect();
                self.around.extend(read);
            }
            self.lines(body, &env, &at);
        }
        self.around.truncate(mark);
    }

    fn lines(&mut self, body: &'c Body, env: &Env<'_, 'c>, at: &At) {
        for line in &body.lines {
            self.line(line, env, at);
        }
    }

    fn line(&mut self, line: &'c BodyLine, env: &Env<'_, 'c>, at: &At) {
        let before = self.spot.clone();
        if self.within == 0 {
            self.spot = Some(Spot { line: Arc::clone(&line.line), column: line.column });
        }
        self.item(&line.item, env, &at.step(line.name));
        self.spot = before;
    }

    fn item(&mut self, item: &'c Item, env: &Env<'_, 'c>, at: &At) {
        match item {
            Item::Nothing => {}
            Item::Constant(own, node) => self.constant(node, &at.branch(own), &Places::new()),
            Item::X(x) => self.emit(x, env, at),
            Item::Body(own, body) => self.body(body, env.clone(), &at.branch(own), Form::Element),
            Item::List(items) => items.iter().for_each(|i| self.item(i, env, at)),
            Item::Extension(url, inner) => self.item(inner, env, &at.parent().extension(url).step("value")),
        }
    }

    fn constant(&mut self, node: &Node, at: &At, asked: &Places) {
        match node {
            Node::Object(elements) => elements.iter().for_each(|(name, node)| self.constant(node, &at.step(name), asked)),
            Node::List(nodes) => nodes.iter().for_each(|node| self.constant(node, at, asked)),
            Node::Text(text) | Node::Number(text) => self.fact(at.clone(), Places::new(), asked.clone(), Some(text.clone()), false),
            Node::Bool(b) => self.fact(at.clone(), Places::new(), asked.clone(), Some(b.to_string()), false),
            Node::Shared(_) | Node::Link(_) | Node::Null => {}
        }
    }

    fn fact(&mut self, at: At, places: Places, asked: Places, constant: Option<String>, refers: bool) {
        let Some(spot) = self.spot.clone() else { return };
        let mut asked = asked;
        asked.extend(self.around.iter().cloned());
        // The types tell branches of a choice apart, which have one name.
        let key = format!("{at} {:?} {places:?} {asked:?} {constant:?} {refers} {spot}", at.types);
        if self.seen.insert(key) {
            self.facts.push(Fact { at, places, asked, constant, refers, spot, route: self.id, source: self.source.clone(), whole: self.whole });
        }
    }

    fn emit(&mut self, x: &'c X, env: &Env<'_, 'c>, at: &At) {
        match x {
            X::Nothing | X::Null => {}
            X::Convert(inner, conversion) => {
                let mut value = self.reader().eval(inner, env);
                let at = at.branch(conversion.name);
                let before = self.spot.clone();
                // The entry of a list, or a map that is a value and has no lines.
                if self.within == 0 {
                    self.spot = Some(Spot { line: Arc::clone(&conversion.line), column: 1 });
                }
                let constants = std::mem::take(&mut value.constants);
                constants.iter().for_each(|node| self.constant(node, &at, &value.asked));
                match (&conversion.join, inner.named()) {
                    // Already what is wanted: a value or reference that the caller gives, or `$let`.
                    (Join::Same, inner @ (X::Argument(_) | X::Body(..) | X::Else(..) | X::Resource { .. })) => self.emit(inner, env, &at),
                    _ if value.places.is_empty() && !constants.is_empty() => {}
                    _ => self.convert(value, conversion, env, &at),
                }
                self.spot = before;
            }
            X::If(condition, a, b) => {
                let mark = self.around.len();
                let asked = self.reader().eval(condition, env);
                self.around.extend(asked.all());
                self.emit(a, env, at);
                self.emit(b, env, at);
                self.around.truncate(mark);
            }
            X::Else(a, b) => {
                self.emit(a, env, at);
                let mark = self.around.len();
                let asked = self.reader().eval(a, env);
                self.around.extend(asked.all());
                self.emit(b, env, at);
                self.around.truncate(mark);
            }
            X::Node(own, node) => self.constant(node, &at.branch(own), &Places::new()),
            X::Body(body, own) => self.body(body, env.clone(), &at.branch(own), Form::Element),
            X::Argument(n) => {
                if let (Some(caller), Some(argument)) = (env.caller, env.arguments.get(*n)) {
                    self.emit(argument, caller, at);
                }
            }
            X::Where(inner, ..) => self.emit(inner, env, at),
            X::Let(named) => self.emit(&named.x, env, at),
            X::Call(Function::First | Function::Last | Function::Distinct, arguments) => {
                arguments.iter().for_each(|a| self.emit(a, env, at));
            }
            X::Resource { index, .. } => {
                let Some(resource) = self.routed.and_then(|r| r.resources.get(*index)) else { return };
                let mut places = Places::new();
                if let Some((each, _)) = &resource.each {
                    places.extend(self.reader().eval(each, &Env { slots: Vec::new(), arguments: &[], caller: None }).places);
                }
                for (_, map) in &resource.maps {
                    places.extend(self.code.maps.get(*map).map(|m| source(&m.head).to_owned()));
                }
                self.fact(at.resource(resource.resource_type), places, Places::new(), None, true);
            }
            other => {
                let value = self.reader().eval(other, env);
                self.leaf(at.clone(), value);
            }
        }
    }

    fn leaf(&mut self, at: At, value: Sym) {
        for node in &value.constants {
            self.constant(node, &at, &value.asked);
        }
        if !value.places.is_empty() {
            self.fact(at, value.places, value.asked, None, false);
        }
    }

    fn convert(&mut self, value: Sym, conversion: &'c Conversion, env: &Env<'_, 'c>, at: &At) {
        let mark = self.around.len();
        self.around.extend(value.asked.iter().cloned());
        self.join(value, &conversion.join, env, at);
        self.around.truncate(mark);
    }

    fn join(&mut self, value: Sym, join: &'c Join, env: &Env<'_, 'c>, at: &At) {
        match join {
            Join::Map { map, arguments, coded } => {
                if let Some(coded) = coded {
                    let base = if coded.coding { at.clone() } else { at.step("coding") };
                    self.table_system(coded.table.as_ref().map(|t| t.id), &base, &value);
                }
                self.call(*map, value, arguments, env, at, None);
            }
            Join::Reference { map, arguments, resource } => self.call(*map, value, arguments, env, at, Some(resource)),
            Join::Varies(joins) => {
                let mut kinds: Vec<_> = joins.iter().collect();
                kinds.sort_by_key(|(name, _)| **name);
                for (kind, (join, name)) in kinds {
                    // A field of varying type has the components of each: OBX-5.3 is ED.3, too.
                    let mut value = value.clone();
                    value.places.insert((*kind).to_string());
                    self.join(value, join, env, &at.branch(name));
                }
            }
            Join::Concept { coding, table, .. } => {
                let base = if *coding { at.clone() } else { at.step("coding") };
                self.table_system(table.as_ref().map(|t| t.id), &base, &value);
                for part in ["code", "system", "display"] {
                    self.fact(base.step(part), value.places.clone(), value.asked.clone(), None, false);
                }
                if !*coding {
                    self.fact(at.step("text"), value.places.clone(), value.asked.clone(), None, false);
                }
            }
            // A name, or a universal id with its type; of an entity, they stand behind its own.
            Join::System { entity, .. } => {
                let first = if *entity { 2 } else { 1 };
                let mut places = value.places.clone();
                places.extend(value.places.iter().flat_map(|p| (first..first + 3).map(move |n| format!("{p}.{n}"))));
                self.whole = true;
                self.fact(at.clone(), places, value.asked, None, false);
                self.whole = false;
            }
            Join::Duration => {
                for part in ["value", "unit", "system", "code"] {
                    self.fact(at.step(part), value.places.clone(), value.asked.clone(), None, false);
                }
            }
            // Without places it is made of the whole message, or of the moment.
            _ => self.fact(at.clone(), value.places, value.asked, None, false),
        }
    }

    /// The field's own v2 table is the system of a code that comes without one.
    fn table_system(&mut self, table: Option<&str>, coding: &At, value: &Sym) {
        if let Some(table) = table {
            let mut asked = value.asked.clone();
            asked.extend(value.places.iter().cloned());
            self.fact(coding.step("system"), Places::new(), asked, Some(table_system(table)), false);
        }
    }

    fn call(&mut self, n: usize, value: Sym, arguments: &'c [X], env: &Env<'_, 'c>, at: &At, resource: Option<&'static str>) {
        let Some(map) = self.code.maps.get(n) else { return };
        self.reached.insert(n);
        if self.calls.len() >= DEPTH_MAX || self.calls.iter().filter(|c| **c == n).count() > 1 {
            return;
        }
        let mut inner = Env { slots: Vec::new(), arguments, caller: Some(env) };
        let mark = self.around.len();
        self.around.extend(value.places.iter().cloned());
        let of_segment = value.places.iter().all(|p| !p.contains(['-', '.']) && p.len() == 3 && hl7v2::newest_segment(p).is_some());
        self.within += usize::from(!of_segment);
        inner.set(0, value.places);
        self.calls.push(n);
        let form = match resource {
            Some(resource) => Form::Resource(resource),
            None if map.choice => Form::Choice,
            None => Form::Element,
        };
        self.body(&map.body, inner, at, form);
        self.calls.pop();
        self.within -= usize::from(!of_segment);
        self.around.truncate(mark);
    }
}

/// What a body's lines are the elements of.
#[derive(Clone, Copy)]
enum Form {
    /// Of the element.
    Element,
    /// Of what has the element: they are branches of a choice.
    Choice,
    /// Of the resource that the element refers to.
    Resource(&'static str),
}

/// An extension's place has its URL.
fn element(at: &At, body: &Body) -> At {
    let url = body.url.or_else(|| {
        body.lines.iter().find_map(|l| match &l.item {
            Item::Constant("url", Node::Text(url)) => Some(url.as_str()),
            _ => None,
        })
    });
    match (at.last(), url) {
        ("extension" | "modifierExtension", Some(url)) => at.parent().extension(url),
        _ => at.clone(),
    }
}

/// `PID` of `PID -> Patient`.
fn source(head: &str) -> &str {
    head.split(" -> ").next().unwrap_or(head)
}
