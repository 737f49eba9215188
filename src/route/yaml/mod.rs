//! YAML as it is written: text, quoting and places, without any typing. `no`, `012`, `1.50` and `~` are the text written.
//!
//! A file is cut at its `---` lines first, so that one broken document never hides faults in the others.

mod layout;
mod traps;

use crate::diagnostic::{Diagnostic, SourceId, Sources, Span};
use crate::route::expression::Places;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use std::ops::Range;

pub use layout::layout;
pub(crate) use traps::unbalanced;

/// Mappings and lists may nest this deep.
const DEPTH_MAX: usize = 40;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) span: Span,
}

/// What it holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// In order; keys are distinct.
    Mapping(Vec<(Node, Node)>),
}

/// A scalar as written.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) quoting: Quoting,
    /// Inside `[...]` or `{...}`.
    pub(crate) in_flow: bool,
}

/// How it was quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quoting {
    Plain,
    Quoted,
    Block,
}

impl Node {
    /// The scalar, if it is one.
    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.content {
            Content::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The text of a scalar, else empty.
    pub(crate) fn text(&self) -> &str {
        self.scalar().map_or("", |s| &s.text)
    }

    /// True for a key without a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.scalar().is_some_and(|s| s.text.is_empty() && s.quoting == Quoting::Plain)
    }

    /// Where each byte of a plain or block scalar's text stands in the file.
    pub(crate) fn places(&self, sources: &Sources) -> Places {
        let written = sources.text(self.span.source).get(self.span.start as usize..self.span.end as usize).unwrap_or("");
        let text = self.text();
        if written == text {
            return Places::verbatim(self.span.source, self.span.start, text.len());
        }
        // The parser's place of a block is its first word; of an empty one, the `>` or `|`.
        let skip = match self.scalar() {
            Some(Scalar { quoting: Quoting::Block, .. }) if written.starts_with(['>', '|']) => written.find('\n').map_or(written.len(), |n| n + 1),
            _ => 0,
        };
        let start = self.span.start + u32::try_from(skip).unwrap_or(0);
        Places::folded(self.span.source, text, written.get(skip..).unwrap_or(""), start)
    }
}

/// All documents of a file that could be read, and what is wrong with the others.
pub(crate) fn documents(sources: &Sources, id: SourceId) -> (Vec<Node>, Vec<Diagnostic>) {
    let text = sources.text(id);
    let (mut nodes, mut faults) = (Vec::new(), Vec::new());
    for chunk in chunks(text) {
        let mut builder = Builder::new(text, id, chunk);
        builder.run();
        nodes.append(&mut builder.documents);
        faults.append(&mut builder.faults);
    }
    (nodes, faults)
}

/// The file cut before each line that begins with `---`; YAML allows no such line inside a document.
fn chunks(text: &str) -> Vec<Range<usize>> {
    let mut cuts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let divides = line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if divides && at > 0 {
            cuts.push(at);
        }
        at += line.len();
    }
    let ends = cuts.iter().copied().skip(1).chain([text.len()]);
    cuts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// From the parser's events to nodes, for one chunk.
struct Builder<'a> {
    text: &'a str,
    source: SourceId,
    chunk: Range<usize>,
    /// Byte of the file for each character of the chunk; empty when all are ASCII.
    bytes: Vec<usize>,
    stack: Vec<Open>,
    documents: Vec<Node>,
    faults: Vec<Diagnostic>,
}

