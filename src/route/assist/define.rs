//! Definition: the map, table, resource, variable or document that a word leads to.

use crate::diagnostic::Span;
use crate::route::assist::View;
use crate::route::assist::context::Wanted;
use crate::route::assist::index::{Doc, arrow};
use crate::route::assist::outline::Where;
use crate::route::assist::words;
use std::ops::Range;

pub(super) fn define(view: &View<'_>, at: usize) -> Vec<Span> {
    let Some(section) = view.outline.section(at) else { return Vec::new() };
    let index = &view.assist.index;
    let last = |docs: Vec<&Doc>| docs.last().map(|d| d.span).into_iter().collect::<Vec<_>>();
    let n = match view.outline.locate(&view.text, at) {
        Some(Where::Value(n)) => n,
        Some(Where::Key(n)) => {
            // On an element: what its line's value leads to.
            return view.outline.entry(n).map(|e| joined(view, &(e.key.start..e.value.end.max(e.key.end)), None)).unwrap_or_default();
        }
        _ => return Vec::new(),
    };
    let Some(entry) = view.outline.entry(n) else { return Vec::new() };
    if at < entry.value.start || at > entry.value.end {
        return Vec::new();
    }
    let chain = view.outline.chain(n);
    let text = view.part(&entry.value);
    let here = at - entry.value.start;
    let range = words::around(text, here);
    let word = text.get(range.clone()).unwrap_or("");
    let heads = |head: &str| last(index.of("map").filter(|d| arrow(&d.name) == arrow(head)).collect());
    match view.wanted(&section.roots, &chain) {
        Wanted::Head if section.roots.first().and_then(|n| view.outline.entry(*n)).is_some_and(|e| view.part(&e.key) == "extend") => {
            let bases: Vec<&Doc> =
                index.docs.iter().filter(|d| d.kind != "extend" && (d.name == text || (arrow(text).is_some() && arrow(&d.name) == arrow(text)))).collect();
            return last(bases);
        }
        Wanted::Head => return segment(view, word),
        Wanted::Key(k) if k.name == "$map" => return heads(text),
        Wanted::Key(k) if k.name == "like" => return last(index.named("route", text).collect()),
        _ => {}
    }
    match words::before(text, range.start) {
        "via" | "in" => {
            let found = last(index.named("table", word.split('.').next().unwrap_or(word)).collect());
            if !found.is_empty() {
                return found;
            }
            if word == "systems" {
                return index.of("systems").map(|d| d.span).collect();
            }
        }
        "as" => {
            let precise = joined(view, &entry.value, Some(at));
            if !precise.is_empty() {
                return precise;
            }
            return index.of("map").filter(|d| arrow(&d.name).is_some_and(|(_, target)| target == word)).map(|d| d.span).collect();
        }
        _ => {}
    }
    if let Some(name) = word.strip_prefix('$') {
        let name = name.split('.').next().unwrap_or(name);
        return variable(view, &section.roots, &chain, name).into_iter().collect();
    }
    if word.starts_with(|c: char| c.is_ascii_lowercase()) {
        let (kind, head) = view.kind(&section.roots);
        if kind == "route" {
            let found: Vec<Span> = index.named("route", &head).flat_map(|d| d.resources.iter()).filter(|(n, _)| n == word).map(|(_, s)| *s).collect();
            if !found.is_empty() {
                return found;
            }
        }
    }
    let own = segment(view, word.split(['-', '.', '[']).next().unwrap_or(word));
    if own.is_empty() { joined(view, &entry.value, Some(at)) } else { own }
}

/// A segment or data type that the site declares.
fn segment(view: &View<'_>, name: &str) -> Vec<Span> {
    view.assist.index.docs.iter().filter(|d| (d.kind == "segment" || d.kind == "datatype") && d.name == name).map(|d| d.span).collect()
}

fn variable(view: &View<'_>, roots: &[usize], chain: &[usize], name: &str) -> Option<Span> {
    let holders: Vec<usize> =
        chain.iter().rev().flat_map(|n| view.outline.entry(*n).map(|e| e.children.clone()).unwrap_or_default()).chain(roots.iter().copied()).collect();
    let named = |key: &str| {
        holders
            .iter()
            .copied()
            .filter(|n| view.outline.entry(*n).is_some_and(|e| view.part(&e.key) == key))
            .find_map(|n| view.outline.child(n, name, &view.text))
    };
    let key = named("$let").or_else(|| named("$takes")).and_then(|n| view.outline.entry(n)).map(|e| e.key.clone())?;
    Some(span(view, &key))
}

fn span(view: &View<'_>, range: &Range<usize>) -> Span {
    Span { source: view.source, start: u32::try_from(range.start).unwrap_or(0), end: u32::try_from(range.end).unwrap_or(0) }
}

/// What the checker found for the expressions within a range: with a position, for the smallest around it.
fn joined(view: &View<'_>, range: &Range<usize>, at: Option<usize>) -> Vec<Span> {
    // Only while the text is what the checker saw.
    if view.assist.sources.text(view.source) != view.text {
        return Vec::new();
    }
    let within = |s: &Span| s.source == view.source && range.start <= s.start as usize && s.end as usize <= range.end;
    let around = |s: &Span| at.is_none_or(|at| s.start as usize <= at && at <= s.end as usize);
    let found: Vec<(Span, Span)> = view.assist.joins.iter().copied().filter(|(s, _)| within(s) && around(s)).collect();
    let size = |s: &Span| s.end - s.start;
    let least = found.iter().map(|(s, _)| size(s)).min();
    let mut targets: Vec<Span> = found.iter().filter(|(s, _)| at.is_none() || Some(size(s)) == least).map(|(_, to)| *to).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}
