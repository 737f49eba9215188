//! Routes: which messages, which resources, how they are saved.

use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::fhir::{self, Kind, ListMerge, SaveMode, Type};
use crate::hl7v2;
use crate::route::code::{Body, Map, Missing, On, Resource, Route, SaveX, Shared, X};
use crate::route::compile::scope::{Entry, Named, Scope};
use crate::route::compile::{Compiler, Wanted};
use crate::route::names::intern;
use crate::route::program::{AfterDeadLetter, RouteInfo, Send};
use crate::route::tree::{self, ExprKind, Key, RouteDoc, Target, Verb};
use crate::route::types::Ty;
use std::collections::HashSet;
use std::sync::Arc;

impl<'a> Compiler<'a> {
    /// The structures that the routes' messages may have, in every version: scope and cardinality are judged by these.
    pub(crate) fn collect_structures(&mut self) {
        let mut seen = HashSet::new();
        let all: Vec<&str> = self.route_docs.iter().flat_map(|d| d.on.iter().map(|k| k.text.as_str())).filter(|on| seen.insert(*on)).collect();
        self.structures = structures(&all);
    }

    pub(crate) fn compile_routes(&mut self, maps: &[Map]) -> (Vec<Route>, Vec<RouteInfo>) {
        let mut routes = Vec::new();
        let mut infos: Vec<RouteInfo> = Vec::new();
        let mut names = HashSet::new();
        let mut docs = Vec::new();
        for doc in self.route_docs.clone() {
            if !names.insert(&doc.name.text) {
                self.report(
                    Diagnostic::error("K702", doc.name.span, format!("there are two routes {}", doc.name.text))
                        .label("the second")
                        .help("`extend:` changes a route"),
                );
                continue;
            }
            // A route's own lines are judged by its own messages.
            let on: Vec<&str> = doc.on.iter().map(|k| k.text.as_str()).collect();
            let all = std::mem::replace(&mut self.structures, structures(&on));
            self.many.clear();
            let before = self.diagnostics.len();
            self.name_types(doc);
            let route = self.route(doc, maps);
            self.v2.named.clear();
            if self.foreign.contains(&doc.name.text) {
                self.diagnostics.truncate(before);
            }
            self.structures = all;
            infos.push(RouteInfo {
                name: Arc::from(doc.name.text.as_str()),
                targets: doc.to.iter().map(|t| Arc::from(t.text.as_str())).collect(),
                messages: doc.message.is_some(),
                send: route.send,
                retry_for_seconds: self.retry_for(doc),
                after_dead_letter: route.after_dead_letter,
            });
            routes.push(route);
            docs.push(doc);
        }
        self.check_rivals(&docs, &routes);
        (routes, infos)
    }