/// A mapping or list that is not closed yet.
struct Open {
    start: usize,
    flow: bool,
    mapping: bool,
    items: Vec<Node>,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, source: SourceId, chunk: Range<usize>) -> Self {
        let part = text.get(chunk.clone()).unwrap_or("");
        let bytes = if part.is_ascii() { Vec::new() } else { part.char_indices().map(|(n, _)| chunk.start + n).collect() };
        Self { text, source, chunk, bytes, stack: Vec::new(), documents: Vec::new(), faults: Vec::new() }
    }

    fn byte(&self, marker: Marker) -> usize {
        let byte = if self.bytes.is_empty() { self.chunk.start + marker.index() } else { self.bytes.get(marker.index()).copied().unwrap_or(self.chunk.end) };
        byte.min(self.chunk.end)
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span { source: self.source, start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end.max(start)).unwrap_or(u32::MAX) }
    }

    fn run(&mut self) {
        let part = self.text.get(self.chunk.clone()).unwrap_or("");
        if let Some(range) = directive(part) {
            self.refuse(self.chunk.start + range.start, self.chunk.start + range.end, "a directive", "leave it out; a file is YAML 1.2 without directives");
            return;
        }
        let parser = Parser::new_from_str(part);
        for event in parser {
            match event {
                Ok((event, span)) => {
                    let (start, end) = (self.byte(span.start), self.byte(span.end));
                    if !self.take(event, start, end) {
                        return;
                    }
                }
                Err(error) => {
                    let at = self.byte(*error.marker());
                    let fault = traps::explain(self.text, self.source, self.chunk.clone(), at);
                    self.faults.push(fault);
                    return;
                }
            }
        }
    }

    /// False when the document is given up.
    fn take(&mut self, event: Event<'_>, start: usize, end: usize) -> bool {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if anchor > 0 || tag.is_some() {
                    return self.refuse_before(start, if anchor > 0 { "an anchor" } else { "a tag" });
                }
                let quoting = match style {
                    ScalarStyle::Plain => Quoting::Plain,
                    ScalarStyle::Literal | ScalarStyle::Folded => Quoting::Block,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Quoting::Quoted,
                };
                let in_flow = self.stack.last().is_some_and(|open| open.flow);
                // A block scalar's event may end on the next line's indentation.
                let written = self.text.get(start..end).unwrap_or("");
                let end = start + written.trim_end().len();
                let node = Node { content: Content::Scalar(Scalar { text: text.into_owned(), quoting, in_flow }), span: self.span(start, end) };
                self.push(node);
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if anchor > 0 || tag.is_some() => {
                return self.refuse_before(start, if anchor > 0 { "an anchor" } else { "a tag" });
            }
            Event::SequenceStart(..) => return self.open(start, false),
            Event::MappingStart(..) => return self.open(start, true),
            Event::SequenceEnd | Event::MappingEnd => self.close(end),
            Event::Alias(_) => {
                self.refuse(start, end, "an alias", "write the lines out, or make them a map and use it in both places");
                return false;
            }
            _ => {}
        }
        true
    }

    fn open(&mut self, start: usize, mapping: bool) -> bool {
        if self.stack.len() >= DEPTH_MAX {
            let span = self.span(start, start + 1);
            self.faults.push(
                Diagnostic::error("K116", span, "bodies and lists nest too deeply here").help("make the inner part a map of its own, or name it with `$let`"),
            );
            return false;
        }
        let flow = self.text.get(start..).is_some_and(|rest| rest.starts_with(if mapping { '{' } else { '[' }));
        self.stack.push(Open { start, flow, mapping, items: Vec::new() });
        true
    }

    fn close(&mut self, end: usize) {
        let Some(open) = self.stack.pop() else { return };
        let first = open.items.first().map_or(open.start, |n| n.span.start as usize);
        let last = open.items.last().map_or(open.start, |n| n.span.end as usize);
        let span = if open.flow { self.span(open.start, end) } else { self.span(if open.mapping { first } else { open.start.min(first) }, last) };
        let content = if open.mapping { Content::Mapping(self.pairs(open.items)) } else { Content::Sequence(open.items) };
        self.push(Node { content, span });
    }

    fn pairs(&mut self, items: Vec<Node>) -> Vec<(Node, Node)> {
        let mut pairs: Vec<(Node, Node)> = Vec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            if key.scalar().is_none() {
                self.refuse(key.span.start as usize, key.span.end as usize, "a key that is a list or a mapping", "a key is a word");
            } else if key.text() == "<<" {
                self.refuse(key.span.start as usize, key.span.end as usize, "a merge key", "`extend:` and maps share lines between documents");
            } else if let Some((first, _)) = pairs.iter().find(|(first, _)| first.text() == key.text()).filter(|_| !torn(&key)) {
                let fault = Diagnostic::error("K107", key.span, format!("the key `{}` stands twice in this body", key.text()))
                    .label("again here")
                    .related(first.span, "first here")
                    .help("join both lines: a YAML list makes several values append to one element");
                self.faults.push(fault);
            } else {
                pairs.push((key, value));
            }
        }
        pairs
    }

    fn push(&mut self, node: Node) {
        match self.stack.last_mut() {
            Some(open) => open.items.push(node),
            None => self.documents.push(node),
        }
    }

    fn refuse(&mut self, start: usize, end: usize, what: &str, cure: &str) {
        let fault = Diagnostic::error("K108", self.span(start, end), format!("{what} is a feature of YAML that route files don't use")).help(cure);
        self.faults.push(fault);
    }

    /// Refuses the `&name` or `!tag` that stands before a node.
    fn refuse_before(&mut self, start: usize, what: &str) -> bool {
        let line = self.text.get(self.chunk.start..start).unwrap_or("");
        let here = self.text.get(start..).unwrap_or("");
        let mark = if what == "a tag" { '!' } else { '&' };
        let at = if here.starts_with(mark) { start } else { line.rfind(mark).map_or(start, |n| self.chunk.start + n) };
        let length = self.text.get(at..).unwrap_or("").find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}')).unwrap_or(1);
        let cure = if mark == '!' { "for negation write `not`; a value is text as it stands" } else { "write the lines out, or make them a map" };
        self.refuse(at, at + length.max(1), what, cure);
        false
    }
}

