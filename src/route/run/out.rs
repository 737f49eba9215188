//! Where what is made goes.

use crate::fhir::Node;

/// The place that the next element or entry belongs to. It is written there at once: moving what was written just now costs more than making it.
pub(crate) enum Out<'o> {
    /// An object's elements, under their names.
    Elements(&'o mut Vec<(&'static str, Node)>),
    /// A list's entries; its name is known already.
    Entries(&'o mut Vec<Node>),
}

impl Out<'_> {
    #[inline(always)]
    pub(crate) fn push(&mut self, name: &'static str, node: Node) {
        match self {
            Self::Elements(elements) => elements.push((name, node)),
            Self::Entries(entries) => entries.push(node),
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Elements(elements) => elements.len(),
            Self::Entries(entries) => entries.len(),
        }
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        match self {
            Self::Elements(elements) => elements.truncate(len),
            Self::Entries(entries) => entries.truncate(len),
        }
    }

    /// What was made at this place, with its name if it has one of its own.
    pub(crate) fn get_mut(&mut self, n: usize) -> Option<(Option<&mut &'static str>, &mut Node)> {
        match self {
            Self::Elements(elements) => elements.get_mut(n).map(|(name, node)| (Some(name), node)),
            Self::Entries(entries) => entries.get_mut(n).map(|node| (None, node)),
        }
    }
}
