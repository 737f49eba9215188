//! YAML into `config` values that remember where they stood: each value's origin is its byte range, each key's is kept beside.

use crate::diagnostic::{Diagnostic, SourceId, Span};
use config::{ConfigError, Map, Source, Value, ValueKind};
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// A path from the root of the file: `["listeners", "adt", "mllp"]`. List places are numbers.
pub(crate) type Path = Vec<String>;

/// Where a key and its value stand, and in which order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The key; for a list entry the entry itself.
    pub key: Span,
    /// The value.
    pub value: Span,
    /// Counts up through the file.
    pub order: usize,
}

/// A parsed text: a [`Source`] for the `config` crate.
#[derive(Clone, Debug)]
pub(crate) struct Yaml {
    root: Map<String, Value>,
    /// Every key's place.
    pub places: HashMap<Path, Place>,
}

/// The most nested lists and mappings, against a file that is made to overflow the stack.
const DEPTH_MAX: usize = 32;

impl Yaml {
    /// Reads one document that is a mapping. Faults go to `faults`; what could be read is kept.
    pub(crate) fn read(text: &str, source: SourceId, faults: &mut Vec<Diagnostic>) -> Self {
        let mut reading = Reading { events: Parser::new_from_str(text), at: ByteIndex::new(text), source, places: HashMap::new(), order: 0, faults };
        let root = match reading.document() {
            Ok(Some((value, span))) => match value.kind {
                ValueKind::Table(table) => table,
                ValueKind::Nil => Map::new(),
                _ => {
                    reading.faults.push(
                        Diagnostic::error("K722", span, "a site file is a mapping of keys")
                            .help("begin with `listeners:` and `targets:`; `kiln serve --help` has an example"),
                    );
                    Map::new()
                }
            },
            Ok(None) => Map::new(),
            Err(fault) => {
                reading.faults.push(*fault);
                Map::new()
            }
        };
        Self { root, places: reading.places }
    }

    /// Reads a value that stands alone, such as `[10.0.0.0/8]` in an environment variable.
    pub(crate) fn read_value(text: &str, source: SourceId, at: Path, faults: &mut Vec<Diagnostic>) -> (Value, HashMap<Path, Place>) {
        let mut reading = Reading { events: Parser::new_from_str(text), at: ByteIndex::new(text), source, places: HashMap::new(), order: 0, faults };
        let value = match reading.document_at(at) {
            Ok(Some((value, _))) => value,
            Ok(None) => Value::new(None, ValueKind::Nil),
            Err(fault) => {
                reading.faults.push(*fault);
                Value::new(None, ValueKind::Nil)
            }
        };
        (value, reading.places)
    }
}

impl Source for Yaml {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.root.clone())
    }
}

/// The span that a value's origin tells.
pub(crate) fn span_of(value: &Value) -> Option<Span> {
    let mut parts = value.origin()?.split(':').map(str::parse::<u32>);
    let (source, start, end) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    Some(Span { source: SourceId(source), start, end })
}

/// A value whose origin is a span.
pub(crate) fn value_at(span: Span, kind: ValueKind) -> Value {
    Value::new(Some(&format!("{}:{}:{}", span.source.0, span.start, span.end)), kind)
}

struct Reading<'t, 'f> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    at: ByteIndex,
    source: SourceId,
    places: HashMap<Path, Place>,
    order: usize,
    faults: &'f mut Vec<Diagnostic>,
}

type Read<T> = Result<T, Box<Diagnostic>>;