/// A piece of an expression that a comma tore: `{ a: f(x, 2) }` has the key `2)`. The reader tells that (K102).
fn torn(key: &Node) -> bool {
    key.scalar().is_some_and(|s| s.in_flow && s.text.contains(')') && !s.text.contains('('))
}

/// A `%` line before the first document.
fn directive(part: &str) -> Option<Range<usize>> {
    let mut at = 0;
    for line in part.split_inclusive('\n') {
        if line.starts_with('%') {
            return Some(at..at + line.trim_end().len());
        }
        if !line.trim().is_empty() && !line.starts_with('#') {
            return None;
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (Sources, Node) {
        let mut sources = Sources::default();
        let id = sources.add("a.yaml", text);
        let (mut nodes, faults) = documents(&sources, id);
        assert_eq!(faults, [], "{text}");
        assert_eq!(nodes.len(), 1, "{text}");
        (sources, nodes.remove(0))
    }

    fn pairs(node: &Node) -> &[(Node, Node)] {
        match &node.content {
            Content::Mapping(pairs) => pairs,
            _ => panic!("not a mapping"),
        }
    }

    #[test]
    fn nothing_is_typed() {
        let (_, node) = one("a: no\nb: 012\nc: 1.50\nd: ~\ne: \"x\"\nf: 'y'\ng:\n");
        let read: Vec<_> = pairs(&node).iter().map(|(_, v)| (v.text().to_owned(), v.scalar().map(|s| s.quoting))).collect();
        let quoted = Some(Quoting::Quoted);
        let plain = Some(Quoting::Plain);
        let expected = [("no", plain), ("012", plain), ("1.50", plain), ("~", plain), ("x", quoted), ("y", quoted), ("", plain)];
        assert_eq!(read, expected.map(|(text, quoting)| (text.to_owned(), quoting)));
    }

    #[test]
    fn spans_cover_what_is_written_also_after_umlauts_and_crlf() {
        for text in ["map: ä -> Ö\r\nname: { use: \"é\", family: PID-5 }\r\nlist:\r\n  - one two   # why\r\n", "a: 1\nb:\n  - x\n  - y: z\n"] {
            let (sources, node) = one(text);
            let mut stack = vec![&node];
            while let Some(node) = stack.pop() {
                let written = &sources.text(node.span.source)[node.span.start as usize..node.span.end as usize];
                match &node.content {
                    Content::Scalar(s) => assert_eq!(written.trim_matches('"'), s.text),
                    Content::Sequence(items) => {
                        assert!(written.starts_with('-') || written.starts_with('['), "{written}");
                        stack.extend(items);
                    }
                    Content::Mapping(pairs) => {
                        assert!(!written.ends_with(char::is_whitespace), "{written:?}");
                        stack.extend(pairs.iter().flat_map(|(k, v)| [k, v]));
                    }
                }
            }
        }
    }

    #[test]
    fn every_word_of_a_folded_text_is_found_in_the_file() {
        for text in ["a: >\n    if ä then\n      \"b  c\"\n\n    else   d\nz: 1\n", "a: |\n  one\n  two  three\n", "x:\n  a: one two\n    three\n\n    four\n"]
        {
            let (sources, node) = one(text);
            let mut value = &pairs(&node)[0].1;
            if let Content::Mapping(inner) = &value.content {
                value = &inner[0].1;
            }
            let places = value.places(&sources);
            for word in value.text().split_whitespace() {
                let at = value.text().find(word).expect("split from it");
                let span = places.span(at..at + word.len());
                assert_eq!(&text[span.start as usize..span.end as usize], word, "{text}");
            }
        }
    }

    #[test]
    fn a_broken_document_hides_no_other() {
        let mut sources = Sources::default();
        let id = sources.add("a.yaml", "a: 1\n---\nb: \"x\" ?? y\n--- # third\nc: 3\n---\nd: [\n---\ne: 5\n");
        let (nodes, faults) = documents(&sources, id);
        assert_eq!(nodes.iter().map(|n| pairs(n)[0].0.text()).collect::<Vec<_>>(), ["a", "c", "e"]);
        assert_eq!(faults.iter().map(|f| f.code).collect::<Vec<_>>(), ["K101", "K118"]);
    }
}
