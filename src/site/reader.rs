//! Walks layered values and collects faults: unknown keys with what was probably meant, wrong kinds, malformed values.

use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::site::keys::SiteKey;
use crate::site::unit;
use crate::site::yaml::{Path, Place, span_of};
use config::{Map, Value, ValueKind};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// What the sections share while they read.
pub(crate) struct Reader<'a> {
    /// Where keys stand.
    pub places: &'a HashMap<Path, Place>,
    /// What was found.
    pub faults: Vec<Diagnostic>,
    /// The site file's beginning, for what has no place of its own.
    pub beginning: Span,
    /// Further files that were read.
    pub files: Vec<PathBuf>,
}

/// A value with its place in the tree.
#[derive(Clone)]
pub(crate) struct Entry<'a> {
    /// From the root.
    pub path: Path,
    value: &'a Value,
    /// Where the key stands.
    pub key: Span,
    /// Where the value stands.
    pub span: Span,
    order: usize,
}

/// A mapping whose keys are known to be legal.
pub(crate) struct Keys<'a> {
    entries: Vec<Entry<'a>>,
    /// The mapping's own key.
    pub key: Span,
}

impl<'a> Keys<'a> {
    /// The value of a key, unless it is absent or empty.
    pub(crate) fn get(&self, key: &str) -> Option<Entry<'a>> {
        self.entries.iter().find(|e| e.name() == key && !e.is_nothing()).cloned()
    }
}

