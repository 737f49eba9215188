//! Routes: which messages, which resources, how they are saved.

use crate::diagnostic::Diagnostic;
use crate::hl7v2;
use crate::route::code::{Map, On, Route, event_parts};
use crate::route::compile::Compiler;
use crate::route::compile::scope::Named;
use crate::route::names::intern;
use crate::route::program::{AfterDeadLetter, RouteInfo, Send};
use crate::route::tree::{self, ExprKind, Key, RouteDoc, Verb};
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
            self.ties.clear();
            let before = self.diagnostics.len();
            let (called_before, tied_before) = (self.called.len(), self.tied.len());
            self.name_types(doc);
            self.name_events(doc);
            let route = self.route(doc, maps);
            self.events.clear();
            self.v2.named.clear();
            let called = self.called.get(called_before..).unwrap_or_default().to_vec();
            self.reaches(&called);
            if self.foreign.contains(&doc.name.text) {
                self.diagnostics.truncate(before);
                self.tied.truncate(tied_before);
            }
            self.structures = all;
            infos.push(RouteInfo {
                name: Arc::from(doc.name.text.as_str()),
                targets: doc.to.iter().map(|t| Arc::from(t.text.as_str())).collect(),
                messages: doc.message.is_some(),
                asks: route.asks.iter().map(|ask| Arc::clone(&ask.target)).collect(),
                reply: doc.reply.as_ref().map(|key| Arc::from(key.text.as_str())),
                send: route.send,
                retry_for_seconds: self.retry_for(doc),
                after_dead_letter: route.after_dead_letter,
            });
            routes.push(route);
            docs.push(doc);
        }
        self.check_rivals(&docs, &routes);
        self.check_rival_replies(&docs);
        (routes, infos)
    }

    fn route(&mut self, doc: &'a RouteDoc, maps: &[Map]) -> Route {
        self.check_names(doc);
        self.check_targets(doc);
        self.check_on(doc);
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
        let order_by = self.order_by(&mut message, doc);
        self.referred.clear();
        let (asks, message) = self.questions(doc, message);
        self.check_reply(doc);
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
            if let Some(resource) = self.route_resource(name, body, &resources, &message.asked, maps) {
                compiled.push(resource);
            }
        }
        self.check_order(doc, &order_by, &compiled);
        self.check_patches(doc);
        let refused = self.not_yet(doc);
        let made = doc.message.as_ref().and_then(|body| {
            self.check_message_route(doc, body.span);
            self.message(doc, body, message)
        });
        self.check_referred(doc, &asks);
        if doc.resources.is_empty() && doc.message.is_none() && !self.is_faulty(doc.name.span) {
            self.report(Diagnostic::error("K611", doc.name.span, format!("route {} makes nothing", doc.name.text)).label("no `resources`"));
        }
        Route {
            on,
            from: doc.from.iter().map(|k| k.text.clone()).collect(),
            when,
            order_by,
            resources: compiled,
            message: made,
            asks,
            refused,
            line: self.line(doc.name.span),
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
        let on = On::named(&key.text);
        let On::Event { code, event, .. } = &on else { return Some(on) };
        let known = |name: &str| hl7v2::Version::ALL.iter().rev().any(|v| hl7v2::events(*v).any(|(e, _)| e == name || e.split('^').next() == Some(name)));
        let name = match event {
            Some(event) => format!("{code}^{event}"),
            None => code.clone(),
        };
        if !known(&name) && !code.starts_with('Z') && !event.as_ref().is_some_and(|e| e.starts_with('Z')) {
            let events: Vec<&'static str> = hl7v2::Version::ALL.iter().flat_map(|v| hl7v2::events(*v).map(|(e, _)| e)).collect();
            let help = crate::diagnostic::suggest(&name, events.iter().copied())
                .map_or_else(|| "write it as MSH-9 has it: ADT^A01, ADT^*, ORU^R01^ORU_R01".to_owned(), |n| format!("did you mean {n}?"));
            self.report(
                Diagnostic::error("K210", key.span, format!("no version of HL7 v2 has the message {}", key.text)).label("unknown message type").help(help),
            );
            return None;
        }
        Some(on)
    }

    /// `retry: { for: 7d }` in seconds.
    fn retry_for(&mut self, doc: &RouteDoc) -> Option<u64> {
        let (_, value) = doc.retry.iter().find(|(k, _)| k.text == "for")?;
        self.seconds(value)
    }

    /// `7d` as seconds.
    pub(crate) fn seconds(&mut self, value: &Key) -> Option<u64> {
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

    pub(crate) fn word(&mut self, key: Option<&Key>, words: &[&str]) -> Option<usize> {
        let key = key?;
        let found = words.iter().position(|w| *w == key.text);
        if found.is_none() {
            let help = crate::diagnostic::suggest(&key.text, words.iter().copied())
                .map_or_else(|| format!("one of: {}", words.join(", ")), |w| format!("did you mean {w}?"));
            self.report(Diagnostic::error("K613", key.span, format!("{} is not possible here", key.text)).label("unknown word").help(help));
        }
        found
    }
}

/// The structures that messages of these kinds have, over all versions.
pub(crate) fn structures(kinds: &[&str]) -> Vec<hl7v2::Structure> {
    let mut structures: Vec<hl7v2::Structure> = Vec::new();
    for kind in kinds {
        let (code, event, structure) = event_parts(kind);
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
