//! What surrounds a route's message: `ask`, `reply`, `types`, FHIR in `on`, and targets that take messages.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, Kind, SEARCH_PREFIXES, SearchParameter, Type, search_parameter, search_parameters};
use crate::route::compile::Compiler;
use crate::route::compile::scope::{Entry, Let, Scope};
use crate::route::names::intern;
use crate::route::tree::{Body, Item, Key, RouteDoc};
use crate::route::types::Ty;

impl<'a> Compiler<'a> {
    /// `types: {QPD-3: QIP}`: what fields of varying type are in this route.
    pub(crate) fn name_types(&mut self, doc: &'a RouteDoc) {
        self.v2.named.clear();
        for (field, datatype) in &doc.types {
            if !self.v2.is_datatype(&datatype.text) {
                let help = crate::diagnostic::suggest(&datatype.text, crate::hl7v2::datatype_ids())
                    .map_or_else(|| "declare a site's own with `datatype:`".to_owned(), |n| format!("did you mean {n}?"));
                self.report(Diagnostic::error("K302", datatype.span, format!("there is no data type {}", datatype.text)).label("unknown type").help(help));
                continue;
            }
            let place = field.text.split_once('-').and_then(|(segment, n)| Some((segment.to_owned(), n.parse::<u16>().ok()?)));
            let Some((segment, n)) = place else {
                self.report(Diagnostic::error("K213", field.span, format!("{} is no field", field.text)).label("a field").help("write it as QPD-3 or OBX-5"));
                continue;
            };
            match self.v2.field(&segment, n) {
                Some(facts) if facts.datatype == "varies" => drop(self.v2.named.insert((segment, n), intern(&datatype.text))),
                Some(facts) => self.report(
                    Diagnostic::error("K401", field.span, format!("{} is a {}", field.text, facts.datatype)).label("only fields whose type varies are named"),
                ),
                None if self.v2.is_segment(&segment) => self.unknown_field(intern(&segment), n, field.span),
                None => self.unknown_segment(&Key { text: segment, span: field.span }),
            }
        }
    }