    fn route(&mut self, doc: &'a RouteDoc, maps: &[Map]) -> Route {
        self.check_names(doc);
        let on = doc.on.iter().filter_map(|key| self.on(key)).collect();
        if doc.on.is_empty() {
            self.report(
                Diagnostic::error("K610", doc.name.span, format!("route {} takes no messages", doc.name.text))
                    .label("no `on`")
                    .help("add `on: ADT^A01`, a list, or `otherwise`"),
            );
        }
        let mut message = self.route_scope(doc);
        let when = doc.when.as_ref().map(|w| self.condition(&mut message, w).x);
        for order in &doc.order_by {
            self.raw(&mut message, order);
        }
        let resources: Vec<Named> = doc
            .resources
            .iter()
            .map(|(name, body)| Named {
                name: name.text.clone(),
                ty: self.resource_type(body).map_or("", |t| t.name()),
                segment: base_segment(body).filter(|s| self.v2.is_segment(s)).map(intern),
            })
            .collect();
        let mut compiled = Vec::new();
        for (name, body) in &doc.resources {
            if let Some(resource) = self.route_resource(name, body, &resources, maps) {
                compiled.push(resource);
            }
        }
        let scope = self.questions(doc, message);
        let refused = self.not_yet(doc);
        let made = doc.message.as_ref().and_then(|body| {
            self.check_message_route(doc, body.span);
            self.message(doc, body, scope)
        });
        if doc.resources.is_empty() && doc.message.is_none() && !self.is_faulty(doc.name.span) {
            self.report(Diagnostic::error("K611", doc.name.span, format!("route {} makes nothing", doc.name.text)).label("no `resources`"));
        }
        Route {
            on,
            from: doc.from.iter().map(|k| k.text.clone()).collect(),
            when,
            resources: compiled,
            message: made,
            refused,
            shared: doc.shared.iter().filter_map(|(ty, save)| self.shared(ty, save)).collect(),
            refuse_invalid: self.word(doc.invalid.as_ref(), &["report", "refuse"]) == Some(1),
            send: match self.word(doc.send.as_ref(), &["transaction", "batch", "single"]) {
                Some(1) => Send::Batch,
                Some(2) => Send::Single,
                _ => Send::Transaction,
            },
            after_dead_letter: match self.word(doc.after_dead_letter.as_ref(), &["wait", "go-on"]) {
                Some(0) => AfterDeadLetter::Wait,
                Some(_) => AfterDeadLetter::GoOn,
                None if doc.resources.iter().any(|(_, b)| b.save.as_ref().is_some_and(|s| s.verb == Verb::Delete)) => AfterDeadLetter::Wait,
                None if doc.on.iter().any(|k| changes_identity(&k.text)) => AfterDeadLetter::Wait,
                None => AfterDeadLetter::GoOn,
            },
        }
    }

    fn check_names(&mut self, doc: &RouteDoc) {
        let listeners = self.options.listeners.clone();
        let targets = self.options.targets.clone();
        for (keys, known, what) in [(&doc.from, listeners, "listener"), (&doc.to, targets, "target")] {
            for key in keys {
                if !known.is_empty() && !known.contains(&key.text) {
                    let help = crate::diagnostic::suggest(&key.text, known.iter().map(String::as_str))
                        .map_or_else(|| format!("the site has: {}", known.join(", ")), |n| format!("did you mean {n}?"));
                    self.report(Diagnostic::error("K701", key.span, format!("there is no {what} {}", key.text)).label(format!("unknown {what}")).help(help));
                }
            }
        }
        // An answer goes back to where the question came from.
        if doc.to.is_empty() && doc.reply.is_none() {
            self.report(
                Diagnostic::error("K701", doc.name.span, format!("route {} names no target", doc.name.text))
                    .label("no `to`")
                    .help("add `to:` with a target of the site"),
            );
        }
    }

    fn on(&mut self, key: &Key) -> Option<On> {
        if key.text == "otherwise" {
            return Some(On::Otherwise);
        }
        if let Some(ty) = fhir::type_named(&key.text).filter(|t| t.kind() == Kind::Resource) {
            return Some(On::Resource(ty.name()));
        }
        let (code, event, structure) = parts(&key.text);
        let known = |name: &str| hl7v2::Version::ALL.iter().rev().any(|v| hl7v2::events(*v).any(|(e, _)| e == name || e.split('^').next() == Some(name)));
        let name = match event {
            Some(event) if event != "*" => format!("{code}^{event}"),
            _ => code.to_owned(),
        };
        if !known(&name) && !code.starts_with('Z') && !event.is_some_and(|e| e.starts_with('Z')) {
            let events: Vec<&'static str> = hl7v2::Version::ALL.iter().flat_map(|v| hl7v2::events(*v).map(|(e, _)| e)).collect();
            let help = crate::diagnostic::suggest(&name, events.iter().copied())
                .map_or_else(|| "write it as MSH-9 has it: ADT^A01, ADT^*, ORU^R01^ORU_R01".to_owned(), |n| format!("did you mean {n}?"));
            self.report(
                Diagnostic::error("K210", key.span, format!("no version of HL7 v2 has the message {}", key.text)).label("unknown message type").help(help),
            );
            return None;
        }
        Some(On::Event { code: code.to_owned(), event: event.filter(|e| *e != "*").map(str::to_owned), structure: structure.map(str::to_owned) })
    }

