//! Shipped documents, overlays and a site's own become one set (section 11 of the language).
//!
//! The order is shipped, overlays as `use` lists them, site. Within one step whole documents come before those that extend.

mod lines;
#[cfg(test)]
mod tests;

use crate::diagnostic::{Diagnostic, Sources, suggest};
use crate::route::overlay::lines::{change_body, change_named};
use crate::route::{Document, Head, Key, RouteDoc, SystemsDoc, TableDoc};
use std::collections::HashMap;

/// Merges documents, which come in file order: replaces shipped heads by a site's, applies `extend:` line by line, resolves `like:`.
///
/// `use_overlays` are the overlays that count, in order: those of kiln.yaml and, when a route says `use:`, those of the route; call it once per
/// distinct list, and drop diagnostics that come twice. What comes back has `extends == false`, no `$in` and no `like`.
pub(crate) fn merge(sources: &Sources, documents: Vec<Document>, use_overlays: &[String]) -> (Vec<Document>, Vec<Diagnostic>) {
    let mut merger = Merger { sources, documents: Vec::new(), steps: Vec::new(), places: HashMap::new(), broken: Vec::new(), faults: Vec::new() };
    merger.overlays(&documents, use_overlays);
    let mut ordered: Vec<(Step, Document)> = documents.into_iter().filter_map(|d| Some((step(sources, &d, use_overlays)?, d))).collect();
    ordered.sort_by_key(|(step, document)| (*step, document.extends));
    // A shipped route is like the shipped one of that name, whatever a site makes of it: so they are put together by themselves first.
    let others = ordered.partition_point(|(step, _)| *step == Step::Shipped);
    let others = ordered.split_off(others);
    merger.take(ordered);
    merger.take(others);
    merger.faults.sort_by_key(|f| f.span);
    let Merger { documents, broken, faults, .. } = merger;
    let whole = documents.into_iter().enumerate().filter(|(at, _)| !broken.contains(at)).map(|(_, document)| document);
    (whole.collect(), faults)
}

/// When a document's turn comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Shipped,
    Overlay(usize),
    Site,
}

/// `None` if it belongs to an overlay that is not used.
fn step(sources: &Sources, document: &Document, overlays: &[String]) -> Option<Step> {
    match &document.overlay {
        Some(name) => overlays.iter().position(|o| *o == name.text).map(Step::Overlay),
        None if sources.shipped(document.span.source) => Some(Step::Shipped),
        None => Some(Step::Site),
    }
}

/// What makes two documents the same one. A map is its arrow, the others their kind and name.
fn identity(head: &Head) -> (&'static str, String) {
    match head {
        Head::Map { source, target, .. } => ("map", format!("{} -> {target}", source.text)),
        Head::Route(route) => ("route", route.name.text.clone()),
        Head::Table(table) => ("table", table.name.text.clone()),
        Head::Systems(systems) => ("systems", systems.name.text.clone()),
        Head::Segment(segment) => ("segment", segment.name.text.clone()),
        Head::Datatype(datatype) => ("datatype", datatype.name.text.clone()),
    }
}

struct Merger<'a> {
    sources: &'a Sources,
    documents: Vec<Document>,
    /// The step from which each document came.
    steps: Vec<Step>,
    places: HashMap<(&'static str, String), usize>,
    /// Routes that lack the lines of the route that they are like: they are left out, since everything else about them would be told wrongly.
    broken: Vec<usize>,
    faults: Vec<Diagnostic>,
}

