//! What nothing uses: maps, tables and names of `$let` that somebody wrote and no message reaches. Told only when everything else is right,
//! since what is wrong elsewhere may be why.

use crate::diagnostic::{Diagnostic, Sources, Span};
use crate::fhir;
use crate::route::compile::Compiler;
use crate::route::tree::{Body, Document, Head, Item};
use std::collections::BTreeSet;

impl Compiler<'_> {
    /// The places of all that this program uses.
    pub(crate) fn used(mut self) -> BTreeSet<Span> {
        let mut open: Vec<usize> = std::mem::take(&mut self.called);
        let mut seen = BTreeSet::new();
        while let Some(n) = open.pop() {
            if seen.insert(n)
                && let Some(map) = self.maps.get(n)
            {
                self.used.insert(map.span);
                open.extend(&map.calls);
            }
        }
        self.used
    }
}

/// K412, K710: what a site's own files hold for nothing.
pub(crate) fn unused(sources: &Sources, documents: &[Document], used: &BTreeSet<Span>) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    for document in documents {
        let (span, what) = match &document.head {
            Head::Map { source, target, body } => {
                // A map to v2 or from FHIR is checked in a way of its own.
                if fhir::type_named(&target.name).is_none() || fhir::type_named(&source.text).is_some() {
                    continue;
                }
                names(sources, body, used, &mut faults);
                (document.span, "no route and no map that a route reaches uses this map")
            }
            Head::Table(table) => (table.name.span, "no line converts by this table"),
            Head::Route(route) => {
                route.resources.iter().for_each(|(_, body)| names(sources, body, used, &mut faults));
                continue;
            }
            _ => continue,
        };
        if !sources.shipped(span.source) && !used.contains(&span) {
            let fault = Diagnostic::warning("K710", span, what).label("unused");
            faults.push(fault.help("use it, or take it out; a document that replaces a shipped one has the same head"));
        }
    }
    faults
}

fn names(sources: &Sources, body: &Body, used: &BTreeSet<Span>, faults: &mut Vec<Diagnostic>) {
    for (name, item) in &body.lets {
        if !sources.shipped(name.span.source) && !used.contains(&name.span) {
            faults.push(Diagnostic::warning("K412", name.span, format!("nothing reads ${}", name.text)).label("unused").help("read it, or take it out"));
        }
        within(sources, item, used, faults);
    }
    body.with.iter().for_each(|(_, item)| within(sources, item, used, faults));
    body.lines.iter().for_each(|line| within(sources, &line.item, used, faults));
    body.first.iter().flatten().for_each(|item| within(sources, item, used, faults));
    body.value.iter().for_each(|item| within(sources, item, used, faults));
    body.initial.iter().for_each(|body| names(sources, body, used, faults));
}

fn within(sources: &Sources, item: &Item, used: &BTreeSet<Span>, faults: &mut Vec<Diagnostic>) {
    match item {
        Item::Body(body) => names(sources, body, used, faults),
        Item::List(items, _) => items.iter().for_each(|item| within(sources, item, used, faults)),
        Item::Expr(_) | Item::Constant(_) => {}
    }
}
