//! Documents -> tree: the first key decides what a document is, and nothing is looked up in a dictionary.

mod body;
mod data;
mod route;
#[cfg(test)]
mod tests;
mod value;

use crate::diagnostic::{Diagnostic, SourceId, Sources, Span, suggest};
use crate::route::keys::{self, Place};
use crate::route::yaml::{Content, Node, documents};
use crate::route::{Document, Head};

/// Reads one file. Documents that could not be read are missing; everything that is wrong is in the list, in file order.
pub(crate) fn read(sources: &Sources, id: SourceId) -> (Vec<Document>, Vec<Diagnostic>) {
    let (nodes, faults) = documents(sources, id);
    let mut reader = Reader { sources, faults };
    let documents = nodes.iter().filter_map(|node| reader.document(node)).collect();
    reader.faults.sort_by_key(|fault| (fault.span.start, fault.span.end));
    (documents, reader.faults)
}

/// Collects faults while it reads.
struct Reader<'a> {
    sources: &'a Sources,
    faults: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node) -> Option<Document> {
        if node.is_empty() {
            return None;
        }
        let Content::Mapping(pairs) = &node.content else {
            self.faults.push(Diagnostic::error("K104", start_of(node), "a document begins with a key that says what it is").help(all_first_keys()));
            return None;
        };
        let (first, value) = pairs.first()?;
        let word = first.text();
        let first_keys = keys::first_keys();
        if !first_keys.contains(&word) {
            let fault = Diagnostic::error("K104", first.span, format!("a document can't begin with `{word}`"));
            let later = pairs.iter().map(|(k, _)| k).find(|k| first_keys.contains(&k.text()));
            self.faults.push(match (suggest(word, first_keys.iter().copied()), later) {
                (_, Some(key)) => fault.related(key.span, "this must be the first line").help("the first key of a document says what it is"),
                (Some(meant), None) => fault.help(format!("did you mean `{meant}`?")).fix_if(meant.only()),
                (None, None) => fault.help(all_first_keys()),
            });
            return None;
        }
        let span = Span { end: value.span.end.max(first.span.end), ..first.span };
        let extends = word == "extend";
        let mut document = Document { head: Head::Datatype(Self::nameless(first.span)), span, overlay: None, extends, appends: Vec::new() };
        for (key, value) in pairs.iter().skip(1) {
            if key.text() == "$in" {
                document.overlay = self.key(value, "$in");
            }
        }
        let kind = if extends { self.extended(value, pairs) } else { word };
        document.head = match kind {
            "map" => self.map(value, node)?,
            "route" => Head::Route(self.route(value, pairs, &mut document)?),
            "table" => Head::Table(self.table(value, pairs, &mut document)?),
            "systems" => Head::Systems(self.systems(value, pairs, &mut document)?),
            "segment" => Head::Segment(self.segment(value, pairs, &mut document)?),
            _ => Head::Datatype(self.datatype(value, pairs, &mut document)?),
        };
        Some(document)
    }

    /// What an `extend:` changes: an arrow makes it a map, else its keys tell.
    fn extended(&self, head: &Node, pairs: &[(Node, Node)]) -> &'static str {
        let has = |keys: &[&str]| pairs.iter().skip(1).any(|(key, _)| keys.contains(&key.text().trim_end_matches('+')));
        match head.text() {
            text if text.contains("->") => "map",
            text if text.starts_with(|c: char| c.is_ascii_uppercase()) => {
                if has(&["components"]) {
                    "datatype"
                } else if has(&["fields", "after"]) {
                    "segment"
                } else {
                    "map"
                }
            }
            _ if has(&["codes", "columns", "unmapped", "senders"]) => "table",
            _ if has(&["match", "unknown", "missing", "ignore"]) => "systems",
            _ => "route",
        }
    }

    fn map(&mut self, head: &Node, node: &Node) -> Option<Head> {
        let (source, target) = self.arrow(head)?;
        let body = self.body_of(node, 1, Place::Map);
        Some(Head::Map { source, target, body })
    }
}

fn all_first_keys() -> String {
    let keys: Vec<String> = keys::first_keys().iter().map(|k| format!("`{k}`")).collect();
    format!("the first key is one of {}", keys.join(", "))
}

/// The first byte of a node, for faults about all of it.
fn start_of(node: &Node) -> Span {
    Span { end: (node.span.start + 1).min(node.span.end), ..node.span }
}