impl Merger<'_> {
    /// Overlays that nobody uses, and uses of overlays that nobody wrote.
    fn overlays(&mut self, documents: &[Document], site: &[String]) {
        let routes = || documents.iter().filter_map(|d| if let Head::Route(route) = &d.head { Some(route) } else { None });
        let written = || documents.iter().filter_map(|d| d.overlay.as_ref());
        for document in documents {
            let Some(name) = &document.overlay else { continue };
            let used = site.contains(&name.text) || routes().any(|r| r.overlays.iter().any(|o| o.text == name.text));
            if !used && !self.sources.shipped(name.span.source) {
                let fault = Diagnostic::warning("K703", name.span, format!("no route uses the overlay `{}`", name.text));
                self.faults.push(fault.label("this document changes nothing").help(format!("`use: [{}]` in kiln.yaml makes it count", name.text)));
            }
        }
        for name in routes().flat_map(|r| &r.overlays).filter(|name| written().all(|w| w.text != name.text)) {
            let fault = Diagnostic::error("K708", name.span, format!("there is no overlay `{}`", name.text));
            self.faults.push(match suggest(&name.text, written().map(|w| w.text.as_str())) {
                Some(meant) => fault.help(format!("did you mean `{meant}`?")).fix_if(meant.only()),
                None => fault.help(format!("an overlay is made of documents that say `$in: {}`", name.text)),
            });
        }
    }

    /// Documents in their order, and what comes of `like:` among them and those before.
    fn take(&mut self, ordered: Vec<(Step, Document)>) {
        let (mut early, mut late) = (Vec::new(), Vec::new());
        for (step, document) in ordered {
            if !document.extends {
                self.add(step, document);
            } else if let Some(at) = self.base(&document) {
                // What is made after another route changes only once it has that route's lines.
                if self.like(at).is_some() { late.push(document) } else { self.extend(at, document) }
            } else {
                // An overlay may change what only the site has.
                early.push(document);
            }
        }
        for document in early {
            match self.base(&document) {
                Some(at) if self.like(at).is_some() => late.push(document),
                Some(at) => self.extend(at, document),
                None => self.baseless(&document),
            }
        }
        for at in 0..self.documents.len() {
            self.resolve(at, &mut late, &mut Vec::new());
        }
    }

    fn add(&mut self, step: Step, mut document: Document) {
        document.overlay = None;
        let key = identity(&document.head);
        let Some(at) = self.places.get(&key).copied() else {
            self.places.insert(key, self.documents.len());
            self.documents.push(document);
            self.steps.push(step);
            return;
        };
        let (Some(base), Some(from)) = (self.documents.get_mut(at), self.steps.get_mut(at)) else { return };
        if *from == step {
            let fault = Diagnostic::error("K705", document.span, format!("`{}: {}` stands twice", key.0, key.1));
            self.faults.push(fault.label("again here").related(base.span, "first here").help("join both, or begin the second with `extend:`"));
            return;
        }
        (*base, *from) = (document, step);
    }

    /// The document that an `extend:` changes.
    fn base(&self, document: &Document) -> Option<usize> {
        self.places.get(&identity(&document.head)).copied()
    }

    fn baseless(&mut self, document: &Document) {
        let (kind, name) = identity(&document.head);
        let fault = Diagnostic::error("K704", document.span, format!("there is no {kind} `{name}` to extend"));
        let other = self.places.keys().find(|(k, n)| *k != kind && *n == name);
        let near = suggest(&name, self.places.keys().filter(|(k, _)| *k == kind).map(|(_, n)| n.as_str()));
        self.faults.push(match (other, near) {
            (Some((other, _)), _) => fault.help(format!("`{name}` is a {other}, and these are not the keys of one")),
            (None, Some(meant)) => fault.help(format!("did you mean `{meant}`?")),
            (None, None) => fault.help(format!("begin with `{kind}:` to make a new one")),
        });
    }

    fn extend(&mut self, at: usize, change: Document) {
        let Some(base) = self.documents.get_mut(at) else { return };
        let faults = &mut self.faults;
        match (&mut base.head, change.head) {
            (Head::Map { body, .. }, Head::Map { body: change, .. }) => change_body(body, change, faults),
            (Head::Route(route), Head::Route(own)) => change_route(route, own, &change.appends, faults),
            (Head::Table(table), Head::Table(own)) => change_table(table, own, &change.appends, faults),
            (Head::Systems(systems), Head::Systems(own)) => change_systems(systems, own, &change.appends),
            (Head::Segment(segment), Head::Segment(own)) => {
                replace(&mut segment.after, own.after);
                replace(&mut segment.group, own.group);
                change_numbered(&mut segment.fields, own.fields);
            }
            (Head::Datatype(datatype), Head::Datatype(own)) => change_numbered(&mut datatype.components, own.components),
            _ => {}
        }
    }

    /// The route that a route is like, while it lacks that one's lines.
    fn like(&self, at: usize) -> Option<&Key> {
        match &self.documents.get(at)?.head {
            Head::Route(route) => route.like.as_ref(),
            _ => None,
        }
    }

    /// Gives a route the lines of the one that it is like, which is resolved before.
    fn resolve(&mut self, at: usize, late: &mut Vec<Document>, under_way: &mut Vec<usize>) {
        let Some(like) = self.like(at).cloned() else { return };
        under_way.push(at);
        let model = self.places.get(&("route", like.text.clone())).copied();
        if model.is_some_and(|m| under_way.contains(&m)) {
            let fault = Diagnostic::error("K707", like.span, format!("routes are like each other in a circle, at `{}`", like.text));
            self.faults.push(fault.help("one of them must have its own lines"));
        } else if let Some(model) = model {
            self.resolve(model, late, under_way);
        }
        let model = model.filter(|m| !under_way.contains(m) && !self.broken.contains(m));
        if model.is_none() {
            self.broken.push(at);
        }
        let known = self.places.contains_key(&("route", like.text.clone()));
        let lines = model.and_then(|m| self.documents.get(m)).map(|d| d.head.clone());
        let Some(Document { head: Head::Route(route), .. }) = self.documents.get_mut(at) else { return };
        route.like = None;
        if let Some(Head::Route(mut lines)) = lines {
            let own = std::mem::replace(route, lines.clone());
            lines.name = own.name.clone();
            lines.like = None;
            change_route(&mut lines, own, &[], &mut self.faults);
            *route = lines;
        } else if !known {
            let fault = Diagnostic::error("K704", like.span, format!("there is no route `{}`", like.text));
            let names = self.places.keys().filter(|(kind, name)| *kind == "route" && *name != like.text).map(|(_, n)| n.as_str());
            self.faults.push(match suggest(&like.text, names) {
                Some(meant) => fault.help(format!("did you mean `{meant}`?")).fix_if(meant.only()),
                None => fault.help("`like` copies a route that ships with Kiln or is in these files"),
            });
        }
        under_way.pop();
        let mut n = 0;
        while n < late.len() {
            if late.get(n).and_then(|d| self.base(d)) == Some(at) {
                let change = late.remove(n);
                self.extend(at, change);
            } else {
                n += 1;
            }
        }
    }
}

