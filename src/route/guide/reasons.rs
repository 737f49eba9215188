//! Why rows of the guide are not followed: `docs/guide-reasons.yaml`.

use crate::diagnostic::Sources;
use crate::route::yaml::{self, Content};

/// What the file says: patterns of rows, each with its text.
#[derive(Default)]
pub(crate) struct Reasons {
    /// How a row's target is to be read.
    pub(crate) reads: Vec<Entry>,
    /// Sheets of codes whose codes reach an element without a system as they are sent: the row that says so.
    pub(crate) carried: Vec<Entry>,
    /// Why a row is not followed.
    pub(crate) reasons: Vec<Entry>,
}

pub(crate) struct Entry {
    pub(crate) pattern: String,
    pub(crate) text: String,
    pub(crate) used: bool,
}

impl Reasons {
    /// The file's three mappings; anything else in it is as good as absent, and an entry that is nowhere used is told.
    pub(crate) fn read(text: &str) -> Self {
        let mut sources = Sources::default();
        let id = sources.add("docs/guide-reasons.yaml", text);
        let (documents, _) = yaml::documents(&sources, id);
        let mut made = Self::default();
        for document in documents {
            let Content::Mapping(parts) = document.content else { continue };
            for (name, entries) in parts {
                let Content::Mapping(entries) = entries.content else { continue };
                let list = match name.text() {
                    "reads" => &mut made.reads,
                    "carried" => &mut made.carried,
                    _ => &mut made.reasons,
                };
                for (pattern, text) in entries {
                    list.push(Entry { pattern: pattern.text().to_owned(), text: text.text().trim().to_owned(), used: false });
                }
            }
        }
        made
    }
}

impl Entry {
    /// A pattern is a row's name or its beginning, up to a whole word; `*` is anything.
    pub(crate) fn fits(&self, name: &str) -> bool {
        fits(&self.pattern, name)
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => name.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '.', '[', '(', ')'])),
        Some((head, rest)) => {
            let Some(tail) = name.strip_prefix(head) else { return false };
            rest.is_empty() || tail.char_indices().any(|(n, _)| fits(rest, tail.get(n..).unwrap_or("")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_beginning_of_whole_words() {
        assert!(fits("PID[Patient] PID-2", "PID[Patient] PID-2 identifier[1]"));
        assert!(!fits("PID[Patient] PID-2", "PID[Patient] PID-21 $this"));
        assert!(fits("* extension??*", "PV2[Encounter] PV2-7 extension??-a"));
        assert!(fits("ADT_*.SFT", "ADT_A01 ADT_A01.SFT Device"));
        assert!(!fits("ADT_*.SFT", "ADT_A01 ADT_A01.EVN Device"));
    }
}