    /// `7d` as seconds.
    fn retry_for(&mut self, doc: &RouteDoc) -> Option<u64> {
        let (_, value) = doc.retry.iter().find(|(k, _)| k.text == "for")?;
        let digits = value.text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = value.text.split_at(digits);
        let factor = match unit {
            "s" => Some(1),
            "m" | "min" => Some(60),
            "h" => Some(3600),
            "d" => Some(86400),
            _ => None,
        };
        let seconds = factor.and_then(|f: u64| number.parse::<u64>().ok()?.checked_mul(f));
        if seconds.is_none() {
            self.report(
                Diagnostic::error("K612", value.span, format!("{} is no length of time", value.text))
                    .label("a number and a unit")
                    .help("such as 30s, 15m, 12h or 7d"),
            );
        }
        seconds
    }

    fn word(&mut self, key: Option<&Key>, words: &[&str]) -> Option<usize> {
        let key = key?;
        let found = words.iter().position(|w| *w == key.text);
        if found.is_none() {
            let help = crate::diagnostic::suggest(&key.text, words.iter().copied())
                .map_or_else(|| format!("one of: {}", words.join(", ")), |w| format!("did you mean {w}?"));
            self.report(Diagnostic::error("K613", key.span, format!("{} is not possible here", key.text)).label("unknown word").help(help));
        }
        found
    }