impl<'t> Reading<'t, '_> {
    fn document(&mut self) -> Read<Option<(Value, Span)>> {
        self.document_at(Vec::new())
    }

    fn document_at(&mut self, mut path: Path) -> Read<Option<(Value, Span)>> {
        let mut found = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(found),
                Event::DocumentStart(_) if found.is_some() => {
                    self.faults.push(Diagnostic::error("K720", span, "a site file is one document").label("a second one begins here"));
                    return Ok(found);
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => found = Some(self.value(event, span, &mut path, 0)?),
            }
        }
    }

    fn next(&mut self) -> Read<(Event<'t>, Span)> {
        match self.events.next_event() {
            None => Ok((Event::StreamEnd, Span { source: self.source, start: 0, end: 0 })),
            Some(Ok((event, at))) => Ok((event, self.at.span(self.source, at.start.index(), at.end.index()))),
            Some(Err(e)) => {
                let span = self.at.span(self.source, e.marker().index(), e.marker().index() + 1);
                Err(Box::new(Diagnostic::error("K720", span, format!("this is not YAML: {}", e.info()))))
            }
        }
    }

    fn value(&mut self, event: Event<'t>, span: Span, path: &mut Path, depth: usize) -> Read<(Value, Span)> {
        if depth > DEPTH_MAX {
            return Err(Box::new(Diagnostic::error("K720", span, "nested too deeply")));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if anchor != 0 || tag.is_some() {
                    self.faults.push(Diagnostic::error("K720", span, "anchors and tags are not used in a site file").help("write the value out"));
                }
                let nothing = style == ScalarStyle::Plain && matches!(&*text, "" | "~");
                let kind = if nothing { ValueKind::Nil } else { ValueKind::String(text.into_owned()) };
                Ok((value_at(span, kind), span))
            }
            Event::Alias(_) => Err(Box::new(Diagnostic::error("K720", span, "aliases are not used in a site file").help("write the value out"))),
            Event::SequenceStart(..) => self.list(span, path, depth),
            Event::MappingStart(..) => self.mapping(span, path, depth),
            _ => Err(Box::new(Diagnostic::error("K720", span, "this is not YAML: a value is missing"))),
        }
    }

    fn list(&mut self, start: Span, path: &mut Path, depth: usize) -> Read<(Value, Span)> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                let whole = Span { end: span.end.max(start.start), ..start };
                return Ok((value_at(whole, ValueKind::Array(entries)), whole));
            }
            path.push(entries.len().to_string());
            let (value, span) = self.value(event, span, path, depth + 1)?;
            self.place(path, span, span);
            path.pop();
            entries.push(value);
        }
    }

    fn mapping(&mut self, start: Span, path: &mut Path, depth: usize) -> Read<(Value, Span)> {
        let mut table = Map::new();
        let mut end = start.end;
        loop {
            let (event, key_span) = self.next()?;
            let key = match event {
                Event::MappingEnd => {
                    let whole = Span { end: end.max(key_span.end.min(end.max(key_span.start))), ..start };
                    return Ok((value_at(whole, ValueKind::Table(table)), whole));
                }
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Box::new(Diagnostic::error("K722", key_span, "a key is a word"))),
            };
            path.push(key.clone());
            let first = self.places.get(path).map(|p| p.key);
            if let Some(first) = first {
                self.faults.push(Diagnostic::error("K729", key_span, format!("`{key}` is written twice")).label("again here").related(first, "first here"));
                // Read to get past it, under a path that no key can have, so that what is below is not told as well.
                path.pop();
                path.push(format!("\0{}", self.order));
            }
            let (event, span) = self.next()?;
            let (value, span) = self.value(event, span, path, depth + 1)?;
            end = span.end;
            self.place(path, key_span, span);
            if first.is_none() {
                table.insert(key, value);
            }
            path.pop();
        }
    }

    fn place(&mut self, path: &Path, key: Span, value: Span) {
        self.order += 1;
        self.places.insert(path.clone(), Place { key, value, order: self.order });
    }
}

/// The parser counts characters; spans count bytes.
struct ByteIndex {
    /// Byte offset of each character, only for texts with characters of more than one byte.
    offsets: Option<Vec<u32>>,
    len: u32,
}

impl ByteIndex {
    fn new(text: &str) -> Self {
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let offsets = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX)).collect());
        Self { offsets, len }
    }

    fn span(&self, source: SourceId, start: usize, end: usize) -> Span {
        Span { source, start: self.byte(start), end: self.byte(end) }
    }

    fn byte(&self, character: usize) -> u32 {
        match &self.offsets {
            Some(offsets) => offsets.get(character).copied().unwrap_or(self.len),
            None => u32::try_from(character).unwrap_or(u32::MAX).min(self.len),
        }
    }
}
