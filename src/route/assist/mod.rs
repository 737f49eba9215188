//! What an editor asks of route files that are being written: completion, hover, where something is defined. Pure; reads what can be read of a file
//! with faults, and never fails.

mod complete;
mod context;
mod define;
mod hover;
mod index;
mod outline;
mod reader;
mod terms;
#[cfg(test)]
mod tests;
mod words;

pub use complete::{Suggestion, SuggestionKind};
pub use hover::Hover;

use crate::diagnostic::{SourceId, Sources, Span};
use crate::route::Loaded;
use crate::route::assist::index::Index;
use crate::route::assist::outline::Outline;

/// The files of a site as they stand in the editor, and what is known of them.
pub struct Assist {
    sources: Sources,
    index: Index,
    /// What lines lead to, where the checker could tell: the line's expression, and the head of the map or table.
    joins: Vec<(Span, Span)>,
}

impl Assist {
    /// Looks through files that have been loaded, faults or not.
    pub fn new(loaded: &Loaded) -> Self {
        let sources = loaded.sources.clone();
        let outlines: Vec<Outline> = sources.ids().map(|id| Outline::read(sources.text(id))).collect();
        let index = Index::new(&sources, &outlines);
        Self { sources, index, joins: loaded.joins.clone() }
    }

    /// The same knowledge, with another text of one file: what was typed since.
    #[must_use]
    pub fn with_text(&self, id: SourceId, text: &str) -> View<'_> {
        View { assist: self, source: id, text: text.to_owned(), outline: Outline::read(text) }
    }

    /// A file that does not belong to the set, such as a shipped one that is only read.
    #[must_use]
    pub fn of_text(&self, text: &str) -> View<'_> {
        self.with_text(SourceId(u32::MAX), text)
    }

    /// The texts.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }
}

/// One file with the text that the editor has.
pub struct View<'a> {
    assist: &'a Assist,
    source: SourceId,
    text: String,
    outline: Outline,
}

impl View<'_> {
    /// What may be written at a byte of the text.
    pub fn complete(&self, at: usize) -> Vec<Suggestion> {
        complete::complete(self, self.floor(at))
    }

    /// What stands at a byte of the text.
    pub fn hover(&self, at: usize) -> Option<Hover> {
        hover::hover(self, self.floor(at))
    }

    /// Where what stands at a byte of the text is defined.
    pub fn define(&self, at: usize) -> Vec<Span> {
        define::define(self, self.floor(at))
    }

    fn floor(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at).rev().find(|n| self.text.is_char_boundary(*n)).unwrap_or(0)
    }

    fn part(&self, range: &std::ops::Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or("")
    }
}