    /// What the expressions of a route see: the resource, where it begins with one.
    pub(crate) fn route_scope(&self, doc: &RouteDoc) -> Scope<'a> {
        let resource = doc.on.iter().find_map(|k| resource_named(&k.text));
        let entries = resource.into_iter().map(|ty| Entry::one(Ty::Fhir(ty), None, None)).collect();
        Scope { pure_value: resource.is_some(), entries, ..Scope::default() }
    }

    /// `ask`: each question's parameters, and the name of its answer.
    pub(crate) fn questions(&mut self, doc: &'a RouteDoc, mut scope: Scope<'a>) -> Scope<'a> {
        for (name, body) in &doc.ask {
            let reach = scope.entries.len();
            scope.lets.extend(body.lets.iter().map(|(name, item)| Let { name, item, entries: reach }));
            if let Some(when) = &body.when {
                self.condition(&mut scope, when);
            }
            if let Some(at) = &body.at {
                self.check_at(at);
            }
            let ty = self.searched(name, body);
            for line in &body.lines {
                self.parameter(&mut scope, ty, &line.element, &line.item);
            }
            if let Some(ty) = ty {
                scope.asked.push((name.text.clone(), ty));
            }
        }
        scope
    }

    fn check_at(&mut self, at: &Key) {
        let known = self.options.targets.clone();
        if !known.is_empty() && !known.contains(&at.text) {
            let help = crate::diagnostic::suggest(&at.text, known.iter().map(String::as_str))
                .map_or_else(|| format!("the site has: {}", known.join(", ")), |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K701", at.span, format!("there is no target {}", at.text)).label("unknown target").help(help));
        }
    }

    fn searched(&mut self, name: &Key, body: &Body) -> Option<Type> {
        let Some(search) = &body.search else {
            self.report(
                Diagnostic::error("K614", name.span, format!("{} does not say what it searches for", name.text))
                    .label("no `$search`")
                    .help("add `$search: Patient`, for example"),
            );
            return None;
        };
        let found = resource_named(&search.text);
        if found.is_none() {
            let names: Vec<&str> = fhir::types().filter(|t| t.kind() == Kind::Resource).map(|t| t.name()).collect();
            let help = crate::diagnostic::suggest(&search.text, names.iter().copied()).map_or_else(String::new, |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K302", search.span, format!("FHIR R4 has no resource {}", search.text)).label("unknown resource").help(help));
        }
        found
    }

    /// `family: QPD-3.2 where ...`: a search parameter and what it is to be.
    fn parameter(&mut self, scope: &mut Scope<'a>, resource: Option<Type>, key: &Key, item: &'a Item) {
        if let Some(resource) = resource {
            let found = self.check_parameter(resource.name(), &key.text, key.span);
            if let (Some(found), Item::Constant(value)) = (found, item) {
                self.check_searched(found, value);
            }
        }
        let expr = match item {
            Item::Constant(_) => return,
            Item::Expr(expr) => expr,
            Item::List(items, _) => {
                items.iter().for_each(|i| self.parameter(scope, resource, key, i));
                return;
            }
            Item::Body(body) => {
                self.report(Diagnostic::error("K111", body.span, "a search parameter is one expression").label("a body").help("name the value itself"));
                return;
            }
        };
        let compiled = self.raw(scope, expr);
        let composite = match &compiled.typed.ty {
            Ty::V2 { datatype, .. } => !self.v2.is_primitive(datatype) && *datatype != "varies",
            Ty::Fhir(ty) => ty.kind() != Kind::Primitive,
            Ty::Segment(_) | Ty::Resource(_) | Ty::Choice(_) => true,
            _ => false,
        };
        if composite {
            self.report(
                Diagnostic::error("K401", expr.span, format!("{} is searched by text, and this is {}", key.text, compiled.typed.ty.name()))
                    .label("has parts")
                    .help("take one of its parts, or join() several"),
            );
        }
    }

    /// `birthdate`, `name:exact`, `general-practitioner:Practitioner.name`, `_has:Observation:patient:code`: the parameter at its end; `None` if that is not
    /// known, or after a diagnostic.
    fn check_parameter(&mut self, resource: &str, text: &str, span: Span) -> Option<SearchParameter> {
        if let Some(rest) = text.strip_prefix("_has:") {
            let mut parts = rest.splitn(3, ':');
            let (from, by, then) = (parts.next()?, parts.next(), parts.next());
            let (Some(by), Some(then)) = (by, then) else {
                let fault = Diagnostic::error("K619", span, format!("{text} does not say what has it")).label("three words behind `_has`");
                self.report(fault.help("write `_has:TYPE:REFERENCE:PARAMETER`, such as _has:Observation:patient:code"));
                return None;
            };
            self.check_parameter(from, by, span)?;
            return self.check_parameter(from, then, span);
        }
        let (first, chain) = text.split_once('.').map_or((text, None), |(first, chain)| (first, Some(chain)));
        let (name, modifier) = first.split_once(':').map_or((first, None), |(name, modifier)| (name, Some(modifier)));
        let Some(found) = search_parameter(resource, name) else {
            let names: Vec<&str> = search_parameters(resource).iter().map(|p| p.name).collect();
            let own: Vec<&str> = names.iter().copied().filter(|n| !n.starts_with('_')).collect();
            let help = crate::diagnostic::suggest(name, names.iter().copied())
                .map_or_else(|| format!("{resource} has: {}", own.join(", ")), |n| format!("did you mean {n}?"));
            self.report(Diagnostic::error("K619", span, format!("a search for {resource} has no parameter {name}")).label("unknown parameter").help(help));
            return None;
        };
        let leads: Vec<&str> = found.targets().collect();
        let typed = modifier.filter(|m| found.kind == "reference" && resource_named(m).is_some());
        if let Some(modifier) = modifier {
            let target = typed.is_some_and(|m| leads.is_empty() || leads.contains(&m) || leads.contains(&"Resource"));
            if !target && !found.modifiers().contains(&modifier) {
                let mut known: Vec<&str> = found.modifiers().to_vec();
                known.extend(&leads);
                let help = crate::diagnostic::suggest(modifier, known.iter().copied())
                    .map_or_else(|| format!("a {} takes: {}", found.kind, known.join(", ")), |n| format!("did you mean {n}?"));
                self.report(
                    Diagnostic::error("K619", span, format!("{name} is a {}, and takes no :{modifier}", found.kind)).label("unknown modifier").help(help),
                );
                return None;
            }
        }
        let Some(chain) = chain else { return Some(found) };
        if found.kind != "reference" {
            let fault = Diagnostic::error("K619", span, format!("{name} is a {}, so nothing can follow it", found.kind)).label("only references lead on");
            self.report(fault.help(format!("write {name} alone")));
            return None;
        }
        match (typed, leads.as_slice()) {
            (Some(target), _) | (None, &[target]) => self.check_parameter(target, chain, span),
            // Which of several it leads to is not said: one of them must have it.
            (None, targets) => {
                let end = chain.split(['.', ':']).next().unwrap_or(chain);
                if !targets.is_empty() && targets.iter().all(|t| search_parameter(t, end).is_none()) {
                    let fault = Diagnostic::error("K619", span, format!("nothing that {name} leads to has a parameter {end}")).label("unknown parameter");
                    self.report(fault.help(format!("it leads to: {}", targets.join(", "))));
                }
                None
            }
        }
    }

    /// A constant that is searched for: numbers, dates and quantities have a form.
    fn check_searched(&mut self, parameter: SearchParameter, value: &Key) {
        let text = value.text.as_str();
        let bare = if parameter.takes_prefix() { SEARCH_PREFIXES.iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text) } else { text };
        let wrong = match parameter.kind {
            "date" => !bare.split(',').all(|d| d.len() >= 4 && d.bytes().take(4).all(|b| b.is_ascii_digit())),
            "number" => bare.split(',').any(|n| crate::route::code::decimal(n).is_none()),
            "quantity" => bare.split(',').any(|q| crate::route::code::decimal(q.split('|').next().unwrap_or(q)).is_none()),
            _ => false,
        };
        if wrong {
            let fault =
                Diagnostic::error("K313", value.span, format!("\"{text}\" is no {}", parameter.kind)).label(format!("searched as a {}", parameter.kind));
            self.report(fault.help(format!("a value, or one behind {}", SEARCH_PREFIXES.join(", "))));
        }
    }

    /// K121, once: what the file says is right, and a later version runs it.
    pub(crate) fn not_yet(&mut self, doc: &RouteDoc) -> Option<&'static str> {
        let resource = doc.on.iter().find(|k| resource_named(&k.text).is_some());
        let (span, what, why): (Span, _, _) = if let Some(key) = resource {
            (key.span, format!("a route from {} is checked, and cannot run yet", key.text), "this version of Kiln takes no FHIR resources in")
        } else if let Some((name, _)) = doc.ask.first() {
            (name.span, "a route with `ask` is checked, and cannot run yet".to_owned(), "this version of Kiln asks no server while it maps")
        } else if let Some(reply) = &doc.reply {
            (reply.span, "a route with `reply` is checked, and cannot run yet".to_owned(), "this version of Kiln answers with acknowledgements only")
        } else {
            return None;
        };
        self.report(Diagnostic::warning("K121", span, what).label(why).help("messages that it takes become dead letters until a version that runs it"));
        Some(why)
    }

    /// What a route with `message:` may not have beside it.
    pub(crate) fn check_message_route(&mut self, doc: &RouteDoc, span: Span) {
        if let Some((name, _)) = doc.resources.first() {
            self.report(
                Diagnostic::error("K616", name.span, format!("route {} makes resources and a message", doc.name.text))
                    .label("one of them")
                    .related(span, "the message")
                    .help("write two routes: all that match run"),
            );
        }
    }

    /// Targets take resources or messages; only folders of JSON take both.
    pub(crate) fn check_targets(&mut self, doc: &RouteDoc) {
        if doc.message.is_none() {
            let only = self.options.messages_only.clone();
            for key in doc.to.iter().filter(|k| only.contains(&k.text) && !doc.resources.is_empty()) {
                self.report(
                    Diagnostic::error("K711", key.span, format!("the target {} takes HL7 v2 messages, and route {} makes resources", key.text, doc.name.text))
                        .label("takes no resources")
                        .help("send it to a FHIR server or a folder, or make a `message:`"),
                );
            }
            return;
        }
        let only = self.options.resources_only.clone();
        for key in doc.to.iter().filter(|k| only.contains(&k.text)) {
            self.report(
                Diagnostic::error("K711", key.span, format!("the target {} takes FHIR resources, and route {} makes messages", key.text, doc.name.text))
                    .label("takes no messages")
                    .help("send it to an `mllp:` or `http:` target or a folder with `layout: json`, or make `resources:`"),
            );
        }
    }
}

fn resource_named(name: &str) -> Option<Type> {
    fhir::type_named(name).filter(|t| t.kind() == Kind::Resource)
}