impl<'a> Entry<'a> {
    /// The key.
    pub(crate) fn name(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    fn is_nothing(&self) -> bool {
        matches!(self.value.kind, ValueKind::Nil)
    }

    /// The text of a scalar.
    pub(crate) fn scalar(&self) -> Option<&'a str> {
        match &self.value.kind {
            ValueKind::String(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Reader<'a> {
    /// The root of the tree.
    pub(crate) fn root<'v>(&self, value: &'v Value) -> Entry<'v> {
        Entry { path: Vec::new(), value, key: self.beginning, span: self.beginning, order: 0 }
    }

    /// The entries of a mapping, in the order written; faults for anything else.
    pub(crate) fn entries<'v>(&mut self, entry: &Entry<'v>) -> Vec<Entry<'v>> {
        let ValueKind::Table(table) = &entry.value.kind else {
            if !entry.is_nothing() {
                self.kind(entry, "a mapping of keys");
            }
            return Vec::new();
        };
        self.children(entry, table)
    }

    /// A mapping with these keys and no others.
    pub(crate) fn keys<'v>(&mut self, entry: &Entry<'v>, known: &[SiteKey]) -> Keys<'v> {
        let entries = self.entries(entry);
        let known: Vec<&str> = known.iter().map(|k| k.name).collect();
        for e in &entries {
            if !known.contains(&e.name()) {
                let whose = if entry.path.is_empty() { "a site file".to_owned() } else { format!("`{}`", entry.path.join(".")) };
                let mut fault = Diagnostic::error("K721", e.key, format!("`{}` is not a key of {whose}", e.name()));
                // In a variable or a flag the name is what is wrong, and that is not the text at the span.
                let in_file = e.key.source == self.beginning.source;
                fault = match suggest(e.name(), known.iter().copied()) {
                    Some(meant) if in_file => fault.label(format!("did you mean `{meant}`?")).fix_if(meant.only()),
                    Some(meant) => fault.label(format!("its name: did you mean `{meant}`?")),
                    None => fault.label("not known here"),
                };
                self.faults.push(fault.help(format!("keys here: {}", known.join(", "))));
            }
        }
        Keys { entries, key: entry.key }
    }

    fn children<'v>(&self, entry: &Entry<'v>, table: &'v Map<String, Value>) -> Vec<Entry<'v>> {
        let mut children: Vec<_> = table.iter().map(|(name, value)| self.child(entry, name.clone(), value)).collect();
        children.sort_by(|a, b| a.order.cmp(&b.order).then_with(|| a.path.cmp(&b.path)));
        children
    }

    fn child<'v>(&self, parent: &Entry<'v>, name: String, value: &'v Value) -> Entry<'v> {
        let mut path = parent.path.clone();
        path.push(name);
        let place = self.places.get(&path);
        let own = span_of(value);
        let span = own.or_else(|| place.map(|p| p.value)).unwrap_or(parent.span);
        // A value that came from a variable has no key in the file: its fault points at the variable.
        let key = place.map(|p| p.key).filter(|k| k.source == span.source).unwrap_or(span);
        Entry { path, value, key, span, order: place.map_or(usize::MAX, |p| p.order) }
    }

    /// The entries of a list; one scalar counts as a list of one.
    pub(crate) fn list<'v>(&mut self, entry: &Entry<'v>) -> Vec<Entry<'v>> {
        match &entry.value.kind {
            ValueKind::Array(values) => values.iter().enumerate().map(|(n, v)| self.child(entry, n.to_string(), v)).collect(),
            ValueKind::String(_) => vec![entry.clone()],
            _ => {
                self.kind(entry, "a list");
                Vec::new()
            }
        }
    }

    /// A scalar.
    pub(crate) fn text<'v>(&mut self, entry: &Entry<'v>) -> Option<&'v str> {
        let text = entry.scalar();
        if text.is_none() {
            self.kind(entry, "one value");
        }
        text
    }

    /// One of a closed list of words.
    pub(crate) fn word<T: Copy>(&mut self, entry: &Entry<'_>, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(entry)?;
        let found = words.iter().find(|(w, _)| *w == text).map(|(_, t)| *t);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(w, _)| *w).collect();
            let mut fault = Diagnostic::error("K724", entry.span, format!("`{}` is one of {}", entry.name(), known.join(", ")));
            fault = match suggest(text, known.iter().copied()) {
                Some(meant) => fault.label(format!("did you mean `{meant}`?")).fix_if(meant.only()),
                None => fault.label("not one of them"),
            };
            self.faults.push(fault);
        }
        found
    }

    /// A duration.
    pub(crate) fn duration(&mut self, entry: &Entry<'_>) -> Option<Duration> {
        self.parsed(entry, unit::duration, "a duration", "a whole number and a unit: `300ms`, `30s`, `5m`, `24h`, `30d`")
    }

    /// A whole number within bounds.
    pub(crate) fn number(&mut self, entry: &Entry<'_>, least: usize, most: usize) -> Option<usize> {
        let read = |t: &str| t.parse().ok().filter(|n| (least..=most).contains(n));
        self.parsed(entry, read, &format!("a whole number from {least} to {most}"), "write digits only")
    }

    /// A scalar that `read` understands.
    pub(crate) fn parsed<T>(&mut self, entry: &Entry<'_>, read: impl Fn(&str) -> Option<T>, what: &str, help: &str) -> Option<T> {
        let text = self.text(entry)?;
        let value = read(text);
        if value.is_none() {
            self.faults
                .push(Diagnostic::error("K725", entry.span, format!("`{}` is not {what}", entry.path.join("."))).label(format!("not {what}")).help(help));
        }
        value
    }

    /// Reports a missing key.
    pub(crate) fn missing(&mut self, at: Span, what: &str, help: &str) {
        self.faults.push(Diagnostic::error("K723", at, what).help(help));
    }

    fn kind(&mut self, entry: &Entry<'_>, wanted: &str) {
        let name = if entry.path.is_empty() { "the file".to_owned() } else { format!("`{}`", entry.path.join(".")) };
        let found = match &entry.value.kind {
            ValueKind::Table(_) => "a mapping",
            ValueKind::Array(_) => "a list",
            ValueKind::Nil => "empty",
            _ => "one value",
        };
        self.faults.push(Diagnostic::error("K722", entry.span, format!("{name} is {wanted}")).label(format!("this is {found}")));
    }
}
