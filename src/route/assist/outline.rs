//! A route file while somebody writes it: keys, values and their nesting, read so that nothing can fail. Faults are the checker's affair.

use crate::route::assist::reader::Reader;
use std::ops::Range;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quote {
    Plain,
    Quoted,
    Block,
}

/// A line `key: value`, an entry of a list, or a word that may become one.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) parent: Option<usize>,
    pub(crate) children: Vec<usize>,
    /// The key's text without quotes; empty for an entry of a list.
    pub(crate) key: Range<usize>,
    /// An entry of a list.
    pub(crate) list: bool,
    /// A word without a colon.
    pub(crate) bare: bool,
    /// The text of a scalar value, without quotes.
    pub(crate) value: Range<usize>,
    /// From behind the colon or dash to where the value must end.
    pub(crate) zone: Range<usize>,
    pub(crate) quote: Quote,
    /// What stands inside braces or brackets.
    pub(crate) inner: Option<Range<usize>>,
    /// In a list in brackets.
    pub(crate) brackets: bool,
    /// Written within braces or brackets.
    pub(crate) flow: bool,
    pub(crate) column: usize,
}

/// One document of a file.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) range: Range<usize>,
    pub(crate) roots: Vec<usize>,
}

/// A file's documents.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    pub(crate) entries: Vec<Entry>,
    pub(crate) sections: Vec<Section>,
}

/// Where a position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// On a key.
    Key(usize),
    /// In the value of an entry.
    Value(usize),
    /// Where a new line or entry of this one may begin; `None` is the document itself.
    Inside(Option<usize>),
}

impl Outline {
    pub(crate) fn read(text: &str) -> Self {
        let mut reader = Reader::new(text);
        let mut start = 0;
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let divides = line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
            if divides && at > 0 {
                reader.section(start..at);
                start = at;
            }
            at += line.len();
        }
        reader.section(start..text.len());
        reader.finish()
    }

    pub(crate) fn entry(&self, n: usize) -> Option<&Entry> {
        self.entries.get(n)
    }

    /// The section around a position.
    pub(crate) fn section(&self, at: usize) -> Option<&Section> {
        self.sections.iter().rev().find(|s| s.range.start <= at)
    }

    /// The lines of an entry, or of a section.
    pub(crate) fn children(&self, of: Option<usize>, section: &Section) -> Vec<usize> {
        of.and_then(|n| self.entry(n)).map_or_else(|| section.roots.clone(), |e| e.children.clone())
    }

    /// The child with this key.
    pub(crate) fn child(&self, of: usize, key: &str, text: &str) -> Option<usize> {
        self.entry(of)?.children.iter().copied().find(|n| self.entry(*n).is_some_and(|e| text.get(e.key.clone()) == Some(key)))
    }

    /// The entries around one, outermost first, itself last.
    pub(crate) fn chain(&self, n: usize) -> Vec<usize> {
        let mut chain: Vec<usize> = std::iter::successors(Some(n), |n| self.entry(*n)?.parent).collect();
        chain.reverse();
        chain
    }

    pub(crate) fn locate(&self, text: &str, at: usize) -> Option<Where> {
        let section = self.section(at)?;
        let within = |r: &Range<usize>| r.start <= at && at <= r.end;
        let here = |n: &usize| self.entry(*n).is_some_and(|e| section.range.contains(&e.key.start.max(e.zone.start.saturating_sub(1))) || within(&e.zone));
        let mut found = None;
        for n in (0..self.entries.len()).filter(here) {
            let Some(e) = self.entry(n) else { continue };
            if !e.list && within(&e.key) && !e.key.is_empty() {
                found = Some(Where::Key(n));
            } else if e.inner.as_ref().is_some_and(within) {
                found = Some(Where::Inside(Some(n)));
            } else if e.inner.is_none() && e.children.is_empty() && !e.bare && within(&e.zone) {
                found = Some(Where::Value(n));
            }
        }
        if found.is_some() {
            return found;
        }
        let line = text.get(..at)?.rfind('\n').map_or(0, |n| n + 1);
        let before = text.get(line..at)?;
        if !before.trim().is_empty() {
            return None;
        }
        let column = before.len();
        let last = (0..self.entries.len()).rev().find(|n| self.entry(*n).is_some_and(|e| !e.flow && section.range.start <= e.zone.start && e.zone.start <= at));
        let mut around = last;
        while let Some(e) = around.and_then(|n| self.entry(n)).filter(|e| e.column >= column) {
            around = e.parent;
        }
        Some(Where::Inside(around))
    }
}
