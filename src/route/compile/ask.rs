//! What surrounds a route's message: `ask`, `reply`, `types`, FHIR in `on`, and targets that take messages.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{self, Kind, Type};
use crate::route::asking::{AskX, Several};
use crate::route::code::{On, X};
use crate::route::compile::Compiler;
use crate::route::compile::scope::{AskedName, Entry, Let, Scope};
use crate::route::decimal::whole;
use crate::route::names::intern;
use crate::route::tree::{Body, ExprKind, Item, Key, Literal, RouteDoc};
use crate::route::types::Ty;
use std::sync::Arc;

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

    /// `ask`: each question, and the names of what they find. A question sees what those before it found.
    pub(crate) fn questions(&mut self, doc: &'a RouteDoc, mut scope: Scope<'a>) -> (Vec<AskX>, Scope<'a>) {
        let mut asks = Vec::new();
        for (name, body) in &doc.ask {
            let reach = scope.entries.len();
            let lets = scope.lets.len();
            scope.lets.extend(body.lets.iter().map(|(name, item)| Let { name, item, entries: reach }));
            let when = body.when.as_ref().map(|when| self.condition(&mut scope, when).x);
            let target = self.asked_target(name, body);
            let resource = self.searched(name, body);
            let (mut parameters, mut places) = (Vec::new(), Vec::new());
            let mut count = None;
            for line in &body.lines {
                match &line.item {
                    Item::Expr(expr) if line.element.text == "_count" => {
                        if let ExprKind::Literal(Literal::Text(text) | Literal::Number(text)) = &expr.kind {
                            self.check_count(text, expr.span);
                        }
                        count = Some(self.raw(&mut scope, expr).x);
                    }
                    Item::Constant(key) if line.element.text == "_count" => {
                        self.check_count(&key.text, key.span);
                        count = Some(X::Text(Arc::from(key.text.as_str())));
                    }
                    item => self.parameter(&mut scope, resource, &line.element, item, &mut parameters, &mut places),
                }
            }
            let continues = body.continues.as_ref().map(|expr| self.raw(&mut scope, expr).x);
            scope.lets.truncate(lets);
            let several = match body.several.as_ref().map(|k| k.text.as_str()) {
                Some("first") => Several::First,
                Some("refuse") => Several::Refuse,
                _ => Several::All,
            };
            let Some(resource) = resource else { continue };
            let many = several == Several::All;
            scope.asked.push(AskedName { name: name.text.clone(), index: asks.len(), ty: resource, many, places: places.clone() });
            let cache_seconds = body.cache.as_ref().and_then(|key| self.seconds(key));
            let timeout_seconds = body.timeout.as_ref().and_then(|key| self.seconds(key));
            asks.push(AskX {
                name: Arc::from(name.text.as_str()),
                resource,
                target: Arc::from(target.unwrap_or_default()),
                when,
                parameters,
                count,
                continues,
                refuses_none: body.none.as_ref().is_some_and(|k| k.text == "refuse"),
                several,
                cache_seconds,
                timeout_seconds,
                places,
                line: self.line(name.span),
            });
        }
        (asks, scope)
    }

    /// K313: `_count` is a whole number, 1 or more.
    fn check_count(&mut self, text: &str, span: Span) {
        if whole(text).is_none_or(|n| n == 0) {
            let fault = Diagnostic::error("K313", span, format!("\"{text}\" is no number of matches")).label("how many are wanted at most");
            self.report(fault.help("a whole number, 1 or more; without `_count` all are read"));
        }
    }

    /// The target that a question asks; it must be one that can be searched.
    fn asked_target(&mut self, name: &Key, body: &Body) -> Option<String> {
        let Some(at) = &body.at else {
            self.report(
                Diagnostic::error("K614", name.span, format!("{} does not say whom it asks", name.text))
                    .label("no `$at`")
                    .help("add `$at: main`, with the name of a FHIR target of the site"),
            );
            return None;
        };
        self.check_at(at);
        if self.options.not_searchable.contains(&at.text) {
            self.report(
                Diagnostic::error("K621", at.span, format!("the target {} cannot be searched", at.text))
                    .label("no FHIR server")
                    .help("ask a target with `fhir:`, which has an address to send searches to"),
            );
        }
        Some(at.text.clone())
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

    /// K121, once: what the file says is right, and a later version runs it.
    pub(crate) fn not_yet(&mut self, doc: &RouteDoc) -> Option<&'static str> {
        let key = doc.on.iter().find(|k| resource_named(&k.text).is_some())?;
        let why = "this version of Kiln takes no FHIR resources in";
        let fault = Diagnostic::warning("K121", key.span, format!("a route from {} is checked, and cannot run yet", key.text)).label(why);
        self.report(fault.help("nothing comes in by which such a route could begin, until a version that runs it"));
        Some(why)
    }

    /// K623: an answer is one message, and goes back to whoever asked.
    pub(crate) fn check_reply(&mut self, doc: &RouteDoc) {
        let Some(reply) = &doc.reply else { return };
        let name = &doc.name.text;
        let fault = |span: Span, what: String, label: &str, help: &str| Diagnostic::error("K623", span, what).label(label).help(help);
        if let Some(to) = doc.to.first() {
            let help = "remove `to`; a second route can take the question to a target as well";
            self.report(fault(to.span, format!("route {name} answers, and has a target"), "an answer goes back on the connection", help));
        }
        match &doc.message {
            None => {
                let help = "add `message:` with the answer's segments";
                self.report(fault(reply.span, format!("route {name} answers, and makes no message"), "no `message`", help));
            }
            Some(body) => {
                if let Some(each) = &body.each {
                    let help = "repeat a group instead: `QUERY_RESPONSE: { $each: found, PID: Patient }`";
                    self.report(fault(each.values.span, format!("route {name} would make several answers"), "one question has one answer", help));
                }
            }
        }
        for key in doc.on.iter().filter(|key| key.text == "otherwise") {
            let help = "name the questions, such as QBP^Q22";
            self.report(fault(key.span, format!("route {name} would answer whatever comes"), "not every message is a question", help));
        }
    }

    /// K623: of two routes that answer one question, none could say which.
    pub(crate) fn check_rival_replies(&mut self, docs: &[&'a RouteDoc]) {
        let answering: Vec<&&RouteDoc> = docs.iter().filter(|doc| doc.reply.is_some() && doc.when.is_none()).collect();
        let mut faults = Vec::new();
        for (n, doc) in answering.iter().enumerate() {
            for other in answering.iter().take(n) {
                let meet = doc.from.is_empty() || other.from.is_empty() || doc.from.iter().any(|f| other.from.iter().any(|o| o.text == f.text));
                let same = doc.on.iter().find(|key| other.on.iter().any(|o| On::named(&key.text).meets(&On::named(&o.text))));
                if let (Some(key), true) = (same, meet) {
                    faults.push((key.span, format!("{} is answered by route {} already", key.text, other.name.text), other.name.span));
                }
            }
        }
        for (span, what, other) in faults {
            let help = "tell them apart by `when` or `from`, or change the other one with `extend:`";
            self.report(Diagnostic::error("K623", span, what).label("the second").related(other, "the first").help(help));
        }
    }

    /// K622: a resource that was found at one target means nothing at another.
    pub(crate) fn check_referred(&mut self, doc: &RouteDoc, asks: &[AskX]) {
        for (span, ask) in std::mem::take(&mut self.referred) {
            let Some(ask) = asks.get(ask) else { continue };
            let elsewhere: Vec<&str> = doc.to.iter().map(|to| to.text.as_str()).filter(|to| *to != &*ask.target).collect();
            if elsewhere.is_empty() {
                continue;
            }
            let fault =
                Diagnostic::error("K622", span, format!("this refers to a resource of {}, and the route saves at {}", ask.target, elsewhere.join(", ")));
            self.report(fault.label("found at another target").help("ask the target that the route saves at, or make the resource with a map"));
        }
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

pub(crate) fn resource_named(name: &str) -> Option<Type> {
    fhir::type_named(name).filter(|t| t.kind() == Kind::Resource)
}