    fn shared(&mut self, ty: &Key, save: &tree::Save) -> Option<(&'static str, Shared)> {
        let Some(found) = fhir::type_named(&ty.text).filter(|t| t.kind() == Kind::Resource) else {
            let names: Vec<&str> = fhir::types().filter(|t| t.kind() == Kind::Resource).map(|t| t.name()).collect();
            let help = crate::diagnostic::suggest(&ty.text, names.iter().copied()).map_or_else(String::new, |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K302", ty.span, format!("FHIR R4 has no resource {}", ty.text)).label("unknown resource").help(help));
            return None;
        };
        let how = match save.verb {
            Verb::Contained => Shared::Contained,
            Verb::Logical => Shared::Logical,
            verb => {
                let by_identifier = matches!(save.by.as_slice(), [tree::Expr { kind: ExprKind::Name(name, _), .. }] if name == "identifier");
                if !by_identifier {
                    self.report(
                        Diagnostic::error("K602", save.span, "a shared resource is identified by its own identifiers")
                            .label("only `by identifier` is possible here")
                            .help("write `create by identifier`, `find by identifier`, `contained` or `logical`"),
                    );
                }
                Shared::Save(mode(verb, true))
            }
        };
        Some((found.name(), how))
    }

    /// The type that a resource's first map makes, or that its `$search`... names.
    fn resource_type(&self, body: &tree::Body) -> Option<Type> {
        body.maps.first().and_then(|(_, target)| fhir::type_named(&target.name))
    }

    fn route_resource(&mut self, name: &'a Key, body: &'a tree::Body, resources: &[Named], maps: &[Map]) -> Option<Resource> {
        let Some((source, target)) = body.maps.first() else {
            self.report(
                Diagnostic::error("K614", name.span, format!("{} does not say what it is made from", name.text))
                    .label("no `$map`")
                    .help("add `$map: PID -> Patient`, for example"),
            );
            return None;
        };
        let ty = self.resource_type(body).filter(|t| t.kind() == Kind::Resource);
        let Some(ty) = ty else {
            let names = fhir::types().filter(|t| t.kind() == Kind::Resource).map(|t| t.name());
            let help = suggest(&target.name, names).map_or_else(|| "write a resource, such as Patient".to_owned(), |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K302", target.span, format!("{} is no resource of FHIR R4", target.name)).label("must make a resource").help(help));
            return None;
        };
        let own = resources.iter().position(|r| r.name == name.text);
        let mut scope = Scope { resources: resources.to_vec(), own, ..Scope::default() };
        let each = match &body.each {
            Some(each) => {
                let (values, by, _) = self.each(&mut scope, each);
                Some((values, by))
            }
            None => {
                let values = self.segment_value(&mut scope, source, source.span)?;
                let segment = intern(&source.text);
                scope.push(Entry::one(Ty::Segment(segment), None, Some(segment)));
                Some((values, None))
            }
        };
        let reach = scope.entries.len();
        scope.lets.extend(body.lets.iter().map(|(name, item)| crate::route::compile::scope::Let { name, item, entries: reach }));

        let mut used = Vec::new();
        for (n, (source, target)) in body.maps.iter().enumerate() {
            let Some(map) = self.find_map(source, target) else { continue };
            if self.maps[map].ty != ty {
                self.report(
                    Diagnostic::error("K615", target.span, format!("{} makes {}, not {}", self.map_name(map), self.maps[map].ty.name(), ty.name()))
                        .label("another resource"),
                );
                continue;
            }
            let from = if n == 0 && body.each.is_none() { None } else { self.segment_value(&mut scope, source, source.span) };
            self.called.push(map);
            used.push((from, map));
        }
        self.check_twice(&used, maps, body);
        let when = body.when.as_ref().map(|w| self.condition(&mut scope, w).x);
        let compiled = self.resource_lines(&mut scope, body, ty, maps, &used);
        let bodies: Vec<&Body> = used.iter().filter_map(|(_, m)| maps.get(*m)).map(|m| &m.body).chain(std::iter::once(&compiled)).collect();
        let made_by = used.first().and_then(|(_, m)| self.maps.get(*m)).map(|m| m.span).filter(|_| used.len() == body.maps.len());
        let save = match &body.save {
            Some(save) => self.save(&mut scope, save, body.missing.as_ref(), &body.merge, body.initial.as_deref(), ty.name(), &bodies, made_by),
            None if body.save_refused => return None,
            None => {
                self.report(
                    Diagnostic::error("K601", name.span, format!("{} does not say how it is saved", name.text))
                        .label("no `$save`")
                        .help("add `$save: update by ...`, `create by ...`, `merge by ...` or `put by ...`"),
                );
                return None;
            }
        };
        Some(Resource { name: Arc::from(name.text.as_str()), resource_type: ty.name(), each, when, maps: used, body: compiled, save })
    }

    /// The route's own lines, then what FHIR requires of all maps and lines together.
    fn resource_lines(&mut self, scope: &mut Scope<'a>, body: &'a tree::Body, ty: Type, maps: &[Map], used: &[(Option<X>, usize)]) -> Body {
        let mut compiled = self.resource_body(scope, body, ty);
        let mut union = Body::default();
        for (_, map) in used {
            if let Some(map) = maps.get(*map) {
                union.required.extend(map.body.required.iter().map(copy_required));
                if map.body.from.is_some() || map.body.value.is_some() || !map.body.first.is_empty() {
                    return compiled;
                }
            }
        }
        let own: Vec<_> = compiled.required.iter().map(copy_required).collect();
        for required in own {
            union.required.retain(|r| r.element != required.element);
            union.required.push(required);
        }
        if let Some(initial) = &body.initial {
            for line in &initial.lines {
                if let Some(element) = ty.element(&line.element.text).or_else(|| ty.property(&line.element.text).map(|(e, _)| e))
                    && !union.required.iter().any(|r| r.element == element.name())
                {
                    union.required.push(crate::route::code::Required {
                        element: element.name(),
                        names: vec![intern(&line.element.text)],
                        places: Vec::new(),
                        line: self.line(line.element.span),
                    });
                }
            }
        }
        let heads = used.iter().filter_map(|(_, m)| self.maps.get(*m).map(|head| (*m, head.span)));
        let replacing = self.blamed(body.span, heads.clone().map(|(_, span)| span));
        let replacing = heads.clone().find(|(_, span)| replacing == Some(*span)).map(|(m, span)| (span, self.map_name(m)));
        self.check_required(&mut union, ty, ty.name(), body.span, replacing.as_ref());
        compiled.required = union.required;
        compiled
    }

    /// K310: two maps that set one single element.
    fn check_twice(&mut self, used: &[(Option<X>, usize)], maps: &[Map], body: &tree::Body) {
        let mut seen: Vec<(&'static str, usize)> = Vec::new();
        let mut faults = Vec::new();
        for (n, (_, map)) in used.iter().enumerate() {
            let Some(compiled) = maps.get(*map) else { continue };
            for line in compiled.body.lines.iter().filter(|l| !l.list) {
                match seen.iter().find(|(name, _)| *name == line.name) {
                    Some((_, other)) if other != map && !body.lines.iter().any(|l| l.element.text == line.name) => faults.push((n, line.name, *other)),
                    _ => seen.push((line.name, *map)),
                }
            }
        }
        for (n, element, other) in faults {
            let span = body.maps.get(n).map_or(body.span, |(_, t)| t.span);
            let other = self.map_name(other);
            self.report(
                Diagnostic::error("K310", span, format!("{element} is set by two maps"))
                    .label("the second")
                    .help(format!("the first is {other}; a line `{element}:` here decides")),
            );
        }
    }

    /// A path that yields the segments of that name from here.
    fn segment_value(&mut self, scope: &mut Scope<'a>, source: &'a Key, span: Span) -> Option<X> {
        if !self.v2.is_segment(&source.text) {
            let help = self.suggest_source(&source.text);
            self.report(Diagnostic::error("K202", source.span, format!("there is no segment {}", source.text)).label("unknown segment").help(help));
            return None;
        }
        Some(self.segment_path(scope, false, &[], source, None, None, &[], span).x)
    }

    fn find_map(&mut self, source: &Key, target: &Target) -> Option<usize> {
        let found = self.maps_to_target(target).find(|(_, m)| m.source == source.text && m.target.element == target.element).map(|(n, _)| n);
        if found.is_none() {
            let there: Vec<String> = (0..self.maps.len()).filter(|n| self.maps[*n].source == source.text).map(|n| self.map_name(n)).collect();
            let help =
                if there.is_empty() { format!("add `map: {} -> {}`", source.text, target.written()) } else { format!("there are: {}", there.join(", ")) };
            self.report(
                Diagnostic::error("K401", target.span, format!("there is no map {} -> {}", source.text, target.written())).label("unknown map").help(help),
            );
        }
        found
    }

    /// `$save` with everything that belongs to it.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn save(
        &mut self,
        scope: &mut Scope<'a>,
        save: &'a tree::Save,
        missing: Option<&'a Key>,
        merge: &'a [(Key, Key)],
        initial: Option<&'a tree::Body>,
        resource: &'static str,
        bodies: &[&Body],
        made_by: Option<Span>,
    ) -> SaveX {
        let line = self.line(save.span);
        let shared = match save.verb {
            Verb::Contained => Some(Shared::Contained),
            Verb::Logical => Some(Shared::Logical),
            _ => None,
        };
        if save.verb == Verb::Patch {
            self.report(
                Diagnostic::error("K121", save.span, "`patch by` cannot run yet")
                    .label("a later version of Kiln patches")
                    .help("use `merge by`, which changes only what the route maps"),
            );
        }
        if save.by.is_empty() && !matches!(save.verb, Verb::Create | Verb::Contained | Verb::Logical) {
            self.report(
                Diagnostic::error("K601", save.span, "nothing says what makes this resource the same one next time")
                    .label("no `by`")
                    .help("write `by` and an identifier, such as `by PID-3`"),
            );
        }
        let ty = fhir::type_named(resource);
        let has_identifier = ty.is_some_and(|t| t.element("identifier").is_some());
        let mut by = Vec::new();
        let mut derived = false;
        let mut places = Vec::new();
        if let Some(identifier) = fhir::type_named("Identifier") {
            let wanted = Wanted { name: "identifier", path: "Identifier".to_owned(), ..Wanted::bare(identifier) };
            for expr in &save.by {
                // `X ?? derived()`: what has no identity of its own gets one, as with `$missing: derive`.
                let expr = match &expr.kind {
                    ExprKind::Else(first, last) if is_derived(last) => {
                        derived = true;
                        first
                    }
                    _ => expr,
                };
                if let ExprKind::Else(..) = expr.kind {
                    self.report(
                        Diagnostic::warning("K605", expr.span, "an identity that falls back changes when the first value comes or goes")
                            .label("the same thing may be found under another identity next time")
                            .help("write a list for all of them, `by [a, b]`, or `first(a ?? b)` if that is what you mean"),
                    );
                }
                match &expr.kind {
                    _ if is_derived(expr) => derived = true,
                    ExprKind::Name(name, _) if name == "identifier" => {
                        if !has_identifier {
                            self.report(Diagnostic::error("K602", expr.span, format!("{resource} has no identifier")).label("no such element"));
                        }
                        if self.current_map.is_none() {
                            self.check_kinds(bodies, resource, expr.span);
                        }
                        by.push(X::Nothing);
                    }
                    _ => {
                        let compiled = self.wanted(scope, expr, &wanted);
                        if let Some(made_by) = made_by.filter(|_| has_identifier) {
                            self.check_stored(&compiled.places, bodies, resource, expr.span, made_by);
                        }
                        self.check_system(&compiled.x, expr.span);
                        places.extend(compiled.places);
                        by.push(compiled.x);
                    }
                }
            }
        }
        let initial = initial.zip(ty).map(|(body, ty)| self.resource_body(scope, body, ty));
        let merge = merge.iter().filter_map(|(element, how)| self.list_merge(element, how, ty)).collect();
        SaveX {
            mode: mode(save.verb, !save.by.is_empty()),
            shared,
            by,
            derived,
            missing: match self.word(missing, &["refuse", "skip", "derive"]) {
                Some(1) => Missing::Skip,
                Some(2) => Missing::Derive,
                _ => Missing::Refuse,
            },
            merge,
            initial,
            places,
            line,
        }
    }

    /// K602: the identity must be among the identifiers that the resource gets. `made_by` is the head of the map that makes it.
    fn check_stored(&mut self, places: &[String], bodies: &[&Body], resource: &str, span: Span, made_by: Span) {
        let field = |place: &str| place.split(['.', '[']).next().unwrap_or(place).to_owned();
        let stored = bodies.iter().flat_map(|b| &b.lines).any(|l| l.name == "identifier");
        let kept: Vec<String> = bodies.iter().flat_map(|b| &b.places).map(|p| field(p)).collect();
        let mut missing: Vec<String> = places.iter().filter(|p| p.contains('-')).map(|p| field(p)).filter(|f| !kept.contains(f)).collect();
        missing.dedup();
        if stored && missing.is_empty() {
            return;
        }
        let what = if missing.is_empty() { "the identity".to_owned() } else { missing.join(", ") };
        let line = match missing.as_slice() {
            [one] => format!("identifier+: {one}"),
            several => format!("identifier+: [{}]", several.join(", ")),
        };
        let are = if missing.len() > 1 { "are" } else { "is" };
        if self.blamed(span, std::iter::once(made_by)).is_none() {
            self.report(
                Diagnostic::error("K602", span, format!("{what} {are} not among the identifiers of this {resource}"))
                    .label("could never be found again")
                    .help(format!("add a line `{line}`")),
            );
        } else if !self.is_faulty(made_by) {
            // One fault, in the file that somebody here wrote, for all shipped routes that use the map; and only if it has no nearer one.
            let head = self.maps.iter().position(|m| m.span == made_by).map_or_else(String::new, |m| self.map_name(m));
            self.report(
                Diagnostic::error("K602", made_by, format!("{what} {are} not among the identifiers that this map makes"))
                    .label(format!("replaces the shipped map, and the shipped routes find the {resource} by {what}"))
                    .help(format!(
                        "add a line `{line}`; or begin with `extend: {head}` and change only some lines; or name it `{head}-Mine` and use it in a route of your own"
                    )),
            );
        }
    }

    fn list_merge(&mut self, element: &Key, how: &Key, ty: Option<Type>) -> Option<(&'static str, ListMerge)> {
        let found = ty.and_then(|t| t.element(&element.text));
        let Some(found) = found.filter(|e| e.is_list()) else {
            let help = ty.map_or_else(String::new, |t| self.suggest_element(t, &element.text));
            self.report(Diagnostic::error("K606", element.span, format!("{} is no list element", element.text)).label("only lists merge").help(help));
            return None;
        };
        let how = match how.text.split_once("by ") {
            _ if how.text == "union" => ListMerge::Union,
            _ if how.text == "replace" => ListMerge::Replace,
            Some(("", inner)) => {
                let inner_ty = found.types().next();
                let Some(by) = inner_ty.and_then(|t| t.element(inner.trim())) else {
                    let help = inner_ty.map_or_else(String::new, |t| self.suggest_element(t, inner.trim()));
                    self.report(Diagnostic::error("K606", how.span, format!("{} has no element {inner}", element.text)).label("by what?").help(help));
                    return None;
                };
                ListMerge::By(by.name())
            }
            _ => {
                self.report(Diagnostic::error("K606", how.span, format!("{} is no way to merge a list", how.text)).label("union, replace, or by ELEMENT"));
                return None;
            }
        };
        Some((found.name(), how))
    }
}

fn is_derived(expr: &tree::Expr) -> bool {
    matches!(&expr.kind, ExprKind::Call(name, _) if name.text == "derived")
}

fn mode(verb: Verb, by: bool) -> SaveMode {
    match verb {
        Verb::Create if by => SaveMode::CreateIfNone,
        Verb::Create | Verb::Contained | Verb::Logical => SaveMode::Create,
        Verb::Update => SaveMode::Update,
        Verb::Merge | Verb::Patch => SaveMode::Merge,
        Verb::Put => SaveMode::Put,
        Verb::Find => SaveMode::Find,
        Verb::Delete => SaveMode::Delete,
    }
}

/// The structures that messages of these kinds have, over all versions.
pub(crate) fn structures(kinds: &[&str]) -> Vec<hl7v2::Structure> {
    let mut structures: Vec<hl7v2::Structure> = Vec::new();
    for kind in kinds {
        let (code, event, structure) = parts(kind);
        for version in hl7v2::Version::ALL {
            let mut add = |id: &str| {
                if let Some(found) = hl7v2::structure(version, id)
                    && !structures.contains(&found)
                {
                    structures.push(found);
                }
            };
            match (event, structure) {
                (_, Some(id)) => add(id),
                (Some("*") | None, None) => {
                    let prefix = format!("{code}^");
                    hl7v2::events(version).filter(|(name, _)| name.starts_with(&prefix)).for_each(|(_, id)| add(id));
                }
                (Some(event), None) => {
                    if let Some(id) = hl7v2::event_structure(version, &format!("{code}^{event}")) {
                        add(id);
                    }
                }
            }
        }
    }
    structures
}

/// The segment that a resource is made one per.
fn base_segment(body: &tree::Body) -> Option<&str> {
    let Some(each) = &body.each else { return body.maps.first().map(|(source, _)| source.text.as_str()) };
    let mut expr = &each.values;
    loop {
        match &expr.kind {
            ExprKind::Segment { segment, .. } => return Some(&segment.text),
            ExprKind::Where(inner, _) | ExprKind::Tail(inner, _) => expr = inner,
            ExprKind::Call(_, arguments) => expr = arguments.first()?,
            _ => return None,
        }
    }
}

/// `ORU^R01^ORU_R01` in parts.
fn parts(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let mut parts = text.split('^');
    (parts.next().unwrap_or(""), parts.next(), parts.next())
}

/// Merge, link, cancel, delete, change of identifiers.
fn changes_identity(on: &str) -> bool {
    let event = on.split('^').nth(1).unwrap_or("");
    matches!(
        event,
        "A11"
            | "A12"
            | "A13"
            | "A18"
            | "A23"
            | "A24"
            | "A27"
            | "A29"
            | "A30"
            | "A34"
            | "A35"
            | "A36"
            | "A37"
            | "A39"
            | "A40"
            | "A41"
            | "A42"
            | "A43"
            | "A44"
            | "A45"
            | "A46"
            | "A47"
            | "A48"
            | "A49"
            | "A50"
            | "A51"
            | "S15"
            | "S17"
    )
}

fn copy_required(r: &crate::route::code::Required) -> crate::route::code::Required {
    crate::route::code::Required { element: r.element, names: r.names.clone(), places: r.places.clone(), line: r.line.clone() }
}