fn replace<T>(base: &mut Option<T>, own: Option<T>) {
    if own.is_some() {
        *base = own;
    }
}

fn change_list<T>(base: &mut Vec<T>, own: Vec<T>, key: &str, appends: &[String]) {
    if appends.iter().any(|a| a == key) {
        base.extend(own);
    } else if !own.is_empty() {
        *base = own;
    }
}

/// Sets or adds by name.
fn change_keyed<T>(base: &mut Vec<(Key, T)>, own: Vec<(Key, T)>) {
    for (key, value) in own {
        match base.iter_mut().find(|(k, _)| k.text == key.text) {
            Some(entry) => *entry = (key, value),
            None => base.push((key, value)),
        }
    }
}

fn change_numbered<T>(base: &mut Vec<(u16, T)>, own: Vec<(u16, T)>) {
    for (number, value) in own {
        match base.iter_mut().find(|(n, _)| *n == number) {
            Some(entry) => entry.1 = value,
            None => base.push((number, value)),
        }
    }
}

fn change_route(base: &mut RouteDoc, own: RouteDoc, appends: &[String], faults: &mut Vec<Diagnostic>) {
    change_list(&mut base.on, own.on, "on", appends);
    change_list(&mut base.from, own.from, "from", appends);
    change_list(&mut base.to, own.to, "to", appends);
    change_list(&mut base.order_by, own.order_by, "order-by", appends);
    change_list(&mut base.overlays, own.overlays, "use", appends);
    replace(&mut base.when, own.when);
    replace(&mut base.reply, own.reply);
    replace(&mut base.invalid, own.invalid);
    replace(&mut base.send, own.send);
    replace(&mut base.after_dead_letter, own.after_dead_letter);
    change_keyed(&mut base.shared, own.shared);
    change_keyed(&mut base.types, own.types);
    change_keyed(&mut base.retry, own.retry);
    change_named(&mut base.resources, own.resources, "resource", faults);
    change_named(&mut base.ask, own.ask, "question", faults);
    if let Some(own) = own.message {
        match &mut base.message {
            Some(message) => change_body(message, own, faults),
            none => *none = Some(own),
        }
    }
}

fn change_table(base: &mut TableDoc, own: TableDoc, appends: &[String], faults: &mut Vec<Diagnostic>) {
    change_list(&mut base.from, own.from, "from", appends);
    change_list(&mut base.senders, own.senders, "senders", appends);
    replace(&mut base.to, own.to);
    replace(&mut base.system, own.system);
    replace(&mut base.unmapped, own.unmapped);
    change_keyed(&mut base.columns, own.columns);
    for row in own.codes {
        let at = base.codes.iter().position(|r| r.code.text == row.code.text);
        // `A: nothing` takes a row away.
        let removed = row.to.is_none() && row.columns.is_empty() && row.display.is_none() && row.system.is_none();
        match (at, removed) {
            (Some(at), true) => drop(base.codes.remove(at)),
            (Some(at), false) => base.codes.iter_mut().skip(at).take(1).for_each(|r| *r = row.clone()),
            (None, false) => base.codes.push(row),
            (None, true) => {
                let fault = Diagnostic::warning("K706", row.code.span, format!("the table has no row `{}` to take away", row.code.text));
                faults.push(fault.help("leave this line out"));
            }
        }
    }
}

fn change_systems(base: &mut SystemsDoc, own: SystemsDoc, appends: &[String]) {
    change_list(&mut base.rules, own.rules, "match", appends);
    change_list(&mut base.ignore, own.ignore, "ignore", appends);
    replace(&mut base.unknown, own.unknown);
    replace(&mut base.missing, own.missing);
}
