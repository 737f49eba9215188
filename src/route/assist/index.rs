//! What the documents of a site are called, where they stand, and what they hold.

use crate::diagnostic::{Sources, Span};
use crate::hl7v2::{self, Structure};
use crate::route::Head;
use crate::route::assist::outline::Outline;
use crate::route::read::read;
use crate::route::types::V2Types;
use std::ops::Range;

/// A document by its head.
#[derive(Clone, Debug)]
pub(crate) struct Doc {
    /// `map`, `route`, `table`, ...
    pub(crate) kind: String,
    /// `PID -> Patient`, `adt`.
    pub(crate) name: String,
    /// The head's value.
    pub(crate) span: Span,
    /// `from` of a table.
    pub(crate) from: String,
    /// `to` of a table.
    pub(crate) to: String,
    /// How many rows of a table.
    pub(crate) rows: usize,
    /// A table's columns.
    pub(crate) columns: Vec<String>,
    /// `on` of a route.
    pub(crate) on: Vec<String>,
    /// Names of a route's resources.
    pub(crate) resources: Vec<(String, Span)>,
    /// `$in`.
    pub(crate) overlay: String,
}

/// All documents, and the site's own v2 types.
pub(crate) struct Index {
    pub(crate) docs: Vec<Doc>,
    pub(crate) v2: V2Types,
}

impl Index {
    pub(crate) fn new(sources: &Sources, outlines: &[Outline]) -> Self {
        let mut index = Self { docs: Vec::new(), v2: V2Types::default() };
        for (id, outline) in sources.ids().zip(outlines) {
            let text = sources.text(id);
            let span = |r: &Range<usize>| Span { source: id, start: u32::try_from(r.start).unwrap_or(0), end: u32::try_from(r.end).unwrap_or(0) };
            let mut declares = false;
            for section in &outline.sections {
                let doc = document(outline, text, section.roots.as_slice(), &span);
                declares |= doc.as_ref().is_some_and(|d| d.kind == "segment" || d.kind == "datatype");
                index.docs.extend(doc);
            }
            if declares {
                for document in read(sources, id).0 {
                    match &document.head {
                        Head::Segment(doc) if !document.extends => index.v2.declare_segment(doc),
                        Head::Datatype(doc) if !document.extends => index.v2.declare_datatype(doc),
                        _ => {}
                    }
                }
            }
        }
        index
    }

    /// Documents of a kind. Later ones replace earlier ones of the same name; both are here.
    pub(crate) fn of<'a>(&'a self, kind: &'a str) -> impl DoubleEndedIterator<Item = &'a Doc> {
        self.docs.iter().filter(move |d| d.kind == kind)
    }

    pub(crate) fn named<'a>(&'a self, kind: &'a str, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Doc> {
        self.of(kind).filter(move |d| d.name == name)
    }

    /// The segments that messages with such a segment may have, by the routes' structures; of all routes where none is given. Sorted.
    pub(crate) fn segments_beside(&self, segment: Option<&str>, on: &[String]) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = Vec::new();
        let kinds: Vec<&str> =
            if on.is_empty() { self.of("route").flat_map(|d| d.on.iter().map(String::as_str)).collect() } else { on.iter().map(String::as_str).collect() };
        for structure in structures(&kinds) {
            let own: Vec<&'static str> = structure.nodes().map(|n| structure.node(n)).filter(|n| !n.is_group).map(|n| n.name).collect();
            if segment.is_none_or(|s| own.contains(&s)) {
                names.extend(own.iter().filter(|n| hl7v2::newest_segment(n).is_some()));
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The groups of messages of these kinds. Sorted.
    pub(crate) fn groups(&self, on: &[String]) -> Vec<&'static str> {
        let kinds: Vec<&str> = on.iter().map(String::as_str).collect();
        let mut names: Vec<&'static str> =
            structures(&kinds).into_iter().flat_map(|s| s.nodes().map(move |n| s.node(n))).filter(|n| n.is_group).map(|n| n.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// `Target` of `SOURCE -> TARGET`, without blanks.
pub(crate) fn arrow(text: &str) -> Option<(&str, &str)> {
    text.split_once("->").map(|(a, b)| (a.trim(), b.trim()))
}

/// The newest structures of messages of these kinds.
fn structures(kinds: &[&str]) -> Vec<Structure> {
    let mut found: Vec<Structure> = Vec::new();
    let mut add = |s: Option<Structure>| found.extend(s);
    for kind in kinds {
        let mut parts = kind.split('^');
        let (code, event, id) = (parts.next().unwrap_or(""), parts.next(), parts.next());
        let newest = |id: &str| hl7v2::Version::ALL.into_iter().rev().find_map(|v| hl7v2::structure(v, id));
        match (event, id) {
            (_, Some(id)) => add(newest(id)),
            (Some("*") | None, None) => {
                let prefix = format!("{code}^");
                let version = hl7v2::Version::V251;
                hl7v2::events(version).filter(|(name, _)| name.starts_with(&prefix)).for_each(|(_, id)| add(newest(id)));
            }
            (Some(event), None) => add(hl7v2::event_structure(hl7v2::Version::V251, &format!("{code}^{event}")).and_then(newest)),
        }
    }
    found
}

fn document(outline: &Outline, text: &str, roots: &[usize], span: &dyn Fn(&Range<usize>) -> Span) -> Option<Doc> {
    let part = |r: &Range<usize>| text.get(r.clone()).unwrap_or("").to_owned();
    let first = outline.entry(*roots.first()?)?;
    let root = |key: &str| roots.iter().copied().find(|n| outline.entry(*n).is_some_and(|e| text.get(e.key.clone()) == Some(key)));
    let word = |key: &str| root(key).and_then(|n| outline.entry(n)).map_or_else(String::new, |e| part(&e.value));
    let keys = |n: Option<usize>| {
        let children = n.and_then(|n| outline.entry(n)).map(|e| e.children.clone()).unwrap_or_default();
        children.into_iter().filter_map(|c| outline.entry(c)).map(|e| (part(&e.key), span(&e.key))).collect::<Vec<_>>()
    };
    let on = root("on").and_then(|n| outline.entry(n)).map(|e| {
        let listed: Vec<String> = e.children.iter().filter_map(|c| outline.entry(*c)).map(|c| part(&c.value)).collect();
        if listed.is_empty() { vec![part(&e.value)] } else { listed }
    });
    Some(Doc {
        kind: part(&first.key),
        name: part(&first.value),
        span: span(&first.value),
        from: word("from"),
        to: word("to"),
        rows: keys(root("codes")).len(),
        columns: keys(root("columns")).into_iter().map(|(k, _)| k).collect(),
        on: on.unwrap_or_default(),
        resources: keys(root("resources")),
        overlay: word("$in"),
    })
}
